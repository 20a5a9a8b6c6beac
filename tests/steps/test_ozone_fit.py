"""The scale of the ozone column, fitted with the water: truth with lines in the band, a word where there are none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders.truth_setup import simulate_scan, spectra_error, steady
from oracle.scene import F_EFF, RESOLUTION, T_ATM, Scene

from gpucal import AtmosphereTable, CalibrationConfig, ConfigError, Scan, calibrate_scan

from .test_against_oracle import as_group, emission_of, make_table, opacity_of

CHANNELS = 64


def table_with_lines(peak: float, *, layered: bool = False) -> AtmosphereTable:
    """One line of ozone in the signal and one in the image band, 80 MHz wide, on a little of it everywhere."""
    table = make_table(RESOLUTION, layered=layered)
    lines = sum(peak / (1.0 + ((table.freq_hz - at) / 40e6) ** 2) for at in (461.1e9, 448.8e9))
    return replace(table, c_o3=0.002 + np.asarray(lines))


def seen_through(table: AtmosphereTable, scale: float, *, layered: bool = False) -> Scan:
    """A scan below ``scale`` times the ozone of the table."""
    scene = Scene(["OFF", "ON", "OFF"], shape=(CHANNELS, 2, 1, 2))
    true = replace(table, c_o3=scale * table.c_o3)
    scene.opacity = opacity_of(true, scene)
    scene.emission = emission_of(true, scene) if layered else None
    attrs = {"f_eff": F_EFF, "gain_image": scene.gain_image}
    return Scan(7, "", attrs, {}, as_group(scene.source()), as_group(scene.cal()))


def line_of(result: Any) -> tuple[Any, Any]:
    """T_A* of the line's channels and of the others."""
    scene = Scene(["ON"], shape=(CHANNELS, 1, 1, 1))
    line = np.array([scene.is_line(c) for c in range(CHANNELS)])
    spectra = np.asarray(result.spectra)
    return spectra[line], spectra[~line]


@pytest.mark.parametrize("layered", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1.35, 0.6])
def test_the_true_scale_comes_back(scale: float, layered: bool) -> None:
    table = table_with_lines(0.4, layered=layered)
    scan = seen_through(table, scale, layered=layered)
    air: dict[str, Any] = {} if layered else {"t_atm": T_ATM}
    result = calibrate_scan(scan, CalibrationConfig(ozone="fit", **air), table=table)
    assert result.quality["ozone_scale"] == pytest.approx(scale, abs=1e-6)
    assert 0.0 < result.quality["ozone_scale_error"] < 0.1
    assert result.solution.atmosphere.pwv == pytest.approx(0.7, abs=1e-6)
    line, rest = line_of(result)
    assert line == pytest.approx(5.0, abs=1e-5)
    assert np.abs(rest).max() < 1e-5
    if scale != 1.0:
        as_table = calibrate_scan(scan, CalibrationConfig(**air), table=table)
        assert as_table.quality["ozone_scale"] == 1.0
        assert abs(float(as_table.solution.atmosphere.pwv.mean()) - 0.7) > 1e-3
        assert np.abs(line_of(as_table)[0] - 5.0).max() > 0.01


def test_a_simulated_night_with_more_ozone() -> None:
    """The simulator's own lines, in two bands of two sidebands; the options' scale does not matter."""
    made = simulate_scan(steady("hera"), "tp", 7)
    assert made.table is not None
    table = replace(made.table, c_o3=made.table.c_o3 / 1.2)
    for start in (1.0, 2.0):
        config = CalibrationConfig(ozone="fit", ozone_scale=start)
        result = calibrate_scan(made.scans[0], config, table=table)
        assert result.quality["ozone_scale"] == pytest.approx(1.2, abs=1e-5)
        assert spectra_error(result, made) < 1e-6


@pytest.mark.parametrize("scope", ["per-pixel", "per-pair"])
def test_other_scopes_have_the_scale_of_all(scope: Any) -> None:
    table = table_with_lines(0.4)
    config = CalibrationConfig(ozone="fit", t_atm=T_ATM, pwv_scope=scope)
    result = calibrate_scan(seen_through(table, 1.35), config, table=table)
    assert result.quality["ozone_scale"] == pytest.approx(1.35, abs=1e-6)
    assert line_of(result)[0] == pytest.approx(5.0, abs=1e-5)


@pytest.mark.parametrize(
    ("peak", "true", "said"),
    [
        (0.0, 1.0, "its lines are 0.0"),
        (0.004, 1.3, "K high here, 2 K are needed"),
        (0.2, 8.0, "believable is 0.2 to 5"),
    ],
)
def test_a_scale_that_is_not_known_is_not_taken(peak: float, true: float, said: str) -> None:
    table = table_with_lines(peak)
    scan = seen_through(table, true)
    options: dict[str, Any] = {"t_atm": T_ATM, "ozone_scale": 1.1}
    result = calibrate_scan(scan, CalibrationConfig(ozone="fit", **options), table=table)
    (warning,) = (w for w in result.solution.warnings if w.startswith("--ozone fit"))
    assert said in warning
    assert warning.endswith("its scale stays 1.1.")
    assert result.quality["ozone_scale"] == 1.1
    assert np.isnan(result.quality["ozone_scale_error"])
    plain = calibrate_scan(scan, CalibrationConfig(**options), table=table)
    assert np.asarray(result.spectra) == pytest.approx(
        np.asarray(plain.spectra), rel=1e-12, abs=1e-9
    )


def test_its_error_is_what_noise_makes_of_it() -> None:
    """The scatter of twenty draws of noise, no error of the opacities in it."""
    table, rng = table_with_lines(0.4), np.random.default_rng(3)
    clean = seen_through(table, 1.2)
    found, errors = [], []
    config = CalibrationConfig(ozone="fit", t_atm=T_ATM, opacity_trust=0.0)
    for _ in range(20):
        groups = {}
        for name in ("source", "calibration"):
            group: Any = getattr(clean, name)
            noise = rng.standard_normal(group.counts.data.shape) / np.sqrt(RESOLUTION * 1.0)
            groups[name] = replace(
                group, counts=type(group.counts)(group.counts.data * (1 + noise))
            )
        quality = calibrate_scan(replace(clean, **groups), config, table=table).quality
        found.append(quality["ozone_scale"])
        errors.append(quality["ozone_scale_error"])
    assert np.mean(found) == pytest.approx(1.2, abs=4 * np.std(found) / np.sqrt(20))
    assert 0.5 < np.std(found) / np.mean(errors) < 2.0


@pytest.mark.parametrize(
    "more", [{"pwv": 1.0}, {"tau": 0.1, "atmosphere": "none"}, {"cal_scheme": "vane-channel"}]
)
def test_where_nothing_is_fitted_it_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="ozone is 'fit', but the water is not fitted"):
        CalibrationConfig(ozone="fit", **more)
