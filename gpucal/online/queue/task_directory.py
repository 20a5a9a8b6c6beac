"""The jobs of one task: put in, claimed, handed on, given up, each by a rename."""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpucal.errors import OnlineError
from gpucal.online.queue.events import Job, job_from_json
from gpucal.online.queue.job_files import (
    ACTIVE,
    DONE,
    FAILED,
    HEARTBEAT,
    INCOMING,
    REASON,
    append_line,
    count_lines,
    entries_of,
    is_job,
    names_in,
    write_synced,
)
from gpucal.online.queue.processes import worker_id

GRACE_S = 2.0
"""How long a file that is not a whole job may stay so before it is given up."""


@dataclass(frozen=True)
class Claim:
    """A job that one worker holds."""

    job: Job
    path: Path

    @property
    def name(self) -> str:
        return self.path.name


@dataclass(frozen=True)
class TaskStatus:
    """What ``gpucal online status`` shows of one task. oldest: s, age of the oldest pending job."""

    task: str
    pending: int
    oldest: float
    active: int
    failed: int
    done: int


class TaskDirectory:
    """The jobs of one task, as seen by one worker. One object per thread."""

    def __init__(self, path: Path, task: str, worker: str = "") -> None:
        self.path = path
        self.task = task
        self.worker = worker or worker_id()
        self._queue: list[str] = []
        self._unreadable: dict[str, tuple[tuple[int, int], float]] = {}
        self._resting: dict[str, float] = {}

    def folder(self, name: str) -> Path:
        """A folder of this task, made when missing."""
        folder = self.path / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def put(self, job: Job) -> None:
        """Add a job: written aside, renamed in. The same job put twice is there once."""
        incoming = self.folder(INCOMING) / f"{uuid.uuid4().hex}.json"
        try:
            write_synced(incoming, job.to_json())
            os.replace(incoming, self.path / job.name)
        finally:
            incoming.unlink(missing_ok=True)

    def names(self) -> list[str]:
        """Names of the pending jobs, oldest first."""
        found: list[tuple[int, str]] = []
        try:
            with os.scandir(self.path) as entries:
                for entry in entries:
                    if is_job(entry.name):
                        with contextlib.suppress(FileNotFoundError):
                            found.append((entry.stat().st_mtime_ns, entry.name))
        except FileNotFoundError:
            self.path.mkdir(parents=True, exist_ok=True)
        return [name for _, name in sorted(found)]

    def refresh(self) -> None:
        """Look for new jobs when those known have been tried."""
        if not self._queue:
            self._queue = self.names()[::-1]

    def claim(self) -> Claim | None:
        """Take the oldest pending job that nobody else takes and that does not rest; None when there is none.

        What is not a job, and stays so, goes to ``.failed``.
        """
        self.refresh()
        mine = self.folder(f"{ACTIVE}/{self.worker}")
        self.beat()
        while self._queue:
            name = self._queue.pop()
            if self._rests(name):
                continue
            target = mine / name
            try:
                os.rename(self.path / name, target)
            except FileNotFoundError:
                continue  # another worker was faster
            try:
                job = job_from_json(target.read_bytes())
            except (OnlineError, UnicodeDecodeError) as error:
                self._not_a_job(target, error)
                continue
            self._unreadable.pop(name, None)
            if self._held_elsewhere(name):
                # Submitted again while it is being done: its turn comes when that is over.
                os.rename(target, self.path / name)
                continue
            return Claim(job, target)
        return None

    def _held_elsewhere(self, name: str) -> bool:
        """Whether another worker is working on this job."""
        active = self.path / ACTIVE
        return any((active / w / name).exists() for w in names_in(active) if w != self.worker)

    def _not_a_job(self, path: Path, error: Exception) -> None:
        """Handle a file that is not a job: it may not be complete yet, so it is put back until it stays unchanged."""
        facts = path.stat()
        signature = (facts.st_size, facts.st_mtime_ns)
        before, since = self._unreadable.get(path.name, (None, 0.0))
        if before == signature and time.monotonic() - since >= GRACE_S:
            del self._unreadable[path.name]
            self.give_up(path, str(error))
            return
        if before != signature:
            self._unreadable[path.name] = (signature, time.monotonic())
        os.rename(path, self.path / path.name)

    def claims(self, of: Callable[[str], bool]) -> Iterator[Claim]:
        """The jobs held by the workers whose names ``of`` accepts."""
        for worker in filter(of, names_in(self.path / ACTIVE)):
            for name in filter(is_job, names_in(self.path / ACTIVE / worker)):
                path = self.path / ACTIVE / worker / name
                with contextlib.suppress(OnlineError, OSError):
                    yield Claim(job_from_json(path.read_bytes()), path)

    def beat(self) -> None:
        """Touch the heartbeat file of this worker; needs no disk space once the file exists."""
        path = self.folder(f"{ACTIVE}/{self.worker}") / HEARTBEAT
        try:
            os.utime(path)
        except FileNotFoundError:
            path.touch()

    def finish(self, claim: Claim, seconds: float, forward: Iterable[TaskDirectory] = ()) -> None:
        """Hand the job on, note it, remove it: in this order, so that a crash repeats, never loses."""
        for following in forward:
            following.put(replace(claim.job, attempt=0, crashes=0))
        line = {
            "job": claim.name,
            "finished": time.time(),
            "seconds": round(seconds, 3),
            "worker": self.worker,
        }
        claim.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            append_line(self.path / DONE, json.dumps(line) + "\n")

    def release(self, claim: Claim) -> None:
        """Put the job back unchanged, without counting a failure."""
        with contextlib.suppress(FileNotFoundError):
            os.rename(claim.path, self.path / claim.name)

    def rest(self, claim: Claim, seconds: float) -> None:
        """Put the job back unchanged; this worker does not take it again for so long."""
        self._resting[claim.name] = time.monotonic() + seconds
        self.release(claim)

    def _rests(self, name: str) -> bool:
        """Whether a job is not to be taken yet."""
        until = self._resting.get(name, 0.0)
        if until > time.monotonic():
            return True
        self._resting.pop(name, None)
        return False

    def fail(self, claim: Claim, error: str, trace: str = "", *, attempts: int = 3) -> bool:
        """Count a failure; at the last attempt the job goes to ``.failed``. Returns whether it did."""
        job = replace(claim.job, attempt=claim.job.attempt + 1)
        if job.attempt >= attempts:
            self.give_up(claim.path, error, trace)
            return True
        self.put_back(claim.path, job)
        return False

    def put_back(self, held: Path, job: Job) -> None:
        """A changed job replaces the held one; the name may be pending again already."""
        aside = self.folder(INCOMING) / f"{uuid.uuid4().hex}.json"
        try:
            write_synced(aside, job.to_json())
            os.replace(aside, held)
        finally:
            aside.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.rename(held, self.path / held.name)

    def give_up(self, path: Path, error: str, trace: str = "") -> None:
        """Move a job in hand to ``.failed``, with the reason beside it."""
        failed = self.folder(FAILED)
        reason = {"error": error, "traceback": trace, "when": time.time(), "worker": self.worker}
        with contextlib.suppress(OSError):  # the job itself needs no space to get there
            write_synced(failed / f"{path.name}{REASON}", json.dumps(reason))
        with contextlib.suppress(FileNotFoundError):
            os.replace(path, failed / path.name)

    def retry(self, name: str) -> None:
        """Put a failed job back with a clean record. Raises OnlineError when it is not there."""
        path = self.path / FAILED / name
        if "/" in name or not is_job(name) or not path.is_file():
            raise OnlineError(
                f"{self.task} has no failed job {name!r}.", hint="See gpucal online status."
            )
        try:
            job = job_from_json(path.read_bytes())
        except OnlineError as error:
            raise OnlineError(f"{name} cannot be tried again: {error}") from error
        self.put(replace(job, attempt=0, crashes=0))
        path.unlink(missing_ok=True)
        (path.parent / f"{name}{REASON}").unlink(missing_ok=True)

    def failed(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(name, {"error", "traceback", "when", "worker"}) of the failed jobs, by name."""
        folder = self.path / FAILED
        names = sorted(n for n in names_in(folder) if is_job(n))
        for name in names:
            try:
                reason = json.loads((folder / f"{name}{REASON}").read_text("utf-8"))
            except (OSError, ValueError):
                reason = {
                    "error": "the reason was lost",
                    "traceback": "",
                    "when": 0.0,
                    "worker": "",
                }
            yield name, reason

    def status(self) -> TaskStatus:
        """Counts of this moment; quick also with 100 000 jobs."""
        pending, oldest = 0, None
        for entry in entries_of(self.path):
            if is_job(entry.name):
                pending += 1
                with contextlib.suppress(FileNotFoundError):
                    mtime = entry.stat().st_mtime
                    oldest = mtime if oldest is None else min(oldest, mtime)
        active = sum(
            is_job(name)
            for worker in names_in(self.path / ACTIVE)
            for name in names_in(self.path / ACTIVE / worker)
        )
        failed = sum(is_job(name) for name in names_in(self.path / FAILED))
        age = max(0.0, time.time() - oldest) if oldest is not None else 0.0
        return TaskStatus(self.task, pending, age, active, failed, count_lines(self.path / DONE))
