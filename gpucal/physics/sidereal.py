"""Sidereal time, for headers."""

from __future__ import annotations

DAY_S = 86400.0


def local_sidereal_time(mjd: float, lon_deg: float) -> float:
    """Local mean sidereal time in s, 0..86400, at an east longitude; NaN stays NaN.

    The expression of IAU 1982 with UTC for UT1: good to 1 s. Source: Aoki et al. 1982 (A&A 105, 359).
    """
    days = mjd - 51544.5
    century = days / 36525.0
    turn = 280.46061837 + 360.98564736629 * days + 3.87933e-4 * century**2
    return (turn + lon_deg) % 360.0 / 360.0 * DAY_S
