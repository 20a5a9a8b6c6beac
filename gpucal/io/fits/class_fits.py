"""Write calibrated spectra as CLASS FITS: MATRIX binary tables, read by CLASS with ``fits read``.

The frequency axis is that of the source at rest: F(n) = RESTFREQ + (n - CRPIX1) CDELT1, and the
velocity axis VELO-LSR + (n - CRPIX1) DELTAV, in the radio convention. Values are f32, frequencies and
velocities f64. Sources: CLASS manual, "CLASS FITS format, BINTABLE mode"; the columns are those of
srt-single-dish-tools too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from gpucal.io.fits.table_stream import (
    Card,
    Column,
    TableStream,
    iso_date,
    nothing_to_write,
    primary_header,
    whole_file,
)
from gpucal.physics.doppler import LIGHT, frame_factor
from gpucal.physics.rest_frames import only_frames
from gpucal.physics.sidereal import local_sidereal_time
from gpucal.spectrum import Frame, Spectrum

DEG = 180.0 / math.pi
HPA_PER_TORR = 1013.25 / 760.0
FRAME_KEYS: dict[Frame, str] = {
    "LSRK": "LSR",
    "HELIOCEN": "HEL",
    "GEOCENTR": "EAR",
    "TOPOCENT": "OBS",
}
"""Frame -> what follows VELO- in CLASS FITS."""


@dataclass(frozen=True)
class RestAxis:
    """The spectral axis as CLASS sees it: Hz, Hz, from 1, m/s, m/s, Hz; frame LSR, HEL, EAR or OBS."""

    rest_frequency: float
    step: float
    reference: float
    velocity: float
    velocity_step: float
    image_frequency: float
    frame: str


def rest_axis(s: Spectrum) -> RestAxis:
    """Axis in the frame of the source: its reference is where the velocity is that of the source.

    Without a site velocity the frame is the observatory (OBS); without a velocity that is 0,
    without a rest frequency that is the sky frequency of the reference channel.
    """
    known = s.velocity_frame == "TOPOCENT" or not math.isnan(s.site_velocity)
    to_frame = frame_factor(s.site_velocity)
    # a velocity in a frame whose motion is not known says nothing about the observatory's axis
    velocity = s.velocity if known and not math.isnan(s.velocity) else 0.0
    to_source = to_frame / (1.0 - velocity / LIGHT)
    here = s.frequency * to_source
    rest = s.rest_frequency if s.rest_frequency > 0 else here
    step = s.frequency_step * to_source
    channels = (rest - here) / step
    return RestAxis(
        rest_frequency=rest,
        step=step,
        reference=s.ref_channel + 1.0 + channels,
        velocity=velocity,
        velocity_step=-LIGHT * s.frequency_step * to_frame / rest,
        image_frequency=s.image_frequency * to_source - (rest - here),
        frame=FRAME_KEYS[s.velocity_frame] if known else "OBS",
    )


def write_class_fits(
    path: str | Path, spectra: Iterable[Spectrum], *, overwrite: bool = False
) -> int:
    """Write spectra [C] to one CLASS FITS file, one row each; returns their number.

    Spectra of another number of channels or another velocity frame start another table. Rows go to
    disk as they come; frames that CLASS does not know are converted to the LSRK (GpucalWarning).
    The file appears whole or not at all. Raises ConfigError when something is in the
    way, L1Error when there is no spectrum or the disk refuses.
    """
    with whole_file(path, overwrite=overwrite) as stream:
        stream.write(primary_header([("ORIGIN", "gpucal", ""), ("CREATOR", "gpucal", "")]))
        count = 0
        table: TableStream | None = None
        kind: tuple[int, str] | None = None
        for spectrum in only_frames(spectra, FRAME_KEYS, "CLASS FITS"):
            new = (spectrum.values.size, rest_axis(spectrum).frame)
            if table is None or new != kind:
                if table is not None:
                    table.finish()
                kind = new
                columns = _columns(new[1])
                table = TableStream(stream, columns, _cards(spectrum, new[1]), "SPECTRUM", new[0])
            table.append(spectrum)
            count += 1
        if table is None:
            raise nothing_to_write()
        table.finish()
    return count


def _cards(first: Spectrum, frame: str) -> list[Card]:
    """Header keywords; a column of the same name prevails."""
    axis = rest_axis(first)
    axes = (
        ("FREQ", 0.0, axis.step, axis.reference),
        ("RA", first.ra, 0.0, 0.0),
        ("DEC", first.dec, 0.0, 0.0),
        ("STOKES", 1.0, 0.0, 0.0),
    )
    cards: list[Card] = [
        ("EXTNAME", "MATRIX", "name of this table"),
        ("EXTVER", 1, ""),
        ("MAXIS", len(axes), "number of dimensions of the data"),
        ("MAXIS1", first.values.size, "number of channels"),
        *((f"MAXIS{n}", 1, "") for n in range(2, len(axes) + 1)),
    ]
    for n, (name, value, step, reference) in enumerate(axes, 1):
        cards += [
            (f"CTYPE{n}", name, ""),
            (f"CRVAL{n}", 0.0 if math.isnan(value) else value, ""),
            (f"CDELT{n}", step, ""),
            (f"CRPIX{n}", reference, ""),
        ]
    return [
        *cards,
        ("VELDEF", f"RADI-{'GEO' if frame == 'EAR' else frame}", "type of velocity"),
        ("EQUINOX", 2000.0, ""),
        ("RADESYS", "ICRS", ""),
        ("TIMESYS", "UTC", ""),
        ("DATE-RED", datetime.now(UTC).strftime("%Y-%m-%d"), "date of reduction"),
    ]


def telescope_name(s: Spectrum) -> str:
    """12 characters: the telescope's first five or fewer, receiver and pixel, e.g. IRAM--R0P012."""
    place = f"-R{s.receiver}P{s.pixel:03d}"
    return s.telescope[: max(0, min(5, 12 - len(place)))] + place


def _beam_efficiency(s: Spectrum) -> float:
    """The efficiency the data are corrected for: CLASS takes BEAMEFF = FORWEFF as T_A*."""
    return s.b_eff if s.scale == "tmb" else s.f_eff


def _seconds(s: Spectrum) -> float:
    """UTC of the middle of the integration, seconds of the day."""
    return s.mjd % 1.0 * 86400.0


def _columns(frame: str) -> tuple[Column, ...]:
    """Columns of the table; the name of the velocity depends on the frame."""
    return (
        *_COLUMNS,
        Column(
            f"VELO-{frame}",
            "1D",
            "m.s-1",
            "at the reference channel",
            lambda s: rest_axis(s).velocity,
        ),
        Column("SPECTRUM", "1E", "K", "NaN = blank", lambda s: None),
    )


C = Column
_COLUMNS: tuple[Column, ...] = (
    C("MJD", "1D", "d", "UTC, middle", lambda s: s.mjd),
    C("MAXIS1", "1J", "", "number of channels", lambda s: s.values.size),
    C("SCAN", "1J", "", "", lambda s: s.scan),
    C("SUBSCAN", "1J", "", "of L0, 0 = averaged", lambda s: max(0, s.subscan)),
    C("TELESCOP", "12A", "", "with receiver and pixel", telescope_name),
    C("TSYS", "1E", "K", "T_sys*, median over channels", lambda s: s.t_sys),
    C("IMAGFREQ", "1D", "Hz", "at CRPIX1, source frame", lambda s: rest_axis(s).image_frequency),
    C("DELTAV", "1D", "m.s-1", "velocity step", lambda s: rest_axis(s).velocity_step),
    C("TAU-ATM", "1E", "neper", "zenith, signal sideband", lambda s: s.tau_signal),
    C("TAU-IMA", "1E", "neper", "zenith, image sideband", lambda s: s.tau_image),
    C("MH2O", "1E", "mm", "PWV", lambda s: s.pwv),
    C("TOUTSIDE", "1E", "K", "", lambda s: s.tamb),
    C("PRESSURE", "1E", "hPa", "", lambda s: s.pamb * HPA_PER_TORR),
    C("CRVAL2", "1D", "deg", "of the source", lambda s: s.ra),
    C("CRVAL3", "1D", "deg", "of the source", lambda s: s.dec),
    C("ELEVATIO", "1E", "deg", "", lambda s: s.elevation * DEG),
    C("AZIMUTH", "1E", "deg", "", lambda s: s.azimuth * DEG),
    C("DATE-OBS", "23A", "", "UTC, middle", lambda s: iso_date(s.mjd, 3)),
    C("UT", "1D", "s", "middle", _seconds),
    C("LST", "1D", "s", "middle", lambda s: local_sidereal_time(s.mjd, s.site_lon)),
    C("OBSTIME", "1E", "s", "integration time", lambda s: s.exptime),
    C("CRPIX1", "1D", "", "channel of RESTFREQ", lambda s: rest_axis(s).reference),
    C("RESTFREQ", "1D", "Hz", "", lambda s: rest_axis(s).rest_frequency),
    C("OBJECT", "12A", "", "", lambda s: s.source),
    C("VELOCITY", "1D", "m.s-1", "of the source", lambda s: rest_axis(s).velocity),
    C("CDELT1", "1D", "Hz", "frequency step, source frame", lambda s: rest_axis(s).step),
    C("CDELT2", "1D", "deg", "offset from the source", lambda s: s.offset_lon),
    C("CDELT3", "1D", "deg", "offset from the source", lambda s: s.offset_lat),
    C("LINE", "12A", "", "", lambda s: s.line),
    C("SIGNAL", "1J", "", "1 = on the source", lambda s: 1),
    C("CAL_IS_ON", "1J", "", "", lambda s: 0),
    C("CALTEMP", "1D", "K", "no calibration mark", lambda s: 0.0),
    C("GAINIMAG", "1E", "", "image/signal", lambda s: s.gain_image),
    C("FORWEFF", "1E", "", "", lambda s: s.f_eff),
    C("BEAMEFF", "1E", "", "FORWEFF on the T_A* scale", _beam_efficiency),
    C("TREC", "1E", "K", "", lambda s: s.t_rec),
    C("TCHOP", "1E", "K", "hot load", lambda s: s.t_hot),
    C("TCOLD", "1E", "K", "cold load", lambda s: s.t_cold),
    C("GEOLAT", "1D", "deg", "", lambda s: s.site_lat),
    C("GEOLONG", "1D", "deg", "east", lambda s: s.site_lon),
    C("GEOELEV", "1D", "m", "", lambda s: s.site_alt),
    C("RECEIVER", "1J", "", "as in the store", lambda s: s.receiver),
    C("PIXEL", "1J", "", "as in the store", lambda s: s.pixel),
    C("DUMP", "1J", "", "-1 = averaged", lambda s: s.dump),
)
