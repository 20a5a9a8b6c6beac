"""Times of other conventions as MJD: epochs in the units, Julian dates, datetime64, ISO 8601.

Source: CF conventions 1.11, section 4.4. MJD = JD - 2400000.5, day 0 is 1858-11-17.
"""

from __future__ import annotations

import datetime
import re
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.io.conventions.coding import IDENTITY, Linear

Array = npt.NDArray[Any]

_DAY_ZERO = datetime.date(1858, 11, 17).toordinal()
_PER_DAY = {
    "d day days": 1.0,
    "h hr hrs hour hours": 24.0,
    "min mins minute minutes": 1440.0,
    "s sec secs second seconds": 86400.0,
    "ms msec millisecond milliseconds": 86400e3,
    "us µs usec microsecond microseconds": 86400e6,
    "ns nanosecond nanoseconds": 86400e9,
}
_MJD = ("mjd", "mjd (utc)", "mjd utc", "mjd(utc)", "modified julian date", "modified julian day")
_JD = ("jd", "jd (utc)", "jd(utc)", "julian date", "julian day", "julian days")
_CALENDARS = ("standard", "gregorian", "proleptic_gregorian")
_EPOCH = re.compile(
    r"(\d{4})-(\d{1,2})-(\d{1,2})(?:[T ]\s*(\d{1,2}):(\d{1,2})(?::(\d{1,2}(?:\.\d*)?))?)?"
    r"\s*(Z|UTC|GMT|[+-]\d{1,2}(?::?\d{2})?)?"
)
_ISO = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)?(?:Z|\+00:?00)?")


def mjd_line(units: str, calendar: str) -> Linear | None:
    """The line from stored times to MJD; None for units, epochs or calendars that are not understood."""
    text = " ".join(units.split())
    if text.lower() in ("d", "day", "days", *_MJD):
        return IDENTITY
    if text.lower() in _JD:
        return 1.0, 1.0, -2400000.5
    unit, since, epoch = text.partition(" since ")
    per_day = next((n for names, n in _PER_DAY.items() if unit in names.split()), None)
    if not since or per_day is None or calendar.lower() not in _CALENDARS:
        return None
    start = _epoch_mjd(epoch.strip(), calendar.lower())
    return None if start is None else (1.0, per_day, start)


def _epoch_mjd(text: str, calendar: str) -> float | None:
    """MJD of an epoch such as "1970-01-01 00:00:00"; None when it is not understood."""
    found = _EPOCH.fullmatch(text)
    if found is None:
        return None
    year, month, day = (int(part) for part in found.groups()[:3])
    try:
        date = datetime.date(year, month, day)
    except ValueError:
        return None
    if date < datetime.date(1582, 10, 15) and calendar != "proleptic_gregorian":
        return None  # the standard calendar is the Julian one before
    hours, minutes, seconds = (float(part or 0) for part in found.groups()[3:6])
    zone = found[7] or ""
    if zone[:1] in ("+", "-"):
        digits = zone[1:].replace(":", "")
        shift = float(digits[:2]) + float(digits[2:] or 0) / 60
        hours -= shift if zone[0] == "+" else -shift
    return date.toordinal() - _DAY_ZERO + (hours + minutes / 60 + seconds / 3600) / 24


def mjd_of_datetimes(values: Array) -> Array:
    """MJD f64 of datetime64 values; NaN for NaT."""
    days = values.astype("M8[D]")
    rest = (values - days) / np.timedelta64(1, "D")
    whole = (days - np.datetime64("1858-11-17", "D")).astype(np.float64)
    return np.asarray(np.where(np.isnat(values), np.nan, whole + rest))


def mjd_of_texts(values: Array) -> Array:
    """MJD f64 of ISO 8601 dates in UTC, NaN for empty ones; raises ValueError for others."""
    result = np.full(values.shape, np.nan)
    for index, value in np.ndenumerate(values):
        text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
        text = text.strip()
        if not text or text.lower() in ("nat", "nan"):
            continue
        if _ISO.fullmatch(text) is None:
            raise ValueError(f"{text!r} is not a date such as 2026-01-31T12:34:56 in UTC")
        plain = re.sub(r"(Z|\+00:?00)$", "", text)
        result[index] = mjd_of_datetimes(np.asarray(np.datetime64(plain, "ns")))
    return result


def seconds_of_timedeltas(values: Array) -> Array:
    """Seconds f64 of timedelta64 values; NaN for NaT."""
    seconds = values / np.timedelta64(1, "s")
    return np.asarray(np.where(np.isnat(values), np.nan, seconds), dtype=np.float64)
