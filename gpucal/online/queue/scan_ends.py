"""Scans that ended without an announcement: a later one has begun, or there is a long silence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from gpucal.online.queue.events import END, Job


@dataclass(frozen=True)
class OpenScan:
    """A scan that has not ended. ``last`` is its newest job, ``idle`` s since that was seen."""

    last: Job
    idle: float


def missing_ends(scans: Iterable[OpenScan], timeout: float) -> list[Job]:
    """End jobs for scans that will not go on, oldest scan first.

    A scan has ended when one with a higher number of the same project and store has begun, or
    when nothing has come for ``timeout`` seconds. ``idle`` is measured by the caller with a clock that
    does not jump. The jobs' names do not depend on when they are made: making one twice is harmless.
    """
    known = list(scans)
    newest: dict[tuple[str, str], int] = {}
    for scan in known:
        key = (scan.last.project, scan.last.store)
        newest[key] = max(newest.get(key, -1), scan.last.scan)
    ended = [
        scan.last
        for scan in known
        if scan.last.scan < newest[scan.last.project, scan.last.store] or scan.idle >= timeout
    ]
    ended.sort(key=lambda job: (job.store, job.project, job.scan))
    return [replace(job, subscan=END, end_of_scan=True, attempt=0) for job in ended]
