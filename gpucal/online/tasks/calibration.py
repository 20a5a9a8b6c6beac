"""The calibration task: counts to looks during a scan, to L1 at its end.

All computing is done by the same code as offline; this module only decides what is computed and where it goes.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from gpucal.axes import OFF_MODES
from gpucal.backend.cpu import usable_cores
from gpucal.online.queue.arrival import BAND_WAIT_S, NotThereYetError, store_of
from gpucal.online.queue.events import (
    CountsLook,
    EndOfScan,
    Job,
    NewCalibration,
    Notice,
    OtfGroup,
    QuickLook,
    ScanView,
)
from gpucal.online.queue.pipe import Pipe
from gpucal.online.queue.trigger import decide
from gpucal.online.site.context import Context
from gpucal.online.site.identity import claim_number
from gpucal.online.tasks.load_rows import enter_loads
from gpucal.online.tasks.made_from import end_again, wake_dependents
from gpucal.online.tasks.outcome import Outcome, outcome_path
from gpucal.online.tasks.quick_looks import QuickLooks
from gpucal.online.tasks.scan_in_hand import ScanInHand
from gpucal.online.tasks.scan_to_l1 import scan_to_l1


def calibration(job: Job, context: Context) -> list[str]:
    """Looks and L1. New loads wake the scans that they may serve; what comes after the end of a scan ends it again.

    Raises NotThereYetError when what the job announces may still come, GpucalError for what another try may cure.
    """
    store_of(job)
    claim_number(job, context)
    path = outcome_path(context.config, job)
    with ThreadPoolExecutor(context.config.calibration.workers or usable_cores()) as pool:
        scan = ScanInHand(job, context, pool)
        if _must_wait(scan, Outcome.known(path)):
            return []
        outcome = _carry_out(scan)
    outcome.save(path)
    if outcome.loads:
        wake_dependents(job, context, valid=outcome.loads == "valid")
    if outcome.late:
        Pipe(context.config.pipe).task("calibration").put(job)
    else:
        end_again(job, context)
    return ["obs_procedure", "class"] if outcome.l1 else ["obs_procedure"]


def _must_wait(scan: ScanInHand, before: Outcome | None) -> bool:
    """Whether nothing is to be done, as a late band did not come; raises NotThereYetError while it may come.

    The other bands go on without it after a while, and all of them again when it comes.
    """
    done = before is not None and before.late == scan.late
    limit = scan.context.config.end_timeout
    if scan.late and scan.context.waited < (limit if done else min(limit, BAND_WAIT_S)):
        raise NotThereYetError(f"{', '.join(scan.late)} is late.", scan=scan.job.scan)
    return bool(scan.late) and done


def _carry_out(scan: ScanInHand) -> Outcome:
    """Decide which events follow from the job, and carry them out in order."""
    view = scan.note()
    looks = QuickLooks(scan)
    outcome = Outcome()
    for action in decide(view, scan.job):
        match action:
            case Notice(text):
                scan.say(text, "warning")
            case CountsLook(subscan, group):
                looks.counts(subscan, group)
            case QuickLook(subscans, references):
                looks.calibrated(subscans, references)
            case OtfGroup(subscans, before, after):
                looks.calibrated(subscans, [s for s in (before, after) if s is not None])
            case NewCalibration():
                outcome = replace(outcome, loads="valid" if enter_loads(scan) else "bad")
            case EndOfScan(procedure, cancelled):
                scan.note_end()
                l1 = _has_spectra(view, procedure) and scan_to_l1(scan)
                outcome = replace(outcome, end=procedure, cancelled=cancelled, l1=l1)
    return replace(outcome, looks=tuple(looks.files), late=scan.late)


def _has_spectra(view: ScanView, procedure: str) -> bool:
    """Whether a scan can be calibrated to T_A*; drifts and tips without a reference only give a result."""
    without = procedure in ("pointing", "focus", "skydip") and not OFF_MODES & set(view.modes)
    return bool(view.modes) and not without
