"""Double beam switching: two calibrated beams, averaged; physics section 7, equation (7.2)."""

from __future__ import annotations

from dataclasses import dataclass

from gpucal.backend.protocol import Backend
from gpucal.modes.recipe import F64, Difference, Means, Recipe, SkySeen
from gpucal.products import MeanKey
from gpucal.scan import SubscanGroup


@dataclass(frozen=True, eq=False)
class BeamMerge(Recipe):
    """The mean of the calibrated beams A and B, at the times and positions of A."""

    a: Difference
    b: Difference

    @property
    def on(self) -> int:  # type: ignore[override]
        """The ON of beam A."""
        return self.a.on

    def parts(self) -> tuple[Difference, ...]:
        """Both beams."""
        return (self.a, self.b)

    def subscans(self) -> tuple[int, ...]:
        """The subscans of both beams."""
        return self.a.subscans() + self.b.subscans()

    def means(self) -> tuple[MeanKey, ...]:
        """The means of both beams, and the sky of B, which SKYDIFF compares."""
        return (*self.a.means(), *self.b.means(), self.b.sky_key())

    def sky_key(self) -> MeanKey:
        """The OFF of beam A."""
        return self.a.sky_key()

    def extrapolated(self) -> bool:
        """True where one of the beams is extrapolated."""
        return self.a.extrapolated() or self.b.extrapolated()

    def output_dumps(self, n_dumps: int) -> int:
        """The number of dumps of the longer beam."""
        return max(part.output_dumps(n_dumps) for part in self.parts())

    def channels_around(self) -> tuple[int, int]:
        """The larger number of both beams, on each side."""
        below, above = zip(*(part.channels_around() for part in self.parts()), strict=True)
        return max(below), max(above)

    def dump_noise(self, exptime: F64) -> float:
        """(a_A + a_B)/4: the noise of the two beams is independent."""
        return 0.25 * (self.a.dump_noise(exptime) + self.b.dump_noise(exptime))

    def reference_weights(self) -> dict[MeanKey, float]:
        """Half of each beam's weights; a mean that both use counts twice."""
        of_a, of_b = self.a.reference_weights(), self.b.reference_weights()
        return {k: 0.5 * (of_a.get(k, 0.0) + of_b.get(k, 0.0)) for k in {**of_a, **of_b}}

    def skies(self, means: Means, backend: Backend) -> list[SkySeen]:
        """The skies of both beams; the own one is that of beam A."""
        return [*self.b.skies(means, backend), *self.a.skies(means, backend)]

    def compared_offs(self) -> list[tuple[MeanKey, ...]]:
        """The blend of the OFFs of both beams."""
        return [(self.a.sky_key(), self.b.sky_key())]

    def track(self, values: F64, n_dumps: int, *, total: bool = False) -> F64:
        """The track of beam A; the positions of B are dropped."""
        return self.a.track(values, n_dumps, total=total)

    def pixel_offsets(self, group: SubscanGroup) -> tuple[F64, F64]:
        """The offsets of beam A."""
        return self.a.pixel_offsets(group)
