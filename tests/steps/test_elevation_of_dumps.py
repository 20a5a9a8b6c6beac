"""Rows that run in elevation: each dump has its own airmass, and the sky of its OFF is moved where that is asked for.

The counts come from the oracle's scene, dump by dump in plain loops: nothing of the package made them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle.scene import F_EFF, RESOLUTION, T_AMB, T_ATM, T_HOT, Scene

from gpucal import CalibrationConfig, Scan, SubscanGroup, calibrate_scan
from gpucal.scan import ArrayCounts

from .test_against_oracle import as_group, emission_of, make_table, opacity_of
from .test_padding_and_airmass import stored

TAU, DUMPS, CHANNELS = 0.35, 5, 32
FLAT = CalibrationConfig(atmosphere="none", tau=TAU, t_atm=T_ATM)
CLIMB = np.deg2rad(30.0 + np.linspace(-1.0, 1.0, DUMPS))
"""One degree either way at 30 degrees: 2 % of T_A* from end to end."""


def flat_scene(modes: list[str], pixels: int = 1, **more: Any) -> Scene:
    scene = Scene(modes, shape=(CHANNELS, DUMPS, 1, pixels), **more)
    scene.opacity = np.zeros((3, 2, 1, CHANNELS, 1))
    scene.opacity[2] = TAU
    return scene


def scan_of(scene: Scene, source: SubscanGroup, gain_image: float | None = None) -> Scan:
    gain = scene.gain_image if gain_image is None else gain_image
    return Scan(7, "", {"f_eff": F_EFF, "gain_image": gain}, {}, source, as_group(scene.cal()))


def rows(scene: Scene, elevation: Any) -> SubscanGroup:
    return as_group(scene.group(scene.modes, 100.0, elevation))


def line_and_base(result: Any, scene: Scene, output: int = 0) -> tuple[Any, Any]:
    """T_A* of each dump [D,A] in the line less that beside it, and that beside it."""
    spectra = np.asarray(result.spectra, dtype=np.float64)[:, :, 0, :, output]
    line = np.array([scene.is_line(c) for c in range(CHANNELS)])
    base = np.median(spectra[~line], axis=0)
    return np.median(spectra[line], axis=0) - base, base


def climbing(n_subscans: int, *ons: int) -> Any:
    """Elevations [D,S]: OFFs stand still at 30 and 30.4 degrees, ONs climb."""
    still = np.deg2rad(30.0 + 0.4 * np.arange(n_subscans) / max(1, n_subscans - 1))
    elevation = np.tile(still, (DUMPS, 1))
    elevation[:, list(ons)] = CLIMB[:, None]
    return elevation


@pytest.mark.parametrize("dtype", ["f64", "f32"])
@pytest.mark.parametrize("reference", ["linear", "per-dump", "nearest"])
def test_a_row_in_elevation_has_one_scale(reference: str, dtype: str) -> None:
    scene = flat_scene(["OFF", "ON", "OFF"], pixels=2)
    scan = scan_of(scene, rows(scene, climbing(3, 1)))
    options = {"reference": reference, "dtype": dtype}
    near = 1e-3 if dtype == "f32" else 1e-5
    line, base = line_and_base(calibrate_scan(scan, FLAT.model_copy(update=options)), scene)
    assert line == pytest.approx(scene.line, abs=near)
    assert np.ptp(base) > 15.0  # the sky of the ON is not that of the OFF
    flattened = FLAT.model_copy(update={**options, "scale_off_airmass": True})
    line, base = line_and_base(calibrate_scan(scan, flattened), scene)
    assert line == pytest.approx(scene.line, abs=near)
    assert np.abs(base).max() < near
    coarse = FLAT.model_copy(update={**options, "airmass_per": "subscan"})
    line, _ = line_and_base(calibrate_scan(scan, coarse), scene)
    assert np.ptp(line) == pytest.approx(0.0423 * scene.line, rel=0.02)


@pytest.mark.parametrize("layered", [False, True])
def test_wide_channels_and_a_layered_sky(layered: bool) -> None:
    """A table with several points in a channel, and its emission: nothing is left of the sky."""
    scene = flat_scene(["OTF-OFF", "OTF-ON", "OTF-OFF"])
    table = make_table(RESOLUTION / 4.0, layered=layered)
    scene.opacity = opacity_of(table, scene)
    assert scene.opacity.shape[2] > 1
    scene.emission = emission_of(table, scene) if layered else None
    scan = scan_of(scene, rows(scene, climbing(3, 1)))
    air = {} if layered else {"t_atm": T_ATM}
    config = CalibrationConfig(scale_off_airmass=True, **air)
    result = calibrate_scan(scan, config, table=table)
    assert result.solution.atmosphere.pwv == pytest.approx(scene.pwv, abs=1e-6)
    line = np.array([scene.is_line(c) for c in range(CHANNELS)])[:, None]
    truth = np.where(line, scene.line, 0.0)
    assert np.abs(np.asarray(result.spectra)[:, :, 0, 0, 0] - truth).max() < 1e-5
    assert T_AMB > T_ATM


def test_dump_by_dump_references_have_their_own_airmass() -> None:
    """A chopped row: both beams climb, the second two degrees higher."""
    modes = ["OTFSWA-ON", "OTFSWA-OFF", "OTFSWB-ON", "OTFSWB-OFF"]
    scene = flat_scene(modes)
    elevation = np.stack([CLIMB, CLIMB + 0.01, CLIMB + 0.03, CLIMB + 0.02], axis=1)
    scan = scan_of(scene, rows(scene, elevation))
    for update in ({}, {"dbs_coupling": True}):
        config = FLAT.model_copy(update={"scale_off_airmass": True, **update})
        result = calibrate_scan(scan, config)
        for output in range(np.shape(result.spectra)[-1]):
            line, base = line_and_base(result, scene, output)
            assert line == pytest.approx(scene.line, abs=1e-5)
            assert np.abs(base).max() < 1e-6


def test_both_positions_of_a_nod_climb() -> None:
    scene = flat_scene(["NOD-1", "NOD-2"], pixels=2)
    elevation = np.stack([CLIMB, CLIMB + 0.02], axis=1)
    raw = scene.group(scene.modes, 100.0, elevation)
    off = scene.group(["OFF", "NOD-1"], 100.0, elevation)["counts"]
    raw["counts"][..., 1, :] = off[..., 1, :]  # pixel 1 sees the source in the second position
    attrs = {"f_eff": F_EFF, "gain_image": 0.8, "nod_beams": [[0, 0], [0, 1]]}
    scan = replace(scan_of(scene, as_group(raw)), attrs=attrs)
    line, base = line_and_base(
        calibrate_scan(scan, FLAT.model_copy(update={"scale_off_airmass": True})), scene
    )
    assert line == pytest.approx(scene.line, abs=1e-5)
    assert np.abs(base).max() < 1e-6


def test_cycles_of_a_wobbler_and_phases_of_a_switched_frequency() -> None:
    scene = flat_scene(["WSW-ON", "WSW-OFF"])
    elevation = np.stack([CLIMB, CLIMB], axis=1)
    raw = scene.group(["WSW-ON"], 100.0, elevation[:, :1])
    raw["counts"][:, 1::2] = scene.group(["OFF"], 100.0, elevation[:, :1])["counts"][:, 1::2]
    chop = (np.arange(DUMPS) % 2).astype(np.uint8)[:, None]
    scan = scan_of(scene, replace(as_group(raw), chop_phase=chop))
    flattened = FLAT.model_copy(update={"scale_off_airmass": True})
    line, base = line_and_base(calibrate_scan(scan, flattened), scene)
    whole = slice(0, DUMPS // 2)
    assert line[whole] == pytest.approx(scene.line, abs=1e-5)
    assert np.abs(base[whole]).max() < 1e-6
    assert np.isnan(line[DUMPS // 2 :]).all()

    scene = flat_scene(["FSW-SIG", "FSW-REF"])
    source = rows(scene, np.stack([CLIMB, CLIMB + 0.01], axis=1))
    throw = np.array([[6.0, -6.0]]) * RESOLUTION
    scan = scan_of(scene, replace(source, freq_throw=throw))
    for fold in (True, False):
        config = flattened.model_copy(update={"fold": fold})
        spectra = np.asarray(calibrate_scan(scan, config).spectra)[:, :, 0, 0, 0]
        flat = np.abs(spectra[np.isfinite(spectra).all(axis=1)])
        assert flat.min() < 1e-6
        assert np.sort(flat, axis=0)[len(flat) // 3].max() < 1e-6
        # folded: half of the line of the scene stays at each of the two shifts
        expected = 0.5 * scene.line if fold else scene.line
        assert np.nanmax(spectra, axis=0) == pytest.approx(expected, rel=0.02)
        assert np.ptp(np.nanmax(spectra, axis=0)) < (5e-3 if fold else 1e-5)


@pytest.mark.parametrize("scheme", ["vane-channel", "vane"])
def test_a_vane_has_the_airmass_of_each_dump_too(scheme: str) -> None:
    """Counts by hand: one sideband, f_eff 1, Rayleigh-Jeans temperatures for "vane"."""
    scene = flat_scene(["OFF", "ON"], gain_image=0.0)
    source = rows(scene, np.stack([np.full(DUMPS, CLIMB[1]), CLIMB], axis=1))
    attrs = {"f_eff": F_EFF, "gain_image": 0.0}
    config = FLAT.model_copy(
        update={"cal_scheme": scheme, "t_hot": T_HOT, "scale_off_airmass": True}
    )
    if scheme == "vane":
        t = np.exp(-TAU / np.sin(np.stack([np.full(DUMPS, CLIMB[1]), CLIMB], axis=1)))
        seen = T_ATM * (1.0 - t) + 2.725 * t
        line = np.array([scene.is_line(c) for c in range(CHANNELS)]) * scene.line
        counts = np.broadcast_to(120.0 + seen, (CHANNELS, 1, 1, DUMPS, 2)).copy()
        counts[..., 1] += line[:, None, None, None] * t[:, 1]
        data = np.moveaxis(counts, 3, 1) * 1e3
        source = replace(source, counts=ArrayCounts(np.ascontiguousarray(data)))
        attrs = {"f_eff": 1.0, "gain_image": 0.0}
    loads = as_group(scene.cal())
    if scheme == "vane":
        hot = np.full((CHANNELS, DUMPS, 1, 1, 2), (120.0 + T_HOT) * 1e3)
        loads = replace(loads, counts=ArrayCounts(hot))
    scan = Scan(7, "", attrs, {}, source, loads)
    line, base = line_and_base(calibrate_scan(scan, config), scene)
    assert line == pytest.approx(scene.line, abs=1e-5)
    assert np.abs(base).max() < 1e-5
    far, _ = line_and_base(
        calibrate_scan(scan, config.model_copy(update={"airmass_per": "subscan"})), scene
    )
    assert np.ptp(far) > 0.04 * scene.line


def test_a_slow_drift_changes_nothing() -> None:
    """What moves T_A* by less than 0.1 % leaves every bit as it was."""
    scene = flat_scene(["OFF", "ON", "OFF"])
    elevation = np.deg2rad(45.0) + np.zeros((DUMPS, 3))
    elevation[:, 1] += 1e-4 * np.arange(DUMPS)
    scan = scan_of(scene, rows(scene, elevation))
    spectra = [
        np.asarray(calibrate_scan(scan, FLAT.model_copy(update={"airmass_per": how})).spectra)
        for how in ("auto", "subscan", "dump")
    ]
    assert np.array_equal(spectra[0], spectra[1])
    assert not np.array_equal(spectra[0], spectra[2])


def test_padding_and_dumps_without_an_elevation() -> None:
    scene = flat_scene(["OFF", "ON", "OFF"])
    elevation = climbing(3, 1)
    raw = scene.group(scene.modes, 100.0, elevation)
    raw["counts"][:, 3:, :, :, :] = np.nan
    raw["elevation"] = raw["elevation"].copy()
    raw["elevation"][3:] = 1.5
    source = replace(as_group(raw), recorded=np.array([3, 3, 3]))
    result = calibrate_scan(
        scan_of(scene, source), FLAT.model_copy(update={"scale_off_airmass": True})
    )
    line, base = line_and_base(result, scene)
    assert line[:3] == pytest.approx(scene.line, abs=1e-5)
    assert np.abs(base[:3]).max() < 1e-6
    assert np.isnan(line[3:]).all()


def test_a_channel_that_one_off_lacks_is_moved_from_the_other() -> None:
    scene = flat_scene(["OFF", "ON", "OFF"])
    raw = scene.group(scene.modes, 100.0, np.tile(np.deg2rad([30.0, 33.0, 37.0]), (DUMPS, 1)))
    raw["counts"][4, :, :, :, 0] = np.nan
    raw["counts"][5, :, :, :, 2] = np.nan
    result = calibrate_scan(
        scan_of(scene, as_group(raw)), FLAT.model_copy(update={"scale_off_airmass": True})
    )
    assert np.abs(np.asarray(result.spectra)[:8]).max() < 1e-6


def test_rows_up_and_down_in_a_store(tmp_path: Path) -> None:
    """As a telescope writes them: the row is no fault of the elevation, and comes out flat."""
    scene = flat_scene(["OTF-OFF", "OTF-ON", "OTF-ON", "OTF-OFF"])
    elevation = climbing(4, 1, 2)
    elevation[:, 2] = elevation[::-1, 1]
    scan = stored(tmp_path / "night.zarr", scene.group(scene.modes, 100.0, elevation), scene.cal())
    assert not scan.warnings
    assert scan.source is not None
    assert scan.source.elevation == pytest.approx(elevation, abs=1e-6)
    config = FLAT.model_copy(update={"scale_off_airmass": True})
    result = calibrate_scan(scan, config)
    for output in range(2):
        line, base = line_and_base(result, scene, output)
        assert line == pytest.approx(scene.line, abs=1e-5)
        assert np.abs(base).max() < 1e-4  # the store holds elevations as f32
