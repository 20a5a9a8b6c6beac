"""Requests of the operator to the supervisor: one small file each, removed when done."""

from __future__ import annotations

import json
import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gpucal.errors import OnlineError
from gpucal.online.queue.job_files import read_job
from gpucal.online.queue.pipe import TASKS

Action = Literal["restart", "stop"]
ACTIONS = ("restart", "stop")
CONTROL = "control"
ALL = "all"
"""Stands in the name of a file for "every task"."""


@dataclass(frozen=True)
class Request:
    """One request. task: "" = all tasks; created: s since the epoch, by the clock of the sender."""

    action: Action
    task: str
    created: float
    path: Path


def request(pipe_root: str | Path, action: Action, task: str = "") -> Path:
    """Ask the supervisor of this pipe to restart the workers of a task, or to stop.

    Asked twice before it is done, it is done once. Returns the file. Raises OnlineError for an
    unknown action or task, for stopping one task alone, and when the file cannot be written.
    """
    if action not in ACTIONS:
        raise OnlineError(f"{action!r} cannot be asked for.", hint=f"Known: {', '.join(ACTIONS)}.")
    if task and task not in TASKS:
        raise OnlineError(f"there is no task {task!r}.", hint=f"Tasks: {', '.join(TASKS)}.")
    if task and action == "stop":
        raise OnlineError(
            f"the task {task} cannot be stopped alone.", hint="Set its workers to 0 and run again."
        )
    folder = Path(pipe_root) / CONTROL
    target = folder / f"{action}.{task or ALL}.json"
    aside = folder / f".{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            aside.write_text(
                json.dumps({"action": action, "task": task, "created": time.time()}), "utf-8"
            )
            os.replace(aside, target)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise OnlineError(f"{target} cannot be written: {error.strerror}.") from error
    return target


def pending_requests(pipe_root: str | Path) -> list[Request]:
    """The open requests, oldest first. Files that are not requests are left alone."""
    found = []
    folder = Path(pipe_root) / CONTROL
    try:
        paths = sorted(folder.glob("*.json"))
    except OSError:
        return []
    for path in paths:
        try:
            values = json.loads(read_job(path))
        except (OnlineError, OSError, ValueError, RecursionError):
            continue
        if _is_request(values) and path.name == f"{values['action']}.{values['task'] or ALL}.json":
            found.append(Request(values["action"], values["task"], float(values["created"]), path))
    return sorted(found, key=lambda r: (r.created, r.path.name))


def _is_request(values: Any) -> bool:
    """Whether a JSON document is a complete request of a known kind."""
    if not isinstance(values, dict):
        return False
    created = values.get("created")
    known_task = values.get("task") in ("", *TASKS)
    return values.get("action") in ACTIONS and known_task and isinstance(created, int | float)


def done(finished: Request) -> None:
    """Remove a finished request; it is no error when another process has removed it."""
    finished.path.unlink(missing_ok=True)
