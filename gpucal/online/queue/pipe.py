"""The pipe: a directory per task, a small file per job, claimed and handed on by rename.

Nothing here is ever in two states: a rename either has happened or has not, whoever dies when. Renames
need no disk space, so a full disk stops the work but loses none of it.
"""

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
from gpucal.online.queue.processes import process_lives, worker_id

TASKS = {
    "calibration": "raw/calibration",
    "obs_procedure": "raw/calibration/obs_procedure",
    "plot": "raw/calibration/obs_procedure/plot",
    "class": "raw/calibration/class",
    "fits_heterodyne": "raw/fits_heterodyne",
    "plot_heterodyne": "raw/fits_heterodyne/plot",
    "fits_bolometer": "raw/fits_bolometer",
    "plot_bolometer": "raw/fits_bolometer/plot",
}
"""Task -> its directory below the root of the pipe."""

ENTRY_TASKS = {
    "heterodyne": ("calibration", "fits_heterodyne"),
    "bolometer": ("fits_bolometer",),
}
"""Class of observation -> the tasks that asked to be told of new data."""

ACTIVE, FAILED, INCOMING, DONE = ".active", ".failed", ".incoming", "done.jsonl"
REASON = ".reason"
HEARTBEAT = ".heartbeat"
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
        self._seen: dict[str, tuple[int, float]] = {}

    def _folder(self, name: str) -> Path:
        folder = self.path / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def put(self, job: Job) -> None:
        """Add a job: written aside, renamed in. The same job put twice is there once."""
        incoming = self._folder(INCOMING) / f"{uuid.uuid4().hex}.json"
        try:
            _write(incoming, job.to_json())
            os.replace(incoming, self.path / job.name)
        finally:
            incoming.unlink(missing_ok=True)

    def names(self) -> list[str]:
        """Pending jobs, oldest first."""
        found: list[tuple[int, str]] = []
        try:
            with os.scandir(self.path) as entries:
                for entry in entries:
                    if _is_job(entry.name):
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
        """Take the oldest pending job that nobody else takes; None when there is none.

        What is not a job, and stays so, goes to ``.failed``.
        """
        self.refresh()
        mine = self._folder(f"{ACTIVE}/{self.worker}")
        self.beat()
        while self._queue:
            name = self._queue.pop()
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
        active = self.path / ACTIVE
        return any((active / w / name).exists() for w in _listdir(active) if w != self.worker)

    def _not_a_job(self, path: Path, error: Exception) -> None:
        """Somebody may still be writing it: put it back until it has not changed for a while."""
        facts = path.stat()
        signature = (facts.st_size, facts.st_mtime_ns)
        before, since = self._unreadable.get(path.name, (None, 0.0))
        if before == signature and time.monotonic() - since >= GRACE_S:
            del self._unreadable[path.name]
            self._to_failed(path, str(error), "")
            return
        if before != signature:
            self._unreadable[path.name] = (signature, time.monotonic())
        os.rename(path, self.path / path.name)

    def claims(self, of: Callable[[str], bool]) -> Iterator[Claim]:
        """What the workers hold whose names ``of`` accepts."""
        for worker in filter(of, _listdir(self.path / ACTIVE)):
            for name in filter(_is_job, _listdir(self.path / ACTIVE / worker)):
                path = self.path / ACTIVE / worker / name
                with contextlib.suppress(OnlineError, OSError):
                    yield Claim(job_from_json(path.read_bytes()), path)

    def beat(self) -> None:
        """Show that this worker lives; needs no disk space once the file is there."""
        path = self._folder(f"{ACTIVE}/{self.worker}") / HEARTBEAT
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
            _append(self.path / DONE, json.dumps(line) + "\n")

    def release(self, claim: Claim) -> None:
        """Put the job back untouched: it is not its fault."""
        with contextlib.suppress(FileNotFoundError):
            os.rename(claim.path, self.path / claim.name)

    def fail(self, claim: Claim, error: str, trace: str = "", *, attempts: int = 3) -> bool:
        """Count a failure; at the last attempt the job goes to ``.failed``. Returns whether it did."""
        job = replace(claim.job, attempt=claim.job.attempt + 1)
        if job.attempt >= attempts:
            self._to_failed(claim.path, error, trace)
            return True
        self._put_back(claim.path, job)
        return False

    def _put_back(self, held: Path, job: Job) -> None:
        """A changed job replaces the held one; the name may be pending again already."""
        aside = self._folder(INCOMING) / f"{uuid.uuid4().hex}.json"
        try:
            _write(aside, job.to_json())
            os.replace(aside, held)
        finally:
            aside.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.rename(held, self.path / held.name)

    def _to_failed(self, path: Path, error: str, trace: str) -> None:
        failed = self._folder(FAILED)
        reason = {"error": error, "traceback": trace, "when": time.time(), "worker": self.worker}
        with contextlib.suppress(OSError):  # the job itself needs no space to get there
            _write(failed / f"{path.name}{REASON}", json.dumps(reason))
        with contextlib.suppress(FileNotFoundError):
            os.replace(path, failed / path.name)

    def retry(self, name: str) -> None:
        """Put a failed job back with a clean record. Raises OnlineError when it is not there."""
        path = self.path / FAILED / name
        if "/" in name or not _is_job(name) or not path.is_file():
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
        names = sorted(n for n in _listdir(folder) if _is_job(n))
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

    def recover(self, stale_after: float, *, crashes: int = 20) -> list[str]:
        """Put back the jobs of workers that are gone; returns their names.

        Gone: its process does not exist on this host, or its heartbeat has not changed for
        ``stale_after`` seconds of our own monotonic clock (clocks of hosts differ and jump). A job
        over which ``crashes`` workers died goes to ``.failed``.
        """
        found = []
        for worker in _listdir(self.path / ACTIVE):
            if worker == self.worker or not self._is_gone(worker, stale_after):
                continue
            folder = self.path / ACTIVE / worker
            for name in filter(_is_job, _listdir(folder)):
                found.append(name)
                self._recover_job(folder / name, worker, crashes)
            with contextlib.suppress(OSError):
                (folder / HEARTBEAT).unlink(missing_ok=True)
                folder.rmdir()
            self._seen.pop(worker, None)
        return found

    def _recover_job(self, path: Path, worker: str, crashes: int) -> None:
        mine = self._folder(f"{ACTIVE}/{self.worker}") / path.name
        try:
            os.rename(path, mine)  # only one recovers it
            job = job_from_json(mine.read_bytes())
        except FileNotFoundError:
            return
        except OnlineError:
            os.rename(mine, self.path / path.name)
            return
        job = replace(job, crashes=job.crashes + 1)
        if job.crashes >= crashes:
            self._to_failed(mine, f"{job.crashes} workers died over it, the last was {worker}", "")
        else:
            self._put_back(mine, job)

    def _is_gone(self, worker: str, stale_after: float) -> bool:
        alive = process_lives(worker)
        if alive is not None:
            return not alive
        try:
            beat = (self.path / ACTIVE / worker / HEARTBEAT).stat().st_mtime_ns
        except FileNotFoundError:
            beat = 0
        now = time.monotonic()
        before, since = self._seen.get(worker, (-1, now))
        if before != beat:
            self._seen[worker] = (beat, now)
            return False
        return now - since >= stale_after

    def status(self) -> TaskStatus:
        """Counts of this moment; quick also with 100 000 jobs."""
        pending, oldest = 0, None
        for entry in _scan(self.path):
            if _is_job(entry.name):
                pending += 1
                with contextlib.suppress(FileNotFoundError):
                    mtime = entry.stat().st_mtime
                    oldest = mtime if oldest is None else min(oldest, mtime)
        active = sum(
            _is_job(name)
            for worker in _listdir(self.path / ACTIVE)
            for name in _listdir(self.path / ACTIVE / worker)
        )
        failed = sum(_is_job(name) for name in _listdir(self.path / FAILED))
        age = max(0.0, time.time() - oldest) if oldest is not None else 0.0
        return TaskStatus(self.task, pending, age, active, failed, _count_lines(self.path / DONE))


class Pipe:
    """All task directories below ``root``."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def create(self) -> None:
        """Make the directories. Raises OnlineError when the place cannot be written."""
        try:
            for path in TASKS.values():
                for below in ("", ACTIVE, FAILED, INCOMING):
                    (self.root / path / below).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OnlineError(f"the pipe {self.root} cannot be made: {error.strerror}.") from error

    def task(self, name: str, worker: str = "") -> TaskDirectory:
        """The directory of one task. Raises OnlineError for an unknown name."""
        if name not in TASKS:
            raise OnlineError(f"there is no task {name!r}.", hint=f"Tasks: {', '.join(TASKS)}.")
        return TaskDirectory(self.root / TASKS[name], name, worker)

    def submit(self, job: Job) -> None:
        """Hand a job to every task that asked for its class of observation."""
        for name in ENTRY_TASKS[job.obs_class]:
            self.task(name).put(job)

    def status(self) -> list[TaskStatus]:
        """The state of all tasks."""
        return [self.task(name).status() for name in TASKS]


def _is_job(name: str) -> bool:
    return name.endswith(".json") and not name.startswith(".")


def _scan(path: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            yield from entries
    except (FileNotFoundError, NotADirectoryError):
        return


def _listdir(path: Path) -> list[str]:
    return sorted(entry.name for entry in _scan(path))


def _write(path: Path, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _append(path: Path, text: str) -> None:
    """One write to a file opened for appending: lines of several workers do not mix."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _count_lines(path: Path) -> int:
    try:
        with open(path, "rb") as file:
            return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    except FileNotFoundError:
        return 0
