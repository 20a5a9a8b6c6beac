"""The calibration task: counts to looks during a scan, to L1 at its end.

All computing is done by the same code as offline; this module only decides what is computed and where it goes.
"""

from __future__ import annotations

from dataclasses import replace

from gpucal.axes import OFF_MODES
from gpucal.backend.cpu import usable_cores
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
from gpucal.online.tasks.outcome import Outcome, outcome_path
from gpucal.online.tasks.quick_looks import QuickLooks
from gpucal.online.tasks.scan_in_hand import ScanInHand
from gpucal.online.tasks.scan_to_l1 import scan_to_l1, waiting_scans
from gpucal.pipeline.scan.ordered_pool import Threads


def calibration(job: Job, context: Context) -> list[str]:
    """Looks and L1. A new calibration wakes the scans that waited for one.

    Raises GpucalError for what another try may cure.
    """
    claim_number(job, context)
    with Threads(context.config.calibration.workers or usable_cores()) as pool:
        outcome = _carry_out(ScanInHand(job, context, pool))
    outcome.save(outcome_path(context.config, job))
    if outcome.loads:
        entry = Pipe(context.config.pipe).task("calibration")
        for waiting in waiting_scans(context.results, job):
            entry.put(waiting)
    return ["obs_procedure", "class"] if outcome.l1 else ["obs_procedure"]


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
                outcome = replace(outcome, loads=enter_loads(scan))
            case EndOfScan(procedure, cancelled):
                scan.note_state("ended")
                l1 = _has_spectra(view, procedure) and scan_to_l1(scan)
                outcome = replace(outcome, end=procedure, cancelled=cancelled, l1=l1)
    return replace(outcome, looks=tuple(looks.files))


def _has_spectra(view: ScanView, procedure: str) -> bool:
    """Whether a scan can be calibrated to T_A*; drifts and tips without a reference only give a result."""
    without = procedure in ("pointing", "focus", "skydip") and not OFF_MODES & set(view.modes)
    return bool(view.modes) and not without
