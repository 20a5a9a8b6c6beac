"""Units that the columns of an SDFITS table state, and the numbers in the units of the GBT.

Source: the TUNIT keywords of the files of the GBT. Its TWARM states K and holds deg C for one receiver,
so what TWARM states is not believed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.errors import ImportFormatError
from gpucal.io.conventions.units import known_units, line_to

COUNT_UNITS = frozenset({"", "count", "counts", "ct", "adu"})

_UNIT_OF = {
    **dict.fromkeys(("EXPOSURE", "DURATION"), "s"),
    **dict.fromkeys(("CRVAL1", "CDELT1", "RESTFREQ", "BANDWID"), "Hz"),
    **dict.fromkeys(("ELEVATIO", "AZIMUTH", "CRVAL2", "CRVAL3", "FEEDXOFF", "FEEDEOFF"), "deg"),
    **dict.fromkeys(("SITELONG", "SITELAT"), "deg"),
    **dict.fromkeys(("TAMBIENT", "TCOLD"), "K"),
    "PRESSURE": "Torr",
    **dict.fromkeys(("VELOCITY", "VFRAME"), "m/s"),
    "SITEELEV": "m",
}
_LENGTHS = {
    "m/s": {"m/s": 1.0, "m s-1": 1.0, "km/s": 1e3, "km s-1": 1e3},
    "m": {"m": 1.0, "km": 1e3},
}


def in_our_unit(
    path: Path, name: str, stated: str | None, values: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """A column [N] in the unit of the GBT, converted from the one that it states.

    Raises ImportFormatError for a unit that is not known.
    """
    unit, given = _UNIT_OF.get(name), " ".join((stated or "").split())
    if unit is None or not given or values.dtype.kind not in "iuf":
        return values
    if unit in _LENGTHS:
        factor = _LENGTHS[unit].get(given.lower())
        line = None if factor is None else (factor, 1.0, 0.0)
        known = ", ".join(repr(text) for text in _LENGTHS[unit])
    else:
        line, known = line_to(unit, given) or line_to(unit, given.lower()), known_units(unit)
    if line is None:
        raise ImportFormatError(
            f"{path} has the column {name} in {given!r}, expected {known}.",
            hint="Correct the unit (TUNIT) of the column.",
        )
    factor, divisor, offset = line
    return values if line == (1.0, 1.0, 0.0) else values * factor / divisor + offset


def unit_of_spectra(
    hdu: Any, spectra: str, texts: Mapping[str, npt.NDArray[Any]]
) -> npt.NDArray[Any]:
    """The unit of the spectrum of each row [N], "" where none is given.

    The column may state it, or a keyword BUNIT, or a text column: GBT files have TUNIT7, and keep that
    name where the spectra are not the seventh column. Where one says counts and another something else, it
    is something else. texts: the text columns named by ``unit_columns``.
    """
    stated = [
        str(hdu.columns[spectra].unit or "").strip(),
        str(hdu.header.get("BUNIT", "")).strip(),
    ]
    n_rows = int(hdu.header["NAXIS2"])
    units = np.full(n_rows, next((u for u in stated if u.lower() not in COUNT_UNITS), ""), "U32")
    for values in texts.values():
        other = ~np.isin(np.char.lower(values), sorted(COUNT_UNITS))
        units[other] = values[other]
    return units


def unit_columns(hdu: Any) -> list[str]:
    """The text columns that hold the unit of the spectrum of each row."""
    return [
        column.name
        for column in hdu.columns
        if re.fullmatch(r"TUNIT\d+|BUNIT", column.name.upper()) and "A" in str(column.format)
    ]
