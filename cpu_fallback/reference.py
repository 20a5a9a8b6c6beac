"""The reference between two OFF positions, linear in time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cpu_fallback.rows import repeat_rows
from cpu_fallback.workers import Workers
from gpucal.kernel_contract.reference import OffPair

BLOCK_SAMPLES = 1 << 16
"""Output samples of one block."""


def blend_references(offs: OffPair, workers: Workers) -> NDArray[np.float64]:
    """(1-w) OFF_1 + w OFF_2, counts: f64 [c,R,A], or [c,D,R,A] for one weight per dump."""
    off1, off2, weight = offs
    channels, *pixels = off1.shape
    weights = np.atleast_1d(weight)
    out = np.empty((channels, weights.size, *pixels))
    if out.size:
        step = max(1, BLOCK_SAMPLES // out[0].size)
        blocks = [slice(c, min(c + step, channels)) for c in range(0, channels, step)]
        workers.run(lambda c: _blend(off1[c], off2[c], weights, out[c], workers), blocks)
    return out if weight.ndim else out[:, 0]


def _blend(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    weights: NDArray[np.float64],
    out: NDArray[np.float64],
    workers: Workers,
) -> None:
    """Write out [c,D,R,A] from first and second [c,R,A] and weights [D]."""
    other = workers.scratch("other", out.shape, np.float64)
    repeat_rows(first, out)
    repeat_rows(second, other)
    per_sample = np.broadcast_to(weights[:, None, None], out.shape[1:]).copy()
    np.multiply(out, 1.0 - per_sample, out=out)
    np.multiply(other, per_sample, out=other)
    np.add(out, other, out=out)
    for end, source in ((0.0, first), (1.0, second)):
        for dump in np.flatnonzero(weights == end):
            out[:, dump] = source
    for missing, source in ((np.isnan(first), second), (np.isnan(second), first)):
        if missing.any():
            np.copyto(out, source[:, None], where=missing[:, None])
