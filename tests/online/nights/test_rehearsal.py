"""The rehearsal: everything goes wrong, and in the end there is what ``gpucal calibrate`` makes."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.small_site import arrays_of, drain

from gpucal import calibrate_store, main
from gpucal.cli.commands.online.rehearse import make_night, make_site
from gpucal.online.queue.pipe import Pipe
from gpucal.online.queue.scan_ends import OpenScan, missing_ends
from gpucal.online.replay import rehearsal
from gpucal.online.replay.rehearsal import Rehearsal
from gpucal.online.site.config import OnlineConfig
from gpucal.online.site.context import Context
from gpucal.online.site.results import Results
from gpucal.online.tasks.made_from import end_job, later_inputs
from gpucal.online.workers.worker import Worker

TASKS = ("calibration", "obs_procedure")


@dataclass(frozen=True)
class Played:
    config: OnlineConfig
    store: Path
    rows: dict[int, dict[str, Any]]
    texts: dict[int, str]
    said: list[str]
    results: Results


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("rehearsal")
    night, growing = make_night(folder, channels=32, dumps=2, pixels=2)
    config = make_site(folder)
    Pipe(config.pipe).create()
    results = Results(config.database_url)
    said: list[str] = []
    rehearsal = Rehearsal(night, growing, Pipe(config.pipe))

    workers = [Worker(task, config) for task in TASKS]

    def work() -> None:
        # what the supervisor does: a later scan has begun, so the one before is over
        opened = [OpenScan(end_job(row), 0.0) for row in results.rows("scans", state="open")]
        for job in missing_ends(opened, 900.0):
            Pipe(config.pipe).submit(job)
        while any(worker.step() for worker in workers):
            pass

    rehearsal.run(speed=math.inf, said=said.append, between=work)
    for worker in workers:
        worker.results.close()
    later_inputs(Context(config, results, "calibration"), since=0.0)
    drain(config, TASKS)
    rows = {row["scan"]: row for row in results.rows("scans")}
    texts = {
        n: "\n".join(m["text"] for m in results.rows("messages") if m["scan"] == n) for n in rows
    }
    yield Played(config, growing, rows, texts, said, results)
    results.close()


LONG = pytest.mark.skipif("GPUCAL_LONG" not in os.environ, reason="on demand: GPUCAL_LONG=1")


@LONG
def test_the_spectra_are_those_of_calibrate(played: Played, tmp_path: Path) -> None:
    report = calibrate_store(
        played.store,
        tmp_path / "l1.zarr",
        played.config.calibration.model_copy(update={"partial": True}),
    )
    assert {failure.scan for failure in report.failures} == {rehearsal.BROKEN}
    ours: dict[str, Any] = {}
    for store in played.config.data.rglob("l1.zarr"):
        ours |= arrays_of(store)
    theirs = arrays_of(tmp_path / "l1.zarr")
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        np.testing.assert_array_equal(ours[name], values, err_msg=name)


@LONG
def test_every_trouble_is_seen(played: Played) -> None:
    states = {n: row["state"] for n, row in played.rows.items()}
    assert states.pop(rehearsal.BROKEN, "failed") != "calibrated"
    assert {n: s for n, s in states.items() if s not in ("calibrated", "ended")} == {}
    failed = [name for name, _ in Pipe(played.config.pipe).task("calibration").failed()]
    assert failed
    assert all(f".{rehearsal.BROKEN:08d}." in name for name in failed)
    expected = {
        rehearsal.BAD: "the loads cannot be used",
        rehearsal.AFTER_THE_END: "more of this scan came after its end",
        rehearsal.EARLY: "have changed: this scan is processed again",
        rehearsal.CANCELLED: f"load scan {rehearsal.BAD} was passed over",
    }
    for number, text in expected.items():
        assert text in played.texts[number], number
    assert len(played.said) == len(played.rows) + 1
    projects = {row["project"] for row in played.rows.values()}
    assert projects == {"rehearsal", "rehearsal-2"}
    means = [
        r for r in played.results.rows("pointings", scan=rehearsal.CANCELLED) if r["pixel"] < 0
    ]
    assert {row["direction"] for row in means} == {"az"}
    rows = played.results.rows("pointings", scan=rehearsal.EARLY)
    assert {row["direction"] for row in rows} == {"az", "el"}


def test_the_command_refuses_a_folder_that_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x").touch()
    assert main(["online", "rehearse", str(tmp_path)]) == 64
    assert "is there already" in capsys.readouterr().err
    assert main(["online", "rehearse", str(tmp_path / "new"), "--speed", "0"]) == 64
