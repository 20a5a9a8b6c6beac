"""Results of a load scan in the calibration task: T_rec, T_sys, PWV and bad channels per pixel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gpucal.errors import GpucalError
from gpucal.online.looks.computing import calibrated_look
from gpucal.online.looks.look import BandLook
from gpucal.online.looks.subset import sky_as_scan
from gpucal.online.tasks.scan_in_hand import ScanInHand
from gpucal.pipeline.scan.load_quality import load_quality
from gpucal.scan import Scan, SubscanGroup

NAN = float("nan")


def enter_loads(scan: ScanInHand) -> bool:
    """Enter the loads of all bands in the results; returns whether any pixel can be calibrated with them."""
    rows: list[dict[str, Any]] = []
    for band in scan.bands:
        if band.calibration is None:
            continue
        try:
            rows += list(_rows_of_band(scan, band, band.calibration))
        except GpucalError as error:
            scan.say(f"the loads cannot be used: {error}", "error")
            rows += list(_bad_rows(scan, band, band.calibration, error.message))
    scan.context.results.save("calibrations", rows)
    return any(row["valid"] for row in rows)


def _rows_of_band(scan: ScanInHand, band: Scan, loads: SubscanGroup) -> Iterator[dict[str, Any]]:
    """A row of the table of calibrations for each pixel. Raises GpucalError when the loads cannot be used."""
    quality = load_quality(band, scan.options, scan.backend, scan.pool)
    sky = _sky(scan, band)
    for r, a in np.ndindex(*quality.t_rec.shape):
        good = bool(quality.bad[r, a] < 1.0)
        yield {
            "project": scan.job.project,
            "scan": scan.job.scan,
            "band": band.band,
            "receiver": r,
            "pixel": a,
            "setup": scan.job.setup,
            "t_rec": float(quality.t_rec[r, a]),
            "bad_fraction": float(quality.bad[r, a]),
            "mjd": float(np.mean(loads.mjd_mid)),
            "valid": good,
            "reason": "" if good else "HOT cannot be told from the other load",
            **_of_sky(sky, r, a),
        }


def _bad_rows(
    scan: ScanInHand, band: Scan, loads: SubscanGroup, reason: str
) -> Iterator[dict[str, Any]]:
    """The rows of loads that can be used for no pixel."""
    for r, a in np.ndindex(*loads.shape[2:4]):
        yield {
            "project": scan.job.project,
            "scan": scan.job.scan,
            "band": band.band,
            "receiver": r,
            "pixel": a,
            "setup": scan.job.setup,
            "t_rec": NAN,
            "bad_fraction": 1.0,
            "mjd": float(np.mean(loads.mjd_mid)),
            "valid": False,
            "reason": reason,
            **_of_sky(None, r, a),
        }


def _of_sky(sky: BandLook | None, receiver: int, pixel: int) -> dict[str, float]:
    """The columns that only a look at the sky gives."""
    if sky is None:
        return dict.fromkeys(("t_sys", "t_sys_star", "pwv", "pwv_error", "tau"), NAN)
    return {
        "t_sys": float(sky.t_sys[receiver, pixel]),
        "t_sys_star": float(sky.t_sys_star[receiver, pixel]),
        "pwv": sky.pwv,
        "pwv_error": sky.pwv_error,
        "tau": sky.tau,
    }


def _sky(scan: ScanInHand, band: Scan) -> BandLook | None:
    """T_sys and PWV of a load scan that also saw the sky."""
    pseudo = sky_as_scan(band)
    if pseudo is None:
        return None
    try:
        return calibrated_look(scan.calibrated_with(pseudo, band))
    except GpucalError as error:
        scan.say(f"no T_sys from the SKY of this calibration: {error}", "warning")
        return None
