"""Loads averaged in bins of frequency: a receiver temperature that is smooth; physics section 4, "Loads in bins".

The bandpass may change within a bin as it likes: it is that of the HOT load, channel by channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.backend.protocol import Backend

Array = Any
F64 = npt.NDArray[np.float64]

UNLIKE = 0.3
"""A channel whose Y - 1 differs by this fraction from that of its bin is bad."""


def cold_of_bins(
    hot: Array,
    cold: Array,
    j_hot: Array,
    j_cold: Array,
    channels: float,
    borders: Sequence[int],
    backend: Backend,
) -> Array:
    """Counts of the COLD load as T_rec in bins has them, f64 [C,R,A]; equations (4.7) and (4.8).

    hot, cold: counts [C,R,A]; j_hot, j_cold: brightness of the loads, K, broadcastable to it; channels: width of a
    bin in channels; borders: where a unit of the spectrometer begins, which no bin and no line crosses. NaN
    in every channel of a bin that is not warmer with the HOT load.
    """
    h, k = (np.asarray(backend.to_host(x), dtype=np.float64) for x in (hot, cold))
    jh, jk = (
        np.broadcast_to(np.asarray(backend.to_host(x), np.float64), h.shape)
        for x in (j_hot, j_cold)
    )
    inside = sorted({n for n in borders if 0 < n < len(h)})
    units = zip([0, *inside], [*inside, len(h)], strict=True)
    parts = [_cold_of_unit(h[a:b], k[a:b], jh[a:b], jk[a:b], channels) for a, b in units]
    return backend.asarray(np.concatenate(parts))


def _cold_of_unit(h: F64, k: F64, jh: F64, jk: F64, channels: float) -> F64:
    """As ``cold_of_bins``, for the channels of one unit, on the host."""
    n_chan = len(h)
    n_bins = min(n_chan, max(1, round(n_chan / channels)))
    starts = np.round(np.linspace(0, n_chan, n_bins + 1)[:-1]).astype(np.intp)
    of_bin = np.repeat(np.arange(n_bins), np.diff([*starts, n_chan]))
    good = _good(h, k, starts)
    center, t_rec = _receiver(np.where(good, h, np.nan), k, jh, jk, starts)
    smooth = np.full(h.shape, np.nan)
    for r, a in np.ndindex(*h.shape[1:]):
        known = np.isfinite(t_rec[:, r, a])
        if known.any():
            line = _straight(center[known, r, a], t_rec[known, r, a], n_chan)
            smooth[:, r, a] = np.where(known[of_bin], line, np.nan)
    return np.where(good, h * ((jk + smooth) / (jh + smooth)), np.nan)


def _good(h: F64, k: F64, starts: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Channels whose loads are like those of their bin, bool [C,R,A]; others stay bad, and move none beside them."""
    counted = np.isfinite(h) & np.isfinite(k) & (h > 0) & (k > 0)
    y = np.where(counted, h, np.nan) / np.where(counted, k, 1.0)
    good = counted & (y > 1.0)
    for part in (slice(a, b) for a, b in zip(starts, [*starts[1:], len(h)], strict=True)):
        there = np.where(counted[part].any(axis=0), y[part], 1.0)
        usual = np.nanmedian(there, axis=0)
        good[part] &= (np.abs(y[part] - usual) < UNLIKE * np.abs(usual - 1.0)) & (usual > 1.0)
    return good


def _receiver(h: F64, k: F64, jh: F64, jk: F64, starts: npt.NDArray[np.intp]) -> tuple[F64, F64]:
    """Mean channel and T_rec of each bin, f64 [bins,R,A]; NaN where no channel is good. ``h`` is NaN where none is."""
    good = np.isfinite(h)

    def total(values: F64) -> F64:
        return np.asarray(np.add.reduceat(np.where(good, values, 0.0), starts, axis=0))

    index = np.broadcast_to(np.arange(len(h), dtype=np.float64)[:, None, None], h.shape)
    with np.errstate(invalid="ignore", divide="ignore"):
        hot, cold, number = total(h), total(k), total(np.ones_like(h))
        y = hot / cold
        # The counts weight the brightness of the loads as they do the sums of the counts.
        t_rec = (total(h * jh) / hot - y * (total(h * jk) / hot)) / (y - 1.0)
        return total(index) / number, np.where(y > 1.0, t_rec, np.nan)


def _straight(at: F64, values: F64, n_chan: int) -> F64:
    """Straight lines between points, and on beyond the first and the last: f64 [C]."""
    channel = np.arange(n_chan, dtype=np.float64)
    out = np.interp(channel, at, values)
    if len(at) > 1:
        for side, one, other in ((channel < at[0], 0, 1), (channel > at[-1], -1, -2)):
            slope = (values[one] - values[other]) / (at[one] - at[other])
            out[side] = values[one] + slope * (channel[side] - at[one])
    return out
