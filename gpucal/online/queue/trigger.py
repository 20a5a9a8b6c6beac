"""Decide what to do for a job, from what is there of its scan: the table in docs/how-to/online.md.

Stateless: the L0 store is the truth and a job only wakes somebody up. What is decided for a subscan
depends on the subscans before it and on nothing that comes later, so a job done again, late or
twice gives the same.
"""

from __future__ import annotations

from gpucal.axes import OFF_MODES, ON_MODES
from gpucal.online.queue.arrival import NotThereYetError
from gpucal.online.queue.events import (
    END,
    Action,
    CountsLook,
    EndOfScan,
    Job,
    NewCalibration,
    Notice,
    OtfGroup,
    QuickLook,
    ScanView,
)
from gpucal.procedures.names import procedure_of

_SWITCHED = frozenset({"FSW-SIG", "FSW-REF"})


def decide(view: ScanView, job: Job) -> tuple[Action, ...]:
    """What to do for ``job``, in this order.

    Raises NotThereYetError when the job's subscan is not in the store yet: try again later.
    """
    kind = procedure_of(job.procedure, view.modes, view.calibration_modes)
    actions: list[Action] = []
    if job.subscan != END:
        there = view.modes if job.group == "source" else view.calibration_modes
        if job.subscan >= len(there):
            raise NotThereYetError(
                f"subscan {job.subscan} of {job.group}/ is not in the store, it holds {len(there)}.",
                scan=job.scan,
            )
        actions += _subscan(view, job, kind)
    if has_ended(job, view.planned):
        actions += _end(view, job, kind)
    return tuple(actions)


def has_ended(job: Job, planned: int) -> bool:
    """Whether the scan is over with this job, as far as job and plan (``planned`` subscans, 0 = not known) say."""
    if job.subscan == END or job.end_of_scan or job.cancelled:
        return True
    # ``planned`` counts source subscans, but in a scan that has loads and sky only.
    kind = procedure_of(job.procedure, ())
    counted = {"calibration": ("calibration",), "skydip": ("calibration", "source")}
    return job.group in counted.get(kind, ("source",)) and 0 < planned <= job.subscan + 1


def _subscan(view: ScanView, job: Job, kind: str) -> list[Action]:
    """What to do after a subscan of a running scan: the quick look."""
    n = job.subscan
    if job.group == "calibration":
        return [CountsLook(n, "calibration")]
    modes = view.modes[: n + 1]
    if not view.calibrated and kind != "skydip":
        return [
            Notice(f"subscan {n}: no valid calibration with COLD precedes this scan: counts only"),
            CountsLook(n, "source"),
        ]
    if kind == "otf" and not _SWITCHED & set(modes):
        return _otf(modes)
    if kind in ("pointing", "focus"):
        # A drift says something by itself; its references, if any, are those seen so far.
        return [QuickLook((n,), _references(modes))] if modes[n] in ON_MODES else []
    if kind == "skydip":
        return [QuickLook((n,))]
    on = tuple(i for i, mode in enumerate(modes) if mode in ON_MODES)
    off = _references(modes)
    chopped = "WSW-ON" in modes  # holds both phases of the wobbler in one subscan
    return [QuickLook(on, off)] if on and (off or chopped) else []


def _references(modes: tuple[str, ...]) -> tuple[int, ...]:
    """The subscans off the source."""
    return tuple(i for i, mode in enumerate(modes) if mode in OFF_MODES)


def _otf(modes: tuple[str, ...]) -> list[Action]:
    """After a REF: the OTF subscans between it and the REF before."""
    n = len(modes) - 1
    if modes[n] not in OFF_MODES:
        text = f"subscan {n}: OTF without a REF before it waits for the next REF"
        return [Notice(text)] if n == 0 else []
    earlier = _references(modes[:n])
    before = earlier[-1] if earlier else None
    subscans = tuple(range(0 if before is None else before + 1, n))
    if subscans:
        return [OtfGroup(subscans, before, n)]
    if before is not None:
        return [Notice(f"subscans {before} and {n} are two REF in a row")]
    return []


def _end(view: ScanView, job: Job, kind: str) -> list[Action]:
    """What the end of a scan asks for, ``EndOfScan`` last."""
    actions: list[Action] = []
    if "HOT" in view.calibration_modes:
        actions.append(NewCalibration())
    elif kind == "calibration":
        actions.append(Notice("this calibration has no HOT: the one before stays"))
    if kind == "otf" and view.modes and not _SWITCHED & set(view.modes):
        actions += _open_otf(view)
    elif not view.modes and kind != "calibration" and not _tipped(view, kind):
        actions.append(Notice("the scan ended without a subscan"))
    actions.append(EndOfScan(kind, job.cancelled))
    return actions


def _tipped(view: ScanView, kind: str) -> bool:
    """A skydip's subscans may all lie among the loads."""
    return kind == "skydip" and "SKY" in view.calibration_modes


def _open_otf(view: ScanView) -> list[Action]:
    """OTF subscans after the last REF are processed with that REF alone."""
    references = _references(view.modes)
    if not references:
        return [Notice("the OTF scan has no REF at all: it cannot be calibrated")]
    left = tuple(range(references[-1] + 1, len(view.modes)))
    if not left or not view.calibrated:
        return []
    return [OtfGroup(left, references[-1], None)]
