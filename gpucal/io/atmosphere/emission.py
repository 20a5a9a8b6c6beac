"""Emission columns of a table, from the absorption and temperature of the levels; physics section 5."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gpucal.io.atmosphere.levels import layer_means
from gpucal.physics.emission import lapse
from gpucal.physics.radiometry import radiation_temperature

F64 = npt.NDArray[np.float64]

SUBLAYERS = 6
"""Parts of a layer: T linear and absorption exponential in altitude make 1e-3 of E with this many."""

AIRMASSES = (1.0, 2.0)
"""Where the columns are fitted: between and up to 2.4 E is then right to 0.1 % of the transmission."""

OPAQUE = 0.1
"""Transmission below which no more weight is given: an opaque sky must not take over the fit."""

THIN_OZONE = 1e-4
"""Below this opacity the ozone's departure is that of its thin limit."""

CHUNK = 256
"""Frequencies worked out together."""


class LevelAbsorption(NamedTuple):
    """Absorption at N frequencies by L levels, Np/km: dry f64 [N,L], wet f64 [K,N,L] with the dry air and K amounts of
    water, ozone and minor f64 [N,L]."""

    dry: F64
    wet: F64
    ozone: F64
    minor: F64


def emission_columns(freq_hz: F64, z_km: F64, t_k: F64, levels: LevelAbsorption, pwv: F64) -> F64:
    """e_b, e_q, e_c, e_o3 at ``freq_hz`` [N]: f64 [4,N]; physics equation (5.16).

    ``z_km`` and ``t_k`` [L] from the site upwards; ``pwv`` [K] mm, rising, the water of ``levels.wet``.
    The coefficients are those with which E comes closest, in units of the transmission, to what the levels emit at
    ``AIRMASSES`` and ``pwv``.
    """
    found = []
    for i in range(0, freq_hz.size, CHUNK):
        part = slice(i, i + CHUNK)
        piece = LevelAbsorption(*(x[..., part, :] for x in levels))
        found.append(_columns(freq_hz[part], z_km, t_k, piece, pwv))
    return np.concatenate(found, axis=1)


def _columns(freq_hz: F64, z_km: F64, t_k: F64, levels: LevelAbsorption, pwv: F64) -> F64:
    sky = _Sky(z_km, t_k, freq_hz)
    airless = levels.dry + levels.minor
    tau, dry = sky.seen(airless)
    e_c = np.mean([d / (a * _g(a * tau)) for a, d in zip(AIRMASSES, dry, strict=True)], axis=0)
    rows, rest = [], []
    for amount, wet in zip(pwv, levels.wet, strict=True):
        tau, damp = sky.seen(wet + levels.minor)
        for a, d in zip(AIRMASSES, damp, strict=True):
            scale = a * _g(a * tau) / np.maximum(np.exp(-a * tau), OPAQUE)
            rows.append(np.stack([amount * scale, amount**2 * scale], axis=-1))
            rest.append(d / np.maximum(np.exp(-a * tau), OPAQUE) - e_c * scale)
    design, wanted = np.stack(rows, axis=1), np.stack(rest, axis=1)
    e_b, e_q = np.linalg.solve(
        np.swapaxes(design, 1, 2) @ design, np.swapaxes(design, 1, 2) @ wanted[..., None]
    )[..., 0].T
    return np.stack([e_b, e_q, e_c, _ozone(sky, levels)])


def _ozone(sky: _Sky, levels: LevelAbsorption) -> F64:
    """e_o3 with the driest air: what ozone adds to the departure, of what it takes from the transmission."""
    below = levels.wet[0] + levels.minor
    tau, without = sky.seen(below)
    _, both = sky.seen(below + levels.ozone)
    own, thin = sky.thin(levels.ozone)
    shades = np.stack([-np.exp(-a * tau) * np.expm1(-a * own) for a in AIRMASSES])
    added = np.stack([b - w for b, w in zip(both, without, strict=True)])
    share = np.sum(shades * added, axis=0) / np.maximum(np.sum(shades**2, axis=0), 1e-300)
    return np.where(own * np.exp(-tau) < THIN_OZONE, thin, share)


def _g(y: F64) -> F64:
    return np.asarray(lapse(y)[0], dtype=np.float64)


class _Sky:
    """Levels cut into sublayers, and how far their radiation temperature lies below that of the ground."""

    def __init__(self, z_km: F64, t_k: F64, freq_hz: F64) -> None:
        steps = np.arange(SUBLAYERS) / SUBLAYERS
        self.at = np.append((np.arange(z_km.size - 1)[:, None] + steps).ravel(), z_km.size - 1.0)
        n = np.arange(z_km.size)
        self.step = np.diff(np.interp(self.at, n, z_km))[:, None]
        temperature = np.interp(self.at, n, t_k)
        nu = freq_hz[None, :]
        self.less = 1.0 - radiation_temperature(nu, temperature[:, None]) / radiation_temperature(
            nu, float(t_k[0])
        )
        self.left = np.minimum(self.at.astype(int), z_km.size - 2)

    def opacity(self, absorption: F64) -> F64:
        """Opacity of the sublayers of ``absorption`` [N,L], exponential between levels: f64 [M,N]."""
        logarithm = np.log(np.maximum(absorption.T, 1e-300))
        part = (self.at - self.left)[:, None]
        fine = np.exp(logarithm[self.left] * (1.0 - part) + logarithm[self.left + 1] * part)
        return np.asarray(layer_means(fine) * self.step, dtype=np.float64)

    def seen(self, absorption: F64) -> tuple[F64, list[F64]]:
        """Zenith opacity, and D = (1 - t) - J_em / J_g at AIRMASSES, each f64 [N].

        D is the integral of 1 - J(T)/J_g, linear in the opacity of a sublayer, over exp(-A tau).
        """
        layer = self.opacity(absorption)
        above = np.concatenate([np.zeros((1, layer.shape[1])), np.cumsum(layer, axis=0)])
        found = []
        for a in AIRMASSES:
            y = a * layer
            whole = -np.expm1(-y)
            # integral of u/y exp(-u): its series where the difference would lose digits
            far = np.where(y > 1e-3, whole / np.maximum(y, 1e-3) - np.exp(-y), y / 2 - y * y / 3)
            emitted = self.less[:-1] * whole + (self.less[1:] - self.less[:-1]) * far
            found.append(np.sum(np.exp(-a * above[:-1]) * emitted, axis=0))
        return above[-1], found

    def thin(self, absorption: F64) -> tuple[F64, F64]:
        """Zenith opacity, and the mean departure of what absorbs, f64 [N]."""
        layer = self.opacity(absorption)
        own = np.sum(layer, axis=0)
        mean = 0.5 * (self.less[:-1] + self.less[1:])
        return own, np.sum(layer * mean, axis=0) / np.maximum(own, 1e-300)
