"""Chi2 of the observed sky against the atmosphere model, and its derivatives in PWV."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cpu_fallback.calibrate import all_finite
from cpu_fallback.workers import Workers
from gpucal.kernel_contract.chi2 import SkyFits

BLOCK_CHANNELS = 4096
"""Channels of one partial sum. Fixed: the order of summation must not depend on the machine."""

BLOCK_ROWS = 16
"""Trial values (or fits) handled together; their model stays in the cache."""

Array = NDArray[np.float64]


class _Model(NamedTuple):
    """S_mod and its derivatives in P, each [rows, channels]; the derivatives may be absent."""

    value: Array
    slope: Array | None
    bend: Array | None


def chi2_sums(fits: SkyFits, workers: Workers) -> Array:
    """Sum over channels of w (S_obs - S_mod(P))^2: f64 [K,N], or with derivatives [4,K,N].

    The exponentials of a PWV and a model that all fits share are computed once.
    """
    channels, n_fits = fits.observed.shape
    trials = len(fits.pwv)
    # A grid copied to all fits by broadcasting is one grid.
    same_pwv = fits.pwv.shape[1] == 1 or fits.pwv.strides[1] == 0
    if same_pwv:
        fits = fits._replace(pwv=fits.pwv[:, :1])
    shared = same_pwv and fits.amplitude.shape[-1] == fits.opacity.shape[-1] == 1
    partial_sums = _rows_are_trials if shared else _rows_are_fits
    parts = [
        (slice(c, min(c + BLOCK_CHANNELS, channels)), slice(r, r + BLOCK_ROWS))
        for c in range(0, channels, BLOCK_CHANNELS)
        for r in range(0, trials if shared else n_fits, BLOCK_ROWS)
    ]

    def work(part: tuple[slice, slice]) -> Array:
        return partial_sums(fits, *part, workers)

    total = np.zeros((4 if fits.derivatives else 1, trials, n_fits))
    for (_, rows), sums in zip(parts, workers.run(work, parts), strict=True):
        total[(slice(None), rows) if shared else (..., rows)] += sums
    return total if fits.derivatives else total[0]


def _rows_are_trials(problem: SkyFits, channels: slice, rows: slice, workers: Workers) -> Array:
    """Partial sums [1 or 4, trials of the rows, N]: one model for all fits, computed once."""
    observed, weight = _fits_first(problem, channels, slice(None), workers)
    pwv = problem.pwv[rows]
    model = _model(problem, channels, slice(None), pwv, workers)
    sums = np.empty((4 if problem.derivatives else 1, len(pwv), len(observed)))
    for fit in range(len(observed)):
        sums[:, :, fit] = _sums(model, observed[fit], weight[fit], workers)
    return sums


def _rows_are_fits(problem: SkyFits, channels: slice, rows: slice, workers: Workers) -> Array:
    """Partial sums [1 or 4, K, fits of the rows]: each fit with its own PWV or model."""
    observed, weight = _fits_first(problem, channels, rows, workers)
    trials, fits = len(problem.pwv), len(observed)
    pwv = np.broadcast_to(problem.pwv, (trials, problem.observed.shape[1]))[:, rows]
    sums = np.empty((4 if problem.derivatives else 1, trials, fits))
    for trial in range(trials):
        model = _model(problem, channels, rows, pwv[trial][:, None], workers)
        sums[:, trial] = _sums(model, observed, weight, workers)
    return sums


def _fits_first(
    problem: SkyFits, channels: slice, fits: slice, workers: Workers
) -> tuple[Array, Array]:
    """Observed values and weights as contiguous [fits, channels]."""
    turned = []
    for name, array in (("observed", problem.observed), ("weight", problem.weight)):
        piece = array[channels, fits].T
        copy = workers.scratch(name, piece.shape, np.float64)
        np.copyto(copy, piece)
        turned.append(copy)
    return turned[0], turned[1]


def _model(problem: SkyFits, channels: slice, fits: slice, pwv: Array, workers: Workers) -> _Model:
    """S_mod of pwv [rows, 1] in some channels and its derivatives; tables have 1 or rows fits.

    With t = exp(-A tau): dt/dP = g t and d2t/dP2 = (g^2 - 2 A q) t, where g = -A (b + 2 q P).
    """
    airmass, derivatives = float(problem.airmass), problem.derivatives
    shape = (len(pwv), problem.amplitude[0, channels].shape[0])
    value, slope, bend, tau, g, t = (
        workers.scratch(name, shape, np.float64)
        for name in ("value", "slope", "bend", "tau", "g", "t")
    )
    for total in (value, slope, bend) if derivatives else (value,):
        total.fill(0.0)
    points = problem.opacity.shape[2]
    for sideband, point in np.ndindex(2, points):
        b, q, c = (_table(problem.opacity[i, sideband, point], channels, fits) for i in range(3))
        amplitude = _table(problem.amplitude[sideband], channels, fits) / points
        np.multiply(q, pwv, out=g)
        np.add(g, b, out=tau)
        np.multiply(tau, pwv, out=tau)
        np.add(tau, c, out=tau)
        np.multiply(tau, -airmass, out=tau)
        np.exp(tau, out=t)
        np.multiply(t, amplitude, out=t)
        np.add(value, t, out=value)
        if not derivatives:
            continue
        np.multiply(g, 2.0, out=g)
        np.add(g, b, out=g)
        np.multiply(g, -airmass, out=g)
        np.multiply(g, t, out=tau)
        np.add(slope, tau, out=slope)
        np.multiply(tau, g, out=tau)
        np.add(bend, tau, out=bend)
        np.multiply(t, (2.0 * airmass) * q, out=t)
        np.subtract(bend, t, out=bend)
    return _Model(value, slope, bend) if derivatives else _Model(value, None, None)


def _table(values: Array, channels: slice, fits: slice) -> Array:
    """Contiguous [1 or fits, channels] of values [C, 1 or N]."""
    piece = values[channels] if values.shape[1] == 1 else values[channels, fits]
    return np.ascontiguousarray(piece.T)


def _sums(model: _Model, observed: Array, weight: Array, workers: Workers) -> Array:
    """Sums over channels, [1 or 4, rows], of a model against observed and weight."""
    residual, weighted = (
        workers.scratch(name, model.value.shape, np.float64) for name in ("residual", "weighted")
    )
    np.subtract(observed, model.value, out=residual)
    if not all_finite(residual):
        model = _without_weight(model, weight, residual)
    np.multiply(residual, weight, out=weighted)
    np.multiply(residual, weighted, out=residual)
    chi2 = np.add.reduce(residual, axis=-1)
    if model.slope is None or model.bend is None:
        return np.asarray(chi2)[None]
    first = np.add.reduce(np.multiply(weighted, model.slope, out=residual), axis=-1)
    second = np.add.reduce(np.multiply(weighted, model.bend, out=residual), axis=-1)
    np.multiply(model.slope, model.slope, out=residual)
    gauss = np.add.reduce(np.multiply(residual, weight, out=residual), axis=-1)
    return np.stack([chi2, -2.0 * first, 2.0 * (gauss - second), 2.0 * gauss])


def _without_weight(model: _Model, weight: Array, residual: Array) -> _Model:
    """The model with zeros where the weight is 0, in copies; residual is changed in place."""
    unused = np.broadcast_to(weight == 0.0, residual.shape)
    residual[unused] = 0.0
    slope, bend = (
        None if part is None else np.where(unused, 0.0, part) for part in (model.slope, model.bend)
    )
    return _Model(np.where(unused, 0.0, model.value), slope, bend)
