"""Collect the state of the pipeline: for the terminal, the page, and JSON."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from gpucal.errors import OnlineError
from gpucal.online.queue.job_files import DONE
from gpucal.online.queue.pipe import TASK_NAMES, TASKS, Pipe
from gpucal.online.queue.task_directory import TaskDirectory, TaskStatus
from gpucal.online.site.config import OnlineConfig
from gpucal.online.site.reasons import reason_of
from gpucal.online.site.results import Results
from gpucal.online.site.tables import SCANS
from gpucal.online.workers.disks import disks_of
from gpucal.online.workers.job_rate import job_rate, last_finished
from gpucal.online.workers.problems import problems_of
from gpucal.online.workers.status_values import FailedJob, Problem, Status, TaskState
from gpucal.online.workers.worker_states import file_system_now, worker_states

LAST_MESSAGES = 300
SHOWN_MESSAGES = 20
SHOWN_FAILED = 50


def snapshot(config: OnlineConfig, results: Results | None = None) -> Status:
    """Look at pipe, workers, disks and database; changes nothing and raises nothing.

    What cannot be read becomes a problem of the result. ``results``: a database that is open already.
    """
    pipe = Pipe(config.pipe)
    now = time.time()
    problems: list[Problem] = []
    messages, scans = _from_database(config, results, problems)
    said: dict[str, dict[str, Any]] = {m["task"]: m for m in messages if m["task"]}
    here = file_system_now(config.pipe)
    workers = tuple(
        w for name in TASKS for w in worker_states(pipe.task(name), here, config.stale_after)
    )
    states = []
    for name in TASKS:
        directory = pipe.task(name)
        alive = sum(w.task == name and w.state == "alive" for w in workers)
        wanted = config.workers.get(name, 1)
        states.append(_task_state(directory, now, (alive, wanted), said.get(name, {})))
    failed = tuple(_failed(pipe, [s.task for s in states if s.failed]))
    disks = tuple(disks_of(config))
    problems += problems_of(config, states, workers, disks)
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
        text = reason_of(error).rstrip(".")
        remedy = "Start it, or correct database in the configuration; no result is lost meanwhile"
        problems.append(Problem("error", f"the database cannot be read: {text}. {remedy}"))
        return [], {}
    finally:
        if opened is not None and opened is not results:
            opened.close()
    keys = ("id", "time", "level", "task", "project", "scan", "text")
    return [{k: m[k] for k in keys} for m in messages], scans


def _not_made_yet(config: OnlineConfig) -> bool:
    """Whether an SQLite file does not exist yet: reading the state must not create it."""
    address = sa.make_url(config.database_url) if "://" in config.database_url else None
    if address is None or address.get_backend_name() != "sqlite" or not address.database:
        return False
    return not Path(address.database).exists()


def _task_state(
    directory: TaskDirectory, now: float, workers: tuple[int, int], said: dict[str, Any]
) -> TaskState:
    """A task with its rate and the last message about it. workers: that live, that are wanted."""
    found = directory.status()
    alive, wanted = workers
    if alive and alive >= wanted and _is_over(found, directory, said):
        said = {}
    return TaskState(
        task=found.task,
        pending=found.pending,
        oldest=found.oldest,
        active=found.active,
        failed=found.failed,
        done=found.done,
        rate=job_rate(directory.path / DONE, now),
        workers=alive,
        wanted=wanted,
        name=TASK_NAMES[found.task],
        message=str(said.get("text", "")),
        level=str(said.get("level", "")),
    )


def _is_over(found: TaskStatus, directory: TaskDirectory, said: dict[str, Any]) -> bool:
    """Whether a trouble of the pipeline itself is past, all workers alive: jobs are done again, or none is left."""
    if said.get("level") in (None, "", "info") or int(said.get("scan", -1)) >= 0:
        return False
    if not found.pending and not found.active:
        return True
    return last_finished(directory.path / DONE) > float(said.get("time") or 0.0)


def _failed(pipe: Pipe, tasks: Iterable[str]) -> Iterable[FailedJob]:
    """Failed jobs of these tasks with their reasons, as far as they can be read."""
    for task in tasks:
        for name, reason in itertools.islice(pipe.task(task).failed(), SHOWN_FAILED):
            known = reason if isinstance(reason, dict) else {}
            when = known.get("when")
            seconds = float(when) if isinstance(when, int | float) else 0.0
            yield FailedJob(task, name, str(known.get("error", "")), seconds)
