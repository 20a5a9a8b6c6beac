"""Values of the queue: jobs, what is known of their scan, and the events that follow."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args, get_type_hints

from gpucal.errors import OnlineError

ObsClass = Literal["heterodyne", "bolometer"]
Group = Literal["source", "calibration"]

END = -1
"""Subscan number of a job that says nothing but that its scan has ended."""

_UNSAFE = re.compile(r"[^A-Za-z0-9_+-]")


@dataclass(frozen=True)
class Job:
    """A job: a subscan has been written, or a scan has ended.

    store        path of the L0 store;  group  where the subscan lies in it, counted from 0
    procedure    obs_procedure of the scan, as the telescope names it
    setup        what a calibration must share with the scans it serves (receivers, tuning)
    end_of_scan  this is the last subscan;  cancelled  the observer stopped the scan here
    created      seconds since the epoch, by the producer's clock: for display only
    attempt      how often it has failed;  crashes  how often a worker died over it
    """

    store: str
    scan: int
    subscan: int
    project: str
    group: Group = "source"
    obs_class: ObsClass = "heterodyne"
    procedure: str = ""
    setup: str = ""
    end_of_scan: bool = False
    cancelled: bool = False
    created: float = 0.0
    attempt: int = 0
    crashes: int = 0

    @property
    def name(self) -> str:
        """File name; the same subscan has the same name everywhere, so it is never there twice."""
        return f"{self.scan_name}{self.part}.json"

    @property
    def scan_name(self) -> str:
        """What the names of all jobs of this scan begin with."""
        return f"{safe_name(self.project)}.{self.scan:08d}."

    @property
    def part(self) -> str:
        """The subscan in names of files: "s00003", "c00000" in calibration/, "end"."""
        return "end" if self.subscan == END else f"{self.group[0]}{self.subscan:05d}"

    @property
    def stem(self) -> str:
        """``name`` without its ending."""
        return f"{self.scan_name}{self.part}"

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)


def safe_name(text: str) -> str:
    """``text`` as one path component: letters, digits, _ + -; never empty, never hidden."""
    return _UNSAFE.sub("_", text)[:80] or "none"


def job_from_json(text: str | bytes) -> Job:
    """Read a job; raises OnlineError saying which field is wrong."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise OnlineError(f"the job is not JSON: {error}.") from error
    if not isinstance(found, dict):
        raise OnlineError("the job is not a JSON object.")
    known = get_type_hints(Job)
    for key in ("store", "scan", "subscan", "project"):
        if key not in found:
            raise OnlineError(f"the job has no {key!r}.")
    if unknown := sorted(set(found) - set(known)):
        raise OnlineError(f"the job has the unknown field {unknown[0]!r}.")
    for key, value in found.items():
        _check_field(key, value, known[key])
    job = Job(**found)
    if job.scan < 0 or job.subscan < END:
        raise OnlineError(f"the job names scan {job.scan}, subscan {job.subscan}.")
    return job


def _check_field(key: str, value: Any, wanted: Any) -> None:
    """Raise OnlineError unless ``value`` has the type of its field; a whole number may stand for a float."""
    choices = get_args(wanted)
    right_type = type(value) is wanted or (wanted is float and type(value) is int)
    if not (value in choices if choices else right_type):
        expected = " or ".join(choices or (wanted.__name__,))
        raise OnlineError(f"{key} of the job is {value!r}, expected {expected}.")


@dataclass(frozen=True)
class ScanView:
    """What is known of a scan when a decision about one of its jobs is made.

    modes         sobsmode of the source subscans up to and with the job's own, all for an end job
    calibration_modes  the same of calibration/
    planned       source subscans that the observer asked for (of calibration/ in a load scan), 0 = not known
    calibrated    a valid load measurement with COLD (or a vane) serves this scan
    """

    scan: int
    modes: tuple[str, ...] = ()
    calibration_modes: tuple[str, ...] = ()
    planned: int = 0
    calibrated: bool = True


@dataclass(frozen=True)
class CountsLook:
    """Show counts: of loads, or of data that cannot be calibrated yet."""

    subscan: int
    group: Group


@dataclass(frozen=True)
class QuickLook:
    """Calibrate ``subscans`` with the references among ``references`` and show the result."""

    subscans: tuple[int, ...]
    references: tuple[int, ...] = ()


@dataclass(frozen=True)
class OtfGroup:
    """Process the OTF subscans between two REF, or beside one of them."""

    subscans: tuple[int, ...]
    before: int | None
    after: int | None


@dataclass(frozen=True)
class NewCalibration:
    """The loads of this scan become the current calibration of its project and setup."""


@dataclass(frozen=True)
class EndOfScan:
    """The scan is final: calibrate it into L1, fit, publish."""

    procedure: str
    cancelled: bool


@dataclass(frozen=True)
class Notice:
    """Tell the observer."""

    text: str


Action = CountsLook | QuickLook | OtfGroup | NewCalibration | EndOfScan | Notice
