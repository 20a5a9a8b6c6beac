"""A band that cannot be read does not take the other bands of its scan with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from gpucal import main, open_l1, simulate_night
from gpucal.simulate.presets import preset


def test_a_broken_band_leaves_the_other_whole(tmp_path: Path) -> None:
    l0, table = tmp_path / "l0.zarr", str(tmp_path / "table.npz")
    setup = preset("chai", channels=64, dumps=3, n_on=2, sky="isothermal")
    simulate_night(l0, setup, 1, table_out=table)
    options = ["--atmosphere", table, "--quiet"]
    assert main(["calibrate", str(l0), str(tmp_path / "whole.zarr"), *options]) == 0
    whole = open_l1(tmp_path / "whole.zarr")
    (number,) = whole.scans()
    group = l0 / f"scan_{number:06d}" / "band_2" / "source"
    shutil.move(group / "mjd", tmp_path / "mjd")
    out = tmp_path / "part.zarr"
    assert main(["calibrate", str(l0), str(out), *options]) == 2
    part = open_l1(out).scan(number)
    assert list(part.bands) == ["band_1"]
    assert part.attrs["failed_bands"] == ["band_2"]
    for name in ("spectra", "flags", "t_sys", "t_rec"):
        one = whole.scan(number, "band_1")[name][:]
        assert np.array_equal(open_l1(out).scan(number, "band_1")[name][:], one, equal_nan=True)
    (failure,) = json.loads((out / "failures.json").read_text())
    assert f"scan {number} band_2" in failure["message"]
    # repaired, the scan is done again without --overwrite
    shutil.move(tmp_path / "mjd", group / "mjd")
    assert main(["calibrate", str(l0), str(out), *options]) == 0
    assert list(open_l1(out).scan(number).bands) == ["band_1", "band_2"]


def test_a_corrupt_chunk_of_one_band_leaves_the_other(tmp_path: Path) -> None:
    l0, table = tmp_path / "l0.zarr", str(tmp_path / "table.npz")
    simulate_night(
        l0, preset("chai", channels=64, dumps=3, n_on=2, sky="isothermal"), 1, table_out=table
    )
    options = ["--atmosphere", table, "--quiet"]
    assert main(["calibrate", str(l0), str(tmp_path / "whole.zarr"), *options]) == 0
    whole = open_l1(tmp_path / "whole.zarr")
    (number,) = whole.scans()
    on_index: Any = whole.scan(number, "band_1")["on_index"]
    on = int(on_index[0])
    source = (
        l0 / f"scan_{number:06d}" / "band_1" / "source" / "data_5d" / "c" / "0" / "0" / "0" / "0"
    )
    (source / str(on)).write_bytes(b"nonsense")
    out = tmp_path / "part.zarr"
    assert main(["calibrate", str(l0), str(out), *options]) == 2
    part = open_l1(out).scan(number)
    assert list(part.bands) == ["band_2"]
    assert part.attrs["failed_bands"] == ["band_1"]
    one = whole.scan(number, "band_2")["spectra"][:]
    assert np.array_equal(open_l1(out).scan(number, "band_2")["spectra"][:], one, equal_nan=True)
    (failure,) = json.loads((out / "failures.json").read_text())
    assert f"subscan {on}" in failure["message"]


def test_a_given_load_temperature_rescues_a_wrong_one(tmp_path: Path) -> None:
    import zarr

    l0, table = tmp_path / "l0.zarr", str(tmp_path / "table.npz")
    simulate_night(
        l0, preset("hera", channels=64, dumps=3, n_on=2, sky="isothermal"), 1, table_out=table
    )
    array: Any = zarr.open_group(l0)["scan_000001/calibration/thot"]
    array[:] = 16.85  # deg C
    options = ["--atmosphere", table, "--quiet"]
    assert main(["calibrate", str(l0), str(tmp_path / "a.zarr"), *options]) == 1
    given = [*options, "--t-hot", "290"]
    assert main(["calibrate", str(l0), str(tmp_path / "b.zarr"), *given]) == 0
