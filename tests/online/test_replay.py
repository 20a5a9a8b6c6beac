"""A replayed night: readable at every moment, and the same as the original at its end."""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from builders.night_stores import make_night, small_setup
from builders.small_site import assert_same_arrays, drain, site

from gpucal import calibrate_store, load_config, open_l0
from gpucal.online.queue.events import job_from_json
from gpucal.online.queue.pipe import Pipe
from gpucal.online.replay.plan import plan_replay
from gpucal.online.replay.replay import Replay
from gpucal.online.site.config import OnlineConfig
from gpucal.online.site.results import Results


def compare(ours: Any, theirs: Any) -> None:
    """Two Zarr groups, arrays and attributes."""
    assert dict(ours.attrs) == dict(theirs.attrs)
    assert sorted(n for n, _ in ours.arrays()) == sorted(n for n, _ in theirs.arrays())
    for name, array in theirs.arrays():
        mine = ours[name]
        assert mine.dtype == array.dtype
        assert mine.chunks == array.chunks
        assert mine.metadata.dimension_names == array.metadata.dimension_names
        np.testing.assert_array_equal(mine[...], array[...])
    assert sorted(n for n, _ in ours.groups()) == sorted(n for n, _ in theirs.groups())
    for name, group in theirs.groups():
        compare(ours[name], group)


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("night")
    return make_night(folder, small_setup(kinds=("tp", "otf", "wsw-chopped"), separate=True))


@pytest.fixture(scope="module")
def two_bands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bands")
    return make_night(folder, small_setup("chai", kinds=("tp",), channels=32, pixels=2))


@pytest.mark.parametrize("which", ["night", "two_bands"])
def test_a_replayed_night_is_the_night(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    source: Path = request.getfixturevalue(which)
    pipe = Pipe(tmp_path / "pipe")
    target = tmp_path / "grown.zarr"
    said: list[str] = []
    count = Replay(source, target, pipe).run(speed=math.inf, said=said.append)
    steps = plan_replay(open_l0(source))
    assert count == len(steps) == len(said)
    compare(zarr.open_group(target, mode="r"), zarr.open_group(source, mode="r"))
    assert not list(target.glob(".staging*"))
    jobs = [
        job_from_json((pipe.task("calibration").path / name).read_text())
        for name in pipe.task("calibration").names()
    ]
    assert {(j.scan, j.group, j.subscan) for j in jobs} == {
        (s.scan, s.group, s.subscan) for s in steps
    }
    ends = [j.scan for j in jobs if j.end_of_scan]
    assert sorted(ends) == open_l0(source).numbers()
    assert not any(j.cancelled for j in jobs)


def test_every_moment_can_be_read(night: Path, tmp_path: Path) -> None:
    """What is there of the growing scan equals the original as far as it goes."""
    target = tmp_path / "grown.zarr"
    original = open_l0(night)
    seen: list[int] = []

    class Watching(Pipe):
        def submit(self, job: Any) -> None:
            (now,) = open_l0(target).load(job.scan, partial=True)
            (whole,) = original.load(job.scan)
            group, reference = getattr(now, job.group), getattr(whole, job.group)
            n = job.subscan + 1
            assert group.sobsmode == reference.sobsmode[:n]
            assert group.shape[4] == n
            np.testing.assert_array_equal(group.mjd, reference.mjd[:, :n])
            np.testing.assert_array_equal(group.elevation, reference.elevation[:, :n])
            np.testing.assert_array_equal(
                group.counts.read(0, group.shape[0], n - 1),
                reference.counts.read(0, group.shape[0], n - 1),
            )
            seen.append(job.scan)

    Replay(night, target, Watching(tmp_path / "pipe")).run(speed=math.inf)
    assert set(seen) == set(original.numbers())


def test_times_are_kept(night: Path, tmp_path: Path) -> None:
    steps = plan_replay(open_l0(night))
    assert [s.end for s in steps] == sorted(s.end for s in steps)
    waits: list[float] = []
    begin = time.monotonic()
    Replay(night, tmp_path / "a.zarr", Pipe(tmp_path / "p")).run(speed=0.5, sleep=waits.append)
    spent = time.monotonic() - begin
    planned = (steps[-1].end - steps[0].end) * 86400 / 0.5
    # nobody slept, so each wait counts from the beginning, less what the copying took
    assert planned - spent <= max(waits) <= planned


def test_a_scan_cut_short_was_cancelled(night: Path, tmp_path: Path) -> None:
    source = tmp_path / "cut.zarr"
    shutil.copytree(night, source)
    number = open_l0(source).numbers()[-1]
    group = zarr.open_group(source / f"scan_{number:06d}", mode="r+")
    group.attrs["n_subscans_planned"] = 99
    steps = [s for s in plan_replay(open_l0(source)) if s.scan == number]
    assert [s.cancelled for s in steps] == [s.last for s in steps]
    assert sum(s.last for s in steps) == 1


def test_a_scan_that_cannot_be_copied_is_said(night: Path, tmp_path: Path) -> None:
    source = tmp_path / "broken.zarr"
    shutil.copytree(night, source)
    number = next(n for n in open_l0(source).numbers() if open_l0(source).kind(n) == "science")
    for chunk in (source / f"scan_{number:06d}" / "source" / "data_5d" / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"no chunk")
    said: list[str] = []
    target = tmp_path / "grown.zarr"
    Replay(source, target, Pipe(tmp_path / "pipe")).run(speed=math.inf, said=said.append)
    assert sum("cannot be copied" in line for line in said) == 1
    assert len(open_l0(target).numbers()) >= len(open_l0(source).numbers()) - 1


# --- two scans of one number -------------------------------------------------------------------

ENTRY = ("calibration", "fits_heterodyne")


@pytest.fixture(scope="module")
def one_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_night(tmp_path_factory.mktemp("night"), small_setup(kinds=("tp",), n_on=1))


def another(night: Path, out: Path, *, dated: bool) -> Path:
    """The same numbers again a day later, with other counts."""
    shutil.copytree(night, out)
    root: Any = zarr.open_group(str(out))
    for _, scan in root.groups():
        if dated:
            scan.attrs["date_obs"] = "2026-02-03T04:05:06.000"
        else:
            del scan.attrs["date_obs"]
        for group in (g for _, g in scan.groups()):
            group["data_5d"][...] = group["data_5d"][...] // 2
            group["mjd"][...] = group["mjd"][...] + 1.0
    return out


def play(config: OnlineConfig, night: Path, out: Path) -> None:
    Replay(night, out, Pipe(config.pipe)).run(speed=math.inf, said=lambda text: None)
    drain(config, ENTRY)


def products(config: OnlineConfig) -> dict[str, bytes]:
    folder = config.data / "simulated"
    kept = [*folder.glob("fits/*"), *(p for p in folder.rglob("l1.zarr/**/*") if "/c/" in str(p))]
    return {str(p): p.read_bytes() for p in kept if p.is_file()}


@pytest.mark.parametrize("dated", [True, False])
def test_another_scan_of_a_number_is_refused(tmp_path: Path, one_pair: Path, dated: bool) -> None:
    config = site(tmp_path, one_pair.parent / "table.npz")
    later = another(one_pair, tmp_path / "later.zarr", dated=dated)
    first = one_pair
    if not dated:
        first = tmp_path / "plain.zarr"
        shutil.copytree(one_pair, first)
        for _, scan in zarr.open_group(str(first)).groups():
            del scan.attrs["date_obs"]
    play(config, first, tmp_path / "one.zarr")
    before = products(config)
    assert len(before) > 3
    play(config, first, tmp_path / "again.zarr")  # the same night once more is no other scan
    assert products(config) == before
    play(config, later, tmp_path / "two.zarr")
    assert products(config) == before
    results = Results(config.database_url)
    said = [m["text"] for m in results.rows("messages") if m["level"] == "error"]
    results.close()
    assert said
    assert all("has another scan of this number already" in text for text in said), said
    assert all("--project" in text for text in said)


# --- loads without COLD ------------------------------------------------------------------------


@pytest.mark.parametrize("with_sky", [True, False])
def test_a_night_of_vanes_is_calibrated_as_offline(tmp_path: Path, with_sky: bool) -> None:
    """HOT and SKY, or a calibration stopped after HOT: the loads are entered, and L1 is that of calibrate."""
    night = make_night(tmp_path / "made", small_setup("argus", kinds=("otf",), separate=True))
    if not with_sky:
        for _, scan in zarr.open_group(str(night)).groups():
            if "calibration" in scan:
                words: Any = scan["calibration"].attrs["sobsmode"]
                assert "SKY" in words
                scan["calibration"].attrs["sobsmode"] = ["HOT" for _ in words]
    table = tmp_path / "made" / "table.npz"
    options = {"pwv": 9.0, "atmosphere": str(table)}
    config = site(tmp_path, table, calibration=options)
    play(config, night, tmp_path / "grown.zarr")
    results = Results(config.database_url)
    errors = [m["text"] for m in results.rows("messages") if m["level"] == "error"]
    rows = results.rows("calibrations")
    results.close()
    assert not errors
    assert rows
    assert all(row["valid"] and math.isnan(row["t_rec"] or math.nan) for row in rows)
    report = calibrate_store(night, tmp_path / "offline.l1", load_config(None, **options))
    assert not report.failures
    (online,) = config.data.rglob("l1.zarr")
    assert_same_arrays(online, tmp_path / "offline.l1")


def test_times_in_seconds_since_1970(night: Path, tmp_path: Path) -> None:
    """A night of another program goes as fast as its own, and is then the same night."""
    other = tmp_path / "other.zarr"
    shutil.copytree(night, other)
    root: Any = zarr.open_group(other, mode="r+")
    for name, node in root.members(max_depth=None):
        if name.endswith("/mjd"):
            node[...] = (node[...] - 40587.0) * 86400.0
            node.attrs["units"] = "seconds since 1970-01-01"
        elif name.endswith("/exptime"):
            node[...] = node[...] * 1000.0
            node.attrs["units"] = "ms"
    right, steps = (plan_replay(open_l0(path)) for path in (night, other))
    assert [(s.scan, s.group, s.subscan) for s in steps] == [
        (s.scan, s.group, s.subscan) for s in right
    ]
    np.testing.assert_allclose(
        [s.end for s in steps], [s.end for s in right], rtol=0, atol=1e-3 / 86400
    )
    waited: list[float] = []
    Replay(other, tmp_path / "grown.zarr", Pipe(tmp_path / "pipe")).run(sleep=waited.append)
    assert max(waited) < 86400 * (steps[-1].end - steps[0].end) + 1
    compare(zarr.open_group(tmp_path / "grown.zarr", mode="r"), root)
