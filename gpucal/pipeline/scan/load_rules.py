"""Rules that choose load scans for a science scan, and their order, from the metadata alone.

Physics section 8: ``lloadsn`` wins when it names a valid load scan; then the scan's own calibration; then the nearest
earlier valid one of the same setup; then the nearest later one within ``max_cal_age``. Scan numbers are taken to grow
with time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from gpucal.io.l0.checks import other_reference
from gpucal.scan import Scan

SECONDS_PER_DAY = 86400.0
SAME_FREQUENCY = 2e-4
"""Doppler tracking moves the sky frequency by up to 1e-4 between scans of one setup."""

Rule = Literal["lloadsn", "own", "earlier", "later"]
Note = Callable[[str], None]


@dataclass(frozen=True)
class LoadScans:
    """The scans of a store as the rules see them; both functions are called only as far as the search goes.

    numbers: all scan numbers, ascending. bands: the bands of a scan that have a HOT; none where it has none or cannot
    be read.
    """

    numbers: Callable[[], Sequence[int]]
    bands: Callable[[int], Sequence[Scan]]

    def serving(self, number: int, scan: Scan) -> Iterator[Scan]:
        """The band of scan ``number`` whose loads were taken with the setup of ``scan``."""
        for band in self.bands(number):
            if band.band == scan.band and same_setup(band, scan):
                yield band


class Candidate(NamedTuple):
    """A scan whose loads may serve, and the name of the rule that found it."""

    scan: Scan
    rule: Rule


def candidates(
    scan: Scan, night: LoadScans, max_cal_age: float, note: Note = lambda text: None
) -> Iterator[Candidate]:
    """Scans whose loads could serve ``scan``, best first, each once.

    max_cal_age: of later ones, s; ``note`` is told of loads that are passed over.
    """
    seen: set[int] = set()
    # What the data name is looked at as a whole: a named scan that cannot be read is worth a note.
    first = [*_named(scan, night), *_own(scan, note)]
    for rules in (
        iter(first),
        _earlier(scan, night, max_cal_age),
        _later(scan, night, max_cal_age),
    ):
        for found in rules:
            if found.scan.number not in seen:
                seen.add(found.scan.number)
                yield found


def later_loads(scan: Scan, night: LoadScans) -> Iterator[Scan]:
    """Scans after ``scan`` whose loads could serve it, nearest first, however late: for gain interpolation."""
    return (found.scan for found in _later(scan, night, None))


def _named(scan: Scan, night: LoadScans) -> Iterator[Candidate]:
    """First rule: the scans that ``lloadsn`` names; a negative number names none."""
    if scan.source is None:
        return
    for number in sorted({int(n) for n in scan.source.lloadsn if n >= 0}):
        for found in night.serving(number, scan):
            yield Candidate(found, "lloadsn")


def _own(scan: Scan, note: Note) -> Iterator[Candidate]:
    """Second rule: the loads of the scan itself, unless they were taken at other frequencies."""
    if not has_hot(scan):
        return
    if same_setup(scan, scan):
        yield Candidate(scan, "own")
    else:
        note(
            f"the loads of scan {scan.number} itself were passed over: their frequencies are not "
            "those of its source."
        )


def _earlier(scan: Scan, night: LoadScans, max_age: float) -> Iterator[Candidate]:
    """Third rule: scans with smaller numbers whose loads came before, the nearest first.

    Numbers may have begun again: loads older than ``max_age`` s serve only where none of the others
    is younger, and then the youngest first.
    """
    when = time_of(scan)
    old: list[Scan] = []
    for number in reversed([n for n in night.numbers() if n < scan.number]):
        for found in night.serving(number, scan):
            age = (when - load_time(found)) * SECONDS_PER_DAY
            if age > max_age:
                old.append(found)
            elif age >= 0:
                yield Candidate(found, "earlier")
    for found in sorted(old, key=load_time, reverse=True):
        yield Candidate(found, "earlier")


def _later(scan: Scan, night: LoadScans, max_age: float | None) -> Iterator[Candidate]:
    """Fourth rule: scans with larger numbers, the nearest first, up to ``max_age`` s (None: no limit)."""
    when = time_of(scan)
    for number in [n for n in night.numbers() if n > scan.number]:
        for found in night.serving(number, scan):
            age = (load_time(found) - when) * SECONDS_PER_DAY
            if max_age is not None and age > max_age:
                return
            if age > 0:
                yield Candidate(found, "later")


def load_blocks(scan: Scan) -> list[Scan]:
    """The loads of a scan that measured HOT and COLD several times, with the sky between: a scan for each time.

    In order of time; [] where there is one such block. The load subscans of other blocks have no mode in it.
    """
    source, loads = scan.source, scan.calibration
    if source is None or loads is None:
        return []
    block = np.searchsorted(np.sort(source.mjd_mid), loads.mjd_mid).tolist()
    found = []
    for k in sorted(set(block)):
        modes = tuple(m if b == k else "" for m, b in zip(loads.sobsmode, block, strict=True))
        if {"HOT", "COLD"} <= set(modes):
            found.append(replace(scan, calibration=replace(loads, sobsmode=modes)))
    return found if len(found) > 1 else []


def has_hot(scan: Scan) -> bool:
    """Whether a scan has a HOT load."""
    return scan.calibration is not None and "HOT" in scan.calibration.sobsmode


def time_of(scan: Scan) -> float:
    """Mean mid-time of the subscans on the source, or of the loads where there are none, MJD."""
    group = scan.source or scan.calibration
    assert group is not None
    return float(np.mean(group.mjd_mid))


def load_time(scan: Scan) -> float:
    """Mean mid-time of the load subscans, MJD."""
    assert scan.calibration is not None
    return float(np.mean(scan.calibration.mjd_mid))


def same_setup(load: Scan, scan: Scan) -> bool:
    """Whether a load scan was taken with the receiver setup of ``scan``: shape and frequencies."""
    a, b = load.calibration, scan.source or scan.calibration
    if a is None or b is None:
        return False
    if a.shape[0] != b.shape[0] or a.shape[2:4] != b.shape[2:4]:
        return False
    near = np.allclose(a.signal_freq[:, 0], b.signal_freq[:, 0], rtol=SAME_FREQUENCY, atol=0)
    near = near and other_reference(a, b) is None
    return bool(near and np.allclose(a.freq_res[:, 0], b.freq_res[:, 0], rtol=1e-4, atol=0))
