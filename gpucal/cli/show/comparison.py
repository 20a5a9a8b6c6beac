"""The printed form of ``gpucal compare``: a row per scan and band, what the scans were made with, the verdict."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich import box
from rich.markup import escape
from rich.table import Table

from gpucal.cli.show.summary import make_console
from gpucal.compare.products import BandComparison, StoreComparison, Tolerance, middle
from gpucal.scan_numbers import scan_ranges

HEADINGS = (
    "scan",
    "T_A*\nratio",
    "largest\ndiff. [K]",
    "in\nsigma",
    "receiver,\npixel",
    "T_sys*\nratio",
    "T_rec\nratio",
    "PWV\ndiff. [mm]",
    "changed\nflags",
    "differs",
)


class TruthRow(NamedTuple):
    """A quantity of a simulated night: rms error in both stores, what noise leads to expect; NaN = not known."""

    quantity: str
    unit: str
    old: float
    new: float
    expected: float
    old_holds: bool
    new_holds: bool


def truth_rows(comparison: StoreComparison, truth: Path) -> list[TruthRow]:
    """How far both stores are from the truth. Raises L1Error when no scan of one of them is in it."""
    from gpucal.simulate import compare_to_truth
    from gpucal.simulate.verdict import NAMES, judge

    compared = {(band.scan, band.band) for band in comparison.bands}
    judged = []
    for store in (comparison.old, comparison.new):
        rows = [r for r in compare_to_truth(store, truth) if (r.scan, r.band) in compared]
        judged.append({verdict.quantity: verdict for verdict in judge(rows)})
    old, new = judged
    return [
        TruthRow(
            NAMES.get(name, name),
            new[name].unit,
            old[name].rms,
            new[name].rms,
            new[name].expected if new[name].unit else 0.0,
            old[name].holds,
            new[name].holds,
        )
        for name in new
        if name in old
    ]


def print_comparison(
    comparison: StoreComparison, rtol: float, sigma: float, truth: Sequence[TruthRow]
) -> None:
    """Print the table of scans, and that of the truth where there is one."""
    console = make_console()
    console.print(_table(comparison, Tolerance(rtol, sigma)))
    if truth:
        console.print(_truth_table(truth))


def _table(comparison: StoreComparison, tolerance: Tolerance) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in HEADINGS:
        left = name in ("scan", "differs")
        table.add_column(escape(name), justify="left" if left else "right", no_wrap=not left)
    for band in comparison.bands:
        names = band.differences(tolerance)
        said = ", ".join(names) or "-"
        table.add_row(*_cells(band), said, style="yellow" if names else "")
    return table


def _cells(band: BandComparison) -> Iterator[str]:
    """All cells of a row but the last."""
    yield f"{band.scan} {band.band}".rstrip()
    spectra = band.changes.get("spectra")
    if spectra is None:
        yield from ["-"] * 4
    else:
        receiver, pixel = spectra.worst()
        yield _number(middle(spectra.ratio), ".6f")
        yield _number(_most(spectra.largest), ".3g")
        yield _number(_most(spectra.sigma), ".3g")
        yield f"{receiver}, {pixel}"
    for name in ("t_sys_star", "t_rec"):
        change = band.changes.get(name)
        yield "-" if change is None else _number(middle(change.ratio), ".6f")
    water = band.changes.get("pwv")
    yield "-" if water is None else _number(middle(water.new - water.old), ".3g")
    yield str(band.flagged)


def _truth_table(rows: Sequence[TruthRow]) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, title="Against the truth", title_justify="left"
    )
    table.add_column("")
    for name in ("rms error, OLD", "NEW", "expected"):
        table.add_column(name, justify="right")
    table.add_column("")
    for row in rows:
        values = (
            f"{_number(v, '.3g')} {row.unit}".rstrip() for v in (row.old, row.new, row.expected)
        )
        wrong = [n for n, holds in (("OLD", row.old_holds), ("NEW", row.new_holds)) if not holds]
        said = f"{' and '.join(wrong)} wrong" if wrong else ""
        table.add_row(row.quantity, *values, said, style="yellow" if wrong else "")
    return table


def comparison_lines(comparison: StoreComparison, rtol: float, sigma: float) -> list[str]:
    """What the scans were made with, where it differs; problems; the verdict last."""
    lines = list(_grouped(comparison, "option", "config"))
    lines += _grouped(comparison, "made with other", "origin")
    lines += [
        f"problem: scan {band.scan} {band.band}".rstrip() + f": {problem}"
        for band in comparison.bands
        for problem in band.problems
    ]
    for where, names in (("OLD", comparison.only_old), ("NEW", comparison.only_new)):
        if names:
            lines.append(f"in {where} alone: scan {', '.join(names)}")
    return [*lines, _verdict(comparison, rtol, sigma)]


def _grouped(comparison: StoreComparison, word: str, attribute: str) -> Iterator[str]:
    """A line for each setting that differs, with the scans, unless these are all."""
    scans: dict[str, set[int]] = {}
    for band in comparison.bands:
        for key, (old, new) in getattr(band, attribute).items():
            scans.setdefault(f"{key} {_shown(old)}, now {_shown(new)}", set()).add(band.scan)
    every = {band.scan for band in comparison.bands}
    for text, numbers in scans.items():
        yield f"{word}: {text}" + ("" if numbers == every else f", {scan_ranges(numbers)}")


def _verdict(comparison: StoreComparison, rtol: float, sigma: float) -> str:
    differing = comparison.differing(rtol, sigma)
    every = len({band.scan for band in comparison.bands})
    numbers = {scan for scan, _ in differing}
    allowed = [f"{rtol:g} relative"] if rtol else []
    allowed += [f"{sigma:g} sigma"] if sigma else []
    steps = max(
        (b.changes["spectra"].rounding for b in comparison.bands if "spectra" in b.changes),
        default=0.0,
    )
    allowed += ["the rounding that they state"] if steps else []
    beyond = f" by more than {' or '.join(allowed)}" if allowed else ""
    if numbers:
        return f"{len(numbers)} of {every} scans differ{beyond}: {scan_ranges(sorted(numbers))}."
    return f"No scan of {every} differs{beyond}."


def _shown(value: Any) -> str:
    if value is None:
        return "not given"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _most(values: Any) -> float:
    known = np.asarray(values)[np.isfinite(values)]
    return float(known.max()) if known.size else math.nan


def _number(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "-"
