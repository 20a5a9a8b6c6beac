"""Validity of a Gaussian fit: noise that is not white, features beside the source, limits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpucal.procedures.gaussian import BeamFit, BeamModel
from gpucal.procedures.least_squares import block_means, correlation_scale, step_noise
from gpucal.procedures.results import Measured

F64 = npt.NDArray[np.float64]
FEATURE_SIGMA, FEATURE_PART = 5.0, 0.25
"""A mean of the residual this significant, and this part of all that stands out of the baseline, means that
the model is wrong."""

LEAST_DOF = 4
"""Blocks of the residual beyond the number of parameters, to tell noise that is alike over a beam."""

SHORTEST_BLOCKS = 24
"""In how many blocks at least the residual of a drift is looked at."""


@dataclass(frozen=True)
class Scatter:
    """Properties of the residual. excess: factor on the variance as neighbours are correlated; other: what is
    left beside the source, "" if nothing much."""

    excess: float
    other: str


def residual_scatter(fit: BeamFit, fwhm: float, step: float, unit: str) -> Scatter:
    """Scatter of the residual in blocks of up to half a beam; step: distance of the samples."""
    s = fit.samples
    residual = s.y - fit.source - fit.baseline
    n_parameters = fit.minimum.parameters.size
    half_beam = max(1, int(0.5 * abs(fwhm) / step)) if step > 0 else 1
    # a width that went astray must leave blocks enough to see it
    long = max(1, min(half_beam, s.x.size // (n_parameters + LEAST_DOF)))
    variance = float(np.mean(residual**2))
    excess = correlation_scale(block_means(residual, s.drift, long), long, variance, n_parameters)
    per_drift = s.x.size // (int(s.drift.max()) + 1)
    short = max(1, min(half_beam // 2, per_drift // SHORTEST_BLOCKS))
    worst = _largest(block_means(residual, s.drift, short))
    whole = _largest(block_means(fit.alone, s.drift, short))
    # the noise of the data themselves: a wrong model must not hide behind its own residual
    noise = step_noise(s.y) / math.sqrt(short)
    if abs(worst) <= max(FEATURE_SIGMA * noise, FEATURE_PART * abs(whole)):
        return Scatter(excess, "")
    return Scatter(
        excess,
        f"the fit does not describe the data: it leaves {worst:.3g} {unit} of the {whole:.3g} that "
        "stand out of the baseline",
    )


def _largest(values: F64) -> float:
    """The value of largest magnitude, with its sign; 0 for none."""
    return float(values[np.argmax(np.abs(values))]) if values.size else 0.0


def why_invalid(
    fit: BeamFit,
    model: BeamModel,
    found: dict[str, Measured],
    seen: tuple[float, str],
    min_snr: float,
) -> str:
    """The first reason why a fit is not valid, or "".

    seen: what the source takes from chi2 in sigma, and ``Scatter.other``.
    """
    detection, other = seen
    unit = found["offset"].unit
    minimum, x = fit.minimum, fit.samples.x
    amplitude, offset, fwhm = (found[n] for n in ("amplitude", "offset", "fwhm"))
    if not minimum.converged:
        return "fit did not converge"
    low, high = float(x.min()), float(x.max())
    tolerance = 1e-3
    at_limit = model.fwhm is None and (
        fwhm.value < model.widths[0] * (1 + tolerance)
        or fwhm.value > model.widths[1] * (1 - tolerance)
    )
    outside = not low <= offset.value <= high
    snr = amplitude.value / amplitude.error if amplitude.error > 0 else math.nan
    # beyond the edge or at a limit the height is badly known even when something is surely there
    shown = detection if outside or at_limit else snr
    if not math.isfinite(shown) or not minimum.determined:
        return "the data do not determine the fit"
    if (fit.negative and (other or detection >= min_snr)) or amplitude.value < 0:
        return "no source seen: the strongest feature is negative"
    if other and not (outside or at_limit):
        return other
    if shown < min_snr:
        return f"no source seen: peak is {shown:.1f} sigma, need {min_snr:g}"
    if outside:
        return (
            f"offset lies outside the scanned range: {offset.value:.4g} {unit}, scanned "
            f"{low:.4g} to {high:.4g}"
        )
    return f"width at its limit: {fwhm.value:.4g} {unit}" if at_limit else ""
