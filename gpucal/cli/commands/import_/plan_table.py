"""The plan of an import as a table: one row per scan and band, as ``--dry-run`` prints it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from rich import box
from rich.markup import escape
from rich.table import Table

from gpucal.cli.show.summary import make_console
from gpucal.io.incoming.protocol import ImportPlan, PlannedBand, PlannedScan

COLUMNS = (
    *("scan", "kind", "source", "backend", "subscans", "channels", "dumps", "pixels"),
    *("loads", "load scan", "problems"),
)
_RIGHT = ("channels", "dumps")
_LISTED = 6
"""Subscans that are named one by one."""


def print_plan(plan: ImportPlan, out: Path | None, *, only: Collection[int] | None = None) -> None:
    """Print the scans of a plan; out: the store, to say what is there already; only: these numbers."""
    there = _there(plan, out)
    scans = [scan for scan in plan.scans if only is None or scan.number in only]
    if not scans:
        return
    rows = [_row(scan, band, there) for scan in scans for band in scan.bands]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    # a column that is empty throughout says nothing
    shown = [i for i, _ in enumerate(COLUMNS) if i == 0 or any(row[i] for row in rows)]
    for i in shown:
        table.add_column(COLUMNS[i], justify="right" if COLUMNS[i] in _RIGHT else "left")
    for row in rows:
        table.add_row(*(escape(row[i]) for i in shown))
    make_console().print(table, highlight=False)


def _row(scan: PlannedScan, band: PlannedBand, there: Collection[int]) -> tuple[str, ...]:
    channels, dumps, receivers, pixels = band.shape
    problems = [*scan.problems, *(["is in the store already"] if scan.number in there else [])]
    science = bool(band.modes)
    return (
        f"{scan.number} {band.band}".strip(),
        scan.kind,
        scan.source,
        band.backend,
        counted(band.modes),
        str(channels),
        str(dumps),
        f"{pixels} x {receivers}" if receivers > 1 else str(pixels),
        counted(band.loads),
        str(band.load_scan)
        if band.load_scan >= 0
        else ("none" if science and not band.loads else ""),
        "; ".join(problems),
    )


def counted(modes: Sequence[str]) -> str:
    """Few subscans one by one, many by how often each mode occurs: "12 ON, 4 OFF"."""
    if len(modes) <= _LISTED:
        return " ".join(modes)
    return ", ".join(f"{modes.count(mode)} {mode}" for mode in dict.fromkeys(modes))


def _there(plan: ImportPlan, out: Path | None) -> set[int]:
    """Numbers of the plan's scans that the store holds as they are."""
    if out is None or not out.exists():
        return set()
    from gpucal.io.l0.store import open_l0

    store = open_l0(out)
    numbers = set(store.numbers())
    held = [scan for scan in plan.scans if scan.number in numbers]
    return {scan.number for scan in held if scan.same_as(store.scan_group(scan.number))}
