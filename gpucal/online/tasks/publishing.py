"""The result of a scan that has ended: entered, logged, and told to the control system."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from gpucal.io.files.json_text import plain
from gpucal.online.queue.events import Job
from gpucal.online.site.context import Context
from gpucal.online.site.feedback import publish
from gpucal.online.site.log_lines import is_known, log_line
from gpucal.online.site.result_rows import (
    Row,
    focus_rows,
    pointing_rows,
    skydip_rows,
    spectrum_rows,
)
from gpucal.online.site.tables import MEAN
from gpucal.online.tasks.outcome import Outcome
from gpucal.pipeline.reduction.procedure_choice import Procedure
from gpucal.pipeline.reduction.products import Reduced


@dataclass(frozen=True)
class _Destination:
    """Where the results of a procedure go. told: the control system wants them."""

    table: str
    log: str
    rows: Callable[[Any], Iterator[Row]]
    told: bool = True


_DESTINATIONS: dict[Procedure, _Destination] = {
    "pointing": _Destination("pointings", "pointing", pointing_rows),
    "focus": _Destination("foci", "focus", focus_rows),
    "skydip": _Destination("skydips", "skydip", skydip_rows),
    "on-off": _Destination("spectra", "spectra", spectrum_rows, told=False),
}


def publish_result(job: Job, reduced: Reduced, outcome: Outcome, context: Context) -> None:
    """Enter the result of a scan in its table, and its means in the log; say what is wrong with it; tell."""
    to = _DESTINATIONS[reduced.procedure]
    place = {"project": job.project, "scan": job.scan, "mjd": reduced.mjd}
    rows = [{**place, **row} for row in to.rows(reduced.result)]
    context.results.save(to.table, rows)
    means = [row for row in rows if row["pixel"] == MEAN] or rows
    for row in means:
        context.log(job, to.log, log_line(row, reduced.source, cancelled=outcome.cancelled))
    for text in reduced.warnings:
        context.say(job, text, "warning")
    if not reduced.valid:
        context.say(job, f"{outcome.end}: {reduced.reason}", "warning")
    if to.told:
        payload = feedback_payload(job, outcome, reduced, means)
        what = {"project": job.project, "scan": job.scan, "kind": to.log}
        publish(context.config, context.results, what, payload)


def feedback_payload(
    job: Job, outcome: Outcome, reduced: Reduced, means: list[Row]
) -> dict[str, Any]:
    """What the control system is told; numbers that are not valid are null and say why."""
    place = ("project", "scan", "band", "receiver", "pixel")
    return {
        "format": "gpucal-feedback",
        "version": 1,
        "project": job.project,
        "scan": job.scan,
        "procedure": outcome.end,
        "source": reduced.source,
        "azimuth_deg": _degrees(reduced.azimuth),
        "elevation_deg": _degrees(reduced.elevation),
        "cancelled": outcome.cancelled,
        "valid": reduced.valid,
        "reason": reduced.reason,
        "results": [plain({k: v for k, v in row.items() if k not in place}) for row in means],
    }


def _degrees(angle: float) -> float | None:
    """An angle in deg, from rad; None when not known."""
    return math.degrees(angle) if is_known(angle) else None
