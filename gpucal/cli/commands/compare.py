"""``gpucal compare``: what changed between two calibrations."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpucal.cli.options.complete import complete_scans
from gpucal.cli.options.scans import chosen_scans
from gpucal.errors import ConfigError

if TYPE_CHECKING:
    from gpucal.compare.products import StoreComparison

EXIT_NOTHING, EXIT_DIFFERENT = 1, 2

CLASS_RTOL = 0.03
"""Two programs with the same data and other opacities agree as well as this."""


def compare(
    stores: Annotated[
        list[str],
        typer.Argument(
            metavar="OLD NEW | class L1 FILE",
            help="Two calibrated stores (L1) of the same scans; or one, and a CLASS file of the same data.",
            show_default=False,
        ),
    ],
    scans: Annotated[
        str,
        typer.Option(
            "--scans",
            metavar="1,5-9",
            help="Only these scans; all by default.",
            autocompletion=complete_scans,
        ),
    ] = "",
    rtol: Annotated[
        float | None,
        typer.Option(
            "--rtol",
            metavar="X",
            help="Largest relative change that does not count; 0, or 0.03 for a CLASS file.",
        ),
    ] = None,
    sigma: Annotated[
        float,
        typer.Option(
            "--sigma",
            metavar="X",
            help="Largest change that does not count, over the noise of a dump (T_A*) or the known error.",
        ),
    ] = 0.0,
    truth: Annotated[
        Path | None,
        typer.Option(
            "--truth",
            metavar="F",
            help="Also compare both with the truth of a simulated night (gpucal simulate --truth F).",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="F", help="Draw every pixel of every scan into this file."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare two calibrations of the same scans: T_A*, temperatures, water, flags, axes, settings.

    With the word class: hold T_A*, T_sys* and the frequency axis against a CLASS file (.30m, .apex, .fyst) that
    another program made of the same data. Exit codes: 0 nothing differs by more than the tolerance, 1 nothing can be
    compared, 2 something differs, one lacks a scan, or NEW does not agree with the truth although OLD does.
    """
    of_class = _is_of_class(stores)
    for name, value in (("--rtol", rtol or 0.0), ("--sigma", sigma)):
        if not 0 <= value < float("inf"):
            raise ConfigError(f"{name} is {value:g}, expected a number at least 0.")
    if not of_class:
        raise typer.Exit(_two_stores(stores, scans, (rtol or 0.0, sigma), (truth, plot), json))
    if sigma or truth or plot:
        raise ConfigError("--sigma, --truth and --plot compare two stores, not a CLASS file.")
    raise typer.Exit(_with_class(stores[1:], scans, CLASS_RTOL if rtol is None else rtol, json))


def _is_of_class(stores: list[str]) -> bool:
    """Whether a CLASS file is meant; raises ConfigError where neither it nor two stores are given."""
    if len(stores) == 3 and stores[0] == "class":
        return True
    if len(stores) != 2:
        raise ConfigError(
            f"{len(stores)} arguments were given, expected OLD NEW, or class L1 FILE.",
            hint="gpucal compare OLD NEW, or gpucal compare class L1 FILE.30m",
        )
    return False


def _two_stores(
    stores: list[str],
    scans: str,
    tolerance: tuple[float, float],
    files: tuple[Path | None, Path | None],
    json: bool,
) -> int:
    """``gpucal compare OLD NEW`` with --rtol and --sigma, --truth and --plot; returns the exit code."""
    from gpucal.cli.show.comparison import show_comparison, truth_rows
    from gpucal.compare.picture import plot_comparison
    from gpucal.compare.stores import compare_stores

    truth, plot = files
    shown = sys.stderr.isatty() and not json
    chosen = chosen_scans(scans)
    found = compare_stores(*stores, scans=chosen, progress=_progress if shown else None)
    if shown:
        print("\r\x1b[K", end="", file=sys.stderr)
    rows = None if truth is None else truth_rows(found, truth)
    if plot is not None:
        plot_comparison(found, plot)
    show_comparison(found, *tolerance, rows, as_json=json)
    worse = any(row.old_holds and not row.new_holds for row in rows or ())
    return EXIT_DIFFERENT if worse or _differs(found, *tolerance) else 0


def _with_class(names: list[str], scans: str, rtol: float, json: bool) -> int:
    """``gpucal compare class``: print the rows and the verdict; returns the exit code."""
    from gpucal.cli.show.class_comparison import print_class_comparison
    from gpucal.compare.class_file import compare_class
    from gpucal.io.files.json_text import dumps

    shown = sys.stderr.isatty() and not json
    found = compare_class(*names, scans=chosen_scans(scans), progress=_progress if shown else None)
    if shown:
        print("\r\x1b[K", end="", file=sys.stderr)
    if json:
        print(dumps(found.to_dict(rtol), indent=1))
    else:
        print_class_comparison(found, rtol)
    if not found.rows:
        return EXIT_NOTHING
    return 0 if found.agrees(rtol) else EXIT_DIFFERENT


def _differs(found: StoreComparison, rtol: float, sigma: float) -> bool:
    return bool(found.differing(rtol, sigma) or found.only_old or found.only_new)


def _progress(name: str) -> None:
    print(f"\r\x1b[K{name[:76]}", end="", file=sys.stderr, flush=True)
