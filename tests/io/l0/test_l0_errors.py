"""Each thing that cannot be right has its own sentence, and names its place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from builders import l0 as build
from builders.groups import loads_of
from numpy.typing import NDArray

from gpucal import L0Error, open_l0, write_l0_scan

C, D, R, A, S = build.SHAPE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return build.new_store(tmp_path / "night.zarr")


def at(name: str, value: Any, *index: Any) -> dict[str, NDArray[Any]]:
    """The array of that name with one wrong element."""
    calibration = name in ("thot", "tcold")
    values = build.small_arrays(
        (C, D, R, A, 2) if calibration else build.SHAPE, calibration=calibration
    )[name]
    values[index] = value
    return {name: values}


SOURCE = {
    "elevation in degrees": (
        at("elevation", 45, 1, 2),
        "subscan 2: elevation of dump 1 is 45.*deg",
    ),
    "azimuth in degrees": (at("azimuth", 185, 0, 1), "subscan 1: azimuth .* looks like degrees"),
    "elevation 0": (at("elevation", 0, 2, 3), "subscan 3: elevation of dump 2 is 0 rad.*for ON"),
    "elevation NaN": (at("elevation", np.nan, 0, 0), "subscan 0: elevation of dump 0 is nan"),
    "exptime 0": (at("exptime", 0, 1, 4), "subscan 4: exptime of dump 1 is 0 s"),
    "exptime NaN": (at("exptime", np.nan, 0, 1), "subscan 1: exptime of dump 0 is nan"),
    "exptime negative": (at("exptime", -2, 0, 1), "exptime of dump 0 is -2 s"),
    "mjd as JD": (at("mjd", 2460310.75, 0, 0), "Julian date, subtract 2400000.5"),
    "mjd in seconds": (at("mjd", 5210805600.0, 0, 0), "MJD in seconds, divide by 86400"),
    "mjd as unix time": (at("mjd", 1.7e9, 0, 0), "Unix seconds"),
    "mjd 0": (at("mjd", 0, 0, 0), "mjd of dump 0 is 0, expected 30000..90000 days"),
    "mjd of a dump backwards": (
        at("mjd", build.MJD0 - 1, 2, 1),
        "subscan 1: mjd runs backwards from dump 1 to dump 2",
    ),
    "mjd of a subscan backwards": (
        at("mjd", build.MJD0 - 1, slice(None), 3),
        "subscan 3: mjd runs backwards: .* Subscans must be stored in the order of time",
    ),
    "signal in GHz": (
        at("signal_freq", 460.0, 1, 2),
        "subscan 2, receiver 1: signal_freq is 460, .*looks like GHz",
    ),
    "signal in MHz": (at("signal_freq", 460e3, 0, 0), "looks like MHz"),
    "signal in kHz": (at("signal_freq", 460e6, 0, 0), "looks like kHz"),
    "signal NaN": (at("signal_freq", np.nan, 0, 0), "signal_freq is nan"),
    "image in GHz": (at("image_freq", 472.0, 0, 0), "image_freq is 472, .*looks like GHz"),
    "freq_res 0": (at("freq_res", 0, 1, 1), "subscan 1, receiver 1: freq_res is 0 Hz"),
    "freq_res NaN": (at("freq_res", np.nan, 0, 1), "freq_res is nan"),
    "axis below 0": (at("freq_res", 1e12, 0, 1), "the signal frequency of channel 0 would be -"),
    "ref_channel": (at("ref_channel", np.inf, 0, 1), "ref_channel is inf"),
    "freq_throw": (at("freq_throw", np.nan, 1, 1), "receiver 1: freq_throw is nan"),
    "pixel offset": (
        at("pixel_offset_lat", np.nan, 1, 3, 2),
        "subscan 2, receiver 1, pixel 3: pixel_offset_lat is nan, expected degrees",
    ),
}
CALIBRATION = {
    "hot below cold": (at("tcold", 300, 1, 1), "subscan 0, receiver 1: thot is 295 K, not above"),
    "hot in deg C": (at("thot", 15, 0, 0), "receiver 0: thot is 15 K.*looks like deg C"),
    "hot too hot": (at("thot", 500, 1, 0), "receiver 1: thot is 500 K, expected 200..350 K"),
    "cold 0": (at("tcold", 0, 0, 1), "subscan 1, receiver 0: tcold is 0, expected K above 0"),
    "load_temp": ({"load_temp_img": np.zeros((C, 2))}, "load_temp_img of channel 0 is 0"),
    "hot elevation in degrees": ({"elevation": np.full(2, 60.0)}, "looks like degrees"),
}


@pytest.mark.parametrize("case", SOURCE)
def test_impossible_source_values(path: Path, case: str) -> None:
    changes, words = SOURCE[case]
    build.write_scan(path, 25650, build.lean_source(**changes))
    with pytest.raises(L0Error, match=words) as caught:
        open_l0(path).load(25650)
    assert str(caught.value).startswith("scan 25650")


@pytest.mark.parametrize("case", CALIBRATION)
def test_impossible_load_values(path: Path, case: str) -> None:
    changes, words = CALIBRATION[case]
    build.write_scan(path, 25650, calibration=build.lean_calibration(**changes))
    with pytest.raises(L0Error, match=words) as caught:
        open_l0(path).load(25650)
    assert str(caught.value).startswith("scan 25650")


def test_loads_may_be_taken_at_any_elevation(path: Path) -> None:
    group = build.lean_calibration(elevation=np.array([np.nan, -0.1]))
    build.write_scan(path, 1, calibration=group)
    assert loads_of(open_l0(path).load(1)[0]).elevation[0, 1] == np.float32(-0.1)


@pytest.mark.parametrize("name", ["mjd", "exptime", "elevation", "azimuth", "signal_freq"])
def test_missing_array(path: Path, name: str) -> None:
    build.write_scan(path, 1, build.lean_source(**{name: None}))
    with pytest.raises(
        L0Error, match=rf"scan 1: array {name} is missing, expected shape \(5,\) or"
    ):
        open_l0(path).load(1)


def test_missing_counts(path: Path) -> None:
    build.write_scan(path, 1)
    del zarr.open_group(str(path / "scan_000001/source"), mode="a")["data_5d"]
    with pytest.raises(L0Error, match="array data_5d is missing"):
        open_l0(path).load(1)


def test_image_frequency_is_needed(path: Path) -> None:
    build.write_scan(path, 1, build.lean_source(image_freq=None))
    with pytest.raises(L0Error, match=r"image_freq is missing, and gain_image is not 0"):
        open_l0(path).load(1)


def replace_array(path: Path, name: str, values: Any, group: str = "source") -> None:
    where = zarr.open_group(str(path / f"scan_000001/{group}"), mode="a")
    where.create_array(name, data=values, overwrite=True)


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("tamb", np.ones(4, "f4"), r"tamb has shape \(4,\), expected \(5\) = \[S\]"),
        ("mjd", np.ones((5, 3)), r"mjd has shape \(5, 3\), expected \(5\).* or \(3, 5\)"),
        ("otf_lon", np.ones((2, 3, 5)), r"otf_lon has shape \(2, 3, 5\)"),
        ("pixel_offset_lon", np.ones((4, 2)), r"shape \(4, 2\), expected \(2, 4\) = \[R,A\] or"),
        ("mjd", np.ones(5, "i8"), "mjd has dtype int64, expected floating point"),
        ("lloadsn", np.ones(5), "lloadsn has dtype float64, expected signed integer or"),
        ("tamb", np.ones(5, bool), "tamb has dtype bool"),
        ("tamb", np.ones(5, "c16"), "tamb has dtype complex128"),
        ("data_5d", np.ones(build.SHAPE, "i2"), "data_5d has dtype int16, expected int32, uint32"),
        ("data_5d", np.ones((3, 4), "i4"), r"data_5d has shape \(3, 4\), expected five axes"),
        ("data_5d", np.ones((12, 3, 2, 0, 5), "i4"), "there is no array in it"),
        ("data_5d", np.ones((12, 3, 2, 4, 0), "i4"), "there is no subscan in it"),
        ("data_5d", np.ones((12, 3, 2, 4, 6), "i4"), "sobsmode has 5 entries, expected 6"),
        ("data_5d", np.ones((11, 3, 2, 4, 5), "i4"), r"= \(11, 2, 4\), calibration/ has \(12"),
    ],
)
def test_misshapen_arrays(path: Path, name: str, values: Any, words: str) -> None:
    build.write_scan(path, 1)
    replace_array(path, name, values)
    with pytest.raises(L0Error, match=words) as caught:
        open_l0(path).load(1)
    assert caught.value.scan == 1


@pytest.mark.parametrize(
    ("modes", "words"),
    [
        (("OFF", "OM", "OFF", "ON", "OFF"), "subscan 1: sobsmode 'OM' .* Did you mean ON"),
        (("OTFON",) * S, "sobsmode 'OTFON' .* Did you mean OTF-ON"),
        (("HOT",) * S, "subscan 0: sobsmode 'HOT' stands in source/, expected it in calibration/"),
        (("OFF",) * S, "there is no ON subscan, only OFF"),
        (("ON",) * S, "there is no OFF subscan for ON: found ON, expected OFF"),
        (("OTF-ON",) * S, "expected OTF-OFF or OFF"),
        (("FSW-SIG",) * S, "no OFF subscan for FSW-SIG: .* expected FSW-REF"),
        (("NOD-1",) * S, "expected NOD-2"),
        (
            ("OTFSWA-ON", "OTFSWB-ON", "OTFSWA-OFF", "OTFSWA-ON", "OTFSWB-ON"),
            "for OTFSWB-ON: .* expected OTFSWB-OFF beside OTFSWA-OFF",
        ),
    ],
)
def test_modes_of_source(path: Path, modes: Sequence[str], words: str) -> None:
    build.write_scan(path, 1, build.lean_source(modes=modes))
    with pytest.raises(L0Error, match=words):
        open_l0(path).load(1)


@pytest.mark.parametrize(
    ("modes", "words"),
    [
        (("SKY", "COLD"), "there is no HOT subscan in calibration/, only COLD, SKY"),
        (("HOT", "ON"), "subscan 1: sobsmode 'ON' stands in calibration/, expected it in source/"),
        (("HOT", "COLT"), "sobsmode 'COLT' .* expected one of COLD, HOT, .* Did you mean COLD"),
    ],
)
def test_modes_of_calibration(path: Path, modes: tuple[str, str], words: str) -> None:
    build.write_scan(path, 1, calibration=build.lean_calibration(modes=modes))
    with pytest.raises(L0Error, match=words):
        open_l0(path).load(1)


def test_wobbler_without_phases_needs_an_off_subscan(path: Path) -> None:
    group = build.lean_source(modes=("WSW-ON",) * S, chop_phase=np.zeros((D, S), "u1"))
    build.write_scan(path, 1, group)
    with pytest.raises(L0Error, match="expected WSW-OFF"):
        open_l0(path).load(1)


def test_missing_modes(path: Path) -> None:
    build.write_scan(path, 1)
    group = zarr.open_group(str(path / "scan_000001/source"), mode="a")
    group.attrs["sobsmode"] = "ON"
    with pytest.raises(L0Error, match="attribute sobsmode is 'ON', expected a list"):
        open_l0(path).load(1)
    del group.attrs["sobsmode"]
    with pytest.raises(L0Error, match="sobsmode is missing"):
        open_l0(path).load(1)


def set_attrs(path: Path, **attrs: Any) -> None:
    zarr.open_group(str(path / "scan_000001"), mode="a").attrs.update(attrs)


@pytest.mark.parametrize(
    ("attrs", "words"),
    [
        ({"f_eff": 0.0}, "f_eff is 0.0, expected greater than 0"),
        ({"f_eff": 95}, "f_eff is 95, expected less than or equal to 1"),
        ({"gain_image": -0.5}, "gain_image is -0.5, expected a finite ratio of at least 0"),
        ({"gain_image": float("nan")}, "gain_image is nan"),
        ({"gain_image": [1.0, 2.0]}, r"gain_image has shape \(2,\), expected a scalar, \(2, 4\)"),
        ({"gain_image": [[1.0] * 4, [1.0] * 3]}, "not a number or a regular list"),
        ({"gain_image": [[1.0] * 4, [1.0, 1.0, -2.0, 1.0]]}, "receiver 1, pixel 2: attribute gain"),
        ({"gain_image": "good"}, "gain_image is 'good'"),
        ({"ref_channel_base": 2}, "ref_channel_base is 2, expected 0 or 1"),
        ({"rest_freq_hz": -1.0}, "rest_freq_hz is -1.0"),
    ],
)
def test_attributes_of_a_scan(path: Path, attrs: dict[str, Any], words: str) -> None:
    build.write_scan(path, 1)
    set_attrs(path, **attrs)
    with pytest.raises(L0Error, match=words) as caught:
        open_l0(path).load(1)
    assert caught.value.scan == 1


@pytest.mark.parametrize("value", [372.2, 355.0, 150.0])
def test_doubtful_load_temperature_is_only_a_warning(path: Path, value: float) -> None:
    build.write_scan(path, 1, calibration=build.lean_calibration(thot=np.full(2, value)))
    (warning,) = open_l0(path).load(1)[0].warnings
    assert warning == (
        f"load temperature {value:.1f} K cannot be right, expected 200..350 K; use --t-hot."
    )


def test_doubtful_values_are_warnings(path: Path) -> None:
    arrays = {**at("otf_lon", np.nan, 0, 1), "freq_res": np.full((R, S), 1.5)}
    arrays["otf_lon"][0, 2] = np.nan  # an OFF subscan: nobody asks for its position
    build.write_scan(path, 1, build.lean_source(**arrays))
    warnings = open_l0(path).load(1)[0].warnings
    assert warnings == (
        "freq_res is 1.5 Hz: it looks like MHz or kHz, expected Hz.",
        "otf_lon or otf_lat is not finite in 1 ON subscans (first: subscan 1).",
    )


def test_band_is_named(path: Path) -> None:
    groups = {
        "band_1": {"source": build.lean_source()},
        "band_2": {"source": build.lean_source(**at("freq_res", 0, 0, 0))},
    }
    write_l0_scan(path, 8, attrs={"gain_image": 1}, groups=groups)
    with pytest.raises(L0Error, match="scan 8 band_2, subscan 0, receiver 0: freq_res is 0"):
        open_l0(path).load(8)


@pytest.mark.parametrize(
    ("attrs", "words"),
    [
        ({"format_version": 2}, "format_version 2, this program reads up to 1. Update gpucal"),
        ({"format": "gpucal-l1"}, "the store has format 'gpucal-l1', expected 'gpucal-l0'"),
        ({"site": {"lat_deg": 123.0}}, "root attribute site.lat_deg is 123.0"),
    ],
)
def test_unusable_roots(path: Path, attrs: dict[str, Any], words: str) -> None:
    zarr.open_group(str(path), mode="a").attrs.update(attrs)
    with pytest.raises(L0Error, match=words):
        open_l0(path)


def test_paths_that_are_no_store(tmp_path: Path) -> None:
    with pytest.raises(L0Error, match="does not exist"):
        open_l0(tmp_path / "nothing.zarr")
    with pytest.raises(L0Error, match="is not a Zarr group"):
        open_l0(tmp_path)
    file = tmp_path / "file.zarr"
    file.write_text("text")
    with pytest.raises(L0Error, match="is a file, expected an L0 store"):
        open_l0(file)
    zarr.create_group(str(tmp_path / "other.zarr"))
    with pytest.raises(L0Error, match="no attribute format"):
        open_l0(tmp_path / "other.zarr")


def test_scans_that_are_not_there(path: Path) -> None:
    build.write_scan(path, 1)
    zarr.create_group(str(path / "scan_000002"))
    store = open_l0(path)
    with pytest.raises(L0Error, match="scan 5: the scan is not in the store"):
        store.load(5)
    for call in (store.load, store.kind):
        with pytest.raises(L0Error, match="scan 2: the scan holds neither source/ nor"):
            call(2)
