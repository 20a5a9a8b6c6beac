"""Gain drift between two load scans; physics section 8."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
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


def drift_through(loads: Sequence[LoadMeans], *, correct_off: bool) -> GainDrift:
    """H(t), K(t) through the HOT and COLD means of two or more measurements of the loads, in order of time.

    Straight from one to the next at their own mid-times, clamped outside the first and the last, whose epoch is that
    of the first. All must have a COLD load.
    """
    line = drift_between(loads[0], loads[1], correct_off=correct_off)
    bends: list[tuple[float, Array | None, Array]] = []
    for before, here, after in zip(loads, loads[1:], loads[2:], strict=False):
        hot = _rate(here.hot, here.hot_mjd, after.hot, after.hot_mjd)
        hot = hot - _rate(before.hot, before.hot_mjd, here.hot, here.hot_mjd)
        cold = _rate(here.cold, here.cold_mjd, after.cold, after.cold_mjd)
        cold = cold - _rate(before.cold, before.cold_mjd, here.cold, here.cold_mjd)
        bends += [(here.hot_mjd, None, hot), (here.cold_mjd, cold, -cold)]
    return replace(line, mjd_2=loads[-1].mjd, bends=tuple(bends))


def _rate(first: Array, mjd_1: float, second: Array, mjd_2: float) -> Array:
    return (second - first) / (mjd_2 - mjd_1)


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
    when = xp.clip(backend.asarray(mjd), drift.mjd_1, drift.mjd_2)
    t = (when - drift.mjd_1)[None, :, None, None]
    cold_1 = drift.cold_1[c0:c1, None, ...]
    cold = cold_1 + drift.cold_rate[c0:c1, None, ...] * t
    span_1 = drift.span_1[c0:c1, None, ...]
    span = span_1 + drift.span_rate[c0:c1, None, ...] * t
    for bend, cold_rate, span_rate in drift.bends:
        past = xp.clip(when - bend, 0.0, None)[None, :, None, None]
        if cold_rate is not None:
            cold = cold + cold_rate[c0:c1, None, ...] * past
        span = span + span_rate[c0:c1, None, ...] * past
    value = xp.astype(counts, xp.float64)
    if counts.dtype == xp.int32:
        value = xp.where(counts == xp.iinfo(xp.int32).min, xp.nan, value)
    return cold_1 + (value - cold) * (span_1 / xp.where(span > 0, span, xp.nan))
