"""Chopped OTF, and wobbler with one subscan per phase: dump minus dump; physics section 7."""

from __future__ import annotations

from dataclasses import dataclass

from gpucal.modes.recipe import (
    F64,
    Difference,
    OnAndReference,
    ReferenceTrack,
    TileCounts,
    mean_exptime,
)
from gpucal.products import MeanKey


@dataclass(frozen=True)
class DumpPair(Difference):
    """Per-dump difference ON(d) - OFF(d) of two subscans."""

    on: int
    off: int

    def subscans(self) -> tuple[int, ...]:
        """ON and OFF."""
        return (self.on, self.off)

    def means(self) -> tuple[MeanKey, ...]:
        """The OFF, for the sky alone."""
        return (MeanKey(self.off),)

    def sky_key(self) -> MeanKey:
        """The OFF."""
        return MeanKey(self.off)

    def on_and_reference(self, tile: TileCounts) -> OnAndReference:
        """The dumps of both subscans."""
        reference = tile.reference(self.off)
        return OnAndReference(tile.source(self.on), reference)

    def reference_tracks(self, values: F64, n_dumps: int) -> list[ReferenceTrack]:
        """The dumps of the other subscan."""
        return [ReferenceTrack(1.0, values[:, self.off])]

    def dump_noise(self, exptime: F64) -> float:
        """1/t_on + 1/t_off of a dump."""
        return 1.0 / mean_exptime(exptime, self.on) + 1.0 / mean_exptime(exptime, self.off)
