"""The model of the sky of a scan from a table of opacities, for any scale of its ozone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpucal.backend.protocol import Backend
from gpucal.config import CalibrationConfig
from gpucal.physics.atm import AtmosphereTable, ChannelOpacity, flat_opacity
from gpucal.products import SkyModel, SpectralSetup
from gpucal.steps.sky_model import (
    AirTemperatures,
    build_sky_model,
    layered_sky,
    stack_emission,
    stack_opacity,
)


def model_of_scan(
    table: AtmosphereTable | None,
    setup: SpectralSetup,
    temperatures: AirTemperatures,
    config: CalibrationConfig,
    backend: Backend,
) -> SkyModel:
    """The model of the sky in both sidebands per channel; without a table ``config.tau`` in all of them.

    It is layered where the table knows the emission and no temperature of the atmosphere was given.
    """
    nu_sig, nu_img = (np.asarray(backend.to_host(x)) for x in (setup.nu_sig, setup.nu_img))
    n_chan, n_axes = nu_sig.shape

    def columns(nu: Any) -> Sequence[ChannelOpacity]:
        if table is None:
            return [flat_opacity(config.tau or 0.0, n_chan)] * n_axes
        width = setup.channel_width
        return [table.channel_opacity(nu[:, f], width, config.ozone_scale) for f in range(n_axes)]

    signal = columns(nu_sig)
    # A single-sideband receiver never looks at its image: the table need not reach there.
    image = columns(nu_img) if bool(np.any(backend.to_host(setup.g_img) > 0)) else signal
    both = [signal, image]
    emission = stack_emission(both) if layered_sky(table, config) else None
    return build_sky_model(setup, stack_opacity(both), temperatures, backend, emission)


@dataclass(frozen=True, eq=False)
class OzoneModels:
    """The model of the sky for any scale of the ozone column: that without ozone, and that with the table's own."""

    without: SkyModel
    whole: SkyModel

    def at(self, scale: float) -> SkyModel:
        """The model with ``scale`` times the ozone of the table; exact, as the opacity is linear in it."""
        none, own = self.without, self.whole
        opacity = none.opacity + scale * (own.opacity - none.opacity)
        if own.emission is None or none.emission is None:
            return replace(own, opacity=opacity)
        emission = none.emission + scale * (own.emission - none.emission)
        return replace(own, opacity=opacity, emission=emission)


def ozone_models(
    table: AtmosphereTable | None,
    setup: SpectralSetup,
    temperatures: AirTemperatures,
    config: CalibrationConfig,
    backend: Backend,
) -> OzoneModels:
    """``model_of_scan`` for any scale of the ozone column."""
    none, own = (
        model_of_scan(
            table, setup, temperatures, config.model_copy(update={"ozone_scale": s}), backend
        )
        for s in (0.0, 1.0)
    )
    return OzoneModels(none, own)
