"""Workers and their supervisor: what hangs is killed, what dies comes back, the operator is told."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from builders.small_site import site

from gpucal import L0Error, OnlineError
from gpucal.online.queue.events import Job
from gpucal.online.queue.job_files import ACTIVE
from gpucal.online.queue.pipe import TASKS, Pipe
from gpucal.online.site.config import OnlineConfig
from gpucal.online.site.context import Context
from gpucal.online.site.results import Results
from gpucal.online.tasks.table import TASK_FUNCTIONS
from gpucal.online.workers import supervise
from gpucal.online.workers import worker as worker_module
from gpucal.online.workers.control import request
from gpucal.online.workers.supervise import Supervisor
from gpucal.online.workers.worker import Worker

ONLY = dict.fromkeys(TASKS, 0)


def only(folder: Path, task: str, **changes: Any) -> OnlineConfig:
    """A site with one worker, of ``task``."""
    return site(folder, Path("none"), workers={**ONLY, task: 1}, **changes)


@contextmanager
def running(config: OnlineConfig) -> Iterator[Supervisor]:
    supervisor = Supervisor(config)
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    try:
        yield supervisor
    finally:
        supervisor.stop()
        thread.join(300)
        assert not thread.is_alive()


def wait_for(what: Callable[[], Any], limit: float = 300.0) -> Any:
    deadline = time.monotonic() + limit
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def worker_pids(config: OnlineConfig, task: str) -> list[int]:
    folder = config.pipe / TASKS[task] / ACTIVE
    names = [p.name for p in folder.iterdir()] if folder.exists() else []
    pids = [int(name.split("~")[1]) for name in names]
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def texts(config: OnlineConfig) -> list[str]:
    results = Results(config.database_url)
    found = [m["text"] for m in results.rows("messages")]
    results.close()
    return found


def test_a_job_that_hangs_is_given_up_and_the_next_is_done(tmp_path: Path) -> None:
    """Its store is a pipe that nobody writes to: reading it never ends."""
    config = only(tmp_path, "fits_heterodyne", timeout=1.5, attempts=2)
    stuck = tmp_path / "stuck.zarr"
    stuck.mkdir()
    os.mkfifo(stuck / "zarr.json")
    pipe = Pipe(config.pipe)
    task = pipe.task("fits_heterodyne")
    task.put(Job(str(stuck), 1, 0, "p", end_of_scan=True))
    with running(config) as supervisor:
        wait_for(lambda: list(task.failed()))
        supervisor.config = config.model_copy(update={"timeout": 600.0})  # this one is only slow
        broken = tmp_path / "broken.zarr"
        broken.mkdir()
        (broken / "zarr.json").write_text("{")
        task.put(Job(str(broken), 2, 0, "p", end_of_scan=True))
        wait_for(lambda: len(list(task.failed())) == 2)
    first, second = (reason["error"] for _, reason in task.failed())
    assert "timeout of 2 s" in first
    assert "is not valid JSON" in second
    said = texts(config)
    assert any("will try again" in text for text in said)
    assert any("gave up p.00000001" in text for text in said)


def test_a_dead_worker_is_told_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "RECOVERED_S", 0.0)
    config = only(tmp_path, "plot")
    with running(config):
        (pid,) = wait_for(lambda: worker_pids(config, "plot"))
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: [p for p in worker_pids(config, "plot") if p != pid])
        assert any("a worker of plot was killed by signal 9" in text for text in texts(config))
        wait_for(lambda: "a worker of plot runs again" in texts(config))


def test_the_operator_restarts_a_task_and_stops_all(tmp_path: Path) -> None:
    config = only(tmp_path, "plot")
    with running(config) as supervisor:
        (pid,) = wait_for(lambda: worker_pids(config, "plot"))
        request(config.pipe, "restart", "plot")
        wait_for(lambda: [p for p in worker_pids(config, "plot") if p != pid])
        assert any("restarted by the operator" in text for text in texts(config))
        request(config.pipe, "stop")
        wait_for(lambda: supervisor.stopping)
    assert not worker_pids(config, "plot")


def test_an_unknown_task_is_refused(tmp_path: Path) -> None:
    config = site(tmp_path, Path("none"), workers={"plots": 2})
    with pytest.raises(OnlineError, match="'plots', which does not exist"):
        Supervisor(config)


def one_job(tmp_path: Path, work: Any, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Worker:
    config = site(tmp_path, Path("none"), **changes)
    monkeypatch.setitem(TASK_FUNCTIONS, "plot", work)
    monkeypatch.setattr(worker_module, "PAUSE_S", 0.01)
    Pipe(config.pipe).task("plot").put(Job("x.zarr", 3, 1, "p"))
    return Worker("plot", config)


def test_a_full_disk_is_no_fault_of_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = [True]

    def work(job: Job, context: Context) -> list[str]:
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return []

    worker = one_job(tmp_path, work, monkeypatch)
    for _ in range(5):
        assert worker.step()
        status = worker.directory.status()
        assert (status.pending, status.active, status.failed) == (1, 0, 0)
    said = [m["text"] for m in worker.results.rows("messages")]
    assert said == ["plot cannot go on and tries again: [Errno 28] No space left on device"]
    full[0] = False
    assert worker.step()
    assert worker.directory.status().done == 1
    worker.results.close()


def test_a_lost_database_is_no_fault_of_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = one_job(tmp_path, lambda job, context: [], monkeypatch)
    database = worker.config.data / "gpucal.db"
    worker.results.close()
    for name in ("gpucal.db", "gpucal.db-wal", "gpucal.db-shm"):
        (worker.config.data / name).unlink(missing_ok=True)
    database.mkdir()
    assert worker.step()
    assert worker.directory.status().pending == 1
    database.rmdir()
    worker.results = Results(worker.config.database_url)
    assert worker.step()
    assert worker.directory.status().done == 1
    worker.results.close()


def test_errors_are_counted_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(job: Job, context: Context) -> list[str]:
        raise L0Error("elevation is 7.", scan=job.scan) if job.attempt else KeyError("x")

    worker = one_job(tmp_path, work, monkeypatch, attempts=2)
    assert worker.step()
    assert worker.directory.status().pending == 1
    assert worker.step()
    ((name, reason),) = worker.directory.failed()
    assert name == "p.00000003.s00001.json"
    assert reason["error"] == "scan 3: elevation is 7."
    assert "Traceback" in reason["traceback"]
    (message,) = worker.results.rows("messages")
    assert message["text"] == f"plot gave up {name}: scan 3: elevation is 7."
    (row,) = worker.results.rows("jobs")
    assert (row["state"], row["task"], row["scan"]) == ("failed", "plot", 3)
    worker.results.close()


@pytest.mark.parametrize(
    "error",
    [AssertionError(), KeyError("x"), OSError(), EOFError(), StopIteration(), ValueError("  ")],
)
def test_no_error_is_told_without_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """What says nothing by itself is named, with the place it comes from."""

    def work(job: Job, context: Context) -> list[str]:
        raise error

    worker = one_job(tmp_path, work, monkeypatch, attempts=1)
    worker.step()
    (message,) = worker.results.rows("messages")
    worker.results.close()
    line = work.__code__.co_firstlineno + 1
    reason = f"unexpected {type(error).__name__} in test_supervise.py, line {line}: "
    assert reason in message["text"]
    assert len(message["text"].partition(reason)[2]) >= 3


def test_a_scan_that_nobody_ends_is_ended(tmp_path: Path) -> None:
    """Silence, or a later scan of the store, of whatever project; not while its own jobs still wait."""
    config = site(tmp_path, Path("none"), workers=ONLY, end_timeout=0.3)
    results = Results(config.database_url)
    for scan, project, store in ((1, "a", "n"), (2, "c", "n"), (9, "b", "m")):
        row = {"project": project, "scan": scan, "store": store, "obs_class": "heterodyne"}
        results.save("scans", [row])
    supervisor = Supervisor(config)
    supervisor.tick()
    calibration = Pipe(config.pipe).task("calibration")
    assert calibration.names() == ["a.00000001.end.json"]
    claim = calibration.claim()
    assert claim is not None
    assert claim.job.end_of_scan
    calibration.put(Job("m", 9, 4, "b"))
    time.sleep(0.4)
    supervisor._next_house_keeping = 0.0
    supervisor.tick()
    assert sorted(calibration.names()) == ["b.00000009.s00004.json", "c.00000002.end.json"]
    supervisor._next_house_keeping = 0.0
    supervisor.tick()
    assert sorted(calibration.names()) == ["b.00000009.s00004.json", "c.00000002.end.json"]
    results.close()
    supervisor._end()
