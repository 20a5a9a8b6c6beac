"""Nodding: in each of two positions another beam of the array sees the source; physics section 7."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpucal.backend.protocol import Backend
from gpucal.modes.recipe import (
    F64,
    Array,
    Difference,
    Means,
    OnAndReference,
    ReferenceTrack,
    SkySeen,
    Subscans,
    TileCounts,
    mean_exptime,
)
from gpucal.products import MeanKey
from gpucal.scan import SubscanGroup


@dataclass(frozen=True, eq=False)
class NodBeams(Difference):
    """Two nod positions: pixels of ``second`` (bool [R,A]) have the source in position 2."""

    on: int
    other: int
    second: npt.NDArray[np.bool_]

    def source_subscan(self) -> Subscans:
        """Position 2 for the pixels of ``second``, else position 1."""
        return np.where(self.second, self.other, self.on)

    def subscans(self) -> tuple[int, ...]:
        """Both positions."""
        return (self.on, self.other)

    def means(self) -> tuple[MeanKey, ...]:
        """Both positions: each is the reference of the beams that the other one serves."""
        return (MeanKey(self.on), MeanKey(self.other))

    def sky_key(self) -> MeanKey:
        """Position 2, where most pixels see the sky; ``skies`` is exact."""
        return MeanKey(self.other)

    def on_and_reference(self, tile: TileCounts) -> OnAndReference:
        """For each pixel the dumps of its position on the source, and the mean of the other one."""
        xp, second = tile.backend.xp, tile.backend.asarray(self.second)
        first_dumps, second_dumps = tile.source(self.on), tile.source(self.other)
        here, there = (tile.mean(key) for key in self.means())
        return OnAndReference(
            xp.where(second, second_dumps, first_dumps), xp.where(second, here, there)
        )

    def dump_noise(self, exptime: F64) -> float:
        """1/t of a dump."""
        return 1.0 / mean_exptime(exptime, self.on)

    def reference_weights(self) -> dict[MeanKey, float]:
        """The mean of the other position alone; both positions are equally long."""
        return {MeanKey(self.other): 1.0}

    def skies(self, means: Means, backend: Backend) -> list[SkySeen]:
        """For each pixel the position in which it saw the sky, with its time and elevation."""
        second = backend.asarray(self.second)[None, ...]
        here, there = (means[key] for key in self.means())
        counts: Array = backend.xp.where(second, here.mean, there.mean)
        seen = np.where(self.second, self.on, self.other)
        time = np.where(self.second, here.time, there.time)
        return [SkySeen(("nod", self.on), counts, seen, time)]

    def source_track(self, values: F64, n_dumps: int) -> F64:
        """The dumps of position 2 for the pixels of ``second``, else of position 1: f64 [D,R,A]."""
        here, there = (values[:, s, None, None] for s in (self.other, self.on))
        return np.where(self.second, here, there)

    def reference_tracks(self, values: F64, n_dumps: int) -> list[ReferenceTrack]:
        """For each pixel the mean of the other position."""
        here, there = (values[:, s, None, None] for s in (self.on, self.other))
        return [ReferenceTrack(1.0, np.where(self.second, here, there), averaged=True)]

    def pixel_offsets(self, group: SubscanGroup) -> tuple[F64, F64]:
        """Offsets from the track of position 1, also for the pixels that see the source in position 2."""
        lon, lat = group.otf_lon, group.otf_lat
        turn = (lon[:, self.other] - lon[:, self.on] + 180.0) % 360.0 - 180.0
        moved_lon = turn * np.cos(np.deg2rad(lat[:, self.on]))
        moved_lat = lat[:, self.other] - lat[:, self.on]
        return (
            self._of_both(group.pixel_offset_lon, moved_lon),
            self._of_both(group.pixel_offset_lat, moved_lat),
        )

    def _of_both(self, offsets: F64, moved: F64) -> F64:
        """Offsets f64 [R,A] deg from [R,A,S], those of position 2 moved by the mean of f64 [D]."""
        values = np.array(offsets, dtype=np.float64)
        there = values[:, :, self.other] + float(moved.mean())
        return np.where(self.second, there, values[:, :, self.on])
