"""``gpucal plot``: pictures of a calibrated store."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from gpucal.cli.options.complete import complete_scans, complete_words
from gpucal.cli.options.scans import chosen_scans
from gpucal.errors import GpucalError, GpucalWarning

MAX_IN_MEMORY = 2 * 2**30
"""Bytes of spectra (as float64) up to which the picture before folding is offered."""


def plot(
    l1: Annotated[Path, typer.Argument(metavar="L1", help="Calibrated store, or CLASS file.")],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="DIR", help="Folder for the pictures.")
    ],
    scans: Annotated[
        str,
        typer.Option(
            "--scans",
            "--scan",
            metavar="1,5-9",
            help="Only these scans; all by default.",
            autocompletion=complete_scans,
        ),
    ] = "",
    fmt: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="png|svg",
            help="Kind of file.",
            autocompletion=complete_words("png", "svg"),
        ),
    ] = "png",
    l0: Annotated[
        Path | None,
        typer.Option(
            "--l0",
            metavar="STORE",
            help="Raw store of the night: adds load counts, age of the loads, and frequency "
            "switching before the fold.",
        ),
    ] = None,
    window: Annotated[
        str,
        typer.Option(
            "--window",
            metavar="LO,HI",
            help="What a map integrates: km/s, or channels as LO,HIch. Default: inner 80 %.",
        ),
    ] = "",
    beam: Annotated[
        float | None,
        typer.Option("--beam", metavar="ARCSEC", help="Beam for maps; default: 1.2 lambda/D."),
    ] = None,
) -> None:
    """Draw spectra, T_rec and T_sys on the array footprint, waterfall, OTF map, and the night."""
    from gpucal.io.gildas.reader import is_class_file
    from gpucal.plot import PlotOptions, plot_store
    from gpucal.plot.class_spectra import plot_class

    chosen = chosen_scans(scans)
    options = PlotOptions(l0=l0, unfold=unfolded_mean, window=window, beam=beam)
    written = (
        plot_class(l1, out, chosen, fmt)
        if is_class_file(l1)
        else plot_store(l1, out, chosen, fmt, options)
    )
    for path in written:
        typer.echo(str(path))


def unfolded_mean(scan: Any, load: Any, view: Any) -> Any:
    """T_A* of a frequency-switched raw scan before folding, f64 [C,R,A] K, mean over dumps and subscans.

    Calibrated in memory as ``view`` (L1) was, with its PWV instead of a fit. None, with a GpucalWarning
    that says why, when that is not possible.
    """
    import numpy as np

    from gpucal.calibrated_scan import calibrate_scan
    from gpucal.config import CalibrationConfig

    try:
        if 8 * int(np.prod(view.arrays["spectra"].shape)) > MAX_IN_MEMORY:
            raise GpucalError("the scan is too large to calibrate in memory.")
        config = CalibrationConfig(**_unfolded_options(view))
        found = calibrate_scan(scan, config, load=load)
    except (GpucalError, ValueError) as error:
        text = f"{view.label}: no picture before folding: {error}"
        warnings.warn(text, GpucalWarning, stacklevel=2)
        return None
    spectra = np.asarray(found.spectra)
    good = np.isfinite(spectra)
    count = good.sum(axis=(1, 4))
    total = np.where(good, spectra, 0.0).sum(axis=(1, 4))
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _unfolded_options(view: Any) -> dict[str, Any]:
    """The configuration of an L1 scan without the fold, with the table and the PWV it came out with."""
    import numpy as np

    options = {**dict(view.attrs.get("config") or {}), "fold": False, "backend": "cpu"}
    table = (dict(view.attrs.get("provenance") or {})).get("atmosphere_table") or {}
    if options.get("atmosphere") == "auto" and table.get("name"):
        options["atmosphere"] = table["name"]
    pwv = np.ravel(view.small("pwv") if "pwv" in view.arrays else np.nan)
    pwv = pwv[np.isfinite(pwv)]
    if options.get("pwv") == "fit" and pwv.size and np.median(pwv) > 0:
        options["pwv"] = float(np.median(pwv))
    return options
