"""Samples that stand out of their column, and what their neighbours in channel and time have of them.

Physics section 6, equation (6.6). Shapes: c channels of a tile, D dumps, P pixels, n candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpucal.steps.judge.medians import median_of_rows

F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Index = npt.NDArray[np.intp]

NEAR, FAR, NOISE = 0.3, 0.05, 3.0
"""What a neighbour of a spike may have of it: less than NEAR, or of a high spike FAR or NOISE sigma."""

WING, SURE = 0.1, 4.0
"""Noise alone gives no channel beside a spike so many sigma: there a line leaves its wing."""

STEEP = 0.5
"""A spike is this part of it above the channel on one side at least."""

IMPOSSIBLE = 1e3
"""In units of T_sys*: in one dump alone this is no line, however wide."""


class Places(NamedTuple):
    """Indices of some samples, each i64 [n]."""

    channel: Index
    dump: Index
    pixel: Index

    def where(self, mask: Mask) -> Places:
        """Some of them."""
        return Places(self.channel[mask], self.dump[mask], self.pixel[mask])


class Candidates(NamedTuple):
    """Samples that are far from the median of their column: places, and both f64 [n] K."""

    places: Places
    value: F64
    center: F64

    @property
    def size(self) -> F64:
        """Distance from the median, f64 [n] K."""
        return np.abs(self.value - self.center)

    def where(self, mask: Mask) -> Candidates:
        """Some of them."""
        return Candidates(self.places.where(mask), self.value[mask], self.center[mask])


def joined(parts: Sequence[Candidates]) -> Candidates:
    """Several lists of candidates as one."""
    return Candidates(
        Places(*(np.concatenate(axis) for axis in zip(*(c.places for c in parts), strict=True))),
        np.concatenate([c.value for c in parts]),
        np.concatenate([c.center for c in parts]),
    )


def on_a_slope(values: npt.NDArray[Any], candidates: Candidates, t_sys: F64) -> Mask:
    """Candidates of a line: neither of the channels beside them, in the same dump, is far below. bool [n].

    The quick part of ``Around.alone``, which calls none of them alone. values [c,D,P], t_sys (T_sys*) f64 [c,P], K.
    """
    places, value, center = candidates
    sign, size = np.sign(value - center), candidates.size
    last = len(values) - 1
    inside = (places.channel > 0) & (places.channel < last)
    beside = [
        np.asarray(values[np.clip(places.channel + step, 0, last), places.dump, places.pixel])
        for step in (-1, 1)
    ]
    with np.errstate(invalid="ignore"):
        # A blank neighbour makes this NaN, and the comparison false: ``Around`` looks further.
        steepest = np.maximum(*(sign * (value - other) for other in beside))
        line = steepest <= STEEP * size
        return np.asarray(
            inside & line & (size <= IMPOSSIBLE * t_sys[places.channel, places.pixel])
        )


class Around:
    """Candidates and their neighbours, everything in the direction in which a candidate deviates; values [c,D,P] K.

    Of a channel that is blank beside a candidate the next one takes the place.
    """

    def __init__(self, values: npt.NDArray[Any], candidates: Candidates) -> None:
        c, d, _ = values.shape
        at, pixel = candidates.places, candidates.places.pixel
        channel = at.channel + np.arange(-2, 3)[:, None]
        dump = at.dump + np.arange(-1, 2)[:, None]
        inside = ((channel >= 0) & (channel < c))[:, None] & ((dump >= 0) & (dump < d))
        channel, dump = np.clip(channel, 0, c - 1), np.clip(dump, 0, d - 1)
        cube = np.where(inside, values[channel[:, None], dump, pixel], np.nan)
        rows = np.asarray(values[channel, :, pixel], dtype=np.float64)
        center = median_of_rows(rows.reshape(-1, d)).reshape(channel.shape)
        self._size = size = candidates.size
        sign = np.sign(candidates.value - candidates.center)
        with np.errstate(invalid="ignore"):
            deviation = sign * (cube[:, 1] - center)
            before, after = sign * (cube[2, ::2] - center[2])
            beside = np.fmax(_nearer(deviation, -1), _nearer(deviation, 1))
            below = [sign * (cube[2] - _nearer(cube, side)) for side in (-1, 1)]
            self._in_time = np.fmax.reduce(np.fmin(*below)[::2])
            self._beside = beside
            self._narrow = (beside < NEAR * size) & (np.fmax(*below)[1] > STEEP * size)
            self._brief = (np.fmax(before, after) < FAR * size) & (sign * cube[2, 1] > 0.5 * size)

    def alone(self, noise: F64 | float, t_sys: F64, *, wings: bool = True) -> Mask:
        """Whether no neighbour has a part of a candidate, bool [n], (6.6).

        noise (of its dump) and t_sys (T_sys*) f64 [n], K. wings: the channels beside it are flat but for noise.
        """
        size = self._size
        allowed = np.minimum(NEAR * size, np.maximum(FAR * size, NOISE * noise))
        with np.errstate(invalid="ignore"):
            surely = np.maximum(WING * size, SURE * noise) if wings else np.inf
            narrow = self._narrow & (self._in_time < allowed) & (self._beside < surely)
            return np.asarray(narrow | (self._brief & (size > IMPOSSIBLE * t_sys)))


def _nearer(of_channels: F64, side: int) -> F64:
    """Of f64 [5,...] around a channel what the next one on a side has, or the one after it where that is blank."""
    near, far = of_channels[2 + side], of_channels[2 + 2 * side]
    return np.asarray(np.where(np.isfinite(near), near, far))
