"""A stored night fed to the pipe as if it were being observed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from gpucal.errors import GpucalError
from gpucal.io.l0.store import open_l0
from gpucal.io.l0.write import create_l0
from gpucal.online.queue.announcing import job_of
from gpucal.online.queue.events import Job
from gpucal.online.queue.pipe import Pipe
from gpucal.online.replay.growing import GrowingScan
from gpucal.online.replay.plan import DAY_S, Step, plan_replay
from gpucal.online.site.reasons import reason_of


class Replay:
    """Copies a night into another store and submits a job for every subscan."""

    def __init__(self, source: str | Path, target: Path, pipe: Pipe, *, project: str = "") -> None:
        """Raises L0Error when ``source`` is no L0 store, or ``target`` holds one of another telescope."""
        self._source = open_l0(source)
        self._target = target
        self._pipe = pipe
        self._project = project
        self._growing: dict[int, GrowingScan] = {}

    def run(
        self,
        *,
        speed: float = 1.0,
        scans: frozenset[int] | None = None,
        said: Callable[[str], None] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> int:
        """Submit every subscan when it would have ended, ``speed`` times faster; returns how many.

        speed = inf does not wait at all. A scan that cannot be copied is said and left out.
        """
        root = dict(self._source.attrs)
        known = {k: root.pop(k, "") for k in ("telescope", "site", "instrument")}
        for key in ("format", "format_version"):
            root.pop(key, None)
        create_l0(self._target, **known, **root)
        steps = plan_replay(self._source, scans)
        begin = time.monotonic()
        start = steps[0].end if steps else 0.0
        lost: set[int] = set()
        done = 0
        for step in steps:
            if step.scan in lost:
                continue
            wait = (step.end - start) * DAY_S / speed - (time.monotonic() - begin)
            if wait > 0:
                sleep(wait)
            try:
                job = self._step(step)
            except (GpucalError, OSError, ValueError, KeyError) as error:
                lost.add(step.scan)
                if said is not None:
                    said(f"scan {step.scan} cannot be copied and is left out: {reason_of(error)}")
                continue
            self._pipe.submit(job)
            done += 1
            if said is not None:
                said(f"scan {job.scan} {job.group} subscan {job.subscan}{_ending(job)}")
        return done

    def _step(self, step: Step) -> Job:
        """Let the scan grow by one subscan; returns the job that announces it."""
        growing = self._growing.get(step.scan)
        if growing is None:
            growing = GrowingScan(self._source.scan_group(step.scan), self._target)
            self._growing[step.scan] = growing
        growing.add(step.group, step.subscan)
        if step.last:
            growing.end()
            del self._growing[step.scan]
        return job_of(
            self._target,
            step.scan,
            step.subscan,
            step.group,
            dict(self._source.scan_group(step.scan).attrs),
            project=self._project,
            end_of_scan=step.last,
            cancelled=step.cancelled,
        )


def _ending(job: Job) -> str:
    """The words about the end of a scan in the line of a job."""
    return ", cancelled" if job.cancelled else (", end of scan" if job.end_of_scan else "")
