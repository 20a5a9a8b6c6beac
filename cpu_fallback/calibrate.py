"""T_A* = (C_ON - C_REF) * F with flags, in blocks that stay in the processor's cache."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpu_fallback.rows import repeat_rows
from cpu_fallback.workers import Workers
from gpucal.axes import BLANKING, FILL_INT32, FLAG_DTYPE, Flag
from gpucal.kernel_contract.calibrate import CalibrationTile

BLOCK_BYTES = 3 << 20
"""Most bytes of counts, output and flags in one block: the output stays in the cache."""

BLOCKS_PER_THREAD = 4
"""Smaller tiles are cut into so many blocks a thread, down to SMALLEST_BLOCK samples each."""

SMALLEST_BLOCK = 1 << 15

INNER_LOOP = 90
"""Samples NumPy should find in one row; shorter rows are repeated over several dumps."""

_BAD = np.uint16(Flag.BAD_CHANNEL)
_FILL = np.uint16(Flag.FILL_VALUE)
_BLANK = np.uint16(BLANKING)


def calibrate_tile(tile: CalibrationTile, workers: Workers) -> int:
    """Write T_A* = (C_ON - C_REF) * F of a tile; returns the number of samples with bit 1."""
    if tile.out.size == 0:
        return 0

    def work(block: tuple[slice, slice]) -> int:
        return _block(tile, block, workers)

    return sum(workers.run(work, _blocks(tile, workers.threads)))


def _blocks(tile: CalibrationTile, threads: int) -> list[tuple[slice, slice]]:
    """Cut channels, and dumps where one channel is too long, into blocks for the cache."""
    channels, dumps = tile.counts.shape[:2]
    pixels = tile.counts[0, 0].size
    sample_bytes = tile.counts.itemsize + np.dtype(np.float64).itemsize + FLAG_DTYPE.itemsize
    even = tile.counts.size // (BLOCKS_PER_THREAD * threads)
    samples = min(BLOCK_BYTES // sample_bytes, max(even, SMALLEST_BLOCK))
    c_step = max(1, samples // (dumps * pixels))
    d_step = dumps if c_step > 1 else max(1, samples // pixels)
    return [
        (slice(c, min(c + c_step, channels)), slice(d, min(d + d_step, dumps)))
        for c in range(0, channels, c_step)
        for d in range(0, dumps, d_step)
    ]


def _block(tile: CalibrationTile, block: tuple[slice, slice], workers: Workers) -> int:
    """Calibrate one block (channels, dumps); returns its number of samples with bit 1."""
    channels, _ = block
    counts, out, out_flags = tile.counts[block], tile.out[block], tile.out_flags[block]
    per_dump = tile.reference.ndim == 4
    reference = tile.reference[block] if per_dump else tile.reference[channels]
    flags, factor, plain = _row_flags(
        tile.base_flags[channels], tile.factor[channels], None if per_dump else reference
    )
    lost = _lost_samples(counts, reference if per_dump else None, flags, workers)

    direct = out.dtype == np.float64 and out.flags.c_contiguous
    values = out if direct else workers.scratch("values", out.shape, np.float64)
    np.copyto(values, counts)
    if per_dump:
        np.subtract(values, reference, out=values)
    else:
        _by_row(np.subtract, values, reference, workers)
    _by_row(np.multiply, values, factor, workers)
    if plain:
        out_flags.fill(0)
    else:
        repeat_rows(flags, out_flags)
    found = 0 if lost is None else _blank(lost, values, out_flags)
    if not direct:
        np.copyto(out, values, casting="same_kind")

    rows_lost = 0 if plain else int(np.count_nonzero(flags & _FILL))
    if rows_lost and found:
        return int(np.count_nonzero(out_flags & _FILL))
    return found + rows_lost * int(out.shape[1])


def _row_flags(
    flags: NDArray[np.uint16],
    factor: NDArray[np.float64],
    reference: NDArray[np.float64] | None,
) -> tuple[NDArray[np.uint16], NDArray[np.float64], bool]:
    """Flags of each row, the factor with NaN in blanked rows, and whether no row has a flag."""
    finite = all_finite(factor) and (reference is None or all_finite(reference))
    if finite:
        top = flags.max()
        if top == 0:
            return flags, factor, True
        rows = flags
    else:
        lost = ~np.isfinite(factor)
        if reference is not None:
            lost |= ~np.isfinite(reference)
        lost &= (flags & _BAD) == 0
        rows = flags | np.where(lost, _FILL, np.uint16(0))
    # A NaN factor blanks a row in the multiplication that is done anyway.
    return rows, np.where(rows & _BLANK, np.nan, factor), False


def all_finite(values: NDArray[Any]) -> bool:
    """Whether all values are finite: two reductions without a temporary, as NaN runs through both."""
    return math.isfinite(values.min()) and math.isfinite(values.max())


def _lost_samples(
    counts: NDArray[Any],
    reference: NDArray[np.float64] | None,
    flags: NDArray[np.uint16],
    workers: Workers,
) -> NDArray[np.bool_] | None:
    """Mask of fill samples and of samples without their per-dump reference; None when none."""
    lost: NDArray[np.bool_] | None = None
    if counts.dtype == np.int32:
        if counts.min() == FILL_INT32:
            lost = workers.scratch("lost", counts.shape, np.bool_)
            np.equal(counts, FILL_INT32, out=lost)
    elif counts.dtype != np.uint32 and not all_finite(counts):
        lost = workers.scratch("lost", counts.shape, np.bool_)
        np.isfinite(counts, out=lost)
        np.logical_not(lost, out=lost)
    if reference is not None and not all_finite(reference):
        missing = ~np.isfinite(reference)
        missing &= ((flags & _BAD) == 0)[:, None]
        lost = missing if lost is None else np.logical_or(lost, missing, out=lost)
        # Infinity in a bad row needs no mask: its factor is NaN.
    return lost


def _by_row(
    operation: np.ufunc, values: NDArray[np.float64], rows: NDArray[np.float64], workers: Workers
) -> None:
    """Set values [c,D,R,A] = operation(values, rows [c,R,A]), in place.

    The rows of few pixels are first repeated over some dumps, because NumPy spends more time
    between its inner loops than in a short one. A single pixel is a scalar, and long already.
    """
    channels, dumps, *pixels = values.shape
    length = math.prod(pixels)
    times = _repeats(dumps, length)
    if times == 1:
        operation(values, rows[:, None], out=values)
        return
    long_rows = workers.scratch("rows", (channels, times, *pixels), np.float64)
    repeat_rows(rows, long_rows)
    blocks = values.reshape(channels, dumps // times, times * length)
    operation(blocks, long_rows.reshape(channels, 1, times * length), out=blocks)


def _repeats(dumps: int, length: int) -> int:
    """A divisor of the number of dumps that makes rows of ``length`` about INNER_LOOP long."""
    if length == 1 or length >= INNER_LOOP:
        return 1
    most = min(dumps, -(-INNER_LOOP // length))
    return next(times for times in range(most, 0, -1) if dumps % times == 0)


def _blank(
    lost: NDArray[np.bool_], values: NDArray[np.float64], out_flags: NDArray[np.uint16]
) -> int:
    """Write NaN and flag bit 1 for the lost samples; returns their number."""
    number = int(np.count_nonzero(lost))
    if number * 16 < lost.size and out_flags.flags.c_contiguous:
        where = np.flatnonzero(lost)
        values.reshape(-1)[where] = np.nan
        out_flags.reshape(-1)[where] |= _FILL
    else:
        np.copyto(values, np.nan, where=lost)
        np.bitwise_or(out_flags, _FILL, out=out_flags, where=lost)
    return number
