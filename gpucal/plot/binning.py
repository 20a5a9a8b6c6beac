"""Spectra averaged for display, read once, block by block: memory does not grow with the scan.

Shapes: C channels, B display bins, D dumps, R receivers, A pixels, S ON subscans.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.io.l1.usable import usable_block
from gpucal.plot.source import F64, ScanView, frequency_axis

MAX_BINS = 4000
"""Channels on display: more than any picture has columns."""
MAX_ROWS = 1000
"""Dumps on display in the waterfall."""
BLOCK_BYTES = 32 * 2**20
"""Samples read at once (as float64)."""


@dataclass(frozen=True, eq=False)
class Binned:
    """One scan averaged for display.

    frequency f64 [B,R] Hz; channel f64 [B] (middle of each bin); mean f64 [B,R,A] K, weighted by
    exposure / T_sys^2; t_sys f64 [B,R,A] K; waterfall f64 [rows,B] K of pixel (receiver, pixel);
    dump f64 [rows] running number of the dump (mean, where a row holds several).
    """

    frequency: F64
    channel: F64
    mean: F64
    t_sys: F64
    waterfall: F64
    dump: F64
    pixel: tuple[int, int]


def read_binned(view: ScanView, pixel: tuple[int, int]) -> Binned:
    """Read the spectra of a scan once and average them; ``pixel`` (r, a) is kept dump by dump."""
    n_channels, dumps, receivers, pixels, subscans = view.shape
    width = bin_width(n_channels)
    bins = -(-n_channels // width)
    t_sys, weight = _read_t_sys(view, width)
    exposure = np.nan_to_num(view.per_subscan("exptime"), nan=1.0)
    mean = _Mean((bins, receivers, pixels))
    rows = min(MAX_ROWS, max(1, dumps * subscans))
    fall = _Mean((bins, rows))
    row_of = np.arange(dumps * subscans) * rows // max(1, dumps * subscans)
    for c0, c1, s in block_ranges(view, "spectra"):
        block = usable_block(view.arrays, (slice(c0, c1), ..., s))
        good = np.isfinite(block)
        block[~good] = 0.0
        scale = weight[:, :, s]
        mean.add(
            c0,
            width,
            np.einsum("cdra,d,ra->cra", block, exposure[:, s], scale),
            np.einsum("cdra,d,ra->cra", good, exposure[:, s], scale),
        )
        spread = np.zeros((dumps, rows))
        spread[np.arange(dumps), row_of[s * dumps : (s + 1) * dumps]] = 1.0
        one = (slice(None), slice(None), *pixel)
        fall.add(c0, width, block[one] @ spread, good[one] @ spread)
    return Binned(
        frequency=bin_channels(frequency_axis(view), width),
        channel=bin_channels(np.arange(n_channels, dtype=np.float64), width),
        mean=mean.result(),
        t_sys=t_sys,
        waterfall=fall.result().T,
        dump=_row_centres(row_of, rows),
        pixel=pixel,
    )


def bin_width(n_channels: int, limit: int = MAX_BINS) -> int:
    """Channels per display bin: the smallest number that gives at most ``limit`` bins."""
    return max(1, -(-n_channels // limit))


def bin_channels(values: F64, width: int) -> F64:
    """NaN-aware mean of every ``width`` channels along the first axis: [C,...] -> [B,...]."""
    mean = _Mean((-(-values.shape[0] // width), *values.shape[1:]))
    good = np.isfinite(values)
    mean.add(0, width, np.where(good, values, 0.0), good)
    return mean.result()


class _Mean:
    """Weighted means per display bin, summed up block by block."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._total = np.zeros(shape)
        self._weight = np.zeros(shape)

    def add(self, c0: int, width: int, total: F64, weight: npt.NDArray[Any]) -> None:
        """Add sums per channel [c,...], of channels that begin at ``c0``."""
        index = np.arange(c0, c0 + total.shape[0]) // width
        starts = np.flatnonzero(np.diff(index, prepend=-1))
        here = slice(int(index[0]), int(index[-1]) + 1)
        self._total[here] += np.add.reduceat(total, starts, axis=0)
        self._weight[here] += np.add.reduceat(weight.astype(np.float64), starts, axis=0)

    def result(self) -> F64:
        """The means; NaN where nothing was added."""
        empty = self._weight <= 0
        return np.where(empty, np.nan, self._total / np.where(empty, 1.0, self._weight))


def _read_t_sys(view: ScanView, width: int) -> tuple[F64, F64]:
    """T_sys averaged over subscans [B,R,A] and the relative weight of each subscan [R,A,S]."""
    n_channels, _, receivers, pixels, subscans = view.shape
    mean = _Mean((-(-n_channels // width), receivers, pixels))
    if "t_sys" not in view.arrays:
        return mean.result(), np.ones((receivers, pixels, subscans))
    total, count = np.zeros((2, receivers, pixels, subscans))
    for c0, c1, s in block_ranges(view, "t_sys"):
        block = np.asarray(view.arrays["t_sys"][c0:c1, :, :, s], dtype=np.float64)
        good = np.isfinite(block)
        block[~good] = 0.0
        mean.add(c0, width, block, good)
        total[:, :, s] += block.sum(axis=0)
        count[:, :, s] += good.sum(axis=0)
    usable = (count > 0) & (total > 0)
    average = np.where(usable, total / np.maximum(count, 1.0), np.inf)
    lowest = average.min(axis=2, keepdims=True)
    relative = np.divide(lowest, average, where=usable, out=np.ones_like(average))
    return mean.result(), np.square(relative)


def block_ranges(view: ScanView, name: str) -> Iterator[tuple[int, int, int]]:
    """Channel ranges and subscans, whole chunks where a chunk is not larger than a block."""
    array = view.arrays[name]
    n_channels, subscans = array.shape[0], array.shape[-1]
    row_bytes = 8 * max(1, int(np.prod(array.shape[1:-1])))
    step = max(1, BLOCK_BYTES // row_bytes)
    chunk = int(array.chunks[0])
    if step > chunk:
        step -= step % chunk
    for s in range(subscans):
        for c0 in range(0, n_channels, step):
            yield c0, min(n_channels, c0 + step), s


def _row_centres(row_of: npt.NDArray[np.int64], rows: int) -> F64:
    """Mean dump number of each display row."""
    count = np.maximum(1, np.bincount(row_of, minlength=rows))
    return np.asarray(
        np.bincount(row_of, weights=np.arange(row_of.size), minlength=rows) / count,
        dtype=np.float64,
    )
