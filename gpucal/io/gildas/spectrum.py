"""Conversion between CLASS headers and ``Spectrum``, in both directions.

CLASS gives frequencies in the rest frame of the source: f(i) = restf + (i - rchan) fres / (1 + doppler),
with doppler = -v/c in the frame of ``fres``, and velocities v(i) = voff + (i - rchan) vres, radio
convention; i counts from 1. The memo on spectral axes in CLASS recommends to state fres and doppler in
the frame of the source velocity (LSR): then both axes are exact. So it is written here, and the motion
of the telescope is contained in the frequencies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gpucal.errors import ImportFormatError, L1Error
from gpucal.io.gildas.words import (
    BAD,
    CLASS_EPOCH,
    FRAMES,
    PROJECTION_RADIO,
    TYPE_EQUATORIAL,
    TYPE_UNKNOWN,
)
from gpucal.physics.sidereal import DAY_S, local_sidereal_time
from gpucal.spectrum import NAN, Spectrum

LIGHT = 299792458.0
HPA_PER_TORR = 1013.25 / 760.0
MAX_LINE_DISTANCE = 5e5
"""Channels between line and band centre up to which the axis refers to the line: beyond it the rounding
of fres to 32 bits would move the band by more than 0.03 channel."""

FIRST_DAY, LAST_DAY = 33282, 88069
"""MJD of 1950-01-01 and 2100-01-01: other dates are marks for a missing one."""

F64 = npt.NDArray[np.float64]
Header = Mapping[str, Any]


def to_spectrum(header: Header, data: npt.NDArray[np.float32]) -> Spectrum:
    """Return the spectrum of a header (``ClassFile.header``) and its values f32 [C].

    Blanked and non-finite values become NaN. A zero in a header means not recorded: NaN. Raises
    ImportFormatError when the frequency axis cannot be right.
    """
    with np.errstate(invalid="ignore"):  # a signalling NaN is NaN all the same
        values = data.astype(np.float64)
    values[(data == np.float32(header["bad"])) | ~np.isfinite(data)] = np.nan
    system = header.get("system", header["typec"])
    equatorial = system == TYPE_EQUATORIAL and header["epoch"] == 2000.0
    return Spectrum(
        values=values,
        scale=_scale(header),
        source=header["source"],
        line=header["line"],
        telescope=header["teles"],
        scan=header["scan"] or -1,
        subscan=header["subscan"] - 1,
        mjd=_mjd(header),
        exptime=_known(header["time"]),
        azimuth=_angle(header, "az"),
        elevation=_angle(header, "el"),
        ra=math.degrees(header["lam"]) % 360.0 if equatorial else NAN,
        dec=math.degrees(header["bet"]) if equatorial else NAN,
        offset_lon=math.degrees(header["lamof"]),
        offset_lat=math.degrees(header["betof"]),
        t_sys=_known(header["tsys"]),
        **_axis(header),
        **_calibration(header),
    )


def _known(value: float) -> float:
    """A header value; 0 means not recorded and becomes NaN."""
    return float(value) if value != 0 and math.isfinite(value) else NAN


def _angle(header: Header, name: str) -> float:
    """Azimuth or elevation; both are zero when the telescope did not record them."""
    return float(header[name]) if header["az"] != 0 or header["el"] != 0 else NAN


def _mjd(header: Header) -> float:
    """MJD of the observation: CLASS counts days from an epoch of its own, UT in rad; NaN without a date.

    Day 0 at sidereal time and UT 0 is a header that nobody filled, as is a day before there was
    radio spectroscopy (0 or -32768 of other counts) or one that lies ahead.
    """
    day = header["dobs"] + CLASS_EPOCH
    unfilled = header["dobs"] == 0 and header["ut"] == 0 and header["st"] == 0
    if unfilled or not FIRST_DAY <= day < LAST_DAY or not math.isfinite(header["ut"]):
        return NAN
    return float(day + header["ut"] / (2.0 * math.pi))


def _scale(header: Header) -> Literal["ta", "tmb", ""]:
    """The temperature scale: beeff is the efficiency by which the values are divided, f_eff for T_A*."""
    b_eff, f_eff = header.get("beeff", 0.0), header.get("foeff", 0.0)
    if not 0.0 < b_eff <= f_eff:
        return ""
    return "ta" if b_eff == f_eff else "tmb"


def _axis(header: Header) -> dict[str, Any]:
    """Frequencies of the header: topocentric where it has a Doppler factor, else in its own frame."""
    restf, fres, rchan = header["restf"], header["fres"], header["rchan"]
    fine = all(math.isfinite(x) for x in (restf, fres, rchan, header["voff"], header["vres"]))
    if not fine or restf <= 0 or fres == 0 or abs(header["voff"]) >= LIGHT / 1e3:
        raise ImportFormatError(
            f"its frequency axis cannot be right (restf {restf} MHz, fres {fres} MHz, rchan {rchan}, "
            f"voff {header['voff']} km/s)."
        )
    in_frame = 1.0 - header["voff"] * 1e3 / LIGHT
    doppler = header.get("doppler", 0.0)
    if not math.isfinite(doppler) or doppler <= -1.0:
        raise ImportFormatError(f"its Doppler factor is {doppler}, expected more than -1.")
    observed = 1.0 + doppler if doppler != 0 else in_frame
    image = _known(header["image"])
    return {
        "frequency": restf * observed * 1e6,
        "frequency_step": fres * 1e6,
        "ref_channel": rchan - 1.0,
        "rest_frequency": restf * 1e6,
        "image_frequency": image * observed * 1e6,
        "velocity": header["voff"] * 1e3,
        "velocity_frame": FRAMES.get(header["vtype"], ""),
        "site_velocity": LIGHT * (in_frame / observed - 1.0),
    }


def _calibration(header: Header) -> dict[str, Any]:
    """The fields of ``Spectrum`` from the calibration section; none when the file has no such section."""
    if "foeff" not in header:
        return {}
    recorded = header["foeff"] != 0
    place = header.get("geolat", 0.0) != 0 or header.get("geolong", 0.0) != 0
    return {
        "f_eff": _known(header["foeff"]),
        "b_eff": _known(header["beeff"]) if _scale(header) != "ta" else NAN,
        "gain_image": float(header["gaini"]) if recorded else NAN,
        "pwv": _known(header["h2omm"]),
        "pamb": _known(header["pamb"]) / HPA_PER_TORR,
        "tamb": _known(header["tamb"]),
        "t_hot": _known(header["tchop"]),
        "t_cold": _known(header["tcold"]),
        "tau_signal": _known(header["taus"]),
        "tau_image": _known(header["taui"]),
        "t_rec": _known(header["trec"]),
        "counts_sky": _known(header["count_sky"]),
        "counts_hot": _known(header["count_hot"]),
        "counts_cold": _known(header["count_cold"]),
        "site_alt": _known(header["alti"]),
        "site_lat": math.degrees(header["geolat"]) if place else NAN,
        "site_lon": math.degrees(header["geolong"]) if place else NAN,
    }


def index_fields(s: Spectrum, number: int, today: int) -> dict[str, Any]:
    """Index entry of the spectrum with this number, without its address; ``today`` is a CLASS date."""
    day = math.floor(s.mjd) if math.isfinite(s.mjd) else 0
    known = math.isfinite(s.ra) and math.isfinite(s.dec)
    return {
        "num": number,
        "ver": 1,
        "source": name(s.source),
        "line": name(s.line),
        "teles": telescope_name(s),
        "dobs": day - CLASS_EPOCH,
        "dred": today,
        "off1": math.radians(_zero(s.offset_lon)),
        "off2": math.radians(_zero(s.offset_lat)),
        "typec": TYPE_EQUATORIAL if known else TYPE_UNKNOWN,
        "scan": max(s.scan, 0),
        "subscan": s.subscan + 1,
    }


def section_fields(s: Spectrum) -> dict[str, dict[str, Any]]:
    """Header sections of a spectrum. Raises L1Error when it has no frequency axis or no channel."""
    spectroscopic = _spectroscopic(s)
    known = math.isfinite(s.ra) and math.isfinite(s.dec)
    turn = 2.0 * math.pi
    return {
        "general": {
            "ut": (s.mjd % 1.0) * turn if math.isfinite(s.mjd) else 0.0,
            "st": _zero(local_sidereal_time(s.mjd, s.site_lon)) / DAY_S * turn,
            "az": _zero(s.azimuth),
            "el": _zero(s.elevation),
            "tau": _zero(s.tau_signal),
            "tsys": _zero(s.t_sys),
            "time": _zero(s.exptime),
        },
        "position": {
            "sourc": name(s.source),
            "epoch": 2000.0,
            "lam": math.radians(s.ra) if known else 0.0,
            "bet": math.radians(s.dec) if known else 0.0,
            "lamof": math.radians(_zero(s.offset_lon)),
            "betof": math.radians(_zero(s.offset_lat)),
            "proj": PROJECTION_RADIO,
        },
        "spectroscopic": spectroscopic,
        "calibration": {
            "beeff": _zero(s.f_eff if s.scale == "ta" else s.b_eff),
            "foeff": _zero(s.f_eff),
            "gaini": _zero(s.gain_image),
            "h2omm": _zero(s.pwv),
            "pamb": _zero(s.pamb * HPA_PER_TORR),
            "tamb": _zero(s.tamb),
            "tchop": _zero(s.t_hot),
            "tcold": _zero(s.t_cold),
            "taus": _zero(s.tau_signal),
            "taui": _zero(s.tau_image),
            "trec": _zero(s.t_rec),
            "cmode": 0,
            "alti": _zero(s.site_alt),
            "count_sky": _zero(s.counts_sky),
            "count_hot": _zero(s.counts_hot),
            "count_cold": _zero(s.counts_cold),
            "geolong": math.radians(_zero(s.site_lon)),
            "geolat": math.radians(_zero(s.site_lat)),
        },
    }


def _spectroscopic(s: Spectrum) -> dict[str, Any]:
    """Frequency axis in the frame of the source velocity, in MHz and km/s.

    The 32-bit fields are rounded first, and restf (64 bit) then says what frequency that channel has:
    the axis is exact at rchan, and off by at most 6e-8 of the distance from it elsewhere.
    """
    if s.values.ndim != 1 or s.values.size == 0:
        raise L1Error(f"its values have the shape {s.values.shape}, expected one channel or more.")
    fine = math.isfinite(s.frequency) and math.isfinite(s.frequency_step)
    if not fine or not math.isfinite(s.ref_channel) or s.frequency <= 0 or s.frequency_step == 0:
        raise L1Error(
            f"its frequency axis is not known ({s.frequency} Hz, step {s.frequency_step} Hz, "
            f"reference channel {s.ref_channel})."
        )
    topocentric = s.velocity_frame == "TOPOCENT" or not math.isfinite(s.site_velocity)
    shift = 1.0 + _zero(s.site_velocity) / LIGHT
    moving = s.velocity_frame == "TOPOCENT" or not topocentric
    voff = float(np.float32(_zero(s.velocity) / 1e3)) if moving else 0.0
    in_frame = 1.0 - voff * 1e3 / LIGHT
    frequency, step = s.frequency * shift, s.frequency_step * shift
    middle = float((s.values.size - 1) // 2)
    channel = middle
    if math.isfinite(s.rest_frequency) and s.rest_frequency > 0:
        line = s.ref_channel + (s.rest_frequency * in_frame - frequency) / step
        channel = line if abs(line - middle) < MAX_LINE_DISTANCE else middle
    rchan = float(np.float32(channel + 1.0))
    restf = (frequency + (rchan - 1.0 - s.ref_channel) * step) / in_frame
    image = s.image_frequency * shift - (rchan - 1.0 - s.ref_channel) * step
    codes = {frame: code for code, frame in FRAMES.items()}
    return {
        "line": name(s.line),
        "restf": restf / 1e6,
        "nchan": s.values.size,
        "rchan": rchan,
        "fres": step / 1e6,
        "vres": -LIGHT * step / restf / 1e3,
        "voff": voff,
        "bad": BAD,
        "image": _zero(image / in_frame / 1e6),
        "vtype": codes["TOPOCENT" if topocentric else s.velocity_frame],
        "doppler": in_frame - 1.0,
    }


def blanked(values: F64) -> npt.NDArray[np.float32]:
    """Values as they are written: f32 [C] little endian, ``BAD`` where they are not finite."""
    with np.errstate(over="ignore"):
        out = values.astype("<f4")
    bad = np.float32(BAD)
    out[out == bad] = np.nextafter(bad, np.float32(0))  # a real value must not read as blank
    out[~np.isfinite(out)] = bad
    return out


def name(text: str) -> bytes:
    """A name as CLASS keeps it: 12 characters, upper case since CLASS commands are, ASCII."""
    return text.strip().upper().encode("ascii", "replace")[:12].ljust(12)


def telescope_name(s: Spectrum) -> bytes:
    """The 12 characters by which CLASS tells receivers and pixels apart: ``FYST-CH20070``.

    Four of the telescope, "-", two of the instrument, one for the band, three digits of the pixel, one
    of the receiver; "-" for what was averaged over. Raises L1Error for numbers that have no room there.
    """
    if s.pixel > 999 or s.receiver > 9:
        raise L1Error(
            f"pixel {s.pixel}, receiver {s.receiver} have no room in the 12 characters of a telescope "
            "name, expected pixels up to 999 and receivers up to 9.",
            hint="Write the file from fewer pixels at a time, renumbered.",
        )
    tel = s.telescope.strip() or "GPU"
    instrument = s.instrument.strip()
    if s.pixel < 0 and s.receiver < 0:
        return name(f"{tel[:6]}-{instrument}" if instrument else tel)
    band = s.band.strip()[-1:] or "0"
    pixel = f"{s.pixel:03d}" if s.pixel >= 0 else "---"
    receiver = f"{s.receiver}" if s.receiver >= 0 else "-"
    return name(f"{tel[:4]}-{instrument[:2].ljust(2, '0')}{band}{pixel}{receiver}")


def _zero(value: float) -> float:
    """A header value to write: NaN, not known, becomes 0."""
    return float(value) if math.isfinite(value) else 0.0
