"""Scans that were not announced as ended: watched, and ended when they will not continue."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import Any

from gpucal.errors import GpucalError
from gpucal.io.l0.store import open_l0
from gpucal.online.queue.arrival import BAND_WAIT_S
from gpucal.online.queue.events import Job
from gpucal.online.queue.pipe import Pipe
from gpucal.online.queue.scan_ends import KnownScan, OpenScan, missing_ends
from gpucal.online.site.results import Results
from gpucal.online.tasks.made_from import end_job


@dataclass
class _Seen:
    """The last known job of a scan, its number of jobs, and since when that has not changed, s monotonic."""

    job: Job
    count: int
    since: float = field(default_factory=time.monotonic)


class SilentScans:
    """The open scans of a site, and when they were last heard of. timeout: s of silence."""

    def __init__(self, timeout: float, pipe: Pipe, results: Results) -> None:
        self._timeout = timeout
        self._pipe = pipe
        self._results = results
        self._open: dict[tuple[str, str, int], _Seen] = {}
        self._announced: set[Job] = set()
        self._telescopes: dict[str, str] = {}

    def end(self, now: float) -> None:
        """Submit end jobs for scans that will not go on, and say so. now: s, monotonic."""
        self._hear(now)
        if not self._open:
            return
        known = [self._known(row) for row in self._results.rows("scans")]
        facts = {(scan.project, scan.store, scan.scan): scan for scan in known}
        scans = [
            OpenScan(seen.job, now - seen.since, facts[key].telescope, facts[key].began)
            for key, seen in self._open.items()
            if key in facts
        ]
        idle = {scan.last: scan.idle for scan in scans}
        found = missing_ends(scans, self._timeout, known)
        ended = [job for job in found if job not in self._announced]
        names = self._in_work() if ended else []
        for job in ended:
            waits = any(name.startswith(job.scan_name) for name in names)
            if waits and idle.get(job, 0.0) < BAND_WAIT_S:
                continue  # its last subscans wait to be processed
            place: dict[str, Any] = {"project": job.project, "scan": job.scan, "store": job.store}
            if not self._results.rows("scans", state="open", **place):
                continue  # it has ended while we looked
            self._pipe.submit(job)
            self._announced.add(job)
            text = "nobody announced the end of this scan: it is taken as ended"
            self._results.message(text, level="warning", project=job.project, scan=job.scan)

    def _known(self, row: dict[str, Any]) -> KnownScan:
        """A row of the table of scans; the telescope is that of the store."""
        store = row["store"]
        if store not in self._telescopes:
            with contextlib.suppress(GpucalError, OSError):
                self._telescopes[store] = str(open_l0(store).attrs.get("telescope") or "")
        return KnownScan(
            row["project"], store, row["scan"], self._telescopes.get(store, ""), row["date_obs"]
        )

    def _in_work(self) -> list[str]:
        """Names of the jobs that wait for the calibration task, or are being processed by it."""
        entry = self._pipe.task("calibration")
        return [*entry.names(), *(claim.name for claim in entry.claims(lambda worker: True))]

    def _hear(self, now: float) -> None:
        """Take note of scans that are open and of how many jobs they have had."""
        rows = self._results.rows("scans", state="open")
        there = set()
        for row in rows:
            key = (row["project"], row["store"], row["scan"])
            there.add(key)
            count = self._results.count("jobs", project=row["project"], scan=row["scan"])
            seen = self._open.get(key)
            if seen is None or seen.count != count:
                self._open[key] = _Seen(end_job(row), count, now)
        for key in set(self._open) - there:
            del self._open[key]
