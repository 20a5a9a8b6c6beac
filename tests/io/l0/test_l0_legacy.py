"""Older and looser stores: legacy shapes, string kinds, padding, defaults, unfinished scans."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from builders import l0 as build
from builders.groups import known, loads_of, source_of
from numcodecs import VLenUTF8

from gpucal import L0Error, Scan, open_l0, write_l0_scan
from gpucal.axes import FILL_INT32
from gpucal.errors import EmptyScanError
from gpucal.io.chunks.counts import ZarrCounts

C, D, R, A, S = build.SHAPE
MID = build.MJD0 + np.arange(S) * 20.0 / 86400


def load(path: Path, number: int = 1, **options: Any) -> Scan:
    return open_l0(path).load(number, **options)[0]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return build.new_store(tmp_path / "night.zarr")


def group_at(path: Path, name: str = "source") -> Any:
    return zarr.open_group(str(path / f"scan_000001/{name}"), mode="a")


def test_values_per_subscan_are_spread(path: Path) -> None:
    rng = np.random.default_rng(3)
    short: dict[str, Any] = {
        "mjd": MID,
        "exptime": np.full(S, 2.5, "f4"),
        "elevation": rng.uniform(0.5, 1, S).astype("f4"),
        "azimuth": rng.uniform(-1, 1, S).astype("f4"),
        "otf_lon": rng.normal(size=S),
        "otf_lat": rng.normal(size=S),
        "signal_freq": 460e9 + np.arange(S),
        "image_freq": 470e9 + np.arange(S),
        "freq_res": np.full(S, -1e6),
        "ref_channel": np.full(S, 6.0, "f4"),
        "freq_throw": np.arange(S, dtype="f8"),
        "pixel_offset_lon": rng.normal(size=(R, A)),
        "pixel_offset_lat": rng.normal(size=(R, A)),
    }
    build.write_scan(path, 1, build.source_group(**short))
    group = source_of(load(path))
    for d in range(D):
        expected = MID + (d - (D - 1) / 2) * 2.5 / 86400
        np.testing.assert_allclose(group.mjd[d], expected, rtol=0, atol=1e-11)
    for name in ("exptime", "elevation", "azimuth", "otf_lon", "otf_lat"):
        values = getattr(group, name)
        assert values.shape == (D, S)
        np.testing.assert_array_equal(values, np.broadcast_to(short[name], (D, S)))
    for name in ("signal_freq", "image_freq", "freq_res", "ref_channel", "freq_throw"):
        np.testing.assert_array_equal(getattr(group, name), np.broadcast_to(short[name], (R, S)))
    for name in ("pixel_offset_lon", "pixel_offset_lat"):
        for s in range(S):
            np.testing.assert_array_equal(getattr(group, name)[..., s], short[name])
    np.testing.assert_allclose(group.mjd_mid, MID, rtol=0, atol=1e-11)


def test_subscan_middle_with_dumps_of_unequal_length(path: Path) -> None:
    exptime = np.broadcast_to(np.array([1.0, 2.0, 4.0], "f4")[:, None], (D, S))
    build.write_scan(path, 1, build.source_group(mjd=MID, exptime=exptime))
    group = source_of(load(path))
    # dumps of 1, 2, 4 s: their middles are 0.5, 2, 5 s after the start, the subscan's is 3.5 s
    offsets = np.array([-3.0, -1.5, 1.5]) / 86400
    np.testing.assert_allclose(group.mjd, MID + offsets[:, None], rtol=0, atol=1e-11)


def test_defaults_of_absent_arrays(path: Path) -> None:
    absent = [name for name in build.OPTIONAL if not name.startswith("load")]
    absent.append("tamb")
    nothing: dict[str, Any] = dict.fromkeys(absent)
    source = build.source_group(image_freq=None, **nothing)
    calibration = build.calibration_group(
        thot=None, tcold=None, load_temp_sig=None, load_temp_img=None, image_freq=None
    )
    build.write_scan(path, 1, source, calibration, attrs={"gain_image": 0})
    scan = load(path)
    assert np.isnan(source_of(scan).pamb).all()
    assert np.isnan(source_of(scan).tamb).all()
    assert (source_of(scan).lloadsn == -1).all()
    for name in ("otf_lon", "otf_lat", "pixel_offset_lon", "pixel_offset_lat"):
        assert not getattr(scan.source, name).any()
    assert source_of(scan).chop_phase is None
    assert source_of(scan).freq_throw is None
    assert source_of(scan).thot is None
    np.testing.assert_array_equal(source_of(scan).image_freq, source_of(scan).signal_freq)
    assert np.isnan(known(loads_of(scan).thot)).all()
    assert np.isnan(known(loads_of(scan).tcold)).all()
    assert loads_of(scan).load_temp_sig is None


@pytest.mark.parametrize("gain", [0, [[0.0] * A] * R, [[[0.0] * A] * R] * C])
def test_no_image_frequency_without_image_sideband(path: Path, gain: Any) -> None:
    build.write_scan(
        path,
        1,
        build.source_group(image_freq=None),
        build.calibration_group(image_freq=None),
        attrs={"gain_image": gain},
    )
    assert source_of(load(path)).image_freq.shape == (R, S)


def test_reference_channel_counted_from_one(path: Path) -> None:
    build.write_scan(path, 1, attrs={"ref_channel_base": 1})
    assert (source_of(load(path)).ref_channel == 5.0).all()
    assert (loads_of(load(path)).ref_channel == 5.0).all()


def test_col_is_cold(path: Path) -> None:
    build.write_scan(path, 1, calibration=build.calibration_group(modes=("HOT", "COL")))
    assert loads_of(load(path)).sobsmode == ("HOT", "COLD")


@pytest.mark.parametrize(
    ("zarr_format", "dtype"),
    [(3, "vlen"), (3, "U7"), (2, "vlen"), (2, "U7"), (2, "S7"), (2, "object")],
)
def test_modes_as_string_array(tmp_path: Path, zarr_format: int, dtype: str) -> None:
    path = build.new_store(tmp_path / "night.zarr", zarr_format=zarr_format)
    build.write_scan(path, 1)
    group = group_at(path)
    del group.attrs["sobsmode"]
    modes = ["OFF", "OTF-ON", "OTF-OFF", "ON", "OFF"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Zarr calls its string types unstable when writing them
        if dtype == "object":
            array = group.create_array("sobsmode", shape=5, dtype=str, filters=[VLenUTF8()])
            array[...] = np.array(modes, dtype=object)
        else:
            kind = str if dtype == "vlen" else dtype
            array = group.create_array("sobsmode", shape=5, dtype=kind)
            array[...] = np.array(modes, dtype=None if dtype == "vlen" else dtype)
    assert source_of(load(path)).sobsmode == tuple(modes)


def test_padded_dumps(path: Path) -> None:
    """Subscan 3 has one dump, subscan 1 two; the rest is padding."""
    arrays: dict[str, Any] = build.small_arrays()
    data = build.counts(build.SHAPE)
    expected = {name: arrays[name].copy() for name in ("mjd", "exptime", "elevation", "otf_lon")}
    for s, n in ((1, 2), (3, 1)):
        data[:, n:, ..., s] = FILL_INT32
        for name in ("mjd", "exptime", "elevation", "azimuth", "otf_lon", "otf_lat"):
            arrays[name][n:, s] = np.nan
        for name in ("exptime", "elevation", "otf_lon"):
            expected[name][n:, s] = expected[name][n - 1, s]
    build.write_scan(path, 1, build.source_group(data_5d=data, **arrays))
    group = source_of(load(path))
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(group, name), values, rtol=0, atol=1e-10, err_msg=name)
    assert (group.counts.read(0, C, 3)[:, 1:] == FILL_INT32).all()


def test_exptime_padded_while_mjd_is_per_subscan(path: Path) -> None:
    exptime = np.full((D, S), 2.0, "f4")
    exptime[2:, 1] = np.nan
    build.write_scan(path, 1, build.source_group(mjd=MID, exptime=exptime))
    group = source_of(load(path))
    np.testing.assert_allclose(
        (group.mjd[:, 1] - MID[1]) * 86400, [-1.0, 1.0, 3.0], rtol=0, atol=1e-5
    )
    assert (group.exptime[:, 1] == 2.0).all()


def test_unknown_arrays_and_attributes_are_ignored(path: Path) -> None:
    build.write_scan(path, 1, attrs={"wind": "calm"})
    plain = load(path)
    extra = group_at(path).create_array("wind_speed", shape=(3,), dtype="f4")
    extra[...] = 1
    (path / "scan_000001" / "README").write_text("no Zarr object")
    (path / "scan_000001" / "plots").mkdir()
    scan = load(path)
    assert scan.attrs["wind"] == "calm"
    assert scan.metadata_sha256 == plain.metadata_sha256


def test_store_without_format_attribute(path: Path) -> None:
    build.write_scan(path, 1)
    root: Any = zarr.open_group(str(path), mode="a")
    del root.attrs["format"]
    del root.attrs["format_version"]
    assert load(path).number == 1


def test_scan_number_that_disagrees_is_told(path: Path) -> None:
    build.write_scan(path, 1)
    zarr.open_group(str(path / "scan_000001"), mode="a").attrs["scan_number"] = 9
    scan = load(path)
    assert scan.number == 1
    assert scan.warnings == (
        "attribute scan_number is 9, the group is scan 1; the latter is used.",
    )


def test_unfinished_scan(path: Path) -> None:
    """Arrays grow one after the other: what all of them hold is there."""
    build.write_scan(path, 1, attrs={"complete": False, "n_subscans_planned": 8})
    with pytest.raises(L0Error, match="incomplete: 5 subscans are there, expected 8 planned"):
        load(path)
    assert source_of(load(path, partial=True)).shape == build.SHAPE
    group = group_at(path)
    group["tamb"].resize((4,))
    group["data_5d"].resize((C, D, R, A, 6))
    scan = load(path, partial=True)
    assert source_of(scan).shape == (C, D, R, A, 4)
    assert source_of(scan).sobsmode == ("OFF", "ON", "OFF", "ON")
    np.testing.assert_array_equal(
        source_of(scan).counts.read(0, C, 3), build.counts(build.SHAPE)[..., 3]
    )
    with pytest.raises(IndexError):
        source_of(scan).counts.read(0, C, 4)


@pytest.mark.parametrize("empty", [np.nan, 0.0])
def test_unfinished_scan_made_in_full_size(path: Path, empty: float) -> None:
    arrays = build.small_arrays()
    arrays["mjd"][:, 3:] = empty
    modes = ("OFF", "ON", "OFF", "", "")
    build.write_scan(
        path, 1, build.lean_source(modes=modes, mjd=arrays["mjd"]), attrs={"complete": False}
    )
    assert source_of(load(path, partial=True)).shape[4] == 3
    arrays["mjd"][:] = empty
    build.write_scan(path, 2, build.lean_source(mjd=arrays["mjd"]), attrs={"complete": False})
    with pytest.raises(EmptyScanError, match="no subscan is complete yet"):
        load(path, 2, partial=True)


@pytest.mark.parametrize(
    ("attrs", "whole"),
    [
        ({"complete": True, "n_subscans_planned": 9}, True),
        ({"complete": False, "n_subscans_planned": 5}, True),
        ({"complete": False}, False),
        ({"complete": None, "n_subscans_planned": 6}, False),
        ({"complete": None}, True),
    ],
)
def test_when_a_scan_is_complete(path: Path, attrs: dict[str, Any], whole: bool) -> None:
    build.write_scan(path, 1, attrs=attrs)
    if whole:
        assert load(path).number == 1
    else:
        with pytest.raises(L0Error, match=r"incomplete.* Use --partial"):
            load(path)


def test_wobbler_phases_in_the_dumps_need_no_off_subscan(path: Path) -> None:
    build.write_scan(path, 1, build.source_group(modes=("WSW-ON",) * S))
    assert source_of(load(path)).sobsmode == ("WSW-ON",) * S


def test_one_broken_scan_leaves_the_others(path: Path) -> None:
    for number in (1, 2, 3, 4):
        build.write_scan(path, number)
    (path / "scan_000001/zarr.json").write_text("{")
    (path / "scan_000002/zarr.json").unlink()
    (path / "scan_000003/source/mjd/zarr.json").write_text("[]")
    store = open_l0(path)
    for number in (1, 2, 3):
        with pytest.raises(L0Error, match=f"scan {number}: "):
            store.load(number)
    assert store.load(4)[0].number == 4


def test_sharded_counts(path: Path) -> None:
    build.write_scan(path, 1)
    group = group_at(path)
    data = build.counts(build.SHAPE)
    del group["data_5d"]
    options = {"dtype": "i4", "chunks": (3, D, R, A, 1), "shards": (C, D, R, A, S)}
    group.create_array("data_5d", shape=data.shape, **options)[...] = data
    counts = source_of(load(path)).counts
    assert isinstance(counts, ZarrCounts)
    assert not counts.direct
    np.testing.assert_array_equal(counts.read(2, 9, 4), data[2:9, ..., 4])


def test_scan_without_loads(path: Path) -> None:
    write_l0_scan(path, 1, attrs={"gain_image": 1.0}, groups={"": {"source": build.source_group()}})
    assert load(path).calibration is None
