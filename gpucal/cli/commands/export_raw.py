"""``gpucal export raw-fits``: raw scans as FITS, one file per scan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpucal.config import parse_scans


def raw_fits(
    store: Annotated[Path, typer.Argument(metavar="L0", help="L0 store of raw counts.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the files.")],
    scans: Annotated[
        str, typer.Option(metavar="LIST", help="Scan numbers such as 1,5-9; all by default.")
    ] = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that hold something else.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but warnings.")] = False,
) -> None:
    """Write raw scans (heterodyne and bolometer) as FITS: one file per scan, a table per subscan.

    ``gpucal import raw-fits`` makes the same L0 store from the files again.
    """
    from gpucal.io.raw_fits.writer import export_raw_fits

    try:
        wanted = parse_scans(scans)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    paths = export_raw_fits(store, out, scans=wanted, overwrite=overwrite)
    if not quiet:
        print(f"{len(paths)} files in {out}")
