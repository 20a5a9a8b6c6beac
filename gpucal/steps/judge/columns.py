"""A first look at a tile: which columns (all dumps of a channel and pixel) hold anything that stands out.

Nearly every sample is noise around the mean of its column, and this is what each of them costs: the largest and the
smallest of a block of channels against limits that hold for all of them. Only where one of the two is beyond, each
pixel of the block is looked at, and then each column. Shapes: c channels of a tile, D dumps, P pixels; n blocks of few
channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Index = npt.NDArray[np.intp]

GROUP_BYTES = 1 << 20
"""Samples that stay in the cache of a core while they are looked at."""

FEW = 32
"""Channels of a block."""

ENOUGH = 0.25
"""Part of the blocks of a tile that tells what the others are like; less may be a single line."""

ROW = 96
"""Samples that NumPy should find in one row; the dumps of few pixels are taken together."""


def excess_of_columns(samples: npt.NDArray[Any], mean: F64, reach: F64, usual: float) -> F64:
    """How far the sample that is furthest from the mean of its column lies from it, f64 [c,P] in units of ``reach``.

    samples [c,D,P], NaN where blank; mean and reach f64 [c,P]; usual: what noise alone makes of it in many samples. 0
    where a look at more than one channel shows that it is not above 1; NaN where there is nothing to look at.
    """
    c, d, p = samples.shape
    at_once = max(1, GROUP_BYTES // max(1, d * p * samples.itemsize))
    few = min(FEW, at_once)
    whole = c - c % few
    excess = np.zeros((c, p))
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        for start, stop in ((0, whole), (whole, c)):
            if stop > start:
                n = max(1, (stop - start) // few)
                samples_, mean_, reach_, out = (
                    v[start:stop].reshape(n, -1, *v.shape[1:])
                    for v in (samples, mean, reach, excess)
                )
                _put_excess(_Blocks(samples_, mean_, reach_), usual, max(1, at_once // few), out)
    return excess


class _Blocks(NamedTuple):
    """Samples [n,few,D,P], mean and reach f64 [n,few,P] of blocks of channels."""

    samples: npt.NDArray[Any]
    mean: F64
    reach: F64


def _put_excess(blocks: _Blocks, usual: float, step: int, out: F64) -> None:
    """Write the excess of the columns [n,few,P] of blocks that have any above 1; ``step`` blocks fit into the cache."""
    odd = np.arange(len(out))
    for by_pixel in (False, True):
        odd = odd[_beyond(blocks, odd, by_pixel, usual, step)]
    for part in _parts(odd, step):
        samples, mean, reach = (v[part] for v in blocks)
        highest, lowest = (
            _over_dumps(operation, samples.reshape(-1, *samples.shape[2:])).reshape(mean.shape)
            for operation in (np.fmax, np.fmin)
        )
        out[part] = np.fmax(highest - mean, mean - lowest) / np.where(reach > 0, reach, np.nan)


def _beyond(blocks: _Blocks, which: Index, by_pixel: bool, usual: float, step: int) -> Mask:
    """Of some blocks, i64 [k], those that do not lie between limits that hold for all samples, or those of a pixel.

    All of them where that is so of most blocks: each column will be looked at.
    """
    k, everything = len(which), np.ones(len(which), dtype=np.bool_)
    if not k:
        return everything
    shape = (k, -1, blocks.mean.shape[2]) if by_pixel else (k, -1)
    some = (blocks.mean, blocks.reach)
    mean, reach = ((v if k == len(v) else v[which]).reshape(shape) for v in some)
    narrow, wide = np.fmin.reduce(reach, axis=1), np.fmax.reduce(reach, axis=1)
    least, most = np.fmax.reduce(mean, axis=1) - narrow, np.fmin.reduce(mean, axis=1) + narrow
    # Noise alone often exceeds limits as narrow as this.
    beyond = np.asarray(most - least < 2 * usual * wide).reshape(k, -1)
    if _mostly(beyond):
        return everything
    done = 0
    for part in _parts(which, step):
        highest, lowest = _extremes(blocks.samples[part], by_pixel)
        here = slice(done, done + len(highest))
        beyond[here] |= ((highest > most[here]) | (lowest < least[here])).reshape(len(highest), -1)
        first, done = done < ENOUGH * k <= here.stop, here.stop
        if first and _mostly(beyond[:done]):
            return everything
    return np.asarray(beyond.any(axis=1))


def _mostly(beyond: Mask) -> bool:
    """Whether more than half of the rows have one."""
    return 2 * int(np.count_nonzero(beyond.any(axis=1))) > len(beyond)


def _parts(which: Index, step: int) -> Iterator[Index | slice]:
    """Some of these indices at a time, as a slice where they follow each other."""
    for start in range(0, len(which), step):
        part = which[start : start + step]
        first, last = int(part[0]), int(part[-1])
        yield slice(first, last + 1) if last - first == len(part) - 1 else part


def _extremes(
    samples: npt.NDArray[Any], by_pixel: bool
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The largest and the smallest of blocks [k,few,D,P]: [k], or of each pixel [k,P]."""
    k, few, d, p = samples.shape
    if not by_pixel:
        flat = samples.reshape(k, -1)
        return np.fmax.reduce(flat, axis=1), np.fmin.reduce(flat, axis=1)
    rows = samples.reshape(k, few, d * p)
    highest, lowest = (
        _over_dumps(operation, operation.reduce(rows, axis=1).reshape(k, d, p))
        for operation in (np.fmax, np.fmin)
    )
    return highest, lowest


def _over_dumps(operation: np.ufunc, group: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """``operation.reduce``, of fmax or fmin, over the dumps of a group [g,D,P], in long rows."""
    g, d, p = group.shape
    if p == 1:
        return np.asarray(operation.reduce(group, axis=1))
    together = -(-ROW // p)
    whole = d - d % together
    if whole > together:
        rows = group[:, :whole].reshape(g, whole // together, together * p)
        found = operation.reduce(rows, axis=1).reshape(g, together, p)
        group = found if whole == d else operation(found, group[:, -together:])
    # To take a dump twice does no harm.
    while group.shape[1] > 1:
        half = -(-group.shape[1] // 2)
        group = operation(group[:, :half], group[:, -half:])
    return np.asarray(group[:, 0])
