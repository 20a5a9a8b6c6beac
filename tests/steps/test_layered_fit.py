"""Fit of the water to a layered sky: exact without noise, in every scope and path; physics section 5."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fakes.strict_backend import strict_backend
from numpy.typing import NDArray

from gpucal import CalibrationConfig, Scan, calibrate_scan, select_backend, simulate_scan
from gpucal.physics.emission import departure
from gpucal.physics.weather import in_weather
from gpucal.simulate import preset
from gpucal.steps import pwv_fit
from gpucal.steps.pwv_fit import SkyRows, expanded, fit_pwv

F64 = NDArray[np.float64]
GRID = np.geomspace(0.05, 6.0, 100)


def rows(
    water: list[float],
    *,
    channels: int = 64,
    points: int = 1,
    opaque_image: bool = False,
    noise: float = 0.0,
) -> list[SkyRows]:
    """Two views of a layered sky, in DSB; ``water`` of each column."""
    rng = np.random.default_rng(4)
    x = np.linspace(0, 1, channels)
    shape = (2, points, channels, 1)
    opacity, emission = np.empty((3, *shape)), np.empty((5, *shape))
    opacity[0] = (0.7 + 0.3 * np.sin(5 * x))[:, None]
    opacity[1] = 0.01
    ozone = 0.3 / (1 + ((x - 0.4) / 0.02) ** 2)
    opacity[2] = (0.05 + ozone)[:, None]
    opacity *= np.linspace(0.9, 1.1, points)[:, None, None] if points > 1 else 1.0
    if opaque_image:
        opacity[0, 1] = 60.0
    emission[0] = 0.9 * ozone[:, None]
    emission[1], emission[2], emission[3], emission[4] = 0.034 * opacity[0], -5e-4, 5e-3, 0.16
    amplitude = np.stack([np.full((channels, 1), -140.0), np.full((channels, 1), -110.0)])
    ground = -1.02 * amplitude
    found = []
    for view, airmass in enumerate((1.2, 2.1)):
        p = np.array(water)
        b, q, c = opacity
        t = np.exp(-airmass * (b * p + q * p * p + c)).mean(axis=1)
        less = departure(opacity, emission, p, airmass).value.mean(axis=1)
        seen = (amplitude * t - ground * less).sum(axis=0)
        seen = seen + noise * rng.standard_normal(seen.shape)
        good = rng.random(seen.shape) > 0.05
        found.append(
            SkyRows(
                seen,
                np.full(seen.shape, 0.04),
                good,
                amplitude,
                opacity,
                airmass,
                slice(0, len(water)),
                emission,
                ground,
            )
        )
        assert view < 2
    return found


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"points": 3},
        {"channels": 5000},
        {"opaque_image": True},
        {"points": 2, "channels": 2100},
    ],
    ids=str,
)
@pytest.mark.parametrize("water", [[0.631], [0.3, 0.9, 2.2]], ids=["one", "each"])
def test_the_water_comes_back(how: dict[str, Any], water: list[float]) -> None:
    made = rows(water, **how)
    fit = fit_pwv(made, len(water), GRID, 0.05, select_backend("cpu", threads=1))
    # what the expansion of the emission may lack
    assert np.all(np.abs(fit.pwv - water) < 2e-4 * fit.error + 2e-9)
    assert fit.converged.all()
    assert np.all(fit.chi2_dof < 1e-8)
    flat = [replace(r, emission=None, ground=None) for r in made]
    assert np.all(
        np.abs(fit_pwv(flat, len(water), GRID, 0.05, select_backend("cpu")).pwv / water - 1) > 0.01
    )


def test_any_namespace_gives_the_same() -> None:
    xp = strict_backend()
    made = [
        replace(
            r,
            **{
                n: xp.asarray(getattr(r, n))
                for n in (
                    "observed",
                    "noise2",
                    "good",
                    "amplitude",
                    "opacity",
                    "emission",
                    "ground",
                )
            },
        )
        for r in rows([0.5, 1.4], noise=0.2)
    ]
    one = fit_pwv(made, 2, GRID, 0.05, xp)
    two = fit_pwv(rows([0.5, 1.4], noise=0.2), 2, GRID, 0.05, select_backend("cpu"))
    np.testing.assert_allclose(one.pwv, two.pwv, rtol=1e-9)


def test_trust_region_fit_knows_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pwv_fit, "MAX_STEPS", 1)
    fit = fit_pwv(rows([0.4, 1.3]), 2, GRID, 0.05, select_backend("cpu"))
    np.testing.assert_allclose(fit.pwv, [0.4, 1.3], rtol=1e-6)
    assert fit.converged.all()


def test_expansion_has_the_value_and_the_slope_of_the_sky() -> None:
    backend = select_backend("cpu")
    (row, _) = rows([0.7])
    p, step = np.array([0.7]), 1e-6
    (near,) = expanded([row], p, backend)

    def model(r: SkyRows, at: float) -> F64:
        b, q, c = r.opacity
        t = np.exp(-r.airmass * (b * at + q * at * at + c)).mean(axis=1)
        sky = r.amplitude * t
        if r.emission is not None:
            sky = sky - r.ground * departure(r.opacity, r.emission, at, r.airmass).value.mean(
                axis=1
            )
        return np.asarray(sky.sum(axis=0) - r.observed)

    np.testing.assert_allclose(model(near, 0.7), model(row, 0.7), atol=1e-11)
    slopes = [(model(r, 0.7 + step) - model(r, 0.7 - step)) / (2 * step) for r in (near, row)]
    np.testing.assert_allclose(slopes[0], slopes[1], rtol=1e-7)


def test_the_recorded_weather_reaches_the_sky() -> None:
    """A scan whose air is warmer than the profile is calibrated with the table in that weather."""
    made = simulate_scan(preset("hera", sky="isothermal"), "tp")
    scan: Scan = made.scan
    source = scan.source
    assert source is not None
    f = made.table.freq_hz
    emission: dict[str, Any] = {
        "e_b": 0.03 * made.table.b,
        "e_q": 0 * f,
        "e_c": 0.09 * made.table.c_dry,
        "e_o3": 0 * f + 0.15,
    }
    slopes = np.array([-4.0, -6.0, -2.0, -3.0, -5.0, -2.0, 3.0])[:, None] * np.ones(2)
    attrs = {
        **made.table.attrs,
        "t_ground_k": float(source.tamb[0]) - 8.0,
        "pressure_hpa": float(source.pamb[0]) * 1013.25 / 760 / 1.01,
    }
    table = replace(made.table, **emission, slope_freq_hz=f[[0, -1]], slopes=slopes, attrs=attrs)
    here = in_weather(table, float(source.tamb.mean()), float(source.pamb.mean()) * 1013.25 / 760)
    fixed = replace(here, slopes=None, slope_freq_hz=None)
    one, two = (calibrate_scan(scan, CalibrationConfig(workers=1), table=t) for t in (table, fixed))
    assert one.quality["pwv"] == two.quality["pwv"]
    np.testing.assert_array_equal(one.spectra, two.spectra)
    still = replace(table, slopes=None, slope_freq_hz=None)
    other = calibrate_scan(scan, CalibrationConfig(workers=1), table=still)
    assert abs(other.quality["pwv"] / one.quality["pwv"] - 1) > 1e-3
    # said in the QA; one temperature is another sky, and the table of the simulator is that of its truth
    assert (one.quality["sky"], other.quality["sky"]) == ("layered", "layered")
    for options in ({"t_atm": 262.0}, {"t_atm_factor": 0.95}, {"t_atm_offset": -8.0}):
        flat = [
            calibrate_scan(scan, CalibrationConfig(workers=1, **options), table=t)
            for t in (table, made.table)
        ]
        assert [x.quality["sky"] for x in flat] == ["isothermal", "isothermal"]
        np.testing.assert_array_equal(flat[0].spectra, flat[1].spectra)
    assert simulate_scan(preset("hera", sky="isothermal"), "tp", table=table).table.e_b is None
