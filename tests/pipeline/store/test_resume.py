"""What is finished is kept and skipped; what is different is refused or replaced whole."""

from __future__ import annotations

import json
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from time import sleep
from time import time as time_now
from typing import Any

import numpy as np
import pytest
import zarr
from builders.night_stores import assert_same, contents, fast_folder, make_night, small_setup

import gpucal
from gpucal import (
    CalibrationConfig,
    OtherSettingsError,
    StoreReport,
    calibrate_store,
    load_table,
    main,
    open_l0,
    open_l1,
    save_table,
)
from gpucal.io.chunks.counts import ZarrCounts
from gpucal.io.files import atomic
from gpucal.pipeline.store.finished import CLOCK_SLACK_S
from gpucal.pipeline.store.report import SilentObserver
from gpucal.simulate.setup import Kind

KINDS: tuple[Kind, ...] = ("otf", "tp", "otf", "otf-chopped")


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with fast_folder(tmp_path_factory.mktemp("night")) as folder:
        make_night(folder, small_setup(kinds=KINDS))
        yield folder


class Told(SilentObserver):
    """Notes the messages."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def message(self, level: str, text: str) -> None:
        self.told.append(f"{level}: {text}")


def run(folder: Path, out: Path, observer: Any = None, **options: Any) -> StoreReport:
    options = {"atmosphere": str(folder / "table.npz"), "workers": 2, **options}
    return calibrate_store(folder / "l0.zarr", out, CalibrationConfig(**options), observer=observer)


def status(report: StoreReport) -> dict[int, str]:
    return {s.scan: s.status for s in report.summaries}


def inodes(store: Path) -> dict[str, int]:
    return {str(p.relative_to(store)): p.stat().st_ino for p in store.rglob("*")}


@pytest.mark.parametrize("options", [{}, {"skydiff": 3, "skychopdiff": True}])
def test_a_resumed_run_equals_an_undisturbed_one(
    night: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(night, whole, **options).exit_code == 0
    run(night, parts, **options)
    for number in (2, 4):
        shutil.rmtree(parts / f"scan_{number:06d}")
    kept = inodes(parts / "scan_000003")
    again = run(night, parts, **options)
    assert status(again) == {1: "skipped", 2: "calibrated", 3: "skipped", 4: "calibrated"}
    assert again.exit_code == 0
    assert inodes(parts / "scan_000003") == kept
    assert_same(parts, whole)
    if options:
        found: Any = open_l1(parts)[4]["skydiff/spectrum_K"]
        assert found.attrs["ref_scans"][0] in (3, 4)
        assert 3 in found.attrs["ref_scans"]


def test_bands_in_groups_are_skipped_too(tmp_path: Path) -> None:
    """Two bands per scan and load scans of their own."""
    setup = small_setup("chai", ("otf", "tp"), pixels=4, separate=True)
    make_night(tmp_path, setup)
    first = run(tmp_path, tmp_path / "l1")
    assert first.exit_code == 0
    assert sorted((s.scan, s.band) for s in first.summaries) == [
        (n, band) for n in (2, 3) for band in ("band_1", "band_2")
    ]
    before = contents(tmp_path / "l1")
    assert status(run(tmp_path, tmp_path / "l1")) == {2: "skipped", 3: "skipped"}
    assert contents(tmp_path / "l1") == before


def refused(folder: Path, out: Path, **options: Any) -> str:
    """The sentence of a run that is refused, which leaves every file of the output as it was."""
    before = inodes(out)
    with pytest.raises(OtherSettingsError) as error:
        run(folder, out, **options)
    assert error.value.exit_code == 64
    assert "--overwrite" in error.value.hint
    assert inodes(out) == before
    return error.value.message


def test_another_configuration_is_refused(night: Path, tmp_path: Path) -> None:
    run(night, tmp_path / "l1", scans="1")
    said = refused(night, tmp_path / "l1", scans="1", line_scale="dsb")
    assert said.startswith("scan 1 of ")
    assert "exists with other settings (differences: line-scale ssb, now dsb)" in said
    assert not (tmp_path / "l1" / "failures.json").exists()
    # Where and how fast it is computed makes no difference, nor what is believed to be absurd.
    same: dict[str, Any] = {"ring": 64, "workers": 1, "alarm_t_hot_high": 300.0, "strict": True}
    assert status(run(night, tmp_path / "l1", scans="1", **same)) == {1: "skipped"}
    assert not (tmp_path / "l1" / "failures.json").exists()


def test_one_scan_with_other_settings_refuses_the_whole_run(night: Path, tmp_path: Path) -> None:
    """Also the scans that are not there yet: half a night with other settings is what nobody wants."""
    run(night, tmp_path / "l1", scans="1-2")
    said = refused(night, tmp_path / "l1", tau=0.1, atmosphere="none", pwv_scope="per-pair")
    assert said.startswith("scans 1-2 of ")
    assert "(differences: pwv-scope full, now per-pair; tau not given, now 0.1)" in said
    assert list(open_l1(tmp_path / "l1")) == [1, 2]
    # Scans that are not there are another matter.
    assert status(run(night, tmp_path / "l1", scans="3", line_scale="dsb")) == {3: "calibrated"}


def test_nothing_is_read_when_a_run_is_refused(
    night: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(night, tmp_path / "l1", scans="1")

    def read(*_: Any) -> Any:
        raise AssertionError("counts were read")

    monkeypatch.setattr(ZarrCounts, "read", read, raising=False)
    monkeypatch.setattr("gpucal.pipeline.store.solver.solve_scan", read)
    monkeypatch.setattr("gpucal.pipeline.store.counts_identity._ends", read)
    refused(night, tmp_path / "l1", f_eff=0.5)


def test_an_option_that_a_new_version_brings_is_no_difference(night: Path, tmp_path: Path) -> None:
    """An old scan lacks it: it was made as if with the default. The user is told of the version."""
    out = tmp_path / "l1"
    run(night, out, scans="1")
    document = out / "scan_000001/zarr.json"
    content = json.loads(document.read_text())
    attributes = content["attributes"]
    del attributes["config"]["vane_sky"]
    attributes["config"]["gone"] = True
    attributes["config_sha256"] = "another"
    attributes["provenance"]["versions"]["gpucal"] = "0.0.1"
    document.write_text(json.dumps(content))
    watching = Told()
    assert status(run(night, out, scans="1", observer=watching)) == {1: "skipped"}
    [text] = [text for text in watching.told if "0.0.1" in text]
    assert text.startswith("warning: scan 1 calibrated by gpucal 0.0.1 kept")
    assert "vane-sky off, now sky" in refused(night, out, scans="1", vane_sky="sky")


def test_a_skipped_scan_shows_its_numbers(night: Path, tmp_path: Path) -> None:
    first = run(night, tmp_path / "l1")
    again = run(night, tmp_path / "l1")
    assert [s.status for s in again.summaries] == ["skipped"] * 4
    for old, new in zip(first.summaries, again.summaries, strict=True):
        assert (new.scan, new.band, new.mode) == (old.scan, old.band, old.mode)
        for name in ("pwv", "pwv_error", "t_rec", "t_sys", "rms_ratio", "flagged_fraction"):
            assert getattr(new, name) == getattr(old, name)
            assert np.isfinite(getattr(new, name))


def test_another_input_is_refused(night: Path, tmp_path: Path) -> None:
    shutil.copytree(night, tmp_path / "night")
    folder, out = tmp_path / "night", tmp_path / "l1"
    run(folder, out, scans="1")
    zarr.open_group(str(folder / "l0.zarr/scan_000001"), mode="r+").attrs["f_eff"] = 0.5
    said = refused(folder, out, scans="1")
    assert "exists, made from other raw data (the metadata of scan 1 changed)" in said
    run(folder, out, scans="2")
    table = load_table(folder / "table.npz")
    save_table(folder / "table.npz", type(table)(**{**vars(table), "b": table.b * 1.01}))
    assert "differences: atmosphere table " in refused(folder, out, scans="2")
    assert "table.npz, now none" in refused(folder, out, scans="2", atmosphere="none")


def test_other_load_scans_are_another_input(tmp_path: Path) -> None:
    make_night(tmp_path, small_setup("superc", ("tp",), separate=True))
    run(tmp_path, tmp_path / "l1")
    assert status(run(tmp_path, tmp_path / "l1")) == {2: "skipped"}
    load = zarr.open_array(str(tmp_path / "l0.zarr/scan_000001/calibration/thot"), mode="r+")
    load[...] = 300.0
    said = refused(tmp_path, tmp_path / "l1")
    assert said.startswith("scan 2 of ")
    assert "(the metadata of scan 1 changed)" in said


def test_counts_written_again_are_another_input(night: Path, tmp_path: Path) -> None:
    """The metadata are the same; a chunk in the middle has the same size but another time."""
    shutil.copytree(night, tmp_path / "night")
    folder, out = tmp_path / "night", tmp_path / "l1"
    run(folder, out, scans="1-2")
    assert set(status(run(folder, out, scans="1-2")).values()) == {"skipped"}
    counts = folder / "l0.zarr/scan_000001/source/data_5d"
    kept = {p: p.stat().st_mtime for p in counts.rglob("*") if p.is_file()}
    array: Any = zarr.open_array(str(counts), mode="r+")
    array[...] = array[...] // 2
    assert "(the counts of scan 1 changed)" in refused(folder, out, scans="1-2")
    for path, time in kept.items():  # a copy that keeps the times
        os.utime(path, (time, time))
    assert "(the counts of scan 1 changed)" in refused(folder, out, scans="1")
    chunk = next(
        p for p in (folder / "l0.zarr/scan_000002/source/data_5d/c").rglob("*") if p.is_file()
    )
    later = time_now() + 60
    os.utime(chunk, (later, later))
    assert "counts of scan 2 were written again" in refused(folder, out, scans="2")
    # The store may move, and be copied with its times.
    shutil.copytree(night, tmp_path / "elsewhere")
    run(night, tmp_path / "l1b", scans="1")
    assert status(run(tmp_path / "elsewhere", tmp_path / "l1b", scans="1")) == {1: "skipped"}


def test_another_store_with_the_same_metadata_is_another_input(night: Path, tmp_path: Path) -> None:
    make_night(tmp_path, small_setup(kinds=KINDS), seed=2)
    shutil.copy(night / "table.npz", tmp_path / "table.npz")
    run(night, tmp_path / "l1", scans="2")
    assert "scan 2 changed" in refused(tmp_path, tmp_path / "l1", scans="2")


def test_a_scan_that_grows_is_done_again(night: Path, tmp_path: Path) -> None:
    """Calibrated with --partial while it is observed, and again when there is more of it."""
    whole = open_l0(night / "l0.zarr").load(2)[0]
    assert whole.source is not None
    n = whole.source.shape[4]
    shutil.copytree(night, tmp_path / "night")
    out = tmp_path / "l1"
    run(tmp_path / "night", out, scans="2", partial=True)
    document = out / "scan_000002/zarr.json"
    content = json.loads(document.read_text())
    content["attributes"]["l0_subscans"] = n - 2
    content["attributes"]["l0_metadata_sha256"]["2/"] = "that of a shorter scan"
    document.write_text(json.dumps(content))
    assert status(run(tmp_path / "night", out, scans="2", partial=True)) == {2: "calibrated"}
    assert open_l1(out)[2].attrs["l0_subscans"] == n


def entries(out: Path) -> dict[int, str]:
    """Scan -> error of failures.json."""
    path = out / "failures.json"
    return {e["scan"]: e["error"] for e in json.loads(path.read_text())} if path.exists() else {}


def test_failures_stay_until_their_scan_is_calibrated(tmp_path: Path) -> None:
    make_night(tmp_path, small_setup(kinds=("tp", "otf", "tp")))
    out, good = tmp_path / "l1", {}
    for number in (1, 2):
        chunk = tmp_path / f"l0.zarr/scan_{number:06d}/source/data_5d/c/0/0/0/0/0"
        good[chunk] = chunk.read_bytes()
        chunk.write_bytes(good[chunk][:-9])
    assert run(tmp_path, out).exit_code == 2
    assert entries(out) == {1: "CorruptDataError", 2: "CorruptDataError"}
    # Another run, over other scans, says nothing about them; nor does one that is refused.
    assert run(tmp_path, out, scans="3").exit_code == 0
    refused(tmp_path, out, line_scale="dsb")
    assert entries(out).keys() == {1, 2}
    # One that is repaired is cleared, the other stays.
    first, second = good
    first.write_bytes(good[first])
    assert status(run(tmp_path, out, scans="1")) == {1: "calibrated"}
    assert entries(out) == {2: "CorruptDataError"}
    assert main(["inspect", str(out)]) == 2
    second.write_bytes(good[second])
    assert run(tmp_path, out).exit_code == 0
    assert entries(out) == {}
    assert main(["inspect", str(out)]) == 0


def test_the_command_refuses_with_64(
    night: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "l1"
    args = ["calibrate", str(night / "l0.zarr"), str(out), "--scans", "1"]
    table = ["--atmosphere", str(night / "table.npz")]
    assert main([*args, *table]) == 0
    capsys.readouterr()
    assert main([*args, "--tau", "0.1"]) == 64
    streams = capsys.readouterr()
    assert streams.out == ""
    [line] = [line for line in streams.err.splitlines() if line.startswith("gpucal: error: ")]
    assert "scan 1 of " in line
    assert "exists with other settings (differences: tau not given, now 0.1)" in line
    assert line.endswith("Use --overwrite to replace it, or another OUT.")
    assert main(["inspect", str(out)]) == 0
    capsys.readouterr()
    assert main([*args, *table]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    row = next(row for row in rows if row[:1] == ["1"])
    assert row[1] == "otf"
    assert float(row[2]) == pytest.approx(3.0, abs=0.1)
    assert row[-1] == "skipped"


def test_overwrite_replaces(night: Path, tmp_path: Path) -> None:
    out = tmp_path / "l1"
    run(night, out, scans="1")
    assert status(run(night, out, scans="1", line_scale="dsb", overwrite=True)) == {1: "calibrated"}
    assert open_l1(out)[1].attrs["line_scale"] == "dsb"
    run(night, tmp_path / "fresh", scans="1", line_scale="dsb")
    assert_same(out, tmp_path / "fresh")
    assert not atomic.staging_dir(out).exists()


def test_a_reader_always_sees_a_whole_scan(night: Path, tmp_path: Path) -> None:
    """One thread reads scan 1 all the time while it is replaced by another and back."""
    with fast_folder(tmp_path) as folder:
        out, folder_of = folder / "l1", {}
        for scale in ("ssb", "dsb"):
            run(night, folder / scale, scans="1", line_scale=scale)
            folder_of[scale] = gpucal.open_l1(folder / scale)[1]["spectra"][...]
        run(night, out, scans="1", line_scale="ssb")
        seen: dict[str, int] = {"ssb": 0, "dsb": 0}
        problems: list[str] = []
        done = threading.Event()

        def poll() -> None:
            while not done.is_set():
                document = json.loads((out / "scan_000001/zarr.json").read_bytes())
                scale = document["attributes"]["line_scale"]
                values = zarr.open_array(str(out / "scan_000001/spectra"), mode="r")[...]
                document = json.loads((out / "scan_000001/zarr.json").read_bytes())
                if document["attributes"]["line_scale"] != scale:
                    continue  # replaced meanwhile: the reader starts again
                seen[scale] += 1
                if not np.array_equal(values, folder_of[scale], equal_nan=True):
                    problems.append(f"mixed spectra in {scale}")

        def guarded() -> None:
            try:
                poll()
            except Exception as error:  # a scan that is not there, or not whole
                problems.append(f"{type(error).__name__}: {error}")

        reader = threading.Thread(target=guarded)
        reader.start()
        try:
            for i in range(12):
                scale = ("dsb", "ssb")[i % 2]
                assert run(night, out, scans="1", line_scale=scale, overwrite=True).exit_code == 0
        finally:
            done.set()
            reader.join()
        assert not problems
        assert min(seen.values()) > 3


def test_a_band_that_failed_is_done_again(tmp_path: Path) -> None:
    """The good band is written; once the bad one is repaired the scan is made whole."""
    make_night(tmp_path, small_setup("chai", ("tp",), pixels=4))
    chunk = tmp_path / "l0.zarr/scan_000001/band_2/source/data_5d/c/0/0/0/0/0"
    good = chunk.read_bytes()
    chunk.write_bytes(good[:-9])
    report = run(tmp_path, tmp_path / "l1")
    [failure] = report.failures
    assert failure.error == "CorruptDataError"
    assert "band_2" in failure.message
    assert report.exit_code == 2
    scan = open_l1(tmp_path / "l1")[1]
    assert scan.bands == ["band_1"]
    assert scan.attrs["failed_bands"] == ["band_2"]
    chunk.write_bytes(good)
    assert run(tmp_path, tmp_path / "l1").exit_code == 0
    assert open_l1(tmp_path / "l1")[1].bands == ["band_1", "band_2"]
    run(tmp_path, tmp_path / "fresh")
    assert_same(tmp_path / "l1", tmp_path / "fresh")


def test_loads_that_came_later_serve_again(tmp_path: Path) -> None:
    """A load scan that is nearer is written after the calibration: the next run does again what it serves better."""
    setup = small_setup("upgreat", ("otf", "tp", "otf"), separate=True)
    setup = replace(setup, loads=replace(setup.loads, every=1))
    with fast_folder(tmp_path) as folder:
        make_night(folder, setup)  # loads: 1, 3, 5 and 7
        store, aside = folder / "l0.zarr", folder / "aside"
        for late in (3, 5):
            shutil.move(store / f"scan_{late:06d}", aside / f"{late}")
        first = run(folder, folder / "l1")
        assert status(first) == {2: "calibrated", 4: "calibrated", 6: "calibrated"}
        assert status(run(folder, folder / "l1")) == {2: "skipped", 4: "skipped", 6: "skipped"}
        sleep(CLOCK_SLACK_S + 0.05)
        for late in (3, 5):
            shutil.move(aside / f"{late}", store / f"scan_{late:06d}")
            os.utime(store / f"scan_{late:06d}/calibration")
        told = Told()
        report = run(folder, folder / "l1", told)
        assert status(report) == {2: "skipped", 4: "calibrated", 6: "calibrated"}
        assert report.exit_code == 0
        [four] = [text for text in told.told if "scan 4 calibrated again" in text]
        assert "the loads of scan 3 came later" in four
        run(folder, folder / "fresh")
        assert_same(folder / "l1", folder / "fresh")
        assert status(run(folder, folder / "l1")) == {2: "skipped", 4: "skipped", 6: "skipped"}
