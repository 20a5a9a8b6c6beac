"""``gpucal plot``: pictures of a calibrated store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpucal.plot import plot_store


def plot(
    l1: Annotated[Path, typer.Argument(metavar="L1", help="Calibrated store.")],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="DIR", help="Folder for the pictures.")
    ],
    scan: Annotated[
        int | None, typer.Option("--scan", metavar="N", help="Only this scan; all by default.")
    ] = None,
    fmt: Annotated[str, typer.Option("--format", metavar="png|svg", help="Kind of file.")] = "png",
) -> None:
    """Draw spectra, T_rec and T_sys on the array footprint, waterfall, and PWV and QA per scan."""
    for path in plot_store(l1, out, scan, fmt):
        typer.echo(str(path))
