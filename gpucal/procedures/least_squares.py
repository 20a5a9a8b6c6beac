"""Least squares with realistic errors: from the errors of the data if given, else from the residual."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
Model = Callable[[F64], F64]

TOO_UNLIKELY = 1e-3
"""Errors given with the data are believed unless chi2 this large has a smaller probability."""

MAD_TO_SIGMA = 1.4826022185056018
"""Standard deviation of a Gaussian over its median absolute deviation."""


@dataclass(frozen=True, eq=False)
class Minimum:
    """End of a fit: parameters f64 [P], covariance f64 [P,P] as the data's errors give it, residual
    f64 [N] in units of sigma, converged."""

    parameters: F64
    covariance: F64
    residual: F64
    converged: bool

    @property
    def chi2(self) -> float:
        return float(np.sum(self.residual**2))

    @property
    def determined(self) -> bool:
        """Whether the data determine every parameter."""
        errors = np.diag(self.covariance)
        return bool(np.all(np.isfinite(self.covariance)) and np.all(errors > 0))


def minimise(
    residual: Model,
    jacobian: Model,
    start: F64,
    bounds: tuple[F64, F64] | None = None,
    *,
    robust: bool = False,
) -> Minimum:
    """Minimise sum residual(p)^2; ``residual`` f64 [N] in units of sigma, ``jacobian`` f64 [N,P].

    ``robust``: soft-L1 loss with the scale 1, for data with outliers. scipy.optimize.least_squares does the
    work; a fit that runs out of steps or meets numbers that are not finite has ``converged`` False.
    """
    from scipy.optimize import least_squares

    lower, upper = bounds or (np.full(start.shape, -np.inf), np.full(start.shape, np.inf))
    size = start.size
    unknown = Minimum(start, np.full((size, size), np.nan), residual(start), False)
    try:
        found = least_squares(
            residual,
            np.clip(start, lower, upper),
            jac=jacobian,
            bounds=(lower, upper),
            x_scale="jac",
            loss="soft_l1" if robust else "linear",
            max_nfev=200,
        )
    except (ValueError, np.linalg.LinAlgError):  # not finite somewhere
        return unknown
    at = np.asarray(found.x, dtype=np.float64)
    return Minimum(at, covariance_of(jacobian(at)), residual(at), bool(found.status > 0))


def covariance_of(jacobian: F64) -> F64:
    """(J^T J)^-1, f64 [P,P]; inf where the data do not determine a parameter."""
    norm = np.sqrt(np.sum(jacobian**2, axis=0))
    size = jacobian.shape[1]
    if jacobian.shape[0] < size or not np.all(np.isfinite(norm)) or np.any(norm == 0):
        return np.full((size, size), np.inf)
    _, singular, vt = np.linalg.svd(jacobian / norm, full_matrices=False)
    if singular[-1] < 1e-10 * singular[0]:
        return np.full((size, size), np.inf)
    inverse = (vt.T / singular**2) @ vt
    return np.asarray(inverse / np.outer(norm, norm), dtype=np.float64)


def error_scale(chi2: float, dof: int, *, absolute: bool) -> float:
    """Factor on the covariance.

    Without errors of the data (sigma = 1) the residual gives the noise: chi2/dof. With them they are taken as
    they are, unless chi2 is so large that the model or the errors cannot be right (probability below
    TOO_UNLIKELY): then they are scaled up by the residual too. NaN without a degree of freedom where the
    residual is needed.
    """
    if not absolute:
        return chi2 / dof if dof > 0 else float("nan")
    if dof <= 0:
        return 1.0
    from scipy.stats import chi2 as distribution

    unlikely = float(distribution.sf(chi2, dof)) < TOO_UNLIKELY
    return chi2 / dof if unlikely else 1.0


def block_means(residual: F64, series: npt.NDArray[Any], length: int) -> F64:
    """Means over ``length`` neighbours, series by series; what is left at an end is dropped.

    residual f64 [N]; series i32 [N]: number of the series each sample is from.
    """
    means = []
    for number in np.unique(series):
        own = residual[series == number]
        n = own.size // length
        means.append(own[: n * length].reshape(n, length).mean(axis=1))
    return np.concatenate(means)


def correlation_scale(means: F64, length: int, variance: float, n_parameters: int) -> float:
    """Scatter of block means over that of white noise; a factor on the variance.

    means f64 [B] over ``length`` samples of a residual with ``variance``. Gain and atmosphere drift, so
    the noise of continuum data is not white, and a beam sees the scatter over its own width. 1.0
    unless white noise makes such a scatter with a probability below TOO_UNLIKELY only.
    """
    dof = means.size - n_parameters
    if dof < 2 or not variance > 0:
        return 1.0
    from scipy.stats import chi2 as distribution

    chi2 = float(np.sum(means**2)) * length / variance
    return chi2 / dof if float(distribution.sf(chi2, dof)) < TOO_UNLIKELY else 1.0


def step_noise(values: F64) -> float:
    """Noise of a series from the median absolute second difference, which sees neither baseline nor source.

    The variance of y[i-1] - 2 y[i] + y[i+1] is 6 sigma^2. 0 for fewer than three values.
    """
    if values.size < 3:
        return 0.0
    step = np.diff(values, 2)
    return float(MAD_TO_SIGMA * np.median(np.abs(step)) / np.sqrt(6.0))


def outliers(
    residual: F64, series: npt.NDArray[Any], limit: float, longest: int = 2
) -> npt.NDArray[np.bool_]:
    """Samples more than ``limit`` robust sigma from the median, bool [N].

    Runs of more than ``longest`` neighbours in one series are no outliers: the model is wrong there, and
    that must be seen.
    """
    middle = np.median(residual)
    spread = MAD_TO_SIGMA * np.median(np.abs(residual - middle))
    far = (np.abs(residual - middle) > limit * spread) & (spread > 0)
    edges = np.flatnonzero(np.diff(far.astype(np.int8)) | (np.diff(series) != 0)) + 1
    for run in np.split(np.arange(far.size), edges):
        if run.size > longest:
            far[run] = False
    return np.asarray(far, dtype=np.bool_)
