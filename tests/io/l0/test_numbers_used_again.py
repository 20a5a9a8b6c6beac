"""A scan number that was used again: told apart by time, or refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from builders import l0 as build
from numpy.typing import NDArray

from gpucal import L0Error, open_l0


def test_two_groups_of_one_number(tmp_path: Path) -> None:
    path = build.new_store(tmp_path / "night.zarr")
    build.write_scan(path, 1)
    build.write_scan(path, 2)
    shutil.copytree(path / "scan_000001", path / "scan_1")
    store = open_l0(path)
    assert store.numbers() == [1, 2]
    with pytest.raises(L0Error, match="stands for 2 groups, scan_000001 and scan_1") as caught:
        store.load(1)
    assert caught.value.scan == 1
    with pytest.raises(L0Error, match="2 groups"):
        store.kind(1)
    assert store.load(2)[0].number == 2


HOUR = 1 / 24


def times(hours: list[float], n_dumps: int) -> NDArray[np.float64]:
    dumps = np.arange(n_dumps)[:, None] * 2.0 / 86400
    return np.asarray(build.MJD0 + np.array(hours)[None, :] * HOUR + dumps)


@pytest.mark.parametrize("second", [0.5, 5.0])
def test_loads_hours_apart_have_no_mean(tmp_path: Path, second: float) -> None:
    path = build.new_store(tmp_path / "night.zarr")
    shape = (*build.SHAPE[:4], 4)
    mjd = times([0, 0.02, second, second + 0.02], shape[1])
    loads = build.calibration_group(shape, ("HOT", "COLD", "HOT", "COLD"), mjd=mjd)
    build.write_scan(path, 1, calibration=loads)
    if second < 1:
        assert not open_l0(path).load(1)[0].warnings
        return
    with pytest.raises(
        L0Error, match=r"COLD \(subscan 1\) and HOT \(subscan 2\) lie 5.0"
    ) as caught:
        open_l0(path).load(1)
    assert caught.value.scan == 1
    assert "two scans" in caught.value.hint


def test_positions_hours_apart_are_doubtful(tmp_path: Path) -> None:
    path = build.new_store(tmp_path / "night.zarr")
    mjd = times([0, 0.01, 0.02, 3.0, 3.01], build.SHAPE[1])
    build.write_scan(path, 1, build.source_group(mjd=mjd))
    (warning,) = open_l0(path).load(1)[0].warnings
    assert "OFF (subscan 2) and ON (subscan 3) lie 3.0 h apart" in warning
    assert "two scans under one number" in warning
