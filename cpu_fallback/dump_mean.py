"""Mean of the dumps of a subscan, without its fill samples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpu_fallback.calibrate import all_finite
from cpu_fallback.workers import Workers
from gpucal.axes import FILL_INT32
from gpucal.kernel_contract.dump_mean import DumpMean, SubscanDumps

BLOCK_SAMPLES = 1 << 16
"""Samples of one block, cast to f64 in the cache; f64 itself is read once and may be longer."""

LONGER = 4

EXACT_DUMPS = 1 << 21
"""So many integers of 32 bits add up to at most 2**53: exact in f64, in any order."""

FEW_DUMPS = 8
BLAS_ALONE = 9000
"""Where a product with a vector of ones is slow, and where BLAS would start threads of its own."""


def mean_over_dumps(dumps: SubscanDumps, workers: Workers) -> DumpMean:
    """The mean f64 [c,R,A] without fill samples, and the number of dumps in it i32 [c,R,A]."""
    counts, valid = dumps
    channels = len(counts)
    rows = (channels, *counts.shape[2:])
    mean = np.empty(rows)
    number = np.empty(rows, np.int32)
    if mean.size == 0:
        return DumpMean(mean, number)
    chosen = None if valid is None or valid.all() else np.flatnonzero(valid)
    most = BLOCK_SAMPLES * (LONGER if counts.dtype == np.float64 else 1)
    step = max(1, most // max(1, counts[0].size))

    def work(block: slice) -> None:
        piece = counts[block]
        if chosen is not None:
            shape = (len(piece), chosen.size, *piece.shape[2:])
            # mode="clip" spares NumPy a copy of its own; the indices are right anyway.
            piece = piece.take(
                chosen, 1, workers.scratch("chosen", shape, counts.dtype), mode="clip"
            )
        total, lost = _sums(piece, workers)
        n = piece.shape[1] - lost
        number[block] = n
        # Without a valid dump this is 0 / 0, which is the NaN it should be.
        np.divide(total, n, out=mean[block])

    workers.run(work, [slice(c, min(c + step, channels)) for c in range(0, channels, step)])
    return DumpMean(mean, number)


def _sums(counts: NDArray[Any], workers: Workers) -> tuple[NDArray[Any], NDArray[np.intp] | int]:
    """Sum of the valid samples of each row, and the number of fill samples in it (0 = none)."""
    if counts.shape[1] == 0:
        return np.zeros((len(counts), *counts.shape[2:])), 0
    if counts.dtype.kind == "f":
        return _float_sums(counts, workers)
    lost: NDArray[np.intp] | int = 0
    if counts.dtype == np.int32 and counts.min() == FILL_INT32:
        bad = np.equal(counts, FILL_INT32, out=workers.scratch("bad", counts.shape, np.bool_))
        lost = _count(bad)
    if counts.shape[1] > EXACT_DUMPS:
        total = counts.sum(axis=1, dtype=np.int64)
        return total - lost * FILL_INT32, lost
    values = workers.scratch("values", counts.shape, np.float64)
    np.copyto(values, counts)
    # Fills take part in the exact sum and leave it again, which costs less than a mask.
    return _sum_exactly(values) - lost * float(FILL_INT32), lost


def _float_sums(
    counts: NDArray[Any], workers: Workers
) -> tuple[NDArray[Any], NDArray[np.intp] | int]:
    """As ``_sums`` for floats; only channels whose sum is not finite are searched for bad samples."""
    values = counts
    if counts.dtype != np.float64:
        values = workers.scratch("values", counts.shape, np.float64)
        np.copyto(values, counts)
    total = _sum_in_order(values, workers)
    if all_finite(total):
        return total, 0
    suspects = np.flatnonzero(~np.isfinite(total).reshape(len(total), -1).all(axis=1))
    few = values[suspects]
    bad = ~np.isfinite(few)
    few[bad] = 0.0
    total[suspects] = _sum_in_order(few, workers)
    lost = np.zeros(total.shape, np.intp)
    lost[suspects] = _count(bad)
    return total, lost


def _count(bad: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Number of bad samples of each row [c,R,A] of bad [c,D,R,A]."""
    channels, dumps, *pixels = bad.shape
    length = bad[0, 0].size
    where = np.flatnonzero(bad)
    row = where // (dumps * length) * length + where % length
    return np.bincount(row, minlength=channels * length).reshape(channels, *pixels)


def _sum_exactly(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum over dumps of integers [c,D,R,A]; no order of addition rounds, so the fastest is taken."""
    channels, dumps, *pixels = values.shape
    flat = values.reshape(channels, dumps, -1)
    if dumps < FEW_DUMPS or flat[0].size > BLAS_ALONE:
        total: NDArray[np.float64] = np.einsum("cdp->cp", flat)
    else:
        total = np.matmul(np.ones(dumps), flat)
    return total.reshape(channels, *pixels)


def _sum_in_order(values: NDArray[np.float64], workers: Workers) -> NDArray[np.float64]:
    """Sum over dumps [c,D,R,A], first to last."""
    channels, dumps, *pixels = values.shape
    if math.prod(pixels) > 1:
        # The pixels are the inner loop, so each of them adds its dumps one by one.
        total: NDArray[np.float64] = np.einsum("cdp->cp", values.reshape(channels, dumps, -1))
        return total.reshape(channels, *pixels)
    if channels == 1:
        # A plain sum of a contiguous axis would add in pairs.
        return np.array(np.add.accumulate(values, axis=1)[:, -1])
    turned = workers.scratch("turned", (dumps, channels, *pixels), np.float64)
    np.copyto(turned, values.swapaxes(0, 1))
    return np.asarray(np.add.reduce(turned, axis=0))
