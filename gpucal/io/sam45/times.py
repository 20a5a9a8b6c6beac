"""Times of a SAM45 log: Japanese standard time as text, and MJD in seconds or days."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date, datetime, timedelta

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

JST_H = 9.0
DAY_S = 86400.0
MJD_0 = date(1858, 11, 17).toordinal()
_DIGITS = re.compile(r"(\d{4}|\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\.\d*)?")
_ISO = re.compile(r"(\d{4})-(\d\d)-(\d\d)[T_ ](\d\d):(\d\d):(\d\d)(\.\d*)?")

SECONDS_ABOVE = 1e6
"""A larger number is no MJD in days."""


def local_mjd(text: str) -> float:
    """MJD, in the zone of the text, of YYYYMMDDhhmmss.f, YYMMDDhhmmss.f or ISO 8601; NaN for anything else."""
    found = _DIGITS.fullmatch(text) or _ISO.fullmatch(text)
    if found is None:
        return float("nan")
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    try:
        days = date(year + 2000 if year < 100 else year, month, day).toordinal() - MJD_0
    except ValueError:
        return float("nan")
    if hour > 23 or minute > 59 or second > 60:
        return float("nan")
    fraction = float(f"0{found[7]}0") if found[7] else 0.0
    return days + (hour * 3600 + minute * 60 + second + fraction) / DAY_S


def local_mjds(values: Iterable[str]) -> F64:
    """As ``local_mjd`` for each of the texts; equal ones are read once."""
    known: dict[str, float] = {}
    return np.array(
        [known.setdefault(v, local_mjd(v)) if v not in known else known[v] for v in values]
    )


def days_of(values: F64) -> F64:
    """MJD in days of numbers that are MJD in seconds or days; NaN for what is neither."""
    days = np.where(values > SECONDS_ABOVE, values / DAY_S, values)
    return np.where((days > 40000.0) & (days < 90000.0), days, np.nan)


def moment(mjd: float) -> datetime:
    """The date and time of an MJD, in its own zone, to the second below; half a millisecond counts as the next."""
    return datetime(1858, 11, 17) + timedelta(seconds=int(mjd * DAY_S + 5e-4))
