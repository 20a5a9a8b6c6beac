"""The rate at which a task has recently finished jobs."""

from __future__ import annotations

import json
import os
from pathlib import Path

RATE_WINDOW_S = 600.0
TAIL = 1 << 16
"""Bytes at the end of done.jsonl that the rate is taken from."""


def job_rate(path: Path, now: float) -> float:
    """Jobs per minute of the last ten minutes, from the end of a task's done.jsonl."""
    lines, whole_log = _tail(path)
    times = sorted(t for t in map(_finished, lines) if 0.0 <= now - t < RATE_WINDOW_S)
    if not times:
        return 0.0
    # The tail of a busy task is shorter than the window: then it is the window.
    whole = whole_log or len(times) < len(lines) - 2
    window = RATE_WINDOW_S if whole else max(now - times[0], 1.0)
    return 60.0 * len(times) / window


def last_finished(path: Path) -> float:
    """When the last job was done, s since the epoch; 0 when none was."""
    times = (_finished(line) for line in reversed(_tail(path)[0]))
    return next((t for t in times if t == t), 0.0)


def _tail(path: Path) -> tuple[list[bytes], bool]:
    """The last lines of a log, and whether these are all; none when it cannot be read."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            lines = file.read().split(b"\n")
    except OSError:
        return [], True
    return (lines[1:], False) if size > TAIL else (lines, True)  # the first one is cut


def _finished(line: bytes) -> float:
    """Time at which the job of a line was done, s since the epoch; NaN where the line has none."""
    try:
        return float(json.loads(line)["finished"])
    except (ValueError, KeyError, TypeError):
        return float("nan")
