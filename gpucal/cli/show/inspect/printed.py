"""The printed form of ``gpucal inspect``: one line about the store, a table, warnings, problems."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gpucal.cli.show.inspect.rows import Row
from gpucal.cli.show.summary import make_console
from gpucal.scan_numbers import scan_ranges


def print_report(report: Row) -> None:
    """Print what a raw or a calibrated store holds."""
    console = make_console()
    rows = report["scans"]
    kinds = [row["kind"] for row in {row["scan"]: row for row in rows}.values()]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)) or "no scan"
    names = [str(report[key]) for key in ("telescope", "instrument") if report[key]]
    head = [f"{report['path']}: {report['format']}", *names, counts, _size(report["bytes"])]
    console.print(escape(", ".join(head)), highlight=False, soft_wrap=True)
    if rows:
        console.print(_table(rows))
    warnings = [
        f"scan {row['scan']} {row['band']}".rstrip() + f": {w}"
        for row in rows
        for w in row["warnings"]
    ]
    _print_lines(console, "remark", report["remarks"])
    _print_lines(console, "warning", [*warnings, *report["warnings"]])
    for line in _assumed(rows):
        console.print(escape(line), highlight=False, soft_wrap=True)
    _print_lines(console, "problem", report["problems"])


def _assumed(rows: Sequence[Row]) -> list[str]:
    """A line for each thing that the importer assumed, or took from a profile.

    With the scans it holds for, unless these are all.
    """
    scans: dict[str, set[int]] = {}
    for row in rows:
        for entry in row.get("assumptions", ()):
            how = "from the profile" if entry["from"] == "profile" else "assumed"
            line = f"{how}: {entry['what']} = {entry['value']} ({entry['why']})"
            scans.setdefault(line, set()).add(row["scan"])
    every = {row["scan"] for row in rows}
    return [
        line if numbers == every else f"{line}, {scan_ranges(numbers)}"
        for line, numbers in scans.items()
    ]


def _print_lines(console: Console, name: str, lines: Sequence[str]) -> None:
    """Print each different line once."""
    for line in dict.fromkeys(lines):
        console.print(escape(f"{name}: {line}"), highlight=False, soft_wrap=True)


def _type(row: Row) -> str:
    """The type of the samples, and the step that they are multiples of."""
    step = row["rounding_step_k"]
    return (row["dtype"] or "-") if step is None else f"{row['dtype']}, {step:.3g} K steps"


def _table(rows: Sequence[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("scan", "kind", "mode", "source", "C,D,R,A,S", "dtype", "size", "GHz", "loads"):
        table.add_column(name, no_wrap=True, justify="right" if name == "size" else "left")
    for row in rows:
        span = row["frequency_ghz"]
        cells = (
            f"{row['scan']} {row['band']}".rstrip(),
            row["kind"],
            row["mode"] or " ".join(f"{n}x{mode}" for mode, n in row["subscans"].items()) or "-",
            row["source"] or "-",
            ",".join(str(n) for n in row["shape"]) or "-",
            _type(row),
            _size(row["bytes"]),
            f"{span[0]:.3f}-{span[1]:.3f}" if span else "-",
            f"{row['load_scan']} {row['load_rule']}".rstrip()
            if row["load_scan"] is not None
            else "-",
        )
        table.add_row(*(escape(cell) for cell in cells), style="red" if row["problems"] else "")
    return table


def _size(nbytes: float) -> str:
    """Bytes in words."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:.3g} TB"
