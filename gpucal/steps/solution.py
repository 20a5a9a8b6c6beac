"""Solution of a scan and band: all that is known before its first tile is calibrated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from gpucal.backend.protocol import Backend
from gpucal.config import CalibrationConfig
from gpucal.modes.recipe import F64, Means, SkySeen
from gpucal.products import (
    Atmosphere,
    ErrorBudget,
    GainDrift,
    LoadSolution,
    OzoneFit,
    SkyModel,
    SpectralSetup,
    WaterSeen,
)
from gpucal.scan import Scan, SubscanGroup
from gpucal.steps.atmosphere import airmass_seen
from gpucal.steps.judge.pixels import Verdict
from gpucal.steps.pairing import Pairing
from gpucal.steps.sky_model import zenith_opacity
from gpucal.steps.vane import VaneAirmass, VaneTemperatures, sees_source

Array = Any
SOME = 256
"""Channels that tell the usual opacity."""


class VaneSky(NamedTuple):
    """The sky that a vane is compared with: mean counts f64 [C,R,A], and its airmass (f64 [R,A] where
    the pixels saw it in different subscans)."""

    counts: Array
    airmass: float | F64


@dataclass(frozen=True, eq=False)
class ScanSolution:
    """Everything that the tiles of one scan and band need, decided before the first tile.

    vane_temperatures: one per output, scheme "vane" only; load_sky: the SKY of the load scan, where a
    vane scheme takes that instead of the output's OFF; verdict: pixels that the common fit left out; errors: of
    the PWV and of the scale of T_A*; water: the PWV by parts of the scan; ozone: its
    scale, where it was to be fitted.
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
    verdict: Verdict | None = None
    warnings: tuple[str, ...] = ()
    errors: ErrorBudget | None = None
    water: tuple[WaterSeen, ...] = ()
    ozone: OzoneFit | None = None

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

    def vane_sky(self, output: int) -> VaneSky:
        """The sky of a vane scheme: the output's own OFF, or the SKY of the load scan."""
        if self.load_sky is not None:
            return self.load_sky
        sky = self.own_sky(output)
        return VaneSky(sky.counts, airmass_seen(self.group, sky.subscan, self.config.airmass))

    def vane_airmass(self, output: int) -> VaneAirmass:
        """The airmasses that a vane's T_sys* of one output depends on."""
        kind, group, sky = self.config.airmass, self.group, self.vane_sky(output).airmass
        if not self.vane_sees_source:
            return VaneAirmass(sky, sky, sky)
        source = airmass_seen(group, self.pairing.recipes[output].source_subscan(), kind)
        off = airmass_seen(group, self.own_sky(output).subscan, kind)
        return VaneAirmass(source, off, sky)

    @property
    def vane_sees_source(self) -> bool:
        """Whether the scheme "vane" takes the airmass of the source; else it takes that of the sky for all."""
        return sees_source(self.config)

    @cached_property
    def few_channels(self) -> SkyModel:
        """The opacities of SOME channels, which tell how much of the sky is seen."""
        model = self.atmosphere.model
        few = slice(None, None, max(1, model.opacity.shape[3] // SOME))
        return replace(model, opacity=model.opacity[:, :, :, few, :])

    @cached_property
    def usual_opacity(self) -> float:
        """Zenith opacity of the signal sideband, Np: the median over some channels, at the mean PWV."""
        pwv = self.atmosphere.pwv[np.isfinite(self.atmosphere.pwv)]
        tau = zenith_opacity(self.few_channels, 0, float(pwv.mean()) if pwv.size else 0.0)
        return float(np.median(self.backend.to_host(tau)))

    def own_sky(self, output: int) -> SkySeen:
        """The sky as this output's OFF saw it."""
        return self.pairing.recipes[output].skies(self.means, self.backend)[-1]
