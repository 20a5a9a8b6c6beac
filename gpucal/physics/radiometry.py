"""Radiation temperatures, sideband gains, airmass; physics sections 2, 3 and 5.

All functions work on any array-API namespace; arrays are float64.
"""

from __future__ import annotations

import math
from typing import Any

from array_api_compat import array_namespace

H_OVER_K = 4.799243073366221e-11
"""h/k in K/Hz from the exact SI constants."""

H_OVER_K_KALIBRATE = 0.047995e-9
"""h/k in K/Hz as the legacy program kalibrate rounds it."""

T_BACKGROUND = 2.725
"""Temperature of the cosmic background, K (Fixsen 2009)."""

Array = Any


def h_over_k(physics: str) -> float:
    """h/k in K/Hz for the option ``physics`` ("exact" or "kalibrate")."""
    return H_OVER_K_KALIBRATE if physics == "kalibrate" else H_OVER_K


def radiation_temperature(
    freq_hz: Array, temperature_k: Array | float, *, hk: float = H_OVER_K
) -> Array:
    """Rayleigh-Jeans equivalent temperature J(nu, T), K; physics equation (2.1).

    J = (h nu/k) / (exp(h nu/kT) - 1), Ulich & Haas 1976. ``freq_hz`` f64, any shape, Hz;
    ``temperature_k`` broadcasts against it, K. Raises ValueError for T <= 0.
    """
    xp = array_namespace(freq_hz)
    t = xp.asarray(temperature_k, dtype=xp.float64)
    if not bool(xp.all(t > 0)):
        raise ValueError("J(nu, T) needs T > 0 K")
    x = hk * freq_hz
    return x / xp.expm1(x / t)


def sideband_gains(gain_image: Array | float, xp: Any) -> tuple[Array, Array]:
    """Normalised gains g_s = 1/(1+r), g_i = r/(1+r) from r = g_i/g_s; physics equation (3.1).

    ``gain_image`` scalar, [R,A] or [C,R,A]. Raises ValueError when it is negative or not finite.
    """
    r = xp.asarray(gain_image, dtype=xp.float64)
    if not bool(xp.all(xp.isfinite(r))) or not bool(xp.all(r >= 0)):
        raise ValueError("gain_image must be finite and not negative")
    return 1.0 / (1.0 + r), r / (1.0 + r)


def airmass(elevation_rad: Array, kind: str = "plane") -> Array:
    """Airmass at an elevation (rad): "plane" 1/sin(el), "spherical" or "gbt"; physics equations (5.5) to (5.7).

    Spherical: the polynomial of Rohlfs & Wilson, Tools of Radio Astronomy, in sec(z):
    X = -0.0045 + 1.00672 s - 0.002234 s^2 - 0.0006247 s^3. GBT: A = -0.0234 + 1.014/sin(e + 5.18
    deg/(e/deg + 3.35)), the formula of its calibration programs (Maddalena).
    """
    xp = array_namespace(elevation_rad)
    if kind == "gbt":
        degrees = elevation_rad * (180.0 / math.pi)
        raised = degrees + 5.18 / (degrees + 3.35)
        return -0.0234 + 1.014 / xp.sin(raised * (math.pi / 180.0))
    s = 1.0 / xp.sin(elevation_rad)
    if kind == "plane":
        return s
    return -0.0045 + s * (1.00672 + s * (-0.002234 - 0.0006247 * s))
