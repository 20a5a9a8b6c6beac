"""Small MBFITS scans of known counts: 6 channels, a few dumps of 1 s."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from builders.mbfits.files import DAY, Baseband, Febe, MbScan, Sub

START = 57000.25
"""MJD, UTC: TAI was 35 s ahead."""
AHEAD = 35.0
CHANNELS = 6
LEVEL = {"SKY": 400.0, "HOT": 900.0, "COLD": 500.0, "REF": 410.0, "ON": 430.0}
STEP_S = 20.0
"""From the begin of a subscan to that of the next."""
NAME = "HET345-XFFTS2"
BAND = "band_het345_xffts2_1"
POINTS: Sequence[tuple[str, Sequence[float], str]] = (
    ("TAMB_P_HUMID", (-3.0, 550.0, 12.0), "C;hPa;%"),
    (f"THOTCOLD_{NAME}_1", (290.0, 77.0), "K;K"),
)
AWAY = 0.2


def baseband(number: int = 1, **changes: Any) -> Baseband:
    """345.8 GHz at pixel 3.5, image 12 GHz below, 1 MHz wide channels."""
    values: dict[str, Any] = {
        "number": number,
        "channels": CHANNELS,
        "pixel": 3.5,
        "signal": 345.8e9,
        "image": 333.8e9,
        "step": 1e6,
    }
    return Baseband(**{**values, **changes})


def febe(**changes: Any) -> Febe:
    """A receiver of one pixel and one baseband."""
    values: dict[str, Any] = {"name": NAME, "bands": [baseband()]}
    return Febe(**{**values, **changes})


def spectra(level: float, dumps: int, feeds: int = 1) -> npt.NDArray[np.float64]:
    """Counts [dumps, feeds, channels]: level + channel + 20 feed + 0.25 dump."""
    d, f, c = np.ogrid[:dumps, :feeds, :CHANNELS]
    return np.asarray(level + c + 20.0 * f + 0.25 * d, dtype=np.float64)


def sub(
    number: int,
    kind: str,
    *,
    start: float = START,
    dumps: int = 3,
    feeds: int = 1,
    bands: Sequence[tuple[str, int]] = ((NAME, 1),),
    level: float | None = None,
    **changes: Any,
) -> Sub:
    """A subscan of the scan that begins at ``start``; references AWAY deg from the source."""
    begin = start + number * STEP_S / DAY
    middle = begin + (np.arange(dumps, dtype=np.float64) + 0.5) / DAY
    counts = spectra(LEVEL.get(kind, 400.0) if level is None else level, dumps, feeds)
    values: dict[str, Any] = {
        "lon": AWAY if kind == "REF" else 0.0,
        "el": 50.0,
        "points": POINTS,
    }
    data = dict.fromkeys(bands, counts)
    return Sub(number, kind, middle, 1.0, data, **{**values, **changes})


def scan(number: int, kind: str, subs: Sequence[Sub], **changes: Any) -> MbScan:
    """A scan of one receiver."""
    febes = changes.pop("febes", None) or [febe()]
    return MbScan(number, kind, febes, list(subs), **{"ahead": AHEAD, **changes})


def calibration(number: int = 4, *, start: float = START, **changes: Any) -> MbScan:
    """SKY, HOT, COLD."""
    given = changes.pop("sub", {})
    kinds = ("SKY", "HOT", "COLD")
    subs = [sub(n, k, start=start, **given) for n, k in enumerate(kinds, 1)]
    return scan(number, "CAL", subs, **changes)


def on_off(
    number: int = 5, *, start: float = START + 300 / DAY, order: str = "RSR", **changes: Any
) -> MbScan:
    """References (R) and the source (S)."""
    given = changes.pop("sub", {})
    subs = [
        sub(n, "REF" if letter == "R" else "ON", **{"start": start, **given})
        for n, letter in enumerate(order, 1)
    ]
    return scan(number, "ONOFF", subs, **changes)


def phased(number: int, phases: Sequence[int], levels: Sequence[float], **changes: Any) -> Sub:
    """A subscan whose dumps have the level of their phase (0: blank, -999)."""
    given = {"start": START + 300 / DAY, **changes}
    made = sub(number, given.pop("kind", "ON"), dumps=len(phases), level=0.0, **given)
    counts = np.array([spectra(levels[p - 1] if p else 7e9, 1)[0] for p in phases])
    made.phase = np.array([p or -999 for p in phases])
    made.data = dict.fromkeys(made.data, counts)
    return made
