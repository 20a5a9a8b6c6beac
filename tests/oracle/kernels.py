"""The kernels as plain loops over Python floats: slow, obvious, and sharing no code.

Equations: physics sections 4 (loads), 5 (atmosphere), 6 (spectrum) and 7 (reference).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

INT32_FILL = -(2**31)
BAD_CHANNEL = 1
FILL_VALUE = 2


def is_fill(value: Any, dtype: np.dtype[Any]) -> bool:
    """Whether a raw count means "no data" in this dtype."""
    if dtype == np.int32:
        return int(value) == INT32_FILL
    if dtype == np.uint32:
        return False
    return not math.isfinite(float(value))


def calibrate(
    counts: NDArray[Any],
    reference: NDArray[Any],
    factor: NDArray[Any],
    base_flags: NDArray[Any],
    out_dtype: Any,
) -> tuple[NDArray[Any], NDArray[Any], int]:
    """Return spectra, flags and the number of samples with bit 1."""
    channels, dumps, receivers, pixels = counts.shape
    spectra = np.empty(counts.shape, out_dtype)
    flags = np.empty(counts.shape, np.uint16)
    lost = 0
    for c, d, r, a in np.ndindex(channels, dumps, receivers, pixels):
        ref = float(reference[c, r, a] if reference.ndim == 3 else reference[c, d, r, a])
        fac = float(factor[c, r, a])
        flag = int(base_flags[c, r, a])
        bad = flag & BAD_CHANNEL
        if is_fill(counts[c, d, r, a], counts.dtype):
            flag |= FILL_VALUE
        if not bad and not (math.isfinite(ref) and math.isfinite(fac)):
            flag |= FILL_VALUE
        value = (float(counts[c, d, r, a]) - ref) * fac
        if flag & (BAD_CHANNEL | FILL_VALUE):
            value = math.nan
        with np.errstate(over="ignore"):
            spectra[c, d, r, a] = np.dtype(out_dtype).type(value)
        flags[c, d, r, a] = flag
        lost += bool(flag & FILL_VALUE)
    return spectra, flags, lost


def dump_mean(
    counts: NDArray[Any], valid: NDArray[Any] | None = None
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return the mean over dumps, the number of valid dumps, and the mean absolute count."""
    channels, dumps, receivers, pixels = counts.shape
    mean = np.empty((channels, receivers, pixels))
    size = np.zeros((channels, receivers, pixels))
    number = np.empty((channels, receivers, pixels), np.int32)
    whole = counts.dtype.kind in "iu"
    for c, r, a in np.ndindex(channels, receivers, pixels):
        total, n, absolute = 0 if whole else 0.0, 0, 0.0
        for d in range(dumps):
            value = counts[c, d, r, a]
            if is_fill(value, counts.dtype) or (valid is not None and not valid[d]):
                continue
            total += int(value) if whole else float(value)
            absolute += abs(float(value))
            n += 1
        number[c, r, a] = n
        mean[c, r, a] = float(total) / n if n else math.nan
        size[c, r, a] = absolute / n if n else 0.0
    return mean, number, size


def _blend(first: Any, second: Any, weight: Any) -> float:
    one, two, w = float(first), float(second), float(weight)
    if math.isnan(one):
        return two
    if math.isnan(two):
        return one
    if w == 0.0:
        return one
    if w == 1.0:
        return two
    return (1.0 - w) * one + w * two


def reference(off1: NDArray[Any], off2: NDArray[Any], weight: Any) -> NDArray[Any]:
    """Return (1-w) OFF_1 + w OFF_2 for a scalar w or one w per dump."""
    channels, receivers, pixels = off1.shape
    w = np.asarray(weight)
    if w.ndim == 0:
        out = np.empty(off1.shape)
        for c, r, a in np.ndindex(off1.shape):
            out[c, r, a] = _blend(off1[c, r, a], off2[c, r, a], w)
        return out
    out = np.empty((channels, w.size, receivers, pixels))
    for c, d, r, a in np.ndindex(out.shape):
        out[c, d, r, a] = _blend(off1[c, r, a], off2[c, r, a], w[d])
    return out


def _model(p: float, airmass: float, amplitude: Any, opacity: Any) -> tuple[float, float, float]:
    """S_mod, dS/dP and d2S/dP2 of one channel; amplitude [2], opacity [3][2][J]."""
    points = len(opacity[0][0])
    s = s1 = s2 = 0.0
    for k in range(2):
        t = t1 = t2 = 0.0
        for j in range(points):
            b, q, c = (float(opacity[i][k][j]) for i in range(3))
            tau = b * p + q * p * p + c
            slope = b + 2.0 * q * p
            e = math.exp(-airmass * tau)
            t += e
            t1 += -airmass * slope * e
            t2 += (airmass * airmass * slope * slope - 2.0 * airmass * q) * e
        s += float(amplitude[k]) * t / points
        s1 += float(amplitude[k]) * t1 / points
        s2 += float(amplitude[k]) * t2 / points
    return s, s1, s2


def chi2(
    pwv: NDArray[Any],
    airmass: float,
    observed: NDArray[Any],
    weight: NDArray[Any],
    amplitude: NDArray[Any],
    opacity: NDArray[Any],
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return [4, K, N] and, for tolerances, the sums of the absolute values of all terms."""
    channels, fits = observed.shape
    trials = pwv.shape[0]
    amplitude = np.broadcast_to(amplitude, (2, channels, fits))
    opacity = np.broadcast_to(opacity, (*opacity.shape[:3], channels, fits))
    pwv = np.broadcast_to(pwv, (trials, fits))
    sums = np.zeros((4, trials, fits))
    sizes = np.zeros((4, trials, fits))
    for k, n in np.ndindex(trials, fits):
        for c in range(channels):
            w = float(weight[c, n])
            if w == 0.0:
                continue
            s, s1, s2 = _model(
                float(pwv[k, n]), airmass, amplitude[:, c, n], opacity[:, :, :, c, n]
            )
            residual = float(observed[c, n]) - s
            span = abs(float(observed[c, n])) + abs(s)
            sums[:, k, n] += (
                w * residual**2,
                -2.0 * w * residual * s1,
                2.0 * w * (s1 * s1 - residual * s2),
                2.0 * w * s1 * s1,
            )
            sizes[:, k, n] += (
                w * span**2,
                2.0 * w * span * abs(s1),
                2.0 * w * (s1 * s1 + span * abs(s2)),
                2.0 * w * s1 * s1,
            )
    return sums, sizes


def _at(column: NDArray[Any], place: int, beyond: Any) -> Any:
    return column[place] if 0 <= place < len(column) else beyond


def _shifted(column: NDArray[Any], here: int, other: int, taps: Any) -> float:
    """One shifted sample of the spectra of one pixel: sum over the taps without NaN."""
    if here == other:
        taps = taps[len(taps) // 2 : len(taps) // 2 + 1]
    total = norm = 0.0
    for m, tap in enumerate(taps):
        value = float(_at(column, here - len(taps) // 2 + m, math.nan))
        if not math.isnan(value):
            total += float(tap) * value
            norm += float(tap)
    if math.isnan(_at(column, here, math.nan)) or math.isnan(_at(column, other, math.nan)):
        return math.nan
    return total / (norm or 1.0)


def _ratio(numerator: Any, denominator: Any) -> float:
    """Division as IEEE 754 has it."""
    with np.errstate(all="ignore"):
        return float(np.float64(numerator) / np.float64(denominator))


def fold(
    spectra: NDArray[Any],
    flags: NDArray[Any],
    weight: NDArray[Any],
    taps: NDArray[Any],
    nearest: NDArray[Any],
    transmission: NDArray[Any] | None,
    base_flags: NDArray[Any],
    out_dtype: Any,
) -> tuple[NDArray[Any], NDArray[Any], int]:
    """Return folded spectra, flags and the number of samples with bit 1."""
    channels = len(base_flags)
    _, dumps, receivers, pixels = spectra.shape
    shape = (channels, dumps, receivers, pixels)
    out, out_flags, lost = np.empty(shape, out_dtype), np.empty(shape, np.uint16), 0
    if transmission is not None:
        transmission = np.broadcast_to(transmission, base_flags.shape)
    for c, d, r, a in np.ndindex(shape):
        t, w, flag = [], [], int(base_flags[c, r, a]) & ~BAD_CHANNEL
        for p in range(2):
            here, other = (int(n) + c for n in nearest[p, :, r])
            t.append(_shifted(spectra[:, d, r, a], here, other, taps[p, r]))
            w.append(float(_at(weight[:, r, a], here, math.nan)))
            for place in (here, other):
                flag |= int(_at(flags[:, d, r, a], place, FILL_VALUE))
        value = _ratio(w[0] * t[0] - w[1] * t[1], w[0] + w[1])
        if transmission is not None:
            value = _ratio(value, transmission[c, r, a])
        if not math.isfinite(value):
            value = math.nan
            if not flag & BAD_CHANNEL:
                flag |= FILL_VALUE
        with np.errstate(over="ignore"):
            out[c, d, r, a] = np.dtype(out_dtype).type(value)
        out_flags[c, d, r, a] = flag
        lost += bool(flag & FILL_VALUE)
    return out, out_flags, lost
