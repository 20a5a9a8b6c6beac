"""The reference between two OFF positions, linear in time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpu_fallback.rows import repeat_rows
from cpu_fallback.workers import Workers

BLOCK_SAMPLES = 1 << 16
"""Output samples of one block."""


def blend_references(
    off1: NDArray[np.float64],
    off2: NDArray[np.float64],
    weight: Any,
    workers: Workers,
) -> NDArray[np.float64]:
    """Return (1-w) OFF_1 + w OFF_2; physics section 7.

    off1, off2 f64 [c,R,A], counts; weight f64 scalar -> [c,R,A], or [D] -> [c,D,R,A]. Where one
    of them is NaN the other is taken, exactly; w=0 gives off1 and w=1 gives off2 exactly.
    Raises ValueError when the shapes do not fit.
    """
    if off1.ndim != 3 or off1.shape != off2.shape:
        raise ValueError(
            f"off1 and off2 have shapes {off1.shape} and {off2.shape}, expected the same [c, R, A]."
        )
    w = np.asarray(weight, dtype=np.float64)
    if w.ndim > 1:
        raise ValueError(f"weight has shape {w.shape}, expected a scalar or [D].")
    channels, *pixels = off1.shape
    weights = np.atleast_1d(w)
    out = np.empty((channels, weights.size, *pixels))
    if out.size:
        step = max(1, BLOCK_SAMPLES // out[0].size)
        blocks = [slice(c, min(c + step, channels)) for c in range(0, channels, step)]
        workers.run(lambda c: _blend(off1[c], off2[c], weights, out[c], workers), blocks)
    return out if w.ndim else out[:, 0]


def _blend(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    weights: NDArray[np.float64],
    out: NDArray[np.float64],
    workers: Workers,
) -> None:
    """out [c,D,R,A] from first and second [c,R,A] and weights [D]."""
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
