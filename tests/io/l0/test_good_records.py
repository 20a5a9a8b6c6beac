"""What good nights do and a limit might take for a fault: nothing is refused, changed or told of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import l0 as build
from numpy.typing import NDArray

from gpucal import (
    CalibrationConfig,
    GpucalError,
    SubscanGroup,
    create_l0,
    open_l0,
    select_backend,
)
from gpucal.io.l0.checks import check_group, check_sidebands
from gpucal.io.l0.group import GroupContext, build_group
from gpucal.io.l0.plausible.records import judged
from gpucal.scan import ArrayCounts
from gpucal.steps.loads import spectral_setup
from gpucal.steps.pairing import pair_subscans

C, D, R, A, S = 64, 8, 2, 3, 6
DAY = 86400.0
Raw = dict[str, NDArray[Any]]
Change = Callable[[Raw], Any]
D_AXIS = np.arange(D)[:, None]
S_AXIS = np.arange(S)[None, :]
MIDDLE = 20.0 * S_AXIS + 1.3 * (D_AXIS - 3.5)
"""Seconds of each dump [D,S]."""


def night(change: Change, modes: tuple[str, ...] = ("OFF", "ON") * 3) -> SubscanGroup:
    """A source group that follows the sky, with one thing as some telescope has it."""
    seconds = MIDDLE + 0.2137
    raw: Raw = {
        "mjd": 60310.25 + seconds / DAY,
        "exptime": np.full((D, S), 1.3, "f4"),
        "elevation": 0.9 + 5e-5 * seconds,
        "azimuth": 1.2 + 7e-5 * seconds,
        "pamb": np.full(S, 390.0),
        "tamb": np.full(S, 268.0),
        "signal_freq": np.full((R, S), 460e9),
        "image_freq": np.full((R, S), 472e9),
        "freq_res": np.full((R, S), 1e6),
        "ref_channel": np.full((R, S), 30.0),
        "otf_lon": np.zeros((D, S)),
        "otf_lat": np.zeros((D, S)),
    }
    raw.update(change(raw) or {})
    context = GroupContext(1, "", False, 0, False, False)
    counts = ArrayCounts(np.zeros((C, D, R, A, S), "i4"))
    return build_group(counts, modes, raw, context)


def clock(seconds: NDArray[Any], exptime: float) -> Raw:
    return {"mjd": 60310.25 + seconds / DAY, "exptime": np.full((D, S), exptime, "f4")}


def stands_still(raw: Raw) -> Raw:
    """The last times are repeated where the third subscan has no more dumps."""
    mjd = raw["mjd"].copy()
    mjd[3:, 2] = mjd[3, 2]
    return {"mjd": mjd}


def short_last_dump(raw: Raw) -> Raw:
    exptime, mjd = raw["exptime"].copy(), raw["mjd"].copy()
    exptime[-1] = 0.1
    mjd[-1] -= 0.6 / DAY
    return {"exptime": exptime, "mjd": mjd}


def far_reference(raw: Raw) -> Raw:
    """OFF 6 degrees above the source, told by its offset."""
    off = np.where(S_AXIS % 2 == 0, 6.0, 0.0) * np.ones((D, 1))
    return {"otf_lat": off, "elevation": raw["elevation"] + np.radians(off)}


def one_reference(raw: Raw) -> Raw:
    """One OFF among ONs, 8 degrees above, and no offsets are recorded."""
    return {"elevation": raw["elevation"] + np.radians(np.where(S_AXIS == 0, 8.0, 0.0))}


def a_pause(raw: Raw) -> Raw:
    """Half an hour before the last subscan: source and Doppler shift have moved on."""
    wait = np.where(S_AXIS == S - 1, 1800.0, 0.0)
    shift = 460e9 * 0.03 * (raw["mjd"][0] - raw["mjd"][0, 0] + wait[0] / DAY) * DAY / 299792458.0
    return {
        "mjd": raw["mjd"] + wait / DAY,
        "elevation": raw["elevation"] + 7e-5 * wait,
        "signal_freq": raw["signal_freq"] + shift,
        "image_freq": raw["image_freq"] + shift,
    }


def doppler(raw: Raw) -> Raw:
    """Channels of 1 kHz: the axis follows the Doppler shift over several of them."""
    shift = 93e9 * 0.03 * (raw["mjd"].mean(axis=0) - raw["mjd"][0, 0]) * DAY / 299792458.0
    return {
        "signal_freq": 93e9 + shift * np.ones((R, 1)),
        "image_freq": 105e9 + shift * np.ones((R, 1)),
        "freq_res": np.full((R, S), 1e3),
    }


GOOD: dict[str, Change] = {
    "nothing": lambda r: None,
    "whole seconds, dumps of 0.3 s": lambda r: clock(
        np.floor(20 * S_AXIS + 0.3 * D_AXIS), exptime=0.3
    ),
    "whole seconds, dumps of 1.2 s": lambda r: clock(
        np.floor(20 * S_AXIS + 1.2 * D_AXIS), exptime=1.2
    ),
    "tenths of a second": lambda r: clock(np.floor(200 * S_AXIS + 1.9 * D_AXIS) / 10, exptime=0.19),
    "two phases side by side": lambda r: {"exptime": np.full((D, S), 2.6, "f4")},
    "times stand still in the padding": stands_still,
    "a short last dump": short_last_dump,
    "a dump that is missing": lambda r: {"mjd": r["mjd"] + np.where(D_AXIS > 4, 1.3, 0) / DAY},
    "uneven ways between subscans": lambda r: {
        "mjd": r["mjd"] + np.array([0, 0.3, 1.5, 4.0, 5.02, 6.1]) / DAY
    },
    "elevation that stays": lambda r: {"elevation": np.full((D, S), 0.7)},
    "an OFF far off": far_reference,
    "one OFF far off, without offsets": one_reference,
    "a pause": a_pause,
    "culmination in the zenith": lambda r: {
        "azimuth": np.pi * np.tanh((MIDDLE - 50) / 3),
        "elevation": np.full((D, S), np.pi / 2 - 0.01),
    },
    "a raster with fly-back": lambda r: {
        "otf_lon": 0.1 * (D_AXIS % 4) + 0 * S_AXIS,
        "otf_lat": 0.1 * (D_AXIS // 4) + 0.2 * S_AXIS,
    },
    "sunset": lambda r: {"tamb": 270.0 - 0.9 * np.arange(S)},
    "an aircraft": lambda r: {"tamb": np.full(S, 218.15), "pamb": np.full(S, 130.0)},
    "a balloon": lambda r: {"tamb": np.full(S, 250.0), "pamb": np.full(S, 2.2)},
    "weather 0": lambda r: {"tamb": np.zeros(S), "pamb": np.zeros(S)},
    "weather -999": lambda r: {"tamb": np.full(S, -999.0), "pamb": np.full(S, -999.0)},
    "weather NaN": lambda r: {"tamb": np.full(S, np.nan), "pamb": np.full(S, np.nan)},
    "weather of some subscans": lambda r: {"tamb": np.where(np.arange(S) % 2, 268.0, 0.0)},
    "Doppler tracking": doppler,
    "reference channel and frequency move together": lambda r: {
        "ref_channel": 30.0 + 2.0 * (S_AXIS > 2) * np.ones((R, 1)),
        "signal_freq": 460e9 + 2e6 * (S_AXIS > 2) * np.ones((R, 1)),
        "image_freq": 472e9 - 2e6 * (S_AXIS > 2) * np.ones((R, 1)),
    },
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_night_is_left_alone(name: str) -> None:
    one_off = ("OFF", *("ON",) * 5)
    group = night(GOOD[name], one_off if "one OFF" in name else ("OFF", "ON") * 3)
    check_group(group, calibration=False)
    same, notes = judged(group, calibration=False)
    assert notes == []
    assert same is group


def test_one_dump_in_a_subscan() -> None:
    raw = build.small_arrays((C, 1, R, A, S))
    for name in ("chop_phase", "pixel_offset_lon", "pixel_offset_lat", "otf_lon", "otf_lat"):
        del raw[name]
    counts = ArrayCounts(np.zeros((C, 1, R, A, S), "i4"))
    context = GroupContext(1, "", False, 0, False, False)
    group = build_group(counts, ("OFF", "ON") * 3, raw, context)
    assert judged(group, calibration=False)[1] == []


def test_throws_follow_the_doppler_shift() -> None:
    def change(raw: Raw) -> Raw:
        new = doppler(raw)
        drift = new["signal_freq"] - 93e9
        throw = np.where(S_AXIS % 2 == 0, 0.0, 5e6) + drift
        return {**new, "signal_freq": np.full((R, S), 93e9), "freq_throw": throw}

    group = night(change, ("FSW-SIG", "FSW-REF") * 3)
    assert judged(group, calibration=False)[1] == []


def test_a_single_sideband_has_its_image_where_the_signal_is() -> None:
    group = night(lambda r: {"image_freq": r["signal_freq"]})
    check_sidebands(group, np.zeros(()))
    check_sidebands(group, None)
    with pytest.raises(GpucalError, match="one sky frequency"):
        check_sidebands(group, np.asarray(1.0))


def test_attributes_of_good_stores(tmp_path: Path) -> None:
    site: dict[str, Any] = {"lat_deg": "-77.85", "lon_deg": 166.7, "alt_m": 38000.0}
    create_l0(tmp_path / "night.zarr", telescope="a balloon", instrument="X", site=site)
    attrs = {"velocity_source_kms": float("nan"), "scan_number": "1"}
    build.write_scan(tmp_path / "night.zarr", 1, attrs=attrs)
    (scan,) = open_l0(tmp_path / "night.zarr").load(1)
    assert not [w for w in scan.warnings if "scan_number" not in w]


def scan_with(tmp_path: Path, *, loads: Raw | None = None, **source: Any) -> Any:
    path = build.new_store(tmp_path / "night.zarr")
    build.write_scan(path, 1, build.lean_source(**source), build.lean_calibration(**(loads or {})))
    return open_l0(path).load(1)[0]


def test_the_axis_is_that_of_the_first_subscan_on_the_source(tmp_path: Path) -> None:
    ref = np.full((2, 5), 6.0, "f4")
    ref[:, 0] = 8.0
    scan = scan_with(tmp_path, ref_channel=ref)
    (told,) = scan.warnings
    assert "ref_channel" in told
    assert "subscan 0 (OFF)" in told
    assert "2 channels" in told
    setup = spectral_setup(scan, CalibrationConfig(), select_backend("cpu"))
    assert float(setup.nu_sig[6, 0]) == 460e9


def test_reference_channels_of_source_and_loads_must_fit(tmp_path: Path) -> None:
    with pytest.raises(GpucalError, match=r"receiver 0: ref_channel is 0 in source/ and 6"):
        scan_with(tmp_path, ref_channel=np.zeros(5, "f4"))


def test_two_equal_throws_are_not_folded(tmp_path: Path) -> None:
    modes = ("FSW-SIG", "FSW-REF", "FSW-SIG", "FSW-REF")
    shape = (*build.SHAPE[:4], 4)
    none = {name: None for name in build.OPTIONAL if name != "freq_throw"}
    path = build.new_store(tmp_path / "night.zarr")
    build.write_scan(path, 1, build.source_group(shape, modes, **none))
    (scan,) = open_l0(path).load(1)
    with pytest.raises(GpucalError, match=r"freq_throw of receiver 0 is 0 Hz.*--no-fold"):
        pair_subscans(scan, CalibrationConfig())
    assert pair_subscans(scan, CalibrationConfig(fold=False)).mode
