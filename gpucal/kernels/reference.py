"""The reference between two OFF positions, linear in time, on the device (reference.cu)."""

from __future__ import annotations

import math

import numpy as np

from gpucal.kernel_contract.reference import OffPair
from gpucal.kernels.device import Array, Device
from gpucal.kernels.geometry import divider, pack_phase, slab_geometry
from gpucal.kernels.source import Kernel

PACK = 2
"""Samples of one store of 16 bytes."""


def kernel(aligned: bool) -> Kernel:
    """The variant that stores 16 bytes at a time, or the one for odd addresses."""
    return Kernel("reference", f"blend<{PACK if aligned else 1}>")


def blend_references(offs: OffPair, device: Device) -> Array:
    """(1-w) OFF_1 + w OFF_2, f64 [c,R,A] or [c,D,R,A]. Arrays that are not contiguous are copied."""
    xp = device.xp
    off1, off2, weight = offs
    channels, *receivers = off1.shape
    dumps = math.prod(weight.shape)
    out = xp.empty((channels, *weight.shape, *receivers), dtype=np.float64)
    if out.size == 0:
        return out
    pixels = math.prod(receivers)
    phase = pack_phase([(device.address(out), out.itemsize)], PACK)
    pack = 1 if phase is None else PACK
    geometry = slab_geometry(channels, dumps, pixels, pack)
    device.run(
        kernel(phase is not None),
        geometry.grid,
        geometry.block,
        (
            *(xp.ascontiguousarray(a) for a in (off1, off2, weight)),
            *(out, np.int64(channels), np.int32(geometry.samples)),
            *(*divider(pixels), np.int32(phase or 0), np.int32(geometry.width)),
            np.int32(geometry.width * pack // pixels),
        ),
    )
    return out
