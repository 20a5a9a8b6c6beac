"""A real line through the whole chain: DR21, N2H+, at v_LSR = -2.94 km/s in every format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gpucal import main

pytestmark = pytest.mark.realdata
LIGHT_KMS = 299792.458
V_LSR = -2.94


@pytest.fixture(scope="module")
def night(realdata: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The calibrated DR21 scan."""
    folder = tmp_path_factory.mktemp("dr21")
    files = sorted(str(f) for f in (realdata / "gbt" / "TGBT22A_603_05").glob("*.fits"))
    assert main(["import", "sdfits", *files, str(folder / "l0.zarr"), "--quiet"]) == 0
    options = ["--atmosphere", "none", "--tau", "0.1", "--t-atm", "273", "--airmass", "gbt"]
    options += ["--quiet"]
    assert main(["calibrate", str(folder / "l0.zarr"), str(folder / "l1.zarr"), *options]) == 0
    return folder / "l1.zarr"


def peak(velocity_kms: np.ndarray, values: np.ndarray) -> float:
    """Velocity of the strongest of the means of 32 channels within 30 km/s of zero."""
    n = velocity_kms.size // 32 * 32
    good = np.isfinite(values)
    channel = np.arange(values.size)
    filled = np.interp(channel, channel[good], values[good])
    smooth, velocity = (x[:n].reshape(-1, 32).mean(axis=1) for x in (filled, velocity_kms))
    near = np.flatnonzero(np.abs(velocity + 3.0) < 30.0)
    return float(velocity[near[np.argmax(smooth[near])]])


def test_sdfits_says_the_frame_as_the_original_does(
    night: Path, realdata: Path, tmp_path: Path
) -> None:
    from astropy.io import fits

    out = tmp_path / "x.fits"
    assert main(["export", "sdfits", str(night), str(out), "--quiet"]) == 0
    source = next((realdata / "gbt" / "TGBT22A_603_05").glob("*.fits"))
    with fits.open(source) as theirs, fits.open(out) as ours:
        old = theirs[1].data[theirs[1].data["OBJECT"] == "DR21"][0]
        row = ours[1].data[0]
        for name in ("CRPIX1", "RESTFREQ", "CRVAL2", "CRVAL3", "ELEVATIO", "AZIMUTH"):
            assert row[name] == pytest.approx(old[name], rel=1e-7)
        assert row["VFRAME"] == pytest.approx(old["VFRAME"], abs=1e-3)
        assert row["CRVAL1"] == pytest.approx(old["CRVAL1"], abs=1.0)
        assert row["CDELT1"] == pytest.approx(old["CDELT1"], rel=1e-7)
        assert row["LST"] == pytest.approx(old["LST"], abs=1.0)  # of DATE-OBS
        for name in ("VELDEF", "SIG", "CAL", "CTYPE1", "CTYPE2", "CTYPE3"):
            assert row[name].strip() == old[name].strip()
        beta = row["VFRAME"] / 1e3 / LIGHT_KMS
        sky = row["CRVAL1"] + (np.arange(1, 65537) - row["CRPIX1"]) * row["CDELT1"]
        frame = sky * np.sqrt((1 + beta) / (1 - beta))
        velocity = LIGHT_KMS * (1 - frame / row["RESTFREQ"])
        assert peak(velocity, row["DATA"]) == pytest.approx(V_LSR, abs=0.15)


def test_class_fits(night: Path, tmp_path: Path) -> None:
    from astropy.io import fits

    out = tmp_path / "x.fits"
    assert main(["export", "class-fits", str(night), str(out), "--quiet"]) == 0
    with fits.open(out) as hdus:
        row = hdus[1].data[0]
        velocity = row["VELO-LSR"] + (np.arange(1, 65537) - row["CRPIX1"]) * row["DELTAV"]
        assert peak(velocity / 1e3, row["SPECTRUM"]) == pytest.approx(V_LSR, abs=0.15)


def test_fits1d_in_specutils(night: Path, tmp_path: Path) -> None:
    from astropy import units as u
    from astropy.io import fits
    from specutils import Spectrum

    assert main(["export", "fits1d", str(night), str(tmp_path / "x"), "--quiet"]) == 0
    (path,) = (tmp_path / "x").iterdir()
    header = fits.getheader(path)
    assert header["SPECSYS"] == "LSRK"
    seen = Spectrum.read(path, format="wcs1d-fits")
    velocity = seen.spectral_axis.to_value(
        u.km / u.s, doppler_rest=header["RESTFRQ"] * u.Hz, doppler_convention="radio"
    )
    assert peak(velocity, seen.flux.value) == pytest.approx(V_LSR, abs=0.15)


def test_dysh_finds_the_line_with_its_own_frames(night: Path, tmp_path: Path) -> None:
    from astropy import units as u
    from dysh.coordinates import Observatory
    from dysh.fits.sdfitsload import SDFITSLoad

    out = tmp_path / "x.fits"
    assert main(["export", "sdfits", str(night), str(out), "--quiet"]) == 0
    seen = SDFITSLoad(str(out)).getspec(0, observer_location=Observatory["GBT"])
    velocity = seen.velocity_axis_to(unit=u.km / u.s, toframe="lsrk", doppler_convention="radio")
    assert peak(velocity.value, np.asarray(seen.flux.value)) == pytest.approx(V_LSR, abs=0.15)
