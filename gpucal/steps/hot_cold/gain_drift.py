"""Gain drift between two load scans; physics section 8."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.backend.protocol import Backend
from gpucal.products import GainDrift, LoadMeans

Array = Any


def drift_between(first: LoadMeans, second: LoadMeans, *, correct_off: bool) -> GainDrift:
    """Lines H(t), K(t) through the HOT and COLD means of two load scans at their own mid-times.

    Between the mid-times of the two load scans the lines hold; outside they are clamped. The epoch
    is the mid-time of the first load scan. Both must have a COLD load.
    """
    assert first.cold is not None
    assert second.cold is not None
    hot_rate = (second.hot - first.hot) / (second.hot_mjd - first.hot_mjd)
    cold_rate = (second.cold - first.cold) / (second.cold_mjd - first.cold_mjd)
    hot_1 = first.hot + hot_rate * (first.mjd - first.hot_mjd)
    cold_1 = first.cold + cold_rate * (first.mjd - first.cold_mjd)
    return GainDrift(
        mjd_1=first.mjd,
        mjd_2=second.mjd,
        cold_1=cold_1,
        cold_rate=cold_rate,
        span_1=hot_1 - cold_1,
        span_rate=hot_rate - cold_rate,
        correct_off=correct_off,
    )


def corrected(
    counts: Array,
    mjd: npt.NDArray[np.float64],
    drift: GainDrift,
    c0: int,
    c1: int,
    backend: Backend,
) -> Array:
    """C' = K1 + (C - K(t)) (H1-K1)/(H(t)-K(t)) for the channels c0..c1; physics equation (8.1).

    counts [c,D,R,A]; mjd f64 [D] of the dumps. Returns f64 [c,D,R,A]; fill and channels with
    H(t) <= K(t) become NaN.
    """
    xp = backend.xp
    t = xp.clip(backend.asarray(mjd), drift.mjd_1, drift.mjd_2) - drift.mjd_1
    t = t[None, :, None, None]
    cold_1 = drift.cold_1[c0:c1, None, ...]
    cold = cold_1 + drift.cold_rate[c0:c1, None, ...] * t
    span_1 = drift.span_1[c0:c1, None, ...]
    span = span_1 + drift.span_rate[c0:c1, None, ...] * t
    value = xp.astype(counts, xp.float64)
    if counts.dtype == xp.int32:
        value = xp.where(counts == xp.iinfo(xp.int32).min, xp.nan, value)
    return cold_1 + (value - cold) * (span_1 / xp.where(span > 0, span, xp.nan))
