"""Error of the PWV: noise of the counts, and what an input that is off does to the fit; physics section 12.

Linear in the errors: with the residual r = S_obs - S_mod and g = dS_mod/dP, the fit moves by
sum w g (r' - r) / sum w g^2. Shapes: c channels, R receivers, A pixels, V skies, S outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.products import Atmosphere, WaterSeen
from gpucal.steps.atmosphere import Skies, SkyView, observed_sky
from gpucal.steps.error_budget.inputs import Inputs, thicker
from gpucal.steps.pwv_fit import OPAQUE
from gpucal.steps.sky_model import sky_brightness
from gpucal.steps.solution import ScanSolution

F64 = npt.NDArray[np.float64]
STEP = 1e-3
"""Relative step in P of the derivatives."""


@dataclass(frozen=True, eq=False)
class _Seen:
    """One sky in the fit, f64 [c,R,A]: pull w g, slope g K/mm, part S_obs / (J_hot - J_cold), residual K; noise K,
    of the OFF, the HOT and the COLD as they enter S_obs; airmass; pwv f64 [R|1,A|1] mm."""

    pull: F64
    slope: F64
    part: F64
    residual: F64
    noise: tuple[F64, F64, F64]
    airmass: float | F64
    pwv: F64


class WaterErrors:
    """The fit of one scan, linear around its result; what it returns has the shape of ``Atmosphere.pwv``."""

    def __init__(self, solution: ScanSolution, skies: Skies, base: Inputs) -> None:
        self._base, self._skies = base, skies
        self._atmosphere: Atmosphere = solution.atmosphere
        verdict = solution.verdict
        self._left_out = None if verdict is None else verdict.left_out
        self._width = solution.setup.noise_width
        self._trust = solution.config.opacity_trust
        host = solution.backend.to_host
        self._seen = [
            self._look(
                SkyView(np.asarray(host(v.counts[base.chosen, ...])), v.airmass, v.time),
                self._pwv(i),
            )
            for i, v in enumerate(skies.views)
        ]
        self._thinner = base.loads.bad.shape[0] / solution.output_shape[0]
        self._weight = self._by_scope([np.sum(s.pull * s.slope, axis=0) for s in self._seen])

    def moved_by(self, other: Inputs) -> F64:
        """How far P moves, mm, when the inputs are ``other``."""
        was, now = self._base.loads, other.loads
        assert was.j_cold is not None
        assert now.j_cold is not None
        step = (now.j_hot - now.j_cold) - (was.j_hot - was.j_cold)
        n = was.bad.shape[0]
        moved = []
        for seen in self._seen:
            before, after = (
                sky_brightness(m, seen.pwv, seen.airmass, 0, n)
                for m in (self._base.model, other.model)
            )
            change = seen.part * step - (after - before) + (now.j_hot - was.j_hot)
            moved.append(np.sum(seen.pull * change, axis=0))
        return np.asarray(self._by_scope(moved) / self._weight)

    def noise(self) -> F64:
        """1 sigma of P, mm, by the noise of OFF, HOT and COLD; the loads are common to all OFFs of a fit."""
        squares = []
        for group in self._together():
            off = sum(np.sum((s.pull * s.noise[0]) ** 2, axis=0) for s in group)
            loads = [sum(s.pull * s.noise[k] for s in group) for k in (1, 2)]
            squares.append(off + sum(np.sum(np.square(part), axis=0) for part in loads))
        alone = self._atmosphere.scope == "per-pair"
        total = self._by_scope(squares) if alone else self._reduced(np.asarray(squares[0])[None])
        return np.asarray(np.sqrt(total * self._thinner) / self._weight)

    def receivers(self) -> list[WaterSeen]:
        """The PWV that each receiver would have by itself where all share one, with its noise; equation (12.5)."""
        if self._atmosphere.scope != "full" or self._weight.size != 1:
            return []
        found = []
        for r in range(self._base.loads.bad.shape[1]):
            pull = [s.pull[:, r] for s in self._seen]
            weight = sum(
                float(np.sum(p * s.slope[:, r])) for p, s in zip(pull, self._seen, strict=True)
            )
            if not weight > 0:
                continue
            moved = sum(
                float(np.sum(p * s.residual[:, r])) for p, s in zip(pull, self._seen, strict=True)
            )
            off = sum(
                float(np.sum((p * s.noise[0][:, r]) ** 2))
                for p, s in zip(pull, self._seen, strict=True)
            )
            loads = sum(
                float(np.sum(np.square(sum(s.pull[:, r] * s.noise[k][:, r] for s in self._seen))))
                for k in (1, 2)
            )
            noise = np.sqrt((off + loads) * self._thinner) / weight
            pwv = float(self._atmosphere.pwv.mean()) + moved / weight
            found.append(WaterSeen(f"receiver {r}", pwv, float(noise)))
        return found

    def chi2(self) -> F64:
        """chi2 per degree of freedom by the noise alone: about 1 where the model is right."""
        totals, counts = [], []
        for s in self._seen:
            used = s.pull != 0
            variance = sum(np.square(part) for part in s.noise)
            ratio = np.where(used, s.residual**2 / np.where(used, variance, 1.0), 0.0)
            totals.append(np.sum(ratio, axis=0))
            counts.append(np.sum(used, axis=0, dtype=np.float64))
        return self._by_scope(totals) / np.maximum(self._by_scope(counts) - 1.0, 1.0)

    def _together(self) -> list[list[_Seen]]:
        """The skies that share a fit."""
        alone = self._atmosphere.scope == "per-pair"
        return [[s] for s in self._seen] if alone else [self._seen]

    def _look(self, view: SkyView, pwv: F64) -> _Seen:
        """Weights, equation (5.9), and derivatives at the result of the fit."""
        loads, model = self._base.loads, self._base.model
        n = loads.bad.shape[0]
        mass = view.airmass

        def sky(p: F64) -> F64:
            found: F64 = np.asarray(sky_brightness(model, p, mass, 0, n), dtype=np.float64)
            return found

        observed = np.asarray(observed_sky(view.counts, loads))
        part = observed / (loads.j_hot - loads.j_cold)
        here, step = sky(pwv), STEP * np.maximum(pwv, 1e-3)
        slope = np.broadcast_to((sky(pwv + step) - sky(pwv - step)) / (2 * step), observed.shape)
        wrong = sky_brightness(thicker(model, self._trust), pwv, mass, 0, n) - here
        hot2 = (loads.t_rec + loads.j_hot) ** 2 / (self._width * loads.hot_time)
        cold2 = (loads.t_rec + loads.j_cold) ** 2 / (self._width * loads.cold_time)
        off2 = (observed + loads.j_hot + loads.t_rec) ** 2 / (self._width * np.asarray(view.time))
        residual = observed - (here - loads.j_hot)
        clear = np.maximum(*(model.transmission(k, pwv, mass, 0, n) for k in (0, 1))) >= OPAQUE
        good = ~loads.bad & np.isfinite(residual) & (off2 > 0) & np.isfinite(off2) & clear
        if self._left_out is not None:
            good = good & ~self._left_out[None]
        weight = np.where(good, 1.0 / np.where(good, off2 + hot2 + wrong**2, 1.0), 0.0)
        found = (np.sqrt(off2), (1.0 + part) * np.sqrt(hot2), part * np.sqrt(cold2))
        return _Seen(
            pull=weight * slope,
            slope=slope,
            part=np.where(good, part, 0.0),
            residual=np.where(good, residual, 0.0),
            noise=tuple(np.where(good, x, 0.0) for x in found),  # type: ignore[arg-type]
            airmass=mass,
            pwv=pwv,
        )

    def _pwv(self, view: int) -> F64:
        """P of a sky, f64 [R|1,A|1] mm: that of the output it belongs to."""
        outputs = list(self._skies.of_output)
        return self._atmosphere.pwv_of(outputs.index(view) if view in outputs else 0)

    def _by_scope(self, of_view: Sequence[Any]) -> F64:
        """Sums [R,A] of each sky, added up over what shares a fit."""
        stacked = np.stack([np.asarray(x, dtype=np.float64) for x in of_view])
        if self._atmosphere.scope != "per-pair":
            return self._reduced(stacked)
        joint = np.sum(stacked, axis=(1, 2))[list(self._skies.of_output)]
        return np.broadcast_to(joint, self._atmosphere.pwv.shape)

    def _reduced(self, stacked: F64) -> F64:
        """Sums [V,R,A] over the skies, and over the pixels where they share a fit: [R|1,A|1,1]."""
        total = np.sum(stacked, axis=0)[:, :, None]
        shared = np.sum(total, keepdims=True)
        return np.asarray(total if self._atmosphere.scope == "per-pixel" else shared)
