"""T_A* = (C_ON - C_REF) * F with flags on the device, one pass over the samples (calibrate.cu)."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucal.kernel_contract.calibrate import CalibrationTile
from gpucal.kernels.device import Array, Device
from gpucal.kernels.geometry import divider, pack_phase, slab_geometry
from gpucal.kernels.source import C_TYPES, Kernel

PACK_BYTES = 16
"""The widest access of a thread. The widest array is moved in these; all accesses of a warp then
touch whole sectors, which longer packs of the narrow arrays would not."""

BYTES_IN_FLIGHT = 64
"""Bytes of the widest array that a thread asks for before it uses the first."""


def kernel(count: np.dtype[Any], out: np.dtype[Any], per_dump: bool, aligned: bool) -> Kernel:
    """The variant for these dtypes; ``aligned`` when all arrays allow packs."""
    widest = 8 if per_dump else max(count.itemsize, out.itemsize)
    pack = PACK_BYTES // widest if aligned else 1
    unroll = BYTES_IN_FLIGHT // PACK_BYTES
    flag = "true" if per_dump else "false"
    return Kernel(
        "calibrate", f"calibrate<{C_TYPES[count]}, {C_TYPES[out]}, {flag}, {pack}, {unroll}>"
    )


def calibrate_tile(tile: CalibrationTile, device: Device) -> int:
    """Write the spectra and flags of a tile; returns the number of samples with bit 1.

    Arrays that are not contiguous are copied. Waits for the current stream, because of the number it
    returns.
    """
    if tile.out.size == 0:
        return 0
    xp = device.xp
    dense = CalibrationTile(
        *(xp.ascontiguousarray(array) for array in tile[:4]),
        *(a if a.flags.c_contiguous else xp.empty(a.shape, a.dtype) for a in tile[4:]),
    )
    lost = xp.zeros(1, dtype=np.uint64)
    _launch(dense, lost, device)
    for wanted, written in ((tile.out, dense.out), (tile.out_flags, dense.out_flags)):
        if written is not wanted:
            wanted[...] = written
    return int(lost[0])


def _launch(tile: CalibrationTile, lost: Array, device: Device) -> None:
    """Launch on contiguous arrays; ``lost`` u64 [1] counts the samples with bit 1."""
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
