"""Each array of a scan broken in each way: the scan is refused in a sentence, or the numbers stay and a warning tells.

The truth is the same scan unbroken: a warning is enough where what enters T_A*, T_sys and PWV is as it was there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from builders import l0 as build
from numpy.typing import NDArray

from gpucal import CalibrationConfig, GpucalError, SubscanGroup, open_l0
from gpucal.steps.loads import moving_axis
from gpucal.steps.sky_model import ambient_temperatures

C, D, R, A, S = 12, 6, 2, 4, 5
WHOLE: Any = {"write_empty_chunks": True}
SHAPE = (C, D, R, A, S)
MODES = ("OFF", "ON", "OFF", "ON", "OFF")
LOAD_MODES = ("HOT", "HOT", "HOT", "COLD", "COLD", "COLD")
HOT = 1
Values = NDArray[Any]
Break = Callable[[Values], Any]


def smooth_arrays(shape: tuple[int, ...], *, calibration: bool = False) -> dict[str, Values]:
    """Arrays as a telescope records them: elevation and azimuth follow the sky, times the clock."""
    arrays = build.small_arrays(shape, calibration=calibration)
    d, s = shape[1], shape[4]
    arrays["mjd"] = arrays["mjd"] + 0.3217 / 86400  # times in whole seconds would be known to 1 s
    seconds = (arrays["mjd"] - build.MJD0) * 86400
    arrays["elevation"] = (0.9 + 5e-5 * seconds).astype("f4")
    arrays["azimuth"] = (1.2 + 7e-5 * seconds).astype("f4")
    arrays["otf_lon"] = np.linspace(-0.01, 0.01, d)[:, None] * np.ones(s)
    arrays["otf_lat"] = np.full((d, s), 0.02)
    lon = np.linspace(-0.05, 0.05, shape[3])
    for name in ("pixel_offset_lon", "pixel_offset_lat"):
        arrays[name] = np.broadcast_to(lon[None, :, None], (shape[2], shape[3], s)).copy()
    for name in ("chop_phase", "lloadsn"):
        del arrays[name]
    return arrays


def one(value: Any, subscan: int = -2) -> Break:
    """One record is ``value``: of an ON, in loads of a COLD subscan."""

    def change(values: Values) -> Values:
        result = values.copy()
        result[(*([1] * (values.ndim - 1)), subscan)] = value
        return result

    return change


def times(factor: float) -> Break:
    """One record is multiplied."""
    return lambda v: one(float(v[(*([1] * (v.ndim - 1)), -2)]) * factor)(v)


TYPES: dict[str, Break] = {
    "bool": lambda v: np.ones(v.shape, bool),
    "complex": lambda v: v.astype("c16"),
    "half": lambda v: v.astype("f2"),
    "text": lambda v: np.full(v.shape, "x", dtype="<U4"),
}
RECORDS: dict[str, dict[str, Break]] = {
    "mjd": {
        "all equal": lambda v: np.full(v.shape, v[0, 0]),
        "float32": lambda v: v.astype("f4"),
        "was float32": lambda v: v.astype("f4").astype("f8"),
        "NaN": one(np.nan),
        "a leap second in a subscan": lambda v: (
            v + np.where(np.arange(D)[:, None] > 2, 1 / 86400, 0)
        ),
        "a leap second between": lambda v: v + np.where(np.arange(v.shape[1]) > 2, 1 / 86400, 0),
        "a year off": lambda v: one(float(v[1, -2]) + 365)(v),
        "seconds": lambda v: v * 86400,
    },
    "exptime": {
        "ms": lambda v: v * 1000,
        "one ms": times(1000),
        "one us": times(1e-6),
        "negative": one(-1),
        "infinite": one(np.inf),
    },
    "elevation": {
        "one low": one(0.3),
        "one high": one(1.4),
        "degrees": lambda v: np.degrees(v),
        "a subscan": lambda v: v - np.where(np.arange(v.shape[1]) == 3, 0.4, 0).astype("f4"),
        "NaN": one(np.nan),
    },
    "azimuth": {"one off": one(3.0), "degrees": lambda v: np.degrees(v) + 100},
    "tamb": {
        "one high": one(320.0),
        "one low": one(200.0),
        "one absurd": one(1e30),
        "one in deg C": one(-5.0),
        "all in deg C": lambda v: v - 273.15,
        "one infinite": one(np.inf),
        "one NaN": one(np.nan),
        "one 0": one(0),
    },
    "pamb": {"one high": one(700), "in Pa": lambda v: v * 133.3, "one negative": one(-1)},
    "signal_freq": {
        "the first": lambda v: v + np.where(np.arange(v.shape[1]) == 0, 4e6, 0),
        "one": one(461e9),
        "float32 GHz": lambda v: (v / 1e9).astype("f4"),
    },
    "image_freq": {"as signal": lambda v: np.full(v.shape, 460e9), "one": one(480e9)},
    "freq_res": {
        "one negative": one(-1e6),
        "one half": one(0.5e6),
        "the first": lambda v: v * np.where(np.arange(v.shape[1]) == 0, 3.0, 1.0),
        "NaN": one(np.nan),
    },
    "ref_channel": {
        "one": one(900),
        "one by 1": one(7),
        "the first": lambda v: v + 5 * (np.arange(v.shape[1]) == 0),
    },
    "otf_lon": {"one far": one(3.0), "arcsec": lambda v: v * 3600 + 5000},
    "otf_lat": {"one far": one(3.0), "arcsec": lambda v: v * 3600 + 5000},
    "pixel_offset_lon": {"one far": one(5.0), "arcsec": lambda v: v * 3600, "NaN": one(np.nan)},
    "pixel_offset_lat": {"one far": one(5.0), "arcsec": lambda v: v * 3600, "NaN": one(np.nan)},
    "freq_throw": {"NaN": one(np.nan), "infinite": one(np.inf)},
}
LOADS: dict[str, dict[str, Break]] = {
    "thot": {
        "one high": one(330.0, HOT),
        "deg C": lambda v: v - 273.15,
        "one 0": one(0, HOT),
    },
    "tcold": {"one high": one(120.0), "negative": one(-5), "one 0": one(0)},
    "load_temp_sig": {"one channel": one(600.0), "negative": one(-1), "0": lambda v: v * 0},
    "load_temp_img": {"one channel": one(600.0), "negative": one(-1), "0": lambda v: v * 0},
}
CASES = [
    (group, name, how)
    for group, table in (("source", RECORDS), ("calibration", LOADS))
    for name, ways in table.items()
    for how in (*ways, *TYPES)
]
NO_TEMPERATURE = frozenset(
    {"azimuth", "otf_lon", "otf_lat", "pixel_offset_lon", "pixel_offset_lat", "pamb"}
)
"""Arrays that no temperature depends on: a warning is enough."""

AXIS = frozenset({"signal_freq", "image_freq", "freq_res", "ref_channel"})
"""The axis is that of the subscans on the source."""

CLOCK = frozenset({"mjd", "exptime"})
"""A single odd exposure or second moves weights: it must be told of."""


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = build.new_store(tmp_path_factory.mktemp("clean") / "night.zarr")
    cal_shape = (C, D, R, A, len(LOAD_MODES))
    for number in (1, 2):
        build.write_scan(
            path,
            number,
            build.source_group(SHAPE, MODES, **_only(SHAPE)),
            build.calibration_group(cal_shape, LOAD_MODES, **_only(cal_shape, True)),
        )
    assert [s.warnings for n in (1, 2) for s in open_l0(path).load(n)] == [(), ()]
    return path


def _only(shape: tuple[int, ...], calibration: bool = False) -> dict[str, Any]:
    made = smooth_arrays(shape, calibration=calibration)
    return {**dict.fromkeys(build.small_arrays(shape, calibration=calibration)), **made}


@pytest.mark.filterwarnings("ignore")  # of zarr about texts, of NumPy about half floats
@pytest.mark.parametrize(("group", "name", "how"), CASES, ids=["-".join(case) for case in CASES])
def test_one_bad_record_moves_nothing(clean: Path, group: str, name: str, how: str) -> None:
    where: Any = zarr.open_group(str(clean / f"scan_000001/{group}"), mode="a")
    good: Any = where[name][...]
    table = RECORDS if group == "source" else LOADS
    bad = {**TYPES, **table[name]}[how](good)
    truth = getattr(open_l0(clean).load(2)[0], group)
    try:
        where.create_array(name, data=np.asarray(bad), overwrite=True, config=WHOLE)
        _judge(clean, group, name, truth)
    finally:
        where.create_array(name, data=good, overwrite=True, config=WHOLE)
    assert open_l0(clean).load(1)[0].warnings == ()


def _judge(path: Path, group: str, name: str, truth: SubscanGroup) -> None:
    """Refused in one sentence that names the array, or warned with the right numbers."""
    store = open_l0(path)
    assert store.load(2)[0].warnings == ()
    try:
        (scan,) = store.load(1)
    except GpucalError as error:
        text = str(error)
        assert text.startswith("scan 1")
        assert "\n" not in text
        assert "unexpected" not in text
        assert name in text or (name in CLOCK and "exptime" in text) or "frequency" in text
        return
    read = getattr(scan, group)
    told = any(name in warning for warning in scan.warnings)
    if name == "tamb":
        config = CalibrationConfig()
        if (read.tamb < 150).all():  # refused when it is calibrated, unless --t-atm is given
            with pytest.raises(GpucalError, match=r"tamb is.*deg C"):
                ambient_temperatures(read, config)
            return
        assert ambient_temperatures(read, config) == ambient_temperatures(truth, config)
    elif name in AXIS:
        ons = [s for s, mode in enumerate(MODES) if mode == "ON"]
        found, right = (getattr(g, name)[:, ons] for g in (read, truth))
        if not told:  # refused when it is calibrated
            with pytest.raises(GpucalError, match="the frequency axis moves"):
                moving_axis(scan, np.array(ons, dtype=np.int32))
            return
        np.testing.assert_allclose(found, right, rtol=1e-12)
    elif name not in NO_TEMPERATURE | CLOCK:
        np.testing.assert_allclose(getattr(read, name), getattr(truth, name), rtol=1e-4)
    unrecorded = name in ("tamb", "pamb") and np.array_equal(
        np.delete(getattr(read, name), -2), np.delete(getattr(truth, name), -2)
    )
    assert told or unrecorded, "nothing was said"


@pytest.mark.parametrize(
    "attrs",
    [
        *({"gain_image": v} for v in (True, 1e300, "1.0", [[True] * 4] * 2, [["1"] * 4] * 2, 1e3)),
        *({"f_eff": v} for v in (True, "0.95", float("inf"), 95)),
        *({"rest_freq_hz": v} for v in (True, "1e11", float("nan"), 1e20)),
        *({"velocity_source_kms": v} for v in (True, "5", float("inf"), 1e9)),
        *({"ref_channel_base": v} for v in (True, "1", 0.5)),
        *({"n_subscans_planned": v} for v in (True, "3", -1)),
        {"scan_number": True},
    ],
    ids=str,
)
def test_attributes_that_are_no_numbers(clean: Path, attrs: dict[str, Any]) -> None:
    group = zarr.open_group(str(clean / "scan_000001"), mode="a")
    before = dict(group.attrs)
    try:
        group.attrs.update(attrs)
        with pytest.raises(GpucalError, match=f"scan 1: .*{next(iter(attrs))}") as caught:
            open_l0(clean).load(1)
        assert "\n" not in str(caught.value)
        assert open_l0(clean).load(2)
    finally:
        group.attrs.clear()
        group.attrs.update(before)


@pytest.mark.parametrize("attrs", [{"f_eff": 0.1}, {"gain_image": 20.0}])
def test_doubtful_attributes_are_told(clean: Path, attrs: dict[str, Any]) -> None:
    group = zarr.open_group(str(clean / "scan_000001"), mode="a")
    before = dict(group.attrs)
    try:
        group.attrs.update(attrs)
        (warning,) = open_l0(clean).load(1)[0].warnings
        assert next(iter(attrs)) in warning
    finally:
        group.attrs.clear()
        group.attrs.update(before)
