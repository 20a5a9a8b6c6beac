"""The table at the end of a run, its warnings and failures, and where the results lie."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gpucal.cli.show.progress import without_label
from gpucal.io.files.json_text import dumps
from gpucal.pipeline.store.report import ScanSummary, StoreReport
from gpucal.scan_numbers import scan_ranges

COLUMNS = (
    ("scan", "left"),
    ("mode", "left"),
    ("PWV\n[mm]", "right"),
    ("T_rec\n[K]", "right"),
    ("T_sys\n[K]", "right"),
    ("rms/\nexpected", "right"),
    ("flagged\n[%]", "right"),
    ("time\n[s]", "right"),
    ("warn-\nings", "right"),
    ("status", "left"),
)
CELLS = {
    "PWV\n[mm]": ("pwv", "chi2", "site"),
    "T_rec\n[K]": ("t_rec", "t_hot", "t_cold"),
    "T_sys\n[K]": ("t_sys", "sky", "tau"),
    "rms/\nexpected": ("rms",),
    "flagged\n[%]": ("flagged",),
}
"""Column -> the kinds of alarm that mark it."""
ALARM = "!"
"""Mark of a number that cannot be right."""
LEAST_WIDTH = 96
"""Columns that a table needs: a narrower terminal wraps its lines, but no number is cut."""
PLAIN_WIDTH = 150
"""Columns where the output is no terminal: wide enough that no row is wrapped."""


def make_console() -> Console:
    """Return a console on stdout; without colours and wide when it is no terminal."""
    if not sys.stdout.isatty():
        return Console(file=sys.stdout, width=PLAIN_WIDTH)
    console = Console(file=sys.stdout)
    return Console(file=sys.stdout, width=max(console.width, LEAST_WIDTH))


def print_summary(report: StoreReport, out: Path, *, quiet: bool, as_json: bool) -> None:
    """Print the final table, or with ``as_json`` one object; quiet prints nothing."""
    if as_json:
        print(dumps(_as_event(report, out)), flush=True)
    elif not quiet:
        console = make_console()
        console.print(summary_table(report))
        for line in closing_lines(report, out):
            console.print(escape(line), highlight=False, soft_wrap=True)


def _as_event(report: StoreReport, out: Path) -> dict[str, object]:
    """The report as the last object of ``--json``."""
    return {
        "event": "report",
        "l1": out,
        "exit_code": report.exit_code,
        "interrupted": report.interrupted,
        "atmosphere": report.atmosphere,
        "summaries": [vars(s) for s in report.summaries],
        "failures": [f.as_dict() for f in report.failures],
    }


def summary_table(report: StoreReport) -> Table:
    """One row per scan and band, in the order of the scans."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name, side in COLUMNS:
        table.add_column(escape(name), justify="right" if side == "right" else "left", no_wrap=True)
    for summary in sorted(report.summaries, key=lambda s: (s.scan, s.band)):
        style = {"failed": "red", "skipped": "dim"}.get(summary.status, "")
        table.add_row(*_marked(summary), style="yellow" if summary.alarms else style)
    known = {s.scan for s in report.summaries}
    for scan in sorted({f.scan for f in report.failures} - known):
        table.add_row(f"{scan}", *["-"] * (len(COLUMNS) - 2), "failed", style="red")
    return table


def _pwv(value: float, error: float) -> str:
    """Value and error in mm, to two digits of the error."""
    if not math.isfinite(error) or error <= 0:
        return _number(value, ".3f")
    digits = min(8, max(1, 1 - math.floor(math.log10(error))))
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def _marked(summary: ScanSummary) -> list[str]:
    """The cells of a scan; those with an alarm begin with a mark."""
    cells = _row(summary)
    for i, (name, _) in enumerate(COLUMNS):
        if any(kind in summary.alarms for kind in CELLS.get(name, ())):
            cells[i] = f"{ALARM} {cells[i]}"
    return cells


def _row(summary: ScanSummary) -> list[str]:
    label = f"{summary.scan}" + (f" {summary.band}" if summary.band else "")
    pwv = _pwv(summary.pwv, summary.pwv_error)
    return [
        label,
        summary.mode or "-",
        pwv,
        _number(summary.t_rec, ".1f"),
        _number(summary.t_sys, ".1f"),
        _number(summary.rms_ratio, ".3f"),
        _number(100.0 * summary.flagged_fraction, ".2f"),
        _number(summary.seconds, ".1f") if summary.status != "skipped" else "-",
        str(len(set(summary.warnings))) if summary.warnings else "-",
        summary.status,
    ]


def _number(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "-"


def closing_lines(report: StoreReport, out: Path) -> list[str]:
    """Counts, warnings (each once, with its scans), failures, and where everything lies."""
    lines = [_counts(report)]
    lines += _each_once("alarm", [(s.scan, s.alarms.values()) for s in report.summaries])
    others = [
        (s.scan, [w for w in s.warnings if w not in s.alarms.values()]) for s in report.summaries
    ]
    lines += _each_once("warning", others)
    for failure in report.failures:
        stage = f" in {failure.stage}" if failure.stage else ""
        hint = f" {failure.hint}" if failure.hint else ""
        text = without_label(failure.message, failure.scan)
        lines.append(f"failed (scan {failure.scan}{stage}): {failure.error}: {text}{hint}")
    if report.atmosphere:
        lines.append(f"atmosphere: {report.atmosphere}")
    if any(s.status != "failed" for s in report.summaries):
        lines.append(f"L1 store: {out}")
    if report.failures:
        lines.append(f"failures: {out / 'failures.json'}")
    return lines


def _each_once(word: str, said: Iterable[tuple[int, Iterable[str]]]) -> list[str]:
    """Every sentence once, with the scans of which it is said."""
    scans_of: dict[str, list[int]] = {}
    for scan, sentences in said:
        for text in dict.fromkeys(sentences):
            scans_of.setdefault(text, []).append(scan)
    return [f"{word} ({scan_ranges(scans)}): {text}" for text, scans in scans_of.items()]


def _counts(report: StoreReport) -> str:
    """How many scans were calibrated, skipped and failed, each counted once."""
    failed = {f.scan for f in report.failures}
    failed |= {s.scan for s in report.summaries if s.status == "failed"}
    alarms = {s.scan for s in report.summaries if s.alarms}
    calibrated = {s.scan for s in report.summaries if s.status == "calibrated"} - failed
    skipped = {s.scan for s in report.summaries if s.status == "skipped"} - failed - calibrated
    text = f"{len(calibrated)} calibrated, {len(skipped)} skipped, {len(failed)} failed"
    return f"{text}, {len(alarms)} with alarms" if alarms else text
