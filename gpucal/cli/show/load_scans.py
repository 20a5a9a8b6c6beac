"""Which load scan serves which science scan, told from the metadata alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpucal.pipeline.scan.load_library import SECONDS_PER_DAY, same_setup
from gpucal.scan import Scan


def serving_load(scan: Scan, scans: Sequence[Scan], max_cal_age: float) -> tuple[int, str] | None:
    """Return (number, rule) of the load scan that serves ``scan``, None without one.

    ``max_cal_age`` in s. The order is that of the pipeline: the one that ``lloadsn`` names, the
    scan's own, the nearest earlier one of the same setup, the nearest later one within
    ``max_cal_age`` (physics section 8). A load scan whose counts cannot be decoded is found out
    only by calibrating; then the next one is taken.
    """
    assert scan.source is not None
    valid = {
        other.number: other
        for other in scans
        if other.band == scan.band
        and other.calibration is not None
        and "HOT" in other.calibration.sobsmode
        and same_setup(other, scan)
    }
    named = sorted({int(n) for n in scan.source.lloadsn if int(n) in valid})
    if named:
        return named[0], "lloadsn"
    if scan.number in valid:
        return scan.number, "own"
    when = float(np.mean(scan.source.mjd_mid))
    age = {number: (when - load_time(other)) * SECONDS_PER_DAY for number, other in valid.items()}
    earlier = [n for n in age if n < scan.number and age[n] >= 0]
    if earlier:
        return max(earlier), "earlier"
    later = [n for n in age if n > scan.number and 0 < -age[n] <= max_cal_age]
    return (min(later), "later") if later else None


def load_time(scan: Scan) -> float:
    """Mid-time of the load subscans, MJD."""
    assert scan.calibration is not None
    return float(np.mean(scan.calibration.mjd_mid))
