"""Total power and OTF: dump means of OFF subscans, interpolated in time; physics equation (7.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpucal.backend.protocol import Backend
from gpucal.kernel_contract.reference import OffPair
from gpucal.modes.recipe import (
    F64,
    Difference,
    Means,
    OnAndReference,
    ReferenceTrack,
    SkySeen,
    TileCounts,
    mean_exptime,
    sky_of_mean,
)
from gpucal.products import MeanKey


@dataclass(frozen=True, eq=False)
class Interpolated(Difference):
    """REF = (1-w) OFF_1 + w OFF_2; weight w a float or f64 [D].

    nearest: the OFF nearest in time; one_sided: no OFF before, or none after the ON.
    """

    on: int
    off1: MeanKey
    off2: MeanKey
    weight: float | F64
    nearest: MeanKey
    one_sided: bool = False

    def subscans(self) -> tuple[int, ...]:
        """The ON alone."""
        return (self.on,)

    def means(self) -> tuple[MeanKey, ...]:
        """Both OFFs."""
        return (self.off1, self.off2)

    def sky_key(self) -> MeanKey:
        """The nearest OFF."""
        return self.nearest

    def extrapolated(self) -> bool:
        """See ``one_sided``."""
        return self.one_sided

    def on_and_reference(self, tile: TileCounts) -> OnAndReference:
        """The dumps of ON; the reference per dump where the weight is."""
        first, second = tile.mean(self.off1), tile.mean(self.off2)
        weight = tile.backend.asarray(np.asarray(self.weight, dtype=np.float64))
        offs = OffPair(first, second, weight)
        return OnAndReference(tile.source(self.on), tile.backend.kernels.reference(offs))

    def dump_noise(self, exptime: F64) -> float:
        """1/t of a dump."""
        return 1.0 / mean_exptime(exptime, self.on)

    def reference_weights(self) -> dict[MeanKey, float]:
        """1-w and w; the mean over the dumps where each has its own."""
        w = float(np.mean(self.weight))
        weights = {self.off1: 1.0 - w}
        weights[self.off2] = weights.get(self.off2, 0.0) + w
        return weights

    def reference_tracks(self, values: F64, n_dumps: int) -> list[ReferenceTrack]:
        """Both OFFs, each dump with its own weights; one alone where there is one."""
        first, second = values[:, self.off1.subscan], values[:, self.off2.subscan]
        if self.off1 == self.off2:
            return [ReferenceTrack(1.0, first, averaged=True, key=self.off1)]
        return [
            ReferenceTrack(1.0 - self.weight, first, averaged=True, key=self.off1),
            ReferenceTrack(self.weight, second, averaged=True, key=self.off2),
        ]

    def skies(self, means: Means, backend: Backend) -> list[SkySeen]:
        """Both OFFs enter the fit; the nearest one is the output's own."""
        return [sky_of_mean(key, means) for key in (self.off1, self.off2, self.nearest)]

    def compared_offs(self) -> list[tuple[MeanKey, ...]]:
        """Both OFFs, each by itself."""
        return [(self.off1,), (self.off2,)]
