"""The reference between two OFF positions, linear in time, on the device (reference.cu)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpucal.kernels.device import Array, Device
from gpucal.kernels.geometry import divider, pack_phase, slab_geometry
from gpucal.kernels.source import Kernel

PACK = 2
"""Samples of one store of 16 bytes."""


def kernel(aligned: bool) -> Kernel:
    """The variant that stores 16 bytes at a time, or the one for odd addresses."""
    return Kernel("reference", f"blend<{PACK if aligned else 1}>")


def blend_references(off1: Array, off2: Array, weight: Any, device: Device) -> Array:
    """Return (1-w) OFF_1 + w OFF_2, f64 [c,R,A] or [c,D,R,A].

    Shapes and rules: ``gpucal.backend.KernelSet.reference``. Arrays that are not contiguous are
    copied. Raises ValueError when the shapes do not fit.
    """
    if off1.ndim != 3 or off1.shape != off2.shape:
        raise ValueError(
            f"off1 and off2 have shapes {off1.shape} and {off2.shape}, expected the same [c, R, A]."
        )
    xp = device.xp
    w = xp.asarray(weight, dtype=np.float64)
    if w.ndim > 1:
        raise ValueError(f"weight has shape {w.shape}, expected a scalar or [D].")
    channels, *receivers = off1.shape
    dumps = math.prod(w.shape)
    out = xp.empty((channels, *w.shape, *receivers), dtype=np.float64)
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
            *(xp.ascontiguousarray(a, dtype=np.float64) for a in (off1, off2)),
            *(xp.ascontiguousarray(w), out, np.int64(channels), np.int32(geometry.samples)),
            *(*divider(pixels), np.int32(phase or 0), np.int32(geometry.width)),
            np.int32(geometry.width * pack // pixels),
        ),
    )
    return out
