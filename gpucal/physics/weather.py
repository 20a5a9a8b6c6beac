"""An atmosphere table in the weather of a scan: temperature and pressure of the air at the ground; section 5."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from gpucal.physics.atm import SLOPED, AtmosphereTable

WARMEST_K = 30.0
"""So far from the profile of the table the power laws were not looked at: they stop there."""

PRESSURE_MATCH = 0.1
"""A pressure that is further off is not the weather: another altitude, another unit, reduced to sea level."""


def in_weather(
    table: AtmosphereTable, ground_k: float, pressure_hpa: float = math.nan
) -> AtmosphereTable:
    """The table for air of ``ground_k`` (K) and ``pressure_hpa`` at the ground; NaN: that of its profile.

    Each column of SLOPED goes as (T/T_table)^n, n being the table's slopes; dry air goes as p^2 besides. Equations
    (5.21) and (5.22). A table without slopes, or that does not say its own temperature and pressure, stays as it is.
    """
    own_k, own_hpa = (_number(table.attrs.get(k)) for k in ("t_ground_k", "pressure_hpa"))
    changed: dict[str, Any] = {}
    if table.slopes is None or table.slope_freq_hz is None:
        return table
    if math.isfinite(ground_k) and own_k > 0:
        warmer = min(max(ground_k - own_k, -WARMEST_K), WARMEST_K)
        ratio = math.log1p(warmer / own_k)
        for name, slope in zip(SLOPED, table.slopes, strict=True):
            if (column := getattr(table, name)) is not None:
                here = np.interp(table.freq_hz, table.slope_freq_hz, slope)
                changed[name] = column * np.exp(here * ratio)
    if own_hpa > 0 and abs(pressure_hpa / own_hpa - 1.0) <= PRESSURE_MATCH:
        squeeze = (pressure_hpa / own_hpa) ** 2
        for name in ("c_dry", "e_c"):
            if (column := changed.get(name, getattr(table, name))) is not None:
                changed[name] = column * squeeze
    return replace(table, **changed)


def _number(value: object) -> float:
    """A number of the attributes; NaN where there is none."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan
