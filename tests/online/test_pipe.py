"""The pipe: nothing is lost and nothing done by two at once, whoever dies when."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from gpucal.errors import OnlineError
from gpucal.online.queue import task_directory
from gpucal.online.queue.events import Job
from gpucal.online.queue.job_files import ACTIVE, DONE, FAILED
from gpucal.online.queue.pipe import TASKS, Pipe
from gpucal.online.queue.processes import process_lives, worker_id
from gpucal.online.queue.recovery import Recovery
from gpucal.online.queue.task_directory import TaskDirectory


def job(subscan: int = 0, **changes: object) -> Job:
    return replace(Job("night.zarr", 7, subscan, "p1"), **changes)  # type: ignore[arg-type]


@pytest.fixture
def pipe(tmp_path: Path) -> Pipe:
    made = Pipe(tmp_path / "pipe")
    made.create()
    return made


def files(pipe: Pipe) -> list[str]:
    return sorted(p.name for p in pipe.root.rglob("*.json"))


def test_a_job_goes_through_the_pipe(pipe: Pipe) -> None:
    pipe.submit(job())
    assert [s.pending for s in pipe.status() if s.task in ("calibration", "fits_heterodyne")] == [
        1,
        1,
    ]
    calibration, plot = pipe.task("calibration"), pipe.task("obs_procedure")
    claim = calibration.claim()
    assert claim is not None
    assert claim.job == job()
    assert calibration.claim() is None
    assert calibration.status().active == 1
    calibration.finish(claim, 0.5, forward=[plot])
    assert calibration.status().pending == calibration.status().active == 0
    assert calibration.status().done == 1
    handed = plot.claim()
    assert handed is not None
    assert handed.job == job()
    line = json.loads((calibration.path / DONE).read_text())
    assert line["job"] == job().name
    assert line["seconds"] == 0.5


def test_bolometers_go_to_their_own_task(pipe: Pipe) -> None:
    pipe.submit(job(obs_class="bolometer"))
    assert {s.task: s.pending for s in pipe.status() if s.pending} == {"fits_bolometer": 1}


def test_oldest_first(pipe: Pipe) -> None:
    task = pipe.task("plot")
    for n in (3, 1, 2):
        task.put(job(n))
        os.utime(task.path / job(n).name, (n, n))
    order = []
    while (claim := task.claim()) is not None:
        order.append(claim.job.subscan)
        task.finish(claim, 0.0)
    assert order == [1, 2, 3]


def test_three_failures_and_a_retry(pipe: Pipe) -> None:
    task = pipe.task("plot")
    task.put(job())
    for n in range(3):
        claim = task.claim()
        assert claim is not None
        assert claim.job.attempt == n
        assert task.fail(claim, "no paper", "Traceback ...") == (n == 2)
    assert task.claim() is None
    ((name, reason),) = task.failed()
    assert name == job().name
    assert reason["error"] == "no paper"
    assert reason["traceback"] == "Traceback ..."
    assert task.status().failed == 1
    task.retry(name)
    claim = task.claim()
    assert claim is not None
    assert claim.job.attempt == 0
    assert list(task.failed()) == []
    for wrong in (name, "../x.json", "nothing"):
        with pytest.raises(OnlineError, match="no failed job"):
            task.retry(wrong)


def test_the_same_job_is_not_done_by_two_at_once(pipe: Pipe) -> None:
    first, second = pipe.task("plot", "a~1"), pipe.task("plot", "b~2")
    first.put(job())
    claim = first.claim()
    assert claim is not None
    first.put(job())  # submitted again meanwhile
    assert second.claim() is None
    first.finish(claim, 0.0)
    assert second.claim() is not None


def test_half_written_files_get_time_and_then_fail(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = pipe.task("plot")
    path = task.path / "half.json"
    path.write_text(job().to_json()[:20])
    assert task.claim() is None
    assert path.exists()
    path.write_text(job(5).to_json())  # the producer finishes
    claim = task.claim()
    assert claim is not None
    assert claim.job.subscan == 5
    task.finish(claim, 0.0)
    path.write_text("{")
    monkeypatch.setattr(task_directory, "GRACE_S", 0.05)
    assert task.claim() is None
    time.sleep(0.06)
    assert task.claim() is None
    ((name, reason),) = task.failed()
    assert name == "half.json"
    assert "not JSON" in reason["error"]


def test_a_removed_directory_comes_back(pipe: Pipe) -> None:
    task = pipe.task("calibration")
    shutil.rmtree(pipe.root)
    assert task.claim() is None
    task.put(job())
    assert task.claim() is not None
    shutil.rmtree(pipe.root)
    assert [s.pending for s in pipe.status()] == [0] * len(TASKS)


def test_a_full_disk_loses_nothing(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    task, following = pipe.task("calibration"), pipe.task("obs_procedure")
    task.put(job())
    claim = task.claim()
    assert claim is not None

    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(task_directory, "write_synced", full)
    with pytest.raises(OSError, match="No space"):
        task.finish(claim, 0.0, forward=[following])
    assert files(pipe) == [job().name]
    with pytest.raises(OSError, match="No space"):
        task.fail(claim, "x")
    task.release(claim)
    again = task.claim()
    assert again is not None
    monkeypatch.undo()
    task.finish(again, 0.0, forward=[following])
    assert following.status().pending == 1
    assert not list(pipe.root.rglob(".incoming/*"))


def test_a_clock_that_jumps_does_not_make_workers_stale(pipe: Pipe) -> None:
    """Heartbeats are compared with themselves, by our own monotonic clock."""
    there = pipe.task("plot", "another-host~1~1")
    there.put(job())
    assert there.claim() is not None
    ours = pipe.task("plot")
    recovery = Recovery(ours)
    beat = there.path / ACTIVE / "another-host~1~1" / ".heartbeat"
    for jump in (1e9, 0.0, 4e9):
        os.utime(beat, (jump, jump))
        assert recovery.recover(0.05) == []
        time.sleep(0.03)
    time.sleep(0.06)
    assert recovery.recover(0.05) == [job().name]
    claim = ours.claim()
    assert claim is not None
    assert claim.job.crashes == 1


def test_a_job_that_kills_its_workers_is_given_up(pipe: Pipe) -> None:
    ours = pipe.task("plot")
    ours.put(job())
    for n in range(3):
        dead = pipe.task("plot", worker_id().rpartition("~")[0] + f"~{n}")  # other start time
        assert dead.claim() is not None
        assert Recovery(ours).recover(60, crashes=3) == [job().name]
    ((_, reason),) = ours.failed()
    assert reason["error"].startswith("3 workers died over it")


def test_who_lives() -> None:
    assert process_lives(worker_id("slot 1")) is True
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    child.start()
    assert child.pid is not None
    host, _, _ = worker_id().split("~")
    ticks = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
    assert process_lives(f"{host}~{child.pid}~{ticks}") is True
    assert process_lives(f"{host}~{child.pid}~{int(ticks) - 1}") is False
    child.kill()
    child.join()
    assert process_lives(f"{host}~{child.pid}~{ticks}") is False
    assert process_lives("elsewhere~1~1") is None


def test_many_jobs_are_counted_and_claimed(pipe: Pipe) -> None:
    task = pipe.task("calibration")
    text = job().to_json()
    for n in range(5_000):
        (task.path / f"p1.00000007.s{n:05d}.json").write_text(text)
    assert task.status().pending == 5_000
    for _ in range(50):
        claim = task.claim()
        assert claim is not None
        task.finish(claim, 0.0)
    assert task.status().pending == 4_950
    assert task.status().done == 50


def _work(root: Path, n: int) -> None:
    """A worker as simple as can be: pass every job on to the next task."""
    task, following = Pipe(root).task("calibration"), Pipe(root).task("obs_procedure")
    while True:
        Recovery(task).recover(60)
        claim = task.claim()
        if claim is None:
            time.sleep(0.01)
            continue
        time.sleep(0.004)
        task.finish(claim, 0.0, forward=[following])


def test_kill_nine_at_any_moment(pipe: Pipe) -> None:
    """Three workers, one of them killed every 50 ms: every job arrives."""
    total = 900
    context = multiprocessing.get_context("fork")
    task, following = pipe.task("calibration"), pipe.task("obs_procedure")
    workers = [context.Process(target=_work, args=(pipe.root, n)) for n in range(3)]
    for worker in workers:
        worker.start()
    try:
        for n in range(total):
            task.put(job(n))
        victim, deadline = 0, time.monotonic() + 300
        while following.status().pending < total and time.monotonic() < deadline:
            time.sleep(0.05)
            pid = workers[victim % 3].pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            workers[victim % 3].join()
            workers[victim % 3] = context.Process(target=_work, args=(pipe.root, victim))
            workers[victim % 3].start()
            victim += 1
        assert victim >= 5
    finally:
        for worker in workers:
            worker.kill()
            worker.join()
    assert sorted(following.names()) == sorted(job(n).name for n in range(total))
    Recovery(task).recover(0.0)
    assert task.status().pending == task.status().active == 0
    assert not os.listdir(task.path / FAILED)


def test_claims_of_many_threads_are_disjoint(pipe: Pipe) -> None:
    total = 300
    for n in range(total):
        pipe.task("plot").put(job(n))
    got: list[list[str]] = [[] for _ in range(8)]

    def work(mine: list[str], slot: int) -> None:
        task = TaskDirectory(pipe.task("plot").path, "plot", worker_id(str(slot)))
        while (claim := task.claim()) is not None:
            mine.append(claim.name)
            task.finish(claim, 0.0)

    threads = [threading.Thread(target=work, args=(got[k], k)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = [name for mine in got for name in mine]
    assert len(names) == total == len(set(names))
