"""Where the telescope pointed in a subscan: the slow trace of IMBF-antenna, interpolated on the dumps by time.

The fast trace (128 samples a row) is of other moments, about 2 s apart, and is not read. Source:
docs/reference/imbfits.md, pointing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpucal.errors import ImportFormatError
from gpucal.io.fits.units import Unit, mjd_of
from gpucal.io.imbfits.file import ImbFile, SubscanTables
from gpucal.io.incoming.assumptions import Assumptions

F64 = npt.NDArray[np.float64]
DAY_S = 86400.0
LONGEST_GAP_S = 5.0
"""A dump between samples further apart has no position."""
LOADS_NEAR_S = 60.0
"""How far from the trace the elevation of a load may be taken."""
COS_IN_OFFSETS = "2009-11-10"
"""From this day on horizontal offsets in longitude are true angles."""
HORIZONTAL = ("horizontaltrue", "horizontal")
_COLUMNS = {"lon": "LONGOFF", "lat": "LATOFF", "azimuth": "CAZIMUTH", "elevation": "CELEVATIO"}


@dataclass(frozen=True, eq=False)
class Trace:
    """The samples [N] of a subscan in order of time: MJD; lon, lat (deg, true angles), azimuth, elevation (rad).

    system: SYSTEMOF; kind: SUBSTYPE; focus: (axis, mm) or None; doppler: nu_sky / nu_rest, NaN where it is not told
    """

    mjd: F64
    values: dict[str, F64]
    system: str
    kind: str
    doppler: float
    focus: tuple[str, float] | None

    @property
    def horizontal(self) -> bool:
        """Whether the offsets are along azimuth and elevation."""
        return self.system.lower() in HORIZONTAL

    def at(self, mjd: F64) -> dict[str, F64]:
        """All values at times [D], linear in time; the nearest sample's outside."""
        found = {name: np.interp(mjd, self.mjd, v) for name, v in self.values.items()}
        turns = np.unwrap(self.values["azimuth"])
        return found | {"azimuth": np.interp(mjd, self.mjd, turns) % (2 * np.pi)}

    def covers(self, mjd: F64) -> npt.NDArray[np.bool_]:
        """Which times [D] lie between samples at most LONGEST_GAP_S apart."""
        if self.mjd.size < 2:
            return np.asarray(np.abs(mjd - self.mjd[0]) * DAY_S < 0.5)
        right = np.clip(np.searchsorted(self.mjd, mjd), 1, self.mjd.size - 1)
        near = (self.mjd[right] - self.mjd[right - 1]) * DAY_S <= LONGEST_GAP_S
        inside = (mjd >= self.mjd[0] - 1e-9) & (mjd <= self.mjd[-1] + 1e-9)
        return np.asarray(inside & near)

    def near(self, mjd: F64) -> npt.NDArray[np.bool_]:
        """Which times [D] are close enough to the trace for a load."""
        reach = LOADS_NEAR_S / DAY_S
        return np.asarray((mjd >= self.mjd[0] - reach) & (mjd <= self.mjd[-1] + reach))


def trace_of(file: ImbFile, tables: SubscanTables, shift_s: float, assumed: Assumptions) -> Trace:
    """The trace of a subscan, its times shifted by ``shift_s``; ImportFormatError where it cannot be used."""
    unit = tables.antenna
    if unit is None:
        raise ImportFormatError(
            f"{file.path} has no IMBF-antenna of subscan {tables.number}, expected where the telescope pointed.",
            subscan=tables.number,
        )
    mjd = unit.numbers("MJD")
    values = {name: unit.numbers(column) for name, column in _COLUMNS.items()}
    good = np.isfinite(mjd) & (mjd > 0)
    for v in values.values():
        good &= np.isfinite(v)
    if not good.any():
        raise ImportFormatError(
            f"{unit.place} holds no sample of the {unit.rows} that could be used (MJD, "
            f"{', '.join(_COLUMNS.values())}).",
            subscan=tables.number,
        )
    mjd, values = mjd[good], {n: v[good] for n, v in values.items()}
    order = np.argsort(mjd, kind="stable")
    fresh = np.diff(mjd[order], prepend=-np.inf) > 0
    order = order[fresh]
    mjd, values = mjd[order], {n: v[order] for n, v in values.items()}
    _check(unit, tables, values)
    system = unit.text("SYSTEMOF")
    offsets = _offsets(file, unit, system, values, assumed)
    return Trace(
        mjd + shift_s / DAY_S,
        values | offsets,
        system,
        _kind(unit, tables),
        unit.number("DOPPLERC", np.nan),
        _focus(unit),
    )


def _check(unit: Unit, tables: SubscanTables, values: dict[str, F64]) -> None:
    """Raise ImportFormatError for angles that cannot be in radians."""
    limits = {"lon": 1.0, "lat": 1.0, "azimuth": 4 * np.pi, "elevation": np.pi / 2 + 0.01}
    for name, limit in limits.items():
        worst = float(np.abs(values[name]).max())
        if worst > limit:
            raise ImportFormatError(
                f"{unit.place}: {_COLUMNS[name]} is {worst:g}, expected radians of at most {limit:.4g}; it looks like "
                "degrees or arcsec.",
                subscan=tables.number,
            )


def _offsets(
    file: ImbFile, unit: Unit, system: str, values: dict[str, F64], assumed: Assumptions
) -> dict[str, F64]:
    """LONGOFF, LATOFF in deg, with the offset of the projection added to those of the projection."""
    lon, lat = np.rad2deg(values["lon"]), np.rad2deg(values["lat"])
    if system.lower() in HORIZONTAL:
        if file.day < COS_IN_OFFSETS:
            lon = lon * np.cos(values["elevation"])
            assumed.note(
                "LONGOFF of horizontalTrue",
                "times the cosine of the elevation",
                f"it was observed before {COS_IN_OFFSETS}",
            )
        return {"lon": lon, "lat": lat}
    x, y = _projection(file)
    if x or y:
        why = "whether LONGOFF holds the offset of the table IMBF-scan was inferred"
        if assumed.take("projection_offset", "add", why) == "add":
            lon, lat = lon + np.rad2deg(x), lat + np.rad2deg(y)
    return {"lon": lon, "lat": lat}


def _projection(file: ImbFile) -> tuple[float, float]:
    """Offset of the projection, rad; (0, 0) where the table IMBF-scan has none, as in version 1."""
    unit = file.scan
    if unit.has("SYSOFF") is None or not unit.rows:
        return 0.0, 0.0
    systems = [str(s).lower() for s in unit.column("SYSOFF").ravel()]
    if "projection" not in systems:
        return 0.0, 0.0
    k = systems.index("projection")
    return float(unit.numbers("XOFFSET")[k]), float(unit.numbers("YOFFSET")[k])


def _kind(unit: Unit, tables: SubscanTables) -> str:
    kind = unit.text("SUBSTYPE")
    if not kind and tables.data is not None:
        kind = tables.data.text("SUBSTYPE")
    if not kind:
        raise ImportFormatError(
            f"{unit.place} has no SUBSTYPE, expected what the subscan is.", subscan=tables.number
        )
    return kind


def _focus(unit: Unit) -> tuple[str, float] | None:
    axis = unit.text("FOTRANSL").lower()
    if axis not in ("x", "y", "z"):
        return None
    return axis, unit.number("FOOFFSET")


def limits_of(tables: SubscanTables) -> tuple[float, float]:
    """MJD between which a subscan was on its source: DATE-OBS and DATE-END of its tables; infinite where they lack."""
    found: list[float] = []
    for keyword, otherwise in (("DATE-OBS", -np.inf), ("DATE-END", np.inf)):
        value: float = otherwise
        for unit in (tables.data, tables.antenna):
            if unit is not None and unit.text(keyword):
                value = mjd_of(unit.text(keyword), unit, keyword)
                break
        found.append(value)
    begin, end = found
    if not begin < end:
        named = tables.data or tables.antenna
        assert named is not None
        raise ImportFormatError(
            f"{named.place} ends ({named.text('DATE-END')}) before it begins ({named.text('DATE-OBS')}).",
            subscan=tables.number,
        )
    return begin, end
