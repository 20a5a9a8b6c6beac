"""Where the telescope pointed in each moment of a SAM45 log: from the antenna log, or from the records."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpucal.errors import ImportFormatError
from gpucal.io.sam45.antenna import AntennaLog
from gpucal.io.sam45.log import Sam45Log
from gpucal.io.sam45.moments import Moments
from gpucal.io.sam45.times import DAY_S, F64, JST_H

RADEC, AZEL = 0, 2
"""Values of icoord_type, and places in dsrc_pos and dobs_pos; 1 is galactic (LB)."""

SAME_PLACE_DEG = 1e-7


@dataclass(frozen=True, eq=False)
class Pointing:
    """Of each moment [M]: elevation, azimuth (rad), offsets lon, lat from the source (deg, true angles).

    lost      moments without a position, whose counts are not to be used
    origin    where it comes from, for people; error: of the tracking, arcsec, NaN unknown
    """

    elevation: F64
    azimuth: F64
    lon: F64
    lat: F64
    lost: npt.NDArray[np.bool_]
    origin: str
    error: float = float("nan")


def source_position(log: Sam45Log) -> tuple[float, float]:
    """Right ascension and declination of the source, deg; (NaN, NaN) for one on the ground or unknown."""
    lon, lat = (float(log.obs["dsrc_pos"][axis][RADEC]) for axis in (0, 1))
    known = np.isfinite([lon, lat]).all() and (lon, lat) != (0.0, 0.0) and abs(lat) <= 90.0
    fixed = int(log.obs["icoord_type"]) == AZEL
    return (lon, lat) if known and not fixed else (float("nan"), float("nan"))


def from_antenna_log(
    log: Sam45Log, moments: Moments, antenna: AntennaLog, shift_s: float, zone_h: float
) -> Pointing:
    """Interpolated in the antenna log at the middle of each dump.

    Positions on the sky are the programmed ones, elevations the real ones. shift_s: added to the log's times,
    zone_h: as well, hours. Moments that it does not cover are lost.
    """
    when = moments.mjd + JST_H / 24.0 - shift_s / DAY_S - zone_h / 24.0
    (ra, dec, az, el), known = antenna.at(when, ("ra_prog", "dec_prog", "az_real", "el_real"))
    ra_0, dec_0 = source_position(log)
    if np.isfinite(ra_0):
        lon, lat = _offsets(ra, dec, ra_0, dec_0)
    else:
        (az_prog, el_prog), _ = antenna.at(when, ("az_prog", "el_prog"))
        az_0, el_0 = (float(log.obs["dsrc_pos"][axis][AZEL]) for axis in (0, 1))
        lon, lat = _offsets(az_prog, el_prog, az_0, el_0)
    science = np.isin(np.array(moments.kind), ("ON", "OFF", "SKY"))
    nowhere = np.where(known, 0.0, np.nan)
    return Pointing(
        np.deg2rad(el),
        np.deg2rad(az % 360.0),
        lon + nowhere,
        lat + nowhere,
        science & ~known,
        f"antenna log {antenna.path.name}",
        antenna.tracking_error(when[science]),
    )


def from_records(log: Sam45Log, moments: Moments, elevation_deg: float | None) -> Pointing:
    """From dant_real and dobs_pos of the records, or with a given elevation (deg) where they hold none.

    Raises ImportFormatError when there is neither.
    """
    first = moments.rows.max(axis=1)
    real = log.heads["dant_real"][first]
    az, el = real[:, 0].copy(), real[:, 1].copy()
    told = np.isfinite(el) & (el > 0) & (el <= 90.0)
    needed = np.isin(np.array(moments.kind), ("ON", "OFF", "SKY"))
    origin = "records"
    if elevation_deg is not None:
        el[:], az[:] = elevation_deg, np.where(told, az, np.nan)
        origin = f"elevation {elevation_deg:g} deg as given"
    elif not told[needed].all():
        missing = int((needed & ~told).sum())
        raise ImportFormatError(
            f"{log.path}: the elevation is not recorded in {missing} of {int(needed.sum())} dumps, and no antenna log "
            "covers them.",
            hint="Give it with --antenna-log FILE, or the elevation in deg with --elevation.",
        )
    ra, dec = (log.heads["dobs_pos"][first][:, axis, RADEC] for axis in (0, 1))
    ra_0, dec_0 = source_position(log)
    known = np.isfinite(ra + dec + ra_0) & ((ra != 0.0) | (dec != 0.0))
    lon, lat = _offsets(ra, dec, ra_0, dec_0)
    return Pointing(
        np.deg2rad(el),
        np.deg2rad(az % 360.0),
        np.where(known, lon, np.nan),
        np.where(known, lat, np.nan),
        np.zeros(len(moments.kind), dtype=bool),
        origin,
    )


def _offsets(lon: F64, lat: F64, lon_0: float, lat_0: float) -> tuple[F64, F64]:
    """Offsets from a position, deg; the longitude times the cosine of the source's latitude, as exports undo it."""
    turn = (lon - lon_0 + 180.0) % 360.0 - 180.0
    return turn * np.cos(np.deg2rad(lat_0)), lat - lat_0
