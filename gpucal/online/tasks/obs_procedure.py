"""The obs_procedure task: from a scan to its result, the logs, and what the telescope is told."""

from __future__ import annotations

from gpucal.errors import GpucalError
from gpucal.io.l0.store import open_l0
from gpucal.online.looks.subset import choose_subscans
from gpucal.online.queue.events import END, Job
from gpucal.online.site.context import Context
from gpucal.online.site.log_lines import log_line
from gpucal.online.site.result_rows import Row, rows_of_l1
from gpucal.online.tasks.outcome import Outcome, Product, outcome_path, save_product
from gpucal.online.tasks.publishing import publish_result
from gpucal.pipeline.reduction.procedure_choice import Procedure
from gpucal.pipeline.reduction.products import Reduced, ReduceOptions
from gpucal.pipeline.reduction.raw_scan import RawScan
from gpucal.procedures.names import procedure_of

REDUCED_AT_THE_END: dict[str, Procedure] = {
    "pointing": "pointing",
    "focus": "focus",
    "skydip": "skydip",
    "on-off": "on-off",
    "frequency-switch": "on-off",
}
"""Procedure of a scan that has ended -> what reduces it. Others have their spectra alone."""


def obs_procedure(job: Job, context: Context) -> list[str]:
    """Fit the scan or subscan; at the end of a scan, store and publish the result."""
    outcome = Outcome.load(outcome_path(context.config, job))
    reduced = _reduced(job, outcome, context)
    if outcome.loads:
        _log_calibration(job, context)
    if outcome.l1:
        rows = list(rows_of_l1(job, context))
        context.results.save("spectra", rows)
        _log_scan(job, context, rows)
    if reduced is not None and outcome.end:
        publish_result(job, reduced, outcome, context)
    save_product(context.config, job, Product(reduced, final=bool(outcome.end)))
    return ["plot"]


def _reduced(job: Job, outcome: Outcome, context: Context) -> Reduced | None:
    """The result of the scan when it has ended, else of this subscan if that alone gives one."""
    if outcome.end in REDUCED_AT_THE_END:
        return _whole_scan(job, outcome, context)
    if job.subscan != END and job.group == "source" and not outcome.end:
        return _one_subscan(job, context)
    return None


def _whole_scan(job: Job, outcome: Outcome, context: Context) -> Reduced | None:
    """The result of the whole scan; None, with a message, when there is none."""
    try:
        return _raw(job, context).reduce(REDUCED_AT_THE_END[outcome.end], ReduceOptions())
    except GpucalError as error:
        context.say(job, f"no {outcome.end} result: {error}", "error")
        return None


def _one_subscan(job: Job, context: Context) -> Reduced | None:
    """The drift of this subscan alone; other procedures show their look."""
    raw = _raw(job, context)
    source = raw.scans[0].source
    if source is None or procedure_of(job.procedure, source.sobsmode) != "pointing":
        return None
    try:
        raw.scans = [choose_subscans(scan, [job.subscan]) for scan in raw.scans]
        return raw.reduce("pointing", ReduceOptions())
    except (GpucalError, IndexError) as error:
        context.say(job, f"subscan {job.subscan}: no fit: {error}", "warning")
        return None


def _raw(job: Job, context: Context) -> RawScan:
    """The scan, as far as it has been observed, ready to be reduced."""
    options = context.config.calibration.model_copy(update={"partial": True, "scans": ""})
    return RawScan(open_l0(job.store), job.scan, options, None)


def _log_calibration(job: Job, context: Context) -> None:
    """A line per pixel about the loads: what they alone tell, with SKY also the system and the sky."""
    for row in context.results.rows("calibrations", project=job.project, scan=job.scan):
        context.log(job, "calibration", log_line(row, "loads"))


def _log_scan(job: Job, context: Context, rows: list[Row]) -> None:
    """A line per pixel about a calibrated scan: receiver, system and sky together."""
    (scan, *_) = context.results.rows("scans", project=job.project, scan=job.scan)
    for row in rows:
        known = {k: v for k, v in row.items() if not k.startswith("rms")}
        context.log(job, "calibration", log_line(known, scan["source"]))
