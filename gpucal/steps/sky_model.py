"""Brightness of the sky as a function of water and airmass; physics section 5."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from array_api_compat import array_namespace

from gpucal.backend.protocol import Backend
from gpucal.config import CalibrationConfig
from gpucal.errors import AtmosphereError
from gpucal.physics.atm import AtmosphereTable
from gpucal.physics.emission import departure
from gpucal.physics.radiometry import T_BACKGROUND, radiation_temperature
from gpucal.physics.weather import in_weather
from gpucal.products import SkyModel, SpectralSetup
from gpucal.scan import SubscanGroup

Array = Any
F64 = npt.NDArray[np.float64]


T_AMB_POSSIBLE_K = (150.0, 350.0)
HPA_PER_TORR = 1013.25 / 760.0
_AIR_HINT = "Correct it in the raw store, or use --t-atm."


class OpacityColumns(Protocol):
    """b, q, c of J points in each of C channels, f64 [J,C], and emission f64 [5,J,C] or None
    (``physics.atm.ChannelOpacity``)."""

    @property
    def b(self) -> Array: ...
    @property
    def q(self) -> Array: ...
    @property
    def c(self) -> Array: ...
    @property
    def emission(self) -> Array | None: ...


class AirTemperatures(NamedTuple):
    """T_amb at the telescope, T_atm, the effective temperature of the atmosphere, and T_cab, that of the cabin or
    whatever else the beam sees beside the sky, K."""

    ambient: float
    effective: float
    cabin: float


def stack_opacity(columns: Sequence[Sequence[OpacityColumns]]) -> F64:
    """Stack per sideband and receiver axis into f64 [3,2,J,C,F].

    ``columns[sideband][f]``; where J differs every point is repeated, which keeps the means.
    """
    flat = [c for side in columns for c in side]
    points = math.lcm(*(int(c.b.shape[0]) for c in flat))

    def full(values: Array) -> F64:
        return np.repeat(np.asarray(values), points // values.shape[0], axis=0)

    return np.stack(
        [
            np.stack(
                [np.stack([full(getattr(o, name)) for o in side], axis=-1) for side in columns]
            )
            for name in ("b", "q", "c")
        ]
    )


def stack_emission(columns: Sequence[Sequence[OpacityColumns]]) -> F64 | None:
    """The same for the emission: f64 [5,2,J,C,F]; None where the table does not know it."""
    flat = [c for side in columns for c in side]
    if any(c.emission is None for c in flat):
        return None
    points = math.lcm(*(int(c.b.shape[0]) for c in flat))

    def full(values: Array) -> F64:
        return np.repeat(np.asarray(values), points // values.shape[1], axis=1)

    return np.stack(
        [np.stack([full(o.emission) for o in side], axis=-1) for side in columns], axis=1
    )


def _impossible_air(value: float) -> str:
    """The sentence about an ambient temperature that cannot be right."""
    lo, hi = T_AMB_POSSIBLE_K
    celsius = "; it looks like deg C, add 273.15" if -100 < value < 60 else ""
    return f"tamb is {value:g}, expected {lo:g}..{hi:g} K{celsius}."


def ambient_temperatures(
    group: SubscanGroup, config: CalibrationConfig, t_hot: Array | None = None
) -> AirTemperatures:
    """Ambient and effective atmospheric temperature, K: T_atm = factor T_amb + offset; and that of the cabin.

    t_hot: temperatures of the hot load, K, which ``config.t_cab`` may ask for; without them NaN then.
    Raises AtmosphereError when neither the data nor the options hold them, or when the recorded one is impossible.
    """
    # 0 and values like -999 say that nothing was recorded
    recorded = group.tamb[(group.tamb > -273.15) & (group.tamb != 0) & (group.tamb < np.inf)]
    impossible = recorded[(recorded < T_AMB_POSSIBLE_K[0]) | (recorded > T_AMB_POSSIBLE_K[1])]
    if impossible.size and config.t_atm is None:
        raise AtmosphereError(_impossible_air(float(impossible[0])), hint=_AIR_HINT)
    recorded = recorded[:0] if impossible.size else recorded
    t_amb = float(np.mean(recorded)) if recorded.size else config.t_atm
    if t_amb is None:
        raise AtmosphereError(
            "the ambient temperature (tamb) is not recorded.", hint="Use --t-atm."
        )
    t_atm = config.t_atm
    if t_atm is None:
        t_atm = config.t_atm_factor * t_amb + config.t_atm_offset
    return AirTemperatures(t_amb, t_atm, cabin_temperature(config, t_amb, t_hot))


def cabin_temperature(config: CalibrationConfig, t_amb: float, t_hot: Array | None) -> float:
    """T_cab, K: ``config.t_cab``, which may be T_amb ("amb") or the mean of the hot load ("hot")."""
    if config.t_cab == "amb":
        return t_amb
    if config.t_cab == "hot":
        return math.nan if t_hot is None else float(np.mean(np.asarray(t_hot)))
    return float(config.t_cab)


def ambient_pressure(group: SubscanGroup) -> float:
    """Mean pressure of the air at the telescope, hPa; NaN where it is not recorded."""
    recorded = group.pamb[np.isfinite(group.pamb) & (group.pamb > 0)]
    return float(np.mean(recorded)) * HPA_PER_TORR if recorded.size else math.nan


def table_of_scan(
    table: AtmosphereTable | None, group: SubscanGroup, config: CalibrationConfig
) -> AtmosphereTable | None:
    """The table in the weather of a scan, where its sky is layered; else as it is."""
    if table is None or not layered_sky(table, config):
        return table
    return in_weather(table, ambient_temperatures(group, config).ambient, ambient_pressure(group))


def layered_sky(table: AtmosphereTable | None, config: CalibrationConfig) -> bool:
    """Whether the sky is layered: the table knows its emission, and no option gives one temperature instead."""
    return table is not None and table.layered and not config.one_temperature


def build_sky_model(
    setup: SpectralSetup,
    opacity: F64,
    temperatures: AirTemperatures,
    backend: Backend,
    emission: F64 | None = None,
) -> SkyModel:
    """Constant and amplitudes of J_sky = constant + sum_k (amplitude_k t_k - ground_k E_k); physics equation (5.4).

    ``opacity`` f64 [3,2,J,C,F]; ``emission`` f64 [5,2,J,C,F] of a layered sky, None for an isothermal one. With f the
    forward efficiency, constant = sum g_k (f J(T_atm) + (1-f) J(T_cab)), amplitude_k = g_k f (J(T_bg) - J(T_atm)),
    ground_k = g_k f J(T_atm).
    """
    xp = backend.xp
    _, t_atm, t_cab = temperatures
    amplitude, ground = [], []
    constant: Any = 0.0
    for nu, gain in ((setup.nu_sig, setup.g_sig), (setup.nu_img, setup.g_img)):
        j_atm, j_bg, j_cab = (
            radiation_temperature(nu, t, hk=setup.hk)[:, :, None]
            for t in (t_atm, T_BACKGROUND, t_cab)
        )
        amplitude.append(gain * setup.f_eff * (j_bg - j_atm))
        ground.append(gain * setup.f_eff * j_atm)
        constant = constant + gain * (setup.f_eff * j_atm + (1.0 - setup.f_eff) * j_cab)
    return SkyModel(
        opacity=backend.asarray(opacity),
        amplitude=xp.stack(amplitude),
        constant=constant,
        emission=None if emission is None else backend.asarray(emission),
        ground=None if emission is None else xp.stack(ground),
    )


def sky_departure(
    model: SkyModel, sideband: int, pwv: Array, airmass: float | Array, c0: int, c1: int
) -> Array | None:
    """E, equation (5.16), of one sideband and the channels c0..c1: f64 [c, R|1, A|1]; None for an isothermal sky.

    ``pwv`` [R|1, A|1] mm; ``airmass`` a number, or [R, A] where the pixels look at different elevations.
    """
    if model.emission is None:
        return None
    opacity, emission = (x[:, sideband, :, c0:c1, :, None] for x in (model.opacity, model.emission))
    mass = airmass if isinstance(airmass, float) else airmass[None, None, :, :]
    found = departure(opacity, emission, pwv[None, None, :, :], mass)
    return array_namespace(model.opacity).mean(found.value, axis=0)


def sky_brightness(model: SkyModel, pwv: Array, airmass: float | Array, c0: int, c1: int) -> Array:
    """J_sky(P, A) of the channels c0..c1, f64 [c, R|1, A|1], K; ``pwv`` [R|1, A|1] mm."""
    total = model.constant[c0:c1, ...]
    for k in range(2):
        total = total + model.amplitude[k, c0:c1, ...] * model.transmission(k, pwv, airmass, c0, c1)
        less = sky_departure(model, k, pwv, airmass, c0, c1)
        if less is not None and model.ground is not None:
            total = total - model.ground[k, c0:c1, ...] * less
    return total


def zenith_opacity(model: SkyModel, sideband: int, pwv: float) -> Array:
    """-ln t at the zenith, Np, f64 [C,F]; finite also where the sky is opaque."""
    xp = array_namespace(model.opacity)
    b, q, c = (model.opacity[i, sideband, ...] for i in range(3))
    tau = b * pwv + q * (pwv * pwv) + c
    least = xp.min(tau, axis=0)
    return least - xp.log(xp.mean(xp.exp(least[None, ...] - tau), axis=0))
