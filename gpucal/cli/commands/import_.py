"""``gpucal import``: raw data of other telescopes into an L0 store."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from gpucal.cli.options.scans import chosen_scans

if TYPE_CHECKING:
    from gpucal.io.gbt.plan import Lost

app = typer.Typer(
    help="Turn the raw data of a telescope into an L0 store.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def group() -> None:
    """Turn the raw data of a telescope into an L0 store."""


@app.command("sdfits")
def sdfits(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE.. OUT",
            help="GBT SDFITS files of one night (one per bank), then the L0 store to make.",
        ),
    ],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the L0 store if it is there.")
    ] = False,
    flags: Annotated[
        bool,
        typer.Option(
            "--flags/--no-flags",
            help="Heed .flag files beside the SDFITS files, and a column FLAGS.",
        ),
    ] = True,
    scans: Annotated[
        str, typer.Option("--scans", metavar="1,5-9", help="Only these scans; all by default.")
    ] = "",
    bands: Annotated[str, typer.Option("--bands", help="Only these IFNUM, e.g. 0,2.")] = "",
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but warnings.")] = False,
) -> None:
    """Import GBT SDFITS files (vane, W-band loads, nods, position and frequency switching)."""
    if len(paths) < 2:
        raise typer.BadParameter("expected at least one file and the store to make")
    *files, out = paths
    from gpucal.io.gbt.importer import import_sdfits

    report = import_sdfits(
        files,
        out,
        overwrite=overwrite,
        flags=flags,
        scans=chosen_scans(scans),
        bands=_numbers(bands, "--bands"),
    )
    if not quiet:
        _print_table(out, report.scans)
    for sentence in _lost(report.lost):
        print(f"not imported: {sentence}", file=sys.stderr)
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def _lost(lost: Sequence[Lost]) -> list[str]:
    """One sentence for each reason, with all the scans and bands that it cost."""
    places: dict[str, list[str]] = {}
    for one in lost:
        place = f"{one.scan} {one.band}".strip()
        places.setdefault(one.reason, []).append(place)
    return [
        f"scan{'s' if len(where) > 1 else ''} {', '.join(where)}: {reason}"
        for reason, where in places.items()
    ]


def _numbers(text: str, option: str) -> frozenset[int] | None:
    from gpucal.scan_numbers import parse_scans

    try:
        return parse_scans(text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}", param_hint=option) from None


@app.command("raw-fits")
def raw_fits(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE.. OUT",
            help="Files that gpucal export raw-fits wrote, then the L0 store to make or to add to.",
        ),
    ],
    scans: Annotated[
        str, typer.Option("--scans", metavar="1,5-9", help="Only these scans; all by default.")
    ] = "",
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but warnings.")] = False,
) -> None:
    """Make an L0 store from raw FITS files; scans that are there already are kept."""
    if len(paths) < 2:
        raise typer.BadParameter("expected at least one file and the store to make")
    *files, out = paths
    from gpucal.io.raw_fits.importer import import_raw_fits

    report = import_raw_fits(files, out, scans=chosen_scans(scans))
    if not quiet:
        kept = f", {len(report.present)} were there already" if report.present else ""
        print(f"{len(report.scans)} scans written to {out}{kept}")
    for error in report.lost:
        print(f"not imported: {error}", file=sys.stderr)
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def _print_table(out: Path, numbers: Sequence[int]) -> None:
    """One row per scan and band: what it is, its shape, and its load scan."""
    from gpucal.cli.show.summary import make_console
    from gpucal.io.l0.store import open_l0

    store = open_l0(out)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("scan", "GBT scans", "source", "subscans", "channels", "dumps", "pixels"):
        table.add_column(name, justify="right" if name in ("channels", "dumps") else "left")
    table.add_column("load scan")
    for number in numbers:
        for scan in store.load(number, t_hot_given=True):
            members = scan.source or scan.calibration
            assert members is not None
            n_chan, n_dump, n_rec, n_pix, _ = members.shape
            load = int(members.lloadsn[0])
            table.add_row(
                escape(f"{number} {scan.band}".strip()),
                " ".join(str(n) for n in scan.attrs["gbt_scans"]),
                escape(str(scan.attrs["source"])),
                " ".join(members.sobsmode),
                str(n_chan),
                str(n_dump),
                f"{n_pix} x {n_rec}" if n_rec > 1 else str(n_pix),
                str(load) if load >= 0 else ("" if scan.source is None else "none"),
            )
    console = make_console()
    console.print(table, highlight=False)
    print(f"{len(numbers)} scans in {out}", file=sys.stdout)
