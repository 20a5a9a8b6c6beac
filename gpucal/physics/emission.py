"""Emission of a layered sky: its departure from that of one layer as warm as the ground; physics section 5.

J_em = J(nu, T_g) [(1 - t) - E], T_g being the temperature of the air at the ground. E is written with a few
coefficients per frequency (``COLUMNS``), the water P in mm and the airmass A. Nothing here reads a file.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from array_api_compat import array_namespace

Array = Any
F64 = npt.NDArray[np.float64]

COLUMNS = ("c_o3", "e_b", "e_q", "e_c", "e_o3")
"""Coefficients of E: the ozone's own opacity, then what the departure is made of."""

PIECES = 256
DEGREE = 5
HALFWAY = 8.0
"""g is kept as polynomials in pieces of x = y / (y + HALFWAY), good to 1e-14; see ``_polynomials``."""


class Departure(NamedTuple):
    """E, dE/dP (1/mm), the transmission t and dt/dP (1/mm); arrays of the shape of the coefficients."""

    value: Array
    slope: Array
    through: Array
    falls: Array


def lapse(y: Array) -> tuple[Array, Array]:
    """g(y) = exp(-y) (Ei(y) - ln y - gamma_Euler) / y and dg/dy; physics equations (5.18) and (5.19).

    y: slant opacity, at least 0, f64 of any shape and namespace. g(0) = 1, g'(0) = -3/4, and g goes as 1/y^2
    where it is large. Good to 1e-13.
    """
    xp = array_namespace(y)
    near, far = 1.0 / (y + 1.0), 1.0 / (y + HALFWAY)
    u = (y * far) * PIECES
    piece = xp.astype(xp.minimum(u, xp.full_like(u, PIECES - 1.0)), xp.int64)
    u -= xp.astype(piece, u.dtype)
    flat = xp.reshape(piece, (-1,))

    def coefficient(power: int) -> Array:
        return xp.reshape(xp.take(xp.asarray(_polynomials()[power]), flat), y.shape)

    value, slope = coefficient(DEGREE), xp.zeros_like(y)
    for power in range(DEGREE - 1, -1, -1):
        slope *= u
        slope += value
        value *= u
        value += coefficient(power)
    # g = value(u) / (1 + y)^2, and du/dy = PIECES HALFWAY / (y + HALFWAY)^2
    value *= near
    value *= near
    far *= near
    slope *= far
    slope *= far
    slope *= PIECES * HALFWAY
    slope -= 2.0 * value * near
    return value, slope


@cache
def _polynomials() -> F64:
    """Coefficients of (1 + y)^2 g in u = 0..1 across each piece of x: f64 [DEGREE + 1, PIECES]."""
    from numpy.polynomial import Polynomial, chebyshev

    n = DEGREE + 7
    at = np.cos(np.pi * (np.arange(n) + 0.5) / n)
    x = (np.arange(PIECES) + 0.5 * (at[:, None] + 1.0)) / PIECES
    y = HALFWAY * x / (1.0 - x)
    fitted = chebyshev.chebfit(at, lapse_by_series(y) * (1.0 + y) ** 2, DEGREE)
    from_middle = [Polynomial(chebyshev.cheb2poly(column)) for column in fitted.T]
    return np.stack([p(Polynomial([-1.0, 2.0])).coef for p in from_middle], axis=1)


def lapse_by_series(y: F64) -> F64:
    """g(y) from its series, f64 of any shape; slow, good to 1e-15.

    exp(-y) sum_n y^(n-1)/(n n!) has no terms of opposite sign; above 60 sum_k k!/y^(k+2) has converged.
    """
    y = np.asarray(y, dtype=np.float64)
    low, high = np.minimum(y, 60.0), np.maximum(y, 60.0)
    near, term = np.zeros(y.shape), np.exp(-low)
    for n in range(1, 260):
        near += term / n
        term = term * low / (n + 1)
    far, term = np.zeros(y.shape), high**-2.0
    for k in range(30):
        far += term
        term = term * (k + 1) / high
    return np.asarray(np.where(y < 60.0, near, far), dtype=np.float64)


def departure(
    opacity: Array, emission: Array, pwv: Array | float, airmass: Array | float
) -> Departure:
    """E, t and their slopes of points with these coefficients; physics equations (5.16) and (5.17).

    ``opacity`` f64 [3,..]: b, q, c, ozone included in c; ``emission`` f64 [5,..]: ``COLUMNS``. ``pwv`` (mm) and
    ``airmass`` broadcast against the axes behind the first. With tau_r the opacity without ozone,
    E = A (e_b P + e_q P^2 + e_c) g(A tau_r) + e_o3 exp(-A tau_r) (1 - exp(-A c_o3)).
    """
    xp = array_namespace(opacity)
    b, q, c = (opacity[i, ...] for i in range(3))
    c_o3, e_b, e_q, e_c, e_o3 = (emission[i, ...] for i in range(5))
    shade = -xp.expm1(-airmass * c_o3)
    # q P + b, then tau_r; in place, for this is the dearest part of a fit
    steep = q * pwv
    depth = steep + b
    depth *= pwv
    depth += c - c_o3
    depth = depth * airmass  # an airmass of each pixel makes it wider
    steep += steep
    steep += b
    steep = steep * -airmass
    value, slope = lapse(depth)
    depth *= -1.0
    through = xp.exp(depth)
    below = ((e_b + e_q * pwv) * pwv + e_c) * airmass
    above = (e_o3 * shade) * through
    slope *= below
    slope -= above
    slope *= -steep
    slope += value * ((e_b + e_q * (2.0 * pwv)) * airmass)
    value *= below
    value += above
    through *= 1.0 - shade
    steep *= through
    return Departure(value, slope, through, steep)
