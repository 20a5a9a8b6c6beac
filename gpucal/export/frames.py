"""Direction of a scan, and the velocity of the site against the frame of its velocities.

Source: astropy's ephemeris, Earth rotation and frames.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.errors import ConfigError, GpucalWarning
from gpucal.physics.doppler import LIGHT, site_velocity, to_radio
from gpucal.physics.rest_frames import CODES, MOTION, definition_of, direction_cosines
from gpucal.spectrum import Frame

F64 = npt.NDArray[np.float64]
NAN = float("nan")


@dataclass(frozen=True)
class Site:
    """Geodetic position of the telescope; NaN = not known."""

    lat_deg: float = NAN
    lon_deg: float = NAN
    alt_m: float = NAN

    @property
    def known(self) -> bool:
        return math.isfinite(self.lat_deg + self.lon_deg + self.alt_m)


@dataclass(frozen=True, eq=False)
class Pointing:
    """Times and directions of the dumps, f64 [D, S]: MJD UTC, rad, rad, deg, deg."""

    mjd: F64
    azimuth: F64
    elevation: F64
    otf_lon: F64
    otf_lat: F64


@dataclass(frozen=True, eq=False)
class ScanFrame:
    """Direction and velocities of a scan, as far as they are known.

    ra, dec deg ICRS; frame and velocity (m/s, radio) of the source; site_velocity f64 [D, S] m/s, as in
    ``Spectrum``; offset_lon, offset_lat f64 [D, S] deg: of the tracked point from the source. turn: rad, by
    which the store's own axes (those of the pixel offsets) lie east of north, 0 where they are ra and dec.
    """

    ra: float
    dec: float
    frame: Frame
    velocity: float
    site_velocity: F64
    offset_lon: F64
    offset_lat: F64
    turn: float = 0.0

    def turned(self, lon: F64, lat: F64) -> tuple[F64, F64]:
        """Pixel offsets of the store, deg, as offsets along ra and dec, deg."""
        c, s = math.cos(self.turn), math.sin(self.turn)
        return c * lon + s * lat, c * lat - s * lon


def scan_frame(attrs: Mapping[str, Any], site: Site, pointing: Pointing) -> ScanFrame:
    """Direction, velocity frame and site velocity of a scan.

    Absolute positions (imported GBT data: ``scan_metadata`` has CTYPE2; galactic ones and those of B1950
    become ICRS) are the direction, their mean the source's; otherwise ``source_direction`` ({"lon_deg",
    "lat_deg", "frame": "icrs", "fk5", "fk4" or "galactic"}), from which the offsets count; otherwise
    azimuth and elevation of the middle of the scan, less the OTF offset there. ``velocity_frame_mps``
    (VFRAME of SDFITS) wins over astropy.
    What cannot be known is NaN, so the velocity of the source where ``velocity_definition`` has a
    convention or frame that is not known; a GpucalWarning says so.
    Raises ConfigError without astropy.
    """
    ra, dec, lon, lat, turn = _direction(attrs, site, pointing)
    definition = str(attrs.get("velocity_definition") or "RADI-LSR")
    convention, told = definition_of(definition)
    frame: Frame = told or "LSRK"
    velocity = 1e3 * number(attrs.get("velocity_source_kms"))
    if told is None or convention is None:
        _drop_velocity(attrs, definition, velocity)
        velocity = NAN
    else:
        velocity = to_radio(velocity, convention)
    vframe = number(attrs.get("velocity_frame_mps"))
    if told is not None and math.isfinite(vframe):
        moving = np.full(pointing.mjd.shape, site_velocity(vframe))
    elif frame == "TOPOCENT":
        moving = np.zeros(pointing.mjd.shape)
    else:
        moving = _astropy_velocity(ra, dec, site, pointing.mjd, frame)
    return ScanFrame(ra, dec, frame, velocity, moving, lon, lat, turn)


def _drop_velocity(attrs: Mapping[str, Any], definition: str, velocity: float) -> None:
    """Say that the velocity of the source cannot be used."""
    if not math.isfinite(velocity):
        return
    number_of = attrs.get("scan_number")
    place = "" if number_of is None else f"scan {number_of}: "
    warnings.warn(
        f"{place}the velocity of the source ({velocity / 1e3:g} km/s) is left out: its definition is "
        f"{definition!r}, expected RADI, OPTI or RELA and one of {', '.join(CODES.values())}, as "
        "RADI-LSR.",
        GpucalWarning,
        stacklevel=3,
    )


def number(value: Any) -> float:
    """A number of the attributes; NaN for what is missing or is no single number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return NAN


def _direction(
    attrs: Mapping[str, Any], site: Site, pointing: Pointing
) -> tuple[float, float, F64, F64, float]:
    """ra, dec of the middle (deg, NaN unknown), offsets lon, lat [D,S] (deg), and ``turn`` of ``ScanFrame``."""
    kind = (attrs.get("scan_metadata") or {}).get("CTYPE2")
    lon, lat = pointing.otf_lon, pointing.otf_lat
    good = np.isfinite(pointing.mjd + lon + lat)
    if kind is None and (given := attrs.get("source_direction")):
        at = np.array([float(given["lon_deg"])]), np.array([float(given["lat_deg"])])
        if given["frame"] == "icrs":
            return float(at[0][0]), float(at[1][0]), lon, lat, 0.0
        moved = _to_icrs(*at, np.ones(1, dtype=bool), given["frame"])
        return float(moved[0][0]), float(moved[1][0]), lon, lat, moved[2]
    if kind is None:
        there = np.isfinite(pointing.mjd + pointing.azimuth + pointing.elevation)
        if not (site.known and there.any()):
            return NAN, NAN, lon, lat, 0.0
        ra, dec = _from_horizon(site, pointing, there)
        return ra, dec, lon, lat, 0.0
    nothing = np.zeros(lon.shape)
    if kind not in ("RA", "GLON") or not good.any():
        return NAN, NAN, nothing, nothing, 0.0
    equinox = (attrs.get("scan_metadata") or {}).get("RADESYS")
    angle = 0.0
    if kind == "GLON" or equinox == "FK4":
        lon, lat, angle = _to_icrs(lon, lat, good, "galactic" if kind == "GLON" else "fk4")
    middle_lon = float(np.rad2deg(np.angle(np.exp(1j * np.deg2rad(lon[good])).mean()))) % 360.0
    middle_lat = float(lat[good].mean())
    turn = (lon - middle_lon + 180.0) % 360.0 - 180.0
    offsets = turn * math.cos(math.radians(middle_lat)), lat - middle_lat
    return middle_lon, middle_lat, *offsets, angle


def _to_icrs(lon: F64, lat: F64, good: npt.NDArray[np.bool_], frame: str) -> tuple[F64, F64, float]:
    """Positions [D,S] in deg of another frame as ra, dec, and ``turn`` of ``ScanFrame``.

    Offsets have to be along ra and dec.
    """
    coordinates, units, _ = _astropy()

    def icrs(a: F64, b: F64) -> Any:
        return coordinates.SkyCoord(a * units.deg, b * units.deg, frame=frame).icrs

    given = icrs(lon[good], lat[good])
    out = np.full(lon.shape, NAN), np.full(lat.shape, NAN)
    out[0][good], out[1][good] = given.ra.deg, given.dec.deg
    a, b = lon[good][:1], lat[good][:1]
    north = b + np.where(b < 0, 0.001, -0.001)  # never across the pole
    angle = float(icrs(a, b).position_angle(icrs(a, north)).rad[0])
    return *out, angle if b[0] < 0 else angle + math.pi


def _from_horizon(
    site: Site, pointing: Pointing, there: npt.NDArray[np.bool_]
) -> tuple[float, float]:
    """Right ascension and declination (deg) of the middle dump, less its OTF offset."""
    coordinates, units, time = _astropy()
    d, s = np.argwhere(there)[int(there.sum()) // 2]
    with _quiet():
        sky = coordinates.AltAz(
            az=pointing.azimuth[d, s] * units.rad,
            alt=pointing.elevation[d, s] * units.rad,
            obstime=time(pointing.mjd[d, s], format="mjd"),
            location=_location(site),
        ).transform_to(coordinates.ICRS())
    dec = float(sky.dec.deg) - float(np.nan_to_num(pointing.otf_lat[d, s]))
    turn = float(np.nan_to_num(pointing.otf_lon[d, s])) / max(1e-6, math.cos(math.radians(dec)))
    return (float(sky.ra.deg) - turn) % 360.0, dec


def _astropy_velocity(ra: float, dec: float, site: Site, mjd: F64, frame: Frame) -> F64:
    """Site velocity [D, S] m/s in the direction (ra, dec), NaN where it cannot be known.

    The velocities of the Earth's centre and of the site around it, less that of the frame, projected on
    the line of sight: astropy's SpectralCoord to 0.1 m/s, for all times at once.
    """
    good = np.isfinite(mjd)
    out = np.full(mjd.shape, NAN)
    if not (site.known and good.any() and math.isfinite(ra + dec)):
        return out
    coordinates, units, time = _astropy()
    with _quiet():
        at = time(mjd[good], format="mjd")
        _, earth = coordinates.get_body_barycentric_posvel("earth", at)
        _, place = _location(site).get_gcrs_posvel(at)
        own = {"GEOCENTR": earth}
        if frame == "HELIOCEN":
            own["HELIOCEN"] = coordinates.get_body_barycentric_posvel("sun", at)[1]
        centre = earth - own[frame] if frame in own else earth
        moving = np.asarray((centre + place).xyz.to_value(units.m / units.s))
    if frame in MOTION:
        moving = moving + np.asarray(MOTION[frame])[:, None]
    beta = -(direction_cosines(ra, dec) @ moving) / LIGHT
    out[good] = LIGHT * (np.sqrt((1.0 + beta) / (1.0 - beta)) - 1.0)
    return out


def _location(site: Site) -> Any:
    """The site as astropy's EarthLocation."""
    coordinates, units, _ = _astropy()
    return coordinates.EarthLocation.from_geodetic(
        site.lon_deg * units.deg, site.lat_deg * units.deg, site.alt_m * units.m
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No downloads, and no warnings about the distance of the source or old tables of UT1.

    UT1 - UTC stays below 0.9 s: 14 arcsec of direction, a few centimetres per second of velocity.
    """
    from astropy.utils import iers

    with (
        warnings.catch_warnings(),
        iers.conf.set_temp("auto_download", False),
        iers.conf.set_temp("auto_max_age", None),
        iers.conf.set_temp("iers_degraded_accuracy", "ignore"),
    ):
        warnings.simplefilter("ignore")
        yield


def _astropy() -> tuple[Any, Any, Any]:
    try:
        from astropy import coordinates, units
        from astropy.time import Time
    except ImportError as error:
        raise ConfigError(
            "exporting spectra needs astropy, which is not installed.",
            hint="Install it with: pip install gpucal[fits]",
        ) from error
    return coordinates, units, Time
