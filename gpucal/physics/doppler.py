"""Doppler shifts along the line of sight: velocity conventions, and frames of rest.

Source: Greisen et al. 2006 (A&A 446, 747), sections 2 and 7. Velocities in m/s, positive receding.
"""

from __future__ import annotations

import math

LIGHT = 299792458.0
"""Speed of light, m/s."""

CONVENTIONS = ("RADI", "OPTI", "RELA")
"""First half of VELDEF in SDFITS; other names of the same: ``rest_frames``."""


def radio_velocity(frequency: float, rest_frequency: float) -> float:
    """Radio velocity c (1 - nu/nu_0), m/s, from a frequency in the wanted frame, Hz."""
    return LIGHT * (1.0 - frequency / rest_frequency)


def to_radio(velocity: float, convention: str) -> float:
    """Velocity in the radio convention, m/s.

    ``convention``: "RADI", "OPTI" (c (nu_0/nu - 1)) or "RELA", as the first half of VELDEF in SDFITS.
    Raises ValueError for another one.
    """
    if convention == "RADI":
        return velocity
    if convention == "OPTI":
        return velocity / (1.0 + velocity / LIGHT)
    if convention == "RELA":
        return LIGHT * (1.0 - doppler_factor(-velocity))
    raise ValueError(f"velocity convention {convention!r} is none of {', '.join(CONVENTIONS)}")


def doppler_factor(velocity: float) -> float:
    """nu_frame / nu_sky = sqrt((1 + b)/(1 - b)), b = velocity/c, for VFRAME of SDFITS; physics equation (11.5).

    VFRAME is the velocity of the frame of rest as seen from the telescope (Garwood 2000).
    """
    beta = velocity / LIGHT
    return math.sqrt((1.0 + beta) / (1.0 - beta))


def site_velocity(vframe: float) -> float:
    """The v of nu_frame = nu_sky (1 + v/c), m/s, from the relativistic VFRAME, m/s."""
    return LIGHT * (doppler_factor(vframe) - 1.0)


def vframe(site: float) -> float:
    """The relativistic VFRAME, m/s, from the v of nu_frame = nu_sky (1 + v/c), m/s."""
    square = (1.0 + site / LIGHT) ** 2
    return LIGHT * (square - 1.0) / (square + 1.0)


def frame_factor(site: float) -> float:
    """nu_frame / nu_sky for a site velocity in m/s; 1 where it is NaN, so that the axis stays topocentric."""
    return 1.0 if math.isnan(site) else 1.0 + site / LIGHT
