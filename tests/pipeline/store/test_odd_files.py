"""FIFOs, devices, oversized and deep files among the raw data cost their scan alone, and nothing hangs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from builders.night_stores import make_night, small_setup

from gpucal import CalibrationConfig, calibrate_store, open_l0
from gpucal.pipeline.store.counts_identity import counts_identity


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


def many_dumps(path: Path) -> None:
    """Of the counts: 1e9 dumps, in chunks of all of them."""
    document = json.loads(path.read_text())
    document["shape"][1] = document["chunk_grid"]["configuration"]["chunk_shape"][1] = 10**9
    path.write_text(json.dumps(document))


def no_extent(path: Path) -> None:
    document = json.loads(path.read_text())
    document["chunk_grid"]["configuration"]["chunk_shape"][0] = 0
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
    ("source/mjd/zarr.json", no_extent),
    ("source/data_5d/zarr.json", no_extent),
    ("source/data_5d/zarr.json", many_dumps),
    ("source/data_5d/zarr.json", deep),
    ("source/zarr.json", deep),
    ("zarr.json", deep),
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


def test_the_identity_of_counts_follows_no_link_astray(night: Path, tmp_path: Path) -> None:
    """Only names of chunks count: a link to all of a disk, to itself or upwards is not walked through."""
    raw = tmp_path / "l0.zarr"
    shutil.copytree(night / "l0.zarr", raw)
    before = counts_identity(open_l0(raw), 1)
    scan = raw / "scan_000001"
    counts = scan / "source/data_5d"
    (counts / "disk").symlink_to("/")
    (counts / "c/up").symlink_to(scan)
    (scan / "up").symlink_to(raw)
    (counts / "c/7").symlink_to(counts / "c")
    (counts / "c/8").symlink_to(counts / "c/8")
    (counts / "9").symlink_to(counts)
    os.mkfifo(counts / "c/11")
    assert counts_identity(open_l0(raw), 1) == before
    elsewhere = tmp_path / "elsewhere"
    (counts / "c/up").unlink()
    (counts / "c").rename(elsewhere)
    (counts / "c").symlink_to(elsewhere)
    assert counts_identity(open_l0(raw), 1) == before
