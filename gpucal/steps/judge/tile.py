"""What the judge of a tile knows: its samples, what is expected of them, and the thresholds.

Shapes: c channels of a tile, D dumps, P pixels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpucal.steps.judge.columns import excess_of_columns

F64 = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]

LEAST_SUSPECT, MOST_SUSPECT = 0.75, 0.875
"""A sample this part of the threshold away from the mean over dumps is looked at: a spike moves the mean, too."""

USUAL = 4.5
"""Noise alone takes one of many samples so many sigma away from the mean."""


class Tile(NamedTuple):
    """Values [c,D,P] K with what is expected of them.

    mean over dumps, sigma (noise of the mean dump) and t_sys (T_sys*), f64 [c,P] K; of_dump f64 [D,P]: noise of a dump
    over that of the mean dump.
    """

    values: npt.NDArray[Any]
    mean: F64
    sigma: F64
    t_sys: F64
    of_dump: F64

    def of_pixels(self, mask: Mask) -> Tile:
        """Some pixels of it."""
        return self if mask.all() else Tile(*(part[..., mask] for part in self))


class Columns(NamedTuple):
    """Columns of a tile, channel and pixel i64 [n], with their excess f64 [n] (``excess_of_columns``)."""

    channel: Index
    pixel: Index
    excess: F64

    def where(self, mask: Mask) -> Columns:
        """Some of them."""
        return Columns(self.channel[mask], self.pixel[mask], self.excess[mask])


class Thresholds(NamedTuple):
    """In sigma: from the median of the column, to be a spike; from its mean, to be looked at."""

    spike: float
    suspect: float

    @classmethod
    def of(cls, spike: float, n_dumps: int) -> Thresholds:
        """The thresholds of a tile; the more dumps there are, the less a spike moves their mean."""
        part = min(max(LEAST_SUSPECT, 1.0 - 2.0 / n_dumps), MOST_SUSPECT)
        return cls(spike, part * spike)

    def suspects(self, values: npt.NDArray[Any], mean: F64, sigma: F64) -> Columns:
        """The columns of values [c,D,P] that are to be looked at; mean and sigma f64 [c,P] as in ``Tile``."""
        excess = excess_of_columns(values, mean, self.suspect * sigma, USUAL / self.suspect)
        channel, pixel = np.nonzero(excess > 1)
        return Columns(channel, pixel, excess[channel, pixel])
