"""From the time system of the files (TIMESYS) to UTC.

APEX writes TAI: 37 s (2017) ahead of UTC. Source: docs/reference/mbfits.md, times.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

from gpucal.errors import GpucalWarning, ImportFormatError
from gpucal.io.fits.units import mjd_of
from gpucal.io.incoming.assumptions import Assumptions
from gpucal.io.mbfits.dataset import Dataset, known

F64 = npt.NDArray[np.float64]
DAY_S = 86400.0
SYSTEMS = {"UTC": "UTC", "UT": "UTC", "TAI": "TAI"}
STAMPS = {"middle": 0.0, "begin": 0.5, "end": -0.5}
"""Where in a dump its MJD is -> what is to be added of its length."""


class Clock:
    """Turns times of a scan into UTC; system: TIMESYS, ahead: seconds by which it is ahead of UTC."""

    def __init__(self, dataset: Dataset, assumed: Assumptions) -> None:
        word = dataset.text("TIMESYS").upper()
        if not word:
            given = assumed.set_or_noted("time_system", "not known", "the scan has no TIMESYS")
            if given is None:
                raise ImportFormatError(
                    f"{dataset.lead} has no TIMESYS, without which its times may be 37 s off.",
                    hint='Set time_system = "TAI" (APEX) or "UTC" in a --profile.',
                )
            word = str(given)
        if word not in SYSTEMS:
            raise ImportFormatError(
                f"{dataset.lead} counts time in {word!r} (TIMESYS), expected UTC or TAI."
            )
        self.system = SYSTEMS[word]
        begin = _begin(dataset)
        self.ahead = 0.0
        if self.system == "TAI":
            self.ahead = tai_minus_utc(begin)
            _compare(dataset, self.ahead)
        self.begin = self.utc(np.array([begin]))[0]
        why = "whether MJD is the middle of a dump is not said in the files"
        self._stamp = str(assumed.take("time_stamp", "middle", why))

    def utc(self, mjd: F64) -> F64:
        """MJD in UTC."""
        return mjd - self.ahead / DAY_S

    def middle(self, mjd: F64, length_s: F64) -> F64:
        """MJD of the middle of each dump, UTC, from the time in the file and the length of the dump."""
        return self.utc(mjd) + STAMPS[self._stamp] * length_s / DAY_S


def tai_minus_utc(mjd: float) -> float:
    """Seconds by which TAI is ahead of UTC: whole ones, since 1972."""
    from astropy.time import Time

    both = Time(mjd, format="mjd", scale="tai")
    return float(np.round((mjd - both.utc.mjd) * DAY_S))


def _begin(dataset: Dataset) -> float:
    """MJD of the begin of the scan in its time system."""
    mjd = dataset.scan.number("MJD", dataset.primary.number("MJD-OBS", -1.0))
    if known(mjd) and 40000.0 < mjd < 80000.0:
        return float(mjd)
    text = dataset.text("DATE-OBS")
    if not text:
        raise ImportFormatError(f"{dataset.lead} says nowhere when it was observed (DATE-OBS).")
    return mjd_of(text, dataset.scan, "DATE-OBS")


def _compare(dataset: Dataset, ahead: float) -> None:
    """Warn where TAI2UTC is another number than the leap seconds of that day; its sign is not agreed upon."""
    told = dataset.scan.number("TAI2UTC", np.nan)
    if known(told) and told != 0.0 and abs(abs(told) - ahead) > 0.5:
        text = (
            f"{dataset.lead}: TAI2UTC is {told:g} s, but TAI was {ahead:g} s ahead of UTC on that day: "
            "that is taken."
        )
        if text not in dataset.warned:
            dataset.warned.add(text)
            warnings.warn(text, GpucalWarning, stacklevel=2)
