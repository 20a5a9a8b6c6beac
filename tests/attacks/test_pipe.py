"""Attacks on the folders of the online pipe: what is no job harms nobody, and good jobs are done."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpucal.online.queue import task_directory
from gpucal.online.queue.events import Job
from gpucal.online.queue.job_files import ACTIVE, DONE, FAILED, HEARTBEAT, INCOMING, REASON
from gpucal.online.queue.pipe import Pipe
from gpucal.online.queue.recovery import Recovery
from gpucal.online.queue.task_directory import TaskDirectory
from gpucal.online.workers.control import pending_requests, request

Record = Callable[[str, object], None]
GOOD = Job("night.zarr", 7, 3, "p1")
SECRET = "not for the pipe"


def _write(name: str, content: str | bytes) -> Callable[[Path], None]:
    raw = content.encode() if isinstance(content, str) else content

    def harm(task: Path) -> None:
        (task / name).write_bytes(raw)

    return harm


def _job(name: str = "x.json", **changes: Any) -> Callable[[Path], None]:
    """A job with fields that it may not have."""
    fields = {**json.loads(GOOD.to_json()), **changes}
    return _write(name, json.dumps(fields))


def _large(task: Path) -> None:
    with open(task / "x.json", "wb") as stream:
        stream.truncate(8 << 30)


def _outside(task: Path) -> None:
    """A link to a file elsewhere, which must stay."""
    secret = task.parent.parent / "secret.json"
    secret.write_text(SECRET)
    (task / "x.json").symlink_to(secret)


def _instead(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Something else in place of a folder or file of the task."""

    def harm(task: Path) -> None:
        path = task / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.parent.mkdir(exist_ok=True)
        make(path)

    return harm


def _link_to_folder(path: Path) -> None:
    other = path.parent.parent / "active-elsewhere"
    other.mkdir()
    path.symlink_to(other)


def _worker(name: str) -> Callable[[Path], None]:
    """The folder of a worker that is none of ours, with a job in its hand."""

    def harm(task: Path) -> None:
        folder = task / ACTIVE / name
        folder.mkdir(parents=True)
        (folder / replace(GOOD, subscan=9).name).write_text(replace(GOOD, subscan=9).to_json())

    return harm


def _worker_with(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def harm(task: Path) -> None:
        folder = task / ACTIVE / "elsewhere~1~1"
        folder.mkdir(parents=True)
        make(folder / "x.json")

    return harm


HARMS: dict[str, Callable[[Path], object]] = {
    "FIFO": lambda task: os.mkfifo(task / "x.json"),
    "folder": lambda task: (task / "x.json").mkdir(),
    "folder with something": lambda task: (task / "x.json" / "y").mkdir(parents=True),
    "link to itself": lambda task: (task / "x.json").symlink_to("x.json"),
    "link to nothing": lambda task: (task / "x.json").symlink_to("gone"),
    "link to zeros": lambda task: (task / "x.json").symlink_to("/dev/zero"),
    "link to a folder": lambda task: (task / "x.json").symlink_to("/usr"),
    "link outside": _outside,
    "8 GB of nothing": _large,
    "binary": _write("x.json", bytes(range(256))),
    "empty": _write("x.json", ""),
    "deep": _write("x.json", "[" * 100_000),
    "long number": _write("x.json", '{"scan": ' + "9" * 100_000 + "}"),
    "list": _write("x.json", "[1]"),
    "scan of text": _job(scan="7"),
    "scan true": _job(scan=True),
    "negative scan": _job(scan=-7),
    "huge scan": _job(scan=10**40),
    "negative subscan": _job(subscan=-5),
    "unknown field": _job(owner="me"),
    "group that is none": _job(group="../source"),
    "project that leads out": _job(project="../../etc"),
    "project of odd letters": _job(project="\udcff\n\0"),
    "created never": _job(created=float("nan")),
    "not UTF-8 in its name": lambda task: (task / "x\udcff.json").write_text("{"),
    "line break in its name": lambda task: (task / "x\ny.json").write_text("{"),
    "long name": lambda task: (task / ("x" * 250 + ".json")).write_text("{"),
    "good job, long name": lambda task: (task / ("x" * 250 + ".json")).write_text(GOOD.to_json()),
    "name of another job": _job("p1.00000008.s00001.json"),
    "hidden": _write(".x.json", "{"),
    ".active gone": lambda task: shutil.rmtree(task / ACTIVE, ignore_errors=True),
    ".active a link": _instead(ACTIVE, _link_to_folder),
    ".failed gone": lambda task: shutil.rmtree(task / FAILED, ignore_errors=True),
    ".incoming gone": lambda task: shutil.rmtree(task / INCOMING, ignore_errors=True),
    "done.jsonl a folder": _instead(DONE, lambda p: p.mkdir()),
    "done.jsonl a FIFO": _instead(DONE, os.mkfifo),
    "done.jsonl a loop": _instead(DONE, lambda p: p.symlink_to(p.name)),
    "foreign worker": _worker("elsewhere~1~1"),
    "worker without numbers": _worker("someone"),
    "worker of odd letters": _worker("a~\udcff~\n"),
    "worker of large numbers": _worker("a~" + "9" * 30 + "~" + "9" * 30),
    "worker with a FIFO": _worker_with(os.mkfifo),
    "worker with a folder": _worker_with(lambda p: p.mkdir()),
    "worker with a loop": _worker_with(lambda p: p.symlink_to(p.name)),
    "worker that is a file": lambda task: _file_among_workers(task),
    "heartbeat a folder": _worker_with(lambda p: (p.parent / HEARTBEAT).mkdir()),
    "heartbeat a loop": _worker_with(lambda p: (p.parent / HEARTBEAT).symlink_to(HEARTBEAT)),
}


def _file_among_workers(task: Path) -> None:
    (task / ACTIVE).mkdir(exist_ok=True)
    (task / ACTIVE / "elsewhere~1~1").write_text("x")


class Hung(BaseException):
    """No Exception: code that goes on after errors must not go on after this."""


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise Hung in this thread when the block hangs."""

    def ring(number: int, frame: object) -> None:
        raise Hung(f"for {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", HARMS, ids=lambda name: name.replace(" ", "-"))
def test_the_pipe(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Record
) -> None:
    record_property("attack", "hung")
    monkeypatch.setattr(task_directory, "GRACE_S", 0.0)
    pipe = Pipe(tmp_path / "pipe")
    pipe.create()
    task, following = pipe.task("plot"), pipe.task("obs_procedure")
    HARMS[name](task.path)
    with _time_limit(20):
        task.put(GOOD)
        done = _work(task, following)
        pipe.status()
        failed = dict(task.failed())
    record_property("attack", "lost")
    assert done.count(GOOD.name) >= 1
    assert GOOD.name in following.names()
    secret = tmp_path / "secret.json"
    assert not secret.exists() or secret.read_text() == SECRET
    for reason in failed.values():
        assert "Traceback" not in reason["error"]
        assert len(reason["error"]) < 2000
    record_property("attack", "refused" if failed else "done")


def _work(task: TaskDirectory, following: TaskDirectory) -> list[str]:
    """What a worker does, until there is nothing more to do."""
    done, recovery = [], Recovery(task)
    for _ in range(8):
        recovery.recover(0.0)
        claim = task.claim()
        if claim is not None:
            done.append(claim.name)
            task.finish(claim, 0.1, forward=[following])
    return done


def _claim_and_fail(task: TaskDirectory, again: bool) -> None:
    claim = task.claim()
    assert claim is not None
    if again:
        task.fail(claim, "x")
    else:
        task.give_up(claim.path, "x")


@pytest.mark.parametrize("where", [ACTIVE, FAILED, INCOMING])
def test_a_file_in_place_of_a_folder_is_one_error(
    where: str, tmp_path: Path, record_property: Record
) -> None:
    """Nothing can be done then; the worker hears of it, and goes on when it is mended."""
    record_property("attack", "refused")
    task = Pipe(tmp_path / "pipe").task("plot")
    task.put(GOOD)
    shutil.rmtree(task.path / where, ignore_errors=True)
    (task.path / where).write_text("mine")
    with _time_limit(20), pytest.raises(OSError):
        _claim_and_fail(task, where == INCOMING)
    (task.path / where).unlink()
    task = Pipe(tmp_path / "pipe").task("plot")
    Recovery(task).recover(0.0)
    assert task.claim() is not None or list(task.claims(lambda worker: True))


@pytest.mark.parametrize("make", ["FIFO", "link to zeros", "folder", "deep"])
def test_a_request_that_is_none(make: str, tmp_path: Path, record_property: Record) -> None:
    """The supervisor looks at the requests of operators again and again; what is none is left alone."""
    record_property("attack", "hung")
    pipe = Pipe(tmp_path / "pipe")
    pipe.create()
    request(pipe.root, "restart", "plot")
    folder = pending_requests(pipe.root)[0].path.parent
    HARMS[make](folder)
    with _time_limit(20):
        assert [r.task for r in pending_requests(pipe.root)] == ["plot"]
    record_property("attack", "refused")


def test_a_reason_that_is_none(tmp_path: Path, record_property: Record) -> None:
    record_property("attack", "hung")
    task = Pipe(tmp_path / "pipe").task("plot")
    task.put(GOOD)
    claim = task.claim()
    assert claim is not None
    task.give_up(claim.path, "no paper")
    reason = task.path / FAILED / f"{GOOD.name}{REASON}"
    reason.unlink()
    os.mkfifo(reason)
    with _time_limit(20):
        ((name, found),) = task.failed()
    assert (name, found["error"]) == (GOOD.name, "the reason was lost")
    record_property("attack", "refused")
