"""Rows of the tables of results, from the results of procedures and from calibrated spectra."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.io.l1.reader import L1Scan, open_l1
from gpucal.online.queue.events import Job
from gpucal.online.site.context import Context
from gpucal.online.site.tables import MEAN
from gpucal.pipeline.reduction.collect import StoredBand
from gpucal.procedures.results import (
    FocusResult,
    Measured,
    PointingResult,
    SkydipResult,
    SwitchedResult,
    WeightedMean,
)

Row = dict[str, Any]
F64 = npt.NDArray[np.float64]


def pointing_rows(result: PointingResult) -> Iterator[Row]:
    """Rows of pointings: every drift, then the mean offsets."""
    for fit in result.fits:
        yield {
            **_pixel_place(fit.label, fit.receiver, fit.pixel, fit.valid, fit.reason),
            "direction": fit.axis,
            **_with_error("offset", fit.offset),
            **_with_error("width", fit.fwhm),
            **_with_error("amplitude", fit.corrected if fit.corrected.error > 0 else fit.amplitude),
        }
    for mean in result.means:
        if mean.name == "offset":
            width = result.mean(mean.axis, "fwhm").mean
            yield {**_mean_place(mean), "direction": mean.axis} | {
                **_with_error("offset", mean.mean),
                **_with_error("width", width),
            }


def focus_rows(result: FocusResult) -> Iterator[Row]:
    """Rows of foci: every fit, then the mean position of each axis."""
    for fit in result.fits:
        yield {
            **_pixel_place(fit.label, fit.receiver, fit.pixel, fit.valid, fit.reason),
            "axis": fit.axis,
            **_with_error("position", fit.best),
            **_with_error("peak", fit.peak),
        }
    for mean in result.means:
        yield {**_mean_place(mean), "axis": mean.axis, **_with_error("position", mean.mean)}


def skydip_rows(result: SkydipResult) -> Iterator[Row]:
    """Rows of skydips: every pixel, then the mean."""
    for fit in result.fits:
        yield {
            **_pixel_place(fit.label, fit.receiver, fit.pixel, fit.valid, fit.reason),
            **_with_error("tau", fit.tau),
            **_with_error("f_eff", fit.f_eff),
        }
    mean = result.mean("airmass", "tau")
    yield {
        **_mean_place(mean),
        **_with_error("tau", mean.mean),
        **_with_error("f_eff", result.mean("airmass", "f_eff").mean),
    }


def spectrum_rows(result: Mapping[str, SwitchedResult]) -> Iterator[Row]:
    """Rows of spectra: noise of the average of every pixel, against what is expected."""
    for band, found in result.items():
        for r, a in np.ndindex(*found.rms.shape):
            yield {
                **_pixel_place(band, r, a, found.valid, found.reason),
                "rms": float(found.rms[r, a]),
                "rms_expected": float(found.expected[r, a]),
                "exptime": float(found.time[r, a]),
            }


def rows_of_l1(job: Job, context: Context) -> Iterator[Row]:
    """Temperatures (of the middle subscan), opacity and rms of each pixel, as the calibrated store has them."""
    scan = open_l1(context.l1(job)).scan(job.scan)
    for band in scan.bands or [""]:
        part = scan.band_scan(band) if band else scan
        temperatures = _temperatures(part)
        quality = part.attrs["qa"]
        rms, expected = (
            np.array(quality[k], dtype=object).astype(np.float64)
            for k in ("rms_measured", "rms_expected")
        )
        mjd = float(np.nanmean(np.asarray(part["mjd"][...])))
        for r, a in np.ndindex(*temperatures["t_sys_star"].shape):
            good = bool(np.isfinite(temperatures["t_sys_star"][r, a]))
            yield {
                "project": job.project,
                "scan": job.scan,
                "mjd": mjd,
                **_pixel_place(band, r, a, good, "" if good else "no good channel"),
                **{name: float(values[r, a]) for name, values in temperatures.items()},
                "pwv": _number(quality.get("pwv")),
                "pwv_error": _number(quality.get("pwv_error")),
                "tau": _opacity(part),
                "rms": float(rms[r, a]),
                "rms_expected": float(expected[r, a]),
            }


def _temperatures(part: L1Scan) -> dict[str, F64]:
    """t_rec, t_sys and t_sys_star f64 [R,A] K of the middle subscan, medians over the good channels.

    t_sys is NaN where a vane gave T_sys* alone.
    """
    stored = part["t_sys"]
    middle = stored.shape[-1] // 2
    star = StoredBand(part).t_sys_star(middle, 0, stored.shape[0])
    t_sys = np.asarray(stored[..., middle], dtype=np.float64)
    if stored.attrs.get("t_sys_convention") == "T_sys*":
        t_sys = np.full_like(t_sys, np.nan)
    t_rec = np.asarray(part["t_rec"][...], dtype=np.float64)
    return {"t_rec": _median(t_rec), "t_sys": _median(t_sys), "t_sys_star": _median(star)}


def _median(values: F64) -> F64:
    """The median over channels, f64 [R,A]; NaN where none is good."""
    empty = ~np.isfinite(values).any(axis=0)
    return np.where(empty, np.nan, np.nanmedian(np.where(empty, 0.0, values), axis=0))


def _opacity(part: L1Scan) -> float:
    """Opacity of the signal sideband, Np at the zenith; NaN where neither a fit nor the user gave one."""
    tau = np.asarray(part["tau_signal"][...], dtype=np.float64)
    middle = float(np.nanmedian(tau)) if np.isfinite(tau).any() else float("nan")
    fitted = math.isfinite(_number(part.attrs["qa"].get("pwv")))
    return middle if fitted or middle > 0 else float("nan")


def _number(value: Any) -> float:
    """A number of the attributes, where None stands for NaN."""
    return float(value) if isinstance(value, int | float) else float("nan")


def _pixel_place(band: str, receiver: int, pixel: int, valid: bool, reason: str) -> Row:
    """The columns that say of which pixel a row is, and whether it is good."""
    return {"band": band, "receiver": receiver, "pixel": pixel, "valid": valid, "reason": reason}


def _mean_place(mean: WeightedMean) -> Row:
    """The columns that say of what a row is, for a mean over all pixels."""
    return _pixel_place("", MEAN, MEAN, mean.valid, mean.reason)


def _with_error(name: str, measured: Measured) -> Row:
    """The two columns of a value with an error."""
    return {name: measured.value, f"{name}_error": measured.error}
