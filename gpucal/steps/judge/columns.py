"""A first look at a tile: which columns (all dumps of a channel and pixel) hold anything that stands out.

Nearly every sample is noise around the mean of its column, and this is what each of them costs: the largest and the
smallest of many channels, while they are in the cache, against limits that hold for all of them. Only where one of the
two is beyond, each pixel of few channels is looked at, and then each column. Shapes: c channels of a tile, D dumps,
P pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

GROUP_BYTES = 1 << 20
"""Samples that stay in the cache of a core while they are looked at."""

FEW = 32
"""Channels whose pixels are looked at one by one."""

ROW = 96
"""Samples that NumPy should find in one row; the dumps of few pixels are taken together."""


def excess_of_columns(samples: npt.NDArray[Any], mean: F64, reach: F64, usual: float) -> F64:
    """How far the sample that is furthest from the mean of its column lies from it, f64 [c,P] in units of ``reach``.

    samples [c,D,P], NaN where blank; mean and reach f64 [c,P]; usual: what noise alone makes of it in many samples. 0
    where a look at more than one channel shows that it is not above 1; NaN where there is nothing to look at.
    """
    c, d, p = samples.shape
    few = min(FEW, max(1, GROUP_BYTES // max(1, d * p * samples.itemsize)))
    step = few * max(1, GROUP_BYTES // max(1, few * d * p * samples.itemsize))
    excess = np.zeros((c, p))
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        for start in range(0, c, step):
            part = slice(start, start + step)
            group, middle, far = samples[part], mean[part], reach[part]
            if not _all_within(group, middle, far, usual):
                odd = _odd_channels(group, middle, far, usual, few)
                excess[part][odd] = _excess(group[odd], middle[odd], far[odd])
    return excess


def _all_within(group: npt.NDArray[Any], mean: F64, reach: F64, usual: float) -> bool:
    """Whether a group [g,D,P] lies between limits that hold for each column; False where these are too narrow."""
    narrow, wide = np.fmin.reduce(reach, axis=None), np.fmax.reduce(reach, axis=None)
    low, high = np.fmin.reduce(mean, axis=None), np.fmax.reduce(mean, axis=None)
    most, least = low + narrow, high - narrow
    if most - least < 2 * usual * wide or np.fmax.reduce(group, axis=None) > most:
        return False
    return not np.fmin.reduce(group, axis=None) < least


def _odd_channels(group: npt.NDArray[Any], mean: F64, reach: F64, usual: float, few: int) -> Mask:
    """Channels, bool [g], of which a pixel does not lie between limits that hold for a few channels."""
    g, d, p = group.shape
    odd = np.ones(g, dtype=np.bool_)
    n = g // few
    if not n or few == 1:
        return odd
    whole = slice(0, n * few)
    mean, reach = mean[whole].reshape(n, few, p), reach[whole].reshape(n, few, p)
    narrow, wide = np.fmin.reduce(reach, axis=1), np.fmax.reduce(reach, axis=1)
    low, high = np.fmin.reduce(mean, axis=1), np.fmax.reduce(mean, axis=1)
    most, least = low + narrow, high - narrow
    beyond = most - least < 2 * usual * wide
    rows = group[whole].reshape(n, few, d * p)
    beyond |= _over_dumps(np.fmax, np.fmax.reduce(rows, axis=1).reshape(n, d, p)) > most
    beyond |= _over_dumps(np.fmin, np.fmin.reduce(rows, axis=1).reshape(n, d, p)) < least
    odd[whole] = np.repeat(beyond.any(axis=1), few)
    return odd


def _excess(group: npt.NDArray[Any], mean: F64, reach: F64) -> F64:
    """``excess_of_columns`` of a group [g,D,P], column by column."""
    above, below = _over_dumps(np.fmax, group) - mean, mean - _over_dumps(np.fmin, group)
    return np.asarray(np.fmax(above, below) / np.where(reach > 0, reach, np.nan))


def _over_dumps(operation: np.ufunc, group: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """``operation.reduce``, of fmax or fmin, over the dumps of a group [g,D,P], in long rows."""
    g, d, p = group.shape
    if p == 1:
        return np.asarray(operation.reduce(group, axis=1))
    together = -(-ROW // p)
    whole = d - d % together
    if whole > together:
        rows = group[:, :whole].reshape(g, whole // together, together * p)
        found = operation.reduce(rows, axis=1).reshape(g, together, p)
        group = found if whole == d else operation(found, group[:, -together:])
    # To take a dump twice does no harm.
    while group.shape[1] > 1:
        half = -(-group.shape[1] // 2)
        group = operation(group[:, :half], group[:, -half:])
    return np.asarray(group[:, 0])
