"""How well a line is shifted by a fraction of a channel: the bounds of the page of equations."""

from __future__ import annotations

import numpy as np
import pytest

from gpucal.physics.fold import HALF_WIDTH, sinc_weights

BOUNDS = [(2.0, 2e-2), (2.5, 3e-3), (3.0, 3e-4), (4.0, 3e-6), (6.0, 3e-6), (20.0, 3e-6)]


def worst(fwhm: float, shift: float) -> float:
    """Largest error of a shifted Gaussian of unit peak, wherever it lies between the channels."""
    n, taps = sinc_weights(shift)
    channel = np.arange(-40, 41)[:, None]
    m = np.arange(-HALF_WIDTH, HALF_WIDTH + 1)
    error = 0.0
    for centre in np.linspace(-0.5, 0.5, 11):

        def line(x: np.ndarray, centre: float = centre) -> np.ndarray:
            return np.asarray(np.exp(-4 * np.log(2) * ((x - centre) / fwhm) ** 2))

        moved = line(channel - n + m) @ taps
        error = max(error, float(np.abs(moved - line(channel[:, 0] - shift)).max()))
    return error


@pytest.mark.parametrize(("fwhm", "bound"), BOUNDS)
def test_a_line_is_shifted_within_the_documented_bound(fwhm: float, bound: float) -> None:
    errors = [worst(fwhm, shift) for shift in (0.1, 0.3, 0.5, -7.25, 8.45)]
    assert max(errors) < bound
    if fwhm < 4:  # the sampling limits it, whatever the weights
        assert max(errors) > bound / 20


@pytest.mark.parametrize("shift", [0.0, 3.0, -64.0])
def test_a_whole_shift_is_exact(shift: float) -> None:
    n, taps = sinc_weights(shift)
    assert n == int(shift)
    assert np.count_nonzero(taps) == 1
    assert taps.sum() == 1.0


def test_a_constant_stays_and_noise_is_not_raised() -> None:
    for shift in np.linspace(-0.5, 0.5, 21):
        taps = sinc_weights(float(shift))[1]
        assert taps.sum() == pytest.approx(1.0, abs=1e-14)
        assert 0.9 < np.sum(taps**2) <= 1.0
