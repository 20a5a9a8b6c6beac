"""Progress of a run: bars on a terminal, plain lines elsewhere, JSON for machines."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from gpucal.io.files.json_text import dumps
from gpucal.physics.rounding import with_error
from gpucal.pipeline.store.report import Observer, ScanSummary

Level = Literal["info", "warning", "error"]
STAGES = ("load", "resolve", "prepare", "atm", "calibrate", "write", "wall")
"""Parts of the timing line, in its order; ``wall`` is the whole scan."""


class ClosingObserver(Observer, Protocol):
    """An observer that is used in a ``with`` block and gives the terminal back at its end."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def make_observer(
    *, quiet: bool = False, verbose: bool = False, as_json: bool = False
) -> ClosingObserver:
    """Return the observer that suits the options and where stderr goes."""
    if as_json:
        return JsonObserver(sys.stdout)
    if not quiet and sys.stderr.isatty():
        return RichObserver(verbose=verbose)
    return PlainObserver(sys.stderr, quiet=quiet)


def scan_label(scan: int, band: str) -> str:
    """``"scan 25650"`` or ``"scan 25650 band_1"``."""
    return f"scan {scan}" + (f" {band}" if band else "")


def without_label(text: str, scan: int, band: str = "") -> str:
    """Return ``text`` without the label of the scan at its beginning."""
    return text.removeprefix(scan_label(scan, band) + ": ")


def timing_line(summary: ScanSummary) -> str:
    """Return the timing of one scan as one line of ``key=value``, times in ms."""
    known = dict(summary.timing)
    known.setdefault("wall_ms", 1000.0 * summary.seconds)
    parts = [f"scan={summary.scan}"]
    if summary.band:
        parts.append(f"band={summary.band}")
    parts += [f"{stage}_ms={known.pop(f'{stage}_ms', 0.0):.0f}" for stage in STAGES]
    parts += [f"{key}={value:.0f}" for key, value in known.items()]
    return "scan timing breakdown " + " ".join(parts)


def result_line(summary: ScanSummary) -> str:
    """Return the result of one scan as one line."""
    label = scan_label(summary.scan, summary.band)
    if summary.status == "failed":
        reason = without_label(summary.error, summary.scan, summary.band)
        return f"{label} failed: {reason or 'no reason given'}"
    if summary.status == "skipped":
        return f"{label} skipped: already calibrated with this configuration"
    values = [
        (f"PWV {with_error(summary.pwv, summary.pwv_error)} mm", summary.pwv),
        (f"T_rec {summary.t_rec:.0f} K", summary.t_rec),
        (summary.t_sys_text(".0f"), summary.t_sys),
        (f"rms/expected {summary.rms_ratio:.2f}", summary.rms_ratio),
    ]
    parts = [summary.mode, *(text for text, value in values if math.isfinite(value))]
    if summary.seconds > 0 and summary.bytes_read > 0:
        parts.append(f"{summary.bytes_read / summary.seconds / 1e6:.0f} MB/s")
    return f"{label} calibrated in {summary.seconds:.1f} s: " + ", ".join(parts)


class PlainObserver:
    """One line per scan and one per message, without escape codes.

    ``quiet`` leaves only what went wrong: failed scans, alarms and error messages.
    """

    def __init__(self, stream: TextIO, *, quiet: bool = False) -> None:
        self._stream = stream
        self._quiet = quiet
        self._lock = threading.Lock()
        self._scans = 0
        self._finished: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.flush()

    def _line(self, level: Level, text: str, *, always: bool = False) -> None:
        """Write one line of text with time and level; a quiet observer only errors and what is ``always`` said."""
        if self._quiet and level != "error" and not always:
            return
        clock = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with self._lock:
            self._stream.write(f"{clock} {level.upper():7s} {' '.join(text.split())}\n")
            self._stream.flush()

    def night_started(self, scans: Sequence[int], total_bytes: int) -> None:
        """Say how much there is to do."""
        self._scans = len(scans)
        size = f", {total_bytes / 1e9:.3g} GB of counts" if total_bytes else ""
        self._line("info", f"{len(scans)} scan{'' if len(scans) == 1 else 's'}{size}")

    def scan_started(self, scan: int, band: str, total_bytes: int) -> None:
        """Say nothing: the finished scan gets the line."""

    def tile_done(self, scan: int, band: str, nbytes: int) -> None:
        """Say nothing: a line per tile would drown the rest."""

    def scan_finished(self, summary: ScanSummary) -> None:
        """Write the result, the warnings and the timing of a scan."""
        with self._lock:
            self._finished.add(summary.scan)
            count = f"[{len(self._finished)}/{max(self._scans, len(self._finished))}] "
        self._line("error" if summary.status == "failed" else "info", count + result_line(summary))
        for warning in summary.warnings:
            alarm = warning in summary.alarms.values()
            label = scan_label(summary.scan, summary.band) + (" alarm" if alarm else "")
            self._line("warning", f"{label}: {warning}", always=alarm)
        if summary.status == "calibrated":
            self._line("info", timing_line(summary))

    def message(self, level: Level, text: str) -> None:
        """Write a message of the pipeline."""
        self._line(level, text)


class JsonObserver:
    """One JSON object per event and line; every object has the keys ``event`` and ``time``."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.flush()

    def _event(self, event: str, **values: Any) -> None:
        """Write one line of JSON."""
        text = dumps({"event": event, "time": time.time(), **values})
        with self._lock:
            self._stream.write(text + "\n")
            self._stream.flush()

    def night_started(self, scans: Sequence[int], total_bytes: int) -> None:
        """Report the scans to do."""
        self._event("night_started", scans=list(scans), total_bytes=total_bytes)

    def scan_started(self, scan: int, band: str, total_bytes: int) -> None:
        """Report the start of a scan."""
        self._event("scan_started", scan=scan, band=band, total_bytes=total_bytes)

    def tile_done(self, scan: int, band: str, nbytes: int) -> None:
        """Report a tile."""
        self._event("tile_done", scan=scan, band=band, nbytes=nbytes)

    def scan_finished(self, summary: ScanSummary) -> None:
        """Report all that is known about a finished scan."""
        self._event("scan_finished", **vars(summary))

    def message(self, level: Level, text: str) -> None:
        """Report a message of the pipeline."""
        self._event("message", level=level, text=text)


class RichObserver:
    """A bar for the night and one for every scan in work, with MB/s and the time left."""

    def __init__(self, *, verbose: bool = False, console: Console | None = None) -> None:
        self._verbose = verbose
        self._lock = threading.Lock()
        self._scans = 0
        self._finished: set[int] = set()
        self._tasks: dict[tuple[int, str], tuple[TaskID, int]] = {}
        self._total = 0
        self._started: dict[tuple[int, str], int] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[count]}"),
            TransferSpeedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=console or Console(stderr=True),
            transient=True,
        )
        self._night = self._progress.add_task("night", total=None, count="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def night_started(self, scans: Sequence[int], total_bytes: int) -> None:
        """Set the length of the bar of the night; 0 bytes = not known beforehand."""
        self._scans, self._total = len(scans), total_bytes
        self._progress.update(self._night, total=total_bytes or None, count=f"0/{len(scans)} scans")

    def scan_started(self, scan: int, band: str, total_bytes: int) -> None:
        """Show a bar for this scan."""
        task = self._progress.add_task(scan_label(scan, band), total=total_bytes, count="0 tiles")
        with self._lock:
            self._tasks[scan, band] = (task, 0)
            self._started[scan, band] = total_bytes
        self._estimate_night()

    def tile_done(self, scan: int, band: str, nbytes: int) -> None:
        """Move the bars of the scan and of the night."""
        with self._lock:
            task, tiles = self._tasks.get((scan, band), (None, 0))
            if task is not None:
                self._tasks[scan, band] = (task, tiles + 1)
        if task is not None:
            unit = "tile" if tiles == 0 else "tiles"
            self._progress.update(task, advance=nbytes, count=f"{tiles + 1} {unit}")
        self._progress.update(self._night, advance=nbytes)

    def scan_finished(self, summary: ScanSummary) -> None:
        """Take the bar of the scan away and write its line above the bars."""
        with self._lock:
            task, _ = self._tasks.pop((summary.scan, summary.band), (None, 0))
            self._finished.add(summary.scan)
            count = f"{len(self._finished)}/{max(self._scans, len(self._finished))} scans"
        self._progress.update(self._night, count=count)
        if task is not None:
            self._forget_unread(task, (summary.scan, summary.band))
            self._progress.remove_task(task)
        self._estimate_night()
        style = {"failed": "red", "skipped": "dim"}.get(summary.status, "")
        self._print(result_line(summary), style)
        alarms = tuple(summary.alarms.values())
        for warning in summary.warnings if self._verbose else alarms:
            alarm = " alarm" if warning in alarms else ""
            self._print(f"{scan_label(summary.scan, summary.band)}{alarm}: {warning}", "yellow")
        if self._verbose and summary.status == "calibrated":
            self._print(timing_line(summary), "dim")

    def _estimate_night(self) -> None:
        """Estimate the unknown size of the night: the other scans are taken to be like those seen."""
        with self._lock:
            if self._total or not self._started:
                return
            seen = {scan for scan, _ in self._started} | self._finished
            total = sum(self._started.values()) * max(1.0, self._scans / len(seen))
        self._progress.update(self._night, total=total)

    def _forget_unread(self, task: TaskID, key: tuple[int, str]) -> None:
        """Remove the bytes that a failed scan never read from the work still to do."""
        with self._lock:
            done = next((t.completed for t in self._progress.tasks if t.id == task), 0.0)
            left = self._started.get(key, 0) - done
            if left > 0:
                self._started[key] = int(done)
                self._total = max(0, int(self._total - left)) if self._total else 0
            total = self._total
        if total:
            self._progress.update(self._night, total=total)

    def message(self, level: Level, text: str) -> None:
        """Write a message above the bars; infos only when asked for."""
        if level != "info" or self._verbose:
            self._print(text, {"error": "red", "warning": "yellow"}.get(level, "dim"))

    def _print(self, text: str, style: str) -> None:
        self._progress.console.print(escape(text), style=style, highlight=False)
