"""Which rows were observed together: a scan number alone does not say it.

A number may come twice in a session: a vane's number used again hours later, a pair observed again.
TIMESTAMP (the start of the scan, which the telescope writes into every row of it) tells them apart;
where it is missing, a change of OBJECT or OBSMODE, another scan in between, or a gap in time does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from gpucal.io.fits.sdfits_read import SdfitsRows
from gpucal.io.gbt.arrays import I64

REPEAT_STEP = 100_000
"""What is added to the number of a scan for each earlier one of the same number."""

GAP_S = 60.0
GAP_DUMPS = 5.0
"""Rows of one number further apart than both are two scans: no telescope pauses so long within one."""

SECONDS_PER_DAY = 86400.0


@dataclass(frozen=True, eq=False)
class Observation:
    """The rows of one scan of the telescope.

    scan    its number at the telescope
    number  its number here: the same, plus REPEAT_STEP for each earlier scan of that number
    rows    i64 [n], in order of time
    begin   start of the first integration, MJD
    """

    scan: int
    number: int
    rows: I64
    begin: float

    @property
    def label(self) -> str:
        """How messages name it."""
        return (
            f"scan {self.scan}"
            if self.scan == self.number
            else f"scan {self.scan} ({self.number} here)"
        )


def observations(rows: SdfitsRows, index: I64) -> list[Observation]:
    """The scans among the rows ``index``, in the order in which they were observed."""
    order = index[np.argsort(rows["MJD"][index], kind="stable")]
    found: list[Observation] = []
    for scan in np.unique(rows["SCAN"][order]).tolist():
        mine = order[rows["SCAN"][order] == scan]
        for repeat, part in enumerate(_apart(rows, mine, order)):
            number = int(scan) + repeat * REPEAT_STEP
            found.append(Observation(int(scan), number, part, float(rows["MJD"][part[0]])))
    return sorted(found, key=lambda o: (o.begin, o.number))


def _apart(rows: SdfitsRows, mine: I64, every: I64) -> Iterable[I64]:
    """Cut the rows of one number, in order of time, where another scan begins."""
    group = _stamped(rows, mine)
    if group is not None:
        return [mine[group == n] for n in range(int(group.max()) + 1)]
    cuts = [
        k for k in range(1, mine.size) if _another_scan(rows, int(mine[k - 1]), int(mine[k]), every)
    ]
    return np.split(mine, cuts)


def _stamped(rows: SdfitsRows, mine: I64) -> I64 | None:
    """The scan to which each row belongs by its TIMESTAMP, counted from 0; None unless all rows have one.

    Banks that wrote at the same time are one scan, also when their stamps differ by a second.
    """
    stamps, which = np.unique(rows["TIMESTAMP"][mine], return_inverse=True)
    if not all(stamps):
        return None
    time = rows["MJD"][mine] * SECONDS_PER_DAY
    half = 0.5 * np.nan_to_num(np.fmax(rows["DURATION"][mine], rows["EXPOSURE"][mine]))
    begin = np.array([(time - half)[which == n].min() for n in range(stamps.size)])
    end = np.array([(time + half)[which == n].max() for n in range(stamps.size)])
    scan_of = np.zeros(stamps.size, dtype=np.int64)
    number, until = -1, -np.inf
    for n in np.argsort(begin, kind="stable").tolist():
        # scans follow each other: what overlaps by half an integration was taken together
        number += bool(begin[n] > until - half.max())
        until = max(until, end[n])
        scan_of[n] = number
    return np.asarray(scan_of[which])


def _another_scan(rows: SdfitsRows, a: int, b: int, every: I64) -> bool:
    """Whether row ``b``, the next in time of the same number, belongs to another scan than ``a``."""
    stamps = rows["TIMESTAMP"][a], rows["TIMESTAMP"][b]
    if all(stamps):
        return bool(stamps[0] != stamps[1])
    if any(rows[k][a] != rows[k][b] for k in ("OBJECT", "OBSMODE")):
        return True
    first, last = rows["MJD"][a], rows["MJD"][b]
    gap = (last - first) * SECONDS_PER_DAY
    length = max(float(np.nan_to_num(rows[k][a])) for k in ("DURATION", "EXPOSURE"))
    if gap <= 1.5 * length:
        return False
    times = rows["MJD"][every]
    between = every[(times > first) & (times < last)]
    return bool((rows["SCAN"][between] != rows["SCAN"][a]).any()) or gap > max(
        GAP_S, GAP_DUMPS * length
    )
