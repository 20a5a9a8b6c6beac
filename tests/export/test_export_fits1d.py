"""One-dimensional FITS as pyspeckit, specutils and astropy's WCS read it."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from builders.export.spectra import LIGHT, lsr_frequencies, lsr_velocities, make_spectrum

import gpucal
from gpucal import ConfigError, L1Error, write_fits1d
from gpucal.io.fits.one_spectrum import file_name


@pytest.fixture
def written(tmp_path: Path) -> tuple[gpucal.Spectrum, Path]:
    s = make_spectrum()
    assert write_fits1d(tmp_path / "x", [s]) == 1
    (path,) = (tmp_path / "x").iterdir()
    return s, path


def test_names_say_what_is_inside(written: tuple[gpucal.Spectrum, Path]) -> None:
    s, path = written
    assert path.name == file_name(s)
    assert path.name == "NGC-1333-IRAS4A_scan025650_band_2_sub003_d0004_r1_p012.fits"
    mean = make_spectrum(source="", band="", subscan=-1, dump=-1)
    assert file_name(mean) == "source_scan025650_r1_p012.fits"


def test_astropy_wcs_and_exact_values(written: tuple[gpucal.Spectrum, Path]) -> None:
    from astropy.io import fits
    from astropy.wcs import WCS

    s, path = written
    with fits.open(path) as hdus:
        hdus.verify("exception")
        header, data = hdus[0].header, np.array(hdus[0].data)
    np.testing.assert_array_equal(data, s.values)
    wcs = WCS(header)
    seen = wcs.wcs_pix2world(np.arange(s.values.size), 0)[0]
    np.testing.assert_allclose(seen, lsr_frequencies(s), rtol=0, atol=1e-2)
    assert (wcs.wcs.specsys, wcs.wcs.ssysobs) == ("LSRK", "TOPOCENT")
    assert wcs.wcs.restfrq == s.rest_frequency
    assert header["BUNIT"] == "K"
    assert (header["SCAN"], header["PIXEL"], header["TSYS"]) == (25650, 12, 310.5)
    # what is known beside it leads back to the sky
    back = header["CRVAL1"] / np.sqrt(
        (1 + header["VFRAME"] / LIGHT) / (1 - header["VFRAME"] / LIGHT)
    )
    assert back == pytest.approx(s.frequency, abs=1e-2)
    assert header["OBSFREQ"] == s.frequency


def test_specutils(written: tuple[gpucal.Spectrum, Path]) -> None:
    from astropy import units as u
    from specutils import Spectrum

    s, path = written
    seen = Spectrum.read(path, format="wcs1d-fits")
    assert seen.flux.unit == u.K
    axis = seen.spectral_axis.to_value(u.Hz)
    order = slice(None) if axis[0] > axis[-1] else slice(None, None, -1)
    np.testing.assert_allclose(axis[order], lsr_frequencies(s), rtol=0, atol=1.0)
    np.testing.assert_allclose(seen.flux.value[order], s.values, rtol=1e-14)
    velocity = seen.spectral_axis.to_value(
        u.m / u.s, doppler_rest=s.rest_frequency * u.Hz, doppler_convention="radio"
    )
    np.testing.assert_allclose(velocity[order], lsr_velocities(s), rtol=0, atol=1.0)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_pyspeckit(written: tuple[gpucal.Spectrum, Path]) -> None:
    """pyspeckit leaves the file open, until the collection at the end of the test."""
    import gc

    import pyspeckit

    s, path = written
    seen = pyspeckit.Spectrum(str(path))
    axis = np.asarray(seen.xarr.as_unit("Hz").value)
    order = slice(None) if axis[0] > axis[-1] else slice(None, None, -1)
    np.testing.assert_allclose(axis[order], lsr_frequencies(s), rtol=0, atol=1.0)
    good = np.isfinite(s.values)
    data = np.ma.getdata(seen.data)[order]
    np.testing.assert_allclose(data[good], s.values[good], rtol=1e-14)
    assert str(seen.unit) == "K"
    seen.xarr.convert_to_unit("km/s", velocity_convention="radio")
    velocity = np.asarray(seen.xarr.value)
    order = slice(None) if velocity[0] < velocity[-1] else slice(None, None, -1)
    np.testing.assert_allclose(1e3 * velocity[order], lsr_velocities(s), rtol=0, atol=1.0)
    del seen
    gc.collect()


def test_without_a_site_velocity_it_is_topocentric(tmp_path: Path) -> None:
    from astropy.io import fits

    s = make_spectrum(site_velocity=np.nan, t_cold=np.nan, observer="")
    write_fits1d(tmp_path / "x", [s])
    header = fits.getheader(tmp_path / "x" / file_name(s))
    assert (header["SPECSYS"], header["CRVAL1"]) == ("TOPOCENT", s.frequency)
    assert not {"VFRAME", "TCOLD", "OBSERVER"} & set(header)


def test_folders_are_whole_and_foreign_ones_are_left_alone(tmp_path: Path) -> None:
    def broken() -> Iterator[gpucal.Spectrum]:
        yield make_spectrum(16)
        raise RuntimeError("in the middle")

    out = tmp_path / "x"
    with pytest.raises(RuntimeError, match="in the middle"):
        write_fits1d(out, broken())
    with pytest.raises(L1Error, match="no spectrum"):
        write_fits1d(out, [])
    assert list(tmp_path.iterdir()) == []
    assert write_fits1d(out, [make_spectrum(16, pixel=n) for n in range(3)]) == 3
    with pytest.raises(ConfigError, match="already there"):
        write_fits1d(out, [make_spectrum(16)])
    with pytest.raises(RuntimeError, match="in the middle"):
        write_fits1d(out, broken(), overwrite=True)
    assert len(list(out.iterdir())) == 3
    assert write_fits1d(out, [make_spectrum(16)], overwrite=True) == 1
    assert [p.name for p in out.iterdir()] == [file_name(make_spectrum())]
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds notes.txt"):
        write_fits1d(out, [make_spectrum(16)], overwrite=True)
    assert (out / "notes.txt").read_text() == "mine"
    with pytest.raises(ConfigError, match="is a file"):
        write_fits1d(out / "notes.txt", [make_spectrum(16)], overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize(
    ("module", "write"),
    [
        ("sdfits_write", "write_sdfits"),
        ("class_fits", "write_class_fits"),
        ("one_spectrum", "write_fits1d"),
    ],
)
def test_names_that_fits_cannot_hold(tmp_path: Path, module: str, write: str) -> None:
    """Umlauts and line ends in names are no reason to fail."""
    odd = make_spectrum(telescope="Größe\n1", source="α Ori\n", instrument="µ")
    function = getattr(importlib.import_module(f"gpucal.io.fits.{module}"), write)
    assert function(tmp_path / "out", [odd]) == 1
