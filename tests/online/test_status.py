"""The state of the pipeline: what is alive, what is silent, what is full, and how it looks in a terminal."""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from collections import namedtuple
from pathlib import Path

import pytest
from builders import page_data as data
from rich.console import Console

from gpucal.cli.show import online_status
from gpucal.online.queue.job_files import ACTIVE, HEARTBEAT
from gpucal.online.queue.pipe import TASKS, Pipe
from gpucal.online.site.config import OnlineConfig
from gpucal.online.site.results import Results
from gpucal.online.workers.job_rate import job_rate
from gpucal.online.workers.status import snapshot
from gpucal.online.workers.status_values import Status


@pytest.fixture
def config(tmp_path: Path) -> OnlineConfig:
    return data.make_config(tmp_path)


def problems(config: OnlineConfig) -> list[str]:
    return [p.text for p in snapshot(config).problems]


def test_nothing_is_made_where_nothing_is(config: OnlineConfig) -> None:
    found = snapshot(config)
    assert [t.task for t in found.tasks] == list(TASKS)
    assert [p.level for p in found.problems] == ["warning"]
    assert "no worker is running" in found.problems[0].text
    assert list(config.data.parent.iterdir()) == []


def test_all_is_well(config: OnlineConfig) -> None:
    data.add_workers(config)
    found = snapshot(config)
    assert found.problems == ()
    assert {w.state for w in found.workers} == {"alive"}
    assert [t.workers for t in found.tasks] == [1] * len(TASKS)


def test_a_silent_worker_and_a_task_without_one(config: OnlineConfig) -> None:
    data.add_workers(config)
    data.now_minus(data.worker_folder(config, "plot") / HEARTBEAT, 100)
    shutil.rmtree(data.worker_folder(config, "class"))
    found = problems(config)
    assert found[0] == "class has no worker that lives"
    assert found[1].startswith("a worker of plot has been silent for 1")
    assert len(found) == 2


def test_a_worker_that_died_over_its_jobs(config: OnlineConfig) -> None:
    data.add_workers(config)
    folder = Pipe(config.pipe).task("plot").path / ACTIVE / "elsewhere~1~2~plot"
    folder.mkdir()
    (folder / HEARTBEAT).touch()
    assert problems(config) == []
    data.now_minus(folder / HEARTBEAT, 100)
    assert problems(config) == []  # it left nothing behind
    (folder / "p.00000001.s00001.json").write_text("{}")
    assert problems(config) == ["a worker of plot is gone and left 1 job(s) behind"]


def test_a_task_that_was_switched_off_is_no_problem(tmp_path: Path) -> None:
    config = data.make_config(tmp_path, workers={"class": 0})
    data.add_workers(config)
    shutil.rmtree(data.worker_folder(config, "class"))
    assert problems(config) == []


def test_a_disk_that_is_nearly_full(config: OnlineConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    data.add_workers(config)
    usage = namedtuple("usage", "total used free")
    for total, free, low in (
        (2**40, 2**32, True),
        (2**40, 6 * 2**30, False),
        (2**30, 2**29, False),
    ):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, t=total, f=free: usage(t, t - f, f))
        found = problems(config)
        assert bool(found) is low
        if low:
            assert found == ["the disk of data, work, pipe is nearly full: 4.0 GiB are free"]


def test_rate_of_the_last_ten_minutes(tmp_path: Path) -> None:
    log, now = tmp_path / "done.jsonl", 1e9
    lines = [json.dumps({"finished": now - age}) for age in (5000, 650, 500, 300, 10)]
    log.write_text("\n".join([*lines, "torn", '{"finished": null}', ""]))
    assert job_rate(log, now) == pytest.approx(0.3)
    assert job_rate(tmp_path / "none", now) == 0
    # a busy task: what is read at the end of the log is less than ten minutes
    log.write_text(
        "".join(f"{json.dumps({'finished': now - 0.01 * i})}\n" for i in range(20000, 0, -1))
    )
    assert job_rate(log, now) == pytest.approx(6000, rel=0.01)


def test_a_clock_that_jumped_does_not_silence_workers(
    config: OnlineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    data.add_workers(config)
    there = time.time()
    monkeypatch.setattr(time, "time", lambda: there + 7200)
    assert problems(config) == []


def test_many_jobs_are_counted_in_time(config: OnlineConfig) -> None:
    data.add_workers(config)
    task = Pipe(config.pipe).task("plot")
    job = data.add_failed(config)
    task.put(job)
    for i in range(5000):
        os.link(task.path / job.name, task.path / f"p.{i:08d}.s00001.json")
    begin = time.perf_counter()
    found = snapshot(config)
    assert time.perf_counter() - begin < 1.0
    assert next(t.pending for t in found.tasks if t.task == "plot") == 5001


def drawn(state: Status) -> str:
    console = Console(file=io.StringIO(), width=150)
    console.print(online_status.render(state))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_table(config: OnlineConfig) -> None:
    data.fill_night(config)
    text = drawn(snapshot(config))
    assert "error: plot: 1 job was given up" in text
    row = next(line for line in text.splitlines() if line.lstrip().startswith("calibration "))
    assert row.split()[:3] == ["calibration", "working", "2"]
    assert "scans: 14 calibrated, 1 open" in text
    assert "scan 84  pointing: the source is weaker than 3 sigma" in text


def test_messages_do_not_steer_the_terminal(config: OnlineConfig) -> None:
    results = Results(config.database_url)
    results.message("a\x1b[2Jb\x1b]0;x\x07 [red]c[/red]", task="plot")
    results.close()
    text = drawn(snapshot(config))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]c[/red]" in text


def test_status_as_json(config: OnlineConfig, capsys: pytest.CaptureFixture[str]) -> None:
    data.add_workers(config)
    online_status.status(config, json=True)
    found = json.loads(capsys.readouterr().out)
    assert [t["task"] for t in found["tasks"]] == list(TASKS)


def test_watching_goes_on_until_interrupted(
    config: OnlineConfig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", pause)
    online_status.status(config, watch=True, json=True)
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert min(pauses) >= 1.0
