"""What the description of MBFITS and public readers of it warn of, and what the reader makes of it."""

from __future__ import annotations

import gzip
import re
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.mbfits import DAY, NONSENSE, Febe, MbScan, small

from gpucal import GpucalWarning, ImportFormatError, ImportReport, Scan, import_raw, open_l0

START, BAND = small.START, small.BAND


class Imported:
    """Scans written into a folder, and the store that comes of them."""

    def __init__(
        self,
        folder: Path,
        *scans: MbScan,
        profile: str = "",
        grouped: bool = False,
        **options: Any,
    ) -> None:
        self.raw = folder / "raw"
        self.raw.mkdir(exist_ok=True)
        for scan in scans:
            scan.write(self.raw, grouped)
        path = None
        if profile:
            path = folder / "site.toml"
            path.write_text(f"[mbfits]\n{profile}\n")
        self.out = folder / "l0"
        self.said: list[str] = []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.report: ImportReport = import_raw(
                self.raw, self.out, format="mbfits", profile=path, **options
            )
        self.said = [str(w.message) for w in caught if issubclass(w.category, GpucalWarning)]

    @property
    def lost(self) -> str:
        return " | ".join(x.sentence for x in self.report.lost)

    def scan(self, number: int = 5, band: str = "") -> Scan:
        found = open_l0(self.out).load(number)
        return next(s for s in found if not band or s.band == band)

    def source(self, number: int = 5) -> Any:
        return self.scan(number).source

    def loads(self, number: int = 4) -> Any:
        return self.scan(number).calibration

    def counts(self, number: int = 5, s: int = 0) -> Any:
        """[C, D, R, A] of a subscan."""
        scan = self.scan(number)
        group: Any = scan.source or scan.calibration
        return np.asarray(group.counts.read(0, group.shape[0], s))

    def assumed(self, number: int = 5) -> dict[str, Any]:
        return {a["what"]: a["value"] for a in self.scan(number).attrs.get("assumptions", [])}


def night(folder: Path, scan: MbScan | None = None, **changes: Any) -> Imported:
    return Imported(folder, scan or small.on_off(), **changes)


def refused(folder: Path, scan: MbScan, words: str, **changes: Any) -> None:
    """The scan cannot be imported, with these words."""
    with pytest.raises(ImportFormatError, match=re.escape(words)):
        Imported(folder, scan, **changes)


# times


@pytest.mark.parametrize("tai2utc", [35.0, -35.0, 0.0, None])
def test_times_are_utc(tmp_path: Path, tai2utc: float | None) -> None:
    """TAI is 35 s ahead at the end of 2014, whatever the sign of TAI2UTC."""
    made = night(tmp_path, small.on_off(head={"TAI2UTC": tai2utc}))
    first = START + 300 / DAY + (small.STEP_S + 0.5) / DAY
    assert abs(made.source().mjd[0, 0] - first) * DAY < 1e-3
    assert made.scan().attrs["date_obs"].startswith("2014-12-09T06:05:20")
    assert not made.said


def test_utc_stays_as_it_is(tmp_path: Path) -> None:
    made = night(tmp_path, small.on_off(system="UTC"))
    first = START + 300 / DAY + (small.STEP_S + 0.5) / DAY
    assert abs(made.source().mjd[0, 0] - first) * DAY < 1e-3


def test_other_leap_seconds_than_the_header_says(tmp_path: Path) -> None:
    made = night(tmp_path, small.on_off(head={"TAI2UTC": 30.0}))
    assert any("TAI2UTC is 30 s, but TAI was 35 s ahead" in s for s in made.said)


def test_another_year_has_other_leap_seconds(tmp_path: Path) -> None:
    begin = 54000.25
    made = Imported(tmp_path, small.calibration(start=begin, ahead=33.0))
    middle = begin + small.STEP_S / DAY + 0.5 / DAY
    assert abs(made.loads().mjd[0, 0] - middle) * DAY < 1e-3


def test_without_timesys_a_profile_decides(tmp_path: Path) -> None:
    scan = small.on_off(head={"TIMESYS": None}, first={"TIMESYS": None})
    made = night(tmp_path, scan, profile='time_system = "TAI"')
    first = START + 300 / DAY + (small.STEP_S + 0.5) / DAY
    assert abs(made.source().mjd[0, 0] - first) * DAY < 1e-3


def test_time_stamp(tmp_path: Path) -> None:
    plain, moved = (
        night(_made(tmp_path / name), profile=profile)
        for name, profile in (("a", ""), ("b", 'time_stamp = "begin"'))
    )
    apart = (moved.source().mjd - plain.source().mjd) * DAY
    np.testing.assert_allclose(apart, 0.5, atol=1e-4)
    assert plain.assumed()["time_stamp"] == "middle"


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


# subscans


@pytest.mark.parametrize("keyword", ["OBSNUM", "SUBSNUM", "both"])
def test_subscans_by_the_number_that_is_there(tmp_path: Path, keyword: str) -> None:
    """SUBSNUM 0 everywhere, or no OBSNUM at all, as different writers do."""
    scan = small.on_off()
    for s in scan.subs:
        if keyword != "OBSNUM":
            cards = {"SUBSNUM": s.number} | ({"OBSNUM": None} if keyword == "SUBSNUM" else {})
            s.pars |= cards
            s.arrays |= cards
    if keyword == "SUBSNUM":
        scan.without = ["MONITOR-MBFITS"]
    made = night(tmp_path, scan)
    assert made.report.exit_code == 0, made.lost
    assert made.source().sobsmode == ("OFF", "ON", "OFF")


def test_tables_in_any_order(tmp_path: Path) -> None:
    """Tables belong together by their keywords."""
    from astropy.io import fits

    raw = _made(tmp_path / "raw")
    small.calibration().write(raw)
    scan = small.on_off()
    units = [m[4] for m in scan.members()]
    fits.HDUList([scan.primary(), *units[::-1]]).writeto(raw / f"{scan.name()}.fits")
    made = Imported(tmp_path)
    assert made.source().sobsmode == ("OFF", "ON", "OFF")


def test_obstype_before_version_1_63(tmp_path: Path) -> None:
    made = night(tmp_path, small.on_off(version="1.60"))
    assert made.source().sobsmode == ("OFF", "ON", "OFF")


def test_aborted_subscans(tmp_path: Path) -> None:
    def scan() -> MbScan:
        made = small.on_off(order="RSRS")
        made.subs[3].pars = {"OBSTATUS": "ABORT"}
        return made

    made = night(_made(tmp_path / "a"), scan())
    assert made.source().sobsmode == ("OFF", "ON", "OFF")
    made = night(_made(tmp_path / "b"), scan(), profile='aborted = "take"')
    assert made.source().sobsmode == ("OFF", "ON", "OFF", "ON")


def test_a_map_by_its_motion(tmp_path: Path) -> None:
    """SCANMODE may not say that the telescope moves."""
    scan = small.on_off()
    for s in scan.subs[1:2]:
        s.lon = np.linspace(-0.01, 0.01, 3)
    made = night(tmp_path, scan)
    assert made.source().sobsmode == ("OTF-OFF", "OTF-ON", "OTF-OFF")


def test_references_that_are_not_called_so(tmp_path: Path) -> None:
    """As at Effelsberg: OFF and ON by their offsets."""
    scan = small.on_off()
    for s in scan.subs:
        s.kind = "ON"
    made = night(tmp_path, scan)
    assert made.source().sobsmode == ("OFF", "ON", "OFF")
    assert "ON and REF" in made.assumed()


def test_no_reference_at_all(tmp_path: Path) -> None:
    refused(tmp_path, small.on_off(order="SS"), "none of its 2 subscans is called REF")


def test_loads_of_the_scan_itself(tmp_path: Path) -> None:
    subs = [small.sub(n, k) for n, k in enumerate(("SKY", "HOT", "COLD", "REF", "ON", "REF"), 1)]
    made = Imported(tmp_path, small.scan(5, "ONOFF", subs))
    assert set(made.source().lloadsn.tolist()) == {5}
    assert made.loads(5).sobsmode == ("SKY", "HOT", "COLD")


def test_an_unknown_kind_costs_its_subscan(tmp_path: Path) -> None:
    scan = small.on_off(order="RSRS")
    scan.subs[3].kind = "DANCE"
    made = night(tmp_path, scan)
    assert "subscan 4 whose kind is 'DANCE', expected HOT" in made.lost
    assert made.source().sobsmode == ("OFF", "ON", "OFF")


# dumps


def test_rows_without_a_partner_are_left_out(tmp_path: Path) -> None:
    """A row of counts more than DATAPAR has (in all scans here), and one of DATAPAR that has no counts."""
    scan = small.on_off()
    s = scan.subs[1]
    s.data = {k: v[:2] for k, v in s.data.items()}
    scan.spare_rows = False
    s.middle = s.middle[:2]
    made = night(tmp_path, scan)
    counts = made.counts(5, 1)
    assert np.isfinite(counts[:, :2]).all()
    assert np.isnan(counts[:, 2]).all()
    assert not (made.counts(5, 0) > 0.5 * NONSENSE).any()


def test_pointing_at_other_times_is_interpolated(tmp_path: Path) -> None:
    scan = small.on_off()
    for s in scan.subs:
        s.lon = np.linspace(0.0, 0.002, 3) + (small.AWAY if s.kind == "REF" else 0.0)
        s.columns = {"MJD": ("D", scan.file_time(s.middle) - 0.25 / DAY)}
    made = night(tmp_path, scan)
    assert any("differ by 0.250 s" in s for s in made.said)
    np.testing.assert_allclose(made.source().otf_lon[:2, 1], [0.00025, 0.00125], atol=1e-9)


def test_blank_pointing_is_nan_and_blank_counts_too(tmp_path: Path) -> None:
    scan = small.on_off()
    s = scan.subs[1]
    s.lon = np.array([0.0, -999.0, 0.0])
    s.data = {k: np.where(np.arange(3)[:, None, None] == 2, -999.0, v) for k, v in s.data.items()}
    made = night(tmp_path, scan)
    assert np.isnan(made.source().otf_lon[1, 1])
    counts = made.counts(5, 1)
    assert np.isnan(counts[:, 2]).all()
    assert np.isfinite(counts[:, :2]).all()


@pytest.mark.parametrize("how", ["mean", "sum"])
def test_means_and_sums(tmp_path: Path, how: str) -> None:
    scan = small.on_off()
    for s in scan.subs:
        s.exposure = 2.0
        s.middle = s.middle[0] + 2.0 * np.arange(3) / DAY
    made = night(tmp_path, scan, profile=f'counts = "{how}"')
    wanted = small.LEVEL["ON"] / (1.0 if how == "mean" else 2.0)
    assert made.counts(5, 1)[0, 0, 0, 0] == pytest.approx(wanted)


def test_dumps_of_different_lengths_are_told_of(tmp_path: Path) -> None:
    """Then it matters whether DATA are means or sums."""
    from gpucal.io.incoming.protocol import Request
    from gpucal.io.mbfits.importer import MBFITS

    scan = small.on_off()
    s = scan.subs[1]
    s.exposure, s.middle = 2.0, s.middle[0] + 2.0 * np.arange(3) / DAY
    plan = MBFITS.plan(Request([scan.write(tmp_path)]))
    assert any("dumps last 1 to 2 s: DATA are taken for means" in p for p in plan.scans[0].problems)


def test_loads_need_no_pointing(tmp_path: Path) -> None:
    """The telescope may not be read out while it looks at HOT and COLD."""
    scan = small.calibration()
    for s in scan.subs[1:]:
        s.az = s.el = s.lon = s.lat = -999.0
    made = Imported(tmp_path, scan)
    assert made.report.exit_code == 0
    assert made.loads().sobsmode == ("SKY", "HOT", "COLD")


# feeds


def feeds_night(folder: Path, febe: Febe, spectra: int = 2, **changes: Any) -> Imported:
    given = {"feeds": spectra, **changes.pop("sub", {})}
    scans = [
        small.calibration(febes=[febe], sub=given, **changes),
        small.on_off(febes=[febe], sub=given, **changes),
    ]
    return Imported(folder, *scans)


def test_a_feed_twice_is_two_polarisations(tmp_path: Path) -> None:
    """As at Effelsberg: USEFEED [1, 1], BESECTS [2, 1]: R in the order of the sections."""
    made = feeds_night(
        tmp_path, small.febe(feeds=(1, 1), sections=(2, 1)), telescope="EFFELSBERG", version="1.67"
    )
    assert made.source().shape[:4] == (6, 3, 2, 1)
    counts = made.counts(5, 1)
    assert counts[0, 0, 0, 0] == small.LEVEL["ON"] + 20.0
    assert counts[0, 0, 1, 0] == small.LEVEL["ON"]
    assert open_l0(made.out).attrs["telescope"] == "EFFELSBERG"


PLACES = ((0.0, 0.0), (0.01, 0.0), (0.0, 0.02))


@pytest.mark.parametrize("wide", [False, True])
def test_columns_of_feeds_of_fixed_and_of_variable_length(tmp_path: Path, wide: bool) -> None:
    febe = small.febe(feeds=(3, 2), offsets=PLACES)
    if wide:
        febe.columns = {"USEFEED": ("5J", [[3, 2, -999, -999, -999]])}
    made = feeds_night(tmp_path, febe)
    lon, lat = made.source().pixel_offset_lon[0, :, 0], made.source().pixel_offset_lat[0, :, 0]
    np.testing.assert_allclose(lon, [0.0, 0.01], atol=1e-12)
    np.testing.assert_allclose(lat, [0.02, 0.0], atol=1e-12)


def test_feeds_of_each_baseband(tmp_path: Path) -> None:
    """USEFEED of basebands with different numbers of feeds, one after the other."""
    bands = [small.baseband(7), small.baseband(9, signal=346.8e9)]
    febe = small.febe(bands=bands, feeds=(1,), offsets=PLACES)
    febe.columns = {
        "NUSEFEED": ("2J", [[2, 1]]),
        "USEFEED": ("3J", [[3, 1, 2]]),
        "BESECTS": ("3J", [[1, 2, 3]]),
        "ETAFSS": ("6E", [[0.91, 0.92, 0.93, 0.81, 0.82, 0.83]]),
    }
    scan = small.on_off(febes=[febe], sub={"bands": [(small.NAME, 7), (small.NAME, 9)]})
    for s in scan.subs:
        s.data = {
            (small.NAME, 7): small.spectra(400.0, 3, 2),
            (small.NAME, 9): small.spectra(400.0, 3),
        }
    made = Imported(tmp_path, scan)
    first, second = (made.scan(5, f"band_het345_xffts2_{n}") for n in (7, 9))
    assert (first.attrs["pixels"], second.attrs["pixels"]) == ([3, 1], [2])
    assert first.attrs["f_eff"] == pytest.approx(0.92)
    assert second.attrs["f_eff"] == pytest.approx(0.82)
    assert second.source is not None
    np.testing.assert_allclose(second.source.pixel_offset_lon[0, :, 0], 0.01)


def test_reference_beside_all_feeds(tmp_path: Path) -> None:
    febe = small.febe(feeds=(1, 2), offsets=PLACES[:2], reference=-1)
    febe.cards = {"REFOFFX": 0.004, "REFOFFY": 0.001}
    made = feeds_night(tmp_path, febe)
    np.testing.assert_allclose(made.source().pixel_offset_lon[0, :, 0], [-0.004, 0.006])
    np.testing.assert_allclose(made.source().pixel_offset_lat[0, :, 0], -0.001)


@pytest.mark.parametrize(
    ("profile", "angle"),
    [
        ("", 40.0),
        ('rotation = "rotangle"', 30.0),
        ('rotation = "none"', 0.0),
        ("rotation_sign = -1", -40.0),
    ],
)
def test_rotation(tmp_path: Path, profile: str, angle: float) -> None:
    febe = small.febe(feeds=(1, 2), offsets=PLACES[:2])
    given = {"feeds": 2, "rotation": 30.0, "pars": {"DEWANG": 10.0}}
    made = Imported(tmp_path, small.on_off(febes=[febe], sub=given), profile=profile)
    lon, lat = made.source().pixel_offset_lon[0, 1, 0], made.source().pixel_offset_lat[0, 1, 0]
    np.testing.assert_allclose(lon, 0.01 * np.cos(np.deg2rad(angle)), atol=1e-12)
    np.testing.assert_allclose(lat, 0.01 * np.sin(np.deg2rad(angle)), atol=1e-12)


def test_an_array_that_turns_is_told_of(tmp_path: Path) -> None:
    febe = small.febe(feeds=(1, 2), offsets=PLACES[:2])
    given = {"feeds": 2, "rotation": np.array([0.0, 1.0, 2.0])}
    made = Imported(tmp_path, small.on_off(febes=[febe], sub=given))
    assert any("turned by 2.0 deg" in s for s in made.said)


def test_rows_of_data_before_may_2006(tmp_path: Path) -> None:
    """Without TDIM the day of the observation tells what runs fastest."""
    febe = small.febe(feeds=(1, 2), offsets=PLACES[:2])
    for name, begin, ahead, feed_fastest in (
        ("old", 53800.25, 33.0, True),
        ("new", 54000.25, 33.0, False),
    ):
        made = Imported(
            _made(tmp_path / name),
            small.on_off(
                start=begin,
                ahead=ahead,
                febes=[febe],
                sub={"feeds": 2},
                tdim=False,
                feed_fastest=feed_fastest,
            ),
        )
        counts = made.counts(5, 1)[:, 0, 0]
        np.testing.assert_allclose(counts[:, 0], small.LEVEL["ON"] + np.arange(6))
        np.testing.assert_allclose(counts[:, 1], small.LEVEL["ON"] + 20.0 + np.arange(6))
        assert made.assumed()["data_order"] == ("feed" if feed_fastest else "channel")


def test_efficiencies_that_are_blank(tmp_path: Path) -> None:
    made = night(tmp_path, small.on_off(febes=[small.febe(f_eff=-999.0, gain_image=-999.0)]))
    assert "f_eff" not in made.scan().attrs
    assert "gain_image" not in made.scan().attrs
    made = night(_made(tmp_path / "b"), profile="f_eff = 0.9\ngain_image = 0.1")
    assert (made.scan().attrs["f_eff"], made.scan().attrs["gain_image"]) == (0.9, 0.1)


# frequencies


def test_the_axis_is_that_of_the_sky(tmp_path: Path) -> None:
    group = night(tmp_path).source()
    assert group.signal_freq[0, 0] - group.ref_channel[0, 0] * 1e6 == pytest.approx(
        345.8e9 - 2.5e6, abs=0.1
    )
    assert group.image_freq[0, 0] == pytest.approx(333.8e9, abs=0.1)
    assert group.ref_channel[0, 0] == 2.5


def test_units_of_the_axis(tmp_path: Path) -> None:
    cards = {"1CUNI2S": "MHz", "1CRVL2S": 345800.0, "11CD2S": 1.0}
    group = night(
        tmp_path, small.on_off(febes=[small.febe(bands=[small.baseband(cards=cards)])])
    ).source()
    assert group.signal_freq[0, 0] == pytest.approx(345.8e9, abs=0.1)
    assert group.freq_res[0, 0] == pytest.approx(1e6)


def test_the_image_told_at_another_pixel(tmp_path: Path) -> None:
    cards = {"1CRPX2J": 1.0, "1CRVL2J": 333.8e9 + 2.5e6}
    group = night(
        tmp_path, small.on_off(febes=[small.febe(bands=[small.baseband(cards=cards)])])
    ).source()
    assert group.image_freq[0, 0] == pytest.approx(333.8e9, abs=0.1)


@pytest.mark.parametrize("sideband", ["USB", "LSB"])
def test_no_image_axis(tmp_path: Path, sideband: str) -> None:
    cards = {"1CRVL2J": None, "SIDEBAND": sideband}
    made = night(tmp_path, small.on_off(febes=[small.febe(bands=[small.baseband(cards=cards)])]))
    wanted = 333.8e9 if sideband == "USB" else 357.8e9
    assert made.source().image_freq[0, 0] == pytest.approx(wanted, abs=0.1)
    assert "image frequency" in made.assumed()


def test_no_image_at_all(tmp_path: Path) -> None:
    cards = {"1CRVL2J": None, "SBSEP": 0.0}
    band = small.baseband(cards=cards)
    refused(
        _made(tmp_path / "a"),
        small.on_off(febes=[small.febe(bands=[band])]),
        "has no axis of the image sideband (1CRVL2J)",
    )
    made = night(
        _made(tmp_path / "b"),
        small.on_off(febes=[small.febe(bands=[band])]),
        profile="gain_image = 0",
    )
    assert made.scan().attrs["gain_image"] == 0.0


def test_no_sky_axis(tmp_path: Path) -> None:
    """Other writers leave S at 0."""
    band = small.baseband(cards={"1CRVL2S": 0.0, "11CD2S": 0.0})
    scan = small.on_off(febes=[small.febe(bands=[band])])
    refused(_made(tmp_path / "a"), scan, "has an axis of the rest frame (1CRVL2F) alone")
    made = night(_made(tmp_path / "b"), scan, profile="doppler_factor = 0.99991")
    assert made.source().signal_freq[0, 0] == pytest.approx(345.8e9, abs=1.0)


def test_sideband_and_axes_that_contradict_each_other_are_told_of(tmp_path: Path) -> None:
    band = small.baseband(sideband="LSB", cards={"SBSEP": 10e9})
    made = night(tmp_path, small.on_off(febes=[small.febe(bands=[band])]))
    assert any("SIDEBAND is LSB" in s for s in made.said)
    assert any("SBSEP is 10.0" in s for s in made.said)


@pytest.mark.parametrize(
    ("pars", "head", "there"),
    [
        ({}, {}, True),
        ({"USRFRAME": "HO"}, {}, False),
        ({}, {"CTYPE1N": "ALON-SFL"}, False),
        ({}, {"MOVEFRAM": True}, False),
    ],
)
def test_where_the_offsets_count_from(
    tmp_path: Path, pars: dict[str, Any], head: dict[str, Any], there: bool
) -> None:
    attrs = night(tmp_path, small.on_off(head=head, sub={"pars": pars})).scan().attrs
    wanted = {"lon_deg": 83.8097, "lat_deg": -5.3724, "frame": "fk5"}
    assert attrs.get("source_direction") == (wanted if there else None)


def test_velocities(tmp_path: Path) -> None:
    """A line of the source has its rest frequency in the frame of the source."""
    light = 299792458.0
    factor = (1.0 - 5e3 / light) * (1.0 - 20e3 / light)
    made = night(tmp_path, small.on_off(doppler=factor))
    attrs = made.scan().attrs
    assert attrs["velocity_source_kms"] == 5.0
    assert attrs["velocity_definition"] == "RADI-LSR"
    assert attrs["velocity_frame_mps"] == pytest.approx(20e3, abs=3.0)


# monitor points


def points(*rows: tuple[str, Sequence[float], str]) -> dict[str, Any]:
    return {"sub": {"points": rows}}


@pytest.mark.parametrize(
    ("rows", "hot", "cold"),
    [
        ([(f"THOTCOLD_{small.NAME}_1", (290.0, 77.0), "K;K")], 290.0, 77.0),
        ([(f"THOTCOLD_{small.NAME}_1", (17.0, -196.0), "C;C")], 290.15, 77.15),
        ([(f"THOTCOLD_{small.NAME}_1", (290.0, 77.0), "")], 290.0, 77.0),
        ([("THOTCOLD_A", (280.0, 70.0), "K;K")], 280.0, 70.0),
        ([("THOTCOLD_A", (280.0, 70.0), "K;K"), (f"THOTCOLD_{small.NAME}_1", (290.0, 77.0), "K;K")], 290.0, 77.0),
        ([("THOTCOLD_C", (280.0, 70.0), "K;K")], np.nan, np.nan),
        ([], np.nan, np.nan),
        ([("THOT", (17.0,), "C"), ("TCOLD", (77.0,), "K"), ("THOT_B", (250.0,), "K")], 290.15, 77.0),
        ([(f"THOTCOLD_{small.NAME}_1", (17.0, 77.0), "K;K")], np.nan, 77.0),
        ([(f"THOTCOLD_{small.NAME}_1", (290.0, 15.0), "")], 290.0, np.nan),
        ([(f"THOTCOLD_{small.NAME}_1", (-999.0, -999.0), "K;K")], np.nan, np.nan),
    ],
)  # fmt: skip
def test_load_temperatures(
    tmp_path: Path, rows: list[tuple[str, Sequence[float], str]], hot: float, cold: float
) -> None:
    """By FEBE and baseband before the cabin; in K or deg C; what is in doubt, or of another receiver, is not taken.

    Each table of the builder has the loads of another receiver, too.
    """
    made = Imported(tmp_path, small.calibration(**points(*rows)))
    np.testing.assert_allclose(made.loads().thot[0], hot)
    np.testing.assert_allclose(made.loads().tcold[0], cold)


def test_load_temperatures_of_a_profile(tmp_path: Path) -> None:
    profile = f't_cold = 70\n[mbfits.receiver."{small.NAME}"]\nt_hot = 300'
    made = Imported(tmp_path, small.calibration(**points()), profile=profile)
    assert set(made.loads().thot[0]) == {300.0}
    assert set(made.loads().tcold[0]) == {70.0}


@pytest.mark.parametrize(
    ("row", "tamb", "pamb"),
    [
        (("TAMB_P_HUMID", (-3.0, 550.0, 10.0), "C;hPa;%"), 270.15, 412.534),
        (("TAMB_P_HUMID", (270.0, 550.0, 10.0), "K;mbar;%"), 270.0, 412.534),
        (("TAMB_P_HUMID", (270.0, 55000.0, 10.0), ";Pa;%"), 270.0, 412.534),
        (("TAMB_P_HUMID", (270.0, 5.0, 10.0), "C;hPa;%"), np.nan, np.nan),
    ],
)
def test_air(
    tmp_path: Path, row: tuple[str, Sequence[float], str], tamb: float, pamb: float
) -> None:
    made = Imported(tmp_path, small.calibration(**points(row, ("PWV", (0.8,), "mm"))))
    np.testing.assert_allclose(made.loads().tamb, tamb)
    np.testing.assert_allclose(made.loads().pamb, pamb, rtol=1e-6)
    assert made.scan(4).attrs["scan_metadata"]["PWV"] == 0.8


def test_points_that_a_short_subscan_does_not_have(tmp_path: Path) -> None:
    scan = small.calibration()
    scan.subs[0].points = scan.subs[2].points = ()
    made = Imported(tmp_path, scan)
    np.testing.assert_allclose(made.loads().thot[0], 290.0)
    np.testing.assert_allclose(made.loads().tcold[0], 77.0)
    np.testing.assert_allclose(made.loads().tamb, 270.15)


def test_without_monitor(tmp_path: Path) -> None:
    made = Imported(tmp_path, small.calibration(without=["MONITOR-MBFITS"]))
    assert np.isnan(made.loads().thot).all()
    assert np.isnan(made.loads().tamb).all()


# phases

WSW = {"wobbler": True, "phases": 2}


def test_wobbler_nods_by_the_words_of_the_phases(tmp_path: Path) -> None:
    words = [{"PHASE1": "WON", "PHASE2": "WOFF"}, {"PHASE1": "WOFF", "PHASE2": "WON"}]
    subs = [small.phased(n, [1, 2, 1, 2], (10.0, 20.0), pars=w) for n, w in enumerate(words, 1)]
    made = night(tmp_path, small.scan(5, "ONOFF", subs, **WSW))
    assert made.source().sobsmode == ("WSW-ON", "WSW-OFF")
    assert made.source().chop_phase[:, 0].tolist() == [0, 1, 0, 1]
    assert made.source().chop_phase[:, 1].tolist() == [0, 1, 0, 1]


def test_words_of_the_phases_in_the_scan(tmp_path: Path) -> None:
    subs = [small.phased(1, [1, 2, 1, 2], (10.0, 20.0))]
    head = {"PHASE1": "WOFF", "PHASE2": "WON"}
    made = night(tmp_path, small.scan(5, "ONOFF", subs, head=head, **WSW))
    assert made.source().sobsmode == ("WSW-ON",)
    assert made.source().chop_phase[:, 0].tolist() == [1, 0, 1, 0]


def test_a_cycle_with_a_blank_dump_is_none(tmp_path: Path) -> None:
    subs = [small.phased(1, [1, 2, 0, 2, 1, 2], (10.0, 20.0))]
    head = {"PHASE1": "WON", "PHASE2": "WOFF"}
    made = night(tmp_path, small.scan(5, "ONOFF", subs, head=head, **WSW))
    assert made.source().shape[1] == 4
    assert made.counts()[0, :, 0, 0].tolist() == [10.0, 20.0, 10.0, 20.0]


def test_wobbler_without_words(tmp_path: Path) -> None:
    subs = [small.phased(1, [1, 2, 1, 2], (10.0, 20.0))]
    scan = small.scan(5, "ONOFF", subs, **WSW)
    refused(_made(tmp_path / "a"), scan, "PHASE1 and PHASE2 are missing, expected WON")
    made = night(_made(tmp_path / "b"), scan, profile="phase_on_source = 2")
    assert made.source().chop_phase[:, 0].tolist() == [1, 0, 1, 0]


FSW = {"phases": 2, "throws": (-6e6, 4e6)}


@pytest.mark.parametrize(
    ("head", "profile", "sig", "ref"),
    [
        ({"PHASE1": "FLO", "PHASE2": "FHI"}, "", -6e6, 4e6),
        ({"PHASE1": "FHI", "PHASE2": "FLO"}, "", 4e6, -6e6),
        ({}, "", -6e6, 4e6),
        ({}, "phase_low = 2", 4e6, -6e6),
        ({"PHASE1": "FLO", "PHASE2": "FHI"}, "throw_sign = -1", 6e6, -4e6),
    ],
)
def test_frequency_switching(
    tmp_path: Path, head: dict[str, Any], profile: str, sig: float, ref: float
) -> None:
    subs = [small.phased(1, [1, 2, 1, 2], (10.0, 20.0))]
    made = night(tmp_path, small.scan(5, "ONOFF", subs, head=head, **FSW), profile=profile)
    assert made.source().sobsmode == ("FSW-SIG", "FSW-REF")
    assert made.source().freq_throw[0].tolist() == [sig, ref]
    assert [made.counts(5, s)[0, 0, 0, 0] for s in (0, 1)] == [10.0, 20.0]


def test_throws_of_one_number(tmp_path: Path) -> None:
    subs = [small.phased(1, [1, 2, 1, 2], (10.0, 20.0))]
    scan = small.scan(5, "ONOFF", subs, phases=2, throws=(5e6, 5e6))
    assert night(tmp_path, scan).source().freq_throw[0].tolist() == [-5e6, 5e6]


def test_a_noise_diode_is_refused_or_left_out(tmp_path: Path) -> None:
    """As at Effelsberg: two phases, no wobbler, no throw."""
    subs = [
        small.phased(n, [1, 2, 1, 2], (10.0 * n, 20.0), kind=k)
        for n, k in enumerate(("REF", "ON"), 1)
    ]
    scan = small.scan(5, "ONOFF", subs, phases=2)
    refused(_made(tmp_path / "a"), scan, "is it a noise diode? Set phase_taken")
    made = night(_made(tmp_path / "b"), scan, profile="phase_taken = 1")
    assert made.source().sobsmode == ("OFF", "ON")
    assert made.counts(5, 1)[0, :, 0, 0].tolist() == [20.0, 20.0]


def test_the_wobbler_in_one_phase_only(tmp_path: Path) -> None:
    scan = small.on_off(wobbler=True)
    refused(_made(tmp_path / "a"), scan, "all its dumps are of phase 1")


# files and folders


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    raw = _made(tmp_path / "raw")
    small.calibration().write(raw, grouped=True)
    small.on_off().write(raw, grouped=True)
    return tmp_path


def place(folder: Path, number: int = 5) -> Path:
    return next((folder / "raw").glob(f"APEX-{number}-*"))


def test_a_folder_is_the_same_as_a_file(tmp_path: Path) -> None:
    one, other = (
        night(_made(tmp_path / name), grouped=name == "folder") for name in ("file", "folder")
    )
    for name in ("mjd", "elevation", "otf_lon", "signal_freq", "image_freq"):
        a, b = (getattr(x.source(), name) for x in (one, other))
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(one.counts(5, 1), other.counts(5, 1))


@pytest.mark.parametrize("named", ["folder", "grouping", "link", "both"])
def test_what_stands_for_a_scan_in_a_folder(folders: Path, named: str) -> None:
    """GROUPING.fits itself, its folder, and the link to it that archives put beside the folder."""
    raw = folders / "raw"
    link = raw / "APEX-5-summary.fits"
    link.symlink_to(place(folders).relative_to(raw) / "GROUPING.fits")
    which = {
        "folder": [place(folders)],
        "grouping": [place(folders) / "GROUPING.fits"],
        "link": [link],
        "both": [raw],
    }[named]
    report = import_raw(which, folders / "l0")
    assert report.exit_code == 0, [x.sentence for x in report.lost]
    assert 5 in report.scans
    assert len(report.scans) == (2 if named == "both" else 1)


def test_a_folder_without_grouping(folders: Path) -> None:
    """MBFTSVER is then in no header of the folder: it has to be put back."""
    (place(folders) / "GROUPING.fits").unlink()
    made = Imported(folders)
    assert "has no MBFTSVER" in made.lost
    assert made.report.scans == (4,)


def test_a_part_of_a_folder(folders: Path) -> None:
    alone = _made(folders / "alone") / f"{small.NAME}-DATAPAR.fits"
    shutil.copy(place(folders) / "1" / alone.name, alone)
    with pytest.raises(ImportFormatError, match="is a part of a scan in a folder"):
        import_raw(alone, folders / "l0")


def test_a_member_that_is_missing_costs_its_subscan(folders: Path) -> None:
    (place(folders) / "3" / f"{small.NAME}-ARRAYDATA-1.fits").unlink()
    made = Imported(folders)
    assert f"lists 3/{small.NAME}-ARRAYDATA-1.fits, which is not there" in made.lost
    assert made.source().sobsmode == ("OFF", "ON")


def test_a_member_that_is_put_back_is_seen(folders: Path) -> None:
    """The index of files looks at all members, not at the first alone."""
    member = place(folders) / f"{small.NAME}-FEBEPAR.fits"
    kept = member.read_bytes()
    member.unlink()
    made = Imported(folders)
    assert "FEBEPAR.fits, which is not there" in made.lost
    member.write_bytes(kept)
    assert import_raw(folders / "raw", made.out).exit_code == 0
    assert open_l0(made.out).numbers() == [4, 5]


def test_compressed_members(folders: Path) -> None:
    for path in sorted(place(folders).rglob("*.fits")):
        if path.name != "GROUPING.fits":
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    made = Imported(folders)
    assert made.report.exit_code == 0, made.lost
    assert made.counts(5, 1)[0, 0, 0, 0] == small.LEVEL["ON"]


def test_folders_of_subscans_with_leading_zeros(folders: Path) -> None:
    """As the writer of the Sardinia telescope names them, with places of its own machine in GROUPING.fits."""
    from astropy.io import fits

    where = place(folders)
    for path in where.iterdir():
        if path.is_dir():
            path.rename(path.with_name(f"{int(path.name):04d}"))
    with fits.open(where / "GROUPING.fits", mode="update") as units:
        column = units[1].data["MEMBER_LOCATION"]
        for k, name in enumerate(column.tolist()):
            plain = name.partition("\0")[0]
            number, _, rest = plain.rpartition("/")
            column[k] = (
                f"/archive/scan/{int(number):04d}/{rest}" if number else f"/archive/scan/{plain}"
            )
    made = Imported(folders)
    assert made.report.exit_code == 0, made.lost


def test_the_index_looks_once(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpucal.io.incoming import file_index

    monkeypatch.setenv("GPUCAL_CACHE_DIR", str(folders / "cache"))
    looked: list[int] = []
    plain = file_index.FileIndex.save

    def save(self: file_index.FileIndex) -> None:
        looked.append(self.looked)
        plain(self)

    monkeypatch.setattr(file_index.FileIndex, "save", save)
    import_raw(folders / "raw", folders / "l0")
    first = list(looked)
    looked.clear()
    import_raw(folders / "raw", folders / "l0")
    assert max(first) > 0
    assert max(looked) == 0


# scans


def test_the_calibration_scan_that_serves(tmp_path: Path) -> None:
    """The nearest earlier one of the same project, FEBE, baseband and tuning; --cal nearest."""
    other = small.febe(name="OTHER-XFFTS2")
    scans = [
        small.calibration(1, start=START),
        small.calibration(2, start=START + 200 / DAY, project="X-1"),
        small.calibration(
            3, start=START + 210 / DAY, febes=[other], sub={"bands": [(other.name, 1)]}
        ),
        small.calibration(
            4,
            start=START + 220 / DAY,
            febes=[small.febe(bands=[small.baseband(signal=340e9, image=328e9)])],
        ),
        small.calibration(6, start=START + 410 / DAY),
    ]
    chosen: list[tuple[dict[str, Any], int]] = [({}, 1), ({"cal": "nearest"}, 6)]
    for options, number in chosen:
        extra: dict[str, Any] = {"overwrite": bool(options), **options}
        made = Imported(tmp_path, *scans, small.on_off(), **extra)
        scans = []
        assert made.report.exit_code == 0, made.lost
        assert set(made.source().lloadsn.tolist()) == {number}


def test_no_calibration_scan(tmp_path: Path) -> None:
    made = Imported(tmp_path, small.on_off())
    assert set(made.source().lloadsn.tolist()) == {-1}


def test_a_number_that_was_used_again(tmp_path: Path) -> None:
    made = Imported(tmp_path, small.calibration(7), small.calibration(7, start=START + 400))
    assert made.report.scans == (7, 10_000_007)


def test_scans_of_another_telescope(tmp_path: Path) -> None:
    scans = [small.calibration(), small.on_off(), small.on_off(6, telescope="SRT", start=START + 1)]
    made = Imported(tmp_path, *scans)
    assert "is of the telescope 'SRT', the other scans are of 'APEX-12m'" in made.lost
    assert made.report.scans == (4, 5)


def test_two_receivers_at_once(tmp_path: Path) -> None:
    other = small.febe(name="PI230-FFTS1", bands=[small.baseband(signal=230e9, image=218e9)])
    bands = [(small.NAME, 1), (other.name, 1)]
    scans = [
        make(febes=[small.febe(), other], sub={"bands": bands})
        for make in (small.calibration, small.on_off)
    ]
    made = Imported(tmp_path, *scans)
    assert {s.band for s in open_l0(made.out).load(5)} == {BAND, "band_pi230_ffts1_1"}


def test_a_continuum_backend_beside_the_spectrometer_is_left_out(tmp_path: Path) -> None:
    cards = dict.fromkeys(("1CRVL2S", "1CRVL2F", "1CRVL2J", "1CRVL2I"), 0.0)
    other = small.febe(name="HET345-PBE_A", bands=[small.baseband(channels=1, cards=cards)])
    scan = small.on_off(febes=[small.febe(), other])
    for s in scan.subs:
        s.data[other.name, 1] = np.ones((3, 1, 1))
    made = night(tmp_path, scan)
    assert made.report.exit_code == 0
    assert {s.band for s in open_l0(made.out).load(5)} == {BAND}


def test_a_scan_that_was_cut_short_is_not_complete(tmp_path: Path) -> None:
    made = night(tmp_path, small.on_off(head={"NSUBS": 8}))
    attrs = open_l0(made.out).scan_group(5).attrs
    assert (attrs["complete"], attrs["n_subscans_planned"]) == (False, 8)


def test_what_was_assumed_is_in_the_store(tmp_path: Path) -> None:
    assumed = night(tmp_path).assumed()
    assert {"time_stamp", "counts", "longoff"} <= set(assumed)


def test_auto_knows_both_shapes(folders: Path) -> None:
    small.on_off(6, start=START + 600 / DAY).write(folders / "raw")
    report = import_raw(folders / "raw", folders / "l0")
    assert report.scans == (4, 5, 6)
