"""The whole pipeline with its processes: a night replayed, and the same with workers shot at random."""

from __future__ import annotations

import math
import os
import random
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from builders.online_night import CONFIG, FORTY, SHORT, Night, make_online_night
from builders.small_site import assert_same_arrays, drain, site

from gpucal import calibrate_store
from gpucal.online.queue.pipe import TASKS, Pipe
from gpucal.online.replay.replay import Replay
from gpucal.online.site.config import OnlineConfig
from gpucal.online.site.results import Results
from gpucal.online.workers.supervise import Supervisor

TABLES = ("scans", "calibrations", "pointings", "foci", "skydips", "spectra", "plots", "feedback")
VOLATILE = ("seen", "made", "delivered", "attempts", "store")


def configured(folder: Path, **changes: Any) -> OnlineConfig:
    return site(folder, Path("none"), calibration=CONFIG, attempts=3, **changes)


def play(folder: Path, night: Night, *, speed: float, kill_every: int = 0) -> OnlineConfig:
    """Replay the night into a running pipeline; return when everything is done."""
    config = configured(folder, stale_after=5.0)
    supervisor = Supervisor(config)
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    killer = _Killer(config, kill_every)
    try:
        Replay(night.path, folder / "l0.zarr", Pipe(config.pipe), project="p1").run(speed=speed)
        _until_idle(config)
    finally:
        killer.stop()
        supervisor.stop()
        thread.join(120)
    assert not thread.is_alive()
    assert killer.shots >= (2 if kill_every else 0)
    return config


class _Killer:
    """SIGKILL to a random worker whenever so many jobs were done: the night goes on however slow the machine is."""

    def __init__(self, config: OnlineConfig, every: int) -> None:
        self.shots = 0
        self._over = threading.Event()
        self._random = random.Random(5)
        self._root = config.pipe
        if every:
            threading.Thread(target=self._shoot, args=(every,), daemon=True).start()

    def _shoot(self, every: int) -> None:
        due = every
        while not self._over.wait(0.05):
            if sum(state.done for state in Pipe(self._root).status()) < due:
                continue
            workers = [p.name for p in self._root.rglob(".active/*") if p.is_dir()]
            pids = [int(name.split("~")[1]) for name in workers]
            pids = [pid for pid in pids if pid != os.getpid() and Path(f"/proc/{pid}").exists()]
            if pids:
                os.kill(self._random.choice(pids), signal.SIGKILL)
                self.shots += 1
                due += every

    def stop(self) -> None:
        self._over.set()


def _until_idle(config: OnlineConfig, limit: float = 900.0) -> None:
    pipe, results = Pipe(config.pipe), Results(config.database_url)
    quiet, deadline = 0, time.monotonic() + limit
    while quiet < 3:
        assert time.monotonic() < deadline, pipe.status()
        time.sleep(0.4)
        busy = sum(s.pending + s.active for s in pipe.status())
        busy += results.count("feedback", state="waiting")
        quiet = 0 if busy else quiet + 1
    results.close()


def outcome(config: OnlineConfig) -> dict[str, Any]:
    """All that must not depend on who died when."""
    results = Results(config.database_url)
    found: dict[str, Any] = {
        t: [{k: v for k, v in r.items() if k not in VOLATILE} for r in results.rows(t)]
        for t in TABLES
    }
    found["messages"] = sorted(
        m["text"]
        for m in results.rows("messages")
        if m["scan"] >= 0 and "delivered" not in m["text"]
    )
    results.close()
    project = config.data / "p1"
    for log in sorted((project / "logs").glob("*.log")):
        lines = log.read_text().splitlines()
        assert len(lines) == len(set(lines)), f"{log.name} says something twice"
        found[log.name] = sorted(lines)
    index = (project / "plots" / "index.jsonl").read_text().splitlines()
    assert len(index) == len(set(index))
    found["index"] = sorted(index)
    for kind in ("plots", "fits", "class", "feedback"):
        found[kind + " files"] = sorted(
            p.relative_to(project).as_posix() for p in (project / kind).rglob("*") if p.is_file()
        )
    failed = {task: [n for n, _ in Pipe(config.pipe).task(task).failed()] for task in TASKS}
    found["failed"] = {task: names for task, names in failed.items() if names}
    return found


def check(config: OnlineConfig, night: Night, offline: Path) -> dict[str, Any]:
    """Every result is there, and L1 is what the offline command makes of the finished store."""
    assert_same_arrays(config.data / "p1" / "l1.zarr", offline)
    found = outcome(config)
    broken = night.of("broken")
    states = {row["scan"]: row["state"] for row in found["scans"]}
    for number, kind in night.scans.items():
        if kind != "broken":
            expected = "ended" if kind in ("load", "skydip") else "calibrated"
            assert states[number] == expected, (number, kind)
    assert {row["scan"] for row in found["calibrations"]} >= set(night.of("load", "skydip"))
    pointed = night.of("pointing", "pointing-cancelled")
    means = [r for r in found["pointings"] if r["pixel"] == -1]
    assert {r["scan"] for r in means} == set(pointed)
    for row in means:
        truth = 3.0 if row["direction"] == "az" else -2.0
        assert row["offset"] == pytest.approx(truth, abs=max(0.1, 5 * row["offset_error"]))
    cancelled = night.of("pointing-cancelled")
    assert {r["direction"] for r in means if r["scan"] in cancelled} == (
        {"az"} if cancelled else set()
    )
    assert {r["scan"] for r in found["foci"]} == set(night.of("focus"))
    assert {r["scan"] for r in found["skydips"]} == set(night.of("skydip"))
    results = len(set(pointed) | set(night.of("focus", "skydip")))
    assert len(found["feedback files"]) == len(found["feedback"]) == results
    assert all(row["state"] == "delivered" for row in found["feedback"])
    names = [n for jobs in found["failed"].values() for n in jobs]
    assert names
    assert {int(name.split(".")[1]) for name in names} == set(broken)
    assert any("elevation" in text for text in found["messages"])
    pictured = {int(row["file"].split("/")[1]) for row in found["plots"]}
    assert pictured >= set(night.scans) - set(broken)
    return found


def offline(night: Night, out: Path) -> Path:
    calibrate_store(night.path, out, CONFIG.model_copy(update={"partial": True}))
    return out


def whole(folder: Path, kinds: Sequence[str], *, speed: float, every: int) -> None:
    """Play once undisturbed and once with workers killed; both must come to the same."""
    night = make_online_night(folder / "night.zarr", kinds)
    reference = offline(night, folder / "offline.zarr")
    places = [folder / "calm", folder / "shot"]
    for place in places:
        place.mkdir()
    calm = check(play(places[0], night, speed=speed), night, reference)
    shot = check(play(places[1], night, speed=speed, kill_every=every), night, reference)
    for key, value in calm.items():
        assert _plain(shot[key]) == _plain(value), key


def _plain(value: Any) -> Any:
    """Lists as sorted texts: a difference is shown line by line."""
    return sorted(map(str, value)) if isinstance(value, list) else value


def test_a_night_with_and_without_dying_workers(tmp_path: Path) -> None:
    whole(tmp_path, SHORT, speed=math.inf, every=12)


@pytest.mark.slow
@pytest.mark.skipif("GPUCAL_ONLINE_NIGHT" not in os.environ, reason="on demand")
def test_forty_scans_at_fifty_times_the_speed(tmp_path: Path) -> None:
    whole(tmp_path, FORTY, speed=50.0, every=40)


@pytest.mark.skipif("GPUCAL_LONG" not in os.environ, reason="on demand: GPUCAL_LONG=1")
def test_tasks_without_processes_come_to_the_same(tmp_path: Path) -> None:
    night = make_online_night(tmp_path / "night.zarr", ["load", "pointing"])
    results = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        config = configured(tmp_path / name)
        pipe = Pipe(config.pipe)
        Replay(night.path, tmp_path / name / "l0.zarr", pipe, project="p1").run(speed=math.inf)
        tasks = tuple(TASKS) if name == "one" else tuple(reversed(TASKS))
        drain(config, tasks)
        results.append(outcome(config))
    assert results[0] == results[1]
