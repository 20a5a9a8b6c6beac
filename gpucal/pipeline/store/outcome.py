"""Outcome of a scan: its quality and its summary, or why it failed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpucal.errors import GpucalError
from gpucal.physics.atm import AtmosphereTable
from gpucal.pipeline.scan.solve import StageTimer
from gpucal.pipeline.store.report import NAN, Failure, ScanSummary
from gpucal.steps.loads import nan_median
from gpucal.steps.quality import (
    QualitySums,
    quality_attributes,
    system_temperature_from_counts,
)
from gpucal.steps.scale import scale_of_output
from gpucal.steps.solution import ScanSolution


def failure_of(number: int, stage: str, error: BaseException) -> Failure:
    """The entry of ``failures.json`` for an error; a GpucalError keeps the stage that it knows."""
    logging.getLogger(__name__).debug("scan %d failed", number, exc_info=error)
    if not isinstance(error, GpucalError):
        name, reason = type(error).__name__, " ".join(str(error).split()).rstrip(".")
        text = f"scan {number}: unexpected {name}: {reason or 'no message'}."
        return Failure(number, stage, name, text, "Run with --verbose for the traceback.")
    error.locate(scan=number, stage=stage)
    text = str(error).removesuffix(f" {error.hint}") if error.hint else str(error)
    return Failure(number, error.stage, type(error).__name__, text, error.hint)


def band_quality(
    solution: ScanSolution, sums: QualitySums, table: AtmosphereTable | None
) -> dict[str, Any]:
    """The ``qa`` attribute of a band; T_sys is that of the middle output."""
    xp = solution.backend.xp
    n_channels, *_, n_outputs = solution.output_shape
    middle = n_outputs // 2
    t_sys = scale_of_output(solution, middle, 0, n_channels).t_sys
    median = float(nan_median(xp.reshape(t_sys, (-1,)), xp))
    quality = quality_attributes(solution, sums, median)
    quality |= system_temperature_from_counts(solution, middle, solution.backend)
    span = table.pwv_range_mm if table is not None else None
    pwv = quality["pwv"]
    quality["pwv_outside_table"] = bool(
        span is not None and np.isfinite(pwv) and not span[0] <= pwv <= span[1]
    )
    return quality


def band_summary(
    solution: ScanSolution,
    quality: dict[str, Any],
    warnings: Sequence[str],
    timer: StageTimer,
    seconds: float,
    bytes_read: int,
) -> ScanSummary:
    """The row of the final table for a band that was calibrated."""
    notes = list(warnings)
    if quality["pwv_outside_table"]:
        notes.append(
            f"the fitted PWV of {quality['pwv']:.3g} mm lies outside the range of the atmosphere table"
        )
    if quality["nan_fraction"] >= 1.0:
        sky = solution.own_sky(solution.output_shape[4] // 2).counts
        seen = bool(solution.backend.xp.any(solution.backend.xp.isfinite(sky)))
        whose = "its counts" if seen else "the counts of its OFF"
        notes.append(f"no sample of any ON is good: {whose} were never written, or are all bad.")
    ratio = np.asarray(quality["rms_ratio"], dtype=np.float64)
    ratio = ratio[np.isfinite(ratio)]
    return ScanSummary(
        scan=solution.scan.number,
        band=solution.scan.band,
        mode=solution.pairing.mode,
        status="calibrated",
        pwv=quality["pwv"],
        pwv_error=quality["pwv_error"],
        t_rec=quality["t_rec_median"],
        t_sys=quality["t_sys_median"],
        rms_ratio=float(np.median(ratio)) if ratio.size else NAN,
        flagged_fraction=quality["flagged_fraction"],
        seconds=seconds,
        bytes_read=bytes_read,
        warnings=tuple(notes),
        timing=dict(timer.milliseconds),
    )
