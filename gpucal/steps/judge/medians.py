"""Medians of what is finite: centers of columns, levels of dumps, and the scatter of a pixel.

Shapes: c channels of a tile, D dumps, P pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]

MEDIAN_OF_SQUARE = 0.454936423119572
"""Median of the square of a Gaussian of unit variance (chi^2 with one degree of freedom)."""

SOME = 32
"""Channels, and dumps, from which levels and the scatter are taken."""


def median_of_rows(values: F64) -> F64:
    """Median of each row of values f64 [n,m] without what is not finite; NaN for a row without any."""
    ordered = np.sort(np.where(np.isfinite(values), values, np.nan), axis=1)
    n = np.isfinite(ordered).sum(axis=1)
    top = np.maximum(n - 1, 0)
    rows = np.arange(len(values))
    middle = 0.5 * (ordered[rows, top // 2] + ordered[rows, (top + 1) // 2])
    return np.asarray(np.where(n > 0, middle, np.nan))


def mean_over_dumps(values: F64) -> F64:
    """Mean over dumps, f64 [c,P], of values f64 [c,D,P] without what is not finite; NaN where nothing is."""
    good = np.isfinite(values)
    n = good.sum(axis=1)
    total = np.where(good, values, 0.0).sum(axis=1)
    return np.asarray(np.where(n > 0, total / np.maximum(n, 1), np.nan))


def some_of(channels: Index) -> Index:
    """About SOME of these channels, evenly spread."""
    return channels[:: max(1, len(channels) // SOME)]


def scatter_of(values: npt.NDArray[Any], sigma: F64, pixels: Mask) -> F64:
    """Noise of some pixels over that of the radiometer equation, at least 1, f64 [q].

    values [c,D,P] and sigma f64 [c,P] K, pixels bool [P]. The lower of two: from one dump to the next, and from one
    channel to the next; medians of some squares.
    """
    c, d, _ = values.shape
    channels = np.arange(0, max(1, c - 1), max(1, c // SOME))
    dumps = np.arange(0, max(1, d - 1), max(1, d // SOME))

    def some(channel: Index, dump: Index) -> F64:
        return np.asarray(values[np.ix_(channel, dump)][..., pixels], dtype=np.float64)

    here, variance = some(channels, dumps), 2.0 * (sigma[channels][:, pixels] ** 2)[:, None]
    following = [some(channels, dumps + 1)] if d > 1 else []
    if c > 1:
        following.append(some(channels + 1, dumps))
    found = np.full(int(np.count_nonzero(pixels)), np.nan)
    for other in following:
        square = (other - here) ** 2 / variance
        found = np.fmin(
            found, median_of_rows(np.ascontiguousarray(square.reshape(-1, len(found)).T))
        )
    return np.asarray(np.sqrt(np.fmax(1.0, found / MEDIAN_OF_SQUARE)))
