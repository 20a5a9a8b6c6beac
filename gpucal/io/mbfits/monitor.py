"""Monitor points of a subscan: temperatures of the loads, the air, the water vapour.

A row of MONITOR-MBFITS has a name (MONPOINT), values of any number and their units, "K;K". Source:
docs/reference/mbfits.md, monitor points.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gpucal.io.fits.units import Unit
from gpucal.io.incoming.assumptions import Assumptions
from gpucal.io.mbfits.dataset import BLANK, Dataset, Key

KELVIN = 273.15
TORR_PER_HPA = 0.750062
TORR_PER = {
    "hpa": TORR_PER_HPA,
    "mbar": TORR_PER_HPA,
    "torr": 1.0,
    "mmhg": 1.0,
    "pa": 0.01 * TORR_PER_HPA,
}
LIKELY_LOAD = {"hot": (200.0, 450.0), "cold": (1.0, 350.0)}
WARMEST_C = 130.0
_UNITS = {
    **dict.fromkeys(("k", "kelvin"), "K"),
    **dict.fromkeys(("c", "degc", "deg c", "celsius"), "deg C"),
}
LIKELY_AIR = (180.0, 330.0)
LIKELY_PRESSURE = (100.0, 850.0)
"""Torr."""


@dataclass(frozen=True)
class Monitored:
    """The medians of the monitor points of one subscan: name -> values and units."""

    points: dict[str, tuple[tuple[float, ...], tuple[str, ...]]] = field(default_factory=dict)

    def value(self, pattern: str, place: int) -> tuple[float, str, str] | None:
        """(value, unit, name) of the first point whose name matches; None where there is none."""
        for name, (values, units) in self.points.items():
            if re.fullmatch(pattern, name) and place < len(values) and np.isfinite(values[place]):
                unit = units[place] if place < len(units) else ""
                return values[place], unit, name
        return None


def monitored(unit: Unit | None) -> Monitored:
    """The points of a subscan; ImportFormatError for a table that is damaged."""
    if unit is None or not unit.rows:
        return Monitored()
    names = [str(n).upper() for n in unit.column("MONPOINT").ravel()]
    values = unit.varying("MONVALUE")
    units = (
        [str(u[0]) if len(u) else "" for u in unit.varying("MONUNITS")]
        if unit.has("MONUNITS")
        else []
    )
    rows: dict[str, list[npt.NDArray[np.float64]]] = {}
    words: dict[str, str] = {}
    for k, name in enumerate(names):
        if values[k].dtype.kind not in "iuf":
            continue
        row = values[k].astype(np.float64)
        rows.setdefault(name, []).append(
            np.where((row == BLANK) | (np.abs(row) > 1e30), np.nan, row)
        )
        if units and units[k]:
            words.setdefault(name, units[k])
    found = {}
    for name, many in rows.items():
        width = max(len(r) for r in many)
        whole = np.array([r for r in many if len(r) == width])
        medians = tuple(_median(whole[:, i]) for i in range(width))
        found[name] = (medians, tuple(re.split(r"[;,]", words.get(name, ""))))
    return Monitored(found)


def _median(values: npt.NDArray[np.float64]) -> float:
    good = values[np.isfinite(values)]
    return float(np.median(good)) if good.size else float("nan")


@dataclass(frozen=True)
class Air:
    """Temperature of the air, K, pressure, Torr, and water vapour, mm; NaN where they are not known."""

    tamb: float
    pamb: float
    pwv: float


def air_of(points: Monitored, assumed: Assumptions) -> Air:
    """The air of a subscan: TAMB_P_HUMID, else points of single values."""
    tamb, pamb = float("nan"), float("nan")
    told = points.value("TAMB_P_HUMID", 0) or points.value(r"T_?AMB(IENT)?", 0)
    if told is not None:
        kelvin = _kelvin(told, LIKELY_AIR, "air", assumed)
        tamb = kelvin if kelvin is not None else tamb
    told = points.value("TAMB_P_HUMID", 1) or points.value(r"P(RESSURE|_?AMB)", 0)
    if told is not None:
        value, unit, name = told
        factor = TORR_PER.get(unit.strip().lower())
        if factor is None:
            factor = TORR_PER_HPA
            assumed.note(f"unit of {name}", "hPa", f"its unit is {unit or 'missing'}")
        low, high = LIKELY_PRESSURE
        pamb = value * factor if low <= value * factor <= high else pamb
    water = points.value("PWV", 0)
    pwv = water[0] if water is not None and 0.0 < water[0] < 50.0 else float("nan")
    return Air(tamb, pamb, pwv)


def load_temperature(
    points: Monitored, which: str, names: Sequence[str], assumed: Assumptions
) -> float:
    """K of the load "hot" or "cold" of a receiver, from THOTCOLD_<name> of the first of ``names`` that is there.

    Without one of them from a point of one value, THOT or TCOLD; that of another receiver is never taken.
    """
    place = 0 if which == "hot" else 1
    limits = LIKELY_LOAD[which]
    for name in names:
        told = points.value(f"THOTCOLD_{re.escape(name.upper())}", place)
        if told is not None and (kelvin := _kelvin(told, limits, which, assumed)) is not None:
            return kelvin
    told = points.value(rf"T_?{which.upper()}", 0)
    if told is not None and (kelvin := _kelvin(told, limits, which, assumed)) is not None:
        assumed.note(f"temperature of the {which} load", told[2], "told by its name")
        return kelvin
    return float("nan")


def names_for(dataset: Dataset, key: Key) -> list[str]:
    """What THOTCOLD_ may be followed by for a band: FEBE_BASEBAND, FEBE, frontend, cabin."""
    febe, baseband = key
    cabin = dataset.febes[febe].text("DEWCABIN")
    front = febe.split("-")[0]
    found = [f"{febe}_{baseband}", febe, f"{front}_{baseband}", front]
    if cabin:
        found += [cabin, re.split(r"[ _]", cabin)[-1]]
    return found


def _kelvin(
    told: tuple[float, str, str],
    limits: tuple[float, float],
    what: str,
    assumed: Assumptions,
) -> float | None:
    """A temperature in K by its unit, by its size where that is missing; None where it is out of range or in doubt."""
    value, unit, name = told
    low, high = limits
    fits = {
        "K": low <= value <= high,
        "deg C": low <= value + KELVIN <= high and value <= WARMEST_C,
    }
    chosen = _UNITS.get(unit.strip().lower().lstrip("°"))
    if chosen is None:
        possible = [u for u, good in fits.items() if good]
        if len(possible) != 1 or value == 0.0:
            return None
        chosen = possible[0]
        assumed.note(
            f"unit of {name} ({what})", chosen, f"it is {value:g}, its unit {unit or 'missing'}"
        )
    if not fits[chosen]:
        return None
    return value if chosen == "K" else value + KELVIN
