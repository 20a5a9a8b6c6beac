"""A night on which everything goes wrong that goes wrong at a telescope, for operators who learn, and for tests.

It is a simulated night, spoiled before and while it is fed to the pipe. In the end its spectra are those of ``gpucal
calibrate`` on the finished store, but for the scan that nobody can calibrate.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gpucal.io.l0.schema import COUNTS
from gpucal.io.l0.store import open_l0
from gpucal.io.l0.write import create_l0
from gpucal.online.queue.announcing import job_of
from gpucal.online.queue.events import END, Group, Job
from gpucal.online.queue.pipe import Pipe
from gpucal.online.replay.growing import GrowingScan, cut_group
from gpucal.online.replay.plan import DAY_S, Step, plan_replay

PROCEDURES: tuple[Literal["pointing", "focus", "skydip"], ...] = (
    "pointing",
    "focus",
    "skydip",
    "pointing",
)
SCIENCE: tuple[Literal["otf", "tp", "fsw"], ...] = ("otf", "tp", "otf", "fsw")
LOADS_EVERY = 2
"""What has to be simulated: loads, two of the procedures, loads, and so on; two bands."""

EARLY, BAD, FOCUS, SKYDIP, CANCELLED, STOPPED = 2, 4, 3, 5, 6, 7
AFTER_THE_END, LATE_BAND, OTHER_PROJECT, NO_END, BROKEN = 8, 9, 10, 11, 12
CORRECTED = 1

TROUBLES: Mapping[int, str] = {
    EARLY: "a job comes before its data: it waits, and nothing is lost",
    FOCUS: "every subscan is announced twice: the results are there once",
    BAD: "HOT has the counts of COLD (the load was not in the beam): these loads are passed over",
    SKYDIP: "nothing is wrong; the loads before it are bad, it has its own",
    CANCELLED: "the observer stops the pointing after subscan 3: azimuth alone, and the control system is told so",
    STOPPED: "the calibration is stopped after HOT: it is passed over, those before it serve",
    AFTER_THE_END: "the last subscan comes after the end of the scan: the spectra are made again",
    LATE_BAND: "one band is late by a subscan: the scan waits for it",
    OTHER_PROJECT: "the project changes; its scans come into another folder",
    NO_END: "nobody announces the end: the next scan tells that it is over",
    BROKEN: "elevation in degrees instead of radians: this scan alone is given up, until it is mended",
    CORRECTED: "T_hot of the first calibration was wrong and is corrected: what it serves is made again",
}
"""What goes wrong, by scan number, and what the operator should see."""

LATE_S, EARLY_S = 25.0, 15.0
"""s of the night by which data are late, or their job is early."""


@dataclass(frozen=True)
class Moment:
    """Something that happens at a time of the night, MJD. tells: what it is, where that is worth a word."""

    when: float
    what: Callable[[], object]
    tells: str = ""


class Rehearsal:
    """Feeds the spoiled night to a pipe. project: of the first scans, those of the second have "-2" behind it."""

    def __init__(
        self, night: Path, growing: Path, pipe: Pipe, *, project: str = "rehearsal"
    ) -> None:
        """night: simulated as PROCEDURES and SCIENCE want it; it is changed. growing: the store that is made."""
        _spoil(night)
        self.store = growing
        self._night = open_l0(night)
        self._pipe = pipe
        self._project = project
        root = dict(self._night.attrs)
        known = {k: root.pop(k, "") for k in ("telescope", "site", "instrument")}
        create_l0(growing, **known, **{k: v for k, v in root.items() if "format" not in k})
        self._growing = {
            n: GrowingScan(self._night.scan_group(n), growing) for n in self._night.numbers()
        }

    def run(
        self,
        *,
        speed: float = 1.0,
        said: Callable[[str], None] = lambda text: None,
        sleep: Callable[[float], None] = time.sleep,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        """Let it all happen, ``speed`` times faster than at the telescope; ``between``: called after each moment."""
        moments = sorted(self._moments(), key=lambda moment: moment.when)
        begin, start = time.monotonic(), moments[0].when
        for moment in moments:
            wait = (moment.when - start) * DAY_S / speed - (time.monotonic() - begin)
            if wait > 0:
                sleep(wait)
            if moment.tells:
                said(moment.tells)
            moment.what()
            between()

    @property
    def seconds(self) -> float:
        """How long it takes at speed 1, s."""
        times = [moment.when for moment in self._moments()]
        return (max(times) - min(times)) * DAY_S

    def project_of(self, scan: int) -> str:
        """The project to which a scan belongs."""
        return self._project if scan < OTHER_PROJECT else f"{self._project}-2"

    def _moments(self) -> Iterator[Moment]:
        """What happens, in any order."""
        steps = plan_replay(self._night)
        first = {s.scan: s for s in reversed(steps)}
        for step in steps:
            tells = ""
            if step is first[step.scan]:
                tells = f"scan {step.scan}: {TROUBLES.get(step.scan, 'nothing is wrong')}"
                if step.scan == CORRECTED:
                    tells = f"scan {step.scan}: the first calibration"
            yield from self._of_step(step, tells)
        end = max(step.end for step in steps) + LATE_S / DAY_S
        text = f"scan {CORRECTED}: {TROUBLES[CORRECTED]}"
        yield Moment(end, lambda: self._correct(CORRECTED), text)

    def _of_step(self, step: Step, tells: str) -> Iterator[Moment]:
        """One subscan, with what goes wrong in its scan."""
        late, early = LATE_S / DAY_S, EARLY_S / DAY_S
        job = self._job(step)
        write, announce = self._write(step), self._announce(job)
        if step.scan == EARLY and step.subscan == 1:
            yield Moment(step.end - early, announce, tells)
            yield Moment(step.end, write)
        elif step.scan == AFTER_THE_END and step.last:
            yield Moment(step.end, self._announce(self._job(step, end=True)), tells)
            yield Moment(step.end + late, write)
            yield Moment(step.end + late, self._announce(self._job(step, last=False)))
        elif step.scan == LATE_BAND and step.last:
            *there, behind = self._growing[step.scan].bands
            yield Moment(step.end, self._write(step, there), tells)
            yield Moment(step.end, announce)
            yield Moment(step.end + late, self._write(step, [behind]))
        else:
            yield Moment(step.end, write, tells)
            yield Moment(step.end, announce)
            if step.scan == FOCUS:
                yield Moment(step.end + early, announce)

    def _write(self, step: Step, bands: list[str] | None = None) -> Callable[[], None]:
        """Let the scan grow by a subscan of some bands (None: of all)."""

        def write() -> None:
            growing = self._growing[step.scan]
            growing.add(step.group, step.subscan, bands)
            if step.last:
                growing.end()

        return write

    def _job(self, step: Step, *, end: bool = False, last: bool | None = None) -> Job:
        """The job of a subscan; end: of the end of its scan alone."""
        group: Group = step.group
        attrs = dict(self._night.scan_group(step.scan).attrs)
        over = step.last if last is None else last
        return job_of(
            self.store,
            step.scan,
            END if end else step.subscan,
            group,
            attrs,
            project=self.project_of(step.scan),
            end_of_scan=(over or end) and step.scan != NO_END,
            cancelled=step.cancelled and step.scan != NO_END,
        )

    def _announce(self, job: Job) -> Callable[[], None]:
        return lambda: self._pipe.submit(job)

    def _correct(self, scan: int) -> None:
        """Raise the temperature of the hot load by 1 K."""
        import zarr

        group = zarr.open_group(
            self.store / self._night.scan_group(scan).path.strip("/"), mode="r+"
        )
        for band in self._growing[scan].bands:
            hot: Any = group[f"{band}/calibration/thot".lstrip("/")]
            hot[...] = hot[...] + 1.0


def _spoil(night: Path) -> None:
    """Damage what is damaged before it is observed."""
    import zarr

    root: Any = zarr.open_group(str(night), mode="r+", use_consolidated=False)
    names = {n: open_l0(night).scan_group(n).path.strip("/") for n in open_l0(night).numbers()}
    for band in _bands(root[names[BAD]]):
        counts = band["calibration"][COUNTS]
        modes = list(band["calibration"].attrs["sobsmode"])
        counts[..., modes.index("HOT")] = counts[..., modes.index("COLD")]
    for number, group, kept in ((CANCELLED, "source", 3), (STOPPED, "calibration", 1)):
        root[names[number]].attrs["complete"] = False
        for band in _bands(root[names[number]]):
            cut_group(band[group], kept)
    for number in (NO_END,):
        attrs = root[names[number]].attrs
        if "n_subscans_planned" in attrs:
            del attrs["n_subscans_planned"]
    for band in _bands(root[names[BROKEN]]):
        band["source/elevation"][...] = 45.0


def _bands(scan: Any) -> list[Any]:
    """The bands of a scan, or the scan itself."""
    found = [group for name, group in scan.groups() if name.startswith("band_")]
    return found or [scan]
