"""What a SAM45 log has in store for a reader, one trap a test, on logs of a few dumps with known counts."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from builders import sam45 as build

from gpucal import (
    CalibrationConfig,
    ConfigError,
    GpucalWarning,
    ImportFormatError,
    ImportReport,
    calibrate_store,
    import_raw,
    main,
    open_l0,
    open_l1,
    save_table,
    simulate_scan,
)
from gpucal.physics.doppler import doppler_factor, radio_velocity

LOAD, SCIENCE = 1121210000, 1121210006
FIELDS = {"dant_real": [120.0, 50.0], "dobs_pos": [83.809, 0, 0, -5.3764, 0, 0]}


def brought_in(
    tmp_path: Path, log: build.Log, text: str = "", *, placed: bool = True, **options: Any
) -> ImportReport:
    """Import a log; what would be written is kept in KEPT, since storing it is tested elsewhere."""
    path = log.write(tmp_path / "a.sam45")
    profile = tmp_path / "site.toml"
    beams = sorted({a.beam for a in log.arrays})
    if placed and len(beams) > 1 and "pixel_offsets" not in text:
        text += f"\npixel_offsets = {[[0, 0] for _ in beams]}"
    profile.write_text(f"[sam45]\n{text}\n")
    KEPT.clear()
    with patch("gpucal.io.incoming.landing.write_l0_scan", keep):
        return import_raw(path, tmp_path / "l0", format="sam45", profile=profile, **options)


KEPT: dict[int, list[tuple[Any, Any]]] = {}
"""Number of a scan -> (attributes, group with its counts) of each band."""


def keep(store: Path, number: int, *, attrs: Any, groups: Any, band_attrs: Any) -> None:
    for band, members in groups.items():
        (made,) = members.values()
        data = np.stack([made.subscan(s) for s in range(made.shape[4])], axis=-1)
        found = SimpleNamespace(
            sobsmode=tuple(made.sobsmode), shape=made.shape, counts=data, **made.arrays
        )
        KEPT.setdefault(number, []).append(({**attrs, **band_attrs.get(band, {})}, found))


def printed_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What a dry run of the log in the folder prints, on one line."""
    args = [str(tmp_path / "a.sam45"), "--dry-run", "--profile", str(tmp_path / "site.toml")]
    assert main(["import", "sam45", *args]) == 0
    return " ".join(capsys.readouterr().out.split())


def group(number: int, band: int = 0) -> Any:
    return KEPT[number][band][1]


def counts(number: int, band: int = 0) -> Any:
    """[C,D,R,A,S]."""
    return KEPT[number][band][1].counts


def attrs(number: int, band: int = 0) -> Any:
    return KEPT[number][band][0]


# --- counts ---------------------------------------------------------------------------------------


def test_zero_is_subtracted_and_r_is_multiplied_by_its_attenuation(tmp_path: Path) -> None:
    arrays = build.small_arrays()
    arrays[1].attenuation = 11
    assert brought_in(tmp_path, build.small_log(arrays=arrays)).scans == (LOAD, SCIENCE)
    loads, science = counts(LOAD), counts(SCIENCE)
    assert group(LOAD).sobsmode == ("ZERO", "HOT", "SKY")
    assert group(SCIENCE).sobsmode == ("OFF", "ON", "OFF")
    for a in (0, 1):
        np.testing.assert_allclose(loads[:, 0, 0, a, 0], build.zero_level(a, build.CHANNELS))
        np.testing.assert_allclose(loads[:, 0, 0, a, 1], build.counts_of("R", a), rtol=1e-6)
        np.testing.assert_allclose(loads[:, 0, 0, a, 2], build.counts_of("SKY", a), rtol=1e-6)
        for d in (0, 1):
            np.testing.assert_allclose(science[:, d, 0, a, 1], build.counts_of("ON", a), rtol=1e-6)


def test_the_nearest_earlier_zero_of_the_same_array_is_meant(tmp_path: Path) -> None:
    log = build.small_log(())
    for n, (kind, level) in enumerate(
        [("ZERO", 0.0), ("R", 0.0), ("OFF", 0.0), ("ON", 0.0), ("ZERO", 50.0), ("R", 50.0)]
    ):
        for k in (0, 1):
            values = build.zero_level(k, build.CHANNELS) + level
            if kind != "ZERO":
                scale = 10 ** (0.6) if kind == "R" else 1.0
                values = values + build.counts_of(kind, k) / scale
            log.add(kind, k, build.SMALL_START + n * build.STEP, values, **FIELDS)
    brought_in(tmp_path, log)
    for number, s in ((LOAD, 1), (1121210008, 1)):
        np.testing.assert_allclose(
            counts(number)[:, 0, 0, 1, s], build.counts_of("R", 1), rtol=1e-6
        )


def test_an_array_without_zero_is_blank_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = build.small_log(())
    for n, kind in enumerate(build.SMALL):
        for k in (0, 1):
            if (kind, k) != ("ZERO", 1):
                values = build.counts_of("ON", k)
                log.add(kind, k, build.SMALL_START + n * build.STEP, values, **FIELDS)
    brought_in(tmp_path, log)
    science = counts(SCIENCE)
    assert np.isnan(science[:, :, :, 1]).all()
    assert np.isfinite(science[:, 0, :, 0]).all()
    assert "no ZERO of A2: blank" in printed_plan(tmp_path, capsys)


def test_counts_that_are_less_zero_already(tmp_path: Path) -> None:
    log = build.small_log(("R", "OFF", "ON", "OFF"))
    with pytest.raises(ImportFormatError, match=r"no ZERO of A1, A2, .* zero = \"none\""):
        brought_in(tmp_path, log)
    brought_in(tmp_path, log, 'zero = "none"')
    expected = build.counts_of("ON", 0) + build.zero_level(0, build.CHANNELS)
    np.testing.assert_allclose(counts(1121210002)[:, 0, 0, 0, 1], expected, rtol=1e-6)


def test_scan_types_end_at_their_first_nul(tmp_path: Path) -> None:
    kinds = ("PRE", "ZERO", "R\0RO", "SKY", "OFF", "ON\0O", "ON", "OFF")
    log = build.small_log(())
    for n, kind in enumerate(kinds):
        if kind == "PRE":
            log.add(kind, 0, build.SMALL_START, np.zeros(4), **FIELDS)
            continue
        build.add_dump(log, kind, build.SMALL_START + n * build.STEP, **FIELDS)
    assert brought_in(tmp_path, log).scans == (1121210002, 1121210008)
    assert group(1121210002).sobsmode == ("ZERO", "HOT", "SKY")
    assert group(1121210008).sobsmode == ("OFF", "ON", "OFF")


def test_invalid_records_are_blank_for_their_array_alone(tmp_path: Path) -> None:
    log = build.small_log()
    at = 2 * 4  # the first ON
    bad = bytearray(log.dats[at])
    bad[build.offset(build.DAT, "idmy_flag")] = 1
    log.dats[at] = bytes(bad)
    del log.dats[at + 3]  # and the second ON of the second array is missing
    brought_in(tmp_path, log)
    gone = np.isnan(counts(SCIENCE)[:, :, 0, :, 1]).all(axis=0)
    assert gone.tolist() == [[True, False], [False, True]]


def test_scan_types_that_are_not_known_are_left_out(tmp_path: Path) -> None:
    log = build.small_log((*build.SMALL,))
    log.add("TEST", 0, build.SMALL_START + 20 * build.STEP, np.zeros(4), **FIELDS)
    with pytest.warns(GpucalWarning) as told:
        brought_in(tmp_path, log)
    assert any("1 records of the scan types 'TEST' are left out" in str(w.message) for w in told)


# --- arrays ---------------------------------------------------------------------------------------


def test_names_of_arrays_with_and_without_a_leading_zero(tmp_path: Path) -> None:
    log = build.small_log(())
    for n, kind in enumerate(build.SMALL):
        for k in (0, 1):
            when = build.SMALL_START + n * build.STEP
            log.add(kind, k, when, build.counts_of("ON", k), **FIELDS, cary_name=f"A{k + 1:02d}")
    assert brought_in(tmp_path, log).exit_code == 0
    assert attrs(SCIENCE)["arrays"] == [["A1", "A2"]]


def test_arrays_that_are_left_out_are_said(tmp_path: Path) -> None:
    log = build.small_log(obs={"iary_usefg": [1, 0, 1]})
    with pytest.warns(GpucalWarning) as told:
        assert brought_in(tmp_path, log, "pixel_offsets = [[0, 0]]").exit_code == 0
    said = " ".join(str(w.message) for w in told)
    assert "has records of A2, which it does not mark as used: left out" in said
    assert "marks A3 as used, but has no record of it" in said
    assert attrs(SCIENCE)["arrays"] == [["A1"]]


def test_arrays_of_another_receiver_are_a_band_each(tmp_path: Path) -> None:
    arrays = [
        build.Array(110.2e9 + k * 1e9, 1e6, 8 * (k + 1), frontend="H22", polarisation="HV"[k])
        for k in (0, 1)
    ]
    log = build.small_log((), arrays=arrays)
    for n, kind in enumerate(build.SMALL):
        for k in (0, 1):
            log.add(kind, k, build.SMALL_START + n * build.STEP, np.arange(8) + 5.0 + n, **FIELDS)
    assert brought_in(tmp_path, log).exit_code == 0
    assert [group(SCIENCE, b).shape for b in (0, 1)] == [
        (8, 2, 1, 1, 3),
        (16, 2, 1, 1, 3),
    ]
    assert [attrs(SCIENCE, b)["arrays"] for b in (0, 1)] == [[["A1"]], [["A2"]]]


def test_two_windows_of_one_beam_are_two_bands(tmp_path: Path) -> None:
    """The same axis twice cannot be one pixel; a beam that a window lacks is blank there."""
    one, two = build.small_arrays()
    log = build.small_log(arrays=[one, two, replace(one)])
    brought_in(tmp_path, log)
    assert [attrs(SCIENCE, b)["arrays"] for b in (0, 1)] == [[["A1", "A2"]], [["A3", ""]]]
    assert np.isnan(counts(SCIENCE, 1)[:, :, :, 1]).all()


# --- frequencies ----------------------------------------------------------------------------------


@pytest.mark.parametrize("sideband", ["USB", "LSB"])
@pytest.mark.parametrize("width", [1e6, -1e6])
def test_the_axis_is_that_of_its_two_points(tmp_path: Path, sideband: str, width: float) -> None:
    """Counted from 1; the sign of the width is theirs and not that of the sideband."""
    arrays = [replace(a, sideband=sideband, width=width) for a in build.small_arrays()]
    log = build.small_log(arrays=arrays)
    brought_in(tmp_path, log)
    found = group(SCIENCE)
    channel = np.arange(build.CHANNELS)
    sky = found.signal_freq[0, 0] + (channel - found.ref_channel[0, 0]) * found.freq_res[0, 0]
    np.testing.assert_allclose(sky, 110.2e9 + (channel - 8) * width, rtol=0, atol=1.0)
    image = found.image_freq[0, 0] - (channel - found.ref_channel[0, 0]) * found.freq_res[0, 0]
    side = 1 if sideband == "USB" else -1
    np.testing.assert_allclose(image, 2 * (110.2e9 - side * 6e9) - sky, rtol=0, atol=1.0)


def test_channels_stored_backwards_are_turned_with_their_axis(tmp_path: Path) -> None:
    arrays = [replace(a, sideband="LSB") for a in build.small_arrays()]
    brought_in(tmp_path, build.small_log(arrays=arrays), 'flip_channels = "LSB"')
    turned = group(SCIENCE)
    channel = np.arange(build.CHANNELS)
    axis = turned.signal_freq[0, 0] + (channel - turned.ref_channel[0, 0]) * turned.freq_res[0, 0]
    np.testing.assert_allclose(axis[::-1], 110.2e9 + (channel - 8) * 1e6, rtol=0, atol=1.0)
    np.testing.assert_allclose(
        counts(SCIENCE)[::-1, 0, 0, 0, 1], build.counts_of("ON", 0), rtol=1e-6
    )


def test_channels_counted_from_zero(tmp_path: Path) -> None:
    brought_in(tmp_path, build.small_log(), "channel_base = 0")
    found = group(SCIENCE)
    at_9 = found.signal_freq[0, 0] + (9 - found.ref_channel[0, 0]) * found.freq_res[0, 0]
    assert at_9 == pytest.approx(110.2e9, abs=1.0)
    said = {entry["what"]: entry for entry in attrs(SCIENCE)["assumptions"]}
    assert (said["channel_base"]["value"], said["channel_base"]["from"]) == (0, "profile")
    assert said["velocity_sign"]["from"] == "default"


@pytest.mark.parametrize("sign", [1, -1, 0])
def test_the_rest_axis_comes_back_from_the_velocities(tmp_path: Path, sign: int) -> None:
    """Whatever the sign of dant_vel, a line of the source has the velocity of the source."""
    log = build.small_log(())
    for n, kind in enumerate(build.SMALL):
        when = build.SMALL_START + n * build.STEP
        build.add_dump(log, kind, when, **FIELDS, dant_vel=-20000.0)
    brought_in(tmp_path, log, f"velocity_sign = {sign}")
    found, told = group(SCIENCE), attrs(SCIENCE)
    sky = found.signal_freq[0, 0] + (8 - found.ref_channel[0, 0]) * found.freq_res[0, 0]
    assert sky == pytest.approx(110.2e9 * (1 + sign * 20000.0 / build.LIGHT), abs=1.0)
    lsr = sky * doppler_factor(told["velocity_frame_mps"])
    assert radio_velocity(lsr, told["rest_freq_hz"]) == pytest.approx(9000.0, abs=1e-3)
    assert told["velocity_definition"] == "RADI-LSR"


def test_a_double_sideband_receiver(tmp_path: Path) -> None:
    arrays = [replace(a, sideband="DSB") for a in build.small_arrays()]
    brought_in(tmp_path, build.small_log(arrays=arrays))
    assert attrs(SCIENCE)["gain_image"] == 1.0
    found = group(SCIENCE)
    mirror = 2 * (110.2e9 - 6e9) - found.signal_freq
    np.testing.assert_allclose(found.image_freq, mirror, rtol=0, atol=1.0)


@pytest.mark.parametrize(("value", "said"), [(0.0, True), (np.nan, True), (-3e4, False)])
def test_a_velocity_that_is_not_recorded_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], value: float, said: bool
) -> None:
    log = build.small_log(())
    for n, kind in enumerate(build.SMALL):
        when = build.SMALL_START + n * build.STEP
        build.add_dump(log, kind, when, **FIELDS, dant_vel=value)
    brought_in(tmp_path, log)
    assert ("dant_vel is not" in printed_plan(tmp_path, capsys)) == said
    assert np.isfinite(group(SCIENCE).signal_freq).all()


def test_windows_of_channels(tmp_path: Path) -> None:
    log = build.small_log(())
    for n, kind in enumerate(build.SMALL):
        when = build.SMALL_START + n * build.STEP
        build.add_dump(log, kind, when, **FIELDS, inumber_channels=4 if n == 3 else build.CHANNELS)
    with pytest.raises(ImportFormatError, match=r"1 records of array A1 .* hold 4 channels .* 16"):
        brought_in(tmp_path, log)
    assert brought_in(tmp_path, log, 'windows = "ignore"').exit_code == 0


# --- times ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["text", "seconds UTC", "days UTC", "days JST"])
def test_times_of_position_switching_are_beginnings(tmp_path: Path, how: str) -> None:
    """Whole seconds in the text; the numbers may be seconds or days, UTC or JST; the night goes past midnight UTC."""
    start = build.mjd("2025-11-22T08:59:58")
    log = build.small_log((), dump_s=3.0)
    for n, kind in enumerate(build.SMALL):
        when = start + n * 4.0 / 86400
        zone = 9 / 24 if how == "days JST" else 0.0
        begin, end = when + 0.25 / 86400 + zone, when + 3.25 / 86400 + zone
        unit = 86400.0 if how.startswith("seconds") else 1.0
        numbers = {"dint_stmjd": begin * unit, "dint_edmjd": end * unit}
        if how == "text":
            numbers = dict.fromkeys(numbers, 0.0)
        build.add_dump(log, kind, when, **FIELDS, **numbers)
    assert brought_in(tmp_path, log).scans == (1122085958, 1122090010)
    found = group(1122090010)
    late = 0.0 if how == "text" else 0.25
    middle = start + (np.array([12, 16, 20, 24]) + 1.5 + late) / 86400
    got = [found.mjd[0, 0], found.mjd[0, 1], found.mjd[1, 1], found.mjd[0, 2]]
    np.testing.assert_allclose(got, middle, rtol=0, atol=1e-3 / 86400)
    np.testing.assert_allclose(found.exptime, 3.0)


def test_times_of_otf_dumps_are_middles(tmp_path: Path) -> None:
    log = build.small_log((), otf=True, dump_s=0.5)
    first = build.SMALL_START + 0.1234 / 86400
    for n, kind in enumerate(build.SMALL):
        build.add_dump(log, kind, first + n * build.STEP, **FIELDS, iinteg_time=20)
    brought_in(tmp_path, log)
    found = group(SCIENCE)
    assert found.sobsmode == ("OTF-OFF", "OTF-ON", "OTF-OFF")
    expected = first + 4 * build.STEP
    assert found.mjd[0, 1] == pytest.approx(expected, abs=1e-3 / 86400)
    np.testing.assert_allclose(found.exptime, 0.5)


def test_rows_of_a_map_are_subscans(tmp_path: Path) -> None:
    log = build.small_log((), otf=True)
    lines = (0, 0, 0, 0, 1, 1, 2, 2, 2, 0)
    kinds = ("ZERO", "R", "SKY", "OFF", "ON", "ON", "ON", "ON", "ON", "OFF")
    for n, (kind, line) in enumerate(zip(kinds, lines, strict=True)):
        when = build.SMALL_START + n * build.STEP
        build.add_dump(log, kind, when, **FIELDS, iline_no=line)
    brought_in(tmp_path, log)
    found = counts(SCIENCE)
    assert group(SCIENCE).sobsmode == ("OTF-OFF", "OTF-ON", "OTF-ON", "OTF-OFF")
    assert np.isfinite(found[0, :, 0, 0]).sum(axis=0).tolist() == [1, 2, 3, 1]


# --- blocks of loads ------------------------------------------------------------------------------


def test_each_block_of_loads_serves_what_follows_it(tmp_path: Path) -> None:
    kinds = ("OFF", "ON", "ZERO", "R", "SKY", "OFF", "ON", "R", "SKY", "ON", "OFF", "R", "SKY")
    report = brought_in(tmp_path, build.small_log(kinds))
    names = {n: f"11212100{2 * n:02d}" for n in range(len(kinds))}
    blocks, science = [2, 7, 11], [0, 5, 9]
    assert report.scans == tuple(int(names[n]) for n in sorted([*blocks, *science]))
    for at, load, modes, borrowed in (
        (0, 2, ("OFF", "ON", "OFF"), 1),
        (5, 2, ("OFF", "ON", "OFF"), 1),
        (9, 7, ("OFF", "ON", "OFF"), 1),
    ):
        found = group(int(names[at]))
        assert found.sobsmode == modes
        assert set(found.lloadsn.tolist()) == {int(names[load])}
        assert attrs(int(names[at]))["borrowed_offs"] == borrowed
        assert (np.diff(found.mjd[0]) > 0).all()
    # the ON before the third block is between the OFF of the second scan and its own
    expected = build.SMALL_START + 5 * build.STEP
    assert group(int(names[9])).mjd[0, 0] == pytest.approx(expected, abs=1e-5)


def test_what_no_scan_can_be_made_of_is_said(tmp_path: Path) -> None:
    kinds = ("ZERO", "R", "OFF", "ON", "OFF", "SKY", "OFF", "R")
    with pytest.warns(GpucalWarning) as told:
        report = brought_in(tmp_path, build.small_log(kinds))
    said = " ".join(str(w.message) for w in told)
    assert "a SKY at 21:00:10 JST has no R beside it: left out" in said
    assert "1 OFF at 21:00:12 JST without ON" in said
    assert report.scans == (1121210000, 1121210004, 1121210014)


def test_a_log_without_r(tmp_path: Path) -> None:
    with pytest.warns(GpucalWarning) as told:
        report = brought_in(tmp_path, build.small_log(("ZERO", "OFF", "ON", "OFF")))
    assert any("holds no R" in str(w.message) for w in told)
    assert report.scans == (1121210002,)
    assert set(group(1121210002).lloadsn.tolist()) == {-1}


# --- temperatures ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("load", "weather", "text", "expected"),
    [
        (291, [6.85, 870.0, 0, 0, 0], "", 291.0),
        (17, [6.85, 870.0, 0, 0, 0], "", 280.0),
        (0, [6.85, 870.0, 0, 0, 0], "t_hot = 285.5", 285.5),
        (0, [0.0, 0.0, 0, 0, 0], "", np.nan),
        (0, [-999.0, 870.0, 0, 0, 0], "", np.nan),
        (0, [np.nan, np.nan, 0, 0, 0], "", np.nan),
    ],
)
def test_the_temperature_of_r(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    load: int,
    weather: list[float],
    text: str,
    expected: float,
) -> None:
    log = build.small_log((), arrays=build.small_arrays(load=load))
    for n, kind in enumerate(build.SMALL):
        build.add_dump(log, kind, build.SMALL_START + n * build.STEP, **FIELDS, dweather=weather)
    brought_in(tmp_path, log, text)
    found = group(LOAD)
    np.testing.assert_allclose(found.thot[0], expected, rtol=1e-6)
    if weather[1] == 870.0:
        np.testing.assert_allclose(found.pamb, 870.0 * 0.750062, rtol=1e-6)
    said = printed_plan(tmp_path, capsys)
    assert ("temperature of R is not known" in said) == (np.isnan(expected) and not text)


# --- pointing -------------------------------------------------------------------------------------


def otf_log(**changes: Any) -> build.Log:
    """ZERO, R, OFF, 6 ON, OFF, 2 s apart, without any position in it."""
    log = build.small_log((), otf=True, **changes)
    for n, kind in enumerate(("ZERO", "R", "OFF", *["ON"] * 6, "OFF")):
        build.add_dump(log, kind, build.SMALL_START + n * build.STEP, iline_no=1)
    return log


def track(n: int = 1200, ra: float = 83.809, later_h: float = 0.0) -> tuple[Any, Any]:
    """Times and angles: ra moves by 0.1 arcsec a sample of 0.02 s, el by 1e-4 deg."""
    times = build.SMALL_START + (np.arange(n) * 0.02 - 1.0) / 86400 + later_h / 24.0
    k = np.arange(n)
    columns = [
        (ra + k * 0.1 / 3600) % 360.0,
        np.full(n, -5.3764),
        np.full(n, 125.0),
        build.elevation_of(times, ra, -5.3764),
        np.full(n, 120.0),
        50.0 + k * 1e-4,
        np.full(n, 3e-4),
        np.full(n, 4e-4),
    ]
    return times, np.stack(columns, axis=1)


def on_track(found: Any, k0: float) -> None:
    """The six ON dumps lie on the track of ``track``; k0: its sample at the first of them."""
    k = k0 + 100.0 * np.arange(6)
    on = found.sobsmode.index("OTF-ON")
    lon = k * 0.1 * np.cos(np.deg2rad(-5.3764))
    np.testing.assert_allclose(found.otf_lon[:, on] * 3600, lon, rtol=0, atol=0.01)
    np.testing.assert_allclose(np.rad2deg(found.elevation[:, on]), 50 + k * 1e-4, atol=1e-5)


@pytest.mark.parametrize("zone", [0, 9])
@pytest.mark.parametrize("ra", [83.809, 359.99])
def test_positions_come_from_the_antenna_log_beside(tmp_path: Path, zone: int, ra: float) -> None:
    """In JST or in UTC, and across 360 deg of right ascension."""
    times, angles = track(ra=ra)
    build.antenna_log(tmp_path / "a.ant", times, angles, zone=timedelta(hours=zone))
    log = otf_log(position=(ra, -5.3764))
    brought_in(tmp_path, log)
    found = group(1121210004)
    on_track(found, 350.0)
    said = attrs(1121210004)
    assert said["pointing_from"] == "antenna log a.ant"
    assert said["tracking_error_arcsec"] == pytest.approx(1.8, abs=1e-3)
    assert said["source_direction"] == {"lon_deg": ra, "lat_deg": -5.3764, "frame": "icrs"}


def test_a_log_of_nine_hours_before_is_not_one_in_utc(tmp_path: Path) -> None:
    """Its elevations are not those of the source then."""
    times, angles = track(later_h=-9.0)
    angles[:, 3] = 40.0
    build.antenna_log(tmp_path / "a.ant", times, angles)
    with pytest.raises(ImportFormatError, match="no antenna log covers them"):
        brought_in(tmp_path, otf_log())


def test_an_antenna_log_whose_clock_is_wrong_is_doubted(tmp_path: Path) -> None:
    times, angles = track(later_h=-1.0)
    build.antenna_log(tmp_path / "a.ant", times + 1 / 24, angles)
    with pytest.warns(GpucalWarning, match=r"el_prog is up to 1\d.\d deg from the elevation"):
        brought_in(tmp_path, otf_log())


def test_columns_of_the_antenna_log_may_be_named(tmp_path: Path) -> None:
    times, angles = track()
    order = [7, 6, 5, 4, 3, 2, 1, 0]
    titles = "time " + " ".join(build.TITLES.split()[1:][k] for k in order)
    build.antenna_log(tmp_path / "a.ant", times, angles[:, order], titles=titles)
    brought_in(tmp_path, otf_log())
    on_track(group(1121210004), 350.0)


def test_the_clock_of_the_antenna_may_be_shifted(tmp_path: Path) -> None:
    times, angles = track()
    build.antenna_log(tmp_path / "a.ant", times - 0.3 / 86400, angles)
    brought_in(tmp_path, otf_log(), antenna_shift=0.3)
    on_track(group(1121210004), 350.0)
    report = brought_in(tmp_path, otf_log(), "antenna_shift_s = 0.3", overwrite=True)
    assert report.exit_code == 0
    on_track(group(1121210004), 350.0)


def test_dumps_that_the_antenna_log_does_not_cover_are_blank(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At its end, and in a gap of it."""
    times, angles = track(700)  # until 13 s after the beginning
    build.antenna_log(tmp_path / "a.ant", times, angles)
    brought_in(tmp_path, otf_log())
    on = np.isnan(counts(1121210004)[0, :, 0, 0, 1])
    assert on.tolist() == [False] * 4 + [True] * 2
    assert "3 dumps outside" in printed_plan(tmp_path, capsys)
    times, angles = track()
    kept = (np.arange(1200) < 320) | (np.arange(1200) > 620)
    build.antenna_log(tmp_path / "a.ant", times[kept], angles[kept])
    brought_in(tmp_path, otf_log(), overwrite=True)
    on = np.isnan(counts(1121210004)[0, :, 0, 0, 1])
    assert on.tolist() == [True] * 3 + [False] * 3


def test_an_antenna_log_that_cannot_be_read_is_not_passed_over(tmp_path: Path) -> None:
    times, angles = track()
    path = build.antenna_log(tmp_path / "a.ant", times, angles)
    path.write_text(path.read_text().replace(" 125.0", " 125,0", 1))
    with pytest.raises(ImportFormatError, match=r"line 2 of the antenna log .*a.ant is"):
        brought_in(tmp_path, otf_log(), antenna_log=[path])
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[2], lines[2], *lines[3:]]))
    with (
        pytest.warns(GpucalWarning, match="the times of the antenna log .* do not increase"),
        pytest.raises(ImportFormatError, match="elevation is not recorded"),
    ):
        brought_in(tmp_path, otf_log())


def test_without_antenna_log_the_elevation_is_given(tmp_path: Path) -> None:
    log = otf_log()
    with pytest.raises(ImportFormatError, match=r"the elevation is not recorded in 8 of 8 dumps"):
        brought_in(tmp_path, log)
    brought_in(tmp_path, log, elevation=47.5)
    found = group(1121210004)
    np.testing.assert_allclose(np.rad2deg(found.elevation), 47.5, rtol=1e-6)
    assert np.isnan(found.otf_lon).all()
    assert np.isfinite(counts(1121210004)[0, :, 0, 0, 1]).all()
    args = [str(tmp_path / "a.sam45"), "--dry-run", "--profile", str(tmp_path / "site.toml")]
    assert main(["import", "sam45", *args, "--elevation", "47.5", "--antenna-shift", "1"]) == 0
    assert main(["import", "sam45", *args, "--elevation", "95"]) == 64
    with pytest.raises(ConfigError, match="elevation is 95"):
        brought_in(tmp_path, log, elevation=95.0)
    with pytest.raises(ConfigError, match="exclude each other"):
        brought_in(tmp_path, log, elevation=5.0, antenna_log=["a.ant"])


def test_positions_of_position_switching_are_in_the_records(tmp_path: Path) -> None:
    log = build.small_log(())
    for n, kind in enumerate(build.SMALL):
        place = [83.909, 0, 0, -5.2764, 0, 0] if kind == "OFF" else FIELDS["dobs_pos"]
        build.add_dump(
            log, kind, build.SMALL_START + n * build.STEP, dant_real=[300.0, 41.0], dobs_pos=place
        )
    brought_in(tmp_path, log, "pixel_offsets = [[0, 0], [50, -10]]")
    found = group(SCIENCE)
    np.testing.assert_allclose(found.otf_lon[:, 1], 0.0, atol=1e-12)
    np.testing.assert_allclose(found.otf_lat[0, 0], 0.1, atol=1e-9)
    np.testing.assert_allclose(found.otf_lon[0, 0], 0.1 * np.cos(np.deg2rad(5.3764)), atol=1e-9)
    np.testing.assert_allclose(np.rad2deg(found.azimuth), 300.0, rtol=1e-6)
    np.testing.assert_allclose(found.pixel_offset_lon[0, :, 0] * 3600, [0, 50])
    np.testing.assert_allclose(found.pixel_offset_lat[0, :, 0] * 3600, [0, -10])


def test_offsets_that_nobody_gave_are_said(tmp_path: Path) -> None:
    with pytest.warns(GpucalWarning, match="the offsets of its 2 beams are not in the log"):
        brought_in(tmp_path, build.small_log(), placed=False)
    assert not group(SCIENCE).pixel_offset_lon.any()


def test_offsets_of_too_few_beams(tmp_path: Path) -> None:
    with pytest.raises(ImportFormatError, match=r"pixel_offsets of 1 pixels, .* has 2 beams"):
        brought_in(tmp_path, build.small_log(), "pixel_offsets = [[0, 0]]")


# --- other ways to observe ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tp", "fsw"])
def test_position_and_frequency_switching_come_back(tmp_path: Path, kind: Any) -> None:
    """T_A* of the truth; for frequency switching the difference of the phases before folding."""
    setup = build.forest_setup(pixels=1, kinds=(kind,))
    setup = replace(setup, bands=setup.bands[:1])
    start = build.mjd("2025-11-21T21:30:45")
    loads = simulate_scan(setup, "load", start=start, mjd0=start)
    made = simulate_scan(setup, kind, start=start + 20 / 86400, lloadsn=1, mjd0=start)
    band = setup.bands[0]
    arrays = build.forest_arrays(setup)
    rest = 1.0 - build.VEL / build.LIGHT
    if kind == "fsw":
        # the log gives the axis of ON, and the throw from there to OFF
        up = 0.5 * band.throw_hz
        arrays = [replace(a, centre=a.centre + up / rest, throw=-2 * up) for a in arrays]
    log = build.Log(arrays, otf=False, dump_s=1.0, obs={"isw_mod": 5} if kind == "fsw" else {})
    build.add_zero(log, start - 5 / 86400, dant_real=[0.0, 50.0])
    build.add_scan(log, loads, setup)
    build.add_scan(log, made, setup)
    el = float(np.rad2deg(made.scans[0].source.elevation[0, 0]))  # type: ignore[union-attr]
    path = log.write(tmp_path / "a.sam45")
    # texts of whole seconds: the numbers carry the fraction
    report = import_raw(path, tmp_path / "l0", format="sam45", elevation=el)
    assert report.exit_code == 0
    science = report.scans[-1]
    scan = open_l0(tmp_path / "l0").load(science)[0]
    assert scan.source is not None
    assert made.scans[0].source is not None
    assert scan.source.sobsmode == made.scans[0].source.sobsmode
    np.testing.assert_allclose(scan.source.mjd, made.scans[0].source.mjd, rtol=0, atol=1e-3 / 86400)
    save_table(tmp_path / "table.npz", made.table)
    options: dict[str, Any] = {"cal_scheme": "vane-channel", "vane_sky": "sky", "fold": False}
    config = CalibrationConfig(
        atmosphere=str(tmp_path / "table.npz"), pwv=float(made.truth.pwv_mm), **options
    )
    assert calibrate_store(tmp_path / "l0", tmp_path / "l1", config).exit_code == 0
    spectra = np.asarray(open_l1(tmp_path / "l1").scan(science)["spectra"][...])
    for k, subscan in enumerate(made.truth.on_index.tolist()):
        expected = made.truth.t_a_star(subscan)
        scale = made.truth.t_sys(subscan).max()
        # the opacity differs between the phases in the simulation, and is taken at the signal here
        limit = 6e-3 * np.abs(expected) + (3e-3 if kind == "fsw" else 0) + 2e-6 * scale
        assert (np.abs(spectra[..., k] - expected) < limit).all()


def test_the_phases_of_frequency_switching(tmp_path: Path) -> None:
    arrays = [replace(a, throw=-4e6) for a in build.small_arrays()]
    kinds = ("ZERO", "R", "SKY", "ON", "OFF", "ON", "OFF")
    for sign in (1, -1):
        log = build.small_log(kinds, arrays=arrays, obs={"isw_mod": 6})
        brought_in(tmp_path, log, f"switch_sign = {sign}", overwrite=True)
        found = group(SCIENCE)
        assert found.sobsmode == ("FSW-SIG", "FSW-REF", "FSW-SIG", "FSW-REF")
        assert found.freq_throw[0].tolist() == [0.0, -4e6 * sign, 0.0, -4e6 * sign]


# --- memory ---------------------------------------------------------------------------------------

MEASURE = """
import resource, sys
from gpucal import import_raw
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
import_raw(sys.argv[1], sys.argv[3] + "/small", format="sam45")
before = peak()
import_raw(sys.argv[2], sys.argv[3] + "/large", format="sam45")
print(before, peak())
"""


def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    """A log of 68 MB takes less than 40 MiB more than a small one, read pages included."""
    arrays = [build.Array(110.2e9, 1e6, 4096, frontend="H22")]
    small = build.small_log(arrays=[build.Array(110.2e9, 1e6, build.CHANNELS, frontend="H22")])
    kinds = ("ZERO", "R", *(["OFF", *["ON"] * 30] * 129), "OFF")
    head = build.Log(arrays, otf=False).head()
    large = tmp_path / "large.sam45"
    one = build.small_log((), arrays=arrays)
    one.add("ON", 0, build.SMALL_START, np.zeros(4), **FIELDS, dint_stmjd=0.0, dint_edmjd=0.0)
    record, places = bytearray(one.dats[0][:680]), {}
    for name, width in (("cscan_type", 6), ("cint_sttm", 32), ("cint_edtm", 16)):
        at = build.offset(build.DAT, name)
        places[name] = slice(at, at + width), width
    with open(large, "wb") as stream:
        stream.write(head)
        for n, kind in enumerate(kinds):
            times = [build.time_text(build.SMALL_START + k / 86400, 0) for k in (2 * n, 2 * n + 1)]
            for (where, width), text in zip(places.values(), (kind, *times), strict=True):
                record[where] = text.encode().ljust(width, b"\0")
            stream.seek(len(head) + n * 17064)
            stream.write(record)  # the spectra are holes in the file
        stream.seek(len(head) + len(kinds) * 17064)
        stream.write(build.record(build.END, b"ED", {}))
    assert large.stat().st_size > 64 << 20
    args = [str(small.write(tmp_path / "small.sam45")), str(large), str(tmp_path)]
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, *args], capture_output=True, text=True, check=True
    )
    before, after = map(int, run.stdout.split())
    assert after - before < 40, f"{before} MiB before, {after} MiB after"
