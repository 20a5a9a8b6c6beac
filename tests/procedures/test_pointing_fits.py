"""Pointing fits: known offsets come back, errors are true, every failure has its name."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gpucal.procedures.pointing import Drift, PointingOptions, fit_drifts, reduce_pointing
from gpucal.procedures.results import Measured, weighted_mean

F64 = npt.NDArray[np.float64]
N = 61
X = np.linspace(-60.0, 60.0, N)
NOISE = 0.05
OFFSET = {"az": 7.0, "el": -4.0}
FWHM, LATE = 20.0, 1.5
TRIALS = int(os.environ.get("GPUCAL_PROCEDURE_TRIALS", "60"))
"""GPUCAL_PROCEDURE_TRIALS=N runs N trials here, and the tests over 500 trials as well."""


def bell(x: F64, fwhm: float = FWHM) -> F64:
    return np.asarray(np.exp(-4 * np.log(2) * (x / fwhm) ** 2))


def noise(seed: int, n: int = N) -> F64:
    return NOISE * np.random.default_rng(seed).standard_normal(n)


def cross(
    seed: int | None, *, peak: float = 1.0, sigma: bool = False, throw: float | None = None
) -> list[Drift]:
    """Four drifts, each with its own baseline; ``seed`` None: no noise."""
    rng = np.random.default_rng(seed)
    drifts = []
    for axis, other in (("az", "el"), ("el", "az")):
        for sense in (1, -1):
            x = sense * X
            at = x - OFFSET[axis] - sense * LATE
            y = bell(at) - (bell(at - throw) if throw is not None else 0.0)
            y = peak * bell(np.asarray(OFFSET[other])) * y + 0.3 + sense * 0.002 * x
            if seed is not None:
                y = y + NOISE * rng.standard_normal(N)
            errors = np.full(N, NOISE) if sigma else None
            drifts.append(Drift(axis, x, y, sigma=errors, speed=10.0))
    return drifts


def test_without_noise_the_truth_comes_back() -> None:
    found = reduce_pointing(cross(None))
    assert found.valid
    assert found.reason == ""
    for fit in found.fits:
        assert fit.offset.value == pytest.approx(OFFSET[fit.axis], abs=1e-7)
        assert fit.fwhm.value == pytest.approx(FWHM, rel=1e-8)
        assert fit.latency.value == pytest.approx(LATE, abs=1e-7)
        assert fit.delay.value == pytest.approx(0.15, abs=1e-8)
        assert fit.corrected.value == pytest.approx(1.0, rel=1e-8)
        assert fit.sense == (1, -1)
        np.testing.assert_allclose(fit.baselines, [[0.3, 0.002], [0.3, -0.002]], atol=1e-9)
        np.testing.assert_allclose(fit.model + fit.residual, fit.values)
        np.testing.assert_allclose(
            (fit.values - fit.baseline).max(), fit.amplitude.value, rtol=0.01
        )


def test_one_sense_only_has_no_latency() -> None:
    found = reduce_pointing(cross(None)[::2])
    assert found.valid
    assert np.isnan(found.fits[0].latency.value)
    assert found.fits[0].offset.value == pytest.approx(OFFSET["az"] + LATE, abs=1e-7)


def pulls(found: Any) -> list[float]:
    """(value - truth) / error of every fitted quantity."""
    az, el = found.fits
    pairs = [
        (az.offset, OFFSET["az"]),
        (el.offset, OFFSET["el"]),
        (az.fwhm, FWHM),
        (el.fwhm, FWHM),
        (az.latency, LATE),
        (az.amplitude, float(bell(np.asarray(OFFSET["el"])))),
        (az.corrected, 1.0),
        (el.corrected, 1.0),
    ]
    return [(m.value - truth) / m.error for m, truth in pairs]


@pytest.mark.parametrize("sigma", [False, True])
def test_errors_are_true(sigma: bool) -> None:
    """Pulls have mean 0 and variance 1, over all quantities and for each."""
    found = [reduce_pointing(cross(seed, sigma=sigma)) for seed in range(TRIALS)]
    assert all(r.valid for r in found)
    table = np.array([pulls(r) for r in found])
    slack = 4.5 / np.sqrt(TRIALS)
    np.testing.assert_allclose(table.mean(axis=0), 0.0, atol=slack)
    np.testing.assert_allclose(table.std(axis=0), 1.0, atol=slack / np.sqrt(2))


@pytest.mark.slow
@pytest.mark.skipif("GPUCAL_PROCEDURE_TRIALS" not in os.environ, reason="on demand")
def test_errors_are_true_over_500_trials() -> None:
    table = np.array([pulls(reduce_pointing(cross(1000 + seed))) for seed in range(500)])
    assert np.all(np.abs(table.std(axis=0) - 1.0) < 0.1)
    np.testing.assert_allclose(table.mean(axis=0), 0.0, atol=0.18)


def test_noise_alone_is_not_a_source() -> None:
    fits = [
        fit_drifts([Drift("az", X, noise(seed)), Drift("az", -X, noise(seed + 999))])
        for seed in range(80)
    ]
    assert not any(fit.valid for fit in fits)
    assert all("no source seen" in f.reason or "limit" in f.reason for f in fits)


def test_a_spike_and_a_bad_sample_do_no_harm() -> None:
    y = bell(X - 5.0) + noise(1)
    y[10] += 40.0
    y[45] = np.nan
    fit = fit_drifts([Drift("az", X, y)])
    assert fit.valid
    assert fit.quality.n == N - 2
    assert fit.quality.rejected == 1
    assert abs(fit.offset.value - 5.0) < 4 * fit.offset.error


def test_beam_switched_with_fitted_throw() -> None:
    options = PointingOptions(throw=38.0, fit_throw=True)
    found = reduce_pointing(cross(3, throw=40.0), options)
    assert found.valid
    for fit in found.fits:
        assert abs(fit.offset.value - OFFSET[fit.axis]) < 4 * fit.offset.error
        assert abs(fit.throw.value - 40.0) < 4 * fit.throw.error
    held = reduce_pointing(cross(3, throw=40.0), PointingOptions(throw=40.0))
    assert held.fits[0].throw == Measured(40.0, 0.0, "arcsec")
    assert held.fits[0].offset.error < found.fits[0].offset.error


def test_held_width_has_no_error() -> None:
    fit = fit_drifts([Drift("az", X, bell(X) + noise(2))], PointingOptions(fwhm=FWHM))
    assert fit.valid
    assert fit.fwhm == Measured(FWHM, 0.0, "arcsec")


def test_drifting_gain_widens_the_errors() -> None:
    """Noise that is alike over a beam: the errors must know."""
    rng = np.random.default_rng(4)
    n = 600
    x = np.linspace(-200.0, 200.0, n)
    slow = np.convolve(rng.standard_normal(n + 40), np.ones(41) / 41, "valid")
    white = fit_drifts([Drift("az", x, 5 * bell(x) + 0.1 * rng.standard_normal(n))])
    red = fit_drifts([Drift("az", x, 5 * bell(x) + 0.1 * rng.standard_normal(n) + 0.5 * slow)])
    assert white.quality.correlated == 1.0
    assert red.quality.correlated > 1.5
    assert red.offset.error > 1.5 * white.offset.error


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        (X[:5], X[:5], "too few samples: 5, need 8"),
        (X, np.full(N, np.nan), "too few samples: 0, need 8"),
        (np.zeros(N), noise(1), "all samples are at one position"),
        (X, np.full(N, 3.0), "all samples have the same value"),
        (X, 0.1 * bell(X) + noise(5), "no source seen: peak is"),
        (X, -bell(X) + noise(1), "no source seen: the strongest feature is negative"),
        (X, bell(X - 75.0, 25.0) + 0.02 * noise(1), "offset lies outside the scanned range"),
        (X, 30 * bell(X, 400.0) + 0.2 * noise(1), "width at its limit"),
        (X, bell(X + 35.0) + 0.7 * bell(X - 35.0) + 0.2 * noise(1), "does not describe the data"),
        (X, 1e200 * bell(X), "fit did not converge"),
    ],
)
def test_failures_are_named(x: F64, y: F64, reason: str) -> None:
    found = reduce_pointing([Drift("az", x, y)])
    assert not found.valid
    assert reason in found.fits[0].reason
    assert reason in found.reason
    assert reason in found.mean("az", "offset").reason


def test_nothing_at_all_is_named() -> None:
    found = reduce_pointing([])
    assert (found.valid, found.reason) == (False, "no drifts")
    assert "was measured" in found.mean("az", "offset").reason


def test_cancelled_after_azimuth() -> None:
    found = reduce_pointing(cross(1)[:2])
    assert found.valid
    assert found.reason == "el: no drifts"
    assert np.isnan(found.fits[0].corrected.value)


def test_one_direction_fails_the_other_stays() -> None:
    bad = [Drift("el", X, noise(1)), Drift("el", -X, noise(2))]
    found = reduce_pointing([*cross(1)[:2], *bad])
    assert not found.valid
    assert found.reason.startswith("el: no source seen")
    assert found.mean("az", "offset").valid


def test_mean_over_receivers_has_weights_and_chi2() -> None:
    found = weighted_mean("az", "offset", [Measured(1.0, 0.1), Measured(1.25, 0.2)], rejected=3)
    assert found.mean.value == pytest.approx(1.05)
    assert found.mean.error == pytest.approx(1 / np.sqrt(125))
    assert found.chi2 == pytest.approx(1.25)
    assert (found.dof, found.n, found.rejected) == (1, 2, 3)


def test_receivers_that_disagree_widen_the_error_of_the_mean() -> None:
    found = weighted_mean("az", "offset", [Measured(1.0, 0.1), Measured(2.0, 0.2)])
    assert found.chi2 == pytest.approx(20.0)
    assert found.mean.error == pytest.approx(np.sqrt(20.0 / 125))


def test_half_power_drifts_are_fitted_on_their_own() -> None:
    drifts = [
        Drift("az", X, bell(np.asarray(c)) * bell(X - 3.0) + 0.2 * noise(i), cross=c)
        for i, c in enumerate((10.0, 0.0, -10.0))
    ]
    found = reduce_pointing(drifts)
    assert [f.cross for f in found.fits] == [10.0, 0.0, -10.0]
    assert found.mean("az", "offset").n == 3


@pytest.mark.parametrize(
    ("measured", "text"),
    [
        (Measured(-3.4217, 0.113, "arcsec"), "-3.42 ± 0.11 arcsec"),
        (Measured(1234.5, 56.0, "K"), "1234 ± 56 K"),
        (Measured(0.05353, 0.00003, "Np"), "0.053530 ± 0.000030 Np"),
        (Measured(unit="K"), "nan K"),
        (Measured(0.95, 0.0), "0.95"),
    ],
)
def test_values_are_printed_to_the_digits_of_their_error(measured: Measured, text: str) -> None:
    assert str(measured) == text
