"""Frequency switching: both phases see the line, in different channels; physics section 7, equation (7.3)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gpucal.modes.recipe import (
    F64,
    Difference,
    OnAndReference,
    ReferenceTrack,
    TileCounts,
    mean_exptime,
)
from gpucal.physics.fold import shift_reach
from gpucal.products import MeanKey


@dataclass(frozen=True, eq=False)
class PhaseDifference(Difference):
    """(SIG - REF) per dump; throw f64 [2,R], in channels, of SIG and REF; folded or not."""

    on: int
    off: int
    throw: F64
    fold: bool

    def subscans(self) -> tuple[int, ...]:
        """Both phases."""
        return (self.on, self.off)

    def means(self) -> tuple[MeanKey, ...]:
        """None: the difference is taken dump by dump."""
        return ()

    def sky_key(self) -> MeanKey:
        """The reference phase, although the line is in it."""
        return MeanKey(self.off)

    def fold_throw(self) -> F64 | None:
        """The throw of both phases, where folding is asked for."""
        return self.throw if self.fold else None

    def channels_around(self) -> tuple[int, int]:
        """Channels below and above c that the folded channel c is made of."""
        if not self.fold:
            return (0, 0)
        shifts = [float(s) for s in self.throw.ravel()]
        below = max(math.ceil(s) + shift_reach(s)[0] for s in shifts)
        above = max(math.ceil(-s) + shift_reach(s)[1] for s in shifts)
        return max(below, 0), max(above, 0)

    def on_and_reference(self, tile: TileCounts) -> OnAndReference:
        """The dumps of both phases, not yet folded."""
        reference = tile.reference(self.off)
        return OnAndReference(tile.source(self.on), reference)

    def reference_tracks(self, values: F64, n_dumps: int) -> list[ReferenceTrack]:
        """The dumps of the other subscan."""
        return [ReferenceTrack(1.0, values[:, self.off])]

    def dump_noise(self, exptime: F64) -> float:
        """1/t_sig + 1/t_ref of a dump; folding halves it."""
        rate = 1.0 / mean_exptime(exptime, self.on) + 1.0 / mean_exptime(exptime, self.off)
        return 0.5 * rate if self.fold else rate
