"""Skydip: zenith opacity and forward efficiency from the sky temperature against airmass.

Physics section 11, equations (11.2) and (11.3).
    efficiency form   T_sky(A) = f_eff [T_atm (1 - e) + T_bg e] + (1 - f_eff) T_amb     loads seen: K, absolute
    total-power form  T(A) = g [T_atm (1 - e) + T_bg e] + T0     receiver noise still in T0; g = 1, or
                      fitted when the data are not calibrated; e = exp(-tau A)
The total-power form is that of the SRT (srt-single-dish-tools). Temperatures are radiation temperatures J(nu, T)
where the difference matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gpucal.physics.emission import lapse
from gpucal.procedures.least_squares import (
    Minimum,
    block_means,
    error_scale,
    minimise,
    step_noise,
)
from gpucal.procedures.results import (
    Measured,
    Quality,
    SkydipFit,
    SkydipResult,
    weighted_mean,
)

F64 = npt.NDArray[np.float64]
NAN = float("nan")
Form = Literal["efficiency", "total-power"]
MIN_AIRMASS_RANGE = 0.3
"""Over less the opacity cannot be told from a constant."""

MISFIT_PART, MISFIT_SIGMA = 0.05, 5.0
"""A systematic residual of this part of the range of the data, this significant, means a wrong model: a jump
of the gain, a receiver that does not see the sky."""

MISFIT_BLOCKS, MISFIT_PART_FEW = 12, 0.15
"""Blocks over airmass that are looked at; with too few samples for blocks: rms over range."""

NEED_EFFICIENCY_SIGMA = 3.0
HIGHEST_TAU = 20.0


@dataclass(frozen=True, eq=False)
class Lapse:
    """How the air gets colder with height: kappa f64 [K] at the zenith opacities tau f64 [K], rising, linear between.

    E = kappa(tau) tau A g(tau A), physics equation (11.9): kappa is the mean of 1 - J(T)/J(T_ground) over what absorbs.
    """

    tau: F64
    kappa: F64

    def departure(self, tau: float, airmass: F64) -> tuple[F64, F64]:
        """E and dE/dtau at the airmasses [N]."""
        kappa = float(np.interp(tau, self.tau, self.kappa))
        step = 1e-4 * max(abs(tau), 1e-3)
        ends = np.interp([tau - step, tau + step], self.tau, self.kappa)
        steep = float(ends[1] - ends[0]) / (2.0 * step)
        depth = airmass * max(tau, 0.0)
        g, bent = lapse(depth)
        value = depth * g
        return kappa * value, steep * value + kappa * airmass * (g + depth * bent)


@dataclass(frozen=True, eq=False)
class SkydipSeries:
    """Sky temperatures of one pixel.

    airmass f64 [N]; values f64 [N] K (or counts with a free gain); errors f64 [N] or None: from the residual
    t_atm, t_amb K, in the same scale as the values; t_bg what shines through the atmosphere, K
    lapse: of a layered sky, t_atm then being that of the ground; None: isothermal
    """

    airmass: F64
    values: F64
    t_atm: float
    t_amb: float = NAN
    errors: F64 | None = None
    t_bg: float = 0.0
    lapse: Lapse | None = None
    receiver: int = 0
    pixel: int = 0
    label: str = ""
    value_unit: str = "K"


@dataclass(frozen=True)
class SkydipOptions:
    """Options. form: see the module; f_eff: held fixed (efficiency form), None = fitted; free_gain: fit the scale
    (total-power form); min_snr: significance of tau below which no opacity is seen."""

    form: Form = "efficiency"
    f_eff: float | None = None
    free_gain: bool = False
    min_snr: float = 3.0

    @property
    def names(self) -> tuple[str, ...]:
        """The fitted parameters, in order."""
        if self.form == "total-power":
            return ("tau", "t0", "gain") if self.free_gain else ("tau", "t0")
        return ("tau",) if self.f_eff is not None else ("tau", "f_eff")


def reduce_skydip(
    series: Sequence[SkydipSeries], options: SkydipOptions | None = None
) -> SkydipResult:
    """Opacity of each pixel, and the weighted means of tau and f_eff over pixels; see ``SkydipResult``.

    Valid when at least one pixel gives an opacity. Never raises for bad data.
    """
    options = options or SkydipOptions()
    fits = tuple(fit_skydip(s, options) for s in series)
    if not fits:
        return SkydipResult(reason="no sky temperatures")
    good = [f for f in fits if f.valid]
    means = [weighted_mean("airmass", "tau", [f.tau for f in good], len(fits) - len(good))]
    if "f_eff" in options.names:
        means.append(
            weighted_mean("airmass", "f_eff", [f.f_eff for f in good], len(fits) - len(good))
        )
    reason = "" if good else fits[0].reason
    means = [m if m.valid else replace(m, reason=reason) for m in means]
    return SkydipResult(fits=fits, means=tuple(means), valid=bool(good), reason=reason)


def sky_temperature(
    parameters: dict[str, float],
    airmass: F64,
    form: Form,
    t: tuple[float, float, float],
    layers: Lapse | None = None,
) -> F64:
    """The model, f64 [N] K; ``t`` = T_atm, T_amb, T_bg in K; parameters by name (``SkydipFit.names``)."""
    t_atm, t_amb, t_bg = t
    through = np.exp(-parameters["tau"] * airmass)
    sky = t_atm * (1.0 - through) + t_bg * through
    if layers is not None:
        sky = sky - t_atm * layers.departure(parameters["tau"], airmass)[0]
    if form == "total-power":
        return np.asarray(parameters["gain"] * sky + parameters["t0"])
    return np.asarray(parameters["f_eff"] * sky + (1.0 - parameters["f_eff"]) * t_amb)


@dataclass(frozen=True, eq=False)
class _Problem:
    airmass: F64
    values: F64
    sigma: F64
    t: tuple[float, float, float]
    options: SkydipOptions
    layers: Lapse | None = None

    def read(self, p: F64) -> dict[str, float]:
        given = {"f_eff": self.options.f_eff or 1.0, "t0": 0.0, "gain": 1.0}
        return given | dict(zip(self.options.names, (float(v) for v in p), strict=True))

    def model(self, p: F64) -> F64:
        return sky_temperature(self.read(p), self.airmass, self.options.form, self.t, self.layers)

    def residual(self, p: F64) -> F64:
        return np.asarray((self.model(p) - self.values) / self.sigma, dtype=np.float64)

    def jacobian(self, p: F64) -> F64:
        q = self.read(p)
        t_atm, t_amb, t_bg = self.t
        through = np.exp(-q["tau"] * self.airmass)
        sky = t_atm * (1.0 - through) + t_bg * through
        steep = (t_atm - t_bg) * self.airmass * through
        if self.layers is not None:
            less, slope = self.layers.departure(q["tau"], self.airmass)
            sky, steep = sky - t_atm * less, steep - t_atm * slope
        scale = q["gain"] if self.options.form == "total-power" else q["f_eff"]
        columns = {
            "tau": scale * steep,
            "f_eff": sky - t_amb,
            "t0": np.ones_like(sky),
            "gain": sky,
        }
        chosen = np.stack([columns[name] for name in self.options.names], axis=1)
        return np.asarray(chosen / self.sigma[:, None], dtype=np.float64)

    def start(self) -> F64:
        """The tau of a grid that fits best with the linear parameters solved for it."""
        best, found = np.inf, np.zeros(len(self.options.names))
        for tau in np.geomspace(1e-3, 5.0, 40):
            p = self._linear(float(tau))
            chi2 = float(np.sum(self.residual(p) ** 2))
            if chi2 < best:
                best, found = chi2, p
        return found

    def _linear(self, tau: float) -> F64:
        """Parameters f64 [P] that fit best at this tau: all others are linear in the model."""
        names = self.options.names
        p = np.zeros(len(names))
        p[0] = tau
        if len(names) == 1:
            return p
        design = self.jacobian(p)[:, 1:]
        if not np.all(np.isfinite(design)):
            return p
        rest, *_ = np.linalg.lstsq(design, -self.residual(p), rcond=None)
        p[1:] += rest
        return p


def fit_skydip(series: SkydipSeries, options: SkydipOptions | None = None) -> SkydipFit:
    """Fit one pixel; see ``SkydipFit``."""
    # numbers that overflow end as a fit that did not converge
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return _fit_skydip(series, options or SkydipOptions())


def _fit_skydip(series: SkydipSeries, options: SkydipOptions) -> SkydipFit:
    """As ``fit_skydip``, with overflow silent."""
    absolute = series.errors is not None
    a = np.asarray(series.airmass, dtype=np.float64)
    y = np.asarray(series.values, dtype=np.float64)
    sigma = np.ones(a.shape) if series.errors is None else np.asarray(series.errors)
    good = np.isfinite(a) & np.isfinite(y) & np.isfinite(sigma) & (sigma > 0)
    a, y, sigma = a[good], y[good], np.asarray(sigma[good], dtype=np.float64)
    blank = SkydipFit(
        axis="airmass",
        receiver=series.receiver,
        pixel=series.pixel,
        label=series.label,
        value_unit=series.value_unit,
        positions=a,
        values=y,
        sigma=sigma if absolute else np.full(a.size, NAN),
        quality=Quality(n=a.size, rejected=int(np.count_nonzero(~good))),
        t_atm=series.t_atm,
        t_amb=series.t_amb,
        names=options.names,
    )
    why = _unusable(blank, options, absolute)
    if why:
        return replace(blank, reason=why)
    t = (series.t_atm, series.t_amb, series.t_bg)
    problem = _Problem(a, y, sigma, t, options, series.lapse)
    free = np.full(len(options.names), np.inf)
    lower, upper = -free, free.copy()
    lower[0], upper[0] = -1.0, HIGHEST_TAU
    minimum = minimise(problem.residual, problem.jacobian, problem.start(), (lower, upper))
    return _result(blank, problem, minimum, absolute)


def _unusable(blank: SkydipFit, options: SkydipOptions, absolute: bool) -> str:
    """Reason why nothing can be fitted, or ""; without errors of the data one more elevation is needed."""
    need = len(options.names) + (0 if absolute else 1)
    n = np.unique(blank.positions).size
    if n < max(need, 2):
        return f"too few elevations: {n}, need {max(need, 2)}"
    spread = float(np.ptp(blank.positions))
    if spread < MIN_AIRMASS_RANGE:
        return f"the airmass spans only {spread:.2f}, need {MIN_AIRMASS_RANGE:g}"
    if not blank.t_atm > 0:
        return "the temperature of the atmosphere is not known"
    if options.form == "efficiency" and not blank.t_amb > 0:
        return "the ambient temperature is not known"
    return ""


def _result(blank: SkydipFit, problem: _Problem, minimum: Minimum, absolute: bool) -> SkydipFit:
    """The result of a finished fit: errors, quality and validity."""
    options, p = problem.options, minimum.parameters
    dof = blank.positions.size - p.size
    scale = error_scale(minimum.chi2, dof, absolute=absolute)
    covariance = minimum.covariance * scale
    errors = np.sqrt(np.diag(covariance))
    units = {"tau": "Np", "f_eff": "", "t0": blank.value_unit, "gain": f"{blank.value_unit}/K"}
    values = problem.read(p)
    found: dict[str, Any] = {
        name: Measured(values[name], float(errors[i]), units[name])
        for i, name in enumerate(options.names)
    }
    if options.form == "efficiency" and options.f_eff is not None:
        found["f_eff"] = Measured(options.f_eff, 0.0)
    model = problem.model(p)
    residual = blank.values - model
    correlation = covariance[0, 1] / (errors[0] * errors[1]) if p.size > 1 else NAN
    fit = replace(
        blank,
        **found,
        covariance=covariance,
        correlation=float(correlation),
        model=model,
        residual=residual,
        sigma=blank.sigma if absolute else np.full(residual.size, np.sqrt(scale)),
        quality=replace(
            blank.quality,
            snr=float(p[0] / errors[0]) if errors[0] > 0 else NAN,
            chi2_dof=(minimum.chi2 / dof if dof else NAN) if absolute else 1.0,
            rms=float(np.sqrt(np.mean(residual**2))),
        ),
    )
    reason = _why_invalid(fit, minimum, options)
    return replace(fit, valid=not reason, reason=reason)


def _why_invalid(fit: SkydipFit, minimum: Minimum, options: SkydipOptions) -> str:
    """The first reason why the fit is not valid, or ""."""
    if not minimum.converged:
        return "fit did not converge"
    if not minimum.determined:
        return "the data do not determine the fit"
    if fit.tau.value <= 0:
        return f"the opacity is not positive: {fit.tau}"
    if not fit.quality.snr >= options.min_snr:
        return (
            f"no opacity seen: tau is {fit.quality.snr:.1f} sigma, need {options.min_snr:g} "
            f"({fit.tau})"
        )
    if fit.tau.value > 0.99 * HIGHEST_TAU:
        return f"the opacity is at its limit: {fit.tau}"
    misfit = _misfit(fit)
    if misfit:
        return misfit
    if "f_eff" in options.names:
        slack = NEED_EFFICIENCY_SIGMA * fit.f_eff.error
        if not -slack < fit.f_eff.value < 1.0 + slack:
            return f"the forward efficiency is not between 0 and 1: {fit.f_eff}"
    if options.free_gain and not fit.gain.value > 0:
        return f"the gain is not positive: {fit.gain}"
    return ""


def _misfit(fit: SkydipFit) -> str:
    """Reason why the model does not fit: a systematic residual over airmass; or ""."""
    n, span = fit.values.size, float(np.ptp(fit.model))
    length = n // MISFIT_BLOCKS
    worst, allowed = fit.quality.rms, MISFIT_PART_FEW * span
    if length >= 3:
        order = np.argsort(fit.positions, kind="stable")
        means = block_means(fit.residual[order], np.zeros(n, dtype=np.int32), length)
        noise = step_noise(fit.values) / np.sqrt(length)
        worst = float(np.max(np.abs(means)))
        allowed = max(MISFIT_SIGMA * noise, MISFIT_PART * span)
    if worst <= allowed:
        return ""
    return (
        f"the model does not describe the data: it is off by {worst:.3g} {fit.value_unit}, where the "
        f"airmass makes {span:.3g}"
    )
