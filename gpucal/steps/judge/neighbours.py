"""Samples that stand out of their column, and what their neighbours in channel and time have of them.

Physics section 6, equation (6.6). Shapes: c channels of a tile, D dumps, P pixels, n candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpucal.steps.judge.medians import median_of_rows

F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Index = npt.NDArray[np.intp]

NEAR, FAR, NOISE = 0.3, 0.05, 3.0
"""What a neighbour of a spike may have of it: less than NEAR, or of a high spike FAR or NOISE sigma."""

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

    def further(self, channels: int, dumps: int) -> Places:
        """The places that many channels and dumps further on."""
        return Places(self.channel + channels, self.dump + dumps, self.pixel)


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


class _Columns:
    """Some columns (channel, pixel) of values [c,D,P] with their median over dumps; NaN for places outside of them."""

    def __init__(self, values: npt.NDArray[Any], places: Sequence[Places]) -> None:
        self._shape = values.shape
        c, _, p = values.shape
        keys = [q.channel * p + q.pixel for q in places]
        all_keys = np.unique(np.concatenate(keys))
        self._keys = all_keys[(all_keys >= 0) & (all_keys < c * p)]
        self._rows = np.asarray(values[self._keys // p, :, self._keys % p], dtype=np.float64)
        self._center = median_of_rows(self._rows)

    def value(self, places: Places) -> F64:
        """The samples at these places."""
        row, inside = self._row(places)
        dump = np.clip(places.dump, 0, self._shape[1] - 1)
        inside &= dump == places.dump
        return np.asarray(np.where(inside, self._rows[row, dump], np.nan))

    def deviation(self, places: Places) -> F64:
        """The samples less the medians of their columns."""
        row, inside = self._row(places)
        center = np.where(inside, self._center[row], np.nan)
        return np.asarray(self.value(places) - center)

    def _row(self, places: Places) -> tuple[Index, Mask]:
        """Row of each place, and whether there is one."""
        c, _, p = self._shape
        row = np.searchsorted(self._keys, places.channel * p + places.pixel)
        inside = np.asarray((places.channel >= 0) & (places.channel < c))
        return np.where(inside, np.minimum(row, len(self._keys) - 1), 0), inside


class Around:
    """Candidates and their neighbours, everything in the direction in which a candidate deviates."""

    def __init__(self, values: npt.NDArray[Any], candidates: Places) -> None:
        self._at = candidates
        self._columns = _Columns(values, [candidates.further(step, 0) for step in range(-2, 3)])
        deviation = self._columns.deviation(candidates)
        self._sign, self._size = np.sign(deviation), np.abs(deviation)

    def alone(self, noise: F64 | float, t_sys: F64) -> Mask:
        """Whether no neighbour has a part of a candidate, bool [n], (6.6).

        noise (of its dump) and t_sys (T_sys*) f64 [n], K.
        """
        size = self._size
        before, after = (np.fmin(*self._above(step)) for step in (-1, 1))
        beside = np.fmax(
            *(self._sign * self._over_gap(self._columns.deviation, s, 0) for s in (-1, 1))
        )
        allowed = np.minimum(NEAR * size, np.maximum(FAR * size, NOISE * noise))
        with np.errstate(invalid="ignore"):
            narrow = (np.fmax(before, after) < allowed) & (beside < NEAR * size)
            narrow &= np.fmax(*self._above(0)) > STEEP * size
            itself = self._sign * self._columns.value(self._at)
            huge = (size > IMPOSSIBLE * t_sys) & (itself > 0.5 * size)
            huge &= np.fmax(self._away(0, -1), self._away(0, 1)) < FAR * size
        return np.asarray(narrow | huge)

    def _away(self, channels: int, dumps: int) -> F64:
        """Deviation of a neighbour; NaN where there is none."""
        return self._sign * self._columns.deviation(self._at.further(channels, dumps))

    def _above(self, dumps: int) -> list[F64]:
        """How far the sample that many dumps on stands out from the channels on its two sides."""
        own = self._columns.value(self._at.further(0, dumps))
        return [
            self._sign * (own - self._over_gap(self._columns.value, step, dumps))
            for step in (-1, 1)
        ]

    def _over_gap(self, what: Callable[[Places], F64], side: int, dumps: int) -> F64:
        """A quantity of the next channel on one side, of the one after it where that is blank."""
        near, far = (what(self._at.further(n * side, dumps)) for n in (1, 2))
        return np.asarray(np.where(np.isfinite(near), near, far))
