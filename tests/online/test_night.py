"""A replayed night through all tasks: the same L1 as offline, results, logs and pictures."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import zarr
from builders.night_stores import make_night, small_setup
from builders.small_site import assert_same_arrays, chunk_bytes, drain, site

from gpucal import calibrate_store, open_class, open_l0, open_l1
from gpucal.online.queue.announcing import job_of
from gpucal.online.queue.events import END, Job
from gpucal.online.queue.pipe import TASKS, Pipe
from gpucal.online.replay.replay import Replay
from gpucal.online.site.config import OnlineConfig
from gpucal.online.site.results import Results
from gpucal.simulate.setup import Kind

KINDS: tuple[Kind, ...] = ("tp", "otf", "fsw", "wsw-chopped")


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("night")
    setup = small_setup(kinds=KINDS, separate=True, pixels=2)
    return make_night(folder, replace(setup, timing=replace(setup.timing, n_on=2)))


@pytest.fixture(scope="module")
def played(night: Path, tmp_path_factory: pytest.TempPathFactory) -> OnlineConfig:
    folder = tmp_path_factory.mktemp("site")
    config = site(folder, night.parent / "table.npz")
    Replay(night, folder / "l0.zarr", Pipe(config.pipe), project="p1").run(speed=math.inf)
    drain(config)
    return config


def test_every_job_is_done(played: OnlineConfig) -> None:
    status = {s.task: s for s in Pipe(played.pipe).status()}
    assert all(s.pending == s.active == s.failed == 0 for s in status.values())
    assert status["calibration"].done == status["plot"].done > 0
    assert status["class"].done == len(KINDS)


def test_l1_is_that_of_the_finished_store(
    played: OnlineConfig, night: Path, tmp_path: Path
) -> None:
    calibrate_store(night, tmp_path / "l1.zarr", played.calibration)
    online = played.data / "p1" / "l1.zarr"
    assert_same_arrays(online, tmp_path / "l1.zarr")
    assert chunk_bytes(online) == chunk_bytes(tmp_path / "l1.zarr")


def test_results_and_logs(played: OnlineConfig, night: Path) -> None:
    results = Results(played.database_url)
    scans = results.rows("scans")
    store = open_l0(night)
    assert [row["scan"] for row in scans] == store.numbers()
    states = {row["scan"]: row["state"] for row in scans}
    for number in store.numbers():
        assert states[number] == ("calibrated" if store.kind(number) == "science" else "ended")
    calibrations = results.rows("calibrations")
    assert all(50 < row["t_rec"] < 500 for row in calibrations)
    log = (played.data / "p1" / "logs" / "calibration.log").read_text().splitlines()
    spectra = results.rows("spectra")
    # a line about the loads, and one about the scan that they serve
    assert len(log) == len(set(log)) == len(calibrations) + len(spectra)
    told = [line for line in log if "  loads  " not in line]
    assert len(told) == len(spectra)
    for line in told:
        for name in ("t_rec", "t_sys", "t_sys_star", "pwv", "tau"):
            assert f"  {name} " in line
    assert len(spectra) == len(KINDS) * 2 * 2
    assert all(100 < row["t_sys"] < 1000 for row in spectra)
    assert not [m for m in results.rows("messages") if m["level"] == "error"]
    results.close()


def test_temperatures_of_a_scan_are_those_of_its_spectra(played: OnlineConfig) -> None:
    """T_sys* from T_sys, the gains, the opacity and the elevation, as physics equation (6.3) has it."""
    results = Results(played.database_url)
    store = open_l1(played.data / "p1" / "l1.zarr")
    for row in results.rows("spectra"):
        scan: Any = store.scan(row["scan"])
        place = (slice(None), row["receiver"], row["pixel"])
        middle = scan["t_sys"].shape[-1] // 2
        t_sys = scan["t_sys"][..., middle][place]
        tau = scan["tau_signal"][...]
        airmass = 1 / np.sin(np.nanmean(scan["elevation"][:, middle]))  # rad
        gain = scan.attrs["forward_efficiency"] * scan.attrs["gain_signal"]
        star = np.nanmedian(t_sys * np.exp(airmass * tau) / gain)
        assert row["t_rec"] == pytest.approx(np.nanmedian(scan["t_rec"][place]))
        assert row["t_sys"] == pytest.approx(np.nanmedian(t_sys))
        assert row["t_sys_star"] == pytest.approx(star, rel=1e-3)
        assert row["pwv"] == pytest.approx(scan.attrs["qa"]["pwv"])
        assert row["tau"] == pytest.approx(np.nanmedian(tau))
    results.close()


def test_pictures_carry_the_time_of_the_observation(played: OnlineConfig) -> None:
    """Not that of the drawing."""
    results = Results(played.database_url)
    rows = results.rows("plots")
    l0 = open_l0(next(row["store"] for row in results.rows("scans")))
    for row in rows:
        (scan, *_) = l0.load(row["scan"], partial=True)
        times = [
            g.mjd[np.isfinite(g.mjd)] for g in (scan.source, scan.calibration) if g is not None
        ]
        every = np.concatenate(times)
        assert every.min() - 1e-6 <= row["mjd"] <= every.max() + 1e-6, row["file"]
    assert len({row["mjd"] for row in rows}) > len({row["scan"] for row in rows})
    results.close()


def test_pictures_and_their_index(played: OnlineConfig) -> None:
    results = Results(played.database_url)
    project = played.data / "p1"
    rows = results.rows("plots")
    assert {(project / row["file"]).is_file() for row in rows} == {True}
    files = {p.relative_to(project).as_posix() for p in (project / "plots").rglob("*.png")}
    assert {row["file"] for row in rows} == files
    index = [json.loads(x) for x in (project / "plots" / "index.jsonl").read_text().splitlines()]
    assert sorted(row["file"] for row in index) == sorted(files)
    kinds = {row["kind"] for row in rows}
    assert kinds >= {"look", "raw", "spectra", "array", "waterfall", "map"}
    assert not list(project.rglob(".drawing*"))
    results.close()


def test_fits_and_class_files(played: OnlineConfig, night: Path) -> None:
    project = played.data / "p1"
    numbers = open_l0(night).numbers()
    assert len(list((project / "fits").glob("*.fits"))) == len(numbers)
    files = sorted((project / "class").glob("*.30m"))
    assert len(files) == len(KINDS)
    for path in files:
        spectra = list(open_class(path))
        assert spectra
        assert all(50 < s.t_sys < 2000 for s in spectra)


def test_all_jobs_again_change_nothing(played: OnlineConfig, night: Path, tmp_path: Path) -> None:
    copy = tmp_path / "site"
    shutil.copytree(played.data.parent, copy)
    config = played.model_copy(
        update={"data": copy / "data", "work": copy / "work", "pipe": copy / "pipe"}
    )
    before = Results(config.database_url)
    tables = ("scans", "calibrations", "spectra", "messages", "feedback")
    volatile = ("seen", "time", "made")

    def values() -> dict[str, list[dict[str, object]]]:
        return {
            t: [{k: v for k, v in r.items() if k not in volatile} for r in before.rows(t)]
            for t in tables
        }

    first = values()
    logs = {p: p.read_text() for p in (config.data / "p1" / "logs").glob("*.log")}
    chunks = chunk_bytes(config.data / "p1" / "l1.zarr")
    store = open_l0(copy / "l0.zarr")
    for number in store.numbers():
        attrs = dict(store.scan_group(number).attrs)
        kind: Literal["calibration", "source"] = (
            "calibration" if store.kind(number) == "load" else "source"
        )
        Pipe(config.pipe).submit(
            job_of(copy / "l0.zarr", number, 0, kind, attrs, project="p1", end_of_scan=True)
        )
        Pipe(config.pipe).submit(job_of(copy / "l0.zarr", number, END, kind, attrs, project="p1"))
    drain(config, ("calibration", "obs_procedure"))
    again = values()
    for rows in (*first["scans"], *again["scans"]):
        rows.pop("store"), rows.pop("subscans")  # the copy lies elsewhere
    assert again == first
    assert {p: p.read_text() for p in logs} == logs
    assert chunk_bytes(config.data / "p1" / "l1.zarr") == chunks
    before.close()


def test_a_broken_scan_leaves_the_rest(night: Path, tmp_path: Path) -> None:
    source = tmp_path / "broken.zarr"
    shutil.copytree(night, source)
    store = open_l0(source)
    science = [n for n in store.numbers() if store.kind(n) == "science"]
    group: Any = zarr.open_group(source / f"scan_{science[0]:06d}" / "source", mode="r+")
    group["elevation"][...] = 7.0  # rad: below the ground and round again
    config = site(tmp_path, night.parent / "table.npz", attempts=2)
    Replay(source, tmp_path / "l0.zarr", Pipe(config.pipe), project="p1").run(speed=math.inf)
    drain(config, ("calibration",))
    results = Results(config.database_url)
    failed = list(Pipe(config.pipe).task("calibration").failed())
    assert failed
    assert all(f".{science[0]:08d}." in name for name, _ in failed)
    assert all("elevation" in reason["error"] for _, reason in failed)
    states = {row["scan"]: row["state"] for row in results.rows("scans")}
    assert all(states[n] == "calibrated" for n in science[1:])
    assert any("elevation" in m["text"] for m in results.rows("messages"))
    results.close()


def test_a_calibration_that_comes_later_is_used(night: Path, tmp_path: Path) -> None:
    """The scan waits, and is calibrated when the loads are there."""
    store = open_l0(night)
    science = next(n for n in store.numbers() if store.kind(n) == "science")
    loads = [n for n in store.numbers() if store.kind(n) == "load"]
    later = next(n for n in loads if n > science)
    config = site(tmp_path, night.parent / "table.npz")
    pipe = Pipe(config.pipe)
    target = tmp_path / "l0.zarr"
    replay = Replay(night, target, pipe, project="p1")
    replay.run(speed=math.inf, scans=frozenset([science]))
    drain(config, ("calibration",))
    results = Results(config.database_url)
    assert results.rows("scans", scan=science)[0]["state"] == "waiting"
    assert any("no valid calibration" in m["text"] for m in results.rows("messages"))
    replay.run(speed=math.inf, scans=frozenset([later]))
    drain(config, ("calibration",))
    assert results.rows("scans", scan=science)[0]["state"] == "calibrated"
    results.close()


def test_tasks_have_directories() -> None:
    assert Job("x", 1, 0, "p").name
    from gpucal.online.tasks.table import TASK_FUNCTIONS

    assert set(TASK_FUNCTIONS) == set(TASKS)
