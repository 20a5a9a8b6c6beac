"""States of the workers (alive, silent, gone), told by their processes and heartbeats."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from gpucal.online.queue.job_files import ACTIVE, HEARTBEAT, is_job
from gpucal.online.queue.processes import process_lives
from gpucal.online.queue.task_directory import TaskDirectory
from gpucal.online.workers.status_values import WorkerState


def worker_states(
    directory: TaskDirectory, now: float, stale_after: float
) -> Iterable[WorkerState]:
    """The workers of a task that hold jobs or may take some.

    now: what the file system calls now; stale_after: s of silence after which a worker is silent, or gone when
    its process cannot be looked at.
    """
    active = directory.path / ACTIVE
    for name in _names(active):
        jobs = tuple(n for n in _names(active / name) if is_job(n))
        try:
            silent = max(0.0, now - (active / name / HEARTBEAT).stat().st_mtime)
        except OSError:
            silent = float("inf")
        lives = process_lives(name)
        if lives is False or (lives is None and silent > stale_after):
            state = "gone"
        else:
            state = "silent" if silent > stale_after else "alive"
        if state != "gone" or jobs:  # an empty folder of a worker that ended says nothing
            yield WorkerState(directory.task, name, state, min(silent, 1e9), jobs)


def file_system_now(root: Path) -> float:
    """The present time by the file system's clock, since clocks of hosts differ; else by our own."""
    probe = root / ".clock"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()


def _names(folder: Path) -> list[str]:
    """Names in a folder, in order; none when it cannot be read."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
