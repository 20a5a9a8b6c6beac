"""Fit of the precipitable water: grid, then safeguarded Newton; physics section 5, equations (5.8) to (5.12)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpucal.backend.protocol import Backend
from gpucal.kernel_contract.chi2 import SkyFits
from gpucal.physics.emission import departure

Array = Any
F64 = npt.NDArray[np.float64]

MAX_STEPS = 20
MAX_HALVINGS = 40
MIN_CHANNELS = 16
GRID_CHANNELS = 1024
"""The grid only finds the valley, so it looks at no more than about this many channels."""

OPAQUE = 0.02
"""Channels whose sidebands both transmit less say nothing about the water."""

BLOCK = 8192
"""Points of which a CPU works the emission out together."""

CURVED, FRESH, OF_ERROR = 0.02, 1e-9, 1e-4
"""The emission of a layered sky is worked out again where P has moved by dP since, and the curvature of E that its
expansion lacks (a PWV of CURVED dP^2 / P) is more than FRESH of P and OF_ERROR of its error."""


@dataclass(frozen=True, eq=False)
class SkyRows:
    """N observed sky spectra that share airmass and opacity.

    observed f64 [C,N] K with the constant part of the model taken off; noise2 f64 [C,N] K^2; good
    bool [C,N]; amplitude f64 [2,C,N|1] K; opacity f64 [3,2,J,C,1]. ``fits``: which of the fitted PWV the
    N columns belong to (a slice, or None: all to fit 0). Of a layered sky: emission f64 [5,2,J,C,1] and
    ground f64 [2,C,N|1] K (``SkyModel``).
    """

    observed: Array
    noise2: Array
    good: Array
    amplitude: Array
    opacity: Array
    airmass: float
    fits: slice | None
    emission: Array | None = None
    ground: Array | None = None

    def thinned(self, stride: int) -> SkyRows:
        """Every ``stride``-th channel."""
        return SkyRows(
            self.observed[::stride, ...],
            self.noise2[::stride, ...],
            self.good[::stride, ...],
            self.amplitude[:, ::stride, :],
            self.opacity[:, :, :, ::stride, :],
            self.airmass,
            self.fits,
            None if self.emission is None else self.emission[:, :, :, ::stride, :],
            None if self.ground is None else self.ground[:, ::stride, :],
        )


@dataclass(frozen=True, eq=False)
class PwvFit:
    """Result for N fits: pwv, error (1 sigma), chi2 per degree of freedom, all f64 [N]."""

    pwv: F64
    error: F64
    chi2_dof: F64
    n_channels: npt.NDArray[np.int64]
    converged: npt.NDArray[np.bool_]
    poor: npt.NDArray[np.bool_]


def fit_pwv(
    rows: Sequence[SkyRows], n_fits: int, grid: F64, trust: float, backend: Backend
) -> PwvFit:
    """Fit ``n_fits`` values of PWV (mm) to sky spectra.

    ``grid`` f64 [K] trial values, ascending, whose ends bound the fit; ``trust`` is eps, the fractional
    error of the opacity model. The weights belong to the current P and are constants of each
    Newton step; the emission of a layered sky is expanded around it, equation (5.20).
    """
    thin = _thinned(rows, backend)
    pwv = _grid_search(thin, n_fits, grid, backend)
    if any(r.emission is not None for r in rows) and thin[0].good.shape != rows[0].good.shape:
        # a few channels lead near the end before the emission of all is worked out
        pwv = _newton(thin, pwv, grid, trust, backend, rough=True).pwv
    found = _newton(rows, pwv, grid, trust, backend)
    pwv, converged = found.pwv.copy(), found.converged
    for n in np.flatnonzero(~converged):
        pwv[n], converged[n] = _least_squares(rows, pwv, int(n), grid, trust, backend)
    near = found.near
    if np.any(np.abs(pwv - found.pwv) > 0):
        near = expanded(rows, pwv, backend)
    weights = [row_weights(r, pwv, trust, backend) for r in rows]
    chi2, _, _, gauss = _sums(near, weights, pwv, n_fits, backend)
    samples, channels = _counts(rows, weights, n_fits, backend)
    edge = (pwv <= grid[0] * (1 + 1e-9)) | (pwv >= grid[-1] * (1 - 1e-9))
    return PwvFit(
        pwv=pwv,
        error=np.where(gauss > 0, np.sqrt(2.0 / np.where(gauss > 0, gauss, 1.0)), np.inf),
        chi2_dof=chi2 / np.maximum(samples - 1, 1),
        n_channels=channels,
        converged=converged,
        poor=edge | (channels < MIN_CHANNELS) | ~converged,
    )


class _Newton(NamedTuple):
    """Where Newton's steps ended: pwv f64 [N] mm, which fits converged, and the rows expanded near there."""

    pwv: F64
    converged: npt.NDArray[np.bool_]
    near: list[SkyRows]


def _newton(
    rows: Sequence[SkyRows],
    pwv: F64,
    grid: F64,
    trust: float,
    backend: Backend,
    *,
    rough: bool = False,
) -> _Newton:
    """Newton steps from ``pwv`` [n_fits] mm, not more than MAX_STEPS; ``rough``: two, and one expansion."""
    converged = np.zeros(len(pwv), dtype=np.bool_)
    near, at = expanded(rows, pwv, backend), pwv
    for _ in range(2 if rough else MAX_STEPS):
        weights = [row_weights(r, pwv, trust, backend) for r in rows]
        chi2, slope, curvature, gauss = _sums(near, weights, pwv, len(pwv), backend)
        scale = np.where(curvature > 0, curvature, gauss)
        step = np.where(scale > 0, -slope / np.where(scale > 0, scale, 1.0), 0.0)
        new = _descend(near, weights, pwv, np.where(converged, 0.0, step), chi2, grid, backend)
        converged |= np.abs(new - pwv) < 1e-10 * (1.0 + new)
        pwv = new
        if converged.all():
            break
        error = np.sqrt(2.0 / np.maximum(gauss, 1e-300))
        allowed = np.maximum(FRESH * pwv, OF_ERROR * error)
        if not rough and np.any(CURVED * (pwv - at) ** 2 > allowed * pwv):
            near, at = expanded(rows, pwv, backend), pwv
    return _Newton(pwv, converged, near)


def _thinned(rows: Sequence[SkyRows], backend: Backend) -> list[SkyRows]:
    """The rows with about GRID_CHANNELS channels; all of them where too few of those are good."""
    stride = max(1, rows[0].observed.shape[0] // GRID_CHANNELS)
    thin = [r.thinned(stride) for r in rows]
    if min(int(backend.xp.sum(backend.xp.astype(r.good, backend.xp.int64))) for r in thin) < 16:
        return list(rows)
    return thin


def _grid_search(thin: Sequence[SkyRows], n_fits: int, grid: F64, backend: Backend) -> F64:
    """Start values f64 [n_fits], mm: least chi2 on the grid, weights of the noise alone."""
    total = np.zeros((len(grid), n_fits))
    trial = backend.asarray(grid[:, None])
    middle = float(np.sqrt(grid[0] * grid[-1]))
    for row in (_of_one_temperature(r, middle, backend) for r in thin):
        weight = backend.xp.where(row.good, 1.0 / row.noise2, 0.0)
        sums = backend.kernels.chi2(_sky_fits(row, trial, weight))
        _gather(total, backend.to_host(sums), row)
    return np.asarray(grid[np.argmin(total, axis=0)], dtype=np.float64)


def expanded(rows: Sequence[SkyRows], pwv: F64, backend: Backend) -> list[SkyRows]:
    """The rows with the emission of a layered sky expanded around ``pwv`` [n_fits] mm; equation (5.20).

    There E = E_0 + r (t - t_0) with r = (dE/dP) / (dt/dP), so what is left is an isothermal sky with an
    amplitude of its own in every channel: value and slope in P are exact at ``pwv``. An opaque sideband leaves
    its slope to the other one. Rows of an isothermal sky are returned as they are.
    """
    xp = backend.xp
    found = []
    for row in rows:
        if row.emission is None or row.ground is None:
            found.append(row)
            continue
        p = backend.asarray(_of_row(pwv, row))
        channels = row.observed.shape[0]
        # pieces that stay in the cache of a CPU; a device takes all at once
        step = max(64, BLOCK // (2 * row.opacity.shape[2] * p.shape[0]))
        step = step if backend.name == "cpu" else channels
        parts = [_expansion(row, slice(i, i + step), p, xp) for i in range(0, channels, step)]
        less, tilt = (xp.concat([part[i] for part in parts], axis=i) for i in (0, 1))
        found.append(
            replace(
                row,
                observed=row.observed + less,
                amplitude=row.amplitude - tilt,
                emission=None,
                ground=None,
            )
        )
    return found


def _expansion(row: SkyRows, channels: slice, p: Array, xp: Any) -> tuple[Array, Array]:
    """Of some channels of a row: sum_k (ground_k E_k - tilt_k t_k) [c,N], and tilt_k = ground_k r_k [2,c,N]."""
    assert row.emission is not None
    assert row.ground is not None
    opacity, emission = row.opacity[..., channels, :], row.emission[..., channels, :]
    ground = row.ground[:, channels, :]
    value, slope, t, falls = (
        xp.mean(x, axis=1) if x.shape[1] > 1 else x[:, 0, ...]
        for x in departure(opacity, emission, p, row.airmass)
    )
    clear = (t >= OPAQUE) & (falls < 0)
    # an opaque sideband has no t to follow: what it does goes with the other
    lost = xp.where(clear, 0.0, ground * slope)
    slope = ground * slope + xp.where(clear & ~clear[::-1, ...], lost[::-1, ...], 0.0)
    tilt = xp.where(clear, slope / xp.where(clear, falls, 1.0), 0.0)
    return xp.sum(ground * value - tilt * t, axis=0), tilt


def _of_one_temperature(row: SkyRows, pwv: float, backend: Backend) -> SkyRows:
    """The row with E = kappa (1 - t), the thin sky's at ``pwv`` mm: near enough to find the valley."""
    if row.emission is None or row.ground is None:
        return row
    xp = backend.xp
    b, q, c = (row.opacity[i, ...] for i in range(3))
    c_o3, e_b, e_q, e_c, e_o3 = (row.emission[i, ...] for i in range(5))
    tau = xp.sum((b + q * pwv) * pwv + c, axis=1)
    less = xp.sum((e_b + e_q * pwv) * pwv + e_c + e_o3 * c_o3, axis=1)
    part = row.ground * xp.where(tau > 0, less / xp.where(tau > 0, tau, 1.0), 0.0)
    return replace(
        row,
        observed=row.observed + xp.sum(part, axis=0),
        amplitude=row.amplitude + part,
        emission=None,
        ground=None,
    )


def _sky_fits(row: SkyRows, pwv: Array, weight: Array) -> SkyFits:
    """One set of rows for the kernel: pwv f64 [K,N] or [K,1] mm, weight f64 [C,N]."""
    return SkyFits(pwv, row.airmass, row.observed, weight, row.amplitude, row.opacity)


def _gather(total: F64, sums: F64, row: SkyRows) -> None:
    """Add the column sums of one row set to the fits they belong to (last axis)."""
    if row.fits is None:
        total[..., 0] += sums.sum(axis=-1)
    else:
        total[..., row.fits] += sums


def _of_row(pwv: F64, row: SkyRows) -> F64:
    """The PWV of the columns of a row set, f64 [N]; f64 [1] where all belong to fit 0."""
    return pwv[:1] if row.fits is None else pwv[row.fits]


def row_weights(row: SkyRows, pwv: F64, trust: float, backend: Backend) -> Array:
    """w = 1/(noise^2 + model^2), f64 [C,N], physics equation (5.9); 0 for bad channels and an opaque sky.

    model = eps |sum_k amp_k mean_j(A tau_j t_j)|: all opacities off by the same fraction eps, equation (5.11).
    """
    xp = backend.xp
    p = backend.asarray(_of_row(pwv, row))
    b, q, c = (row.opacity[i, ...] for i in range(3))
    depth = row.airmass * (b * p + q * (p * p) + c)
    t = xp.exp(-depth)
    model = trust * xp.sum(row.amplitude * xp.mean(depth * t, axis=1), axis=0)
    clear = xp.any(xp.mean(t, axis=1) >= OPAQUE, axis=0)
    return xp.where(row.good & clear, 1.0 / (row.noise2 + model * model), 0.0)


def _sums(
    rows: Sequence[SkyRows], weights: Sequence[Array], pwv: F64, n_fits: int, backend: Backend
) -> F64:
    """chi2, its first and second derivative in P, and the Gauss-Newton curvature: f64 [4,n_fits]."""
    total = np.zeros((4, n_fits))
    for row, weight in zip(rows, weights, strict=True):
        p = backend.asarray(_of_row(pwv, row)[None, :])
        sums = backend.kernels.chi2(_sky_fits(row, p, weight)._replace(derivatives=True))
        _gather(total, backend.to_host(sums)[:, 0], row)
    return total


def _chi2(rows: Sequence[SkyRows], weights: Sequence[Array], pwv: F64, backend: Backend) -> F64:
    """chi2 of each fit, f64 [n_fits], without derivatives."""
    total = np.zeros(len(pwv))
    for row, weight in zip(rows, weights, strict=True):
        p = backend.asarray(_of_row(pwv, row)[None, :])
        sums = backend.kernels.chi2(_sky_fits(row, p, weight))
        _gather(total, backend.to_host(sums)[0], row)
    return total


def _descend(
    rows: Sequence[SkyRows],
    weights: Sequence[Array],
    pwv: F64,
    step: F64,
    chi2: F64,
    grid: F64,
    backend: Backend,
) -> F64:
    """The PWV after one step, clamped to the grid; the step is halved where chi2 rises."""
    trial = np.clip(pwv + step, grid[0], grid[-1])
    for _ in range(MAX_HALVINGS):
        risen = _chi2(rows, weights, trial, backend) > chi2 * (1 + 1e-12)
        risen &= np.abs(trial - pwv) >= 1e-10 * (1.0 + pwv)
        if not risen.any():
            break
        step = np.where(risen, 0.5 * step, step)
        trial = np.clip(pwv + step, grid[0], grid[-1])
    return np.asarray(trial)


def misfit(rows: Sequence[SkyRows], pwv: F64, trust: float, backend: Backend) -> F64:
    """chi2 per sample of each column of a fit that all columns share, f64 [N]; NaN without any sample.

    pwv f64 [1] mm; the ``fits`` of the rows say which columns they hold.
    """
    n = max(r.fits.stop for r in rows if r.fits is not None)
    chi2, samples = np.zeros(n), np.zeros(n)
    for row in rows:
        shared = replace(row, fits=None)
        weight = row_weights(shared, pwv, trust, backend)
        p = backend.asarray(pwv[None, :1])
        (near,) = expanded([shared], pwv, backend)
        sums = backend.kernels.chi2(_sky_fits(near, p, weight))
        chi2[row.fits] += backend.to_host(sums)[0]
        samples[row.fits] += np.count_nonzero(backend.to_host(weight), axis=0)
    return np.where(samples > 0, chi2 / np.maximum(samples, 1), np.nan)


def _counts(
    rows: Sequence[SkyRows], weights: Sequence[Array], n_fits: int, backend: Backend
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Samples used, and the most channels that one spectrum of each fit contributes."""
    samples = np.zeros(n_fits, dtype=np.int64)
    channels = np.zeros(n_fits, dtype=np.int64)
    for row, weight in zip(rows, weights, strict=True):
        used = np.count_nonzero(backend.to_host(weight), axis=0)
        if row.fits is None:
            samples[0] += used.sum()
            channels[0] = max(channels[0], used.max(initial=0))
        else:
            samples[row.fits] += used
            channels[row.fits] = np.maximum(channels[row.fits], used)
    return samples, channels


def _least_squares(
    rows: Sequence[SkyRows], pwv: F64, fit: int, grid: F64, trust: float, backend: Backend
) -> tuple[float, bool]:
    """Trust-region least squares for one fit that Newton did not finish."""
    from scipy.optimize import least_squares

    picked = []
    for row in rows:
        weight = backend.to_host(row_weights(row, pwv, trust, backend))
        column = slice(None)
        if row.fits is not None:
            if not row.fits.start <= fit < row.fits.stop:
                continue
            column = slice(fit - row.fits.start, fit - row.fits.start + 1)
        observed = backend.to_host(row.observed)
        wide = (2, *observed.shape)
        amplitude, ground = (
            None if x is None else np.broadcast_to(backend.to_host(x), wide)[:, :, column]
            for x in (row.amplitude, row.ground)
        )
        emission = None if row.emission is None else backend.to_host(row.emission)
        opacity, root = backend.to_host(row.opacity), np.sqrt(weight[:, column])
        picked.append(
            (row.airmass, observed[:, column], root, opacity, amplitude, emission, ground)
        )

    def residuals(x: F64) -> F64:
        parts = []
        for airmass, observed, root, opacity, amplitude, emission, ground in picked:
            b, q, c = opacity
            t = np.exp(-airmass * (b * x[0] + q * x[0] ** 2 + c)).mean(axis=1)
            sky = amplitude * t
            if emission is not None:
                sky = sky - ground * departure(opacity, emission, x[0], airmass).value.mean(axis=1)
            parts.append(np.where(root > 0, root * (observed - sky.sum(axis=0)), 0.0))
        return np.concatenate([p.ravel() for p in parts])

    result = least_squares(
        residuals, [pwv[fit]], bounds=([grid[0]], [grid[-1]]), xtol=1e-14, ftol=1e-14, gtol=1e-14
    )
    return float(result.x[0]), bool(result.success)
