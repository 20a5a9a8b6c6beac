"""Directions and velocity frames, against astropy used in another way and against GBT's own numbers."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from gpucal.export.frames import Pointing, ScanFrame, Site, scan_frame
from gpucal.physics.doppler import LIGHT, radio_velocity, site_velocity, to_radio, vframe
from gpucal.physics.sidereal import local_sidereal_time

GBT = Site(38.43312, -79.83983, 824.551)


def pointing(
    mjd: Any, azimuth: float = 1.1, elevation: float = 0.9, lon: float = 0.0, lat: float = 0.0
) -> Pointing:
    mjd = np.atleast_2d(np.asarray(mjd, dtype=float)).T
    rest = (np.full(mjd.shape, x) for x in (azimuth, elevation, lon, lat))
    return Pointing(mjd, *rest)


def test_conventions_of_velocity() -> None:
    rest, velocity = 115.271e9, 3.0e7
    for convention, frequency in (
        ("RADI", rest * (1 - velocity / LIGHT)),
        ("OPTI", rest / (1 + velocity / LIGHT)),
        ("RELA", rest * np.sqrt((1 - velocity / LIGHT) / (1 + velocity / LIGHT))),
    ):
        assert to_radio(velocity, convention) == pytest.approx(
            radio_velocity(frequency, rest), rel=1e-9
        )
    with pytest.raises(ValueError, match="none of RADI"):
        to_radio(1.0, "VELO")


def test_vframe_and_site_velocity_are_inverse() -> None:
    for v in (-22151.8, 0.0, 29800.0):
        assert vframe(site_velocity(v)) == pytest.approx(v, abs=1e-6)
    # second order: 1.2 m/s at the speed of the Earth
    assert site_velocity(30e3) - 30e3 == pytest.approx(30e3**2 / 2 / LIGHT, rel=1e-3)


def test_sidereal_time_against_astropy() -> None:
    from astropy.time import Time
    from astropy.utils import iers

    with iers.conf.set_temp("auto_download", False), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for mjd in (53000.1, 59795.169, 61042.9):
            at = Time(mjd, format="mjd", scale="utc")
            at.delta_ut1_utc = 0.0
            hours = at.sidereal_time("mean", longitude=-67.7).hour
            assert local_sidereal_time(mjd, -67.7) == pytest.approx(hours * 3600, abs=0.5)


@pytest.mark.parametrize(("definition", "frame"), [("RADI-LSR", "lsrk"), ("RADI-BAR", "icrs")])
def test_the_site_velocity_is_that_of_spectral_coord(definition: str, frame: str) -> None:
    """To 0.1 m/s over the rotation of the Earth and its orbit; a shift by velocities of 30 km/s."""
    from astropy import units as u
    from astropy.coordinates import EarthLocation, SkyCoord, SpectralCoord
    from astropy.time import Time
    from astropy.utils import iers

    times = 59795.0 + np.array([0.0, 0.13, 0.4, 91.2, 240.7])
    attrs = {"scan_metadata": {"CTYPE2": "RA"}, "velocity_definition": definition}
    found = scan_frame(attrs, GBT, pointing(times, lon=309.7, lat=42.4))
    assert (found.ra, found.dec) == pytest.approx((309.7, 42.4))
    target = SkyCoord(309.7 * u.deg, 42.4 * u.deg)
    place = EarthLocation.from_geodetic(GBT.lon_deg, GBT.lat_deg, GBT.alt_m)
    with iers.conf.set_temp("auto_download", False), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = []
        for mjd in times:
            observer = place.get_itrs(Time(mjd, format="mjd"))
            sky = SpectralCoord(1e12 * u.Hz, observer=observer, target=target)
            rest = sky.with_observer_stationary_relative_to(frame).to_value(u.Hz)
            expected.append(LIGHT * (rest / 1e12 - 1))
    np.testing.assert_allclose(found.site_velocity[:, 0], expected, atol=0.1)
    assert np.ptp(found.site_velocity) > 20e3


def test_barycentric_and_topocentric() -> None:
    base = {"scan_metadata": {"CTYPE2": "RA"}}
    where = pointing([60000.3], lon=120.0, lat=10.0)
    found = scan_frame({**base, "velocity_definition": "OPTI-HEL"}, GBT, where)
    assert found.frame == "BARYCENT"
    assert 1e3 < abs(found.site_velocity[0, 0]) < 31e3
    found = scan_frame({**base, "velocity_definition": "RADI-TOP"}, GBT, where)
    assert found.frame == "TOPOCENT"
    assert found.site_velocity[0, 0] == 0.0


def test_az_el_gives_the_direction_less_the_otf_offset() -> None:
    from astropy import units as u
    from astropy.coordinates import AltAz, EarthLocation, SkyCoord
    from astropy.time import Time
    from astropy.utils import iers

    mjd, source = 60000.3, SkyCoord(200.0 * u.deg, 20.0 * u.deg)
    pointed = SkyCoord((200.0 + 0.1 / np.cos(np.radians(20.0))) * u.deg, 20.05 * u.deg)
    place = EarthLocation.from_geodetic(GBT.lon_deg, GBT.lat_deg, GBT.alt_m)
    with iers.conf.set_temp("auto_download", False), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame = AltAz(obstime=Time(mjd, format="mjd"), location=place)
        horizon = pointed.transform_to(frame)
    where = pointing([mjd], horizon.az.rad, horizon.alt.rad, 0.1, 0.05)
    found: ScanFrame = scan_frame({}, GBT, where)
    assert found.ra == pytest.approx(source.ra.deg, abs=2e-4)
    assert found.dec == pytest.approx(source.dec.deg, abs=2e-4)
    assert found.offset_lon[0, 0] == 0.1


def test_galactic_positions() -> None:
    where = pointing([60000.3], lon=30.0, lat=0.0)
    found = scan_frame({"scan_metadata": {"CTYPE2": "GLON"}}, GBT, where)
    assert (found.ra, found.dec) == pytest.approx((281.59, -2.6), abs=0.1)


@pytest.mark.parametrize(
    ("metadata", "frame"),
    [({"CTYPE2": "GLON"}, "galactic"), ({"CTYPE2": "RA", "RADESYS": "FK4"}, "fk4")],
)
def test_offsets_run_along_right_ascension(metadata: dict[str, str], frame: str) -> None:
    """A map in galactic or B1950 coordinates: source + offset is the position of each dump, in ICRS."""
    from astropy import units as u
    from astropy.coordinates import SkyCoord

    lon, lat = (30.0 + np.array([[-0.1], [0.0], [0.1]]) * sign for sign in (1.0, -0.5))
    one = np.full((3, 1), 1.0)
    where = Pointing(60000.3 + np.zeros((3, 1)), one, one, lon, lat)
    found = scan_frame({"scan_metadata": metadata}, GBT, where)
    true = SkyCoord(lon * u.deg, lat * u.deg, frame=frame).icrs
    ra = found.ra + found.offset_lon / np.cos(np.radians(found.dec))
    np.testing.assert_allclose(ra, true.ra.deg, atol=2e-4)
    np.testing.assert_allclose(found.dec + found.offset_lat, true.dec.deg, atol=1e-4)
    east, north = found.turned(np.array([0.004, 0.0]), np.array([0.0, 0.004]))
    for i, (x, y) in enumerate(((0.004 / np.cos(np.radians(30.0)), 0.0), (0.0, 0.004))):
        pixel = SkyCoord((30.0 + x) * u.deg, (30.0 + y) * u.deg, frame=frame).icrs
        middle = SkyCoord(30.0 * u.deg, 30.0 * u.deg, frame=frame).icrs
        offset = (pixel.ra - middle.ra).deg * np.cos(middle.dec.rad), (pixel.dec - middle.dec).deg
        np.testing.assert_allclose((east[i], north[i]), offset, atol=1e-5)


@pytest.mark.parametrize("definition", ["VRAD-LSR", "RADI-GAL", "LSR"])
def test_an_unknown_velocity_is_not_passed_off_as_lsrk(definition: str) -> None:
    attrs = {"velocity_definition": definition, "velocity_source_kms": -3.0}
    assert np.isnan(scan_frame(attrs, GBT, pointing([60000.3])).velocity)


def test_without_a_site_nothing_is_made_up() -> None:
    found = scan_frame({}, Site(), pointing([60000.3]))
    assert np.isnan([found.ra, found.dec, found.site_velocity[0, 0], found.velocity]).all()
    lost = scan_frame({}, GBT, pointing([np.nan]))
    assert np.isnan(lost.site_velocity).all()
