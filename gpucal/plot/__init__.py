"""Pictures of an L1 store; matplotlib is imported only when one is drawn."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpucal.plot.binning import Binned
    from gpucal.plot.source import ScanView
    from gpucal.scan import Scan

Unfold = Callable[[Any, Any, Any], Any]
"""(science Scan, load Scan, ScanView) -> T_A* before folding averaged over dumps and subscans, f64 [C,R,A] K."""


@dataclass(frozen=True)
class PlotOptions:
    """What ``plot_store`` draws beside its standard set.

    l0      raw store of the same night: counts of the loads, T_rec per channel, age of the loads, fold
    unfold  makes the spectrum before folding from the raw scan; needs ``l0``
    window  part of the band that a map integrates: "LO,HI" in km/s or "LO,HIch" in channels; "" = the
            inner 80 %
    beam    FWHM of the beam for maps, arcsec; None = from the telescope
    """

    l0: str | Path | None = None
    unfold: Unfold | None = None
    window: str = ""
    beam: float | None = None


def plot_store(
    l1_path: str | Path,
    out_dir: str | Path,
    scan: int | Collection[int] | None = None,
    fmt: str = "png",
    options: PlotOptions | None = None,
) -> list[Path]:
    """Draw spectra, array footprint, waterfall and map of every scan (or of ``scan``, one or several), and the night.

    ``scan``: a scan number, or several.

    ``fmt`` is "png" or "svg". Returns the files written, in order. Memory stays bounded whatever the
    size of the scans. Raises L1Error for a store that cannot be read or has no such scan, L0Error for
    a raw store that cannot, ConfigError for a wrong option, GpucalError when matplotlib is missing or
    the folder cannot be written.
    """
    from gpucal.plot.trend import plot_night

    written, views, ages = _draw_scans(l1_path, out_dir, scan, fmt, options)
    night = Path(out_dir) / f"night.{fmt.lower()}"
    count = len({view.number for view in views})
    where = str(views[0].store_attrs.get("telescope", ""))
    title = f"{Path(l1_path).name}: {count} scan{'s' if count > 1 else ''}   {where}".rstrip()
    plot_night(views, night, title, ages)
    return [*written, night]


def plot_scan(
    l1_path: str | Path,
    out_dir: str | Path,
    scan: int,
    fmt: str = "png",
    options: PlotOptions | None = None,
) -> list[Path]:
    """Draw one scan as ``plot_store`` does, without the picture of the night.

    Returns the files written, in order. Raises as ``plot_store``.
    """
    return _draw_scans(l1_path, out_dir, scan, fmt, options)[0]


def _draw_scans(
    l1_path: str | Path,
    out_dir: str | Path,
    scan: int | Collection[int] | None,
    fmt: str,
    options: PlotOptions | None,
) -> tuple[list[Path], list[ScanView], dict[tuple[int, str], float] | None]:
    """The files of the scans, the scans, and the ages of their loads (None without a raw store)."""
    from gpucal.errors import GpucalError
    from gpucal.plot.binning import read_binned
    from gpucal.plot.source import open_views
    from gpucal.plot.style import check_format, require_matplotlib
    from gpucal.plot.waterfall import central_pixel

    chosen = options or PlotOptions()
    ending = check_format(fmt)
    _check(chosen)
    views = open_views(l1_path, scan)
    raw = _RawNight(chosen)
    require_matplotlib()
    folder = Path(out_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GpucalError(f"the folder {folder} cannot be made: {error.strerror}.") from error
    written: list[Path] = []
    ages: dict[tuple[int, str], float] = {}
    for view in views:
        binned = read_binned(view, central_pixel(view))
        written += _draw_scan(view, binned, folder, ending, chosen)
        written += raw.draw(view, binned, folder, ending, ages)
    return written, views, None if raw.store is None else ages


def _check(options: PlotOptions) -> None:
    """Refuse a wrong option before anything is drawn."""
    from gpucal.errors import ConfigError
    from gpucal.plot.sky_map import parse_window

    if not isinstance(options, PlotOptions):
        raise ConfigError(f"options is {options!r}, expected a gpucal.PlotOptions.")
    if options.window:
        parse_window(options.window)
    if options.beam is not None and not options.beam > 0:
        raise ConfigError(f"the beam is {options.beam}, expected a positive number of arcsec.")


def _draw_scan(
    view: ScanView, binned: Binned, folder: Path, ending: str, options: PlotOptions
) -> list[Path]:
    """The pictures that the calibrated store alone gives."""
    from gpucal.errors import GpucalError, GpucalWarning
    from gpucal.plot.array import plot_array
    from gpucal.plot.sky_map import is_map, parse_window, plot_map
    from gpucal.plot.spectra import plot_spectra
    from gpucal.plot.waterfall import plot_waterfall

    def name(kind: str) -> Path:
        return folder / f"{view.stem}_{kind}.{ending}"

    plot_spectra(view, binned, name("spectra"))
    written = [name("spectra"), *plot_array(view, binned, name("array"))]
    plot_waterfall(view, binned, name("waterfall"))
    written.append(name("waterfall"))
    if is_map(view):
        window = parse_window(options.window) if options.window else None
        try:
            plot_map(view, name("map"), window, options.beam)
            written.append(name("map"))
        except GpucalError as error:  # one scan without a map is no reason to stop
            warnings.warn(f"no map: {error}", GpucalWarning, stacklevel=3)
    return written


class _RawNight:
    """The raw store beside the calibrated one; draws nothing without."""

    def __init__(self, options: PlotOptions) -> None:
        from gpucal.io.l0.store import open_l0

        self.store = None if options.l0 is None else open_l0(options.l0)
        self._unfold = options.unfold

    def draw(
        self,
        view: ScanView,
        binned: Binned,
        folder: Path,
        ending: str,
        ages: dict[tuple[int, str], float],
    ) -> list[Path]:
        """Loads and fold of one scan; enters the age of its loads in ``ages``, minutes."""
        from gpucal.plot.fold import plot_fold
        from gpucal.plot.loads import load_age, load_scan_of, plot_loads

        written: list[Path] = []
        if self.store is None:
            return written
        load = load_scan_of(self.store, view)
        if load is not None:
            ages[view.number, view.band] = load_age(view, load)
            path = folder / f"{view.stem}_loads.{ending}"
            plot_loads(view, binned, load, path)
            written.append(path)
        if self._unfold is not None and view.attrs.get("folded"):
            science = _science_scan(self.store, view)
            unfolded = None if science is None else self._unfold(science, load, view)
            if unfolded is not None and unfolded.shape == (view.shape[0], *view.shape[2:4]):
                path = folder / f"{view.stem}_fold.{ending}"
                plot_fold(view, binned, unfolded, _throws(science), path)
                written.append(path)
        return written


def _science_scan(store: Any, view: ScanView) -> Scan | None:
    """The raw scan and band of a view, counts unread; None when the raw store does not have it."""
    if view.number not in store.numbers():
        return None
    for scan in store.load(view.number, partial=True):
        if scan.band == view.band and scan.source is not None:
            return scan  # type: ignore[no-any-return]
    return None


def _throws(scan: Scan | None) -> Any:
    """Throws of the two phases of the first receiver, f64 [2] Hz; None when they are not recorded."""
    if scan is None or scan.source is None or scan.source.freq_throw is None:
        return None
    group = scan.source
    signal, reference = group.select("FSW-SIG"), group.select("FSW-REF")
    if not signal or not reference:
        return None
    return group.freq_throw[0, [signal[0], reference[0]]]  # type: ignore[index]
