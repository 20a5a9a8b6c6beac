"""FIFOs, devices, oversized and deep files among the raw data cost their scan alone, and nothing hangs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from builders.night_stores import make_night, small_setup

from gpucal import CalibrationConfig, calibrate_store


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("night")
    make_night(folder, small_setup(kinds=("otf", "tp")))
    return folder


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def zeros(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def sparse(path: Path) -> None:
    os.truncate(path, 8 << 30)


def huge_shape(path: Path) -> None:
    document = json.loads(path.read_text())
    document["shape"][0] = 10**9
    path.write_text(json.dumps(document))


def deep(path: Path) -> None:
    document = json.loads(path.read_text())
    document["attributes"]["deep"] = "DEEP"
    path.write_text(json.dumps(document).replace('"DEEP"', "[" * 900 + "]" * 900))


CASES: list[tuple[str, Callable[[Path], None]]] = [
    ("source/data_5d/c/*/0/0/0/0", fifo),
    ("source/data_5d/c/*/0/0/0/0", zeros),
    ("source/data_5d/c/*/0/0/0/0", loop),
    ("source/data_5d/c/*/0/0/0/0", sparse),
    ("source/mjd/c/**/*", fifo),
    ("source/mjd/c/**/*", sparse),
    ("source/mjd/zarr.json", fifo),
    ("source/mjd/zarr.json", zeros),
    ("source/mjd/zarr.json", huge_shape),
    ("source/zarr.json", deep),
    ("zarr.json", fifo),
]


@pytest.mark.parametrize(("where", "change"), CASES)
def test_an_odd_file_costs_its_scan_alone(
    where: str, change: Callable[[Path], None], night: Path, tmp_path: Path
) -> None:
    raw = tmp_path / "l0.zarr"
    shutil.copytree(night / "l0.zarr", raw)
    path = next(p for p in sorted((raw / "scan_000001").glob(where)) if p.is_file())
    change(path)
    config = CalibrationConfig(atmosphere=str(night / "table.npz"), workers=1)
    report = calibrate_store(raw, tmp_path / "out", config)
    assert {s.scan: s.status for s in report.summaries} == {1: "failed", 2: "calibrated"}
    [failure] = report.failures
    assert "unexpected" not in failure.sentence
    assert failure.hint
