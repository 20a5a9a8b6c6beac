"""Scans that ended without an announcement: a later one has begun, or there is a long silence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from gpucal.online.queue.events import END, Job


@dataclass(frozen=True)
class KnownScan:
    """A scan of the site, ended or not. began: UTC, ISO 8601, "" where not known; telescope: "" where not known."""

    project: str
    store: str
    scan: int
    telescope: str = ""
    began: str = ""


@dataclass(frozen=True)
class OpenScan:
    """A scan that has not ended. last: its newest job; idle: s since that was seen; the others as above."""

    last: Job
    idle: float
    telescope: str = ""
    began: str = ""


def missing_ends(
    scans: Iterable[OpenScan], timeout: float, known: Iterable[KnownScan] = ()
) -> list[Job]:
    """End jobs for scans that will not go on, oldest scan first.

    A scan has ended when one with a higher number of the same store has begun, of whatever project, when the telescope
    has begun a later scan of another project in another store, or when nothing has come for ``timeout`` seconds.
    known: the scans of the site, the open ones may be left out. ``idle`` is measured by the caller with a clock that
    does not jump. The jobs' names do not depend on when they are made: making one twice is harmless.
    """
    still = list(scans)
    others = [*known, *(_as_known(scan) for scan in still)]
    newest: dict[str, int] = {}
    for other in others:
        newest[other.store] = max(newest.get(other.store, -1), other.scan)
    ended = [
        scan.last
        for scan in still
        if scan.last.scan < newest[scan.last.store]
        or scan.idle >= timeout
        or any(_other_project_after(scan, other) for other in others)
    ]
    ended.sort(key=lambda job: (job.store, job.project, job.scan))
    return [replace(job, subscan=END, end_of_scan=True, attempt=0) for job in ended]


def _as_known(scan: OpenScan) -> KnownScan:
    """An open scan among the others."""
    last = scan.last
    return KnownScan(last.project, last.store, last.scan, scan.telescope, scan.began)


def _other_project_after(scan: OpenScan, other: KnownScan) -> bool:
    """Whether the telescope has turned to another project since a scan began."""
    return (
        bool(scan.telescope and scan.began)
        and other.telescope == scan.telescope
        and other.project != scan.last.project
        and other.store != scan.last.store
        and other.began[:19] > scan.began[:19]
    )
