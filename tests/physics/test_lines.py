"""Line positions, strengths and shapes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import trapezoid

from gpucal.physics.lines import (
    AMU,
    BOLTZMANN,
    CARBON_MONOXIDE,
    LIGHT,
    NITROUS_OXIDE,
    LineList,
    absorption,
    rotor_lines,
)


def test_line_positions() -> None:
    co = rotor_lines(CARBON_MONOXIDE, 250.0, 500.0, 8).freq_ghz
    np.testing.assert_allclose(
        co[[0, 1, 2, 3]], [115.271202, 230.538000, 345.795990, 461.040768], atol=1e-3
    )
    n2o = rotor_lines(NITROUS_OXIDE, 250.0, 500.0, 8).freq_ghz
    np.testing.assert_allclose(n2o[[0, 3]], [25.123, 100.4917], atol=2e-3)


def test_catalogue_intensity_of_carbon_monoxide() -> None:
    # JPL catalogue: log10 of the intensity of J = 1-0 and 3-2 at 300 K, nm^2 MHz: -5.0105, -3.6118
    lines = rotor_lines(CARBON_MONOXIDE, 300.0, 500.0, 3)
    log = np.log10(lines.strength / CARBON_MONOXIDE.abundance * 1e18 / 1e6)
    np.testing.assert_allclose(log[[0, 2]], [-5.0105, -3.6118], atol=0.005)


@pytest.mark.parametrize("width_ghz", [1e-5, 1e-3, 0.05])
def test_area_of_a_line_is_its_strength(width_ghz: float) -> None:
    line = LineList(np.array([345.8]), np.array([1e-17]), np.array([width_ghz]))
    steps = np.concatenate([np.arange(-0.02, 0.02, 2e-6), [0.02]])
    f = 345.8 + np.union1d(steps, np.linspace(-100, 100, 400001))
    got = absorption(f, line, 1e18, 250.0, 28.0)
    want = 1e-17 * 1e18 * 1e3  # m^2 Hz m^-3 m/km
    missing = 2 * width_ghz / (np.pi * 100)
    np.testing.assert_allclose(trapezoid(got, f * 1e9), want, rtol=2e-3 + 10 * missing)


def test_core_of_a_narrow_line_is_gaussian() -> None:
    line = LineList(np.array([300.0]), np.array([1e-17]), np.array([1e-9]))
    beta = 300.0 * np.sqrt(2 * BOLTZMANN * 200.0 / (48.0 * AMU)) / LIGHT
    f = 300.0 + beta * np.array([0.0, 0.5, 1.0])
    got = absorption(f, line, 1e18, 200.0, 48.0)
    np.testing.assert_allclose(got / got[0], np.exp([0.0, -0.25, -1.0]), rtol=1e-4)
