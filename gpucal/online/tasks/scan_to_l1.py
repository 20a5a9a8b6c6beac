"""The end of a scan in the calibration task: the whole scan as spectra in the L1 store of its project."""

from __future__ import annotations

from gpucal.config import CalibrationConfig
from gpucal.errors import GpucalError, LoadError, OtherSettingsError
from gpucal.online.queue.events import END, Job
from gpucal.online.site.results import Results
from gpucal.online.tasks.scan_in_hand import ScanInHand
from gpucal.pipeline.calibrate import calibrate_store
from gpucal.pipeline.store.report import StoreReport


def scan_to_l1(scan: ScanInHand) -> bool:
    """Calibrate the whole scan exactly as offline; returns whether it is in the project's store."""
    job = scan.job
    out = scan.context.l1(job)
    out.parent.mkdir(parents=True, exist_ok=True)
    options = _options(scan)
    try:
        report = calibrate_store(job.store, out, options)
    except OtherSettingsError:
        # an earlier end of this scan was wrong, or the configuration was changed
        again = options.model_copy(update={"overwrite": True})
        report = calibrate_store(job.store, out, again)
    _note_report(scan, report)
    return not report.failures or any(s.status != "failed" for s in report.summaries)


def _options(scan: ScanInHand) -> CalibrationConfig:
    """The configured options for this scan alone; a complete one is calibrated as offline."""
    partial = False
    try:
        scan.store.load(scan.job.scan)
    except GpucalError:
        partial = True
    update = {"scans": str(scan.job.scan), "partial": partial}
    return scan.context.config.calibration.model_copy(update=update)


def _note_report(scan: ScanInHand, report: StoreReport) -> None:
    """Enter the new state of the scan: calibrated, failed, or waiting for a calibration after it."""
    for summary in report.summaries:
        for text in summary.warnings:
            scan.say(text, "warning")
    if not report.failures:
        scan.note_state("calibrated")
        return
    sentence = " ".join(failure.sentence for failure in report.failures)
    without_loads = all(failure.is_a(LoadError) for failure in report.failures)
    waits = without_loads and scan.context.config.use_later_calibration
    scan.note_state("waiting" if waits else "failed", sentence)
    scan.say(sentence, "warning" if waits else "error")


def waiting_scans(results: Results, job: Job) -> list[Job]:
    """End jobs for scans of the same project and setup that wait for a calibration."""
    rows = results.rows("scans", project=job.project, state="waiting", setup=job.setup)
    return [
        Job(
            store=row["store"],
            scan=row["scan"],
            subscan=END,
            project=job.project,
            procedure=row["procedure"],
            setup=row["setup"],
            end_of_scan=True,
        )
        for row in rows
        if row["scan"] != job.scan
    ]
