"""Pictures of an L1 store; matplotlib is imported only when one is drawn."""

from __future__ import annotations

from pathlib import Path


def plot_store(
    l1_path: str | Path, out_dir: str | Path, scan: int | None = None, fmt: str = "png"
) -> list[Path]:
    """Draw spectra, array footprint and waterfall of every scan (or of ``scan``), and the night.

    ``fmt`` is "png" or "svg". Returns the files written, in order. Memory stays bounded whatever
    the size of the scans. Raises L1Error for a store that cannot be read or has no such scan,
    ConfigError for an unknown format, GpucalError when matplotlib is missing or the folder
    cannot be written.
    """
    from gpucal.errors import GpucalError
    from gpucal.plot.array import plot_array
    from gpucal.plot.binning import read_binned
    from gpucal.plot.source import open_views
    from gpucal.plot.spectra import plot_spectra
    from gpucal.plot.style import check_format, require_matplotlib
    from gpucal.plot.trend import plot_night
    from gpucal.plot.waterfall import central_pixel, plot_waterfall

    ending = check_format(fmt)
    views = open_views(l1_path, scan)
    require_matplotlib()
    folder = Path(out_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GpucalError(f"the folder {folder} cannot be made: {error.strerror}.") from error
    written: list[Path] = []
    for view in views:
        binned = read_binned(view, central_pixel(view))
        name = folder / f"{view.stem}_spectra.{ending}"
        plot_spectra(view, binned, name)
        written.append(name)
        written += plot_array(view, binned, folder / f"{view.stem}_array.{ending}")
        name = folder / f"{view.stem}_waterfall.{ending}"
        plot_waterfall(view, binned, name)
        written.append(name)
    night = folder / f"night.{ending}"
    count = len({view.number for view in views})
    plot_night(views, night, f"{Path(l1_path).name}: {count} scan{'s' if count > 1 else ''}")
    return [*written, night]
