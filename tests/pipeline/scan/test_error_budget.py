"""The errors that L1 states are those that inputs and noise cause: Monte Carlo against the budget; physics section 12.

The full one, with random draws, is made on demand (the number of draws of each source):

    GPUCAL_MONTE_CARLO=100 pytest -s tests/pipeline/scan/test_error_budget.py -k on_demand
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders.input_errors import Draws, all_together, case, moved, one_by_one
from builders.truth_setup import calibrated, simulate_scan, steady, without_lines

from gpucal import CalibrationConfig
from gpucal.physics.rounding import with_error
from gpucal.scan import ArrayCounts
from gpucal.simulate.counts import Recording
from gpucal.steps.error_budget import budget as budget_module

DRAWS = int(os.environ.get("GPUCAL_MONTE_CARLO", "0"))
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "hera, g_i 0.09": ("hera", {}),
    "superc, DSB": ("superc", {}),
    "upgreat, DSB": ("upgreat", {}),
    "hera, per pixel": ("hera", {"pwv_scope": "per-pixel"}),
    "hera, --t-atm 250": ("hera", {"t_atm": 250.0}),
    "argus, vane": ("argus", {"cal_scheme": "vane"}),
    "argus, vane-channel, g_i 0.33": ("argus", {"cal_scheme": "vane-channel", "gain_image": 0.5}),
}


def check(draws: Draws, total: dict[str, Any], tolerance: float) -> None:
    """The scatter is what the budget says, of all that is not negligible."""
    pwv, t_a_star = draws.ratios
    assert t_a_star == pytest.approx(1.0, abs=tolerance), draws
    matters = total.get("pwv_error_systematic", 0.0)
    if np.isfinite(pwv) and draws.row["pwv_mm"] > 0.02 * matters:
        assert pwv == pytest.approx(1.0, abs=tolerance), draws


@pytest.mark.parametrize("name", [n for n in CASES if "upgreat" not in n and "pixel" not in n])
def test_each_source_does_what_the_budget_says(name: str) -> None:
    preset, options = CASES[name]
    of = case(preset, channels=32, **options)
    total = of.base.quality
    found = one_by_one(of, 2)
    assert {"opacity", "t_hot", "t_amb"} <= {draws.source for draws in found}
    for draws in found:
        check(draws, total, 0.2)
    # independent sources add up as squares
    squares = sum(row["t_a_star"] ** 2 for row in total["error_budget"])
    assert total["t_a_star_error"] == pytest.approx(np.sqrt(squares), rel=0.05)


def test_all_sources_at_once() -> None:
    of = case("hera", channels=32)
    check(all_together(of, 12), of.base.quality, 0.2)


@pytest.mark.skipif(DRAWS < 50, reason="on demand: GPUCAL_MONTE_CARLO=100")
@pytest.mark.parametrize("name", CASES)
def test_on_demand_many_random_draws(name: str) -> None:
    preset, options = CASES[name]
    of = case(preset, channels=32, **options)
    total = of.base.quality
    print()
    for draws in [*one_by_one(of, DRAWS), all_together(of, DRAWS)]:
        row, (pwv, t_a_star) = draws.row, draws.ratios
        said = f"{row['pwv_mm']:.2g} | {draws.pwv:.2g}" if np.isfinite(pwv) else " | "
        print(
            f"| {name} | {draws.source} | {said} | {100 * row['t_a_star']:.2g} | "
            f"{100 * draws.t_a_star:.2g} | {t_a_star:.2f} |"
        )
        check(draws, total, 0.2)


@pytest.mark.parametrize("scope", ["full", "per-pixel"])
def test_noise_moves_the_water_by_what_is_said(scope: str) -> None:
    """PWV of noisy nights over its error by noise, and chi2 by noise alone about 1: the model is right here."""
    setup = replace(without_lines(steady("hera")), fill_fraction=0.0)
    pulls, chi2 = [], []
    for seed in range(3 if scope == "per-pixel" else 8):
        recording = Recording(dtype="f64", noise=True, seed=seed)
        simulated = simulate_scan(setup, "tp", 7, recording=recording)
        result = calibrated(simulated, CalibrationConfig(pwv_scope=scope))
        errors = result.solution.errors
        assert errors is not None
        moved_by = result.solution.atmosphere.pwv - simulated.truths[0].pwv_mm
        pulls.append(np.ravel(moved_by / errors.pwv_noise))
        chi2.append(float(np.mean(errors.chi2_noise)))
        assert np.all(errors.pwv_systematic > 100 * errors.pwv_noise)
        np.testing.assert_allclose(
            errors.pwv, np.hypot(errors.pwv_noise, errors.pwv_systematic), rtol=1e-12
        )
    spread = float(np.sqrt(np.mean(np.concatenate(pulls) ** 2)))
    assert 0.6 < spread < 1.5 if scope == "full" else 0.8 < spread < 1.25
    assert np.mean(chi2) == pytest.approx(1.0, abs=0.05)


def test_a_wrong_model_shows_in_chi2_by_noise() -> None:
    of = case("hera", channels=32)
    noisy = simulate_scan(
        replace(without_lines(steady("hera")), pixels=2, fill_fraction=0.0),
        "tp",
        7,
        recording=Recording(dtype="f64", noise=True, seed=1),
    )
    right, wrong = (moved(replace(of, simulated=noisy), t_amb=dt) for dt in (0.0, -10.0))
    assert right.quality["chi2_dof_noise"] < 1.2
    assert wrong.quality["chi2_dof_noise"] > 2  # most of it the water takes up
    assert wrong.quality["chi2_dof"] < 1  # the trust in the opacities hides it there


def test_a_given_opacity_has_a_budget_too() -> None:
    of = case("hera", channels=32)
    config = CalibrationConfig(atmosphere="none", tau=0.3, opacity_trust=0.1)
    from gpucal import calibrate_scan

    result = calibrate_scan(of.simulated.scans[0], config)
    rows = {row["source"]: row for row in result.quality["error_budget"]}
    assert "noise" not in rows
    assert "pwv" not in rows
    airmass = float(result.solution.atmosphere.airmass.mean())
    assert rows["opacity"]["t_a_star"] == pytest.approx(0.1 * 0.3 * airmass, rel=0.01)
    assert rows["f_eff"]["t_a_star"] == pytest.approx(0.01 / result.solution.setup.f_eff, rel=1e-3)
    assert np.isnan(result.quality["pwv_error"])
    assert np.isfinite(result.quality["t_a_star_error"])


def test_errors_of_0_leave_nothing_but_noise() -> None:
    names = ("error_t_hot", "error_t_cold", "error_f_eff", "error_g_image", "error_t_amb")
    of = case("hera", channels=32, opacity_trust=0.0, **dict.fromkeys(names, 0.0))
    quality = of.base.quality
    assert quality["pwv_error_systematic"] == 0
    assert quality["pwv_error"] == quality["pwv_error_noise"] > 0
    assert quality["t_a_star_error"] < 1e-4


def test_without_an_image_its_gain_has_no_error() -> None:
    of = case("hera", channels=32, gain_image=0.0)
    assert of.budget()["g_image"]["t_a_star"] == 0
    assert of.budget()["g_image"]["pwv_mm"] == 0


def test_outputs_between_those_worked_out_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = steady("hera")
    setup = replace(
        without_lines(setup),
        pixels=2,
        timing=replace(setup.timing, dumps=2, n_on=12),
        weather=replace(setup.weather, elevation_deg=35.0, elevation_swing_deg=30.0),
    )
    simulated = simulate_scan(setup, "tp", 7)
    some = calibrated(simulated, CalibrationConfig()).solution.errors
    monkeypatch.setattr(budget_module, "MAX_OUTPUTS", 99)
    every = calibrated(simulated, CalibrationConfig()).solution.errors
    assert some is not None
    assert every is not None
    assert some.t_a_star.shape == (2, 2, 12)
    np.testing.assert_allclose(some.t_a_star, every.t_a_star, rtol=0.01)


def test_a_dead_pixel_has_no_errors_and_the_others_have_theirs() -> None:
    setup = replace(without_lines(steady("hera")), pixels=3, fill_fraction=0.0)
    simulated = simulate_scan(setup, "tp", 7)
    scan = simulated.scans[0]
    assert scan.calibration is not None
    counts = scan.calibration.counts
    values = np.array(np.stack([counts.read(0, counts.shape[0], s) for s in range(2)], axis=-1))
    values[:, :, 0, 1] = 0.0
    dead = replace(scan, calibration=replace(scan.calibration, counts=ArrayCounts(values)))
    config = CalibrationConfig(pwv_scope="per-pixel")
    whole = calibrated(simulated, config).solution.errors
    found = calibrated(replace(simulated, scans=(dead,)), config).solution.errors
    assert whole is not None
    assert found is not None
    hit = np.zeros((2, 3), dtype=np.bool_)
    hit[0, 1] = True
    for name in ("pwv_noise", "pwv_systematic", "t_a_star"):
        one, two = (getattr(e, name)[..., 0] for e in (found, whole))
        assert np.isnan(one[hit]).all()
        np.testing.assert_allclose(one[~hit], two[~hit], rtol=1e-9)


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (1.2345, 0.04, "1.23 ± 0.04"),
        (3.0028, 0.2428, "3.00 ± 0.24"),
        (0.61, 0.01, "0.610 ± 0.010"),
        (12.3, 9.97, "12 ± 10"),
        (0.6, 0.00123, "0.6000 ± 0.0012"),
        (2.0, 0.036, "2.00 ± 0.04"),
        (1.5, float("nan"), "1.5"),
        (1.5, 0.0, "1.5"),
        (1.5, float("inf"), "1.5"),
    ],
)
def test_a_value_has_the_digits_that_its_error_leaves(
    value: float, error: float, text: str
) -> None:
    assert with_error(value, error) == text
