"""The SKY of the load scan: in the fit of the water where that is asked for, and compared with the OFFs always.

Physics section 5, equations (5.23) and (5.24). The gain drops out of a SKY that was taken with the loads; it does not
out of an OFF that was taken later.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpucal.backend.protocol import Backend
from gpucal.config import CalibrationConfig
from gpucal.errors import LoadError
from gpucal.physics.radiometry import airmass as airmass_of
from gpucal.physics.rounding import with_error
from gpucal.products import (
    Atmosphere,
    GainDrift,
    LoadMeans,
    LoadSolution,
    SkyModel,
    SpectralSetup,
    WaterSeen,
)
from gpucal.steps.atmosphere import Skies, SkyView, pwv_of_views
from gpucal.steps.hot_cold.gain_drift import corrected
from gpucal.steps.judge.pixels import Verdict, impossible_sky
from gpucal.steps.pwv_fit import OPAQUE
from gpucal.steps.sky_model import sky_brightness, zenith_opacity

Array = Any
F64 = npt.NDArray[np.float64]

CHANNELS = 256
"""Channels that tell whether two skies agree."""

TIPPED = math.radians(1.0)
"""SKY subscans further apart than this are a tip: they have no mean."""

MATTERS, SURE = 0.01, 3.0
"""Two skies disagree where T_A* differs by this fraction, and the PWV by so many of its errors."""


class LoadSky(NamedTuple):
    """The SKY of the loads as the fit takes it, or why it cannot be taken."""

    view: SkyView | None
    why: str = ""


def sky_of_loads(
    load: LoadMeans,
    loads: LoadSolution,
    drift: GainDrift | None,
    config: CalibrationConfig,
    backend: Backend,
) -> LoadSky:
    """The SKY subscans of a load scan with a COLD, on the gain of the load means; without what no sky can be."""
    if load.sky is None or loads.cold is None:
        return LoadSky(None, f"load scan {load.scan} has no SKY subscan")
    if load.sky_spread > TIPPED:
        return LoadSky(None, f"the SKY subscans of load scan {load.scan} are a tip")
    counts = load.sky
    if drift is not None:
        when = np.array([load.sky_mjd])
        counts = corrected(counts[:, None, ...], when, drift, 0, counts.shape[0], backend)[:, 0]
    impossible = impossible_sky(counts, loads, backend)
    if impossible.complaints:
        hidden = backend.asarray(impossible.left_out)[None, ...]
        counts = backend.xp.where(hidden, backend.xp.nan, counts)
    mass = float(airmass_of(np.asarray(load.sky_elevation), config.airmass))
    return LoadSky(SkyView(counts, mass, load.sky_time))


def skies_of_fit(
    offs: Skies, sky: LoadSky, config: CalibrationConfig
) -> tuple[Skies, tuple[str, ...]]:
    """What enters the fit of the water: OFFs, SKY or both, and a note. Raises LoadError where there is no SKY."""
    if config.fit_sky == "off":
        return offs, ()
    if sky.view is None:
        if config.fit_sky == "loads":
            raise LoadError(
                f"{sky.why}, which --fit-sky loads asks for.", hint="Use --fit-sky off."
            )
        return offs, (f"{sky.why}: the water is fitted to the OFFs alone.",)
    if config.fit_sky == "loads":
        return Skies([sky.view], [0] * len(offs.of_output)), ()
    return Skies([*offs.views, sky.view], offs.of_output), ()


class Compared(NamedTuple):
    """The water by SKY and by OFFs, and a warning where they disagree."""

    seen: tuple[WaterSeen, ...] = ()
    warnings: tuple[str, ...] = ()


def compare_skies(
    sky: SkyView,
    offs: Sequence[SkyView],
    fitted: Atmosphere,
    loads: LoadSolution,
    setup: SpectralSetup,
    grid: F64,
    verdict: Verdict,
    config: CalibrationConfig,
    backend: Backend,
) -> Compared:
    """The PWV by the SKY of the loads and by the OFFs of the scan, each alone; what is not known yet in few of them."""
    few = slice(None, None, max(1, loads.bad.shape[0] // CHANNELS))
    thin_loads, thin_setup, model = thinned(few, loads, setup, fitted.model)
    # The fit has told the water of the OFFs already, where it looked at nothing else.
    known = config.fit_sky == "off" and fitted.scope == "full"
    found = []
    for views in ([sky],) if known else ([sky], offs):
        thin = [replace(v, counts=v.counts[few, ...]) for v in views]
        fit = pwv_of_views(thin, thin_loads, thin_setup, model, grid, verdict, config, backend)
        if fit is None:
            return Compared()
        found.append((float(fit.pwv[0]), float(fit.error[0])))
    if known:
        found.append((float(fitted.pwv.mean()), float(fitted.error.mean())))
    (by_sky, error), (by_offs, other) = found
    seen = (WaterSeen("loads", by_sky, error), WaterSeen("offs", by_offs, other))
    effect = change_of_scale(model, by_sky, by_offs, float(np.mean(fitted.airmass)), backend)
    if abs(effect) < MATTERS or abs(by_sky - by_offs) < SURE * math.hypot(error, other):
        return Compared(seen)
    gain = _gain_between(by_sky, offs[0], few, thin_loads, model, backend)
    return Compared(
        seen,
        (
            f"the SKY of load scan {loads.scans[0]} and the OFFs disagree about the water: PWV "
            f"{with_error(by_sky, error)} mm and {with_error(by_offs, other)} mm, which is {100 * effect:+.1f} % of "
            f"T_A*. A gain that changed by {100 * gain:+.2g} % from the loads to the OFF does that, or water that "
            "changed. --fit-sky loads takes the SKY, which the gain cannot move; --gain-interpolate 3 removes a "
            "drift between two load scans.",
        ),
    )


def change_of_scale(
    model: SkyModel, pwv: float, other: float, airmass: float, backend: Backend
) -> float:
    """By which fraction T_A* would be larger with ``pwv`` than with ``other`` mm: median over clear channels."""
    tau, was = (
        np.asarray(backend.to_host(zenith_opacity(model, 0, p)), dtype=np.float64)
        for p in (pwv, other)
    )
    clear = np.exp(-airmass * np.minimum(tau, was)) >= OPAQUE
    step = np.expm1(airmass * (tau - was))
    return float(np.median(step[clear])) if clear.any() else 0.0


def thinned(
    few: slice, loads: LoadSolution, setup: SpectralSetup, model: SkyModel
) -> tuple[LoadSolution, SpectralSetup, SkyModel]:
    """Loads, setup and model of some channels."""
    n = loads.bad.shape[0]

    def some(values: Array, axis: int = 0) -> Array:
        if values is None or values.shape[axis] != n:
            return values
        return values[(slice(None),) * axis + (few, ...)]

    names = ("hot", "cold", "span", "j_hot", "j_cold", "t_rec", "gamma", "bad")
    gains = ("nu_sig", "nu_img", "g_sig", "g_img")
    return (
        replace(loads, **{name: some(getattr(loads, name)) for name in names}),
        replace(setup, **{name: some(getattr(setup, name)) for name in gains}),
        replace(
            model,
            opacity=some(model.opacity, 3),
            amplitude=some(model.amplitude, 1),
            constant=some(model.constant),
            emission=some(model.emission, 3),
            ground=some(model.ground, 1),
        ),
    )


def _gain_between(
    pwv: float, off: SkyView, few: slice, loads: LoadSolution, model: SkyModel, backend: Backend
) -> float:
    """Counts of an OFF over those that the loads and the water ``pwv`` mm let expect, less 1; equation (5.24)."""
    xp, n = backend.xp, loads.bad.shape[0]
    mass = off.airmass if isinstance(off.airmass, float) else float(np.mean(off.airmass))
    j_sky = sky_brightness(model, xp.full((1, 1), pwv), mass, 0, n)
    expected = loads.hot + (j_sky - loads.j_hot) * loads.span / (loads.j_hot - loads.j_cold)
    ratio = np.asarray(backend.to_host(off.counts[few, ...] / expected), dtype=np.float64)
    good = np.isfinite(ratio)
    return float(np.median(ratio[good])) - 1.0 if good.any() else math.nan
