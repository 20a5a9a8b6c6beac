"""Focus fits: the best focus and its error, and what is not one."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt
import pytest

from gpucal.procedures.focus import FocusSeries, fit_focus, reduce_focus

F64 = npt.NDArray[np.float64]
Z = np.linspace(-2.0, 2.0, 7)
PEAK, BEND, BEST = 5.0, -0.5, 0.3
ERRORS = 0.05 * (1.0 + 0.2 * np.arange(7, dtype=np.float64))
TRIALS = int(os.environ.get("GPUCAL_PROCEDURE_TRIALS", "60"))


def parabola(best: float = BEST, bend: float = BEND) -> F64:
    return np.asarray(PEAK + bend * (Z - best) ** 2)


def test_exact_parabola_comes_back() -> None:
    fit = fit_focus(FocusSeries("z", Z, parabola(), ERRORS))
    assert fit.valid
    assert fit.best.value == pytest.approx(BEST, abs=1e-12)
    assert fit.peak.value == pytest.approx(PEAK, rel=1e-12)
    assert fit.curvature.value == pytest.approx(BEND, rel=1e-12)
    c0, c1, c2 = fit.coefficients
    np.testing.assert_allclose(c0 + c1 * Z + c2 * Z**2, fit.model, rtol=1e-12)


def test_error_is_that_of_the_full_covariance() -> None:
    """dz0 = g C g with C from the coefficients as they are reported."""
    fit = fit_focus(FocusSeries("z", Z, parabola(), ERRORS))
    _, c1, c2 = fit.coefficients
    slope = np.array([0.0, -0.5 / c2, 0.5 * c1 / c2**2])
    assert fit.best.error == pytest.approx(np.sqrt(slope @ fit.covariance @ slope), rel=1e-9)
    weights = np.stack([np.ones(7), Z, Z**2], axis=1) / ERRORS[:, None]
    np.testing.assert_allclose(fit.covariance, np.linalg.inv(weights.T @ weights), rtol=1e-8)


def pulls(trials: int, seed: int, given: bool) -> F64:
    rng = np.random.default_rng(seed)
    rows = []
    z = Z if given else np.linspace(-2.0, 2.0, 41)
    errors = ERRORS if given else np.full(41, 0.1)
    for _ in range(trials):
        y = PEAK + BEND * (z - BEST) ** 2 + errors * rng.standard_normal(z.size)
        fit = fit_focus(FocusSeries("z", z, y, errors if given else None))
        assert fit.valid, fit.reason
        rows.append(
            [
                (fit.best.value - BEST) / fit.best.error,
                (fit.peak.value - PEAK) / fit.peak.error,
                (fit.curvature.value - BEND) / fit.curvature.error,
            ]
        )
    return np.array(rows)


@pytest.mark.parametrize("given", [True, False])
def test_errors_are_true(given: bool) -> None:
    table = pulls(TRIALS, 1, given)
    slack = 4.5 / np.sqrt(TRIALS)
    np.testing.assert_allclose(table.mean(axis=0), 0.0, atol=slack)
    np.testing.assert_allclose(table.std(axis=0), 1.0, atol=slack / np.sqrt(2))


@pytest.mark.slow
@pytest.mark.skipif("GPUCAL_PROCEDURE_TRIALS" not in os.environ, reason="on demand")
def test_errors_are_true_over_500_trials() -> None:
    table = pulls(500, 2, True)
    assert np.all(np.abs(table.std(axis=0) - 1.0) < 0.1)
    np.testing.assert_allclose(table.mean(axis=0), 0.0, atol=0.18)


@pytest.mark.parametrize(
    ("z", "y", "errors", "reason"),
    [
        (Z[:2], parabola()[:2], ERRORS[:2], "too few focus positions: 2, need 3"),
        (Z[:3], parabola()[:3], None, "too few focus positions: 3, need 4"),
        (np.repeat(Z[:2], 3), np.arange(6.0), np.ones(6), "too few focus positions: 2"),
        (Z, np.full(7, np.nan), ERRORS, "too few focus positions: 0"),
        (Z, parabola(bend=0.5), ERRORS, "not concave"),
        (Z, parabola(bend=-0.001), ERRORS, "no maximum seen: the curvature is"),
        (Z, parabola(best=3.0), ERRORS, "best focus lies outside the scan: 3."),
        (Z, parabola() - 9.0, ERRORS, "the peak of the parabola is not positive"),
    ],
)
def test_failures_are_named(z: F64, y: F64, errors: F64 | None, reason: str) -> None:
    found = reduce_focus([FocusSeries("z", z, y, errors)])
    assert not found.valid
    assert reason in found.fits[0].reason
    assert reason in found.reason
    assert reason in found.mean("z", "best").reason


def test_no_positions_at_all() -> None:
    assert reduce_focus([]).reason == "no focus positions"


def test_each_axis_has_its_own_focus() -> None:
    series = [
        FocusSeries("z", Z, parabola(), ERRORS, receiver=0),
        FocusSeries("z", Z, parabola(best=0.2), 2 * ERRORS, receiver=1),
        FocusSeries("x", Z, parabola(best=-0.8), ERRORS),
    ]
    found = reduce_focus(series)
    assert found.valid
    assert found.mean("x", "best").mean.value == pytest.approx(-0.8, abs=1e-9)
    assert 0.2 < found.mean("z", "best").mean.value < 0.3
    assert found.mean("z", "best").n == 2


def test_errors_that_are_too_small_are_scaled() -> None:
    """One position is off by far more than its error says: the result's error grows with the residual."""
    y = parabola()
    y[2] += 1.0
    fit = fit_focus(FocusSeries("z", Z, y, ERRORS))
    clean = fit_focus(FocusSeries("z", Z, parabola(), ERRORS))
    assert fit.quality.chi2_dof > 10
    assert fit.best.error > 3 * clean.best.error
