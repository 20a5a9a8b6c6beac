"""Frames of rest: their names in VELDEF and SPECSYS, their motions, and spectra moved from one to another.

Sources: Greisen et al. 2006 (A&A 446, 747), section 7 and table 8, for the names and the motion against the
microwave background; the GBT's "LO FITS file" document for the codes of VELDEF and the two LSR and the
Galactocentric motion. Velocities in m/s, positive receding.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from gpucal.errors import GpucalWarning
from gpucal.physics.doppler import LIGHT, doppler_factor, vframe
from gpucal.spectrum import NAN, Frame, Spectrum

F64 = npt.NDArray[np.float64]

CODES: Mapping[Frame, str] = {
    "LSRK": "LSR",
    "LSRD": "LSD",
    "HELIOCEN": "HEL",
    "BARYCENT": "BAR",
    "GEOCENTR": "GEO",
    "GALACTOC": "GAL",
    "CMBDIPOL": "COB",
    "TOPOCENT": "OBS",
}
"""Frame -> second half of VELDEF."""

_ALSO: Mapping[Frame, tuple[str, ...]] = {
    "LSRK": ("LSK",),
    "LSRD": (),
    "HELIOCEN": ("HELO", "HELI"),
    "BARYCENT": ("BARY",),
    "GEOCENTR": (),
    "GALACTOC": (),
    "CMBDIPOL": ("CMB",),
    "TOPOCENT": ("TOP", "TOPO"),
}
_FRAMES: Mapping[str, Frame] = {
    name: frame for frame, code in CODES.items() for name in (code, frame, *_ALSO[frame])
}
_CONVENTIONS = {
    **dict.fromkeys(("RADI", "VRAD"), "RADI"),
    **dict.fromkeys(("OPTI", "VOPT"), "OPTI"),
    **dict.fromkeys(("RELA", "TRUE"), "RELA"),
}
"""First half of VELDEF as programs write it -> as ``to_radio`` takes it. VELO is left out: the radio
velocity to some programs, the relativistic one to others."""

MOTION: Mapping[Frame, tuple[float, float, float]] = {
    "BARYCENT": (0.0, 0.0, 0.0),
    "LSRK": (289.998, -17317.264, 10001.408),
    "LSRD": (-638.231, -14585.424, 7801.157),
    "GALACTOC": (108065.846, -112447.963, 172137.238),
    "CMBDIPOL": (-357158.319, 76923.548, -44098.782),
}
"""Velocity of the Sun (the barycentre) against a frame, m/s, along ICRS x, y, z.

LSRK 20 km/s towards 18h +30 deg of B1900; LSRD (9, 12, 7) km/s along galactic x, y, z; GALACTOC the same
and 220 km/s towards l 90 deg, b 0; CMBDIPOL 368 km/s towards l 263.85, b 48.25 deg.
"""


def definition_of(text: str) -> tuple[str | None, Frame | None]:
    """Convention ("RADI", "OPTI", "RELA") and frame of a VELDEF; None for one that is not known."""
    plain = text.strip().upper()
    code = plain[4:].strip().lstrip("-").strip()
    return _CONVENTIONS.get(plain[:4]), _FRAMES.get(code)


def direction_cosines(ra: float, dec: float) -> F64:
    """Unit vector [3] of a direction in deg."""
    lon, lat = math.radians(ra), math.radians(dec)
    return np.array([math.cos(lat) * math.cos(lon), math.cos(lat) * math.sin(lon), math.sin(lat)])


def in_frame(s: Spectrum, frame: Frame) -> Spectrum:
    """The same spectrum with the velocities of another frame of ``MOTION``.

    Without a direction or a site velocity there is nothing to convert: both velocities are then NaN, and
    the axis stays topocentric.
    """
    known = math.isfinite(s.site_velocity + s.ra + s.dec) and s.velocity_frame in MOTION
    if not known:
        return replace(s, velocity_frame=frame, velocity=NAN, site_velocity=NAN)
    apart = np.subtract(MOTION[frame], MOTION[s.velocity_frame])
    towards = float(direction_cosines(s.ra, s.dec) @ apart)
    before = 1.0 + s.site_velocity / LIGHT
    after = doppler_factor(vframe(s.site_velocity) - towards)
    velocity = LIGHT * (1.0 - (1.0 - s.velocity / LIGHT) * after / before)
    site = LIGHT * (after - 1.0)
    return replace(s, velocity_frame=frame, velocity=velocity, site_velocity=site)


def only_frames(
    spectra: Iterable[Spectrum], known: Collection[Frame], form: str
) -> Iterator[Spectrum]:
    """The spectra, those in a frame that a file format does not know in the LSRK.

    Warns (GpucalWarning) once for each such frame. form: name of the format.
    """
    told: set[Frame] = set()
    for s in spectra:
        if s.velocity_frame in known:
            yield s
            continue
        moved = in_frame(s, "LSRK")
        if s.velocity_frame not in told:
            told.add(s.velocity_frame)
            done = "velocities are converted to the LSRK"
            if not math.isfinite(moved.site_velocity):
                done = "and no direction to convert from: the axis is that of the observatory"
            frame = s.velocity_frame or "without a name"
            text = f"scan {s.scan}: {form} has no frame {frame}, {done}."
            warnings.warn(text, GpucalWarning, stacklevel=2)
        yield moved
