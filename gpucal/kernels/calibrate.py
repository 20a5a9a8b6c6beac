"""T_A* = (C_ON - C_REF) * F with flags on the device, one pass over the samples (calibrate.cu)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gpucal.axes import FLAG_DTYPE
from gpucal.kernels.device import Array, Device
from gpucal.kernels.geometry import divider, pack_phase, slab_geometry
from gpucal.kernels.source import C_TYPES, Kernel

PACK_BYTES = 16
"""The widest access of a thread. The widest array is moved in these; all accesses of a warp then
touch whole sectors, which longer packs of the narrow arrays would not."""

BYTES_IN_FLIGHT = 64
"""Bytes of the widest array that a thread asks for before it uses the first."""

_F64 = np.dtype(np.float64)


class Tile(NamedTuple):
    """The arrays of one call, as ``gpucal.backend.KernelSet.calibrate`` names them."""

    counts: Array
    reference: Array
    factor: Array
    base_flags: Array
    out: Array
    out_flags: Array


def kernel(count: np.dtype[Any], out: np.dtype[Any], per_dump: bool, aligned: bool) -> Kernel:
    """The variant for these dtypes; ``aligned`` when all arrays allow packs."""
    widest = 8 if per_dump else max(count.itemsize, out.itemsize)
    pack = PACK_BYTES // widest if aligned else 1
    unroll = BYTES_IN_FLIGHT // PACK_BYTES
    flag = "true" if per_dump else "false"
    return Kernel(
        "calibrate", f"calibrate<{C_TYPES[count]}, {C_TYPES[out]}, {flag}, {pack}, {unroll}>"
    )


def calibrate_tile(tile: Tile, device: Device) -> int:
    """Write the spectra and flags of a tile; returns the number of samples with bit 1.

    Shapes, dtypes and rules: ``gpucal.backend.KernelSet.calibrate``. Arrays that are not contiguous
    are copied. Waits for the current stream, because of the number it returns. Raises ValueError
    for shapes or dtypes that differ.
    """
    check_tile(tile)
    if tile.out.size == 0:
        return 0
    xp = device.xp
    dense = Tile(
        *(xp.ascontiguousarray(array) for array in tile[:4]),
        *(a if a.flags.c_contiguous else xp.empty(a.shape, a.dtype) for a in tile[4:]),
    )
    lost = xp.zeros(1, dtype=np.uint64)
    _launch(dense, lost, device)
    for wanted, written in ((tile.out, dense.out), (tile.out_flags, dense.out_flags)):
        if written is not wanted:
            wanted[...] = written
    return int(lost[0])


def _launch(tile: Tile, lost: Array, device: Device) -> None:
    channels, dumps, *receivers = tile.counts.shape
    pixels = int(np.prod(receivers))
    per_dump = tile.reference.ndim == 4
    streams = [tile.counts, tile.out, tile.out_flags]
    if per_dump:
        streams.append(tile.reference)
    widest = max(a.itemsize for a in streams)
    pack = PACK_BYTES // widest
    phase = pack_phase([(device.address(a), a.itemsize) for a in streams], pack)
    if phase is None:
        pack = 1
    geometry = slab_geometry(channels, dumps, pixels, pack)
    device.run(
        kernel(tile.counts.dtype, tile.out.dtype, per_dump, phase is not None),
        geometry.grid,
        geometry.block,
        (
            *(*tile, lost, np.int64(channels), np.int32(geometry.samples)),
            *(*divider(pixels), np.int32(phase or 0), np.int32(geometry.width)),
        ),
    )


def check_counts(counts: Array) -> None:
    """Raise ValueError unless counts are [c,D,R,A] of one of the four dtypes."""
    if counts.ndim != 4:
        raise ValueError(f"counts has shape {counts.shape}, expected [c, D, R, A].")
    if counts.dtype not in C_TYPES:
        raise ValueError(f"counts is {counts.dtype}, expected int32, uint32, float32 or float64.")


def check_tile(tile: Tile) -> None:
    """Raise ValueError unless all arrays of a tile fit the contract."""
    check_counts(tile.counts)
    shape = tile.counts.shape
    row = (shape[0], *shape[2:])
    for name, array, shapes, dtypes in (
        ("reference", tile.reference, (row, shape), (_F64,)),
        ("factor", tile.factor, (row,), (_F64,)),
        ("base_flags", tile.base_flags, (row,), (FLAG_DTYPE,)),
        ("out", tile.out, (shape,), (_F64, np.dtype(np.float32))),
        ("out_flags", tile.out_flags, (shape,), (FLAG_DTYPE,)),
    ):
        if array.shape not in shapes:
            raise ValueError(f"{name} has shape {array.shape}, expected {shapes[-1]}.")
        if array.dtype not in dtypes:
            raise ValueError(
                f"{name} is {array.dtype}, expected {' or '.join(str(d) for d in dtypes)}."
            )
