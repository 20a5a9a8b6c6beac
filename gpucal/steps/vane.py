"""Chopper-wheel calibration: a warm vane and the sky, no cold load; physics section 9."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from array_api_compat import array_namespace

from gpucal.backend.protocol import Backend
from gpucal.config import CalibrationConfig
from gpucal.physics.radiometry import T_BACKGROUND
from gpucal.products import Atmosphere, LoadMeans, LoadSolution, SkyModel, SpectralSetup
from gpucal.steps.loads import bad_channels, load_brightness, nan_median, require_good
from gpucal.steps.sky_model import sky_brightness, sky_departure, zenith_opacity

Array = Any
F64 = npt.NDArray[np.float64]


class VaneAirmass(NamedTuple):
    """Airmass of the source, of its OFF, and of the sky the vane is compared with: numbers, or f64 [R,A]."""

    source: float | F64
    off: float | F64
    sky: float | F64


class VaneTemperatures(NamedTuple):
    """One output of the scheme "vane": T_cal f64 [R,1|A] K, T_sys* f64 [R,A] K, and the transmission
    exp(-A tau) that both were divided by, f64 [R,1|A]."""

    t_cal: Array
    t_sys_star: Array
    t_sig: Array


def solve_vane(
    means: LoadMeans,
    sky: Array,
    setup: SpectralSetup,
    scheme: str,
    config: CalibrationConfig,
    backend: Backend,
    *,
    stale: bool = False,
) -> LoadSolution:
    """The part of the vane calibration that does not need the sky of each ON.

    ``sky`` f64 [C,R,A]: mean counts of the scan's own OFF, for the bad-channel rules. There is no cold
    load, so T_rec is NaN; gamma follows per output from ``vane_temperatures`` or ``channel_calibration``.
    Raises LoadError when no channel is good.
    """
    xp = backend.xp
    nothing = xp.full(means.hot.shape, xp.nan)
    bad = bad_channels(means.hot - sky, None, config, backend)
    require_good(bad, "OFF", means.scan, backend)
    return LoadSolution(
        scheme=scheme,
        scans=(means.scan,),
        hot=means.hot,
        cold=None,
        span=xp.where(bad, xp.nan, means.hot - sky),
        j_hot=load_brightness(setup, means.t_hot, backend, means.hot_coupling),
        j_cold=None,
        t_hot=means.t_hot,
        t_rec=nothing,
        gamma=nothing,
        bad=bad,
        hot_time=means.hot_time,
        stale=stale,
        warnings=means.warnings,
        hot_coupling=means.hot_coupling,
    )


def ignored_by_vane(scheme: str, config: CalibrationConfig) -> tuple[str, ...]:
    """What to say about options that this scheme does not look at."""
    ignored = {
        "cold-coupling": scheme != "hot-cold" and config.cold_coupling < 1.0,
        "t-cab": scheme == "vane" and config.t_cab != "amb" and config.hot_coupling == 1.0,
        "airmass-per dump": scheme == "vane"
        and config.airmass_per == "dump"
        and not sees_source(config),
    }
    return tuple(
        f"--{option} does nothing in the scheme {scheme}." for option, so in ignored.items() if so
    )


def sees_source(config: CalibrationConfig) -> bool:
    """Whether the scheme "vane" takes the airmass of the source; else it takes that of the sky for all."""
    way, median = config.vane_airmass, config.vane_average == "median"
    return not (way == "sky" or (way == "auto" and median))


def inner_channels(n: int) -> slice:
    """The inner 80 % of n channels."""
    edge = int(0.1 * n)
    return slice(edge, n - edge)


def inner_mean(values: Array, backend: Backend) -> Array:
    """NaN-aware mean over the inner 80 % of the channels: [C,R,A] -> [R,A]."""
    xp = backend.xp
    part = values[inner_channels(values.shape[0]), ...]
    good = xp.isfinite(part)
    n = xp.sum(xp.astype(good, xp.float64), axis=0)
    return xp.sum(xp.where(good, part, 0.0), axis=0) / xp.where(n > 0, n, xp.nan)


def vane_temperatures(
    loads: LoadSolution,
    sky: Array,
    atmosphere: Atmosphere,
    output: int,
    airmass: VaneAirmass,
    temperature: float,
    average: str,
    backend: Backend,
) -> VaneTemperatures:
    """T_cal and T_sys* of one output of the scheme "vane"; physics equations (9.1) and (9.2).

    T_cal = (T_warm - T_sky(A_sky)) exp(A tau), T_sky(A) = T_atm (1 - E(A)) - (T_atm - T_bg) exp(-A tau), T_atm =
    ``temperature`` and E = 0 in an isothermal sky; that is GBT Memo 302 where the source is as high as the sky.
    T_sys* = T_cal <C_sky>/<C_vane - C_sky> + (T_sky(A_off) - T_sky(A_sky)) exp(A tau), with means over the inner 80 %
    of the channels, or ("median", as dysh's vane calibration does) the median of the ratio over all. ``sky`` f64
    [C,R,A].
    """
    xp = backend.xp
    pwv = float(np.mean(atmosphere.pwv_of(output)))
    tau = zenith_opacity(atmosphere.model, 0, pwv)
    tau_mean = xp.mean(tau[inner_channels(tau.shape[0]), ...], axis=0)[:, None]
    t_warm = _receiver_temperature(loads.t_hot, backend)[:, None]
    if loads.hot_coupling.share < 1.0:
        share, stray = loads.hot_coupling
        t_warm = share * t_warm + (1.0 - share) * stray
    source, off, seen_at = (backend.asarray(np.asarray(x)) for x in airmass)
    through = xp.exp(source * tau_mean)
    sky_part = (temperature - T_BACKGROUND) * xp.exp((source - seen_at) * tau_mean)
    t_cal = sky_part + (t_warm - temperature) * through
    # What the OFF sees more than the sky that the vane was compared with.
    higher = sky_part - (temperature - T_BACKGROUND) * xp.exp((source - off) * tau_mean)
    if atmosphere.model.emission is not None:
        less, less_off = (_departure(atmosphere.model, pwv, x, xp) for x in (seen_at, off))
        t_cal = t_cal + temperature * less * through
        higher = higher + temperature * (less - less_off) * through
    if average == "median":
        seen = xp.where(sky > 0, sky, xp.nan)
        ratio = 1.0 / nan_median((loads.hot - seen) / seen, xp)
        return VaneTemperatures(t_cal, t_cal * ratio + higher, 1.0 / through)
    good_sky = xp.where(loads.bad, xp.nan, sky)
    ratio = inner_mean(good_sky, backend) / inner_mean(loads.hot - good_sky, backend)
    return VaneTemperatures(t_cal, t_cal * ratio + higher, 1.0 / through)


def _departure(model: SkyModel, pwv: float, airmass: Array, xp: Any) -> Array:
    """E of the signal sideband, mean over the inner 80 % of the channels: f64 [R,A] or [F,1]."""
    n_chan = model.opacity.shape[3]
    inner = inner_channels(n_chan)
    water = xp.full((1, 1), pwv)
    mass = xp.reshape(airmass, (1, 1)) if airmass.ndim == 0 else airmass
    less = sky_departure(model, 0, water, mass, inner.start, inner.stop)
    assert less is not None
    return xp.mean(less, axis=0)


def channel_calibration(
    loads: LoadSolution,
    sky: Array,
    setup: SpectralSetup,
    atmosphere: Atmosphere,
    pwv: Array,
    airmass: float | Array,
    channels: tuple[int, int],
) -> tuple[Array, Array]:
    """T_cal' exp(-A tau_s) f64 [c,R,A] K and F exp(-A tau_s) f64 [c,R,A] K/count of "vane-channel".

    T_cal' = (J_hot - J_sky)(1+r) exp(A tau_s)/f_eff, F = T_cal'/(C_hot - C_sky); equation (9.4). ``sky`` was
    measured at ``airmass``; the transmission of the ON is left to the caller.
    """
    c0, c1 = channels
    xp = array_namespace(sky)
    span = xp.where(loads.bad[c0:c1, ...], xp.nan, loads.hot[c0:c1, ...] - sky[c0:c1, ...])
    j_sky = sky_brightness(atmosphere.model, pwv, airmass, c0, c1)
    line_gain = setup.line_gain(slice(c0, c1))
    t_cal = (loads.j_hot[c0:c1, ...] - j_sky) / line_gain + xp.zeros_like(span)
    return t_cal, t_cal / span


def _receiver_temperature(t_hot: Array, backend: Backend) -> Array:
    """One vane temperature per receiver, f64 [R]."""
    t = backend.asarray(np.asarray(t_hot))
    return backend.xp.mean(backend.xp.mean(t, axis=1), axis=0) if t.ndim == 3 else t
