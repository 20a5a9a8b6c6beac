"""The state of the pipeline at one moment: tasks, workers, failed jobs, disks, problems."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

LOW_FRACTION, LOW_BYTES = 0.05, 5 * 2**30
"""A disk is nearly full when less than both is free."""


@dataclass(frozen=True)
class TaskState:
    """One task. oldest: s, age of the oldest pending job; rate: jobs per minute, lately.

    workers, wanted: those that live, and those that the configuration asks for; message, level: the last that was
    said about it, "" where that is over; name: what it makes, in plain words.
    """

    task: str
    pending: int
    oldest: float
    active: int
    failed: int
    done: int
    rate: float
    workers: int
    wanted: int = 1
    name: str = ""
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
    """The whole state; times in s, ``time`` since the epoch. scans: state -> how many."""

    time: float
    tasks: tuple[TaskState, ...]
    workers: tuple[WorkerState, ...]
    failed: tuple[FailedJob, ...]
    disks: tuple[Disk, ...]
    scans: dict[str, int]
    messages: tuple[dict[str, Any], ...]
    problems: tuple[Problem, ...]

    def as_dict(self) -> dict[str, Any]:
        """The state as plain values for JSON."""
        return asdict(self)
