"""Recovery of jobs that dead workers have left."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import replace
from pathlib import Path

from gpucal.errors import OnlineError
from gpucal.online.queue.events import job_from_json
from gpucal.online.queue.job_files import ACTIVE, HEARTBEAT, is_job, names_in, read_job
from gpucal.online.queue.processes import process_lives
from gpucal.online.queue.task_directory import TaskDirectory


class Recovery:
    """Puts back the jobs of dead workers of one task; remembers heartbeats between calls."""

    def __init__(self, directory: TaskDirectory) -> None:
        self._directory = directory
        self._seen: dict[str, tuple[int, float]] = {}

    def recover(self, stale_after: float, *, crashes: int = 20) -> list[str]:
        """Put back the jobs of workers that are gone; returns their names.

        Gone: its process does not exist on this host, or its heartbeat has not changed for
        ``stale_after`` seconds of our own monotonic clock (clocks of hosts differ and jump). A job
        over which ``crashes`` workers died goes to ``.failed``.
        """
        found = []
        for worker in names_in(self._directory.path / ACTIVE):
            if worker == self._directory.worker or not self._is_gone(worker, stale_after):
                continue
            folder = self._directory.path / ACTIVE / worker
            for name in filter(is_job, names_in(folder)):
                found.append(name)
                self._take_back(folder / name, worker, crashes)
            with contextlib.suppress(OSError):
                (folder / HEARTBEAT).unlink(missing_ok=True)
                folder.rmdir()
            self._seen.pop(worker, None)
        return found

    def _take_back(self, path: Path, worker: str, crashes: int) -> None:
        """Put back one job of a dead worker, or give it up after too many crashes."""
        mine = self._directory.folder(f"{ACTIVE}/{self._directory.worker}") / path.name
        try:
            os.rename(path, mine)  # only one recovers it
            job = job_from_json(read_job(mine))
        except FileNotFoundError:
            return
        except OnlineError:
            os.rename(mine, self._directory.path / path.name)
            return
        job = replace(job, crashes=job.crashes + 1)
        if job.crashes >= crashes:
            self._directory.give_up(
                mine, f"{job.crashes} workers died over it, the last was {worker}"
            )
        else:
            self._directory.put_back(mine, job)

    def _is_gone(self, worker: str, stale_after: float) -> bool:
        """Whether a worker has died, as far as this host can tell."""
        alive = process_lives(worker)
        if alive is not None:
            return not alive
        try:
            beat = (self._directory.path / ACTIVE / worker / HEARTBEAT).lstat().st_mtime_ns
        except (FileNotFoundError, NotADirectoryError):
            beat = 0
        now = time.monotonic()
        before, since = self._seen.get(worker, (-1, now))
        if before != beat:
            self._seen[worker] = (beat, now)
            return False
        return now - since >= stale_after
