"""``gpucal export``: calibrated spectra in the formats of other programs."""

from __future__ import annotations

import importlib
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpucal.cli.options.complete import complete_scans
from gpucal.cli.options.scans import chosen_scans

if TYPE_CHECKING:
    from gpucal.export.rows import Selection

app = typer.Typer(
    help="Write spectra for other programs.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

WRITERS = {
    "sdfits": ("gpucal.io.fits.sdfits_write", "write_sdfits"),
    "class": ("gpucal.io.gildas.writer", "write_class"),
    "class-fits": ("gpucal.io.fits.class_fits", "write_class_fits"),
    "fits1d": ("gpucal.io.fits.one_spectrum", "write_fits1d"),
}
"""Command -> module and function ``(path, spectra, *, overwrite) -> number of spectra``."""


class Average(StrEnum):
    """What is averaged before it is written."""

    none = "none"
    dumps = "dumps"
    subscans = "subscans"


class Scale(StrEnum):
    """The temperature scale that is written."""

    ta = "ta"
    tmb = "tmb"


L1Argument = Annotated[Path, typer.Argument(metavar="L1", help="Calibrated store.")]
FileArgument = Annotated[Path, typer.Argument(metavar="OUT", help="File to write.")]
FolderArgument = Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make.")]
ScansOption = Annotated[
    str,
    typer.Option(
        "--scans",
        metavar="1,5-9",
        help="Only these scans; all by default.",
        autocompletion=complete_scans,
    ),
]
AverageOption = Annotated[
    Average, typer.Option("--average", help="Average over dumps, or over dumps and subscans.")
]
ScaleOption = Annotated[Scale, typer.Option("--scale", help="T_A*, or T_mb = T_A* f_eff/b_eff.")]
BeamOption = Annotated[
    float | None,
    typer.Option("--b-eff", metavar="X", help="Main-beam efficiency; else the scan's own."),
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace what an earlier export wrote.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Print nothing but warnings.")]


@app.callback()
def group() -> None:
    """Write spectra for other programs."""


@app.command("sdfits")
def sdfits(
    l1: L1Argument,
    out: FileArgument,
    scans: ScansOption = "",
    average: AverageOption = Average.none,
    scale: ScaleOption = Scale.ta,
    b_eff: BeamOption = None,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """SDFITS with the columns of the GBT: dysh, GBTIDL."""
    chosen = _selection(scans, average, scale, b_eff)
    _export("sdfits", l1, out, chosen, overwrite=overwrite, quiet=quiet)


@app.command("class")
def class_file(
    l1: L1Argument,
    out: FileArgument,
    scans: ScansOption = "",
    average: AverageOption = Average.none,
    scale: ScaleOption = Scale.ta,
    b_eff: BeamOption = None,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """The binary format of GILDAS CLASS."""
    chosen = _selection(scans, average, scale, b_eff)
    _export("class", l1, out, chosen, overwrite=overwrite, quiet=quiet)


@app.command("class-fits")
def class_fits(
    l1: L1Argument,
    out: FileArgument,
    scans: ScansOption = "",
    average: AverageOption = Average.none,
    scale: ScaleOption = Scale.ta,
    b_eff: BeamOption = None,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """FITS for GILDAS CLASS: a MATRIX table, for fits read."""
    chosen = _selection(scans, average, scale, b_eff)
    _export("class-fits", l1, out, chosen, overwrite=overwrite, quiet=quiet)


@app.command("fits1d")
def fits1d(
    l1: L1Argument,
    out: FolderArgument,
    scans: ScansOption = "",
    average: AverageOption = Average.none,
    scale: ScaleOption = Scale.ta,
    b_eff: BeamOption = None,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """One-dimensional FITS, a file per spectrum: pyspeckit, specutils, most other programs."""
    chosen = _selection(scans, average, scale, b_eff)
    _export("fits1d", l1, out, chosen, overwrite=overwrite, quiet=quiet)


@app.command("raw-fits")
def raw_fits(
    store: Annotated[Path, typer.Argument(metavar="L0", help="L0 store of raw counts.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the files.")],
    scans: ScansOption = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that hold something else.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but warnings.")] = False,
) -> None:
    """Write raw scans (heterodyne and bolometer) as FITS: one file per scan, a table per subscan.

    ``gpucal import raw-fits`` makes the same L0 store from the files again.
    """
    from gpucal.io.raw_fits.writer import export_raw_fits

    paths = export_raw_fits(store, out, scans=chosen_scans(scans), overwrite=overwrite)
    if not quiet:
        print(f"{len(paths)} files in {out}")


def _selection(scans: str, average: Average, scale: Scale, b_eff: float | None) -> Selection:
    """The options that all formats of spectra share, checked."""
    from gpucal.export.rows import Selection

    if b_eff is not None and not 0 < b_eff <= 1:
        raise typer.BadParameter(f"--b-eff is {b_eff:g}, expected a number in 0..1")
    return Selection(chosen_scans(scans), average.value, scale.value, b_eff)


def _export(
    command: str, l1: Path, out: Path, selection: Selection, *, overwrite: bool, quiet: bool
) -> None:
    """Write the spectra of a store in the format of a command, and say how many."""
    from gpucal.export.rows import spectra_of_store
    from gpucal.io.l1.reader import open_l1

    module, function = WRITERS[command]
    write = getattr(importlib.import_module(module), function)
    count = write(out, spectra_of_store(open_l1(l1), selection), overwrite=overwrite)
    if not quiet:
        typer.echo(f"{count} {'spectrum' if count == 1 else 'spectra'} in {out}")
