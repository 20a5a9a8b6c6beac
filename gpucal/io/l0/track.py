"""The telescope's track of a bolometer scan, merged with the dumps by time.

A track is recorded at its own rate: arrays ``track_mjd`` [N] (MJD UTC, d), ``track_azimuth`` and
``track_elevation`` [N] (rad), optionally ``track_lon`` and ``track_lat`` [N] (deg).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from gpucal.errors import L0Error
from gpucal.io.l0.schema import TRACK_ARRAYS

F64 = npt.NDArray[np.float64]

TRACK_TIME = "track_mjd"
_PERIOD = {"track_azimuth": 2 * np.pi, "track_lon": 360.0}
_TARGET = {
    "track_azimuth": "azimuth",
    "track_elevation": "elevation",
    "track_lon": "otf_lon",
    "track_lat": "otf_lat",
}
"""Array of the track -> array of the dumps that it gives."""


def check_track(track: Mapping[str, npt.NDArray[np.generic]]) -> None:
    """Raise L0Error unless the arrays of a track [N] are alike and in the order of time.

    Expected are ``track_mjd``, ``track_azimuth`` and ``track_elevation``, all of one length of at
    least 1, with finite times that increase from sample to sample.
    """
    for name in ("track_mjd", "track_azimuth", "track_elevation"):
        if name not in track:
            raise L0Error(f"array {name} is missing, expected it beside {', '.join(track)}.")
    times = np.asarray(track[TRACK_TIME], dtype=np.float64)
    for name, values in track.items():
        if values.dtype.kind != "f":
            raise L0Error(f"array {name} has dtype {values.dtype}, expected floating point.")
        if values.ndim != 1 or values.shape != times.shape or not values.size:
            raise L0Error(
                f"array {name} has shape {values.shape}, track_mjd {times.shape}, expected one "
                "axis of the same length."
            )
    if not np.isfinite(times).all():
        at = int(np.argmin(np.isfinite(times)))
        raise L0Error(f"track_mjd of sample {at} is {times[at]:g}, expected MJD.")
    steps = np.diff(times)
    if (steps <= 0).any():
        at = int(np.argmax(steps <= 0))
        raise L0Error(
            f"track_mjd does not increase from sample {at} to {at + 1}: {times[at]:.8f} to "
            f"{times[at + 1]:.8f}."
        )


def merge_track(track: Mapping[str, npt.NDArray[np.generic]], mjd: F64) -> dict[str, F64]:
    """Positions at the times of the dumps, linear between the samples of the track.

    track: as in ``check_track``; mjd f64 [...] (MJD UTC). Returns ``azimuth``, ``elevation`` (rad)
    and, where the track has them, ``otf_lon``, ``otf_lat`` (deg), f64 of the shape of mjd. NaN
    before the first and after the last sample, where mjd is NaN, and between samples of which one
    is not a number. Azimuth and longitude are followed across the full circle and come back in the
    range that the track uses. Raises L0Error for a track that cannot be used.
    """
    check_track(track)
    times = np.asarray(track[TRACK_TIME], dtype=np.float64)
    merged = {}
    for name in TRACK_ARRAYS:
        if name in track and name != TRACK_TIME:
            values = np.asarray(track[name], dtype=np.float64)
            merged[_TARGET[name]] = _interpolate(times, values, mjd, _PERIOD.get(name))
    return merged


def outside_track(track: Mapping[str, npt.NDArray[np.generic]], mjd: F64) -> int:
    """How many of the finite times ``mjd`` lie before or after the track."""
    times = track[TRACK_TIME]
    return int(((mjd < times[0]) | (mjd > times[-1])).sum())


def _interpolate(times: F64, values: F64, mjd: F64, period: float | None) -> F64:
    """Values at ``mjd``, linear; NaN outside the track and next to a NaN; ``period``: of an angle, else None."""
    good = np.isfinite(values)
    if not good.any():
        return np.full(mjd.shape, np.nan)
    known = values[good]
    smooth = known if period is None else np.unwrap(known, period=period)
    result = np.interp(mjd, times[good], smooth, left=np.nan, right=np.nan)
    if not good.all():
        doubtful = np.interp(mjd, times, (~good).astype(np.float64)) > 0
        result = np.where(doubtful, np.nan, result)
    result = np.where((mjd >= times[0]) & (mjd <= times[-1]), result, np.nan)
    return result if period is None else _in_range_of(known, result, period)


def _in_range_of(known: F64, values: F64, period: float) -> F64:
    """Angles in 0..360 or -180..180 deg when the track keeps to it; else (cable wrap) as they are."""
    for low in (0.0, -0.5 * period):
        if known.min() >= low and known.max() <= low + period:
            inside = (values >= low) & (values <= low + period)
            return np.where(inside, values, (values - low) % period + low)
    return values
