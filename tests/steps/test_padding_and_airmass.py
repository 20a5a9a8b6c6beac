"""Times and elevations of the dumps that were recorded: padding has none; each side of a difference its own airmass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import sky
from oracle.scene import F_EFF, T_AMB, T_ATM, T_COLD, T_HOT, Scene

from gpucal import (
    CalibrationConfig,
    GroupArrays,
    L0Error,
    Scan,
    SubscanGroup,
    calibrate_scan,
    create_l0,
    open_l0,
)
from gpucal import write_l0_scan as write_scan

from .test_against_oracle import as_group

TAU = 0.35


def scan_of(scene: Scene, elevation: Any, **changes: Any) -> Scan:
    """The scene as a scan with loads; ``elevation`` [S] or [D, S] of its source, rad."""
    source = as_group(scene.group(scene.modes, 100.0, elevation))
    cal = as_group(scene.cal())
    attrs = {"f_eff": F_EFF, "gain_image": scene.gain_image}
    return Scan(7, "", attrs, {}, replace(source, **changes), cal)


def flat(scene: Scene, tau: float = TAU) -> Scene:
    """The scene below a sky of one opacity."""
    scene.opacity = np.zeros((3, 2, 1, scene.shape[0], 1))
    scene.opacity[2] = tau
    return scene


def stored(path: Path, source: dict[str, Any], cal: dict[str, Any]) -> Scan:
    """Groups of the oracle, written to an L0 store and read back."""
    names = ("mjd", "exptime", "elevation", "signal_freq", "image_freq", "freq_res", "ref_channel")

    def arrays(raw: dict[str, Any], **more: Any) -> GroupArrays:
        s = len(raw["sobsmode"])
        small = {
            name: np.repeat(raw[name][:, None], s, axis=1) if raw[name].ndim == 1 else raw[name]
            for name in names
        }
        small["azimuth"] = small["elevation"]
        small |= {"tamb": np.full(s, T_AMB), "pamb": np.full(s, 430.0)} | more
        return GroupArrays(raw["counts"], raw["sobsmode"], small)

    groups = {
        "source": arrays(source),
        "calibration": arrays(cal, thot=np.full((1, 2), T_HOT), tcold=np.full((1, 2), T_COLD)),
    }
    attrs = {"f_eff": F_EFF, "gain_image": 0.8, "ref_channel_base": 0}
    site = {"lat_deg": -23.0, "lon_deg": -67.0, "alt_m": 5000.0}
    create_l0(path, telescope="made up", site=site, instrument="made up")
    write_scan(path, 7, attrs=attrs, groups={"": groups})
    return open_l0(path).load(7)[0]


def padded(raw: dict[str, Any], subscan: int, keep: int) -> None:
    """Leave ``keep`` dumps of a subscan; the others become padding, as the layout asks."""
    raw["counts"] = np.array(raw["counts"])
    raw["counts"][:, keep:, :, :, subscan] = np.nan
    for name in ("mjd", "exptime", "elevation"):
        raw[name][keep:, subscan] = np.nan


def test_a_short_off_is_interpolated_at_its_own_middle(tmp_path: Path) -> None:
    """Counts that grow linearly with time: ON - OFF is 0 in every dump, however short the OFFs are."""
    scene = Scene(["OFF", "ON", "OFF"], line=0.0, shape=(32, 8, 1, 2))
    source, cal = scene.source(), scene.cal()
    seconds = (source["mjd"] - source["mjd"][0, 0]) * 86400.0
    source["counts"] = source["counts"] * (1.0 + 2e-3 * seconds)[None, :, None, None, :]
    padded(source, 0, 2)
    padded(source, 2, 3)
    scan = stored(tmp_path / "night.zarr", source, cal)
    config = CalibrationConfig(
        atmosphere="none", tau=TAU, t_atm=T_ATM, reference="per-dump", gain_interpolate=0
    )
    result = calibrate_scan(scan, config)
    assert np.nanmax(np.abs(result.spectra)) < 1e-6
    assert np.isfinite(result.spectra).all()


def test_mid_times_elevations_and_times_leave_out_padding(tmp_path: Path) -> None:
    scene = Scene(["OFF", "ON"], shape=(32, 6, 1, 1))
    scene.dump = 2.0
    climb = 0.9 + 0.02 * np.arange(6)[:, None] * np.ones(2)
    source, cal = scene.group(scene.modes, 100.0, climb), scene.cal()
    padded(source, 0, 3)
    padded(cal, 1, 2)
    scan = stored(tmp_path / "night.zarr", source, cal)
    group, loads = scan.source, scan.calibration
    assert group is not None
    assert loads is not None
    assert group.mjd_mid[0] == pytest.approx(source["mjd"][1, 0], abs=1e-10)
    assert group.mean_elevation(0) == pytest.approx(0.92)
    assert group.mean_elevation(1) == pytest.approx(0.95)
    from gpucal.steps.means import mean_time

    assert mean_time(loads, [1]) == pytest.approx((float(np.mean(cal["mjd"][:2, 1])), 4.0))
    assert mean_time(loads, [0])[1] == pytest.approx(12.0)


def test_gain_lines_go_through_the_recorded_loads(tmp_path: Path) -> None:
    """A COLD cut short between two load scans of a drifting gain: no step in T_A*."""
    scene = flat(Scene(["OFF", "ON"], drift=4e-4, shape=(32, 10, 1, 1)))
    source = scene.source()
    scans = []
    for i, start in enumerate((0.0, 300.0)):
        cal = scene.cal(start)
        padded(cal, 1, 2)
        padded(cal, 0, 3)
        scans.append(stored(tmp_path / f"{i}.zarr", source, cal))
    config = CalibrationConfig(atmosphere="none", tau=TAU, t_atm=T_ATM, gain_interpolate=3)
    result = calibrate_scan(scans[0], config, later_load=scans[1])
    line = np.array([scene.line if scene.is_line(c) else 0.0 for c in range(32)])
    assert np.abs(result.spectra[..., 0] - line[:, None, None, None]).max() < 1e-6


def line_of(scene: Scene, scan: Scan, config: CalibrationConfig) -> tuple[float, float]:
    """Median T_A* of the channels with and without the line, pixel 0."""
    spectra = np.asarray(calibrate_scan(scan, config).spectra)[:, :, 0, 0, 0]
    lines = np.array([scene.is_line(c) for c in range(scene.shape[0])])
    return float(np.median(spectra[lines])), float(np.median(spectra[~lines]))


@pytest.mark.parametrize(("on", "off"), [(0.9, 0.9), (0.85, 0.9), (1.1, 0.8)])
def test_vane_by_channel_with_on_and_off_at_other_elevations(on: float, off: float) -> None:
    """The line comes back exactly; the baseline is the true difference of the two skies."""
    scene = flat(Scene(["OFF", "ON"], gain_image=0.4, shape=(64, 3, 1, 1)))
    scan = scan_of(scene, np.array([off, on]))
    config = CalibrationConfig(
        atmosphere="none", tau=TAU, t_atm=T_ATM, cal_scheme="vane-channel", t_hot=T_HOT
    )
    line, base = line_of(scene, scan, config)
    assert line - base == pytest.approx(scene.line, rel=1e-4)
    channel, masses = scene.channel(5, 0, 0), [sky.airmass(x) for x in (on, off)]
    seen = [sky.sky_temperature(channel, 0.0, mass) for mass in masses]
    gain = channel["gain"][0] * F_EFF * sky.transmission(channel["bqc"][0], 0.0, masses[0])
    assert base == pytest.approx((seen[0] - seen[1]) / gain, rel=2e-3, abs=1e-9)


def rayleigh_jeans(elevations: dict[str, float], tau: float, line: float) -> dict[str, Any]:
    """Mean counts of vane, SKY, OFF and ON by hand: T = T_rec + T_sky(A), f_eff 1, one sideband."""

    def seen(elevation: float) -> float:
        t = np.exp(-tau / np.sin(elevation))
        return float(T_ATM * (1.0 - t) + 2.725 * t)

    source = line * float(np.exp(-tau / np.sin(elevations["ON"])))
    t_rec, gain = 80.0, 1e3
    return {
        "HOT": gain * (t_rec + 290.0),
        **{k: gain * (t_rec + seen(v)) for k, v in elevations.items() if k != "ON"},
        "ON": gain * (t_rec + seen(elevations["ON"]) + source),
    }


@pytest.mark.parametrize("sky_at", [46.0, 63.0, 30.0])
@pytest.mark.parametrize("vane_sky", ["off", "sky"])
def test_vane_with_a_sky_at_another_elevation(sky_at: float, vane_sky: str) -> None:
    """Ulich & Haas by hand: the line is 10 K, wherever the SKY of the load scan was taken."""
    elevations = {k: np.deg2rad(v) for k, v in (("SKY", sky_at), ("OFF", 63.0), ("ON", 63.0))}
    tau, line, n = 0.8, 10.0, 32
    level = rayleigh_jeans(elevations, tau, line)
    scene = flat(Scene(["OFF", "ON"], gain_image=0.0, shape=(n, 2, 1, 1)))

    def group(modes: list[str], start: float) -> SubscanGroup:
        raw = scene.group(
            ["HOT" if m == "HOT" else "COLD" if m == "SKY" else m for m in modes],
            start,
            np.array([elevations.get(m, 1.0) for m in modes]),
        )
        raw["counts"] = np.broadcast_to(
            np.array([level[m] for m in modes]), raw["counts"].shape
        ).copy()
        raw["sobsmode"] = modes
        return as_group(raw)

    scan = Scan(
        3,
        "",
        {"f_eff": 1.0, "gain_image": 0.0},
        {},
        group(["OFF", "ON"], 100.0),
        group(["HOT", "SKY"], 0.0),
    )
    config = CalibrationConfig(
        atmosphere="none", tau=tau, t_atm=T_ATM, t_hot=290.0, vane_sky=vane_sky
    )
    assert np.asarray(calibrate_scan(scan, config).spectra) == pytest.approx(line, rel=1e-9)
    as_dysh = config.model_copy(update={"vane_airmass": "sky", "vane_sky": "sky"})
    peer = float(np.median(calibrate_scan(scan, as_dysh).spectra))
    assert (peer == pytest.approx(line, rel=1e-9)) is (sky_at == 63.0)


def test_vane_with_on_and_off_at_other_elevations_keeps_the_line() -> None:
    """ON at 60, OFF at 55 deg: a line of 10 K stays 10 K above the difference of the skies."""
    tau = 0.5
    elevations = {k: np.deg2rad(v) for k, v in (("OFF", 55.0), ("ON", 60.0))}
    spectra = {}
    for line in (0.0, 10.0):
        level = rayleigh_jeans(elevations, tau, line)
        scene = Scene(["OFF", "ON"], gain_image=0.0, shape=(32, 2, 1, 1))
        raw = scene.group(["OFF", "ON"], 100.0, np.array([*elevations.values()]))
        raw["counts"] = np.broadcast_to(
            np.array([level["OFF"], level["ON"]]), raw["counts"].shape
        ).copy()
        hot = scene.group(["HOT"], 0.0)
        hot["counts"] = np.full(hot["counts"].shape, level["HOT"])
        scan = Scan(3, "", {"f_eff": 1.0, "gain_image": 0.0}, {}, as_group(raw), as_group(hot))
        config = CalibrationConfig(atmosphere="none", tau=tau, t_atm=T_ATM, t_hot=290.0)
        spectra[line] = float(np.median(calibrate_scan(scan, config).spectra))
    assert spectra[10.0] - spectra[0.0] == pytest.approx(10.0, rel=1e-9)


def test_the_second_nod_beam_has_the_airmass_of_its_own_position() -> None:
    """Positions at 1.0 and 0.7 rad: each beam's line is right, and the sky difference has the right sign."""
    scene = flat(Scene(["NOD-1", "NOD-2"], gain_image=0.3, shape=(64, 3, 1, 2)))
    elevations = np.array([1.0, 0.7])
    source = scene.group(scene.modes, 100.0, elevations)
    # pixel 1 has the line in position 2 instead of position 1
    swapped = scene.group(["NOD-2", "NOD-1"], 100.0, elevations)
    source["counts"][..., 1, :] = swapped["counts"][..., 1, :]
    attrs = {"f_eff": F_EFF, "gain_image": 0.3, "nod_beams": [[0, 0], [0, 1]]}
    scan = Scan(7, "", attrs, {}, as_group(source), as_group(scene.cal()))
    config = CalibrationConfig(atmosphere="none", tau=TAU, t_atm=T_ATM)
    spectra = np.asarray(calibrate_scan(scan, config).spectra)[:, 0, 0, :, 0]
    lines = np.array([scene.is_line(c) for c in range(64)])
    found = np.median(spectra[lines], axis=0) - np.median(spectra[~lines], axis=0)
    assert found == pytest.approx([scene.line] * 2, rel=1e-4)


def test_the_water_of_a_nod_is_that_of_both_positions() -> None:
    """The fit knows at which elevation each pixel saw the sky: the true PWV at 0.6 and 1.2 rad."""
    from .test_against_oracle import make_table, opacity_of

    scene = Scene(["NOD-1", "NOD-2"], shape=(64, 3, 1, 2), line=0.0, pwv=0.9)
    table = make_table(5e6)
    scene.opacity = opacity_of(table, scene)
    source = scene.group(scene.modes, 100.0, np.array([0.6, 1.2]))
    attrs = {"f_eff": F_EFF, "gain_image": 0.8, "nod_beams": [[0, 0], [0, 1]]}
    scan = Scan(7, "", attrs, {}, as_group(source), as_group(scene.cal()))
    result = calibrate_scan(scan, CalibrationConfig(t_atm=T_ATM), table=table)
    assert result.quality["pwv"] == pytest.approx(0.9, rel=1e-6)


def test_coupled_beams_both_show_their_sky_to_the_fit() -> None:
    """OFFs of beam B that saw twice the water move the PWV of a coupled scan."""
    from .test_against_oracle import make_table, opacity_of

    modes = ["OTFSWA-ON", "OTFSWA-OFF", "OTFSWB-ON", "OTFSWB-OFF"]
    table = make_table(5e6)
    both = []
    for pwv in (0.7, 1.4):
        scene = Scene(modes, shape=(64, 3, 1, 1), line=0.0, pwv=pwv)
        scene.opacity = opacity_of(table, scene)
        both.append(scene.source())
    mixed = both[0]
    mixed["counts"][..., 3] = both[1]["counts"][..., 3]
    attrs = {"f_eff": F_EFF, "gain_image": 0.8}
    scan = Scan(7, "", attrs, {}, as_group(mixed), as_group(scene.cal()))
    coupled = CalibrationConfig(t_atm=T_ATM, dbs_coupling=True)
    found = [
        calibrate_scan(scan, config, table=table).quality["pwv"]
        for config in (coupled, CalibrationConfig(t_atm=T_ATM))
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-9)
    assert 0.8 < found[0] < 1.3


def test_an_axis_that_moves_within_a_scan_is_not_taken_from_its_first_subscan() -> None:
    scene = flat(Scene(["OFF", "ON", "ON"], shape=(64, 3, 1, 1)))
    scan = scan_of(scene, 0.9)
    assert scan.source is not None
    config = CalibrationConfig(atmosphere="none", tau=TAU, t_atm=T_ATM)
    for channels, refused in ((3.0, True), (0.2, False), (0.0, False)):
        freq = np.array(scan.source.signal_freq)
        freq[:, 2] += channels * scan.source.freq_res[:, 2]
        moved = replace(scan, source=replace(scan.source, signal_freq=freq))
        if refused:
            with pytest.raises(L0Error, match=r"moves by 3 channels.*subscan 1.*subscan 2"):
                calibrate_scan(moved, config)
            continue
        said = " ".join(calibrate_scan(moved, config).solution.warnings)
        assert ("moves by 0.2 channels" in said) is (channels > 0)
