"""What the PWV and the scale of T_A* are computed from, and the same with one of them off by its error.

Everything is on the host and in a few channels: errors need no more, and no device. Shapes: C channels of the
scan, c of these, R receivers, A pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from gpucal.backend.cpu import cpu_backend
from gpucal.backend.protocol import Backend
from gpucal.config import CalibrationConfig
from gpucal.physics.emission import COLUMNS as EMISSION_COLUMNS
from gpucal.products import LoadSolution, SkyModel, SpectralSetup
from gpucal.steps.loads import load_brightness
from gpucal.steps.sky_model import AirTemperatures, ambient_temperatures, build_sky_model
from gpucal.steps.solution import ScanSolution

Array = Any
MAX_CHANNELS = 256
"""Channels that stand for all: errors of scale change slowly with frequency."""

SMALL = 1e-2
"""Part of 1 sigma that is tried: what a source does to the loads and to the water nearly cancels in T_A*, and the
curvature of either would not."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """Setup, loads, sky and temperatures of the air in the channels ``chosen`` of the scan; NumPy arrays, ``host`` is
    their backend."""

    host: Backend
    chosen: slice
    setup: SpectralSetup
    loads: LoadSolution
    model: SkyModel
    air: AirTemperatures


class Source(NamedTuple):
    """One source of error: its name in the budget, 1 sigma, the unit of that, and the inputs when it is off by
    SMALL of it."""

    name: str
    sigma: float
    unit: str
    inputs: Inputs


def inputs_of(solution: ScanSolution) -> Inputs:
    """The inputs as the scan was solved with them."""
    n_channels = solution.output_shape[0]
    step = -(-n_channels // MAX_CHANNELS)
    chosen = slice((step - 1) // 2, None, step)
    host = solution.backend.to_host

    def some(values: Array | None) -> Any:
        if values is None:
            return None
        picked = values[chosen, ...] if values.shape[0] == n_channels else values
        return np.asarray(host(picked))

    setup, loads, model = solution.setup, solution.loads, solution.atmosphere.model
    return Inputs(
        host=cpu_backend(reason="errors are worked out on the host"),
        chosen=chosen,
        setup=replace(
            setup, **{k: some(getattr(setup, k)) for k in ("nu_sig", "nu_img", "g_sig", "g_img")}
        ),
        loads=replace(
            loads,
            **{
                k: some(getattr(loads, k))
                for k in ("hot", "cold", "span", "j_hot", "j_cold", "t_rec", "gamma", "bad")
            },
            t_hot=_temperature(host(loads.t_hot), chosen),
            t_cold=None if loads.t_cold is None else _temperature(host(loads.t_cold), chosen),
        ),
        model=replace(
            model,
            opacity=_of(host(model.opacity), chosen),
            amplitude=np.asarray(host(model.amplitude[:, chosen, ...])),
            constant=some(model.constant),
            emission=None if model.emission is None else _of(host(model.emission), chosen),
            ground=None if model.ground is None else np.asarray(host(model.ground[:, chosen, ...])),
        ),
        air=ambient_temperatures(solution.group, solution.config, host(loads.t_hot)),
    )


def _of(columns: Array, chosen: slice) -> Any:
    """Columns [..., C, F] of the channels ``chosen``."""
    return np.asarray(columns)[..., chosen, :]


def _temperature(values: Array, chosen: slice) -> Array:
    """Temperature of a load, [R], or [2,C,R] in the channels ``chosen``."""
    array = np.asarray(values)
    return array[:, chosen] if array.ndim == 3 else array


def thicker(model: SkyModel, sigma: float) -> SkyModel:
    """The model with all opacities larger by the same fraction, and the emission that goes with them."""
    more = replace(model, opacity=model.opacity * (1.0 + sigma))
    if model.emission is None:
        return more
    # e_o3 is a fraction of the ozone, the other columns are amounts
    xp = array_namespace(model.emission)
    scale = xp.asarray([1.0 if name == "e_o3" else 1.0 + sigma for name in EMISSION_COLUMNS])
    return replace(more, emission=model.emission * xp.reshape(scale, (-1, 1, 1, 1, 1)))


def sources_of(base: Inputs, config: CalibrationConfig) -> Iterator[Source]:
    """Every source of error of an input, each by itself and the same in all channels and pixels."""
    changes: dict[str, tuple[float, str, Callable[[Inputs, float], Inputs]]] = {
        "opacity": (config.opacity_trust, "", _with_opacity),
        "t_hot": (config.error_t_hot, "K", _t_hot_with(config)),
        "t_cold": (config.error_t_cold, "K", _with_t_cold),
        "f_eff": (config.error_f_eff, "", _with_f_eff),
        "g_image": (config.error_g_image, "", _with_g_image),
        "t_amb": (config.error_t_amb, "K", _air_with(config)),
    }
    if config.t_cab != "amb":
        changes["t_cab"] = (config.error_t_cab, "K", _with_t_cab)
    for name, (sigma, unit, change) in changes.items():
        yield Source(name, sigma, unit, change(base, SMALL * sigma))


def _with_opacity(base: Inputs, sigma: float) -> Inputs:
    return replace(base, model=thicker(base.model, sigma))


def _t_hot_with(config: CalibrationConfig) -> Callable[[Inputs, float], Inputs]:
    """The hot load off, and with it a cabin that is said to be as warm."""

    def change(base: Inputs, sigma: float) -> Inputs:
        warmer = replace(base, loads=replace(base.loads, t_hot=base.loads.t_hot + sigma))
        return _with_t_cab(warmer, sigma) if config.t_cab == "hot" else _loads_again(warmer)

    return change


def _with_t_cab(base: Inputs, sigma: float) -> Inputs:
    """The cabin off: what spills over from the sky, and what the beam sees beside the loads."""
    loads = base.loads
    hot, cold = (
        x._replace(stray=x.stray + sigma) for x in (loads.hot_coupling, loads.cold_coupling)
    )
    warmer = replace(
        base,
        air=base.air._replace(cabin=base.air.cabin + sigma),
        loads=replace(loads, hot_coupling=hot, cold_coupling=cold),
    )
    return _sky_again(_loads_again(warmer))


def _with_t_cold(base: Inputs, sigma: float) -> Inputs:
    if base.loads.t_cold is None:
        return base
    return _loads_again(replace(base, loads=replace(base.loads, t_cold=base.loads.t_cold + sigma)))


def _with_f_eff(base: Inputs, sigma: float) -> Inputs:
    """f_eff lower: it may be 1 already."""
    lower = max(base.setup.f_eff - sigma, 0.01)
    return _sky_again(replace(base, setup=replace(base.setup, f_eff=lower)))


def _with_g_image(base: Inputs, sigma: float) -> Inputs:
    """g_i larger by ``sigma``, where the receiver sees an image at all; g_s + g_i stays 1."""
    g_img = base.setup.g_img
    more = np.where(g_img > 0, np.minimum(g_img + sigma, 0.99), g_img)
    setup = replace(base.setup, g_img=more, g_sig=1.0 - more)
    return _sky_again(_loads_again(replace(base, setup=setup)))


def _air_with(config: CalibrationConfig) -> Callable[[Inputs, float], Inputs]:
    """The ambient temperature off, and with it that of the atmosphere and of the spillover."""
    factor = config.t_atm_factor if config.t_atm is None else 1.0

    def change(base: Inputs, sigma: float) -> Inputs:
        ambient, effective, cabin = base.air
        air = AirTemperatures(ambient + sigma, effective + factor * sigma, cabin)
        warmer = replace(base, air=air)
        return _with_t_cab(warmer, sigma) if config.t_cab == "amb" else _sky_again(warmer)

    return change


def _loads_again(inputs: Inputs) -> Inputs:
    """J_hot and J_cold, equation (4.1), worked out anew."""
    setup, loads = inputs.setup, inputs.loads
    j_hot = load_brightness(setup, loads.t_hot, inputs.host, loads.hot_coupling)
    j_cold = None
    if loads.t_cold is not None:
        j_cold = load_brightness(setup, loads.t_cold, inputs.host, loads.cold_coupling)
    return replace(inputs, loads=replace(loads, j_hot=j_hot, j_cold=j_cold))


def _sky_again(inputs: Inputs) -> Inputs:
    """The model of the sky, equation (5.4), built anew on the same opacities and emission."""
    old = inputs.model
    model = build_sky_model(inputs.setup, old.opacity, inputs.air, inputs.host, old.emission)
    return replace(inputs, model=model)
