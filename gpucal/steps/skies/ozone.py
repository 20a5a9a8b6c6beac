"""Scale of the ozone column, fitted together with the water where its lines are in the band; physics equations (5.25)
to (5.27).

Ozone lies above the water and has narrow lines: in a band with one the two can be told apart, in others not.
Shapes: c channels, R receivers, A pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpucal.backend.protocol import Backend
from gpucal.config import CalibrationConfig
from gpucal.products import LoadSolution, OzoneFit, SkyModel, SpectralSetup
from gpucal.steps.atmosphere import SkyView, observed_sky, pwv_of_views
from gpucal.steps.error_budget.inputs import thicker
from gpucal.steps.judge.pixels import Verdict
from gpucal.steps.pwv_fit import OPAQUE
from gpucal.steps.skies.load_sky import thinned
from gpucal.steps.skies.scan_model import OzoneModels
from gpucal.steps.sky_model import sky_brightness

Array = Any
F64 = npt.NDArray[np.float64]

CHANNELS = 4096
"""Channels that are enough: lines of ozone are some MHz wide at least."""

ROUNDS, CLOSE = 12, 1e-9
STEP = 1e-3
"""Of the scale, in its derivative."""

BELIEVABLE = (0.2, 5.0)
KNOWN = 0.2
"""Range of the scale, and its largest error, with which it is taken."""

LINE_K = 2.0
"""What a line of ozone stands out of the sky by, at least: an error of the table can look like a weaker one."""


class _Sample(NamedTuple):
    """One sky, f64 [c,R,A]: weight, slopes in P and in the scale, K; residual, K; noise^2, K^2; what an error of all
    opacities does, K. Weight, residual and noise are 0 where nothing is known."""

    weight: F64
    of_water: F64
    of_ozone: F64
    residual: F64
    noise2: F64
    wrong: F64


class _Step(NamedTuple):
    """By how much the scale is off, and its error; NaN and inf where it cannot be told. line: how far the ozone of
    the table stands out of the rest of the band, K."""

    step: float
    error: float
    line: float


@dataclass(frozen=True, eq=False)
class _Problem:
    """What the scale is fitted to, in some channels."""

    models: OzoneModels
    views: Sequence[SkyView]
    loads: LoadSolution
    setup: SpectralSetup
    verdict: Verdict
    config: CalibrationConfig
    backend: Backend

    def pwv(self, scale: float, grid: F64) -> float:
        """The PWV that fits best with this scale, mm; NaN without a good fit."""
        model = self.models.at(scale)
        fit = pwv_of_views(
            *(self.views, self.loads, self.setup, model, grid, self.verdict),
            *(self.config, self.backend),
        )
        return math.nan if fit is None else float(fit.pwv[0])

    def step(self, scale: float, pwv: float) -> _Step:
        """One Gauss-Newton step in both, P following the scale; equations (5.26) and (5.27)."""
        seen = [self._sample(view, scale, pwv) for view in self.views]
        pp = _sum(s.weight * s.of_water**2 for s in seen)
        ps = _sum(s.weight * s.of_water * s.of_ozone for s in seen)
        line = max(_contrast(s) for s in seen)
        if not pp > 0:
            return _Step(math.nan, math.inf, line)
        # what the ozone has of its own, beside the water
        own = [s.of_ozone - ps / pp * s.of_water for s in seen]
        pulls = [s.weight * x for s, x in zip(seen, own, strict=True)]
        left = _sum(p * x for p, x in zip(pulls, own, strict=True))
        if not left > 0:
            return _Step(math.nan, math.inf, line)
        step = _sum(p * s.residual for p, s in zip(pulls, seen, strict=True)) / left
        noise = _sum(p**2 * s.noise2 for p, s in zip(pulls, seen, strict=True))
        wrong = _sum(p * s.wrong for p, s in zip(pulls, seen, strict=True))
        return _Step(step, math.hypot(math.sqrt(noise), wrong) / left, line)

    def _sample(self, view: SkyView, scale: float, pwv: float) -> _Sample:
        loads, host = self.loads, self.backend.to_host
        model, dp = self.models.at(scale), 1e-3 * max(pwv, 1e-3)
        observed, j_hot, t_rec, bad = (
            np.asarray(host(x))
            for x in (observed_sky(view.counts, loads), loads.j_hot, loads.t_rec, loads.bad)
        )

        def sky(of: SkyModel, p: float) -> F64:
            return np.broadcast_to(self._sky(of, p, view), observed.shape)

        here = sky(model, pwv)
        more, less = (sky(self.models.at(scale + ds), pwv) for ds in (STEP, -STEP))
        wrong = sky(thicker(model, self.config.opacity_trust), pwv) - here
        width = self.setup.noise_width
        noise2 = (observed + j_hot + t_rec) ** 2 / (width * np.asarray(view.time))
        noise2 = noise2 + (t_rec + j_hot) ** 2 / (width * loads.hot_time)
        residual = observed - (here - j_hot)
        good = ~bad & np.isfinite(residual) & np.isfinite(noise2) & self._clear(model, pwv, view)
        good &= ~self.verdict.left_out[None]
        return _Sample(
            weight=np.where(good, 1.0 / np.where(good, noise2 + wrong**2, 1.0), 0.0),
            of_water=(sky(model, pwv + dp) - sky(model, pwv - dp)) / (2.0 * dp),
            of_ozone=(more - less) / (2.0 * STEP),
            residual=np.where(good, residual, 0.0),
            noise2=np.where(good, noise2, 0.0),
            wrong=wrong,
        )

    def _sky(self, model: SkyModel, pwv: float, view: SkyView) -> F64:
        """J_sky of a view, f64 [c,R|1,A|1] K."""
        water, mass = self._at(pwv, view)
        found = sky_brightness(model, water, mass, 0, self.loads.bad.shape[0])
        return np.asarray(self.backend.to_host(found), dtype=np.float64)

    def _clear(self, model: SkyModel, pwv: float, view: SkyView) -> Any:
        """Channels in which a sideband transmits anything, bool [c,R|1,A|1]."""
        n = self.loads.bad.shape[0]
        through = [model.transmission(k, *self._at(pwv, view), 0, n) for k in (0, 1)]
        return np.maximum(*(np.asarray(self.backend.to_host(t)) for t in through)) >= OPAQUE

    def _at(self, pwv: float, view: SkyView) -> tuple[Array, float | Array]:
        """PWV [1,1] mm and airmass as the model takes them."""
        mass = view.airmass
        one = self.backend.xp.full((1, 1), pwv)
        return one, mass if isinstance(mass, float) else self.backend.asarray(mass)


def _contrast(sample: _Sample) -> float:
    """How far the ozone of the table stands out of the rest of the band, K."""
    size = np.abs(sample.of_ozone)[sample.weight > 0]
    return float(np.max(size) - np.median(size)) if size.size else 0.0


def _sum(parts: Iterable[F64]) -> float:
    """The sum over all samples of all skies."""
    return sum(float(np.sum(part)) for part in parts)


def fit_ozone(
    models: OzoneModels,
    views: Sequence[SkyView],
    loads: LoadSolution,
    setup: SpectralSetup,
    grid: F64,
    verdict: Verdict,
    config: CalibrationConfig,
    backend: Backend,
) -> OzoneFit:
    """Scale of the ozone column for some skies and all pixels that the verdict leaves, with its error.

    Gauss-Newton steps in the scale, each with the PWV that fits best. ``OzoneFit.why`` says why the scale of the
    options stays, where the band does not tell another.
    """
    few = slice(None, None, max(1, loads.bad.shape[0] // CHANNELS))
    thin_loads, thin_setup, none = thinned(few, loads, setup, models.without)
    *_, own = thinned(few, loads, setup, models.whole)
    problem = _Problem(
        OzoneModels(none, own),
        [replace(v, counts=v.counts[few, ...]) for v in views],
        *(thin_loads, thin_setup, verdict, config, backend),
    )
    scale = 1.0
    for _ in range(ROUNDS):
        pwv = problem.pwv(scale, grid)
        if not math.isfinite(pwv):
            return _unknown(config, "the water cannot be fitted with it")
        step, error, line = problem.step(scale, pwv)
        if line < LINE_K:
            return _unknown(
                config, f"its lines are {line:.2g} K high here, {LINE_K:g} K are needed"
            )
        if not error < KNOWN * max(1.0, scale):
            return _unknown(config, f"its error would be {error:.2g}, {KNOWN:g} at most is wanted")
        new = min(max(scale + step, 0.5 * BELIEVABLE[0]), 2.0 * BELIEVABLE[1])
        done, scale = abs(new - scale) < CLOSE, new
        if done:
            break
    if not BELIEVABLE[0] <= scale <= BELIEVABLE[1]:
        low, high = BELIEVABLE
        return _unknown(
            config, f"{scale:.3g} times the table would fit, believable is {low:g} to {high:g}"
        )
    return OzoneFit(scale, error)


def _unknown(config: CalibrationConfig, why: str) -> OzoneFit:
    """The scale of the options, and why it stays."""
    return OzoneFit(
        config.ozone_scale,
        math.nan,
        f"--ozone fit: the ozone is not fitted, {why}; its scale stays {config.ozone_scale:g}.",
    )
