"""Units of the arrays of an L0 store, and what turns other ones into them.

Source: BIPM, The International System of Units, 9th edition; 1 Torr = 101325 / 760 Pa.
"""

from __future__ import annotations

import re

import numpy as np

from gpucal.io.conventions.coding import IDENTITY, Linear

_PA = (760.0, 101325.0)
_RAD = (np.pi, 180.0)

_SAME = {
    "count": "count counts ct cts adu ADU DN dn 1 V W a.u. arbitrary",
    "d": "d day days",
    "s": "s S sec secs second seconds",
    "rad": "rad rads radian radians",
    "deg": "deg degs degree degrees ° degree_north degrees_north degree_east degrees_east "
    "degree_N degrees_N degree_E degrees_E",
    "K": "K kelvin Kelvin kelvins KELVIN degK deg_K degree_K degrees_K",
    "Torr": "Torr torr TORR",
    "Hz": "Hz HZ hz hertz Hertz",
    "channel": "channel channels chan pixel pixels pix 1",
    "": "1 none dimensionless scan phase number",
}
"""Our unit -> other spellings of it."""

_OTHER: dict[str, dict[str, Linear]] = {
    "s": {
        "ms msec millisecond milliseconds": (1.0, 1e3, 0.0),
        "us µs μs usec microsecond microseconds": (1.0, 1e6, 0.0),
        "ns nanosecond nanoseconds": (1.0, 1e9, 0.0),
        "min mins minute minutes": (60.0, 1.0, 0.0),
        "h hr hrs hour hours": (3600.0, 1.0, 0.0),
        "d day days": (86400.0, 1.0, 0.0),
    },
    "rad": {
        "mrad milliradian": (1.0, 1e3, 0.0),
        "deg degs degree degrees °": (*_RAD, 0.0),
        "arcmin arcmins arcminute arcminutes arc_minute": (np.pi, 180.0 * 60, 0.0),
        "arcsec arcsecs arcsecond arcseconds arc_second as": (np.pi, 180.0 * 3600, 0.0),
        "mas milliarcsecond": (np.pi, 180.0 * 3600e3, 0.0),
    },
    "deg": {
        "rad rads radian radians": (180.0, np.pi, 0.0),
        "mrad milliradian": (180.0, np.pi * 1e3, 0.0),
        "arcmin arcmins arcminute arcminutes arc_minute": (1.0, 60.0, 0.0),
        "arcsec arcsecs arcsecond arcseconds arc_second as": (1.0, 3600.0, 0.0),
        "mas milliarcsecond": (1.0, 3600e3, 0.0),
    },
    "K": {
        "mK": (1.0, 1e3, 0.0),
        "degC deg_C C °C celsius Celsius degree_C degrees_C degree_Celsius degrees_Celsius "
        "degree_celsius degrees_celsius": (1.0, 1.0, 273.15),
        "degF deg_F F °F fahrenheit Fahrenheit degree_F degrees_F degree_Fahrenheit "
        "degrees_Fahrenheit": (5.0, 9.0, 459.67 * 5 / 9),
    },
    "Torr": {
        "Pa pascal pascals": (*_PA, 0.0),
        "hPa hectopascal mbar mb millibar millibars": (76000.0, 101325.0, 0.0),
        "kPa": (760e3, 101325.0, 0.0),
        "bar bars": (76e6, 101325.0, 0.0),
        "atm": (760.0, 1.0, 0.0),
        "mTorr": (1.0, 1e3, 0.0),
        "mmHg mm_Hg": (133.322387415 * 760, 101325.0, 0.0),
        "inHg in_Hg": (3386.389 * 760, 101325.0, 0.0),
    },
    "Hz": {
        "kHz KHz khz KHZ kilohertz": (1e3, 1.0, 0.0),
        "MHz MHZ megahertz": (1e6, 1.0, 0.0),
        "GHz GHZ ghz gigahertz": (1e9, 1.0, 0.0),
        "THz THZ thz terahertz": (1e12, 1.0, 0.0),
    },
}
"""Our unit -> other units, and the line from them to ours."""

_SCALED = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*\*?\s*(\D.*)")


def line_to(unit: str, given: str) -> Linear | None:
    """The line from numbers in the unit ``given`` to numbers in ``unit``, one of ours; None where unknown."""
    text = " ".join(given.split())
    if text == unit or text in _SAME[unit].split():
        return IDENTITY
    for names, line in _OTHER.get(unit, {}).items():
        if text in names.split():
            return line
    scaled = _SCALED.fullmatch(text)
    if scaled is None:
        return None
    line_of_one = line_to(unit, scaled[2])
    if line_of_one is None or line_of_one[2]:
        return None
    return float(scaled[1]) * line_of_one[0], line_of_one[1], 0.0


def known_units(unit: str) -> str:
    """Units that are understood for an array in ``unit``, for a message."""
    others = [names.split()[0] for names in _OTHER.get(unit, {})]
    return ", ".join([repr(unit), *(repr(name) for name in others)])
