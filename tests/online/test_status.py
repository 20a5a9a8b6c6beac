"""The state of the pipeline: what is alive, what is silent, what is full, and how it looks in a terminal."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import time
from collections import namedtuple
from pathlib import Path

import pytest
from builders import page_data as data
from rich.console import Console

from gpucal.cli.show import online_status
from gpucal.online.queue.events import Job
from gpucal.online.queue.job_files import ACTIVE, HEARTBEAT
from gpucal.online.queue.pipe import TASKS, Pipe
from gpucal.online.queue.processes import worker_id
from gpucal.online.site.config import OnlineConfig, load_online_config
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
    assert [p.level for p in found.problems] == ["error"]
    text = "no worker is running: start them with gpucal online run"
    assert [p.text for p in found.problems] == [text]
    assert "no worker" in drawn(found)
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
    assert found[0].startswith("CLASS files: no worker lives")
    assert found[0].endswith("gpucal online restart class")
    assert re.fullmatch(
        r"Pictures: a worker has been silent for 1\d\d s\. .*restart plot", found[1]
    )
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
    text = "Pictures: a worker died over 1 job. The next worker does them again by itself"
    assert problems(config) == [text]


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
            text = "the disk of data, work, pipe is nearly full: 4.0 GiB are free. Make room"
            assert [problem.split(";")[0] for problem in found] == [text]


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
    begin = time.process_time()
    found = snapshot(config)
    assert time.process_time() - begin < 1.0
    assert next(t.pending for t in found.tasks if t.task == "plot") == 5001


def drawn(state: Status, width: int = 150) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(online_status.render(state, width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_table(config: OnlineConfig) -> None:
    data.fill_night(config)
    text = drawn(snapshot(config))
    assert "error: Pictures: 1 job was given up." in text
    row = next(line for line in text.splitlines() if line.lstrip().startswith("calibration "))
    assert row.split()[:3] == ["calibration", "working", "2"]
    assert "scans: 14 calibrated, 1 open" in text
    assert "scan 84  pointing: the source is weaker than 3 sigma" in text


@pytest.mark.parametrize("width", [80, 96, 100, 120, 160, 200])
def test_the_headings_are_whole(config: OnlineConfig, width: int) -> None:
    """At every width, whatever was said last; what has no room in the table stands below it in whole."""
    data.fill_night(config)
    results = Results(config.database_url)
    long = "it is said at length " * 12
    for task in TASKS:
        results.message(f"{task} {long}", task=task)
    results.close()
    found = snapshot(config)
    text = drawn(found, width)
    assert max(map(len, text.splitlines())) <= width
    rows = text.splitlines()
    (heads,) = [line for line in rows if line.startswith("task ")]
    for name in online_status.NARROW if width < 90 else online_status.COLUMNS:
        assert name in heads
    for name in TASKS:
        row = next(line for line in rows[rows.index(heads) :] if line.startswith(f"{name} "))
        assert row.split()[1] in ("working", "waiting", "idle", "trouble")
    if width == 80:
        assert f"plot_heterodyne: plot_heterodyne {long}".strip() in " ".join(text.split())


def test_the_commands_of_problems_choose_the_site(tmp_path: Path) -> None:
    """As the operator typed it: the command works where status was asked for."""
    (tmp_path / "a site.toml").write_text(f'data = "{tmp_path}/data"\npipe = "{tmp_path}/pipe"\n')
    found = snapshot(load_online_config(tmp_path / "a site.toml", work=tmp_path / "w"))
    (problem,) = found.problems
    _, _, command = problem.text.partition("with ")
    assert shlex.split(command) == [
        "gpucal", "online", "run", "--config", str(tmp_path / "a site.toml"),
        "--work", str(tmp_path / "w"),
    ]  # fmt: skip


def test_a_trouble_that_is_over_is_not_shown(config: OnlineConfig) -> None:
    """A crash is over when the worker lives again and the jobs are done; one of the data stays."""
    data.add_workers(config)
    results = Results(config.database_url)
    results.message("a worker of plot was killed by signal 9", level="error", task="plot")
    results.message("class gave up its job", level="error", task="class", project="p", scan=3)

    def said() -> dict[str, str]:
        return {t.task: t.message for t in snapshot(config).tasks if t.message}

    assert said() == {"class": "class gave up its job"}
    folder = data.worker_folder(config, "plot")
    shutil.move(folder, config.pipe / "aside")
    assert said()["plot"] == "a worker of plot was killed by signal 9"
    shutil.move(config.pipe / "aside", folder)
    task = Pipe(config.pipe).task("plot", worker_id("plot"))
    task.put(Job("night.zarr", 8, 2, "p"))
    assert "plot" in said()  # its job waits still
    claim = task.claim()
    assert claim is not None
    task.put(Job("night.zarr", 9, 2, "p"))
    task.finish(claim, 0.1)
    assert "plot" not in said()
    results.close()


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
