"""The obs_procedure task: from a scan to its result, the logs, and what the telescope is told."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpucal.errors import GpucalError, OnlineError
from gpucal.io.l0.store import open_l0
from gpucal.io.l1.reader import open_l1
from gpucal.online.queue.events import END, Job
from gpucal.online.site.config import OnlineConfig
from gpucal.online.site.context import Context
from gpucal.online.site.feedback import publish
from gpucal.online.tasks.calibrating import Outcome, outcome_path
from gpucal.online.tasks.subset import choose_subscans
from gpucal.pipeline.reduction.reduce import RawScan
from gpucal.pipeline.reduction.reduced import Reduced, ReduceOptions
from gpucal.procedures.names import procedure_of
from gpucal.procedures.results import (
    FocusResult,
    Measured,
    PointingResult,
    SkydipResult,
    SwitchedResult,
    WeightedMean,
)

TASK = "obs_procedure"
FITTED = {"pointing": "pointing", "focus": "focus", "skydip": "skydip"}
AVERAGED = {"on-off": "on-off", "frequency-switch": "on-off"}
MEAN = -1
"""Receiver and pixel of a mean over all of them."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Product:
    """What the plot task draws. final: of the whole scan, not of a subscan."""

    reduced: Reduced | None
    final: bool


def product_path(config: OnlineConfig, job: Job) -> Path:
    """Where this task leaves its product for ``job``."""
    return config.work_of(TASK, job.project) / f"{job.name.removesuffix('.json')}.pickle"


def load_product(config: OnlineConfig, job: Job) -> Product:
    """Read the product of ``job``; it was written by this program, in its own folder."""
    path = product_path(config, job)
    try:
        found = pickle.loads(path.read_bytes())
    except (OSError, pickle.UnpicklingError, EOFError, AttributeError, ImportError) as error:
        raise OnlineError(f"{path.name} of the procedure cannot be read: {error}.") from error
    if not isinstance(found, Product):
        raise OnlineError(f"{path.name} of the procedure holds something else.")
    return found


def run_procedure(job: Job, context: Context) -> None:
    """Fit what there is to fit; at the end of a scan, enter and publish it."""
    outcome = Outcome.load(outcome_path(context.config, job))
    reduced: Reduced | None = None
    if outcome.end in FITTED or outcome.end in AVERAGED:
        reduced = _whole_scan(job, outcome, context)
    elif job.subscan != END and job.group == "source" and not outcome.end:
        reduced = _one_subscan(job, context)
    if outcome.loads:
        _log_calibration(job, context)
    if outcome.l1:
        context.results.save("spectra", list(_rows_of_l1(job, context)))
    if reduced is not None and outcome.end:
        _enter(job, reduced, outcome, context)
    path = product_path(context.config, job)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.new")
    aside.write_bytes(pickle.dumps(Product(reduced, bool(outcome.end))))
    aside.replace(path)


def _raw(job: Job, context: Context) -> RawScan:
    options = context.config.calibration.model_copy(update={"partial": True, "scans": ""})
    return RawScan(open_l0(job.store), job.scan, options, None)


def _whole_scan(job: Job, outcome: Outcome, context: Context) -> Reduced | None:
    wanted = {**FITTED, **AVERAGED}[outcome.end]
    try:
        return _raw(job, context).reduce(wanted, ReduceOptions())
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


def _enter(job: Job, reduced: Reduced, outcome: Outcome, context: Context) -> None:
    result = reduced.result
    if isinstance(result, PointingResult):
        table, rows = "pointings", list(_pointing_rows(result))
    elif isinstance(result, FocusResult):
        table, rows = "foci", list(_focus_rows(result))
    elif isinstance(result, SkydipResult):
        table, rows = "skydips", list(_skydip_rows(result))
    else:
        table, rows = "spectra", list(_spectrum_rows(result))
    place = {"project": job.project, "scan": job.scan, "mjd": reduced.mjd}
    rows = [{**place, **row} for row in rows]
    context.results.save(table, rows)
    name = {"pointings": "pointing", "foci": "focus", "skydips": "skydip"}.get(table, table)
    means = [row for row in rows if row["pixel"] == MEAN] or rows
    for row in means:
        context.log(job, name, log_line(row, reduced.source, cancelled=outcome.cancelled))
    for text in reduced.warnings:
        context.say(job, text, "warning")
    if not reduced.valid:
        context.say(job, f"{outcome.end}: {reduced.reason}", "warning")
    if table != "spectra":
        payload = feedback_payload(job, outcome, reduced, means)
        what = {"project": job.project, "scan": job.scan, "kind": name}
        publish(context.config, context.results, what, payload)


def _pointing_rows(result: PointingResult) -> Iterator[Row]:
    for fit in result.fits:
        yield {
            **_place(fit.label, fit.receiver, fit.pixel, fit.valid, fit.reason),
            "direction": fit.axis,
            **_pair("offset", fit.offset),
            **_pair("width", fit.fwhm),
            **_pair("amplitude", fit.corrected if fit.corrected.error > 0 else fit.amplitude),
        }
    for mean in result.means:
        if mean.name == "offset":
            width = result.mean(mean.axis, "fwhm").mean
            yield {**_of_mean(mean), "direction": mean.axis} | {
                **_pair("offset", mean.mean),
                **_pair("width", width),
            }


def _focus_rows(result: FocusResult) -> Iterator[Row]:
    for fit in result.fits:
        yield {
            **_place(fit.label, fit.receiver, fit.pixel, fit.valid, fit.reason),
            "axis": fit.axis,
            **_pair("position", fit.best),
            **_pair("peak", fit.peak),
        }
    for mean in result.means:
        yield {**_of_mean(mean), "axis": mean.axis, **_pair("position", mean.mean)}


def _skydip_rows(result: SkydipResult) -> Iterator[Row]:
    for fit in result.fits:
        yield {
            **_place(fit.label, fit.receiver, fit.pixel, fit.valid, fit.reason),
            **_pair("tau", fit.tau),
            **_pair("f_eff", fit.f_eff),
        }
    mean = result.mean("airmass", "tau")
    yield {
        **_of_mean(mean),
        **_pair("tau", mean.mean),
        **_pair("f_eff", result.mean("airmass", "f_eff").mean),
    }


def _spectrum_rows(result: Mapping[str, SwitchedResult]) -> Iterator[Row]:
    for band, found in result.items():
        for r, a in np.ndindex(*found.rms.shape):
            yield {
                **_place(band, r, a, found.valid, found.reason),
                "rms": float(found.rms[r, a]),
                "rms_expected": float(found.expected[r, a]),
                "exptime": float(found.time[r, a]),
            }


def _rows_of_l1(job: Job, context: Context) -> Iterator[Row]:
    """T_sys (of the middle subscan) and rms of each pixel, as the calibrated store has them."""
    scan = open_l1(context.project(job) / "l1.zarr").scan(job.scan)
    for band in scan.bands or [""]:
        part = scan.band_scan(band) if band else scan
        quality = part.attrs["qa"]
        t_sys = part["t_sys"]
        middle = np.asarray(t_sys[..., t_sys.shape[-1] // 2], dtype=np.float64)
        rms, expected = (
            np.array(quality[k], dtype=object).astype(np.float64)
            for k in ("rms_measured", "rms_expected")
        )
        mjd = float(np.nanmean(np.asarray(part["mjd"][...])))
        for r, a in np.ndindex(*middle.shape[1:]):
            good = middle[:, r, a][np.isfinite(middle[:, r, a])]
            yield {
                "project": job.project,
                "scan": job.scan,
                "mjd": mjd,
                **_place(band, r, a, bool(good.size), "" if good.size else "no good channel"),
                "t_sys": float(np.median(good)) if good.size else float("nan"),
                "rms": float(rms[r, a]),
                "rms_expected": float(expected[r, a]),
            }


def _place(band: str, receiver: int, pixel: int, valid: bool, reason: str) -> Row:
    return {"band": band, "receiver": receiver, "pixel": pixel, "valid": valid, "reason": reason}


def _of_mean(mean: WeightedMean) -> Row:
    return _place("", MEAN, MEAN, mean.valid, mean.reason)


def _pair(name: str, measured: Measured) -> Row:
    return {name: measured.value, f"{name}_error": measured.error}


_LOGGED = {
    "offset": "arcsec",
    "width": "arcsec",
    "amplitude": "K",
    "position": "mm",
    "peak": "K",
    "tau": "Np",
    "f_eff": "",
    "rms": "K",
    "rms_expected": "K",
    "t_rec": "K",
    "t_sys": "K",
    "pwv": "mm",
}


def log_line(row: Mapping[str, Any], source: str, *, cancelled: bool = False) -> str:
    """One result as one line of text: time, scan, place, values with errors and units."""
    parts = [f"mjd {row['mjd']:.5f}" if _known(row.get("mjd")) else "mjd -", f"scan {row['scan']}"]
    parts += [source] if source else []
    parts += [str(row[k]) for k in ("direction", "axis") if row.get(k)]
    everywhere = row["pixel"] == MEAN
    parts.append(
        "mean" if everywhere else f"{row['band']} r{row['receiver']} p{row['pixel']}".strip()
    )
    for name, unit in _LOGGED.items():
        if name in row and _known(row[name]):
            error = row.get(f"{name}_error")
            text = f"{name} {row[name]:.4g}"
            text += f" +- {error:.2g}" if _known(error) else ""
            parts.append(f"{text} {unit}".rstrip())
    if not row.get("valid", True):
        parts.append(f"INVALID: {row.get('reason') or 'no reason given'}")
    return "  ".join(parts) + ("  (cancelled)" if cancelled else "")


def _known(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _log_calibration(job: Job, context: Context) -> None:
    for row in context.results.rows("calibrations", project=job.project, scan=job.scan):
        context.log(job, "calibration", log_line(row, ""))


def feedback_payload(
    job: Job, outcome: Outcome, reduced: Reduced, means: list[Row]
) -> dict[str, Any]:
    """What the control system is told; numbers that are not valid are null and say why."""
    place = ("project", "scan", "band", "receiver", "pixel")
    values = [
        {
            k: (None if isinstance(v, float) and not math.isfinite(v) else v)
            for k, v in row.items()
            if k not in place
        }
        for row in means
    ]
    return {
        "format": "gpucal-feedback",
        "version": 1,
        "project": job.project,
        "scan": job.scan,
        "procedure": outcome.end,
        "source": reduced.source,
        "azimuth_deg": math.degrees(reduced.azimuth) if _known(reduced.azimuth) else None,
        "elevation_deg": math.degrees(reduced.elevation) if _known(reduced.elevation) else None,
        "cancelled": outcome.cancelled,
        "valid": reduced.valid,
        "reason": reduced.reason,
        "results": values,
    }
