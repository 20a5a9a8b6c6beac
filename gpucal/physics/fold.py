"""Weights that shift spectra by a number of channels, for folding frequency switches; physics equation (7.3)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

HALF_WIDTH = 16
"""Half width of the windowed sinc, channels."""

KAISER_BETA = 13.0
"""Kaiser window: an error below 3e-6 of lines with four channels or more in the FWHM; below, the sampling limits."""


class Shifts(NamedTuple):
    """Shift of each of the two phases of each receiver: out(c) = sum_m taps[m] x(c - n + m).

    taps f64 [2,R,33], m = -16..16. whole i64 [2,2,R]: c - whole[:, 0] is the channel next to c - shift,
    which is c - n, and c - whole[:, 1] the one on its other side, or the same where shift = n.
    """

    taps: F64
    whole: npt.NDArray[np.int64]


def shift_reach(shift: float) -> tuple[int, int]:
    """Channels below and above c - shift whose samples enter out(c)."""
    whole = math.floor(shift + 0.5)
    if shift == whole:
        return 0, 0
    return HALF_WIDTH, HALF_WIDTH


def sinc_weights(shift: float) -> tuple[int, np.ndarray[Any, np.dtype[np.float64]]]:
    """Whole part n and weights w[m], m = -16..16: out(c) = sum_m w[m] x(c - n + m).

    shift = n + f, |f| <= 1/2; w = sinc(m + f) Kaiser(m + f), normalised to sum 1. An integral shift has
    a single weight of exactly 1.
    """
    n = math.floor(shift + 0.5)
    fraction = shift - n
    m = np.arange(-HALF_WIDTH, HALF_WIDTH + 1)
    if fraction == 0:
        return n, (m == 0).astype(np.float64)
    x = m + fraction
    inside = np.clip(1.0 - (x / (HALF_WIDTH + 1)) ** 2, 0.0, None)
    weights = np.sinc(x) * np.i0(KAISER_BETA * np.sqrt(inside)) / np.i0(KAISER_BETA)
    return n, weights / weights.sum()


def fold_shifts(throw: F64) -> Shifts:
    """Weights and whole channels for a throw f64 [2,R] of both phases, channels."""
    phases, receivers = throw.shape
    taps = np.empty((phases, receivers, 2 * HALF_WIDTH + 1))
    whole = np.empty((phases, 2, receivers), dtype=np.int64)
    for place in np.ndindex(throw.shape):
        shift = float(throw[place])
        n, taps[place] = sinc_weights(shift)
        # c - shift lies between the channels c - n and c - n - sign(f)
        whole[place[0], :, place[1]] = n, n + int(np.sign(shift - n))
    return Shifts(taps, whole)
