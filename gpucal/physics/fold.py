"""Shift spectra by a number of channels, for folding frequency-switched spectra; section 7."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from gpucal.axes import Flag

Array = Any

HALF_WIDTH = 16
"""Half width of the windowed sinc, channels."""

KAISER_BETA = 9.0
"""Kaiser window: side lobes near 1e-6 for spectra sampled at 2.5 channels or more per FWHM."""


def shift_reach(shift: float) -> tuple[int, int]:
    """How far below and above channel c - shift the samples lie that make out(c)."""
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


def shifted(values: Array, flags: Array, first: int, span: tuple[int, int], shift: float) -> Any:
    """Spectra moved up by ``shift`` channels: out(c) = values(c - shift) for c in ``span``.

    values f64 [m, ...] and flags u16 [m, ...] hold the channels first..first+m. Returns (out, flags)
    for the channels span[0]..span[1]. Flags travel with the shift: the union of the two channels that
    straddle c - shift. A NaN there gives NaN; a NaN further away drops out of the sum. Channels that are
    not covered get NaN and the flag FILL_VALUE.
    """
    xp = array_namespace(values)
    n, weights = sinc_weights(shift)
    c0, c1 = span
    fraction = shift - n
    # out(c) lies between the channels c-n and c-n-sign(f)
    near = [0] if fraction == 0 else [0, -1 if fraction > 0 else 1]
    total = xp.zeros((c1 - c0, *values.shape[1:]), dtype=xp.float64)
    norm = xp.zeros_like(total)
    bits = xp.zeros(total.shape, dtype=xp.uint16)
    broken = xp.zeros(total.shape, dtype=xp.bool)
    for m in np.flatnonzero(weights).tolist():
        tap = m - HALF_WIDTH
        part = _window(values, first, c0 - n + tap, c1 - c0, xp.nan, xp)
        gone = xp.isnan(part)
        total = total + xp.where(gone, 0.0, float(weights[m]) * part)
        norm = norm + float(weights[m]) * xp.astype(~gone, xp.float64)
        if tap in near:
            broken = broken | gone
            bits = bits | _window(flags, first, c0 - n + tap, c1 - c0, int(Flag.FILL_VALUE), xp)
    if fraction != 0:
        total = total / xp.where(norm == 0, 1.0, norm)
    return xp.where(broken, xp.nan, total), bits


def _window(values: Array, first: int, start: int, n: int, fill: float, xp: Any) -> Array:
    """Channels start..start+n of an array whose channel 0 is ``first``; ``fill`` outside."""
    lo = max(start, first)
    hi = min(start + n, first + values.shape[0])
    rest = values.shape[1:]
    if hi <= lo:
        return xp.full((n, *rest), fill, dtype=values.dtype)
    parts = [values[lo - first : hi - first, ...]]
    if lo > start:
        parts.insert(0, xp.full((lo - start, *rest), fill, dtype=values.dtype))
    if hi < start + n:
        parts.append(xp.full((start + n - hi, *rest), fill, dtype=values.dtype))
    return parts[0] if len(parts) == 1 else xp.concat(parts, axis=0)
