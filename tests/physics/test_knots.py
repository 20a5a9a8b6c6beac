"""Knots for linear interpolation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucal.physics.knots import refine, thin


def curve(f: NDArray[Any]) -> NDArray[Any]:
    """A line 3 MHz wide off the first knots, and a slope."""
    return np.stack([1 / (1 + ((f - 5.3e9) / 3e6) ** 2), f / 1e10])


FINE = np.union1d(np.linspace(1e9, 10e9, 20001), 5.3e9 + np.linspace(-5e7, 5e7, 20001))


def largest_error(knots: NDArray[Any], values: NDArray[Any]) -> float:
    guess = np.stack([np.interp(FINE, knots, row) for row in values])
    return float(np.max(np.abs(guess - curve(FINE))))


def test_refine_reaches_the_tolerance() -> None:
    counts: list[int] = []
    knots, values = refine(np.array([1e9, 5.3e9, 10e9]), curve, lambda v: v, 1e-3, counts.append)
    np.testing.assert_array_equal(values, curve(knots))
    assert np.all(np.diff(knots) > 0)
    assert largest_error(knots, values) < 2e-3
    assert counts[-1] == knots.size < 1000


def test_refine_looks_again_beside_short_intervals() -> None:
    # a wave whose middle lies by accident on the straight line through its ends, then a narrow line
    def wave_and_line(f: NDArray[Any]) -> NDArray[Any]:
        x = np.maximum(f - 2e9, 0) / 3e6
        return np.stack([np.sin(2 * np.pi * (f - 1e9) / 1e9) * (f < 2e9) + x / (1 + x**2)])

    knots, values = refine(
        np.array([1e9, 2e9, 3e9]), wave_and_line, lambda v: v, 1e-3, lambda n: None
    )
    f = np.linspace(1e9, 2e9, 1001)
    error = np.interp(f, knots, values[0]) - wave_and_line(f)[0]
    assert np.max(np.abs(error)) < 3e-3


def test_thin_keeps_the_tolerance_and_the_ends() -> None:
    knots = np.linspace(1e9, 10e9, 90001)
    few, values = thin(knots, curve(knots), lambda v: v, 1e-3)
    assert few.size < 400
    np.testing.assert_array_equal(few[[0, -1]], knots[[0, -1]])
    np.testing.assert_array_equal(values, curve(few))
    guess = np.stack([np.interp(knots, few, row) for row in values])
    assert np.max(np.abs(guess - curve(knots))) < 1e-3


def test_thin_leaves_what_is_needed() -> None:
    zigzag = np.stack([np.arange(50) % 2.0])
    knots = np.arange(1.0, 51.0)
    few, _ = thin(knots, zigzag, lambda v: v, 0.1)
    assert few.size == 50
