"""chi2: the observed sky against the model of the atmosphere, with derivatives in P; equations (5.8) and (5.12)."""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpucal.kernel_contract.argument import F64, Array, Contract, given


class SkyFits(NamedTuple):
    """N fits of the PWV P to the sky, each at K trial values.

    An axis N of length 1 is shared by all fits. observed: S_obs, constants of the model moved into
    it; weight: 0 for a channel that is not used, whatever else it holds; amplitude: of signal and
    image sideband; opacity: b, q, c of tau = b P + q P^2 + c at J points inside each channel.
    airmass: A; derivatives: whether the derivatives in P are wanted too.
    """

    pwv: Annotated[Array, given(F64, "K N", "K 1", unit="mm")]
    airmass: float
    observed: Annotated[Array, given(F64, "C N", unit="K")]
    weight: Annotated[Array, given(F64, "C N", unit="1/K^2")]
    amplitude: Annotated[Array, given(F64, "2 C N", "2 C 1", unit="K")]
    opacity: Annotated[
        Array, given(F64, "3 2 J C N", "3 2 J C 1", unit="neper: b per mm, q per mm^2, c")
    ]
    derivatives: bool = False


class _Sky(NamedTuple):
    """S_mod, dS/dP and d2S/dP2 of a channel."""

    value: float
    slope: float
    bend: float


def chi2(fits: SkyFits) -> NDArray[np.float64]:
    """Sum over channels of w (S_obs - S_mod)^2: f64 [K,N], or with derivatives [4,K,N].

    S_mod = sum_k amplitude_k mean_j exp(-A tau_kj). The four: chi2, d chi2/dP, d2 chi2/dP2, and the
    Gauss-Newton curvature 2 sum w (dS/dP)^2. Each implementation has an order of summation of its
    own that never changes.
    """
    channels, n_fits = fits.observed.shape
    trials = len(fits.pwv)
    pwv = np.broadcast_to(fits.pwv, (trials, n_fits))
    amplitude = np.broadcast_to(fits.amplitude, (2, channels, n_fits))
    opacity = np.broadcast_to(fits.opacity, (*fits.opacity.shape[:3], channels, n_fits))
    sums = np.zeros((4, trials, n_fits))
    for k, n, c in np.ndindex(trials, n_fits, channels):
        w = float(fits.weight[c, n])
        if w == 0:
            continue
        sky = _sky(float(pwv[k, n]), fits.airmass, amplitude[:, c, n], opacity[..., c, n])
        rest = float(fits.observed[c, n]) - sky.value
        sums[0, k, n] += w * rest**2
        sums[1, k, n] += -2 * w * rest * sky.slope
        sums[2, k, n] += 2 * w * (sky.slope**2 - rest * sky.bend)
        sums[3, k, n] += 2 * w * sky.slope**2
    return sums if fits.derivatives else sums[0]


def _sky(
    p: float,
    airmass: float,
    amplitude: NDArray[np.float64],
    opacity: NDArray[np.float64],
) -> _Sky:
    """Model of one channel from amplitude [2], opacity [3,2,J]; with t = exp(-A tau): dt/dP = -A dtau/dP t."""
    value = slope = bend = 0.0
    points = opacity.shape[2]
    for k, j in np.ndindex(2, points):
        b, q, c = (float(x) for x in opacity[:, k, j])
        part = float(amplitude[k]) / points * math.exp(-airmass * (b * p + q * p * p + c))
        g = -airmass * (b + 2 * q * p)
        value += part
        slope += g * part
        bend += (g * g - 2 * airmass * q) * part
    return _Sky(value, slope, bend)


CHI2 = Contract("chi2", SkyFits, chi2, first="observed", same_bits=False)
