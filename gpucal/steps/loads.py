"""Receiver temperature, gain and bad channels from load measurements; physics section 4."""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.axes import ON_MODES
from gpucal.backend.protocol import Backend
from gpucal.config import CalibrationConfig
from gpucal.errors import ConfigError, L0Error, LoadError
from gpucal.option_model import hertz
from gpucal.physics.frequency import frequency_axes
from gpucal.physics.radiometry import h_over_k, radiation_temperature, sideband_gains
from gpucal.physics.smoothing import running_median5
from gpucal.products import (
    FULL,
    Coupling,
    GainDrift,
    LoadMeans,
    LoadSolution,
    MeanKey,
    SpectralSetup,
)
from gpucal.scan import Scan, SubscanGroup
from gpucal.steps.hot_cold.binned_loads import cold_of_bins
from gpucal.steps.judge.references import Judge
from gpucal.steps.means import dump_means, mean_time
from gpucal.steps.sky_model import ambient_temperatures, cabin_temperature

Array = Any


def spectral_setup(scan: Scan, config: CalibrationConfig, backend: Backend) -> SpectralSetup:
    """Frequency axes [C,F], sideband gains and forward efficiency of a scan; physics sections 1 and 3.

    The axis is that of the first subscan on the source (else of the first of all). Options win over
    the attributes ``f_eff`` and ``gain_image``. Raises ConfigError when one of the two is in neither.
    """
    group = scan.source or scan.calibration
    assert group is not None
    xp = backend.xp
    n_chan = group.shape[0]
    first = next((s for s, mode in enumerate(group.sobsmode) if mode in ON_MODES), 0)
    columns = [
        np.asarray(x[:, first], dtype=np.float64)
        for x in (group.signal_freq, group.image_freq, group.freq_res, group.ref_channel)
    ]
    if all(bool(np.all(x == x[0])) for x in columns):
        columns = [x[:1] for x in columns]
    signal, image, step, ref = (backend.asarray(x) for x in columns)
    nu_sig, nu_img = frequency_axes(signal, image, step, ref, n_chan, xp)
    gain = config.gain_image if config.gain_image is not None else scan.attrs.get("gain_image")
    f_eff = config.f_eff if config.f_eff is not None else scan.attrs.get("f_eff")
    for name, value in (("gain_image", gain), ("f_eff", f_eff)):
        if value is None:
            raise ConfigError(
                f"the scan has no attribute {name} and no option gives it.",
                hint=f"Use --{name.replace('_', '-')}.",
                scan=scan.number,
                band=scan.band,
            )
    assert gain is not None
    assert f_eff is not None
    g_sig, g_img = sideband_gains(backend.asarray(np.asarray(gain, dtype=np.float64)), xp)
    missing = 3 - g_sig.ndim
    g_sig, g_img = (xp.reshape(g, (1,) * missing + tuple(g.shape)) for g in (g_sig, g_img))
    return SpectralSetup(
        nu_sig=nu_sig,
        nu_img=nu_img,
        channel_width=float(np.abs(columns[2]).max()),
        g_sig=g_sig,
        g_img=g_img,
        f_eff=float(f_eff),
        hk=h_over_k(config.physics),
        ssb=config.line_scale == "ssb",
        noise_bandwidth=_noise_bandwidth(scan, config),
        unit_borders=tuple(scan.attrs.get("unit_borders") or ()),
    )


def _noise_bandwidth(scan: Scan, config: CalibrationConfig) -> float:
    """Noise bandwidth of a channel over its width: the option, else the attribute, else 1."""
    recorded = scan.attrs.get("noise_bandwidth")
    given = config.noise_bandwidth if config.noise_bandwidth is not None else recorded
    return 1.0 if given is None else float(given)


SEEN_SHIFT = 0.01
MOST_SHIFT = 0.5
"""Channels by which the axis may move within a scan: more, and a line is in another channel."""


def moving_axis(scan: Scan, subscans: npt.NDArray[np.int32]) -> tuple[str, ...]:
    """Whether the frequency axis moves between the ``subscans`` on the source: one axis must serve them all.

    Returns a warning for a shift that is seen, and raises L0Error for more than half a channel.
    """
    group = scan.source
    assert group is not None
    freq, step = group.signal_freq[:, subscans], group.freq_res[:, subscans]
    ref = group.ref_channel[:, subscans]
    start = freq - (ref - ref[:, :1]) * step
    shift = np.abs(start - freq[:, :1]) / np.abs(step[:, :1])
    drift = np.abs(step / step[:, :1] - 1.0) * group.shape[0]
    worst = max(float(shift.max()), float(drift.max()))
    if worst <= SEEN_SHIFT:
        return ()
    rec, at = (int(i) for i in np.unravel_index(np.argmax(np.maximum(shift, drift)), shift.shape))
    by_ref = abs((ref[rec, at] - ref[rec, 0]) * step[rec, at]) > abs(freq[rec, at] - freq[rec, 0])
    name, values = ("ref_channel", ref) if by_ref else ("signal_freq", freq / 1e9)
    unit = "" if by_ref else " GHz"
    said = (
        f"the frequency axis moves by {worst:.3g} channels within the scan: {name} is "
        f"{values[rec, 0]:.9g}{unit} in subscan {subscans[0]} and {values[rec, at]:.9g}{unit} in "
        f"subscan {subscans[at]}"
    )
    if worst > MOST_SHIFT:
        raise L0Error(
            f"{said}; one axis must serve all subscans of a scan.",
            hint="Write the subscans of another tuning as a scan of their own.",
            scan=scan.number,
            band=scan.band,
            receiver=rec,
        )
    return (f"{said}; the axis of the first is used.",)


def load_temperatures(
    group: SubscanGroup, kind: str, subscans: list[int], override: float | None
) -> Array:
    """Physical temperature of a load: f64 [R] K, or [2,C,R] when given per channel and sideband."""
    n_rec = group.shape[2]
    if override is not None:
        return np.full(n_rec, override)
    if group.load_temp_sig is not None and group.load_temp_img is not None:
        both = np.stack([group.load_temp_sig, group.load_temp_img])[:, :, subscans].mean(axis=2)
        if np.isfinite(both).all():
            return np.repeat(both[:, :, None], n_rec, axis=2)
    recorded = group.thot if kind == "HOT" else group.tcold
    if recorded is None or not np.isfinite(recorded[:, subscans]).all():
        name, option = ("thot", "--t-hot") if kind == "HOT" else ("tcold", "--t-cold")
        raise LoadError(
            f"the temperature {name} of the {kind} load is not recorded.", hint=f"Use {option}."
        )
    return np.asarray(recorded[:, subscans].mean(axis=1), dtype=np.float64)


def load_means(
    scan: Scan, config: CalibrationConfig, backend: Backend, pool: Executor | None = None
) -> LoadMeans:
    """Read and average the HOT and COLD subscans of a scan's ``calibration/`` group.

    Several subscans of one load are averaged by integration time. Raises LoadError when there is no
    HOT, or no temperature.
    """
    group = scan.calibration
    assert group is not None
    xp = backend.xp
    chosen = {kind: group.select(kind) for kind in ("HOT", "COLD", "SKY")}
    if not chosen["HOT"]:
        raise LoadError("the load scan has no HOT subscan.", scan=scan.number, band=scan.band)
    keys = [MeanKey(s) for subscans in chosen.values() for s in subscans]
    judge = Judge(config, backend, noise_free=scan.store_attrs.get("noise_free") is True)
    means = dump_means(group, keys, backend, pool=pool, judge=judge)
    result: dict[str, tuple[Array, float, float]] = {}
    for kind, subscans in chosen.items():
        if not subscans:
            continue
        total: Any = 0.0
        weight: Any = 0.0
        for s in subscans:
            mean, time = means[MeanKey(s)]
            good = xp.isfinite(mean)
            total = total + xp.where(good, mean, 0.0) * time
            weight = weight + xp.astype(good, xp.float64) * time
        value = means[MeanKey(subscans[0])].mean
        if len(subscans) > 1:
            value = total / xp.where(weight > 0, weight, xp.nan)
        result[kind] = (value, *mean_time(group, subscans))
    cold, sky = result.get("COLD"), result.get("SKY")
    sky_at = [group.mean_elevation(s) for s in chosen["SKY"]]
    t_hot = load_temperatures(group, "HOT", chosen["HOT"], config.t_hot)
    hot_coupling, cold_coupling = _couplings(group, config, t_hot)
    return LoadMeans(
        scan=scan.number,
        hot=result["HOT"][0],
        cold=cold[0] if cold else None,
        hot_mjd=result["HOT"][1],
        cold_mjd=cold[1] if cold else float("nan"),
        hot_time=result["HOT"][2],
        t_hot=t_hot,
        t_cold=load_temperatures(group, "COLD", chosen["COLD"], config.t_cold) if cold else None,
        sky=sky[0] if sky else None,
        sky_elevation=float(np.mean(sky_at)) if sky else float("nan"),
        sky_spread=float(np.ptp(sky_at)) if sky else 0.0,
        sky_mjd=sky[1] if sky else float("nan"),
        sky_time=sky[2] if sky else float("nan"),
        warnings=(*scan.warnings, *judge.warnings()),
        cold_time=cold[2] if cold else float("nan"),
        hot_coupling=hot_coupling,
        cold_coupling=cold_coupling,
    )


def _couplings(
    group: SubscanGroup, config: CalibrationConfig, t_hot: Array
) -> tuple[Coupling, Coupling]:
    """How hot and cold load fill the beam; what else it sees is at the temperature of the cabin during the loads."""
    shares = (config.hot_coupling, config.cold_coupling)
    if min(shares) == 1.0:
        return FULL, FULL
    if config.t_cab == "amb":
        stray = ambient_temperatures(group, config).ambient
    else:
        stray = cabin_temperature(config, math.nan, t_hot)
    return Coupling(shares[0], stray), Coupling(shares[1], stray)


def load_brightness(
    setup: SpectralSetup,
    temperature: Array,
    backend: Backend,
    coupling: Coupling = FULL,
) -> Array:
    """J_x = g_s J(nu_sig,T_x) + g_i J(nu_img,T_x), f64 broadcastable to [C,R,A], K; physics equation (4.1).

    With a coupling below 1 the rest of the beam sees J of ``coupling.stray``, equation (4.6).
    """
    if coupling.share < 1.0:
        stray = np.full(np.shape(temperature)[-1], coupling.stray)
        whole, rest = (load_brightness(setup, t, backend) for t in (temperature, stray))
        return coupling.share * whole + (1.0 - coupling.share) * rest
    t = backend.asarray(np.asarray(temperature))
    t_sig, t_img = (t[0, ...], t[1, ...]) if t.ndim == 3 else (t[None, :], t[None, :])
    j_sig = radiation_temperature(setup.nu_sig, t_sig, hk=setup.hk)[:, :, None]
    j_img = radiation_temperature(setup.nu_img, t_img, hk=setup.hk)[:, :, None]
    return setup.g_sig * j_sig + setup.g_img * j_img


def solve_loads(
    means: LoadMeans,
    setup: SpectralSetup,
    config: CalibrationConfig,
    backend: Backend,
    *,
    drift: GainDrift | None = None,
    stale: bool = False,
) -> LoadSolution:
    """T_rec, gamma and bad channels of the hot/cold scheme; physics section 4, equations (4.3) and (4.4).

    With ``drift`` the load means are those of its epoch, H1 and K1. Returns arrays [C,R,A].
    Raises LoadError when T_hot <= T_cold for a receiver, or when no channel is good.
    """
    assert means.cold is not None
    assert means.t_cold is not None
    xp = backend.xp
    hot, cold = means.hot, means.cold
    if drift is not None:
        hot, cold = drift.cold_1 + drift.span_1, drift.cold_1
    j_hot = load_brightness(setup, means.t_hot, backend, means.hot_coupling)
    j_cold = load_brightness(setup, means.t_cold, backend, means.cold_coupling)
    if not bool(xp.all(j_hot > j_cold)):
        raise LoadError(
            f"the HOT load ({np.mean(means.t_hot):.2f} K) is not warmer than the COLD load "
            f"({np.mean(means.t_cold):.2f} K).",
            hint="Use --t-hot and --t-cold.",
        )
    if config.cal_bandwidth:
        bin_channels = hertz(config.cal_bandwidth) / setup.channel_width
        cold = cold_of_bins(hot, cold, j_hot, j_cold, bin_channels, setup.unit_borders, backend)
    span = hot - cold
    usable = xp.isfinite(span) & (span > 0) & (cold > 0)
    y_minus_1 = xp.where(usable, span, xp.nan) / xp.where(usable, cold, 1.0)
    t_rec = (j_hot - (y_minus_1 + 1.0) * j_cold) / y_minus_1
    gamma = (j_hot - j_cold) / setup.line_gain() + xp.zeros_like(span)
    bad = bad_channels(span, t_rec, config, backend)
    if drift is not None:
        bad = bad | ~(drift.span_2() > 0)
    require_good(bad, "COLD", means.scan, backend)
    return LoadSolution(
        scheme="hot-cold",
        scans=(means.scan,),
        hot=hot,
        cold=cold,
        span=xp.where(bad, xp.nan, span),
        j_hot=j_hot,
        j_cold=j_cold,
        t_hot=means.t_hot,
        t_rec=xp.where(bad, xp.nan, t_rec),
        gamma=gamma,
        bad=bad,
        hot_time=means.hot_time,
        stale=stale,
        warnings=means.warnings,
        t_cold=means.t_cold,
        cold_time=means.cold_time,
        hot_coupling=means.hot_coupling,
        cold_coupling=means.cold_coupling,
    )


def bad_channels(
    span: Array, t_rec: Array | None, config: CalibrationConfig, backend: Backend
) -> Array:
    """Bad channels by the rules of physics section 4, bool [C,R,A].

    span = C_hot - C_cold (or C_hot - C_sky) counts; t_rec K or None (vane: no T_rec rules).
    """
    xp = backend.xp
    good = xp.isfinite(span) & (span > 0)
    level = xp.max(running_median5(xp.where(good, span, xp.nan)), axis=0)
    good = good & ~(span < config.clip_counts * level[None, ...])
    if t_rec is None:
        return ~good
    good = good & xp.isfinite(t_rec) & (t_rec > 0) & ~(t_rec > config.clip_trec)
    median = nan_median(xp.where(good, t_rec, xp.nan), xp)
    return ~(good & ~(t_rec > config.clip_tsys * median[None, ...]))


def require_good(bad: Array, other: str, scan: int, backend: Backend) -> None:
    """Raise LoadError when every channel of every pixel is bad; ``bad`` bool [C,R,A]."""
    if bool(backend.xp.all(bad)):
        raise LoadError(
            f"no channel of any pixel is good in the loads of scan {scan}: the HOT counts must lie "
            f"above the {other} counts, with a believable T_rec.",
            hint="Look at the counts of the loads; --clip-counts, --clip-trec and --clip-tsys set "
            "what is a bad channel.",
        )


def nan_median(values: Array, xp: Any) -> Array:
    """Median along axis 0 of the values that are not NaN; NaN where there is none.

    The array API has no median; sorting puts NaN last in both namespaces when it is made +inf.
    """
    n_good = xp.sum(xp.astype(~xp.isnan(values), xp.int64), axis=0)
    ordered = xp.sort(xp.where(xp.isnan(values), xp.inf, values), axis=0)
    top = xp.maximum(n_good - 1, xp.zeros_like(n_good))
    low = xp.take_along_axis(ordered, (top // 2)[None, ...], axis=0)[0, ...]
    high = xp.take_along_axis(ordered, (n_good // 2)[None, ...], axis=0)[0, ...]
    return xp.where(n_good > 0, 0.5 * (low + high), xp.nan)


def describe_loads(solution: LoadSolution) -> Mapping[str, Any]:
    """Attributes of L1 that say which loads were used."""
    return {
        "cal_scheme": solution.scheme,
        "load_scans": list(solution.scans),
        "t_hot_k": [float(x) for x in np.atleast_1d(np.asarray(solution.t_hot)).ravel()[:8]],
        "cal_stale": solution.stale,
        "load_coupling": [solution.hot_coupling.share, solution.cold_coupling.share],
    }
