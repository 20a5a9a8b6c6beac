"""CLASS FITS: both spectral axes by the rules of the format, and every column its readers want."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.export.spectra import lsr_frequencies, lsr_velocities, make_spectrum

from gpucal import ConfigError, L1Error, write_class_fits
from gpucal.io.fits.class_fits import rest_axis, telescope_name

SRTTOOLS = (
    *("MJD", "MAXIS1", "SCAN", "TELESCOP", "TSYS", "IMAGFREQ", "DELTAV", "TAU-ATM", "MH2O"),
    *("TOUTSIDE", "PRESSURE", "CRVAL2", "CRVAL3", "ELEVATIO", "AZIMUTH", "DATE-OBS", "UT", "LST"),
    *("OBSTIME", "CRPIX1", "RESTFREQ", "OBJECT", "VELOCITY", "CDELT1", "CDELT2", "CDELT3", "LINE"),
    *("SIGNAL", "CAL_IS_ON", "CALTEMP", "SPECTRUM"),
)
"""Columns that srt-single-dish-tools writes for CLASS."""
MANUAL = ("SUBSCAN", "GAINIMAG", "BEAMEFF", "FORWEFF", "TCHOP", "TCOLD", "VELO-LSR", "TAU-IMA")
LIGHT = 299792458.0


def read(path: Path) -> list[tuple[Any, Any]]:
    from astropy.io import fits

    with fits.open(path) as hdus:
        hdus.verify("exception")
        assert [h.name for h in hdus[1:]] == ["MATRIX"] * (len(hdus) - 1)
        return [(h.header, np.array(h.data)) for h in hdus[1:]]


def test_columns_keywords_and_values(tmp_path: Path) -> None:
    spectra = [make_spectrum(seed=n, pixel=n) for n in range(3)]
    assert write_class_fits(tmp_path / "x.fits", spectra) == 3
    ((header, rows),) = read(tmp_path / "x.fits")
    assert set(SRTTOOLS) | set(MANUAL) <= set(rows.dtype.names)
    for key in ("MAXIS", "MAXIS1", "MAXIS4", "CTYPE1", "CRVAL1", "CDELT1", "CRPIX1", "VELDEF"):
        assert key in header
    assert (header["CTYPE1"], header["CRVAL1"], header["VELDEF"]) == ("FREQ", 0.0, "RADI-LSR")
    assert (header["MAXIS1"], header["TIMESYS"]) == (300, "UTC")
    for row, s in zip(rows, spectra, strict=True):
        np.testing.assert_allclose(row["SPECTRUM"], s.values, rtol=1e-6)
        assert row["TELESCOP"].decode().strip() == f"CCAT--R1P{s.pixel:03d}"
        assert row["OBJECT"] == b"NGC 1333 IRA"  # 12 characters, as CLASS has them
        assert row["DATE-OBS"] == b"2025-11-21T02:57:46.659"
        assert row["UT"] == pytest.approx(10666.659, abs=1e-3)
        assert (row["CRVAL2"], row["CRVAL3"]) == (52.29375, 31.22525)
        assert (row["CDELT2"], row["CDELT3"]) == (0.01, -0.02)
        assert row["PRESSURE"] == pytest.approx(392.0 * 1.333224, rel=1e-5)
        assert row["BEAMEFF"] == row["FORWEFF"] == np.float32(0.95)


def test_telescope_names_tell_all_pixels_apart() -> None:
    pixels = [(1, 100), (1, 1000), (10, 1000), (12, 10)]
    names = [telescope_name(make_spectrum(receiver=r, pixel=p)) for r, p in pixels]
    assert names == ["CCAT--R1P100", "CCAT-R1P1000", "CCA-R10P1000", "CCAT-R12P010"]


@pytest.mark.parametrize("velocity", [7200.0, 0.0, -4.5e5, np.nan])
@pytest.mark.parametrize("step", [-976562.5, 488281.25])
def test_both_axes(tmp_path: Path, velocity: float, step: float) -> None:
    """F(n) is the frequency in the frame of the source, to 1 Hz; the velocity is exact to 1 m/s."""
    s = make_spectrum(velocity=velocity, frequency_step=step)
    write_class_fits(tmp_path / "x.fits", [s])
    ((_, (row,)),) = read(tmp_path / "x.fits")
    n = np.arange(1, s.values.size + 1)
    frequency = row["RESTFREQ"] + (n - row["CRPIX1"]) * row["CDELT1"]
    moving = 0.0 if np.isnan(velocity) else velocity
    expected: Any = lsr_frequencies(s) / (1 - moving / LIGHT)
    np.testing.assert_allclose(frequency, expected, rtol=0, atol=0.1)
    v = row["VELO-LSR"] + (n - row["CRPIX1"]) * row["DELTAV"]
    np.testing.assert_allclose(v, lsr_velocities(s), rtol=0, atol=0.01)
    image = s.image_frequency - (n - 1 - s.ref_channel) * s.frequency_step
    expected = image * (1 + s.site_velocity / LIGHT) / (1 - moving / LIGHT)
    seen = row["IMAGFREQ"] - (n - row["CRPIX1"]) * row["CDELT1"]
    np.testing.assert_allclose(seen, expected, rtol=0, atol=0.1)


def test_without_a_site_velocity_the_frame_is_the_observatory(tmp_path: Path) -> None:
    s = make_spectrum(site_velocity=np.nan)
    other = make_spectrum(velocity_frame="HELIOCEN")
    assert rest_axis(s).frame == "OBS"
    write_class_fits(tmp_path / "x.fits", [s, other])
    (first, (row,)), (second, _) = read(tmp_path / "x.fits")
    assert (first["VELDEF"], second["VELDEF"]) == ("RADI-OBS", "RADI-HEL")
    assert "VELO-OBS" in row.dtype.names
    n = np.arange(1, s.values.size + 1)
    v = row["VELO-OBS"] + (n - row["CRPIX1"]) * row["DELTAV"]
    expected = LIGHT * (1 - s.frequencies / s.rest_frequency)
    np.testing.assert_allclose(v, expected, rtol=0, atol=0.01)


def test_t_mb_tells_its_beam_efficiency_and_unknown_lines_their_own_frequency(
    tmp_path: Path,
) -> None:
    s = make_spectrum(scale="tmb", rest_frequency=np.nan, velocity=np.nan)
    write_class_fits(tmp_path / "x.fits", [s])
    ((_, (row,)),) = read(tmp_path / "x.fits")
    assert row["BEAMEFF"] == np.float32(0.7)
    assert row["CRPIX1"] == pytest.approx(s.ref_channel + 1)
    assert row["RESTFREQ"] == pytest.approx(s.frequency * (1 + s.site_velocity / LIGHT), abs=0.01)


def test_what_is_in_the_way(tmp_path: Path) -> None:
    with pytest.raises(L1Error, match="no spectrum"):
        write_class_fits(tmp_path / "x.fits", [])
    assert list(tmp_path.iterdir()) == []
    write_class_fits(tmp_path / "x.fits", [make_spectrum(20)])
    with pytest.raises(ConfigError, match="already there"):
        write_class_fits(tmp_path / "x.fits", [make_spectrum(20)])
