"""Skydip fits: opacity and efficiency with true errors, and named failures."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gpucal import AtmosphereTable, CalibrationConfig, select_backend
from gpucal.pipeline.reduction.skydip_inputs import band_lapse
from gpucal.procedures.skydip import (
    Lapse,
    SkydipOptions,
    SkydipSeries,
    fit_skydip,
    reduce_skydip,
)
from gpucal.products import SpectralSetup

F64 = npt.NDArray[np.float64]
A = 1.0 / np.sin(np.deg2rad([18.0, 22.0, 27.0, 35.0, 45.0, 60.0, 80.0]))
T_ATM, T_AMB, TAU, F_EFF, NOISE = 262.0, 279.0, 0.15, 0.93, 0.3
TRIALS = int(os.environ.get("GPUCAL_PROCEDURE_TRIALS", "60"))
TOTAL = SkydipOptions("total-power")
FREE = SkydipOptions("total-power", free_gain=True)


def sky(tau: float = TAU, f_eff: float = F_EFF, airmass: F64 = A) -> F64:
    return np.asarray(f_eff * T_ATM * (1 - np.exp(-tau * airmass)) + (1 - f_eff) * T_AMB)


def series(y: F64, errors: bool = True, airmass: F64 = A) -> SkydipSeries:
    given = np.full(y.shape, NOISE) if errors else None
    return SkydipSeries(airmass, y, T_ATM, T_AMB, errors=given)


@pytest.mark.parametrize("f_eff", [None, F_EFF])
@pytest.mark.parametrize("tau", [0.02, 0.15, 1.2])
def test_exact_sky_comes_back(tau: float, f_eff: float | None) -> None:
    fit = fit_skydip(series(sky(tau)), SkydipOptions(f_eff=f_eff))
    assert fit.valid, fit.reason
    assert fit.tau.value == pytest.approx(tau, rel=1e-7)
    assert fit.f_eff.value == pytest.approx(F_EFF, rel=1e-7)
    np.testing.assert_allclose(fit.model + fit.residual, fit.values)


def test_total_power_form_with_and_without_gain() -> None:
    y = 70.0 + T_ATM * (1 - np.exp(-TAU * A))
    fit = fit_skydip(series(y), TOTAL)
    assert fit.tau.value == pytest.approx(TAU, rel=1e-7)
    assert fit.t0.value == pytest.approx(70.0, rel=1e-7)
    counts = fit_skydip(replace(series(1000.0 * y), errors=None), FREE)
    assert counts.tau.value == pytest.approx(TAU, rel=1e-5)
    assert counts.gain.value == pytest.approx(1000.0, rel=1e-5)


def test_background_is_seen_through_the_atmosphere() -> None:
    through = np.exp(-TAU * A)
    y = F_EFF * (T_ATM * (1 - through) + 2.0 * through) + (1 - F_EFF) * T_AMB
    fit = fit_skydip(replace(series(y), t_bg=2.0))
    assert fit.tau.value == pytest.approx(TAU, rel=1e-7)
    assert fit.f_eff.value == pytest.approx(F_EFF, rel=1e-7)


def pulls(trials: int, seed: int) -> F64:
    rng = np.random.default_rng(seed)
    rows = []
    many = np.repeat(A, 8)
    for _ in range(trials):
        one = fit_skydip(series(sky() + NOISE * rng.standard_normal(A.size)))
        two = fit_skydip(
            series(sky() + NOISE * rng.standard_normal(A.size)), SkydipOptions(f_eff=F_EFF)
        )
        own = fit_skydip(
            series(sky(airmass=many) + NOISE * rng.standard_normal(many.size), False, many)
        )
        row = [(f.tau.value - TAU) / f.tau.error for f in (one, two, own)]
        rows.append([*row, *((f.f_eff.value - F_EFF) / f.f_eff.error for f in (one, own))])
    return np.array(rows)


def test_errors_are_true() -> None:
    table = pulls(TRIALS, 1)
    slack = 4.5 / np.sqrt(TRIALS)
    np.testing.assert_allclose(table.mean(axis=0), 0.0, atol=slack)
    np.testing.assert_allclose(table.std(axis=0), 1.0, atol=slack / np.sqrt(2))


@pytest.mark.slow
@pytest.mark.skipif("GPUCAL_PROCEDURE_TRIALS" not in os.environ, reason="on demand")
def test_errors_are_true_over_500_trials() -> None:
    table = pulls(500, 2)
    assert np.all(np.abs(table.std(axis=0) - 1.0) < 0.1)
    np.testing.assert_allclose(table.mean(axis=0), 0.0, atol=0.18)


def test_correlation_of_the_parameters_is_that_of_the_covariance() -> None:
    fit = fit_skydip(series(sky()))
    assert fit.names == ("tau", "f_eff")
    c = fit.covariance
    assert fit.correlation == pytest.approx(c[0, 1] / np.sqrt(c[0, 0] * c[1, 1]))
    assert abs(fit.correlation) > 0.9


NAN = float("nan")


@pytest.mark.parametrize(
    ("given", "options", "reason"),
    [
        (series(sky()[:1], airmass=A[:1]), SkydipOptions(), "too few elevations: 1, need 2"),
        (series(sky()[:2], False, A[:2]), SkydipOptions(), "too few elevations: 2, need 3"),
        (
            series(sky(airmass=A[-3:] / 2 + 0.5), airmass=A[-3:] / 2 + 0.5),
            SkydipOptions(),
            "the airmass spans only",
        ),
        (replace(series(sky()), t_atm=NAN), SkydipOptions(), "temperature of the atmosphere"),
        (replace(series(sky()), t_amb=NAN), SkydipOptions(), "ambient temperature is not known"),
        (series(sky(-0.05)), SkydipOptions(), "the opacity is not positive"),
        (series(sky(1e-4)), TOTAL, "no opacity seen: tau is"),
        (series(sky(0.4, 1.3)), SkydipOptions(), "the forward efficiency is not between 0 and 1"),
        (series(100.0 - sky(), False), FREE, "not positive"),
        (replace(series(sky()), t_atm=np.inf), SkydipOptions(), "fit did not converge"),
        (series(np.full(A.size, T_AMB)), SkydipOptions(), "do not determine the fit"),
    ],
)
def test_failures_are_named(given: SkydipSeries, options: SkydipOptions, reason: str) -> None:
    found = reduce_skydip([given], options)
    assert not found.valid
    assert reason in found.fits[0].reason
    assert reason in found.mean("airmass", "tau").reason


def test_no_pixels_at_all() -> None:
    assert reduce_skydip([]).reason == "no sky temperatures"


def test_mean_leaves_out_what_is_not_valid() -> None:
    rng = np.random.default_rng(3)
    good = [series(sky() + NOISE * rng.standard_normal(A.size)) for _ in range(4)]
    found = reduce_skydip([*good, series(sky(-0.1))])
    mean = found.mean("airmass", "tau")
    assert (mean.n, mean.rejected, found.valid) == (4, 1, True)
    assert abs(mean.mean.value - TAU) < 4 * mean.mean.error


# ---- a layered sky

LAPSE = 0.085


def layered_sky(tau: float, airmass: F64 = A) -> F64:
    """J_em/J_ground of air whose radiation temperature falls by LAPSE per scale height of what absorbs."""
    z = np.linspace(0.0, 40.0, 40001)[:, None]
    depth = airmass * tau * np.exp(-z)
    emitted = (1.0 - LAPSE * z) * depth * np.exp(depth - airmass * tau)
    return np.asarray(np.trapezoid(emitted, z, axis=0))


@pytest.mark.parametrize("options", [SkydipOptions(), TOTAL, SkydipOptions(f_eff=F_EFF)], ids=str)
@pytest.mark.parametrize("tau", [0.05, 0.3, 1.1])
def test_a_layered_sky_comes_back(tau: float, options: SkydipOptions) -> None:
    lapse = Lapse(np.array([0.01, 5.0]), np.array([LAPSE, LAPSE]))
    y = T_AMB * layered_sky(tau)
    y = y + 70.0 if options.form == "total-power" else F_EFF * y + (1 - F_EFF) * T_AMB
    made = replace(series(y), t_atm=T_AMB, lapse=lapse)
    fit = fit_skydip(made, options)
    assert fit.valid, fit.reason
    assert fit.tau.value == pytest.approx(tau, rel=1e-5)
    # with one temperature of the air the opacity is another
    assert abs(fit_skydip(replace(made, lapse=None), options).tau.value / tau - 1) > 0.02


def test_the_lapse_may_change_with_the_opacity() -> None:
    lapse = Lapse(np.array([0.1, 0.5, 1.0]), np.array([0.09, 0.07, 0.05]))
    step = 1e-6
    ends = [lapse.departure(0.3 + s, A)[0] for s in (-step, step)]
    value, slope = lapse.departure(0.3, A)
    np.testing.assert_allclose(slope, (ends[1] - ends[0]) / (2 * step), rtol=1e-6)
    np.testing.assert_allclose(
        value, 0.08 / LAPSE * (1 - np.exp(-0.3 * A) - layered_sky(0.3)), rtol=1e-5
    )


def test_lapse_of_a_band() -> None:
    f = np.linspace(200e9, 260e9, 61)
    one = np.ones(f.size)
    columns: dict[str, Any] = {
        "e_b": 0.03 * 0.1 * one,
        "e_q": 0 * one,
        "e_c": 0.09 * 0.05 * one,
        "e_o3": 0.2 * one,
    }
    table = AtmosphereTable(f, 0.1 * one, 0 * one, 0.05 * one, 0.01 * one, 0 * one, **columns)
    backend = select_backend("cpu")
    axis, gain = np.array([[230e9], [231e9]]), np.full((1, 1, 1), 0.5)
    setup = SpectralSetup(axis, axis + 12e9, 1e6, gain, gain, 0.95, 4.799243073366221e-11, True)
    found = band_lapse(table, setup, CalibrationConfig(), 0, backend)
    assert found is not None
    for pwv in (0.1, 1.0, 5.0):
        tau = 0.1 * pwv + 0.06
        want = (0.003 * pwv + 0.0045 + 0.002) / tau
        assert np.interp(tau, found.tau, found.kappa) == pytest.approx(want, rel=5e-3)
    assert band_lapse(table, setup, CalibrationConfig(t_atm=250.0), 0, backend) is None
    assert band_lapse(table.isothermal(), setup, CalibrationConfig(), 0, backend) is None
    assert band_lapse(None, setup, CalibrationConfig(), 0, backend) is None
