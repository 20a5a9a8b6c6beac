"""Which load scan serves which science scan, told from the metadata alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpucal.scan import Scan, SubscanGroup

SECONDS_PER_DAY = 86400.0


def serving_load(scan: Scan, scans: Sequence[Scan], max_cal_age: float) -> tuple[int, str] | None:
    """Return (number, rule) of the load scan that serves ``scan``, None without one.

    The one that ``lloadsn`` names wins when it is valid; else the nearest earlier one of the same
    setup; else the nearest later one within ``max_cal_age`` seconds. Source: the load scan rule of
    the physics page, section 8.
    """
    assert scan.source is not None
    valid = {
        other.number: other.calibration
        for other in scans
        if other.band == scan.band
        and other.calibration is not None
        and _same_setup(scan.source, other.calibration)
    }
    named = [int(n) for n in dict.fromkeys(scan.source.lloadsn.tolist()) if int(n) in valid]
    if named:
        return named[0], "lloadsn"
    start = float(np.nanmin(scan.source.mjd))
    ages = {number: (start - load_time(group)) * SECONDS_PER_DAY for number, group in valid.items()}
    earlier = {number: age for number, age in ages.items() if age >= 0}
    if earlier:
        nearest = min(earlier, key=lambda number: earlier[number])
        return nearest, "own" if nearest == scan.number else "earlier"
    later = {number: -age for number, age in ages.items() if -max_cal_age <= age < 0}
    if later:
        return min(later, key=lambda number: later[number]), "later"
    return None


def load_time(group: SubscanGroup) -> float:
    """Mid-time of the load subscans, MJD."""
    return float(np.nanmean(group.mjd))


def _same_setup(source: SubscanGroup, loads: SubscanGroup) -> bool:
    """Same channels, receivers, pixels and frequency axes, and a hot load measured."""
    if [source.shape[i] for i in (0, 2, 3)] != [loads.shape[i] for i in (0, 2, 3)]:
        return False
    if not loads.select("HOT"):
        return False
    width = np.abs(source.freq_res[:, :1])
    shift = np.abs(source.signal_freq[:, :1] - loads.signal_freq[:, :1])
    return bool(np.all(shift <= 0.5 * width))
