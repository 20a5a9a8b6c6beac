"""Outcome of a scan: its quality and its summary, or why it failed."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpucal.config import CalibrationConfig
from gpucal.errors import GpucalError, no_threads, words_of
from gpucal.io.l1.failures import write_failures
from gpucal.io.l1.writer import L1Store
from gpucal.physics.atm import AtmosphereTable
from gpucal.pipeline.scan.alarms import alarms_of, with_alarms
from gpucal.pipeline.scan.solve import StageTimer
from gpucal.pipeline.store.report import NAN, Failure, ScanSummary, StoreReport
from gpucal.steps.loads import nan_median
from gpucal.steps.quality import (
    QualitySums,
    outlier_notes,
    quality_attributes,
    system_temperature_from_counts,
)
from gpucal.steps.scale import scale_of_output
from gpucal.steps.solution import ScanSolution

_ROOM = "Make room, or look at the disk and its rights; then run the same command again."


def failure_of(number: int, stage: str, error: BaseException) -> Failure:
    """The entry of ``failures.json`` for an error; a GpucalError keeps the stage that it knows."""
    logging.getLogger(__name__).debug("scan %d failed", number, exc_info=error)
    error = no_threads(error) or error
    if isinstance(error, OSError) and error.strerror and not isinstance(error, GpucalError):
        return Failure(
            number, stage, type(error).__name__, f"scan {number}: {words_of(error)}.", _ROOM
        )
    if not isinstance(error, GpucalError):
        name, reason = type(error).__name__, " ".join(str(error).split()).rstrip(".")
        text = f"scan {number}: unexpected {name}: {reason or 'no message'}."
        return Failure(number, stage, name, text, "Run with --verbose for the traceback.")
    error.locate(scan=number, stage=stage)
    text = str(error).removesuffix(f" {error.hint}") if error.hint else str(error)
    return Failure(number, error.stage, type(error).__name__, text, error.hint)


def record_failures(store: L1Store, report: StoreReport) -> None:
    """Enter the failures of a run in ``failures.json``; those of scans that it did not look at stay."""
    looked_at = {s.scan for s in report.summaries}
    write_failures(store, [f.as_dict() for f in report.failures], looked_at)


def band_quality(
    solution: ScanSolution, sums: QualitySums, table: AtmosphereTable | None
) -> dict[str, Any]:
    """The ``qa`` attribute of a band; T_sys is that of the middle output."""
    xp = solution.backend.xp
    n_channels, *_, n_outputs = solution.output_shape
    middle = n_outputs // 2
    scale = scale_of_output(solution, middle, 0, n_channels)
    t_sys, t_sys_star = (
        float(nan_median(xp.reshape(values, (-1,)), xp))
        for values in (scale.t_sys, scale.t_sys_star)
    )
    quality = quality_attributes(solution, sums, t_sys, t_sys_star)
    quality |= system_temperature_from_counts(solution, middle, solution.backend)
    return with_alarms(quality, solution, table)


def band_summary(
    solution: ScanSolution,
    quality: dict[str, Any],
    warnings: Sequence[str],
    timer: StageTimer,
    seconds: float,
    bytes_read: int,
) -> ScanSummary:
    """The row of the final table for a band that was calibrated."""
    notes = [*warnings, *outlier_notes(quality)]
    if quality["nan_fraction"] >= 1.0:
        sky = solution.own_sky(solution.output_shape[4] // 2).counts
        seen = bool(solution.backend.xp.any(solution.backend.xp.isfinite(sky)))
        whose = "its counts" if seen else "the counts of its OFF"
        notes.append(f"no sample of any ON is good: {whose} were never written, or are all bad.")
    return ScanSummary(
        scan=solution.scan.number,
        band=solution.scan.band,
        mode=solution.pairing.mode,
        status="calibrated",
        seconds=seconds,
        bytes_read=bytes_read,
        warnings=tuple(dict.fromkeys((*notes, *quality["alarms"].values()))),
        timing=dict(timer.milliseconds),
        alarms=quality["alarms"],
        **_numbers(quality),
    )


def finished_summary(
    number: int, band: str, attrs: Mapping[str, Any], config: CalibrationConfig
) -> ScanSummary:
    """The row of a band that is in L1 already, from its attributes; alarms by the thresholds of today."""
    quality = attrs.get("qa") or {}
    if "t_sys_sidebands" not in quality and str(attrs.get("cal_scheme", "")).startswith("vane"):
        # written before L1 held both: what is called t_sys there is T_sys*
        star = quality.get("t_sys_median", NAN)
        quality = {**quality, "t_sys_median": NAN, "t_sys_star_median": star}
    alarms = alarms_of(quality, config)
    notes = [str(text) for text in attrs.get("warnings") or ()]
    notes += outlier_notes(quality)
    return ScanSummary(
        scan=number,
        band=band,
        mode=str(attrs.get("mode") or ""),
        status="skipped",
        warnings=tuple(dict.fromkeys((*notes, *alarms.values()))),
        alarms=alarms,
        **_numbers(quality),
    )


def _numbers(quality: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a row, from the ``qa`` attribute; in L1 a NaN is a text."""
    of_attribute = {
        "pwv": "pwv",
        "pwv_error": "pwv_error",
        "t_rec": "t_rec_median",
        "t_sys": "t_sys_median",
        "t_sys_star": "t_sys_star_median",
        "flagged_fraction": "flagged_fraction",
    }
    found: dict[str, Any] = {k: float(quality.get(v, NAN)) for k, v in of_attribute.items()}
    found["sidebands"] = str(quality.get("t_sys_sidebands") or "")
    ratio = np.array(quality.get("rms_ratio", []), dtype=object).astype(np.float64)
    ratio = ratio[np.isfinite(ratio)]
    return {**found, "rms_ratio": float(np.median(ratio)) if ratio.size else NAN}
