"""What a notebook shows of the objects: short, and saying what is inside."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.pictures.plot_scenes import load_scan
from builders.synthetic_l1 import write_l1

import gpucal
from gpucal import StoreReport, main
from gpucal.errors import EmptyScanError, L0Error, LoadError
from gpucal.pipeline.store.report import Failure, ScanSummary
from gpucal.plot.source import open_views


def test_stores_and_scans(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    l0 = tmp_path / "l0.zarr"
    small = ["--scans", "2", "--channels", "32", "--dumps", "2", "--subscans", "2"]
    assert main(["simulate", str(l0), "--preset", "hera", *small]) == 0
    capsys.readouterr()
    store = gpucal.open_l0(l0)
    assert repr(store) == f"<gpucal L0 {l0}, IRAM-30M, hera: 2 scans (1 to 2)>"
    lines = repr(store.load(1)[0]).splitlines()
    assert lines[0] == "<gpucal L0 scan 1: SIMULATED, CO(2-1), otf>"
    assert "OTF-ON" in lines[1]
    assert "[C 32, D 2, R 2, A 9, S" in lines[1]
    assert "1 HOT, 1 COLD" in lines[2]
    l1 = gpucal.open_l1(write_l1(tmp_path / "l1.zarr", (3, 4, 5), (8, 1, 1, 2, 1)))
    assert repr(l1) == f"<gpucal L1 {l1.path}, TEST: 3 scans: 3-5>"
    assert repr(l1[4]).startswith("<gpucal L1 scan 4>  DR21, tp\n")
    assert l1.to_xarray(4)["spectra"].dims[0] == "channel"
    bands = write_l1(tmp_path / "b.zarr", (3,), (8, 1, 1, 2, 1), bands=("band_1",))
    assert gpucal.open_l1(bands).to_xarray(3, "band_1").sizes["array"] == 2


def test_subscans_without_a_store(tmp_path: Path) -> None:
    view = open_views(write_l1(tmp_path / "l1.zarr", (3,), (8, 1, 1, 2, 1)))[0]
    text = repr(load_scan(view).calibration)
    assert text == "<subscans: 1 HOT, 1 COLD; [C 8, D 2, R 1, A 2, S 2] int32>"


def test_configuration_shows_what_was_chosen() -> None:
    assert repr(gpucal.CalibrationConfig()) == "CalibrationConfig(all defaults)"
    chosen = gpucal.CalibrationConfig(pwv=0.6, fold=False)
    assert str(chosen) == "CalibrationConfig(pwv=0.6, fold=False)"


def test_report() -> None:
    good = ScanSummary(7, "band_1", "otf", "calibrated", 0.6, 0.01, 90.0, 200.0, 1.02)
    bad = ScanSummary(8, "", "tp", "failed", error="LoadError: no loads")
    text = repr(StoreReport((good, bad), (Failure(8, "loads", "LoadError", "no loads", ""),)))
    assert text.splitlines() == [
        "<StoreReport: 1 calibrated, 0 skipped, 1 failed; exit code 2>",
        "  <scan 7 band_1 otf calibrated: PWV 0.6 ± 0.01 mm, T_rec 90 K, T_sys 200 K, "
        "rms/expected 1.02>",
        "  <scan 8 failed: LoadError: no loads>",
    ]
    many = StoreReport(tuple(ScanSummary(n, "", "tp", "skipped") for n in range(30)), ())
    assert repr(many).splitlines()[-1] == "  and 10 more"
    assert "PWV" not in repr(many)


def test_a_failure_knows_the_class_of_its_error() -> None:
    failure = Failure(8, "load", "EmptyScanError", "no subscan is complete yet.", "")
    assert failure.is_a(EmptyScanError)
    assert failure.is_a(L0Error)
    assert not failure.is_a(LoadError)
    assert not Failure(8, "load", "KeyError", "unexpected KeyError.", "").is_a(L0Error)
