"""Small IMBFITS files of known counts: 12 channels in two chunks, a few dumps of 1 s."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from builders.imbfits.files import DAY, NONSENSE, Night, Row, Sub, Tuned
from builders.imbfits.nights import with_traps

START = 57000.25
CHANNELS, USED = 12, 6
LEVEL = {"calSky": 400.0, "calAmbient": 900.0, "calCold": 500.0, "OFF": 410.0, "ON": 430.0}
STEP_S = 20.0
"""From the begin of a subscan to that of the next."""
BAND = "band_fts_1"


def rows(receiver: str = "E230", band: str = "E2HLI", pixel: int = 1, **changes: Any) -> list[Row]:
    """Two chunks of 8 channels, of which 6 are good, that join: IF 6200 MHz, 2 MHz wide channels."""
    made = []
    for k in range(2):
        values = {
            "part": 1,
            "refchan": 1 + 8 * k,
            "chans": 8,
            "dropped": 1,
            "used": USED,
            "receiver": receiver,
            "band": band,
            "reffreq": 6200.0 + 12.0 * k,
            "spacing": 2.0,
            "pixel": pixel,
        }
        made.append(Row(**{**values, **changes}))
    return made


def spectrum(level: float) -> npt.NDArray[np.float64]:
    """A row of DATA: the good channels have level + their number; the edges nonsense."""
    good = level + np.arange(CHANNELS)
    edge = np.array([NONSENSE])
    return np.concatenate([edge, good[:USED], edge, edge, good[USED:], edge])


def sub(
    number: int,
    kind: str,
    level: float,
    *,
    start: float = START,
    dumps: int = 3,
    place: Sequence[float] = (0.0, 0.0),
    speed: Sequence[float] = (0.0, 0.0),
    traps: bool = True,
    **changes: Any,
) -> Sub:
    """A subscan; place in arcsec in the middle, speed in arcsec/s; start: MJD of the scan."""
    begin = start + number * STEP_S / DAY
    middle = begin + (np.arange(dumps, dtype=np.float64) + 0.5) / DAY
    when = np.arange(begin - 3.2 / DAY, begin + (dumps + 3) / DAY, 0.5 / DAY)
    passed = (when - middle.mean()) * DAY
    lon, lat = ((x + v * passed) / 3600.0 for x, v in zip(place, speed, strict=True))
    trace = {
        "mjd": when,
        "lon": lon,
        "lat": lat,
        "az": np.full(len(when), 2.0),
        "el": np.full(len(when), 0.9),
    }
    data = np.tile(spectrum(level), (dumps, 1))
    made = Sub(number, kind, middle, 1.0, data, None, trace, **changes)
    return with_traps(made) if traps else made


def receiver(**columns: Any) -> Tuned:
    """E230 at 230.538 GHz, LSB."""
    return Tuned("E230", 230.538, "LSB", 6250.0, columns=columns)


def night(
    scan: int, obstype: str, subs: Sequence[Sub], *, tuned: Tuned | None = None, **changes: Any
) -> Night:
    """A file of one receiver and one PART."""
    lines = changes.pop("rows", None) or rows()
    return Night(scan, obstype, [tuned or receiver()], lines, list(subs), **changes)


def calibration(scan: int = 4, *, start: float = START, **changes: Any) -> Night:
    """SKY, AMBIENT, COLD."""
    kinds = ("calSky", "calAmbient", "calCold")
    subs = [sub(n, k, LEVEL[k], start=start) for n, k in enumerate(kinds, 1)]
    return night(scan, "calibrate", subs, **changes)


AWAY = (600.0, 0.0)


def on_off(
    scan: int = 5, *, start: float = START + 300 / DAY, order: str = "RSSR", **changes: Any
) -> Night:
    """References (R) 600 arcsec away, and the source (S)."""
    given = changes.pop("sub", {})
    subs = []
    for n, letter in enumerate(order, 1):
        level = LEVEL["OFF" if letter == "R" else "ON"]
        values = {"start": start, "place": AWAY if letter == "R" else (0.0, 0.0), **given}
        subs.append(sub(n, "track", level, **values))
    return night(scan, "onOff", subs, **changes)


def phased(
    number: int, kind: str, phases: Sequence[int], levels: Sequence[float], **changes: Any
) -> Sub:
    """A subscan of dumps in the given phases (0: bad), whose counts have the level of their phase."""
    made = sub(number, kind, 0.0, dumps=len(phases), traps=False, **changes)
    made.phase = np.array(phases)
    made.data = np.array([spectrum(levels[p - 1]) if p else spectrum(NONSENSE) for p in phases])
    return made
