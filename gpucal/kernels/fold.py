"""Both phases of a frequency switch moved onto each other, on the device (fold.cu)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gpucal.axes import FLAG_DTYPE
from gpucal.kernels.device import Array, Device
from gpucal.kernels.geometry import MOST_SAMPLES, divider, row_blocks
from gpucal.kernels.source import C_TYPES, Kernel

RUN = 8
"""Neighbouring channels of one thread; each value that it reads is used as often."""

MOST_TILES = 65535
"""Blocks of the second axis of a grid; a thread goes on to the next sample where they are too few."""

_F64 = np.dtype(np.float64)


class FoldTile(NamedTuple):
    """The arrays of one call, as ``gpucal.backend.KernelSet.fold`` names them."""

    spectra: Array
    flags: Array
    weight: Array
    taps: Array
    nearest: Array
    transmission: Array | None
    base_flags: Array
    out: Array
    out_flags: Array


def kernel(out: np.dtype[Any]) -> Kernel:
    """The variant for spectra of this dtype."""
    return Kernel("fold", f"fold<{C_TYPES[out]}, {RUN}>")


def fold_phases(tile: FoldTile, device: Device) -> int:
    """Write the folded spectra and flags of a tile; returns the number of samples with bit 1.

    Shapes, dtypes and rules: ``gpucal.backend.KernelSet.fold``. Arrays that are not contiguous are
    copied. Waits for the current stream, because of the number it returns. Raises ValueError for
    shapes or dtypes that differ, and for more than 2**28 samples of one channel.
    """
    check_fold(tile)
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


def check_fold(tile: FoldTile) -> None:
    """Raise ValueError unless all arrays of a tile fit the contract."""
    if tile.out.ndim != 4 or tile.spectra.ndim != 4:
        raise ValueError(
            f"out and spectra have shapes {tile.out.shape} and {tile.spectra.shape}, expected "
            "[c, D, R, A] and [m, D, R, A]."
        )
    channels, dumps, receivers, beams = tile.out.shape
    wide = len(tile.spectra)
    through = [(channels, r, a) for r in (receivers, 1) for a in (beams, 1)]
    for name, array, shapes, dtypes in (
        ("spectra", tile.spectra, [(wide, dumps, receivers, beams)], (_F64,)),
        ("flags", tile.flags, [tile.spectra.shape], (FLAG_DTYPE,)),
        ("weight", tile.weight, [(wide, receivers, beams)], (_F64,)),
        ("taps", tile.taps, [(2, receivers, tile.taps.shape[-1] | 1)], (_F64,)),
        ("nearest", tile.nearest, [(2, 2, receivers)], (np.dtype(np.int64),)),
        ("transmission", tile.transmission, through, (_F64,)),
        ("base_flags", tile.base_flags, [(channels, receivers, beams)], (FLAG_DTYPE,)),
        ("out", tile.out, [tile.out.shape], (_F64, np.dtype(np.float32))),
        ("out_flags", tile.out_flags, [tile.out.shape], (FLAG_DTYPE,)),
    ):
        if array is None:
            continue
        if array.shape not in shapes:
            raise ValueError(f"{name} has shape {array.shape}, expected {shapes[0]}.")
        if array.dtype not in dtypes:
            raise ValueError(
                f"{name} is {array.dtype}, expected {' or '.join(str(d) for d in dtypes)}."
            )
