"""Choice of the atmosphere for a scan; nothing else decides it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpucal.config import CalibrationConfig, as_config
from gpucal.errors import TableError
from gpucal.io.atmosphere.tables import load_table
from gpucal.physics.atm import AtmosphereTable

ALTITUDE_MATCH_M = 400.0
LATITUDE_MATCH_DEG = 15.0


@dataclass(frozen=True)
class _Place:
    """The site to which a packaged table belongs. ``names`` match the start of a telescope's name, lower case without
    anything but letters and digits; ``latitude`` is None for a telescope that moves."""

    names: tuple[str, ...]
    alt_m: float
    latitude: float | None


_PLACES = {
    "iram_30m": _Place(("iram30m", "30m", "30meter", "iram30", "picoveleta"), 2850.0, 37.07),
    "chile_5600m": _Place(("ccat", "fyst"), 5600.0, -22.99),
    "sofia_great": _Place(("sofia",), 12500.0, None),
}


def atmosphere_for(
    config: CalibrationConfig | Mapping[str, Any] | str | Path | None,
    store_attrs: Mapping[str, Any],
) -> AtmosphereTable | None:
    """The table with which scans of a store are calibrated; None: none, the opacity is ``config.tau``.

    ``config.atmosphere`` "none", or "auto" with ``tau`` given: None. "auto": the packaged table of the
    site in the store's root attributes. Otherwise the table of that name or path. Missing entries of a
    table are a GpucalWarning. config: as in ``calibrate_store``. Raises ConfigError for a wrong option,
    TableError when no table fits or the table cannot be read.
    """
    config = as_config(config)
    choice = config.atmosphere
    if choice == "none" or (choice == "auto" and config.tau is not None):
        return None
    return load_table(site_table(store_attrs) if choice == "auto" else choice)


def site_table(store_attrs: Mapping[str, Any]) -> str:
    """Name of the packaged table for a store, from its root attributes telescope and site.

    A telescope whose name is known gets its table unless the site's altitude is more than 400 m away;
    otherwise the site (alt_m, and lat_deg where given) chooses the nearest table within 400 m of
    altitude and 15 deg of |latitude|. Raises TableError when none fits.
    """
    telescope = str(store_attrs.get("telescope") or "")
    site = store_attrs.get("site")
    site = site if isinstance(site, Mapping) else {}
    altitude, latitude = _number(site.get("alt_m")), _number(site.get("lat_deg"))
    plain = re.sub(r"[^a-z0-9]", "", telescope.lower())
    for name, place in _PLACES.items():
        named = any(plain.startswith(known) for known in place.names)
        # an aircraft's "site" is its airport or its flight level: the name decides
        near = place.latitude is None or altitude is None
        if named and (near or abs(float(altitude or 0) - place.alt_m) <= ALTITUDE_MATCH_M):
            return name
    fits = []
    for name, place in _PLACES.items():
        if altitude is None or abs(altitude - place.alt_m) > ALTITUDE_MATCH_M:
            continue
        away = 0.0
        if latitude is not None and place.latitude is not None:
            away = abs(abs(latitude) - abs(place.latitude))
        if away <= LATITUDE_MATCH_DEG:
            fits.append((abs(altitude - place.alt_m), name))
    if fits:
        return min(fits)[1]
    where = f"altitude {altitude:g} m" if altitude is not None else "no altitude"
    raise TableError(
        f"no packaged atmosphere table fits telescope {telescope or 'without a name'} ({where}): "
        + "; ".join(f"{name} is for {place.alt_m:g} m" for name, place in _PLACES.items())
        + ".",
        hint="Choose one, or a table of your own, with --atmosphere.",
    )


def _number(value: Any) -> float | None:
    """A finite number, else None: attributes of a store may hold anything."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None
