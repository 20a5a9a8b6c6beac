"""Feed a stored night to the pipe as if it were being observed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpucal.errors import GpucalError, OnlineError
from gpucal.io.l0.schema import COUNTS, is_bolometer
from gpucal.io.l0.store import L0Store, open_l0
from gpucal.io.l0.write import create_l0
from gpucal.online.queue.events import END, Group, Job
from gpucal.online.queue.pipe import Pipe
from gpucal.online.replay.growing import GrowingScan

DAY_S = 86400.0


@dataclass(frozen=True)
class Step:
    """One subscan of a stored night; ``end``: MJD at which it was over."""

    end: float
    scan: int
    group: Group
    subscan: int
    last: bool
    cancelled: bool


def plan_replay(store: L0Store, scans: frozenset[int] | None = None) -> list[Step]:
    """All subscans of the chosen scans in the order in which they ended.

    Raises OnlineError for a scan that cannot be followed: no times, no counts.
    """
    steps: list[Step] = []
    for number in store.numbers():
        if scans is None or number in scans:
            steps += _steps_of(store, number)
    return sorted(steps, key=lambda s: (s.end, s.scan, s.group == "source", s.subscan))


def _steps_of(store: L0Store, number: int) -> list[Step]:
    scan = store.scan_group(number)
    attrs = dict(scan.attrs)
    ends: dict[tuple[Group, int], float] = {}
    bands = ["", *(name for name, _ in scan.groups() if name.startswith("band_"))]
    try:
        for band in bands:
            groups: tuple[Group, ...] = ("source", "calibration")
            for group in groups:
                node = scan.get(f"{band}/{group}".lstrip("/"))
                if node is not None:
                    for s, end in enumerate(_ends(node)):
                        ends[group, s] = max(end, ends.get((group, s), -np.inf))
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise OnlineError(f"its times cannot be read: {error}.", scan=number) from error
    if not ends:
        raise OnlineError("it holds no subscan.", scan=number)
    last = max(ends, key=lambda key: (key[0] == "source", key[1]))
    planned = int(attrs.get("n_subscans_planned") or 0)
    cut_short = attrs.get("complete") is False or planned > last[1] + 1
    return [
        Step(end, number, group, s, (group, s) == last, (group, s) == last and cut_short)
        for (group, s), end in ends.items()
    ]


def _ends(group: Any) -> list[float]:
    """MJD of the end of each subscan; a missing time follows the one before."""
    mjd = np.asarray(group["mjd"][...], dtype=np.float64)
    exposure = np.asarray(group["exptime"][...], dtype=np.float64)
    dumps, subscans = group[COUNTS].shape[1], group[COUNTS].shape[4]
    if mjd.ndim == 1:
        exposure = exposure if exposure.ndim == 1 else np.nanmax(exposure, axis=0)
        end = mjd + 0.5 * dumps * exposure / DAY_S
    else:
        end = np.nanmax(mjd + 0.5 * exposure / DAY_S, axis=0)
    if end.shape != (subscans,) or not np.isfinite(end).any():
        raise ValueError(f"mjd has shape {mjd.shape} for {subscans} subscans")
    return [float(v) for v in np.where(np.isfinite(end), end, np.nanmax(end))]


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
                    said(f"scan {step.scan} cannot be copied and is left out: {error}")
                continue
            self._pipe.submit(job)
            done += 1
            if said is not None:
                said(f"scan {job.scan} {job.group} subscan {job.subscan}{_ending(job)}")
        return done

    def _step(self, step: Step) -> Job:
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


def job_of(
    store: str | Path,
    scan: int,
    subscan: int,
    group: Group,
    attrs: dict[str, Any],
    *,
    project: str = "",
    end_of_scan: bool = False,
    cancelled: bool = False,
) -> Job:
    """The job that announces one subscan (or, END, the end) of a scan with the attributes ``attrs``."""
    return Job(
        store=str(Path(store).absolute()),
        scan=scan,
        subscan=subscan,
        project=project or str(attrs.get("project") or "none"),
        group=group,
        obs_class="bolometer" if is_bolometer(attrs) else "heterodyne",
        procedure=str(attrs.get("obs_procedure") or ""),
        setup=str(attrs.get("line") or ""),
        end_of_scan=end_of_scan or subscan == END,
        cancelled=cancelled,
        created=time.time(),
    )


def _ending(job: Job) -> str:
    return ", cancelled" if job.cancelled else (", end of scan" if job.end_of_scan else "")
