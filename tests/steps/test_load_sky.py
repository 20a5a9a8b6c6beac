"""The SKY of the load scan: in the fit of the water, and against the OFFs after a change of gain.

Counts of the oracle's scene, whose gain may change between loads and OFF.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from oracle.scene import F_EFF, RESOLUTION, T_ATM, Scene

from gpucal import CalibrationConfig, ConfigError, LoadError, Scan, calibrate_scan

from .test_against_oracle import as_group, make_table, opacity_of

TABLE = make_table(RESOLUTION)
FITTED = CalibrationConfig(t_atm=T_ATM)
LOADS = ["HOT", "COLD", "SKY"]


def scene_of(**more: Any) -> Scene:
    scene = Scene(["OFF", "ON", "OFF"], shape=(64, 3, 1, 2), **more)
    scene.opacity = opacity_of(TABLE, scene)
    return scene


def scan_of(
    scene: Scene,
    gain: float = 1.0,
    loads: list[str] = LOADS,
    elevation: Any = 0.8,
    start: float = 0.0,
) -> Scan:
    """The scene, its source seen with ``gain`` times the gain of the loads."""
    source = as_group(scene.source())
    source = replace(source, counts=type(source.counts)(source.counts.data * gain))  # type: ignore
    cal = as_group(scene.group(loads, start, elevation))
    return Scan(7, "", {"f_eff": F_EFF, "gain_image": scene.gain_image}, {}, source, cal)


def options(**more: Any) -> CalibrationConfig:
    return FITTED.model_copy(update=more)


def test_loads_offs_and_both_agree_where_the_gain_is_steady() -> None:
    scene = scene_of()
    scan = scan_of(scene)
    for how in ("off", "loads", "both"):
        result = calibrate_scan(scan, options(fit_sky=how), table=TABLE)
        assert result.solution.atmosphere.pwv == pytest.approx(scene.pwv, abs=1e-9)
        assert [w["by"] for w in result.quality["pwv_seen"][:2]] == ["loads", "offs"]
        for seen in result.quality["pwv_seen"][:2]:
            assert seen["pwv_mm"] == pytest.approx(scene.pwv, abs=1e-8)
        assert not [w for w in result.solution.warnings if "SKY" in w and "last digit" not in w]
        assert np.isfinite(result.solution.errors.t_a_star).all()  # type: ignore[union-attr]
    without = calibrate_scan(scan_of(scene, loads=LOADS[:2]), FITTED, table=TABLE)
    as_ever = calibrate_scan(scan, FITTED, table=TABLE)
    assert np.array_equal(without.spectra, as_ever.spectra, equal_nan=True)
    assert not [w for w in without.quality["pwv_seen"] if w["by"] == "loads"]


@pytest.mark.parametrize("gain", [1.01, 0.985])
def test_a_change_of_gain_moves_the_offs_alone(gain: float) -> None:
    """Ulich & Haas by hand: with the water of the SKY the line is wrong by the gain and nothing else."""
    scene = scene_of()
    scan = scan_of(scene, gain)
    by = {
        how: calibrate_scan(scan, options(fit_sky=how), table=TABLE)
        for how in ("off", "loads", "both")
    }
    pwv = {how: float(r.solution.atmosphere.pwv.mean()) for how, r in by.items()}
    assert pwv["loads"] == pytest.approx(scene.pwv, abs=1e-9)
    assert abs(pwv["off"] / scene.pwv - 1.0) > 0.03
    assert min(pwv["off"], pwv["loads"]) < pwv["both"] < max(pwv["off"], pwv["loads"])
    line = np.array([scene.is_line(c) for c in range(64)])
    spectra = np.asarray(by["loads"].spectra)
    assert spectra[line] - spectra[~line].mean() == pytest.approx(gain * scene.line, rel=1e-6)
    for result in by.values():
        (said,) = (w for w in result.solution.warnings if "disagree about the water" in w)
        assert f"{100 * (gain - 1.0):+.2g} % from the loads" in said
        assert f"{scene.pwv:.2f}"[:3] in said
        assert f"{result.quality['pwv_seen'][1]['pwv_mm']:.2f}"[:3] in said
    effect = pwv["loads"] - pwv["off"]
    assert ("-" in said.split("which is ")[1].split(" %")[0]) is (effect < 0)


def test_a_sky_on_the_gain_of_two_load_scans() -> None:
    """The gain drifts within the load scan: the SKY is put on the gain of its mean, as the OFFs are."""
    scene = scene_of(drift=4e-4)
    scan = scan_of(scene)
    later = replace(scan, number=8, calibration=as_group(scene.group(LOADS, 300.0, 0.8)))
    config = options(fit_sky="loads", gain_interpolate=3)
    result = calibrate_scan(scan, config, table=TABLE, later_load=later)
    assert result.solution.atmosphere.pwv == pytest.approx(scene.pwv, rel=2e-3)
    assert not [w for w in result.solution.warnings if "disagree" in w]


def test_loads_without_a_sky_or_with_a_tip() -> None:
    scene = scene_of()
    bare = scan_of(scene, loads=LOADS[:2])
    with pytest.raises(LoadError, match="has no SKY subscan, which --fit-sky loads"):
        calibrate_scan(bare, options(fit_sky="loads"), table=TABLE)
    result = calibrate_scan(bare, options(fit_sky="both"), table=TABLE)
    assert result.solution.atmosphere.pwv == pytest.approx(scene.pwv, abs=1e-9)
    assert any("fitted to the OFFs alone" in w for w in result.solution.warnings)
    tip = scan_of(scene, loads=[*LOADS, "SKY"], elevation=np.array([0.8, 0.8, 0.8, 0.5]))
    with pytest.raises(LoadError, match="are a tip"):
        calibrate_scan(tip, options(fit_sky="loads"), table=TABLE)
    said = calibrate_scan(tip, FITTED, table=TABLE).solution.warnings
    assert not any("SKY" in w and "last digit" not in w for w in said)


def test_a_pixel_whose_loads_are_lent_has_no_sky_of_others() -> None:
    from gpucal.backend.cpu import cpu_backend
    from gpucal.pipeline.scan.load_quality import with_pixels_of
    from gpucal.steps.loads import load_means, spectral_setup

    scene, backend = scene_of(), cpu_backend()
    scan, bare = scan_of(scene), scan_of(scene, loads=LOADS[:2])
    low = scan_of(scene, elevation=0.5)
    mine, bare_means, low_means = (load_means(s, FITTED, backend) for s in (scan, bare, low))
    setup = spectral_setup(scan, FITTED, backend)
    pixels = np.array([[False, True]])
    for other in (bare_means, low_means):
        sky = np.asarray(with_pixels_of(mine, other, pixels, setup, backend).sky)
        assert np.isfinite(sky[:, 0, 0]).all()
        assert np.isnan(sky[:, 0, 1]).all()
    same = with_pixels_of(mine, mine, pixels, setup, backend)
    assert np.isfinite(np.asarray(same.sky)).all()


@pytest.mark.parametrize(
    "more",
    [
        {"pwv": 1.0},
        {"tau": 0.1, "atmosphere": "none"},
        {"cal_scheme": "vane"},
        {"pwv_scope": "per-pair"},
    ],
)
def test_where_it_does_nothing_it_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="fit_sky is 'loads', but"):
        CalibrationConfig(fit_sky="loads", **more)
