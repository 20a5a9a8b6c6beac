"""Mapping of samples to threads: grids, blocks and the constants of the index arithmetic.

Pure functions of shapes and addresses, so they are the same on a card and without one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

THREADS = 256
"""Most threads of a block."""

PACKS_PER_THREAD = 16
"""Packs of a channel that one thread handles, so that its rows are loaded rarely."""

MOST_SAMPLES = 1 << 28
"""Samples of a channel [D,R,A] that the 32-bit index arithmetic of the kernels holds."""


class Divider(NamedTuple):
    """n / divisor = (high word of (n * magic) + n) >> shift, for 0 <= n < 2**31."""

    divisor: np.uint32
    magic: np.uint32
    shift: np.uint32


def divider(divisor: int) -> Divider:
    """Constants of a division by multiplication (Granlund & Montgomery 1994)."""
    shift = (divisor - 1).bit_length()
    magic = (((1 << shift) - divisor) << 32) // divisor + 1
    return Divider(np.uint32(divisor), np.uint32(magic), np.uint32(shift))


class SlabGeometry(NamedTuple):
    """Launch of a kernel over slabs; see slab.cuh.

    ``width`` threads share the ``samples`` of a channel. A block is (threads of a slab, channels).
    """

    grid: tuple[int, int]
    block: tuple[int, int]
    width: int
    samples: int


def slab_geometry(channels: int, dumps: int, pixels: int, pack: int) -> SlabGeometry:
    """Spread ``channels`` slabs of [dumps, pixels] over threads that own packs of ``pack`` samples.

    ``width * pack`` samples are whole dumps, or every thread has a single pack. Raises ValueError
    for a slab of more than 2**28 samples.
    """
    samples = dumps * pixels
    if samples > MOST_SAMPLES:
        raise ValueError(
            f"one channel holds {samples} samples, at most {MOST_SAMPLES} are supported."
        )
    # One pack more: a slab need not begin on the address of a pack.
    packs = -(-samples // pack) + 1
    unit = pixels // math.gcd(pixels, pack)
    wanted = -(-packs // PACKS_PER_THREAD)
    width = min(unit * -(-wanted // unit), packs)
    if width <= THREADS:
        across, tiles = width, 1
        down = min(THREADS // width, channels)
    else:
        tiles = -(-width // THREADS)
        across, down = -(-width // tiles), 1
        across = -(-across // 32) * 32
    return SlabGeometry((-(-channels // down), tiles), (across, down), width, samples)


def pack_phase(addresses: list[tuple[int, int]], pack: int) -> int | None:
    """Number of samples between the address of a pack and the start of the arrays; None when they disagree.

    ``addresses``: address and item size of each array that is accessed in packs.
    """
    phases = {address // itemsize % pack for address, itemsize in addresses}
    phases |= {-1 for address, itemsize in addresses if address % itemsize}
    return phases.pop() if len(phases) == 1 and -1 not in phases else None


def row_blocks(channels: int, pixels: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Grid and block with one thread a pixel: (pixels, channels) in a block of up to THREADS."""
    tiles = -(-pixels // THREADS)
    across = -(-pixels // tiles)
    down = min(THREADS // across, channels)
    return (-(-channels // down), tiles), (across, down)
