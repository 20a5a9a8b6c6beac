"""The end of a scan in the calibration task: the whole scan as spectra in the L1 store of its project."""

from __future__ import annotations

from pathlib import Path

from gpucal.config import CalibrationConfig
from gpucal.errors import GpucalError, LoadError, OtherSettingsError
from gpucal.io.l1.reader import open_l1
from gpucal.online.tasks.scan_in_hand import ScanInHand
from gpucal.pipeline.calibrate import calibrate_store
from gpucal.pipeline.scan.load_library import LoadLibrary
from gpucal.pipeline.store.finished import AGAIN
from gpucal.pipeline.store.report import SilentObserver, StoreReport


def scan_to_l1(scan: ScanInHand) -> bool:
    """Calibrate the whole scan exactly as offline; returns whether it is in the project's store."""
    job = scan.job
    out = scan.context.l1(job)
    out.parent.mkdir(parents=True, exist_ok=True)
    options = _options(scan)
    again = options.model_copy(update={"overwrite": True})
    told = _Told()
    try:
        report = calibrate_store(job.store, out, options, observer=told)
        if _kept(report) and _other_loads(scan, out, options):
            told.again = True
            report = calibrate_store(job.store, out, again)
        if told.again:
            scan.say("other loads serve this scan now: it is calibrated again", "info")
    except OtherSettingsError:
        # an earlier end of this scan was wrong, or the configuration was changed
        report = calibrate_store(job.store, out, again)
    _note_report(scan, report)
    return not report.failures or any(s.status != "failed" for s in report.summaries)


class _Told(SilentObserver):
    """Hears whether a finished scan is calibrated again, as better loads came into the store."""

    again = False

    def message(self, level: str, text: str) -> None:
        self.again |= AGAIN in text


def _kept(report: StoreReport) -> bool:
    """Whether the scan was in the store already."""
    return any(summary.status == "skipped" for summary in report.summaries)


def _other_loads(scan: ScanInHand, out: Path, options: CalibrationConfig) -> bool:
    """Whether other loads serve a calibrated scan than those that it was made with."""
    library = LoadLibrary(scan.store, options, scan.backend)
    there = open_l1(out).scan(scan.job.scan)
    for band in library.scan(scan.job.scan):
        if band.source is None:
            continue
        used = there.band_scan(band.band) if band.band else there
        try:
            now = library.choose(band, scan.pool).numbers
        except LoadError:
            return True
        if list(used.attrs["load_scans"]) != list(now):
            return True
    return False


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
