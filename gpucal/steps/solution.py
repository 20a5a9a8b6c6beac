"""Solution of a scan and band: all that is known before its first tile is calibrated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from gpucal.backend.protocol import Backend
from gpucal.config import CalibrationConfig
from gpucal.modes.recipe import Means
from gpucal.products import Atmosphere, GainDrift, LoadSolution, SpectralSetup
from gpucal.scan import Scan, SubscanGroup
from gpucal.steps.pairing import Pairing
from gpucal.steps.vane import VaneTemperatures

Array = Any


class VaneSky(NamedTuple):
    """The sky that a vane is compared with: mean counts f64 [C,R,A], and its airmass."""

    counts: Array
    airmass: float


@dataclass(frozen=True, eq=False)
class ScanSolution:
    """Everything that the tiles of one scan and band need, decided before the first tile.

    vane_temperatures: one per output, scheme "vane" only; load_sky: the SKY of the load scan, where a
    vane scheme takes that instead of the output's OFF.
    """

    scan: Scan
    config: CalibrationConfig
    backend: Backend
    setup: SpectralSetup
    loads: LoadSolution
    pairing: Pairing
    means: Means
    atmosphere: Atmosphere
    drift: GainDrift | None
    vane_temperatures: Sequence[VaneTemperatures] = ()
    load_sky: VaneSky | None = None
    warnings: tuple[str, ...] = ()

    @property
    def group(self) -> SubscanGroup:
        """The source subscans."""
        assert self.scan.source is not None
        return self.scan.source

    @property
    def output_shape(self) -> tuple[int, int, int, int, int]:
        """(C, D, R, A, S_on) of the calibrated spectra."""
        c, _, r, a, _ = self.group.shape
        return (c, self.pairing.n_dumps, r, a, len(self.pairing.recipes))

    def vane_sky(self, output: int, airmass: float) -> VaneSky:
        """The sky of a vane scheme: the output's own OFF at ``airmass``, or the SKY of the load scan."""
        if self.load_sky is not None:
            return self.load_sky
        return VaneSky(self.sky_counts(output), airmass)

    def sky_counts(self, output: int) -> Array:
        """Mean counts of the sky as this output's OFF saw it, f64 [C,R,A]."""
        return self.pairing.recipes[output].skies(self.means, self.backend)[-1].counts
