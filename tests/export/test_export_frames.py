"""Directions and velocity frames, against astropy used in another way and against GBT's own numbers."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gpucal import GpucalWarning, Spectrum
from gpucal.export.frames import Pointing, ScanFrame, Site, scan_frame
from gpucal.physics.doppler import LIGHT, radio_velocity, site_velocity, to_radio, vframe
from gpucal.physics.rest_frames import definition_of, in_frame
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


@pytest.mark.parametrize(
    ("definition", "frame"),
    [
        ("RADI-LSR", "lsrk"),
        ("VRAD-LSK", "lsrk"),
        ("RADI-BAR", "icrs"),
        ("OPTI-HEL", "hcrs"),
        ("TRUE-LSD", "lsrd"),
        ("RELA-GEO", "gcrs"),
    ],
)
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
    assert np.ptp(found.site_velocity) > (500.0 if frame == "gcrs" else 20e3)


def test_heliocentric_and_topocentric() -> None:
    base = {"scan_metadata": {"CTYPE2": "RA"}}
    where = pointing([60000.3], lon=120.0, lat=10.0)
    found = scan_frame({**base, "velocity_definition": "OPTI-HEL"}, GBT, where)
    assert found.frame == "HELIOCEN"
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


@pytest.mark.parametrize("frame", ["icrs", "fk4", "galactic"])
def test_offsets_count_from_the_direction_that_the_scan_names(frame: str) -> None:
    """Whatever azimuth and elevation say; those of another frame are turned into ICRS."""
    from astropy import units
    from astropy.coordinates import SkyCoord

    told = SkyCoord(83.8 * units.deg, -5.4 * units.deg, frame=frame)
    near = told.spherical_offsets_by(1e-3 * units.deg, 0 * units.deg).icrs
    attrs = {"source_direction": {"lon_deg": 83.8, "lat_deg": -5.4, "frame": frame}}
    found = scan_frame(attrs, GBT, pointing(60000.2, lon=1e-3, lat=0.0))
    assert found.ra == pytest.approx(told.icrs.ra.deg, abs=1e-7)
    assert found.dec == pytest.approx(told.icrs.dec.deg, abs=1e-7)
    assert found.offset_lon[0, 0] == 1e-3
    lon, lat = found.turned(found.offset_lon, found.offset_lat)
    ra = found.ra + float(lon[0, 0]) / np.cos(np.deg2rad(found.dec))
    assert ra == pytest.approx(near.ra.deg, abs=2e-6)
    assert found.dec + float(lat[0, 0]) == pytest.approx(near.dec.deg, abs=2e-6)


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


@pytest.mark.parametrize("definition", ["VELO-LSR", "RADI-XYZ", "LSR", "ZOPT-BAR"])
def test_an_unknown_velocity_is_not_passed_off_as_lsrk(definition: str) -> None:
    attrs = {"velocity_definition": definition, "velocity_source_kms": -3.0, "scan_number": 7}
    with pytest.warns(
        GpucalWarning, match=rf"scan 7: the velocity .*'{definition}', expected RADI"
    ):
        found = scan_frame(attrs, GBT, pointing([60000.3]))
    assert np.isnan(found.velocity)


@pytest.mark.parametrize(
    ("definition", "frame", "speed"),
    [
        ("VOPT-GAL", "GALACTOC", {"u": 9.0, "v": 232.0, "w": 7.0}),
        ("RADI-LSD", "LSRD", {"u": 9.0, "v": 12.0, "w": 7.0}),
    ],
)
def test_galactic_motions_from_astropy_s_galactic_axes(
    definition: str, frame: str, speed: dict[str, float]
) -> None:
    """The Sun moves at these km/s along galactic x, y, z: towards the source, so much more negative."""
    from astropy import units as u
    from astropy.coordinates import SkyCoord

    base = {"scan_metadata": {"CTYPE2": "RA"}}
    where = pointing([60000.3], lon=309.7, lat=42.4)
    found = scan_frame({**base, "velocity_definition": definition}, GBT, where)
    bary = scan_frame({**base, "velocity_definition": "RADI-BAR"}, GBT, where)
    n = SkyCoord(309.7 * u.deg, 42.4 * u.deg).galactic.cartesian.xyz.value
    towards = 1e3 * float(n @ list(speed.values()))
    assert found.frame == frame
    apart = found.site_velocity[0, 0] - bary.site_velocity[0, 0]
    assert apart == pytest.approx(-towards, rel=1e-3)


def test_the_microwave_background_moves_at_368_km_s() -> None:
    from astropy import units as u
    from astropy.coordinates import SkyCoord

    apex = SkyCoord(263.85 * u.deg, 48.25 * u.deg, frame="galactic").icrs
    attrs = {"scan_metadata": {"CTYPE2": "RA"}}
    where = pointing([60000.3], lon=apex.ra.deg, lat=apex.dec.deg)
    found = scan_frame({**attrs, "velocity_definition": "RADI-COB"}, GBT, where)
    bary = scan_frame({**attrs, "velocity_definition": "RADI-BAR"}, GBT, where)
    assert found.frame == "CMBDIPOL"
    beta = [vframe(x.site_velocity[0, 0]) for x in (found, bary)]
    assert beta[0] - beta[1] == pytest.approx(-368e3, abs=1.0)


def test_heliocentric_is_not_barycentric() -> None:
    """The Sun moves at up to 16 m/s around the barycentre."""
    times = 59000.0 + np.arange(0, 4400, 200.0)
    base = {"scan_metadata": {"CTYPE2": "RA"}}
    helio, bary = (
        scan_frame({**base, "velocity_definition": f"RADI-{c}"}, GBT, pointing(times, lon=60.0))
        for c in ("HEL", "BAR")
    )
    apart = np.abs(helio.site_velocity - bary.site_velocity)
    assert 8.0 < apart.max() < 17.0


@pytest.mark.parametrize(
    "definition", ["OPTI-HEL", "RADI-GAL", "TRUE-COB", "VRAD-LSRD", "RELA-BAR"]
)
def test_vframe_is_in_the_frame_that_the_definition_names(definition: str) -> None:
    attrs = {"velocity_definition": definition, "velocity_frame_mps": -2e4}
    found = scan_frame({**attrs, "velocity_source_kms": 3e3}, GBT, pointing([60000.3]))
    assert found.frame == definition_of(definition)[1] != "LSRK"
    assert vframe(found.site_velocity[0, 0]) == pytest.approx(-2e4)
    assert found.velocity == to_radio(3e6, str(definition_of(definition)[0]))


def test_a_spectrum_moved_to_another_frame_keeps_its_line() -> None:
    """Against astropy: the LSRK velocity of a line that has 3000 km/s in the barycentric frame."""
    from astropy import units as u
    from astropy.coordinates import LSRK, SkyCoord

    attrs = {"scan_metadata": {"CTYPE2": "RA"}, "velocity_source_kms": 300.0}
    where = pointing([60000.3], lon=309.7, lat=42.4)
    both = [
        scan_frame({**attrs, "velocity_definition": f"RADI-{c}"}, GBT, where)
        for c in ("BAR", "LSR")
    ]
    rest = 115.271e9
    s = Spectrum(
        values=np.zeros(3),
        frequency=rest * (1 - 3e5 / LIGHT) / (1 + both[0].site_velocity[0, 0] / LIGHT),
        frequency_step=1e6,
        ref_channel=1.0,
        rest_frequency=rest,
        velocity=both[0].velocity,
        velocity_frame=both[0].frame,
        site_velocity=both[0].site_velocity[0, 0],
        ra=both[0].ra,
        dec=both[0].dec,
    )
    moved = in_frame(s, "LSRK")
    assert moved.velocity_frame == "LSRK"
    assert moved.site_velocity == pytest.approx(both[1].site_velocity[0, 0], abs=1e-2)
    in_lsrk = s.frequency * (1 + moved.site_velocity / LIGHT)
    assert moved.velocity == pytest.approx(LIGHT * (1 - in_lsrk / rest), abs=1e-6)
    target = SkyCoord(
        309.7 * u.deg, 42.4 * u.deg, distance=1 * u.Mpc, radial_velocity=0 * u.km / u.s,
        pm_ra_cosdec=0 * u.mas / u.yr, pm_dec=0 * u.mas / u.yr,
    )  # fmt: skip
    shift = target.transform_to(LSRK()).radial_velocity.to_value(u.m / u.s)
    assert moved.velocity - 3e5 == pytest.approx(shift, rel=2e-3)
    lost = in_frame(replace(s, ra=np.nan), "LSRK")
    assert np.isnan([lost.velocity, lost.site_velocity]).all()


def test_without_a_site_nothing_is_made_up() -> None:
    found = scan_frame({}, Site(), pointing([60000.3]))
    assert np.isnan([found.ra, found.dec, found.site_velocity[0, 0], found.velocity]).all()
    lost = scan_frame({}, GBT, pointing([np.nan]))
    assert np.isnan(lost.site_velocity).all()
