"""Records that do not belong to the others of their scan: a median and how far they lie from it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gpucal.scan import F64

Bools = npt.NDArray[np.bool_]

SIGMAS = 10.0
"""Multiples of the robust spread beyond which a record is none of its series."""

_SIGMA_PER_MAD = 1.4826


def outliers(values: F64, floor: float) -> Bools:
    """Which of at least three finite values [n] lie further from the median than ``floor`` and 10 sigma.

    NaN never is one; fewer than three values have no majority.
    """
    good = np.isfinite(values)
    if good.sum() < 3:
        return np.zeros(values.shape, dtype=np.bool_)
    middle = float(np.median(values[good]))
    spread = _SIGMA_PER_MAD * float(np.median(np.abs(values[good] - middle)))
    limit = max(floor, SIGMAS * spread)
    return np.asarray(np.abs(np.where(good, values, middle) - middle) > limit)


def jumps(values: F64, floor: float, step: float) -> Bools:
    """Which of at least three values [n] of a smooth track stand out from the median of three about them.

    step: a usual change from one to the next; fifteen of them are no jump yet.
    """
    return np.asarray(np.abs(values - smooth(values)) > max(floor, 15.0 * step))


def smooth(values: F64) -> F64:
    """Running median of three, at the ends that of the first and the last three; values [n], n >= 3."""
    inner = np.median(np.stack([values[:-2], values[1:-1], values[2:]]), axis=0)
    return np.concatenate([inner[:1], inner, inner[-1:]])


def two_differ(values: F64, limit: float) -> bool:
    """Whether there are exactly two finite values, further apart than ``limit``: neither is known to be right."""
    good = values[np.isfinite(values)]
    return good.size == 2 and bool(abs(good[1] - good[0]) > limit)
