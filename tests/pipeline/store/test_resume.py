"""What is finished is kept and skipped; what is different is refused or replaced whole."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from builders.night_stores import assert_same, contents, fast_folder, make_night, small_setup

import gpucal
from gpucal import CalibrationConfig, StoreReport, calibrate_store, load_table, open_l1, save_table
from gpucal.io.files import atomic
from gpucal.simulate.setup import Kind

KINDS: tuple[Kind, ...] = ("otf", "tp", "otf", "otf-chopped")


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with fast_folder(tmp_path_factory.mktemp("night")) as folder:
        make_night(folder, small_setup(kinds=KINDS))
        yield folder


def run(folder: Path, out: Path, **options: Any) -> StoreReport:
    options = {"atmosphere": str(folder / "table.npz"), "workers": 2, **options}
    return calibrate_store(folder / "l0.zarr", out, CalibrationConfig(**options))


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


def test_another_configuration_is_refused(night: Path, tmp_path: Path) -> None:
    run(night, tmp_path / "l1", scans="1")
    before = inodes(tmp_path / "l1")
    report = run(night, tmp_path / "l1", scans="1", line_scale="dsb")
    assert report.exit_code == 1
    [failure] = report.failures
    assert (failure.scan, failure.stage, failure.error) == (1, "write", "L1Error")
    assert "another configuration" in failure.message
    assert "--overwrite" in failure.hint
    after = inodes(tmp_path / "l1")
    assert after.pop("failures.json")
    assert after == before
    # Where and how fast it is computed makes no difference.
    assert status(run(night, tmp_path / "l1", scans="1", ring=64, workers=1)) == {1: "skipped"}
    assert not (tmp_path / "l1" / "failures.json").exists()


def test_another_input_is_refused(night: Path, tmp_path: Path) -> None:
    shutil.copytree(night, tmp_path / "night")
    folder, out = tmp_path / "night", tmp_path / "l1"
    run(folder, out, scans="1")
    zarr.open_group(str(folder / "l0.zarr/scan_000001"), mode="r+").attrs["f_eff"] = 0.5
    [failure] = run(folder, out, scans="1").failures
    assert "other raw data" in failure.message
    run(folder, out, scans="2")
    table = load_table(folder / "table.npz")
    save_table(folder / "table.npz", type(table)(**{**vars(table), "b": table.b * 1.01}))
    [failure] = run(folder, out, scans="2").failures
    assert "another atmosphere table" in failure.message


def test_other_load_scans_are_another_input(tmp_path: Path) -> None:
    make_night(tmp_path, small_setup("superc", ("tp",), separate=True))
    run(tmp_path, tmp_path / "l1")
    assert status(run(tmp_path, tmp_path / "l1")) == {2: "skipped"}
    load = zarr.open_array(str(tmp_path / "l0.zarr/scan_000001/calibration/thot"), mode="r+")
    load[...] = 300.0
    [failure] = run(tmp_path, tmp_path / "l1").failures
    assert failure.scan == 2
    assert "other raw data" in failure.message


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
