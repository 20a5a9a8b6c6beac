"""Base class of the recipes: what every observing mode must define for one output subscan.

Shapes use C channels, c of a block, D dumps, R receivers, A pixels, S subscans of the scan.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from gpucal.backend.protocol import Backend
from gpucal.products import MeanKey, SubscanMean
from gpucal.scan import SubscanGroup

Array = Any
F64 = npt.NDArray[np.float64]
Subscans = int | npt.NDArray[np.int64]
"""One subscan for all pixels, or i64 [R,A], one for each."""
Means = Mapping[MeanKey, SubscanMean]


class TileCounts(Protocol):
    """The counts of one block of channels, for a recipe to choose from."""

    @property
    def backend(self) -> Backend:
        """The backend of all arrays."""

    @property
    def n_dumps(self) -> int:
        """Dumps of the output."""

    def source(self, subscan: int) -> Array:
        """Counts [c,D,R,A] on the source: as stored, or f64 where a gain drift was removed."""

    def reference(self, subscan: int) -> Array:
        """Counts f64 [c,D,R,A] off the source, dump by dump, NaN where nothing was written."""

    def mean(self, key: MeanKey) -> Array:
        """Dump mean f64 [c,R,A], counts; ``key`` is one of ``Recipe.means``."""


class OnAndReference(NamedTuple):
    """Counts [c,D,R,A] on the source; the reference, f64 [c,R,A] or per dump f64 [c,D,R,A]."""

    on: Array
    reference: Array


class SkySeen(NamedTuple):
    """One sky for the fit of the water: mean counts f64 [C,R,A], where and how long.

    key tells different skies of a scan apart; subscan: whose elevation counts; time s, f64 [R,A] where
    the pixels differ.
    """

    key: Hashable
    counts: Array
    subscan: Subscans
    time: float | F64


class ReferenceTrack(NamedTuple):
    """A part of the reference of an output: its weight (a number, or f64 [n_dumps]), and values of the raw dumps it is
    made of: f64 [D] or [D,R,A], one for each output dump, or ``averaged``, the same for all. key: the dump mean."""

    weight: float | F64
    values: F64
    averaged: bool = False
    key: MeanKey | None = None


class NoiseRates(NamedTuple):
    """(a, b) with rms^2 = T_sys*^2 (a/n + b)/dnu for the mean of n valid dumps, 1/s; physics equation (6.4).

    own: a, of the dumps themselves; shared: b, of a reference that all dumps have in common.
    """

    own: float
    shared: float


class Recipe(ABC):
    """Recipe of one output subscan.

    ``on``: the L0 subscan whose times, directions and elevation the output has.
    """

    on: int

    def source_subscan(self) -> Subscans:
        """The subscan in which each pixel saw the source: its elevation counts."""
        return self.on

    # which raw data

    @abstractmethod
    def parts(self) -> tuple[Difference, ...]:
        """The one difference, or the two beams whose calibrated spectra are averaged."""

    @abstractmethod
    def subscans(self) -> tuple[int, ...]:
        """The subscans whose single dumps are read."""

    @abstractmethod
    def means(self) -> tuple[MeanKey, ...]:
        """The dump means that the reference is made of."""

    @abstractmethod
    def sky_key(self) -> MeanKey:
        """The OFF mean that shows the sky of this output: the one nearest in time."""

    # the spectrum

    def extrapolated(self) -> bool:
        """True where the OFFs lie on one side of the ON only (flag REFERENCE_EXTRAPOLATED)."""
        return False

    def output_dumps(self, n_dumps: int) -> int:
        """Dumps of the output, from ``n_dumps`` of the raw subscan."""
        return n_dumps

    def fold_throw(self) -> F64 | None:
        """Throws f64 [2,R], in channels, of two phases to be folded; None: nothing is folded."""
        return None

    def channels_around(self) -> tuple[int, int]:
        """Channels below and above a block that are needed to make it."""
        return (0, 0)

    # the noise

    @abstractmethod
    def dump_noise(self, exptime: F64) -> float:
        """The rate a of ``NoiseRates``, 1/s; exptime f64 [D,S] s of the scan."""

    def reference_weights(self) -> dict[MeanKey, float]:
        """Weight of each dump mean in a reference that all dumps share; empty: each has its own."""
        return {}

    def noise_rates(self, exptime: F64, means: Means) -> NoiseRates:
        """Noise of the dumps and of the shared reference; physics section 6, equation (6.4).

        exptime f64 [D,S] s. NaN where a mean has no valid dump.
        """
        weights = self.reference_weights()
        shared = sum((w**2 * _inverse(means[key].time) for key, w in weights.items()), 0.0)
        return NoiseRates(self.dump_noise(exptime), shared)

    # the sky

    def skies(self, means: Means, backend: Backend) -> list[SkySeen]:
        """The skies that this output brings into the fit of the water; the last one is its own."""
        return [sky_of_mean(self.sky_key(), means)]

    def compared_offs(self) -> list[tuple[MeanKey, ...]]:
        """The OFF means for SKYDIFF; two keys in one tuple stand for their 50/50 blend."""
        return [(self.sky_key(),)]

    # times and directions in L1

    def track(self, values: F64, n_dumps: int, *, total: bool = False) -> F64:
        """One value per output dump, f64 [n_dumps], from ``values`` f64 [D,S] of the raw dumps.

        ``total``: their sum instead of their mean, where several raw dumps make one.
        """
        return values[:, self.on]

    def source_track(self, values: F64, n_dumps: int) -> F64:
        """One value per output dump as each pixel saw the source: f64 [n_dumps], or [n_dumps,R,A] where they differ.

        values f64 [D,S] of the raw dumps.
        """
        return self.track(values, n_dumps)

    def pixel_offsets(self, group: SubscanGroup) -> tuple[F64, F64]:
        """Offsets in lon and lat f64 [R,A] deg from the track of ``on``: where a pixel saw the source."""
        lon, lat = group.pixel_offset_lon, group.pixel_offset_lat
        return _offsets(lon, self.on), _offsets(lat, self.on)


class Difference(Recipe):
    """A recipe of the form (C_ON - C_REF) F; nearly every mode is one."""

    @abstractmethod
    def on_and_reference(self, tile: TileCounts) -> OnAndReference:
        """The two sides of the difference for one block of channels; called once per tile."""

    def reference_tracks(self, values: F64, n_dumps: int) -> list[ReferenceTrack]:
        """What the reference is made of; ``values`` f64 [D,S] of the raw dumps, such as their airmass.

        The means of ``reference_weights``; where there are none, the mean that shows the sky.
        """
        weights = self.reference_weights() or {self.sky_key(): 1.0}
        return [ReferenceTrack(w, values[:, k.subscan], True, k) for k, w in weights.items()]

    def parts(self) -> tuple[Difference, ...]:
        """The recipe itself, alone."""
        return (self,)


def sky_of_mean(key: MeanKey, means: Means) -> SkySeen:
    """The sky as seen by one OFF mean."""
    mean = means[key]
    return SkySeen(key, mean.mean, key.subscan, mean.time)


def mean_exptime(exptime: F64, subscan: int) -> float:
    """Mean integration time of the dumps of a subscan, s; exptime f64 [D,S]."""
    return float(np.mean(exptime[:, subscan]))


def _offsets(values: F64, subscan: int) -> F64:
    """Offsets of one subscan, f64 [R,A], copied from values [R,A,S]."""
    return np.array(values[:, :, subscan], dtype=np.float64)


def _inverse(time: float) -> float:
    """1 / time; NaN for an OFF of which nothing was recorded."""
    return 1.0 / time if time > 0 else float("nan")
