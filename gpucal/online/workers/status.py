"""The state of the pipeline at one moment, as plain values: for the terminal, the page, and JSON."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from gpucal.errors import OnlineError
from gpucal.online.queue.job_files import ACTIVE, DONE, HEARTBEAT
from gpucal.online.queue.pipe import TASKS, Pipe
from gpucal.online.queue.processes import process_lives
from gpucal.online.queue.task_directory import TaskDirectory, TaskStatus
from gpucal.online.site.config import OnlineConfig
from gpucal.online.site.results import Results
from gpucal.online.site.tables import SCANS

RATE_WINDOW_S = 600.0
TAIL = 1 << 16
"""Bytes at the end of done.jsonl that the rate is taken from."""
LAST_MESSAGES = 300
SHOWN_MESSAGES = 20
SHOWN_FAILED = 50
LOW_FRACTION, LOW_BYTES = 0.05, 5 * 2**30
"""A disk is nearly full when less than both is free."""


@dataclass(frozen=True)
class TaskState:
    """One task. oldest: s, age of the oldest pending job; rate: jobs per minute, lately."""

    task: str
    pending: int
    oldest: float
    active: int
    failed: int
    done: int
    rate: float
    workers: int
    message: str = ""
    level: str = ""


@dataclass(frozen=True)
class WorkerState:
    """One worker that has a folder. silent: s since its heartbeat; state: alive, silent or gone."""

    task: str
    worker: str
    state: str
    silent: float
    jobs: tuple[str, ...]


@dataclass(frozen=True)
class FailedJob:
    """A job that was given up. when: s since the epoch."""

    task: str
    name: str
    error: str
    when: float


@dataclass(frozen=True)
class Disk:
    """A file system that is written to. free and total in bytes; uses: data, work, pipe."""

    uses: tuple[str, ...]
    free: int
    total: int

    @property
    def low(self) -> bool:
        return self.free < min(LOW_BYTES, LOW_FRACTION * self.total)


@dataclass(frozen=True)
class Problem:
    """Something the operator should know. level: warning or error."""

    level: str
    text: str
    task: str = ""


@dataclass(frozen=True)
class Status:
    """Everything; times in s, ``time`` since the epoch. scans: state -> how many."""

    time: float
    tasks: tuple[TaskState, ...]
    workers: tuple[WorkerState, ...]
    failed: tuple[FailedJob, ...]
    disks: tuple[Disk, ...]
    scans: dict[str, int]
    messages: tuple[dict[str, Any], ...]
    problems: tuple[Problem, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def snapshot(config: OnlineConfig, results: Results | None = None) -> Status:
    """Look at pipe, workers, disks and database; changes nothing and raises nothing.

    What cannot be read becomes a problem of the result. ``results``: a database that is open already.
    """
    pipe = Pipe(config.pipe)
    now = time.time()
    problems: list[Problem] = []
    messages, scans = _from_database(config, results, problems)
    said: dict[str, dict[str, Any]] = {m["task"]: m for m in messages if m["task"]}
    here = _file_system_now(config.pipe)
    workers = tuple(w for name in TASKS for w in _workers(pipe.task(name), here, config))
    states = []
    for name in TASKS:
        directory = pipe.task(name)
        alive = sum(w.task == name and w.state == "alive" for w in workers)
        states.append(_task_state(directory, now, alive, said.get(name, {})))
    failed = tuple(_failed(pipe, [s.task for s in states if s.failed]))
    disks = tuple(_disks(config))
    problems += _task_problems(config, states, workers)
    problems += [_low(disk) for disk in disks if disk.low]
    return Status(
        time=now,
        tasks=tuple(states),
        workers=workers,
        failed=failed,
        disks=disks,
        scans=scans,
        messages=tuple(messages[-SHOWN_MESSAGES:]),
        problems=tuple(problems),
    )


def _from_database(
    config: OnlineConfig, results: Results | None, problems: list[Problem]
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The last messages and the number of scans by state."""
    if results is None and _not_made_yet(config):
        return [], {}
    opened = None
    try:
        opened = results or Results(config.database_url)
        messages = opened.rows("messages", newest=LAST_MESSAGES)
        query = sa.select(SCANS.c.state, sa.func.count()).group_by(SCANS.c.state)
        with opened.engine.connect() as connection:
            scans = {str(state): int(n) for state, n in connection.execute(query)}
    except (OnlineError, sa.exc.SQLAlchemyError) as error:
        text = " ".join(str(getattr(error, "orig", None) or error).split())
        problems.append(Problem("error", f"the database cannot be read: {text}"))
        return [], {}
    finally:
        if opened is not None and opened is not results:
            opened.close()
    keys = ("id", "time", "level", "task", "project", "scan", "text")
    return [{k: m[k] for k in keys} for m in messages], scans


def _not_made_yet(config: OnlineConfig) -> bool:
    """A look at the state makes no database."""
    address = sa.make_url(config.database_url) if "://" in config.database_url else None
    if address is None or address.get_backend_name() != "sqlite" or not address.database:
        return False
    return not Path(address.database).exists()


def _task_state(
    directory: TaskDirectory, now: float, workers: int, said: dict[str, Any]
) -> TaskState:
    found: TaskStatus = directory.status()
    return TaskState(
        task=found.task,
        pending=found.pending,
        oldest=found.oldest,
        active=found.active,
        failed=found.failed,
        done=found.done,
        rate=job_rate(directory.path / DONE, now),
        workers=workers,
        message=str(said.get("text", "")),
        level=str(said.get("level", "")),
    )


def job_rate(path: Path, now: float) -> float:
    """Jobs per minute of the last ten minutes, from the end of a task's done.jsonl."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            lines = file.read().split(b"\n")
    except OSError:
        return 0.0
    if size > TAIL:
        lines = lines[1:]  # the first one is cut
    times = sorted(t for t in map(_finished, lines) if 0.0 <= now - t < RATE_WINDOW_S)
    if not times:
        return 0.0
    # The tail of a busy task is shorter than the window: then it is the window.
    whole = size <= TAIL or len(times) < len(lines) - 2
    window = RATE_WINDOW_S if whole else max(now - times[0], 1.0)
    return 60.0 * len(times) / window


def _finished(line: bytes) -> float:
    try:
        return float(json.loads(line)["finished"])
    except (ValueError, KeyError, TypeError):
        return float("nan")


def _file_system_now(root: Path) -> float:
    """What the file system calls now: clocks of hosts differ. Our own where it cannot be asked."""
    probe = root / ".clock"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()


def _workers(directory: TaskDirectory, now: float, config: OnlineConfig) -> Iterable[WorkerState]:
    active = directory.path / ACTIVE
    for name in _names(active):
        jobs = tuple(n for n in _names(active / name) if n.endswith(".json") and n[0] != ".")
        try:
            silent = max(0.0, now - (active / name / HEARTBEAT).stat().st_mtime)
        except OSError:
            silent = float("inf")
        lives = process_lives(name)
        if lives is False or (lives is None and silent > config.stale_after):
            state = "gone"
        else:
            state = "silent" if silent > config.stale_after else "alive"
        if state != "gone" or jobs:  # an empty folder of a worker that ended says nothing
            yield WorkerState(directory.task, name, state, min(silent, 1e9), jobs)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _failed(pipe: Pipe, tasks: Iterable[str]) -> Iterable[FailedJob]:
    for task in tasks:
        for name, reason in itertools.islice(pipe.task(task).failed(), SHOWN_FAILED):
            known = reason if isinstance(reason, dict) else {}
            when = known.get("when")
            seconds = float(when) if isinstance(when, int | float) else 0.0
            yield FailedJob(task, name, str(known.get("error", "")), seconds)


def _disks(config: OnlineConfig) -> Iterable[Disk]:
    """The file systems under the three folders, each once."""
    uses: dict[int, list[str]] = {}
    places: dict[int, Path] = {}
    for use in ("data", "work", "pipe"):
        path = Path(getattr(config, use)).absolute()
        while not path.exists() and path != path.parent:
            path = path.parent
        try:
            device = path.stat().st_dev
        except OSError:
            continue
        uses.setdefault(device, []).append(use)
        places[device] = path
    for device, path in places.items():
        try:
            found = shutil.disk_usage(path)
        except OSError:
            continue
        yield Disk(tuple(uses[device]), found.free, found.total)


def _low(disk: Disk) -> Problem:
    text = (
        f"the disk of {', '.join(disk.uses)} is nearly full: {disk.free / 2**30:.1f} GiB are free"
    )
    return Problem("error", text)


def _task_problems(
    config: OnlineConfig, states: Sequence[TaskState], workers: Sequence[WorkerState]
) -> list[Problem]:
    found = []
    nobody = not any(w.state != "gone" for w in workers)
    if nobody:
        left = sum(s.pending for s in states)
        waiting = f"; {left} jobs wait" if left else ""
        level = "error" if left else "warning"
        found.append(
            Problem(level, f"no worker is running: gpucal online run starts them{waiting}")
        )
    for state in states:
        there = any(w.task == state.task and w.state != "gone" for w in workers)
        if not nobody and not there and config.workers.get(state.task, 1):
            found.append(Problem("error", f"{state.task} has no worker that lives", state.task))
        if state.failed:
            plural = "s were" if state.failed > 1 else " was"
            text = f"{state.task}: {state.failed} job{plural} given up"
            found.append(Problem("error", text, state.task))
    for worker in workers:
        if worker.state == "gone":
            text = f"a worker of {worker.task} is gone and left {len(worker.jobs)} job(s) behind"
            found.append(Problem("warning", text, worker.task))
        elif worker.state == "silent":
            text = f"a worker of {worker.task} has been silent for {worker.silent:.0f} s"
            found.append(Problem("error", text, worker.task))
    return found
