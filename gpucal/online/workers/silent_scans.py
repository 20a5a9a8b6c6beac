"""Scans that were not announced as ended: watched, and ended when they will not continue."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from gpucal.online.queue.events import END, Job
from gpucal.online.queue.pipe import Pipe
from gpucal.online.queue.scan_ends import OpenScan, missing_ends
from gpucal.online.site.results import Results


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

    def end(self, now: float) -> None:
        """Submit end jobs for scans that will not go on, and say so. now: s, monotonic."""
        self._hear(now)
        scans = [OpenScan(seen.job, now - seen.since) for seen in self._open.values()]
        ended = [job for job in missing_ends(scans, self._timeout) if job not in self._announced]
        names = self._in_work() if ended else []
        for job in ended:
            if any(name.startswith(job.scan_name) for name in names):
                continue  # its last subscans wait to be processed
            place: dict[str, Any] = {"project": job.project, "scan": job.scan, "store": job.store}
            if not self._results.rows("scans", state="open", **place):
                continue  # it has ended while we looked
            self._pipe.submit(job)
            self._announced.add(job)
            text = "nobody announced the end of this scan: it is taken as ended"
            self._results.message(text, level="warning", project=job.project, scan=job.scan)

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
                job = Job(
                    store=row["store"],
                    scan=row["scan"],
                    subscan=END,
                    project=row["project"],
                    obs_class=row["obs_class"] or "heterodyne",
                    procedure=row["procedure"],
                    setup=row["setup"],
                    end_of_scan=True,
                )
                self._open[key] = _Seen(job, count, now)
        for key in set(self._open) - there:
            del self._open[key]
