"""``gpucal online status``: the pipeline as a table, once or live."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gpucal.cli.show.summary import make_console
from gpucal.io.files.json_text import dumps
from gpucal.online.site.config import OnlineConfig
from gpucal.online.workers.status import snapshot
from gpucal.online.workers.status_values import Problem, Status, TaskState

PERIOD_S = 1.0
MESSAGES = 8
STYLES = {"error": "bold red", "warning": "yellow", "info": ""}
COLUMNS = ("task", "state", "pending", "oldest", "active", "failed", "done", "per min", "workers")
NARROW = ("task", "state", "pending", "oldest", "failed", "done", "workers")
"""The columns of a terminal in which there is no room for all."""
GAP = 2
"""Between two columns."""
LEAST_MESSAGE = 24
"""Columns of a terminal below which the last messages stand under the table, in whole."""


def status(config: OnlineConfig, watch: bool = False, json: bool = False) -> None:
    """Print the state of the pipeline; ``watch``: go on until interrupted; ``json``: one object a line."""
    states = _looks(config, watch)
    with contextlib.suppress(KeyboardInterrupt):  # the way to end it
        if json:
            for state in states:
                print(dumps(state.as_dict()), flush=True)
        elif watch and sys.stdout.isatty():
            _live(states, Console())
        else:
            console = Console() if sys.stdout.isatty() else make_console()
            for state in states:
                console.print(render(state, console.width))


def _looks(config: OnlineConfig, watch: bool) -> Iterator[Status]:
    """One state, or one a second for ever; a slow look is followed by a longer pause."""
    while True:
        begin = time.monotonic()
        yield snapshot(config)
        if not watch:
            return
        time.sleep(max(PERIOD_S, 2.0 * (time.monotonic() - begin)))


def _live(states: Iterator[Status], console: Console) -> None:
    """Redraw the whole screen for each state, until interrupted."""
    with Live(console=console, screen=True, auto_refresh=False) as live:
        for state in states:
            live.update(render(state, console.width), refresh=True)


def render(state: Status, width: int) -> Group:
    """Problems, a row per task, scans, disks, and the last messages. width: columns of the terminal."""
    parts: list[Any] = [_problem(p) for p in state.problems]
    parts += _tasks(state, width)
    if state.scans:
        parts.append(Text("scans: " + ", ".join(f"{n} {name}" for name, n in state.scans.items())))
    parts += [
        Text(
            f"disk of {', '.join(d.uses)}: {d.free / 2**30:.1f} of {d.total / 2**30:.0f} GiB free",
            style="bold red" if d.low else "dim",
        )
        for d in state.disks
    ]
    parts += [Text("")] + [_message(m) for m in state.messages[-MESSAGES:]]
    return Group(*parts)


def _problem(problem: Problem) -> Text:
    return Text(f"{problem.level}: {printable(problem.text)}", style=STYLES[problem.level])


def _tasks(state: Status, width: int) -> list[Any]:
    """The table of tasks, whose headings are always whole, and the messages for which it has no room."""
    rows = [_cells(task) for task in state.tasks]
    needed = {c: max([len(c), *(row[c].cell_len for row in rows)]) for c in COLUMNS}
    shown = COLUMNS if sum(needed.values()) + GAP * (len(COLUMNS) - 1) <= width else NARROW
    room = width - sum(needed[c] + GAP for c in shown)
    beside = room >= LEAST_MESSAGE
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for name in shown:
        left = name in ("task", "state")
        table.add_column(name, justify="left" if left else "right", width=needed[name])
    if beside:
        table.add_column(
            "what it makes, last message", overflow="ellipsis", no_wrap=True, width=room
        )
    for task, row in zip(state.tasks, rows, strict=True):
        table.add_row(*(row[c] for c in shown), *([_said(task)] if beside else []))
    below = [
        Text.assemble(f"{task.task}: ", _said(task))
        for task in state.tasks
        if task.message and not beside
    ]
    return [Text(""), table, Text(""), *below]


def _cells(task: TaskState) -> dict[str, Text]:
    """Column -> what stands there about a task."""
    word, style = _word(task)
    plain = {
        "task": task.task,
        "pending": f"{task.pending}",
        "oldest": f"{task.oldest:.0f} s" if task.pending else "-",
        "active": f"{task.active}",
        "done": f"{task.done}",
        "per min": f"{task.rate:.1f}",
        "workers": f"{task.workers}",
    }
    return {
        **{name: Text(text) for name, text in plain.items()},
        "state": Text(word, style=style),
        "failed": Text(f"{task.failed}", style="red" if task.failed else ""),
    }


def _said(task: TaskState) -> Text:
    """The last message about a task, else what it makes."""
    if task.message:
        return Text(printable(task.message), style=STYLES.get(task.level, ""))
    return Text(task.name, style="dim")


def _word(task: TaskState) -> tuple[str, str]:
    """The state of a task in one or two words, and their style."""
    if not task.workers and task.wanted:
        return "no worker", "bold red"
    if task.failed:
        return "trouble", "bold red"
    if not task.workers:
        return ("no worker", "yellow") if task.active or task.pending else ("off", "dim")
    if task.workers < task.wanted:
        return "few workers", "yellow"
    if task.active:
        return "working", "green"
    return ("waiting", "") if task.pending else ("idle", "dim")


def _message(message: dict[str, Any]) -> Text:
    clock = time.strftime("%H:%M:%S", time.gmtime(message["time"] or 0.0))
    place = " ".join(
        part
        for part in (
            message["task"],
            message["project"],
            f"scan {message['scan']}" if message["scan"] >= 0 else "",
        )
        if part
    )
    line = Text()
    line.append(f"{clock} ", style="dim")
    line.append(f"{message['level']:8}", style=STYLES.get(message["level"], ""))
    line.append(printable(f"{place}  {message['text']}"))
    return line


def printable(text: str) -> str:
    """``text`` without control characters of the terminal."""
    return "".join(c if c.isprintable() else "·" for c in text)
