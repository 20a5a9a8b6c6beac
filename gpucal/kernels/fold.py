"""Both phases of a frequency switch moved onto each other, on the device (fold.cu)."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucal.kernel_contract.fold import FoldTile
from gpucal.kernels.device import Device
from gpucal.kernels.geometry import MOST_SAMPLES, divider, row_blocks
from gpucal.kernels.source import C_TYPES, Kernel

RUN = 8
"""Neighbouring channels of one thread; each value that it reads is used as often."""

MOST_TILES = 65535
"""Blocks of the second axis of a grid; a thread goes on to the next sample where they are too few."""


def kernel(out: np.dtype[Any]) -> Kernel:
    """The variant for spectra of this dtype."""
    return Kernel("fold", f"fold<{C_TYPES[out]}, {RUN}>")


def fold_phases(tile: FoldTile, device: Device) -> int:
    """Write the folded spectra and flags of a tile; returns the number of samples with bit 1.

    Arrays that are not contiguous are copied. Waits for the current stream, because of the number it
    returns. Raises ValueError for more than 2**28 samples of one channel.
    """
    if tile.out.size == 0:
        return 0
    xp = device.xp
    channels, dumps, receivers, beams = tile.out.shape
    pixels, samples = receivers * beams, dumps * receivers * beams
    if samples > MOST_SAMPLES:
        raise ValueError(
            f"one channel holds {samples} samples, at most {MOST_SAMPLES} are supported."
        )
    inputs = [xp.ascontiguousarray(a) for a in (*tile[:5], tile.base_flags)]
    through: Any = np.uint64(0)
    if tile.transmission is not None:
        row = (channels, receivers, beams)
        through = xp.ascontiguousarray(xp.broadcast_to(tile.transmission, row))
    outputs = [a if a.flags.c_contiguous else xp.empty(a.shape, a.dtype) for a in tile[7:]]
    lost = xp.zeros(1, dtype=np.uint64)
    (across, tiles), block = row_blocks(-(-channels // RUN), samples)
    device.run(
        kernel(tile.out.dtype),
        (across, min(tiles, MOST_TILES)),
        block,
        (
            *(*inputs[:5], through, inputs[5], *outputs, lost),
            *(np.int64(channels), np.int64(len(tile.spectra)), np.int32(samples)),
            *(np.int32(receivers), np.int32(tile.taps.shape[2])),
            *(*divider(pixels), *divider(beams)),
        ),
    )
    for wanted, written in zip(tile[7:], outputs, strict=True):
        if written is not wanted:
            wanted[...] = written
    return int(lost[0])
