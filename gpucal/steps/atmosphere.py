"""Water vapour and transmission of a scan, with the scopes and fallbacks of physics section 5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpucal.backend.protocol import Backend
from gpucal.config import CalibrationConfig
from gpucal.errors import AtmosphereError
from gpucal.modes.recipe import Subscans
from gpucal.physics.radiometry import airmass as airmass_of
from gpucal.products import Atmosphere, LoadSolution, SkyModel, SpectralSetup
from gpucal.scan import SubscanGroup
from gpucal.steps.judge.pixels import PEERS, Verdict, judge_misfit
from gpucal.steps.pairing import Pairing
from gpucal.steps.pwv_fit import MIN_CHANNELS, PwvFit, SkyRows, fit_pwv, misfit

Array = Any
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SkyView:
    """The sky as seen by one OFF: mean counts f64 [C,R,A], airmass, integration time s.

    Airmass and time are f64 [R,A] where the pixels looked at the sky in different subscans.
    """

    counts: Array
    airmass: float | F64
    time: float | F64


class Skies(NamedTuple):
    """The distinct skies of a scan, and the index of the one that each output subscan has."""

    views: Sequence[SkyView]
    of_output: Sequence[int]


class FittedAtmosphere(NamedTuple):
    """The atmosphere of a fit, and the pixels that it left out."""

    atmosphere: Atmosphere
    verdict: Verdict


def observed_sky(counts: Array, loads: LoadSolution) -> Array:
    """S_obs = (C_OFF - C_hot)(J_hot - J_cold)/(C_hot - C_cold), f64 [C,R,A] K; physics section 5, equation (5.1)."""
    assert loads.cold is not None
    return (counts - loads.hot) * ((loads.j_hot - loads.j_cold) / loads.span)


def on_airmass(group: SubscanGroup, pairing: Pairing, kind: str) -> F64:
    """Airmass of each output subscan, f64 [S_on]."""
    elevation = np.array([group.mean_elevation(int(s)) for s in pairing.on_index])
    return np.asarray(airmass_of(elevation, kind), dtype=np.float64)


def elevation_seen(group: SubscanGroup, subscans: Subscans) -> float | F64:
    """Mean elevation of a subscan, rad; f64 [R,A] where each pixel has its own subscan."""
    if isinstance(subscans, int):
        return group.mean_elevation(subscans)
    known = {int(s): group.mean_elevation(int(s)) for s in np.unique(subscans)}
    if len(known) == 1:
        return next(iter(known.values()))
    return np.array([[known[int(s)] for s in row] for row in subscans])


def airmass_seen(group: SubscanGroup, subscans: Subscans, kind: str) -> float | F64:
    """Airmass at ``elevation_seen``: a number, or f64 [R,A]."""
    airmass = airmass_of(np.asarray(elevation_seen(group, subscans)), kind)
    return float(airmass) if airmass.ndim == 0 else np.asarray(airmass, dtype=np.float64)


def given_atmosphere(
    model: SkyModel, airmass: F64, pwv: float, scope: str = "external"
) -> Atmosphere:
    """Atmosphere with a PWV (mm) that the user gave, or NaN with a given opacity."""
    one = np.full((1, 1, 1), pwv)
    return Atmosphere(
        scope=scope,
        model=model,
        pwv=one,
        error=np.full((1, 1, 1), np.nan),
        chi2=np.full((1, 1, 1), np.nan),
        n_channels=0,
        converged=True,
        poor=np.zeros((1, 1, 1), dtype=np.bool_),
        airmass=airmass,
    )


def fit_atmosphere(
    skies: Skies,
    loads: LoadSolution,
    setup: SpectralSetup,
    model: SkyModel,
    airmass: F64,
    grid: F64,
    config: CalibrationConfig,
    verdict: Verdict,
    backend: Backend,
) -> FittedAtmosphere:
    """Fit the PWV in the scope of ``config.pwv_scope``; physics section 5, equation (5.8).

    A poor fit (grid edge, fewer than 16 channels, not converged) falls back per-pair -> per-pixel
    -> full and is marked; a poor full fit raises AtmosphereError. ``verdict``: pixels that no fit sees; the
    full fit leaves out more where a pixel does not follow the model that the others do.
    """
    n_rec, n_pix = loads.hot.shape[1:]
    rows = [
        [
            _without(row, verdict.left_out, backend)
            for part in _by_airmass(v)
            for row in _rows(*part, loads, setup, model, backend)
        ]
        for v in skies.views
    ]
    views = range(len(rows))

    def joint(selected: Sequence[int]) -> PwvFit:
        shared = [r for i in selected for r in rows[i]]
        return fit_pwv([_all_in_one(r) for r in shared], 1, grid, config.opacity_trust, backend)

    scope = config.pwv_scope
    full = None
    if scope == "full":
        full, verdict = _robust(rows, verdict, grid, config, backend)
    pairs = [joint([i]) for i in views] if scope == "per-pair" else []
    any_poor = any(bool(p.poor[0]) for p in pairs)
    pixels: PwvFit | None = None
    if scope == "per-pixel" or any_poor:
        flat = [r for group in rows for r in group]
        pixels = fit_pwv(flat, n_rec * n_pix, grid, config.opacity_trust, backend)
        if pixels.poor.any():
            full = joint(views)
    if full is not None and bool(full.poor[0]):
        raise AtmosphereError(
            _why_poor(full, grid), hint="Use --pwv MM or --atmosphere none --tau."
        )
    per_pixel = _fallen_back(pixels, full, (n_rec, n_pix)) if pixels is not None else None
    if scope == "full":
        assert full is not None
        return FittedAtmosphere(_product(scope, model, airmass, full, (1, 1, 1)), verdict)
    if scope == "per-pixel":
        assert per_pixel is not None
        wide = _product(scope, model, airmass, per_pixel, (n_rec, n_pix, 1))
        return FittedAtmosphere(wide, verdict)
    by_pair = _per_pair(pairs, skies.of_output, per_pixel, (n_rec, n_pix), model, airmass)
    return FittedAtmosphere(by_pair, verdict)


def pwv_of_views(
    views: Sequence[SkyView],
    loads: LoadSolution,
    setup: SpectralSetup,
    model: SkyModel,
    grid: F64,
    verdict: Verdict,
    config: CalibrationConfig,
    backend: Backend,
) -> PwvFit | None:
    """One PWV for some skies and all pixels that the verdict leaves; None where the fit is poor."""
    rows = [
        _all_in_one(_without(row, verdict.left_out, backend))
        for view in views
        for part in _by_airmass(view)
        for row in _rows(*part, loads, setup, model, backend)
    ]
    fit = fit_pwv(rows, 1, grid, config.opacity_trust, backend)
    return None if bool(fit.poor[0]) else fit


ROUNDS = 3
"""Rounds of leaving out pixels that do not follow the model; each takes the worst first."""


def _robust(
    rows: Sequence[Sequence[SkyRows]],
    verdict: Verdict,
    grid: F64,
    config: CalibrationConfig,
    backend: Backend,
) -> tuple[PwvFit, Verdict]:
    """The joint fit of all pixels but those that do not follow the model that the others do."""
    flat = [row for view in rows for row in view]
    trust = config.opacity_trust
    for _ in range(ROUNDS):
        fit = fit_pwv([_all_in_one(r) for r in flat], 1, grid, trust, backend)
        if verdict.left_out.size < PEERS or not config.pixel_sky:
            break
        own = misfit(flat, fit.pwv, trust, backend).reshape(verdict.left_out.shape)
        more = judge_misfit(np.where(verdict.left_out, np.nan, own))
        if not more.complaints:
            break
        verdict = verdict.also(more)
        flat = [_without(r, more.left_out, backend) for r in flat]
    return fit, verdict


def _without(row: SkyRows, left_out: npt.NDArray[np.bool_], backend: Backend) -> SkyRows:
    """The rows without the pixels ``left_out`` [R,A]."""
    if not left_out.any():
        return row
    columns = left_out.reshape(-1)[row.fits]
    return replace(row, good=row.good & backend.asarray(~columns)[None, :])


def _by_airmass(view: SkyView) -> list[tuple[SkyView, npt.NDArray[np.bool_] | None]]:
    """A view for each airmass in it, and the pixels bool [R,A] it holds for (None: all)."""
    if isinstance(view.airmass, float):
        return [(view, None)]
    return [
        (SkyView(view.counts, float(one), view.time), view.airmass == one)
        for one in np.unique(view.airmass)
    ]


def _rows(
    view: SkyView,
    pixels: npt.NDArray[np.bool_] | None,
    loads: LoadSolution,
    setup: SpectralSetup,
    model: SkyModel,
    backend: Backend,
) -> list[SkyRows]:
    """One set of rows for each frequency axis; N are its receivers times pixels."""
    xp = backend.xp
    n_chan, n_rec, n_pix = view.counts.shape
    observed = observed_sky(view.counts, loads)
    system = observed + loads.j_hot + loads.t_rec
    width = setup.noise_width
    time = backend.asarray(np.asarray(view.time))
    noise2 = system**2 / (width * time) + (loads.t_rec + loads.j_hot) ** 2 / (
        width * loads.hot_time
    )
    target = observed - (model.constant - loads.j_hot)
    good = ~loads.bad & xp.isfinite(target) & xp.isfinite(noise2) & (noise2 > 0)
    if pixels is not None:
        good = good & backend.asarray(pixels)[None, ...]
    n_axes = model.opacity.shape[-1]
    out = []
    for f in range(n_axes):
        recs = slice(0, n_rec) if n_axes == 1 else slice(f, f + 1)
        n = (recs.stop - recs.start) * n_pix
        part, ground = (
            None if x is None else _columns(x, f if n_axes > 1 else None, recs, n_rec, n_pix, xp)
            for x in (model.amplitude, model.ground)
        )
        out.append(
            SkyRows(
                observed=xp.reshape(xp.where(good, target, 0.0)[:, recs, :], (n_chan, n)),
                noise2=xp.reshape(xp.where(good, noise2, 1.0)[:, recs, :], (n_chan, n)),
                good=xp.reshape(good[:, recs, :], (n_chan, n)),
                amplitude=part,
                opacity=model.opacity[..., f : f + 1],
                airmass=float(view.airmass),
                fits=slice(recs.start * n_pix, recs.stop * n_pix),
                emission=None if model.emission is None else model.emission[..., f : f + 1],
                ground=ground,
            )
        )
    return out


def _columns(
    amplitude: Array, axis: int | None, recs: slice, n_rec: int, n_pix: int, xp: Any
) -> Array:
    """Amplitudes of the receivers ``recs``: f64 [2,C,1] when common, else [2,C,N]."""
    if amplitude.shape[2:] == (1, 1):
        return amplitude[..., 0]
    if axis is not None and amplitude.shape[3] == 1:
        return amplitude[:, :, axis, :]
    full = xp.broadcast_to(amplitude, (*amplitude.shape[:2], n_rec, n_pix))[:, :, recs, :]
    return xp.reshape(full, (*amplitude.shape[:2], (recs.stop - recs.start) * n_pix))


def _all_in_one(row: SkyRows) -> SkyRows:
    """The same rows with all columns in fit 0: one PWV for all pixels."""
    return replace(row, fits=None)


def _why_poor(fit: PwvFit, grid: F64) -> str:
    """Why the joint fit, which nothing can replace, is poor; the message of AtmosphereError."""
    if fit.n_channels[0] == 0:
        return (
            "the PWV cannot be fitted: no channel is usable in any OFF, all are bad, never written "
            "or opaque."
        )
    if fit.n_channels[0] < MIN_CHANNELS:
        return (
            f"the PWV cannot be fitted: {int(fit.n_channels[0])} usable channels, at least "
            f"{MIN_CHANNELS} are needed."
        )
    if not fit.converged[0]:
        return "the fit of the PWV did not converge."
    return (
        f"the fitted PWV of {fit.pwv[0]:.4g} mm lies at the edge of the trial range "
        f"{grid[0]:.4g} to {grid[-1]:.4g} mm."
    )


def _fallen_back(pixels: PwvFit, full: PwvFit | None, shape: tuple[int, int]) -> PwvFit:
    """Per-pixel fits, the poor ones replaced by the joint fit but still marked."""
    if full is None:
        return pixels
    poor = pixels.poor
    return PwvFit(
        pwv=np.where(poor, full.pwv[0], pixels.pwv),
        error=np.where(poor, full.error[0], pixels.error),
        chi2_dof=np.where(poor, full.chi2_dof[0], pixels.chi2_dof),
        n_channels=pixels.n_channels,
        converged=pixels.converged,
        poor=poor,
    )


def _product(
    scope: str, model: SkyModel, airmass: F64, fit: PwvFit, shape: tuple[int, int, int]
) -> Atmosphere:
    """The Atmosphere of a fit; ``shape`` is [R|1, A|1, S_on|1] of its PWV."""
    return Atmosphere(
        scope=scope,
        model=model,
        pwv=fit.pwv.reshape(shape),
        error=fit.error.reshape(shape),
        chi2=fit.chi2_dof.reshape(shape),
        n_channels=int(fit.n_channels.max()),
        converged=bool(fit.converged.all()),
        poor=fit.poor.reshape(shape),
        airmass=airmass,
    )


def _per_pair(
    pairs: Sequence[PwvFit],
    view_of_output: Sequence[int],
    per_pixel: PwvFit | None,
    shape: tuple[int, int],
    model: SkyModel,
    airmass: F64,
) -> Atmosphere:
    """One PWV per output; where the pair's fit is poor, the per-pixel values stand in."""
    wide = shape if per_pixel is not None else (1, 1)
    full_shape = (*wide, len(view_of_output))
    pwv, error, chi2 = (np.empty(full_shape) for _ in range(3))
    poor = np.zeros(full_shape, dtype=np.bool_)
    for j, v in enumerate(view_of_output):
        pair = pairs[v]
        source = per_pixel if bool(pair.poor[0]) and per_pixel is not None else pair
        own = wide if source is per_pixel else (1, 1)
        pwv[:, :, j] = source.pwv.reshape(own)
        error[:, :, j] = source.error.reshape(own)
        chi2[:, :, j] = source.chi2_dof.reshape(own)
        poor[:, :, j] = bool(pair.poor[0])
    return Atmosphere(
        scope="per-pair",
        model=model,
        pwv=pwv,
        error=error,
        chi2=chi2,
        n_channels=int(max(p.n_channels[0] for p in pairs)),
        converged=bool(all(p.converged[0] for p in pairs)),
        poor=poor,
        airmass=airmass,
    )
