"""Problems of the pipeline at one moment, for the operator: each says what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gpucal.online.queue.pipe import TASK_NAMES
from gpucal.online.site.config import OnlineConfig
from gpucal.online.workers.status_values import Disk, Problem, TaskState, WorkerState


def problems_of(
    config: OnlineConfig,
    states: Sequence[TaskState],
    workers: Sequence[WorkerState],
    disks: Sequence[Disk],
) -> list[Problem]:
    """Workers that are missing, jobs that were given up, workers that do not work, full disks, in this order."""
    return [
        *_missing(config, states, workers),
        *_of_workers(config, workers),
        *(_low(disk) for disk in disks if disk.low),
    ]


def _missing(
    config: OnlineConfig, states: Sequence[TaskState], workers: Sequence[WorkerState]
) -> Iterator[Problem]:
    """Tasks without workers, and tasks that gave up jobs."""
    living = {w.task for w in workers if w.state != "gone"}
    if not living:
        left = sum(s.pending + s.active for s in states)
        waiting = f"; {left} job{'s wait' if left > 1 else ' waits'}, none is lost" if left else ""
        text = f"no worker is running{waiting}: start them with {config.command('run')}"
        yield Problem("error", text)
    for state in states:
        name = TASK_NAMES[state.task]
        if living and state.task not in living and state.wanted:
            restart = config.command("restart", state.task)
            text = (
                f"{name}: no worker lives. One is started within a minute; at once with {restart}"
            )
            yield Problem("error", text, state.task)
        if state.failed:
            plural = "s were" if state.failed > 1 else " was"
            again = config.command("retry", state.task, "--all")
            text = f"{name}: {state.failed} job{plural} given up. When the cause is gone: {again}"
            yield Problem("error", text, state.task)


def _of_workers(config: OnlineConfig, workers: Sequence[WorkerState]) -> Iterator[Problem]:
    """Workers that died with jobs in hand, and those that no longer show signs of life."""
    for worker in workers:
        name = TASK_NAMES[worker.task]
        if worker.state == "gone":
            jobs = f"{len(worker.jobs)} job{'s' if len(worker.jobs) > 1 else ''}"
            text = f"{name}: a worker died over {jobs}. The next worker does them again by itself"
            yield Problem("warning", text, worker.task)
        elif worker.state == "silent":
            restart = config.command("restart", worker.task)
            text = (
                f"{name}: a worker has been silent for {worker.silent:.0f} s. "
                f"Look at its host and the disk of the pipe, then {restart}"
            )
            yield Problem("error", text, worker.task)


def _low(disk: Disk) -> Problem:
    text = (
        f"the disk of {', '.join(disk.uses)} is nearly full: {disk.free / 2**30:.1f} GiB are free. "
        "Make room; work that had to stop goes on by itself"
    )
    return Problem("error", text)
