"""Mean of the dumps of a subscan without fill samples, on the device (dump_mean.cu)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpucal.kernel_contract.dump_mean import DumpMean, SubscanDumps
from gpucal.kernels.device import Device
from gpucal.kernels.geometry import MOST_SAMPLES, THREADS, row_blocks
from gpucal.kernels.source import C_TYPES, Kernel

STAGE_BYTES = 36864
"""Shared memory of a block of the staged kernel; the same number stands in dump_mean.cu."""

STAGED_BELOW = 32
"""With fewer pixels a warp would touch more than two rows in one access, so they are staged."""

WARP = 32


def kernel(count: np.dtype[Any], staged: bool) -> Kernel:
    """The variant for counts of this dtype."""
    return Kernel("dump_mean", f"mean_{'staged' if staged else 'direct'}<{C_TYPES[count]}>")


def stage_shape(dumps: int, pixels: int, channels: int, itemsize: int) -> tuple[int, int]:
    """Number of dumps in one stage, and the stride between channels in shared memory, an odd number of samples.

    Where possible a stage holds a multiple of 32 samples of each channel, whole lines of memory.
    """
    room = STAGE_BYTES // itemsize // channels
    chunk = max(1, (room - 1) // pixels)
    lines = WARP // math.gcd(WARP, pixels)
    chunk = max(1, min(chunk // lines * lines or chunk, dumps))
    return chunk, chunk * pixels | 1


def mean_over_dumps(dumps: SubscanDumps, device: Device) -> DumpMean:
    """The mean f64 [c,R,A] without fill samples, and the number of dumps in it i32 [c,R,A].

    Arrays that are not contiguous are copied. Raises ValueError for more than 2**28 samples of one
    channel.
    """
    counts, valid = dumps
    channels, n_dumps, *receivers = counts.shape
    pixels = math.prod(receivers)
    if n_dumps * pixels > MOST_SAMPLES:
        raise ValueError(
            f"one channel holds {n_dumps * pixels} samples, at most {MOST_SAMPLES} are supported."
        )
    xp = device.xp
    mean = xp.empty((channels, *receivers), dtype=np.float64)
    number = xp.empty((channels, *receivers), dtype=np.int32)
    if mean.size == 0:
        return DumpMean(mean, number)
    counts = xp.ascontiguousarray(counts)
    mask: Any = np.uint64(0) if valid is None else xp.ascontiguousarray(valid)
    args = [counts, mask, mean, number, np.int64(channels), np.int32(n_dumps), np.int32(pixels)]
    staged = pixels < STAGED_BELOW
    if staged:
        # A full block whatever the number of channels: rows without a channel help to load.
        down = THREADS // pixels
        chunk, pitch = stage_shape(n_dumps, pixels, down, counts.itemsize)
        args += [np.int32(chunk), np.int32(pitch), np.int32(down * pixels // WARP)]
        grid, block = (-(-channels // down), 1), (pixels, down)
    else:
        grid, block = row_blocks(channels, pixels)
    device.run(kernel(counts.dtype, staged), grid, block, args)
    return DumpMean(mean, number)
