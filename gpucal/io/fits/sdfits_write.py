"""Write calibrated spectra as SDFITS: SINGLE DISH tables with the columns of the GBT, in their order.

Values are f32, as everywhere in SDFITS (7 digits); frequencies and times are f64. Sources: Garwood
2000 (ASP Conf. Ser. 216, 243); the files of the GBT's sdfits program 1.22.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from gpucal.io.fits.table_stream import (
    Card,
    Column,
    TableStream,
    iso_date,
    nothing_to_write,
    primary_header,
    start_of,
    whole_file,
)
from gpucal.physics.doppler import vframe
from gpucal.physics.rest_frames import CODES
from gpucal.physics.sidereal import local_sidereal_time
from gpucal.spectrum import Spectrum

NAN = float("nan")
DEG = 180.0 / math.pi
SCALES = {"ta": "Ta*", "tmb": "Tmb", "": ""}


def write_sdfits(path: str | Path, spectra: Iterable[Spectrum], *, overwrite: bool = False) -> int:
    """Write spectra [C] to one SDFITS file, one row each; returns their number.

    Spectra of another number of channels start another table. Rows go to disk as they come. The
    file appears whole or not at all. Raises ConfigError when something is in the way, L1Error when there
    is no spectrum or the disk refuses.
    """
    with whole_file(path, overwrite=overwrite) as stream:
        count, n_channels = 0, -1
        table: TableStream | None = None
        for spectrum in spectra:
            if table is None or spectrum.values.size != n_channels:
                if table is None:
                    stream.write(primary_header(_primary(spectrum)))
                else:
                    table.finish()
                n_channels = spectrum.values.size
                table = TableStream(stream, COLUMNS, _cards(spectrum), "DATA", n_channels)
            table.append(spectrum)
            count += 1
        if table is None:
            raise nothing_to_write()
        table.finish()
    return count


def _primary(first: Spectrum) -> list[Card]:
    return [
        ("ORIGIN", "gpucal", "program that wrote this file"),
        ("TELESCOP", first.telescope, "the telescope used"),
        ("INSTRUME", first.instrument, "the receiver"),
    ]


def _cards(first: Spectrum) -> list[Card]:
    return [
        ("CTYPE4", "STOKES", "fourth axis is Stokes"),
        ("TELESCOP", first.telescope, "the telescope used"),
        ("EXTNAME", "SINGLE DISH", "name of this binary table extension"),
    ]


def _definition(s: Spectrum) -> str:
    """VELDEF; "" where the frame is not known."""
    return f"RADI-{CODES[s.velocity_frame]}" if s.velocity_frame else ""


def _longitude(s: Spectrum) -> float:
    """Right ascension of the pixel, or its azimuth where the source's place is not known, deg."""
    if math.isnan(s.ra):
        return s.azimuth * DEG
    return (s.ra + s.offset_lon / max(1e-6, math.cos(s.dec / DEG))) % 360.0


def _latitude(s: Spectrum) -> float:
    """Declination of the pixel, or its elevation where the source's place is not known, deg."""
    return s.elevation * DEG if math.isnan(s.dec) else s.dec + s.offset_lat


def _rest(s: Spectrum) -> float:
    """Rest frequency, Hz; that of the reference channel where none is known."""
    return s.rest_frequency if s.rest_frequency > 0 else s.frequency


def _sideband(s: Spectrum) -> str:
    """ "U" or "L", as the signal lies above or below the image; "" without an image."""
    if math.isnan(s.image_frequency) or s.image_frequency == s.frequency:
        return ""
    return "U" if s.frequency > s.image_frequency else "L"


def _band_number(s: Spectrum) -> int:
    """IFNUM, from 0: band_1 is 0, as is a scan without bands."""
    number = s.band.rpartition("_")[2]
    return int(number) - 1 if number.isdigit() else 0


def _stamp(s: Spectrum) -> str:
    """Start of the integration as the GBT writes it: 2024_01_31_12_00_00."""
    return iso_date(start_of(s))[:19].replace("-", "_").replace("T", "_")


C = Column
COLUMNS: tuple[Column, ...] = (
    C("OBJECT", "32A", "", "name of source observed", lambda s: s.source),
    C("BANDWID", "1D", "Hz", "bandwidth", lambda s: abs(s.frequency_step) * s.values.size),
    C("DATE-OBS", "22A", "", "UTC, middle less half of DURATION", lambda s: iso_date(start_of(s))),
    C("DURATION", "1D", "s", "integration time", lambda s: s.exptime),
    C("EXPOSURE", "1D", "s", "integration time", lambda s: s.exptime),
    C("TSYS", "1D", "K", "T_sys*, median over channels", lambda s: s.t_sys),
    C("DATA", "1E", "K", "spectrum, NaN = blank", lambda s: None),
    C("TDIM7", "16A", "", "data dimensions", lambda s: f"({s.values.size},1,1,1)"),
    C("TUNIT7", "6A", "", "unit of the data", lambda s: "K"),
    C("CTYPE1", "8A", "Hz", "topocentric frequency", lambda s: "FREQ-OBS"),
    C("CRVAL1", "1D", "Hz", "sky frequency at CRPIX1", lambda s: s.frequency),
    C("CRPIX1", "1D", "", "reference channel, from 1", lambda s: s.ref_channel + 1.0),
    C("CDELT1", "1D", "Hz", "channel width", lambda s: s.frequency_step),
    C("CTYPE2", "4A", "", "", lambda s: "AZ" if math.isnan(s.ra) else "RA"),
    C("CRVAL2", "1D", "deg", "pixel offset included", _longitude),
    C("CTYPE3", "4A", "", "", lambda s: "EL" if math.isnan(s.dec) else "DEC"),
    C("CRVAL3", "1D", "deg", "pixel offset included", _latitude),
    C("CRVAL4", "1I", "", "Stokes I", lambda s: 1),
    C("OBSERVER", "32A", "", "", lambda s: s.observer),
    C("OBSID", "32A", "", "", lambda s: ""),
    C("SCAN", "1J", "", "scan number", lambda s: s.scan),
    C("OBSMODE", "32A", "", "procedure", lambda s: f"{s.procedure or 'tp'}:NONE:TPNOCAL"),
    C("FRONTEND", "16A", "", "", lambda s: s.instrument),
    C("TCAL", "1D", "K", "no noise diode", lambda s: 1.0),
    C("VELDEF", "8A", "", "", _definition),
    C("VFRAME", "1D", "m/s", "of the frame, seen from the site", lambda s: vframe(s.site_velocity)),
    C("RVSYS", "1D", "m/s", "source - site", lambda s: s.velocity + vframe(s.site_velocity)),
    C("OBSFREQ", "1D", "Hz", "", lambda s: s.frequency),
    C("LST", "1D", "s", "", lambda s: local_sidereal_time(start_of(s), s.site_lon)),
    C("AZIMUTH", "1D", "deg", "", lambda s: s.azimuth * DEG),
    C("ELEVATIO", "1D", "deg", "", lambda s: s.elevation * DEG),
    C("TAMBIENT", "1D", "K", "", lambda s: s.tamb),
    C("PRESSURE", "1D", "mmHg", "", lambda s: s.pamb),
    C("HUMIDITY", "1D", "", "", lambda s: NAN),
    C("RESTFREQ", "1D", "Hz", "", _rest),
    C("DOPFREQ", "1D", "Hz", "", _rest),
    C("FREQRES", "1D", "Hz", "", lambda s: abs(s.frequency_step)),
    C("EQUINOX", "1D", "", "", lambda s: 2000.0),
    C("RADESYS", "8A", "", "", lambda s: "" if math.isnan(s.ra) else "ICRS"),
    C("TRGTLONG", "1D", "deg", "the source", lambda s: s.ra),
    C("TRGTLAT", "1D", "deg", "the source", lambda s: s.dec),
    C("SAMPLER", "12A", "", "", lambda s: f"R{s.receiver}P{s.pixel}"),
    C("FEED", "1I", "", "pixel + 1", lambda s: s.pixel + 1),
    C("SRFEED", "1I", "", "", lambda s: 0),
    C("FEEDXOFF", "1D", "deg", "part of CRVAL2", lambda s: 0.0),
    C("FEEDEOFF", "1D", "deg", "part of CRVAL3", lambda s: 0.0),
    C("SUBREF_STATE", "1I", "", "", lambda s: 1),
    C("SIDEBAND", "1A", "", "", _sideband),
    C("PROCSEQN", "1I", "", "", lambda s: 1),
    C("PROCSIZE", "1I", "", "", lambda s: 1),
    C("PROCSCAN", "16A", "", "", lambda s: "ON"),
    C("PROCTYPE", "16A", "", "", lambda s: "SIMPLE"),
    C("LASTON", "1J", "", "", lambda s: 0),
    C("LASTOFF", "1J", "", "", lambda s: 0),
    C("TIMESTAMP", "22A", "UTC", "", _stamp),
    C("QD_XEL", "1D", "deg", "", lambda s: NAN),
    C("QD_EL", "1D", "deg", "", lambda s: NAN),
    C("QD_BAD", "1I", "", "", lambda s: 1),
    C("QD_METHOD", "1A", "", "", lambda s: ""),
    C("VELOCITY", "1D", "m/s", "of the source, radio convention", lambda s: s.velocity),
    C("FOFFREF1", "1D", "Hz", "", lambda s: 0.0),
    C("ZEROCHAN", "1E", "", "", lambda s: NAN),
    C("ADCSAMPF", "1D", "Hz", "", lambda s: NAN),
    C("VSPDELT", "1D", "", "", lambda s: NAN),
    C("VSPRVAL", "1D", "", "", lambda s: NAN),
    C("VSPRPIX", "1D", "", "", lambda s: NAN),
    C("SIG", "1A", "", "", lambda s: "T"),
    C("CAL", "1A", "", "", lambda s: "F"),
    C("CALTYPE", "8A", "", "", lambda s: ""),
    C("TWARM", "1E", "K", "hot load", lambda s: s.t_hot),
    C("TCOLD", "1E", "K", "cold load", lambda s: s.t_cold),
    C("CALPOSITION", "16A", "", "", lambda s: "Observing"),
    C("BACKEND", "32A", "", "", lambda s: s.instrument),
    C("PROJID", "32A", "", "", lambda s: s.project),
    C("TELESCOP", "32A", "", "", lambda s: s.telescope),
    C("SITELONG", "1D", "deg", "east", lambda s: s.site_lon),
    C("SITELAT", "1D", "deg", "", lambda s: s.site_lat),
    C("SITEELEV", "1D", "m", "", lambda s: s.site_alt),
    C("IFNUM", "1I", "", "band - 1", _band_number),
    C("PLNUM", "1I", "", "receiver", lambda s: s.receiver),
    C("FDNUM", "1I", "", "pixel", lambda s: s.pixel),
    C("INT", "1J", "", "dump, -1 = averaged", lambda s: s.dump),
    C("NSAVE", "1J", "", "", lambda s: -1),
    C("SUBSCAN", "1J", "", "of L0, -1 = averaged", lambda s: s.subscan),
    C("TSCALE", "8A", "", "scale of the data", lambda s: SCALES[s.scale]),
    C("MOLECULE", "32A", "", "line", lambda s: s.line),
    C("IMAGFREQ", "1D", "Hz", "image frequency at CRPIX1", lambda s: s.image_frequency),
    C("GAINIMAG", "1D", "", "image/signal gain", lambda s: s.gain_image),
    C("FORWEFF", "1D", "", "forward efficiency", lambda s: s.f_eff),
    C("BEAMEFF", "1D", "", "main-beam efficiency", lambda s: s.b_eff),
    C("TRX", "1D", "K", "T_rec, median over channels", lambda s: s.t_rec),
    C("TAU-ATM", "1D", "", "zenith opacity, signal", lambda s: s.tau_signal),
    C("TAU-IMA", "1D", "", "zenith opacity, image", lambda s: s.tau_image),
    C("MH2O", "1D", "mm", "PWV", lambda s: s.pwv),
    C("ROUNDING", "1D", "K", "step of the samples of a dump, NaN = none", lambda s: s.rounding),
)
"""The columns of the GBT in its order, then those that only calibrated spectra of arrays have."""
