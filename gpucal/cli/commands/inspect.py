"""``gpucal inspect``: what a raw or a calibrated store holds, and what is wrong with it."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpucal.cli.options.complete import complete_scans, complete_words
from gpucal.cli.options.scans import chosen_scans
from gpucal.errors import ConfigError, GpucalError

if TYPE_CHECKING:
    from gpucal.cli.show.inspect.rows import Row

EXIT_UNUSABLE = 1
EXIT_PROBLEMS = 2
TABLES = ("csv", "ecsv", "json")


def inspect_store(
    store: Annotated[
        Path,
        typer.Argument(metavar="STORE", help="Raw (L0), calibrated (L1), or a CLASS file."),
    ],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    table: Annotated[
        str | None,
        typer.Option(
            "--table",
            metavar="csv|ecsv|json",
            help="Print the night as a table for other programs; problems go to stderr.",
            autocompletion=complete_words(*TABLES),
        ),
    ] = None,
    scans: Annotated[
        str,
        typer.Option(
            "--scans",
            metavar="1,5-9",
            help="Only these scans; all by default.",
            autocompletion=complete_scans,
        ),
    ] = "",
) -> None:
    """Show the scans of a store: modes, shapes, sizes, which load scan serves which, problems.

    Exit codes: 0 no problems, 1 nothing usable, 2 some scans have problems.
    """
    chosen = chosen_scans(scans)
    if table is not None and table not in TABLES:
        raise ConfigError(f"--table is {table!r}, expected {', '.join(TABLES)}.")
    if table is not None and json:
        raise ConfigError("--table and --json exclude each other.")
    report = describe_store(store, chosen, night=table is not None)
    _check_found(report, chosen)
    _show(report, table, json)
    raise typer.Exit(exit_code(report))


def _show(report: Row, table: Any, json: bool) -> None:
    """Print the report in the form that was asked for."""
    if table is not None:
        from gpucal.cli.show.inspect.table import table_text

        sys.stdout.write(table_text(report, table))
        for line in report["problems"]:
            print(f"gpucal: problem: {line}", file=sys.stderr)
    elif json:
        from gpucal.io.files.json_text import dumps

        print(dumps(report, indent=2))
    elif report["format"] == "class":
        from gpucal.cli.show.class_report import print_class

        print_class(report)
    else:
        from gpucal.cli.show.inspect.printed import print_report

        print_report(report)


def _check_found(report: Row, chosen: Collection[int] | None) -> None:
    """Refuse scans that were asked for and are not there."""
    missing = sorted(set(chosen or ()) - {row["scan"] for row in report["scans"]})
    if chosen and len(missing) == len(chosen):
        what = ", ".join(str(n) for n in missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise GpucalError(
            f"{report['path']} has no scan {what}.",
            hint=f"See gpucal inspect {report['path']}.",
        )


def exit_code(report: Row) -> int:
    """0 without problems, 2 when some scans have one, 1 when no scan is free of them."""
    rows = report["scans"]
    if rows and not any(row["problems"] for row in rows):
        return EXIT_PROBLEMS if report["problems"] else 0
    return EXIT_PROBLEMS if any(not row["problems"] for row in rows) else EXIT_UNUSABLE


def describe_store(
    path: Path, chosen: Collection[int] | None = None, *, night: bool = False
) -> Row:
    """Return what ``gpucal inspect`` shows; only metadata and small arrays are read.

    chosen: scan numbers, None for all; night: with the columns of ``--table``, for which t_sys is read too. Raises
    L0Error, L1Error or, for a CLASS file, ImportFormatError when it is unusable as a whole.
    """
    from gpucal.io.chunks.zarr_metadata import read_group
    from gpucal.io.gildas.reader import is_class_file

    if is_class_file(path):
        from gpucal.cli.show.class_report import describe_class

        report = describe_class(path)
        rows = [row for row in report["scans"] if chosen is None or row["scan"] in chosen]
        return {**report, "scans": rows}
    document = read_group(path)
    if document is not None and str(document.get("format", "")).startswith("gpucal-l1"):
        from gpucal.cli.show.inspect.calibrated_store import describe_l1
        from gpucal.io.l1.reader import open_l1

        return describe_l1(open_l1(path), chosen, night=night)
    from gpucal.cli.show.inspect.raw_store import describe_l0
    from gpucal.io.l0.store import open_l0

    return describe_l0(open_l0(path), chosen)
