"""Write calibrated spectra as one-dimensional FITS: a folder with a file per spectrum, f64.

The axis is frequency (FITS WCS paper III, Greisen et al. 2006), in the frame of the source's velocity where the
velocity of the site is known (SPECSYS, e.g. LSRK), else topocentric.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gpucal.errors import ConfigError
from gpucal.io.files import atomic
from gpucal.io.fits.table_stream import (
    Card,
    fits_module,
    iso_date,
    nothing_to_write,
    plain,
    start_of,
)
from gpucal.physics.doppler import frame_factor, vframe
from gpucal.spectrum import Spectrum

DEG = 180.0 / math.pi
_NAME = re.compile(r"[A-Za-z0-9+.-]*_scan\d+[A-Za-z0-9_+.-]*\.fits")


def write_fits1d(
    folder: str | Path, spectra: Iterable[Spectrum], *, overwrite: bool = False
) -> int:
    """Write each spectrum [C] to a file of its own in ``folder``; returns their number.

    The folder appears whole or not at all. With ``overwrite`` it replaces one that holds nothing but such
    files. Raises ConfigError when something is in the way, L1Error when there is no spectrum or the disk
    refuses.
    """
    target = Path(folder)
    check_folder(target, overwrite)
    fits = fits_module()
    with atomic.as_write_error(target):
        atomic.clean_stale(target)
        staged = atomic.new_staged(target, target.name)
        try:
            draft = staged / target.name
            draft.mkdir()
            count = 0
            for spectrum in spectra:
                data = spectrum.values.astype(">f8")
                hdu = fits.PrimaryHDU(data, fits.Header(_cards(spectrum)))
                with open(draft / file_name(spectrum), "wb") as stream:
                    hdu.writeto(stream)
                count += 1
            if not count:
                raise nothing_to_write()
            atomic.sync_tree(draft)
            if target.exists():
                atomic.exchange(draft, target)
            else:
                atomic.rename_into_place(draft, target)
        finally:
            atomic.discard(staged)
    return count


def check_folder(target: Path, overwrite: bool) -> None:
    """Raise ConfigError unless a folder of spectra may be written to ``target``."""
    if not target.parent.is_dir():
        raise ConfigError(f"the folder {target.parent} does not exist.", hint="Make it first.")
    if not target.exists():
        return
    if not target.is_dir():
        raise ConfigError(f"{target} is a file.", hint="Give the name of a folder to make.")
    if not overwrite:
        raise ConfigError(f"{target} is already there.", hint="Use --overwrite, or another name.")
    with os.scandir(target) as entries:
        foreign = next((e.name for e in entries if not _NAME.fullmatch(e.name)), None)
    if foreign is not None:
        raise ConfigError(
            f"{target} holds {foreign}, which is no exported spectrum, so it is not replaced.",
            hint="Choose another folder.",
        )


def file_name(s: Spectrum) -> str:
    """For example DR21_scan000012_band_1_sub003_d0004_r0_p012.fits; averaged axes are left out."""
    parts = [re.sub(r"[^A-Za-z0-9+.-]+", "-", s.source) or "source", f"scan{s.scan:06d}"]
    if s.band:
        parts.append(s.band)
    for value, form in ((s.subscan, "sub{:03d}"), (s.dump, "d{:04d}")):
        if value >= 0:
            parts.append(form.format(value))
    parts += [f"r{s.receiver}", f"p{s.pixel:03d}"]
    return "_".join(parts) + ".fits"


def _cards(s: Spectrum) -> list[Any]:
    """Header cards; what is not known is left out, since FITS keywords have no NaN."""
    cards = []
    for key, value, comment in (*_axis(s), *_what(s), *_where(s), *_how(s)):
        if isinstance(value, float) and not math.isfinite(value):
            continue
        text = plain(value)
        if text != "":
            cards.append((key, text, comment))
    return cards


def _axis(s: Spectrum) -> Iterator[Card]:
    """Header cards: the frequency axis, in the velocity frame where the site's velocity is known."""
    known = not math.isnan(s.site_velocity)
    factor = frame_factor(s.site_velocity)
    yield "BUNIT", "K", "T_mb" if s.scale == "tmb" else "T_A*"
    yield "CTYPE1", "FREQ", "frequency"
    yield "CUNIT1", "Hz", ""
    yield "CRPIX1", s.ref_channel + 1.0, "reference channel"
    yield "CRVAL1", s.frequency * factor, "frequency there, in SPECSYS"
    yield "CDELT1", s.frequency_step * factor, "channel width, in SPECSYS"
    yield "SPECSYS", s.velocity_frame if known else "TOPOCENT", "frame of the frequency axis"
    yield "SSYSOBS", "TOPOCENT", "frame in which it was observed"
    yield "RESTFRQ", s.rest_frequency, "Hz, line"
    yield "IMAGFREQ", s.image_frequency * factor, "Hz, image frequency at CRPIX1, in SPECSYS"
    yield "OBSFREQ", s.frequency, "Hz, topocentric, at CRPIX1"
    yield "VELOCITY", s.velocity, f"m/s, source, radio, {s.velocity_frame}"
    yield "VFRAME", vframe(s.site_velocity), "m/s, of the frame, seen from the site"


def _what(s: Spectrum) -> Iterator[Card]:
    """Header cards: source, line, instrument, scan and pixel."""
    yield "OBJECT", s.source, "source"
    yield "LINE", s.line, "line"
    yield "TELESCOP", s.telescope, ""
    yield "INSTRUME", s.instrument, ""
    yield "OBSERVER", s.observer, ""
    yield "PROJID", s.project, "project"
    yield "OBSMODE", s.procedure, "procedure"
    yield "BAND", s.band, ""
    yield "SCAN", s.scan, ""
    yield "SUBSCAN", s.subscan, "as in L0, -1 = averaged"
    yield "DUMP", s.dump, "-1 = averaged"
    yield "RECEIVER", s.receiver, "from 0"
    yield "PIXEL", s.pixel, "from 0"


def _where(s: Spectrum) -> Iterator[Card]:
    """Header cards: time and position on the sky."""
    yield "TIMESYS", "UTC", ""
    yield "DATE-OBS", iso_date(start_of(s), 6), "middle less half of EXPTIME"
    yield "MJD-OBS", start_of(s), "the same"
    yield "DATE-AVG", iso_date(s.mjd, 6), "middle"
    yield "MJD-AVG", s.mjd, "the same"
    yield "EXPTIME", s.exptime, "s, integration time"
    yield "RADESYS", "ICRS", ""
    yield "RA", s.ra, "deg, source"
    yield "DEC", s.dec, "deg, source"
    yield "OFFLON", s.offset_lon, "deg, pixel less source"
    yield "OFFLAT", s.offset_lat, "deg, pixel less source"
    yield "AZIMUTH", s.azimuth * DEG, "deg"
    yield "ELEVATIO", s.elevation * DEG, "deg"
    yield "SITELAT", s.site_lat, "deg"
    yield "SITELONG", s.site_lon, "deg, east"
    yield "SITEELEV", s.site_alt, "m"


def _how(s: Spectrum) -> Iterator[Card]:
    """Header cards: noise, atmosphere, efficiencies and loads."""
    yield "TSYS", s.t_sys, "K, T_sys*, median over channels"
    yield "TREC", s.t_rec, "K, median over channels"
    yield "TAU-ATM", s.tau_signal, "zenith opacity, signal sideband"
    yield "TAU-IMA", s.tau_image, "zenith opacity, image sideband"
    yield "MH2O", s.pwv, "mm, PWV"
    yield "TAMBIENT", s.tamb, "K"
    yield "PRESSURE", s.pamb, "Torr"
    yield "FORWEFF", s.f_eff, "forward efficiency"
    yield "BEAMEFF", s.b_eff, "main-beam efficiency"
    yield "GAINIMAG", s.gain_image, "image/signal gain"
    yield "THOT", s.t_hot, "K, hot load"
    yield "TCOLD", s.t_cold, "K, cold load"
    yield "ROUNDING", s.rounding, "K, step of the samples of a dump"
