"""Both phases of a frequency switch moved onto each other and averaged, in blocks for the cache."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cpu_fallback.workers import Workers
from gpucal.axes import Flag
from gpucal.kernel_contract.fold import FoldTile

BLOCK_SAMPLES = 1 << 15
"""Output samples of one block: its sums stay in the cache while the taps are added."""

ROW_SAMPLES = 256
"""Samples of one channel of a block, so that few channels are read beside it."""

_BAD = np.uint16(Flag.BAD_CHANNEL)
_FILL = np.uint16(Flag.FILL_VALUE)
_ANY_BUT_BAD = np.uint16(0xFFFF ^ int(Flag.BAD_CHANNEL))

Array = NDArray[Any]


class _Block(NamedTuple):
    """Channels and dumps of the output, and one receiver."""

    channels: slice
    dumps: slice
    receiver: int


class _Phase(NamedTuple):
    """Shifted spectra [c,d,A], their weight [c,1,A] and flags [c,d,A]."""

    spectra: NDArray[np.float64]
    weight: NDArray[np.float64]
    bits: NDArray[np.uint16]


def fold_phases(tile: FoldTile, workers: Workers) -> int:
    """Write (w_1 T_1 - w_2 T_2) / (w_1 + w_2) / t; returns the number of samples with bit 1."""
    if tile.out.size == 0:
        return 0
    return sum(workers.run(lambda block: _fold(tile, block, workers), _blocks(tile)))


def _blocks(tile: FoldTile) -> list[_Block]:
    """Cut the output into blocks of one receiver each that stay in the cache."""
    channels, dumps, receivers, pixels = tile.out.shape
    d_step = max(1, ROW_SAMPLES // pixels)
    c_step = max(1, BLOCK_SAMPLES // (min(d_step, dumps) * pixels))
    return [
        _Block(slice(c, min(c + c_step, channels)), slice(d, min(d + d_step, dumps)), r)
        for c in range(0, channels, c_step)
        for d in range(0, dumps, d_step)
        for r in range(receivers)
    ]


def _fold(tile: FoldTile, block: _Block, workers: Workers) -> int:
    """Fold one block; returns its number of samples with bit 1."""
    channels, dumps, r = block
    first, first_weight, bits = _phase(tile, 0, block, workers)
    second, second_weight, more = _phase(tile, 1, block, workers)
    np.bitwise_or(bits, more, out=bits)
    np.multiply(first_weight, first, out=first)
    np.multiply(second_weight, second, out=second)
    np.subtract(first, second, out=first)
    np.divide(first, first_weight + second_weight, out=first)
    t = tile.transmission
    if t is not None:
        own = t if t.shape[1] == 1 else t[:, r : r + 1]
        np.divide(first, own[channels], out=first)
    own_flags = tile.base_flags[channels, r] & _ANY_BUT_BAD
    np.bitwise_or(bits, own_flags[:, None], out=bits)
    finite = workers.scratch("finite", first.shape, np.bool_)
    np.isfinite(first, out=finite)
    if not finite.all():
        lost = ~finite
        first[lost] = np.nan
        bits[lost & ((bits & _BAD) == 0)] |= _FILL
    tile.out[channels, dumps, r] = first
    tile.out_flags[channels, dumps, r] = bits
    return int(np.count_nonzero(bits & _FILL))


def _phase(tile: FoldTile, phase: int, block: _Block, workers: Workers) -> _Phase:
    """One phase moved to the channels of the output, in memory of its own."""
    channels, dumps, r = block
    taps = tile.taps[phase, r]
    half = len(taps) // 2
    here, other = (int(n) + channels.start for n in tile.nearest[phase, :, r])
    n, width = channels.stop - channels.start, dumps.stop - dumps.start
    pixels = tile.out.shape[3]
    if here == other:
        taps, half = taps[half : half + 1], 0
    start = here - half
    window = workers.scratch("window", (n + len(taps) - 1, width, pixels), np.float64)
    _cut(tile.spectra[:, dumps, r], start, np.nan, window)
    total = workers.scratch(f"total {phase}", (n, width, pixels), np.float64)
    norm, gone = _sum_taps(window, taps, total, workers)
    np.divide(total, norm, out=total)
    bits = workers.scratch(f"bits {phase}", total.shape, np.uint16)
    _cut(tile.flags[:, dumps, r], here, _FILL, bits)
    if other != here:
        more = workers.scratch("more", total.shape, np.uint16)
        _cut(tile.flags[:, dumps, r], other, _FILL, more)
        np.bitwise_or(bits, more, out=bits)
    if gone is not None:
        for near in {here, other}:
            total[gone[near - start : near - start + n]] = np.nan
    weight = np.empty((n, 1, pixels))
    _cut(tile.weight[:, None, r], here, np.nan, weight)
    return _Phase(total, weight, bits)


def _sum_taps(
    window: NDArray[np.float64],
    taps: NDArray[np.float64],
    total: NDArray[np.float64],
    workers: Workers,
) -> tuple[Any, NDArray[np.bool_] | None]:
    """Sum over the taps into ``total``; returns the sum of their weights and where window was NaN.

    A NaN drops out of both sums; ``window`` holds 0 there afterwards.
    """
    n = len(total)
    gone: NDArray[np.bool_] | None = None
    if np.isnan(window.min()):
        gone = workers.scratch("gone", window.shape, np.bool_)
        np.isnan(window, out=gone)
        window[gone] = 0.0
    term = workers.scratch("term", total.shape, np.float64)
    total.fill(0.0)
    for first, tap in enumerate(taps):
        np.multiply(window[first : first + n], tap, out=term)
        np.add(total, term, out=total)
    if gone is None:
        # One by one: a sum of floats is its order.
        norm = 0.0
        for tap in taps:
            norm += float(tap)
        return norm or 1.0, None
    there = workers.scratch("there", window.shape, np.float64)
    np.subtract(1.0, gone, out=there)
    norms = workers.scratch("norms", total.shape, np.float64)
    norms.fill(0.0)
    for first, tap in enumerate(taps):
        np.multiply(there[first : first + n], tap, out=term)
        np.add(norms, term, out=norms)
    norms[norms == 0] = 1.0
    return norms, gone


def _cut(values: Array, start: int, fill: Any, out: Array) -> None:
    """Copy the channels from start on of ``values`` [m,...] into ``out`` [n,...]; ``fill`` outside."""
    lo, hi = max(start, 0), min(start + len(out), len(values))
    if hi <= lo:
        out.fill(fill)
        return
    out[: lo - start] = fill
    out[lo - start : hi - start] = values[lo:hi]
    out[hi - start :] = fill
