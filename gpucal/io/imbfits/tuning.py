"""The receivers of an IMBFITS file: a row of IMBF-frontend for each, with units and columns that are in doubt settled.

Temperatures in K, frequencies in Hz. Source: docs/reference/imbfits.md, the receivers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from gpucal.errors import ImportFormatError
from gpucal.io.fits.units import Unit
from gpucal.io.imbfits.file import ImbFile
from gpucal.io.incoming.assumptions import Assumptions

KELVIN = 273.15
F_EFF_LIKELY = (0.8, 1.0)
REST_GHZ = (40.0, 1500.0)
IF_MHZ = (50.0, 30000.0)
CELSIUS_ROOM = (-40.0, 60.0)
LOAD_K = {"t_hot": (200.0, 400.0), "t_cold": (3.0, 299.0)}


@dataclass(frozen=True)
class Tuning:
    """One receiver of a scan.

    name RECNAME; line; rest Hz; side +1 (USB), -1 (LSB), 0 not known; if_centre Hz, with its sign; f_eff, gain_image,
    t_hot, t_cold (K): None or NaN where they are not known; throws Hz of the phases 1 and 2
    """

    name: str
    line: str
    rest: float
    side: int
    if_centre: float
    f_eff: float | None
    gain_image: float | None
    t_hot: float
    t_cold: float
    throws: tuple[float, float]


def tunings_of(file: ImbFile, assumed: Assumptions) -> list[Tuning]:
    """The receivers in the order of the table; raises ImportFormatError where one cannot be right."""
    unit = file.frontend
    if not unit.rows:
        raise ImportFormatError(f"{unit.place} has no row, expected one for each receiver.")
    rows = _rows(unit)
    return [_tuning(file, row, assumed) for row in rows]


def _rows(unit: Unit) -> list[dict[str, Any]]:
    """The rows as dictionaries; the columns without which nothing can be done must be there."""
    for name in ("RECNAME", "RESTFREQ", "IFCENTER"):
        unit.column(name)
    columns: dict[str, list[Any]] = {}
    for name in unit.columns:
        form = unit.dtype[name]
        if form.shape == () and form.kind in "iuf":
            columns[name] = unit.decimals(name).tolist()
        elif form.shape == () and form.kind == "S":
            columns[name] = unit.column(name).tolist()
    return [{name: values[k] for name, values in columns.items()} for k in range(unit.rows)]


def _tuning(file: ImbFile, row: dict[str, Any], assumed: Assumptions) -> Tuning:
    name = str(row["RECNAME"])
    rest = float(row["RESTFREQ"])
    if not REST_GHZ[0] <= rest <= REST_GHZ[1]:
        raise ImportFormatError(
            f"{file.frontend.place}: RESTFREQ of {name} is {rest:g}, expected {REST_GHZ[0]:g}..{REST_GHZ[1]:g} GHz.",
        )
    flips = _truth(row.get("IFFLIPS", 0))
    sign = -1.0 if flips else 1.0
    if flips:
        assumed.note(
            f"IFFLIPS of {name}",
            "IFCENTER and FRQOFF change their sign",
            "how the table means it was inferred",
        )
    throws = tuple(sign * _throw(file, row, n, assumed) for n in ("FRQOFF1", "FRQOFF2"))
    return Tuning(
        name,
        str(row.get("LINENAME", "")),
        rest * 1e9,
        _side(row, name, assumed),
        sign * _if_centre(file, float(row["IFCENTER"]), name, assumed),
        _f_eff(row, name, assumed),
        _gain_image(row, name, assumed),
        _load(file, row, "t_hot", name, assumed),
        _load(file, row, "t_cold", name, assumed),
        (throws[0], throws[1]),
    )


def _truth(value: Any) -> bool:
    """Whether a flag is set: a number, or T of a FITS logical."""
    if isinstance(value, str):
        return value.upper() in ("T", "TRUE", "Y", "1")
    return bool(value)


def _if_centre(file: ImbFile, value: float, name: str, assumed: Assumptions) -> float:
    """IFCENTER, Hz: in MHz, or in GHz where the number is too small for that."""
    mhz = value if abs(value) >= IF_MHZ[0] else 1e3 * value
    if not IF_MHZ[0] <= abs(mhz) <= IF_MHZ[1]:
        raise ImportFormatError(
            f"{file.frontend.place}: IFCENTER of {name} is {value:g}, expected an intermediate frequency in MHz or GHz."
        )
    unit = "MHz" if mhz == value else "GHz"
    assumed.note(f"unit of IFCENTER of {name}", unit, "the table has no units; by its size")
    return mhz * 1e6


def _throw(file: ImbFile, row: dict[str, Any], column: str, assumed: Assumptions) -> float:
    """FRQOFF, Hz; 0 where the column is missing."""
    value = float(row.get(column, 0.0))
    if not math.isfinite(value) or value == 0.0:
        return 0.0
    likely = "MHz" if abs(value) > 1.0 else "GHz"
    unit = assumed.take("frqoff_unit", likely, "the table has no units; by the size of FRQOFF")
    sign = assumed.take("frqoff_sign", 1, "whether FRQOFF is a shift of the sky or against it")
    return float(sign) * value * (1e6 if unit == "MHz" else 1e9)


def _side(row: dict[str, Any], name: str, assumed: Assumptions) -> int:
    """+1 for USB, -1 for LSB, 0 where neither the table nor a profile says it."""
    words = {"U": 1, "USB": 1, "L": -1, "LSB": -1}
    told = words.get(str(row.get("SIDEBAND", "")).upper(), 0)
    if told:
        return told
    given = assumed.set_or_noted(
        "sideband", "that of the chunks", "no SIDEBAND in the table", receiver=name
    )
    return words.get(str(given), 0)


def _f_eff(row: dict[str, Any], name: str, assumed: Assumptions) -> float | None:
    """The forward efficiency: the larger of ETAFSS and BEAMEFF where that is 0.8..1; None where it is not."""
    there = {n: float(row[n]) for n in ("ETAFSS", "BEAMEFF") if n in row}
    good = {n: v for n, v in there.items() if F_EFF_LIKELY[0] <= v <= F_EFF_LIKELY[1]}
    said = ", ".join(f"{n} {v:.4g}" for n, v in there.items()) or "no efficiency in the table"
    if good:
        which = max(good, key=lambda n: good[n])
        why = f"the larger of {said}; that {which} is the forward efficiency was inferred"
        return float(assumed.take("f_eff", good[which], why, receiver=name))
    given = assumed.set_or_noted("f_eff", "not known", said, receiver=name)
    return None if given is None else float(given)


def _gain_image(row: dict[str, Any], name: str, assumed: Assumptions) -> float | None:
    """Gain of the image sideband over that of the signal; None where the table does not have it."""
    value = float(row.get("GAINIMAG", math.nan))
    if math.isfinite(value) and 0.0 <= value <= 2.0:
        why = "GAINIMAG, taken for the ratio image/signal"
        return float(assumed.take("gain_image", value, why, receiver=name))
    said = "no GAINIMAG in the table" if math.isnan(value) else f"GAINIMAG is {value:g}"
    given = assumed.set_or_noted("gain_image", "not known", said, receiver=name)
    return None if given is None else float(given)


def _load(file: ImbFile, row: dict[str, Any], key: str, name: str, assumed: Assumptions) -> float:
    """Temperature of a load, K: that of the receiver, else for the hot one that of the scan; NaN where it is not known.

    A hot load of -40..60 is in deg C.
    """
    column = {"t_hot": "THOT", "t_cold": "TCOLD"}[key]
    places = [("IMBF-frontend", float(row.get(column, math.nan)))]
    if key == "t_hot":
        places.append(("IMBF-scan", file.scan.number("THOT", math.nan)))
    lo, hi = LOAD_K[key]
    for where, value in places:
        celsius = key == "t_hot" and value != 0.0 and CELSIUS_ROOM[0] <= value <= CELSIUS_ROOM[1]
        kelvin = value + KELVIN if celsius else value
        if lo <= kelvin <= hi:
            why = f"{column} of {where}" + (", in deg C by its size" if celsius else "")
            return float(assumed.take(key, kelvin, why, receiver=name))
    said = ", ".join(f"{column} of {where} is {value:g}" for where, value in places)
    given = assumed.set_or_noted(key, "not known", said, receiver=name)
    return math.nan if given is None else float(given)
