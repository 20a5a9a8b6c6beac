"""Which subscans of a SAM45 log form which scan: each block of loads one, and what follows it another.

The calibration takes one load scan for each science scan. A log measures its loads again and again, so that what lies
between two blocks of loads is a scan of its own, which names the block before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gpucal.io.sam45.moments import LOADS, Moments, Run
from gpucal.io.sam45.times import moment

MODES = {
    "position": {"ON": "ON", "OFF": "OFF"},
    "otf": {"ON": "OTF-ON", "OFF": "OTF-OFF"},
    "frequency": {"ON": "FSW-SIG", "OFF": "FSW-REF"},
}
"""How a log was observed -> scan type -> sobsmode."""
LOAD_MODES = {"R": "HOT", "SKY": "SKY", "ZERO": "ZERO"}


@dataclass(frozen=True, eq=False)
class Segment:
    """A scan to be: its number, its subscans, and the number of the load scan that serves it (-1 none).

    loads: it is a block of loads; borrowed: how many of the subscans are OFFs of its neighbours.
    """

    number: int
    loads: bool
    runs: tuple[Run, ...]
    load_scan: int = -1
    borrowed: int = 0


@dataclass(frozen=True, eq=False)
class Cut:
    """A log cut into scans, and sentences about what was left out."""

    segments: list[Segment]
    remarks: list[str]


def cut(moments: Moments, runs: Sequence[Run], *, interpolated: bool) -> Cut:
    """The scans of a log in order of time.

    A block of loads begins with ZERO, R or SKY and ends before the next ON or OFF; one without R joins the next. A
    science scan without an OFF at its beginning or end takes the nearest one of its neighbours there too, as the
    reference between which it is interpolated (``interpolated``; not the phases of a frequency switch). OFFs
    without any ON are left out.
    """
    groups: list[list[Run]] = []
    for run in runs:
        loads = run.kind in LOADS
        if not groups or (groups[-1][0].kind in LOADS) != loads:
            groups.append([])
        groups[-1].append(run)
    remarks: list[str] = []
    segments: list[Segment] = []
    load = -1
    for group in groups:
        kinds = [run.kind for run in group]
        number = _number(moments, group[0])
        if kinds[0] in LOADS:
            if "R" in kinds:
                segments.append(Segment(number, True, tuple(group)))
                load = number
            elif "SKY" in kinds:
                remarks.append(
                    f"a SKY at {_clock(moments, group[0])} JST has no R beside it: left out"
                )
            continue
        if "ON" not in kinds:
            remarks.append(
                f"{kinds.count('OFF')} OFF at {_clock(moments, group[0])} JST without ON"
            )
            continue
        segments.append(Segment(number, False, tuple(group), load))
    if interpolated:
        segments = [_with_references(s, runs) for s in segments]
    return Cut(_served(segments), remarks)


def _served(segments: list[Segment]) -> list[Segment]:
    """Scans before the first block of loads take that one."""
    first = next((s.number for s in segments if s.loads), -1)
    return [s if s.loads or s.load_scan >= 0 else replace(s, load_scan=first) for s in segments]


def _with_references(segment: Segment, runs: Sequence[Run]) -> Segment:
    """The scan with the OFF before and the OFF after it where it begins or ends with an ON."""
    if segment.loads:
        return segment
    own = segment.runs
    offs = [run for run in runs if run.kind == "OFF"]
    before = [run for run in offs if run.last <= own[0].first] if own[0].kind == "ON" else []
    after = [run for run in offs if run.first >= own[-1].last] if own[-1].kind == "ON" else []
    whole = (*before[-1:], *own, *after[:1])
    return replace(segment, runs=whole, borrowed=len(whole) - len(own))


def _number(moments: Moments, run: Run) -> int:
    """Month, day, hour, minute and second of its beginning, JST: 1128213045 is 28 November 21:30:45."""
    return int(moment(float(moments.start[run.first])).strftime("%m%d%H%M%S"))


def _clock(moments: Moments, run: Run) -> str:
    return moment(float(moments.start[run.first])).strftime("%H:%M:%S")
