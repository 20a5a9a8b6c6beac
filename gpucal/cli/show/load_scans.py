"""The load scan that serves a science scan, found from the metadata alone."""

from __future__ import annotations

from collections.abc import Sequence

from gpucal.pipeline.scan.load_rules import Candidate, LoadScans, candidates, has_hot
from gpucal.scan import Scan


def serving_load(scan: Scan, scans: Sequence[Scan], max_cal_age: float) -> Candidate | None:
    """The load scan among ``scans`` that serves ``scan`` and the rule that chose it; None without one.

    ``max_cal_age`` in s. A load scan whose counts cannot be decoded is found out only by calibrating; then
    the next one is taken.
    """

    def bands(number: int) -> list[Scan]:
        return [other for other in scans if other.number == number and has_hot(other)]

    night = LoadScans(lambda: sorted({other.number for other in scans}), bands)
    return next(candidates(scan, night, max_cal_age), None)
