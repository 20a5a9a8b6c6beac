"""What the results of a scan were made from, so that they are made again when it has changed.

A subscan or a band may come after the end of its scan, a calibration after the scans that it serves, and metadata may
be corrected. What is kept beside each scan are the checksums of its metadata and of its loads; they are compared when
a job of the scan comes, when loads come, and now and then while nothing is to be done. Counts come before the times of
their subscan, so that the metadata tell of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpucal.io.l0.schema import COUNTS
from gpucal.online.queue.arrival import scan_folder
from gpucal.online.queue.events import END, Job
from gpucal.online.queue.job_files import FAILED
from gpucal.online.queue.pipe import Pipe
from gpucal.online.site.context import Context

CAME_AFTER = "more of this scan came after its end: it is processed again"


@dataclass(frozen=True)
class MadeFrom:
    """Inputs of a scan that has ended.

    own: checksum of its own metadata; loads: number -> that of a load scan, None for a scan that needs none;
    cancelled: the observer had stopped it; woken: the checksum of its metadata when its loads woke the scans that they
    may serve.
    """

    own: str = ""
    loads: Mapping[int, str] | None = None
    cancelled: bool = False
    woken: str = ""

    def to_json(self) -> str:
        loads = None if self.loads is None else {str(n): v for n, v in self.loads.items()}
        return json.dumps({**vars(self), "loads": loads})

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> MadeFrom | None:
        """What the table of scans holds; None for a scan that has not ended, or was made by an earlier release."""
        if not row.get("made_from"):
            return None
        found = json.loads(row["made_from"])
        loads = found["loads"]
        numbers = None if loads is None else {int(n): v for n, v in loads.items()}
        return cls(**{**found, "loads": numbers})


def metadata_digest(store: str, scan: int) -> str:
    """SHA-256 of the files of a scan that hold no counts; "" where there is no such folder."""
    folder = scan_folder(store, scan)
    digest = hashlib.sha256()
    for place, below, names in os.walk(folder):
        below[:] = sorted(n for n in below if n != COUNTS)
        for name in sorted(names):
            path = Path(place) / name
            with contextlib.suppress(FileNotFoundError):  # it is being replaced
                content = path.read_bytes()
                digest.update(f"{path.relative_to(folder).as_posix()} {len(content)}\n".encode())
                digest.update(content)
    return digest.hexdigest() if folder.is_dir() else ""


def row_of(job: Job, context: Context) -> dict[str, Any] | None:
    """The row of a job's scan in the table of scans."""
    return next(iter(context.results.rows("scans", project=job.project, scan=job.scan)), None)


def end_again(job: Job, context: Context) -> bool:
    """Submit the end of a scan that has grown or changed since it ended; returns whether it was."""
    row = row_of(job, context)
    before = MadeFrom.of_row(row) if row else None
    if row is None or before is None or before.own == metadata_digest(job.store, job.scan):
        return False
    context.say(job, CAME_AFTER, "info")
    Pipe(context.config.pipe).submit(end_job(row))
    return True


def later_inputs(context: Context, since: float | None = None) -> int:
    """Submit the ends of scans that have changed; returns how many.

    since: seen after this moment, s since the epoch; by default in the last ``end_timeout`` seconds.
    """
    since = time.time() - context.config.end_timeout if since is None else since
    rows = [r for r in context.results.rows("scans") if r["state"] != "open"]
    recent = [r for r in rows if (r["seen"] or 0.0) > since and r["obs_class"] != "bolometer"]
    jobs = [end_job(row) for row in recent]
    given_up = Pipe(context.config.pipe).task("calibration").path / FAILED
    return sum(end_again(job, context) for job in jobs if not (given_up / job.name).exists())


def wake_dependents(loads: Job, context: Context, *, valid: bool) -> None:
    """Submit the ends of the scans of this store that new or changed loads may serve, once.

    Those that wait for loads, those made with these loads as they were before, and those for which they come before the
    ones in use. Whether they really serve is decided when a scan is calibrated. valid: the loads serve a pixel.
    """
    own_row = row_of(loads, context)
    own = MadeFrom.of_row(own_row) if own_row else None
    if own is None or own.own == own.woken:
        return
    now = own.own
    gain = bool(context.config.calibration.gain_interpolate)
    later = context.config.use_later_calibration or gain
    for row in context.results.rows("scans", store=loads.store):
        if row["scan"] == loads.scan or row["state"] == "open" or row["obs_class"] == "bolometer":
            continue
        before = MadeFrom.of_row(row)
        waits = row["state"] == "waiting"
        wanted = valid and (later or loads.scan < row["scan"])
        if waits and valid:
            _submit(context, end_job(row))
        elif before is not None and before.loads is not None and not waits:
            used = before.loads.get(loads.scan)
            if used is not None and used != now:
                text = f"the loads of scan {loads.scan} have changed: this scan is processed again"
                context.say(end_job(row), text, "info")
                _submit(context, end_job(row))
            elif (
                used is None
                and wanted
                and _comes_first(loads.scan, row["scan"], before.loads, gain)
            ):
                _submit(context, end_job(row))
    place = {"project": loads.project, "scan": loads.scan}
    context.results.save("scans", [{**place, "made_from": replace(own, woken=now).to_json()}])


def _comes_first(loads: int, scan: int, used: Mapping[int, str], gain: bool) -> bool:
    """Whether loads may serve a scan better than those in use, by the order of the numbers alone.

    gain: the gain is interpolated to the loads after the scan.
    """
    if not used or len(used) > 1 + gain:  # none so far, or pixels of several
        return True
    first, later = [n for n in used if n <= scan], [n for n in used if n > scan]
    if loads < scan:
        return not first or loads > max(first)
    return (gain or not first) and (not later or loads < max(later))


def end_job(row: Mapping[str, Any]) -> Job:
    """The job that ends the scan of a row of the table of scans."""
    before = MadeFrom.of_row(row)
    return Job(
        store=row["store"],
        scan=row["scan"],
        subscan=END,
        project=row["project"],
        obs_class=row["obs_class"] or "heterodyne",
        procedure=row["procedure"],
        setup=row["setup"],
        end_of_scan=True,
        cancelled=before is not None and before.cancelled,
    )


def _submit(context: Context, job: Job) -> None:
    Pipe(context.config.pipe).task("calibration").put(job)
