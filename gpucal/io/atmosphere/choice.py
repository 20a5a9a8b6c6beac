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
from gpucal.io.atmosphere.tables import load_table, packaged_tables, table_digest
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


BESIDE = ".atm.npz"
"""Ending of a table that belongs to a store: night.zarr has night.zarr.atm.npz beside it."""


def atmosphere_for(
    config: CalibrationConfig | Mapping[str, Any] | str | Path | None,
    store_attrs: Mapping[str, Any],
    store_path: str | Path = "",
) -> AtmosphereTable | None:
    """The table with which scans of a store are calibrated; None: none, the opacity is ``config.tau``.

    ``config.atmosphere`` "none", or "auto" with ``tau`` given: None. "auto": the table beside the store
    (``store_path`` + ".atm.npz"), else the packaged one of the site in the store's root attributes. Otherwise
    the table of that name or path. Missing entries of a table are a GpucalWarning. config: as in
    ``calibrate_store``. Raises ConfigError for a wrong option, TableError when no table fits or the table
    cannot be read.
    """
    config = as_config(config)
    choice = config.atmosphere
    if choice == "none" or (choice == "auto" and config.tau is not None):
        return None
    if choice != "auto":
        return load_table(choice)
    return load_table(table_beside(store_path) or site_table(store_attrs))


def table_beside(store_path: str | Path) -> Path | None:
    """The table that lies beside a store of this path; None where there is none."""
    path = Path(store_path)
    if not path.name or "://" in str(store_path):
        return None
    beside = path.with_name(path.name + BESIDE)
    return beside if beside.is_file() else None


def atmosphere_text(table: AtmosphereTable | None, config: CalibrationConfig) -> str:
    """In words what the sky came from: "table iram_30m (sha256 0123456789ab), layered sky" or "no table, tau 0.1".

    A sky of one temperature is called isothermal, with the reason.
    """
    if table is None:
        return _without_table(config.tau)
    named = _named(table_title(table), table.sha256)
    return named + _sky_text(table.layered, config.one_temperature)


def recorded_atmosphere(attrs: Mapping[str, Any]) -> tuple[str, str]:
    """What the sky of a band of L1 came from, as ``atmosphere_text``, and a sentence if its table is gone.

    attrs: of the band, with ``provenance`` and ``config``. The table is known by its content: another file of that
    name is not it, and a packaged table may lie elsewhere.
    """
    recorded = (attrs.get("provenance") or {}).get("atmosphere_table")
    options = attrs.get("config") or {}
    if not isinstance(recorded, Mapping):
        return _without_table(_number(options.get("tau"))), ""
    known = {k: v for k, v in options.items() if k in ("t_atm", "t_atm_factor", "t_atm_offset")}
    sky = _sky_text(recorded.get("layered") is True, CalibrationConfig(**known).one_temperature)
    name, digest = str(recorded.get("name", "")), str(recorded.get("sha256", ""))
    packaged = packaged_tables()
    for path in (packaged.get(Path(name).stem), Path(name)):
        if path is not None and path.exists() and table_digest(path) == digest:
            title = path.stem if path in packaged.values() else name
            return _named(title, digest) + sky, ""
    text = _named(name, digest)
    state = "has changed since" if Path(name).exists() else "cannot be found"
    return text + sky, (
        f"the atmosphere {text} with which this store was calibrated {state}: the numbers are those of the "
        "calibration; from the raw counts others may come."
    )


def _sky_text(layered: bool, one_temperature: bool) -> str:
    if not layered:
        return ", isothermal sky (the table has no emission columns)"
    return ", isothermal sky (T_atm was given)" if one_temperature else ", layered sky"


def _without_table(tau: float | None) -> str:
    return f"no table, tau {tau or 0.0:g}"


def _named(name: str, digest: str) -> str:
    return f"table {name} (sha256 {digest[:12]})"


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
        hint="Give the opacity at the zenith, for instance --tau 0.1, or choose a table, your own or one of "
        "these, with --atmosphere.",
    )


def table_title(table: AtmosphereTable | None) -> str:
    """How a table is named in messages: a packaged one by its name, others by their path, "" for none."""
    if table is None:
        return ""
    for name, path in packaged_tables().items():
        if str(path) == table.path:
            return name
    return table.name


def _number(value: Any) -> float | None:
    """A finite number, else None: attributes of a store may hold anything."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None
