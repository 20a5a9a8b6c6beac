"""Focus: the position of the maximum of a parabola through peak against focus position.

Physics section 11, equation (11.1). y = c0 + c1 z + c2 z^2, weights 1/error^2; z0 = -c1/(2 c2), its error from the full
covariance of the coefficients. A maximum only: c2 < 0 by more than its error allows for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gpucal.procedures.least_squares import covariance_of, error_scale
from gpucal.procedures.results import (
    FocusFit,
    FocusResult,
    Measured,
    Quality,
    weighted_mean,
)

F64 = npt.NDArray[np.float64]
NAN = float("nan")


@dataclass(frozen=True, eq=False)
class FocusSeries:
    """Peaks against focus position, for one axis and one pixel.

    positions  f64 [N] in ``unit``; values f64 [N] K: height of the source
    errors     f64 [N] or None: 1-sigma errors of the values; None = from the residual of the fit
    """

    axis: str
    positions: F64
    values: F64
    errors: F64 | None = None
    unit: str = "mm"
    value_unit: str = "K"
    receiver: int = 0
    pixel: int = 0
    label: str = ""


def reduce_focus(series: Sequence[FocusSeries], *, min_snr: float = 3.0) -> FocusResult:
    """Best focus of each series, and the weighted mean over receivers and pixels per axis.

    ``min_snr``: significance of the curvature below which no maximum is seen. Valid when every axis that
    was moved has a best focus. Never raises for bad data: the result says what is wrong.
    """
    fits = tuple(fit_focus(s, min_snr=min_snr) for s in series)
    means, notes = [], []
    for axis in dict.fromkeys(f.axis for f in fits):
        mine = [f for f in fits if f.axis == axis]
        good = [f.best for f in mine if f.valid]
        mean = weighted_mean(axis, "best", good, len(mine) - len(good))
        if not mean.valid:
            mean = replace(mean, reason=mine[0].reason)
            notes.append(f"{axis}: {mine[0].reason}")
        means.append(mean)
    reason = "; ".join(notes) if fits else "no focus positions"
    return FocusResult(fits=fits, means=tuple(means), valid=bool(fits) and not notes, reason=reason)


def fit_focus(series: FocusSeries, *, min_snr: float = 3.0) -> FocusFit:
    """Parabola through one series, by linear least squares; see ``FocusFit``."""
    absolute = series.errors is not None
    x = np.asarray(series.positions, dtype=np.float64)
    y = np.asarray(series.values, dtype=np.float64)
    sigma = np.ones(x.shape) if series.errors is None else np.asarray(series.errors)
    good = np.isfinite(x) & np.isfinite(y) & np.isfinite(sigma) & (sigma > 0)
    x, y, sigma = x[good], y[good], np.asarray(sigma[good], dtype=np.float64)
    blank = FocusFit(
        axis=series.axis,
        receiver=series.receiver,
        pixel=series.pixel,
        label=series.label,
        unit=series.unit,
        value_unit=series.value_unit,
        positions=x,
        values=y,
        sigma=sigma if absolute else np.full(x.size, NAN),
        quality=Quality(n=x.size, rejected=int(np.count_nonzero(~good))),
    )
    need = 3 if absolute else 4
    n_different = np.unique(x).size
    if n_different < 3 or x.size < need:
        return replace(
            blank, reason=f"too few focus positions: {min(n_different, x.size)}, need {need}"
        )
    return _solve(blank, sigma, absolute, min_snr)


def _solve(blank: FocusFit, sigma: F64, absolute: bool, min_snr: float) -> FocusFit:
    """The fit with errors; sigma are errors of the data if ``absolute``, else relative weights."""
    x, y = blank.positions, blank.values
    # counted from the middle in units of the half range: the normal matrix is well conditioned
    middle, half = 0.5 * (x.min() + x.max()), 0.5 * np.ptp(x)
    u = (x - middle) / half
    design = np.stack([np.ones(u.shape), u, u * u], axis=1)
    weighted = design / sigma[:, None]
    c, *_ = np.linalg.lstsq(weighted, y / sigma, rcond=None)
    residual = y - design @ c
    chi2, dof = float(np.sum((residual / sigma) ** 2)), x.size - 3
    scale = error_scale(chi2, dof, absolute=absolute)
    cov = covariance_of(weighted) * scale
    curvature_error = float(np.sqrt(cov[2, 2]))
    snr = float(-c[2] / curvature_error) if curvature_error > 0 else NAN
    z0 = -0.5 * c[1] / c[2] if c[2] != 0 else NAN
    slope = np.array([0.0, -0.5 / c[2], 0.5 * c[1] / c[2] ** 2]) if c[2] != 0 else np.zeros(3)
    top = np.array([1.0, z0, z0 * z0])
    # x = middle + half u: back to c0 + c1 z + c2 z^2
    turn = np.array(
        [
            [1.0, -middle / half, (middle / half) ** 2],
            [0.0, 1.0 / half, -2.0 * middle / half**2],
            [0.0, 0.0, half**-2.0],
        ]
    )
    best = Measured(float(middle + half * z0), float(half * np.sqrt(slope @ cov @ slope)))
    found = replace(
        blank,
        best=replace(best, unit=blank.unit),
        peak=Measured(float(top @ c), float(np.sqrt(top @ cov @ top)), blank.value_unit),
        curvature=Measured(
            float(c[2] / half**2),
            float(curvature_error / half**2),
            f"{blank.value_unit}/{blank.unit}2",
        ),
        coefficients=turn @ c,
        covariance=turn @ cov @ turn.T,
        model=design @ c,
        residual=residual,
        sigma=blank.sigma if absolute else np.full(x.size, np.sqrt(scale)),
        quality=replace(
            blank.quality,
            snr=snr,
            chi2_dof=(chi2 / dof if dof else NAN) if absolute else 1.0,
            rms=float(np.sqrt(np.mean(residual**2))),
        ),
    )
    reason = _why_invalid(found, float(c[2]), snr, min_snr)
    return replace(found, valid=not reason, reason=reason)


def _why_invalid(fit: FocusFit, c2: float, snr: float, min_snr: float) -> str:
    """The first reason why the fit gives no best focus, or ""; snr: significance of the curvature c2."""
    if c2 >= 0:
        return "the parabola is not concave: there is no maximum"
    if not snr >= min_snr:
        return f"no maximum seen: the curvature is {snr:.1f} sigma, need {min_snr:g}"
    low, high = float(fit.positions.min()), float(fit.positions.max())
    if not low <= fit.best.value <= high:
        return (
            f"best focus lies outside the scan: {fit.best} , scanned {low:.4g} to {high:.4g}"
        ).replace(" ,", ",")
    if not fit.peak.value > 0:
        return "no source seen: the peak of the parabola is not positive"
    return ""
