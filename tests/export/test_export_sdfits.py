"""SDFITS as dysh, astropy and the import of this package read it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.export.spectra import lsr_velocities, make_spectrum

from gpucal import ConfigError, L1Error, Spectrum, write_sdfits
from gpucal.io.fits.sdfits_read import read_sdfits
from gpucal.io.fits.sdfits_write import COLUMNS


@pytest.fixture
def written(tmp_path: Path) -> tuple[list[Spectrum], Path]:
    """Three spectra of two pixels, and the file that holds them."""
    spectra = [make_spectrum(seed=n, pixel=n, dump=n) for n in range(3)]
    path = tmp_path / "x.fits"
    assert write_sdfits(path, iter(spectra)) == 3
    return spectra, path


def test_astropy_reads_every_column(written: tuple[list[Spectrum], Path]) -> None:
    from astropy.io import fits

    spectra, path = written
    with fits.open(path) as hdus:
        hdus.verify("exception")
        assert [h.name for h in hdus] == ["PRIMARY", "SINGLE DISH"]
        rows = hdus[1].data
        assert rows.columns.names == [c.name for c in COLUMNS]
        assert [x.strip() for x in rows["TDIM7"]] == ["(300,1,1,1)"] * 3
        for row, s in zip(rows, spectra, strict=True):
            np.testing.assert_allclose(row["DATA"], s.values, rtol=1e-6)
            assert np.isnan(row["DATA"][7])
            channel = np.arange(1, 301)
            axis = row["CRVAL1"] + (channel - row["CRPIX1"]) * row["CDELT1"]
            np.testing.assert_allclose(axis, s.frequencies, rtol=0, atol=0.01)
            assert row["OBJECT"] == "NGC 1333 IRAS4A"
            assert (row["SCAN"], row["SUBSCAN"], row["INT"]) == (25650, 3, s.dump)
            assert (row["IFNUM"], row["PLNUM"], row["FDNUM"]) == (1, 1, s.pixel)
            assert (row["TSYS"], row["EXPOSURE"]) == (310.5, 2.5)
            assert (row["TRGTLONG"], row["TRGTLAT"]) == (52.29375, 31.22525)
            assert row["CRVAL2"] == pytest.approx(52.29375 + 0.01 / np.cos(np.radians(31.22525)))
            assert row["CRVAL3"] == pytest.approx(31.22525 - 0.02)
            assert (row["CTYPE2"], row["VELDEF"], row["SIDEBAND"]) == ("RA", "RADI-LSR", "L")
        # nothing after the last block
        info = hdus[1].fileinfo()
        assert path.stat().st_size == info["datLoc"] + info["datSpan"]


def test_dysh_reads_frequencies_values_and_velocities(written: tuple[list[Spectrum], Path]) -> None:
    from astropy import units as u
    from dysh.fits.gbtfitsload import GBTFITSLoad
    from dysh.fits.sdfitsload import SDFITSLoad

    spectra, path = written
    loaded = SDFITSLoad(str(path))
    assert loaded.nrows() == 3
    for n, s in enumerate(spectra):
        seen = loaded.getspec(n)
        np.testing.assert_allclose(
            seen.spectral_axis.to_value(u.Hz), s.frequencies, rtol=0, atol=1.0
        )
        good = np.isfinite(s.values)
        assert seen.flux.unit == u.K
        np.testing.assert_allclose(seen.flux.value[good], s.values[good], rtol=1e-6)
        assert (~good == (seen.mask | np.isnan(seen.flux.value))).all()
        assert seen.rest_value.to_value(u.Hz) == s.rest_frequency
    gbt = GBTFITSLoad(str(path))
    assert set(gbt["SCAN"]) == {25650}
    row = gbt.gettp(scan=25650, ifnum=1, plnum=1, fdnum=2)[0].timeaverage()
    np.testing.assert_allclose(
        row.spectral_axis.to_value(u.Hz), spectra[2].frequencies, rtol=0, atol=1.0
    )


def test_velocities_by_the_rule_of_sdfits(written: tuple[list[Spectrum], Path]) -> None:
    """nu_frame = nu_sky sqrt((1+b)/(1-b)), b = VFRAME/c; to 1 m/s of Spectrum's own definition."""
    from astropy.io import fits

    spectra, path = written
    with fits.open(path) as hdus:
        row = hdus[1].data[0]
        beta = row["VFRAME"] / 299792458.0
        sky = row["CRVAL1"] + (np.arange(1, 301) - row["CRPIX1"]) * row["CDELT1"]
        frame = sky * np.sqrt((1 + beta) / (1 - beta))
        velocity = 299792458.0 * (1 - frame / row["RESTFREQ"])
        np.testing.assert_allclose(velocity, lsr_velocities(spectra[0]), rtol=0, atol=0.01)


def test_the_import_of_this_package_reads_the_same(written: tuple[list[Spectrum], Path]) -> None:
    spectra, path = written
    rows = read_sdfits([path], ["SCAN", "DATE-OBS", "DURATION", "VFRAME"], {})
    np.testing.assert_allclose(rows.spectrum(1), spectra[1].values, rtol=1e-6)
    start = np.datetime64(str(rows["DATE-OBS"][0])) - np.datetime64("1858-11-17")
    mjd = start / np.timedelta64(1, "us") / 86400e6 + rows["DURATION"][0] / 2 / 86400
    assert mjd == pytest.approx(spectra[0].mjd, abs=0.006 / 86400)


def test_another_number_of_channels_starts_another_table(tmp_path: Path) -> None:
    spectra = [make_spectrum(n, seed=n) for n in (16, 16, 40, 16)]
    path = tmp_path / "x.fits"
    assert write_sdfits(path, spectra) == 4
    rows = read_sdfits([path], ["SCAN"], {})
    assert rows.n_channels.tolist() == [16, 16, 40, 16]
    for n, s in enumerate(spectra):
        np.testing.assert_allclose(rows.spectrum(n), s.values, rtol=1e-6)


def test_more_rows_than_the_buffer_holds(tmp_path: Path) -> None:
    one = make_spectrum(1 << 17)
    path = tmp_path / "x.fits"
    assert write_sdfits(path, (replace(one, dump=n) for n in range(40))) == 40
    rows = read_sdfits([path], ["INT"], {})
    assert rows["INT"].tolist() == list(range(40))
    np.testing.assert_allclose(rows.spectrum(39), one.values, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"velocity_frame": "BARYCENT"}, {"VELDEF": "RADI-BAR"}),
        ({"velocity_frame": "TOPOCENT", "site_velocity": 0.0}, {"VELDEF": "RADI-OBS", "VFRAME": 0}),
        ({"ra": np.nan, "dec": np.nan}, {"CTYPE2": "AZ", "CTYPE3": "EL", "RADESYS": ""}),
        ({"rest_frequency": np.nan}, {"RESTFREQ": 460.7654321e9}),
        ({"image_frequency": np.nan}, {"SIDEBAND": ""}),
        ({"band": ""}, {"IFNUM": 0}),
        ({"source": "Übersee"}, {"OBJECT": "?bersee"}),
        ({"scale": "tmb"}, {"TSCALE": "Tmb"}),
    ],
)
def test_what_is_special(tmp_path: Path, changes: dict[str, Any], expected: dict[str, Any]) -> None:
    from astropy.io import fits

    write_sdfits(tmp_path / "x.fits", [make_spectrum(32, **changes)])
    with fits.open(tmp_path / "x.fits") as hdus:
        row = hdus[1].data[0]
        assert {name: row[name] for name in expected} == expected


@pytest.mark.realdata
def test_columns_are_those_of_the_gbt_in_its_order(realdata: Path) -> None:
    from astropy.io import fits

    for path in sorted((realdata / "gbt").glob("*/*.fits")):
        with fits.open(path) as hdus:
            theirs = [n for n in hdus[1].columns.names if n != "FLAGS"]
            formats = {c.name: c.format[-1] for c in hdus[1].columns}
        ours = {c.name: c.form[-1] for c in COLUMNS}
        assert set(theirs) <= set(ours)
        if len(theirs) > 80:  # the widest of the dialects sets the order
            assert theirs == [c.name for c in COLUMNS][: len(theirs)]
        kinds = {"E": "D"}  # one precision more or less
        assert not {
            n for n in theirs if kinds.get(ours[n], ours[n]) != kinds.get(formats[n], formats[n])
        }


def test_nothing_is_left_when_it_fails(tmp_path: Path) -> None:
    def broken() -> Iterator[Spectrum]:
        yield make_spectrum(16)
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        write_sdfits(tmp_path / "x.fits", broken())
    with pytest.raises(L1Error, match="no spectrum"):
        write_sdfits(tmp_path / "x.fits", [])
    assert list(tmp_path.iterdir()) == []
    write_sdfits(tmp_path / "x.fits", [make_spectrum(16)])
    before = (tmp_path / "x.fits").read_bytes()
    with pytest.raises(ConfigError, match="already there"):
        write_sdfits(tmp_path / "x.fits", [make_spectrum(24)])
    with pytest.raises(RuntimeError, match="in the middle"):
        write_sdfits(tmp_path / "x.fits", broken(), overwrite=True)
    assert (tmp_path / "x.fits").read_bytes() == before
    write_sdfits(tmp_path / "x.fits", [make_spectrum(24)], overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["x.fits"]
    assert read_sdfits([tmp_path / "x.fits"], ["SCAN"], {}).n_channels.tolist() == [24]
    with pytest.raises(ConfigError, match="not a file"):
        write_sdfits(tmp_path, [make_spectrum(24)], overwrite=True)
    with pytest.raises(ConfigError, match="does not exist"):
        write_sdfits(tmp_path / "no" / "x.fits", [make_spectrum(24)])
