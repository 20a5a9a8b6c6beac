"""Problems of the pipeline at one moment, for the operator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from gpucal.online.workers.status_values import Disk, Problem, TaskState, WorkerState


def problems_of(
    states: Sequence[TaskState],
    workers: Sequence[WorkerState],
    disks: Sequence[Disk],
    wanted: Mapping[str, int],
) -> list[Problem]:
    """Workers that are missing, jobs that were given up, workers that do not work, full disks, in this order.

    wanted: workers per task, 1 where nothing is said.
    """
    return [
        *_missing(states, workers, wanted),
        *_of_workers(workers),
        *(_low(disk) for disk in disks if disk.low),
    ]


def _missing(
    states: Sequence[TaskState], workers: Sequence[WorkerState], wanted: Mapping[str, int]
) -> Iterator[Problem]:
    """Tasks without workers, and tasks that gave up jobs."""
    living = {w.task for w in workers if w.state != "gone"}
    if not living:
        left = sum(s.pending for s in states)
        waiting = f"; {left} jobs wait" if left else ""
        level = "error" if left else "warning"
        yield Problem(level, f"no worker is running: gpucal online run starts them{waiting}")
    for state in states:
        if living and state.task not in living and wanted.get(state.task, 1):
            yield Problem("error", f"{state.task} has no worker that lives", state.task)
        if state.failed:
            plural = "s were" if state.failed > 1 else " was"
            yield Problem("error", f"{state.task}: {state.failed} job{plural} given up", state.task)


def _of_workers(workers: Sequence[WorkerState]) -> Iterator[Problem]:
    """Workers that died with jobs in hand, and those that no longer show signs of life."""
    for worker in workers:
        if worker.state == "gone":
            text = f"a worker of {worker.task} is gone and left {len(worker.jobs)} job(s) behind"
            yield Problem("warning", text, worker.task)
        elif worker.state == "silent":
            text = f"a worker of {worker.task} has been silent for {worker.silent:.0f} s"
            yield Problem("error", text, worker.task)


def _low(disk: Disk) -> Problem:
    text = (
        f"the disk of {', '.join(disk.uses)} is nearly full: {disk.free / 2**30:.1f} GiB are free"
    )
    return Problem("error", text)
