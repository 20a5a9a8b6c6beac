"""What the description of IMBFITS warns of, each by known counts, times or positions."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from builders.imbfits import DAY, DOPPLER, Night, Row, Tuned, small

from gpucal import GpucalWarning, ImportFormatError, Scan, import_raw, main, open_l0
from gpucal.io.imbfits.importer import IMBFITS
from gpucal.io.imbfits.night import scans_of
from gpucal.io.imbfits.planner import ImbParts, Planner
from gpucal.io.incoming.assumptions import Assumptions
from gpucal.io.incoming.file_index import FileIndex
from gpucal.io.incoming.formats import profile_keys
from gpucal.io.incoming.profile import Profile, load_profile
from gpucal.io.incoming.protocol import Lost, Request
from gpucal.io.l0.group import GroupContext, build_group
from gpucal.scan import ArrayCounts

ARCSEC = 1.0 / 3600.0


class Held:
    """What a folder becomes, in memory: the scans without their calibration scans."""

    def __init__(self, raw: Path, site: Path | None, options: dict[str, Any]) -> None:
        values = Profile() if site is None else load_profile(site, "imbfits", profile_keys())
        request = Request([raw], profile=values, options=options, index=FileIndex())
        lost: list[Lost] = []
        self.scans: dict[int, list[Scan]] = {}
        for scan in scans_of(IMBFITS.files(request), request.index, lost):
            parts, told = Planner(request).parts(scan, lambda *_: -1)
            lost += parts.lost
            self.scans[scan.number] = [self._scan(parts, told, name) for name in parts.groups]
            parts.close()
        if lost:
            raise lost[0].error

    def _scan(self, parts: ImbParts, told: Assumptions, band: str) -> Scan:
        made: dict[str, Any] = {"source": None, "calibration": None}
        for name, g in parts.groups[band].items():
            all_of_it = np.stack([g.subscan(s) for s in range(g.shape[4])], axis=4)
            context = GroupContext(0, band, name == "calibration", 0, gain_zero=True, partial=False)
            made[name] = build_group(
                ArrayCounts(all_of_it), tuple(g.sobsmode), dict(g.arrays), context
            )
        attrs = parts.attrs | parts.band_attrs[band] | {"assumptions": told.attribute()}
        return Scan(0, band, attrs, {}, **made)

    def load(self, number: int) -> list[Scan]:
        return self.scans[number]


def held(folder: Path, *nights: Night, profile: Path | None = None, **options: Any) -> Held:
    """What some files become, without a store; raises the first error."""
    raw = folder / "raw"
    raw.mkdir(exist_ok=True)
    for night in nights:
        night.write(raw)
    return Held(raw, profile, options)


def imported(folder: Path, *nights: Night, code: int = 0, **options: Any) -> Path:
    """The store made of some files."""
    raw = folder / "raw"
    raw.mkdir(exist_ok=True)
    for night in nights:
        night.write(raw)
    out = folder / "l0"
    report = import_raw(raw, out, format="imbfits", **options)
    assert report.exit_code == code, [str(x.error) for x in report.lost]
    return out


def source(store: Path | Held, number: int = 5, band: str = small.BAND) -> Any:
    scan = _band(store, number, band)
    assert scan.source is not None
    return scan.source


def loads(store: Path | Held, number: int = 4, band: str = small.BAND) -> Any:
    scan = _band(store, number, band)
    assert scan.calibration is not None
    return scan.calibration


def _band(store: Path | Held, number: int, band: str) -> Scan:
    scans = store.load(number) if isinstance(store, Held) else open_l0(store).load(number)
    return next(s for s in scans if s.band == band)


def counts(group: Any, s: int) -> Any:
    """Counts [C, D, A] of a subscan."""
    return np.asarray(group.counts.read(0, group.shape[0], s))[:, :, 0]


def assumed(store: Path | Held, number: int, band: str = small.BAND) -> dict[str, Any]:
    return {a["what"]: a["value"] for a in _band(store, number, band).attrs["assumptions"]}


def profile(folder: Path, text: str) -> Path:
    path = folder / "site.toml"
    path.write_text("[imbfits]\n" + text + "\n")
    return path


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_bad_dumps_edges_and_dumps_outside_are_left_out(tmp_path: Path) -> None:
    """ISWITCH 0, channels that are dropped, and what was taken before DATE-OBS or after DATE-END."""
    store = imported(tmp_path, small.calibration(), small.on_off())
    group = source(store)
    assert group.shape == (12, 3, 1, 1, 4)
    assert group.sobsmode == ("OFF", "ON", "ON", "OFF")
    for s, level in enumerate((410.0, 430.0, 430.0, 410.0)):
        wanted = (level + np.arange(12))[:, None, None] + np.zeros((1, 3, 1))
        np.testing.assert_array_equal(counts(group, s), wanted)
    np.testing.assert_allclose(np.diff(group.mjd, axis=0) * DAY, 1.0, atol=1e-5)
    assert loads(store).sobsmode == ("SKY", "HOT", "COLD")
    assert set(group.lloadsn.tolist()) == {4}


@pytest.mark.parametrize("stamp", [0.0, 0.5, 1.0, None])
def test_time_of_a_dump_is_its_middle(tmp_path: Path, stamp: float | None) -> None:
    store = held(tmp_path, small.on_off(stamp=stamp))
    night = small.on_off()
    for s, sub in enumerate(night.subs):
        middle = sub.middle[[1, 3, 4]]
        assert np.abs(source(store).mjd[:, s] - middle).max() * DAY < 1e-3


def test_positions_are_those_of_the_slow_trace_at_the_time_of_the_dump(tmp_path: Path) -> None:
    start = small.START + 300 / DAY
    row = small.sub(2, "onTheFly", 430.0, start=start, place=(5.0, -7.0), speed=(3.0, 0.0))
    subs = [small.sub(1, "track", 410.0, start=start, place=(300.0, 0.0)), row]
    store = held(tmp_path, small.night(5, "onTheFlyMap", subs))
    group = source(store)
    assert group.sobsmode == ("OTF-OFF", "OTF-ON")
    lon = np.array([2.0, 5.0, 8.0]) * ARCSEC
    np.testing.assert_allclose(group.otf_lon[:, 1], lon, rtol=0, atol=0.01 * ARCSEC)
    np.testing.assert_allclose(group.otf_lat[:, 1], -7.0 * ARCSEC, rtol=0, atol=0.01 * ARCSEC)
    np.testing.assert_allclose(group.azimuth, 2.0, rtol=1e-6)
    assert _band(store, 5, small.BAND).attrs["source_direction"] == {
        "lon_deg": 83.8097,
        "lat_deg": -5.3724,
        "frame": "fk5",
    }
    again = held(_made(tmp_path / "again"), _map(), antenna_shift=0.5)
    lon = lon - 1.5 * ARCSEC
    np.testing.assert_allclose(source(again).otf_lon[:, 1], lon, rtol=0, atol=0.01 * ARCSEC)


def _map() -> Night:
    start = small.START + 300 / DAY
    row = small.sub(2, "onTheFly", 430.0, start=start, place=(5.0, -7.0), speed=(3.0, 0.0))
    subs = [small.sub(1, "track", 410.0, start=start, place=(300.0, 0.0)), row]
    return small.night(5, "onTheFlyMap", subs)


def test_dumps_outside_the_trace_are_left_out(tmp_path: Path) -> None:
    night = _map()
    trace = night.subs[1].trace
    cut = trace["mjd"] < night.subs[1].middle[3]
    night.subs[1].trace = {k: v[cut] for k, v in trace.items()}
    store = held(tmp_path, night)
    group = source(store)
    np.testing.assert_array_equal(counts(group, 1)[0, :, 0] == 430.0, [True, False, False])


def test_a_hole_in_the_trace(tmp_path: Path) -> None:
    """Samples 8 s apart tell nothing about the time between them."""
    start = small.START + 300 / DAY
    row = small.sub(2, "onTheFly", 430.0, start=start, dumps=12, speed=(3.0, 0.0), traps=False)
    when = (row.trace["mjd"] - row.middle[0]) * DAY
    row.trace = {k: v[(when < 2.2) | (when > 8.9)] for k, v in row.trace.items()}
    subs = [small.sub(1, "track", 410.0, start=start, place=(300.0, 0.0), dumps=12), row]
    store = held(tmp_path, small.night(5, "onTheFlyMap", subs))
    group = source(store)
    good = np.isfinite(counts(group, 1)[0, :, 0])
    seconds = (group.mjd[good, 1] - row.middle[0]) * DAY
    np.testing.assert_allclose(seconds, [0, 1, 10, 11], atol=1e-3)


def test_texts_end_at_a_nul(tmp_path: Path) -> None:
    """The builder writes RECEIVER as E230, NUL, XY: the receiver is found all the same, and LINENAME is clean."""
    store = held(tmp_path, small.on_off())
    attrs = _band(store, 5, small.BAND).attrs
    assert (attrs["frontend"], attrs["line"], attrs["band_name"]) == ("E230", "LINE", "E2HLI")


def test_cross_products_are_no_bands(tmp_path: Path) -> None:
    """REAL and IMAG take their channels in DATA, and nothing else."""
    lines = [
        *small.rows(),
        Row(2, 17, 4, 0, 4, "E230", "E2HLI", 6200.0, 2.0, polar="REAL"),
        Row(3, 21, 4, 0, 4, "E230", "E2HLI", 6200.0, 2.0, polar="IMAG"),
    ]
    nights = []
    for night in (small.on_off(rows=lines),):
        for sub in night.subs:
            sub.data = np.concatenate([sub.data, np.full((len(sub.data), 8), -5.0)], axis=1)
        nights.append(night)
    store = held(tmp_path, *nights)
    assert [s.band for s in store.load(5)] == [small.BAND]
    assert counts(source(store), 1)[0, 0, 0] == 430.0


def test_places_of_chunks_where_refchan_is_one_everywhere(tmp_path: Path) -> None:
    """As in files of the continuum backend."""
    lines = [r for p in (1, 2) for r in _continuum(p)]
    nights = [_with_data(small.on_off(rows=lines))]
    for night in nights:
        night.backend = "CONT"
    store = held(tmp_path, *nights)
    bands = [s.band for s in store.load(5)]
    assert bands == ["band_cont_1", "band_cont_2"]
    for k, band in enumerate(bands):
        assert counts(source(store, band=band), 1)[0, 0, 0] == 430.0 + 100 * k
        assert assumed(store, 5, band)["places of the chunks"] == "one after the other"


def _continuum(part: int) -> list[Row]:
    return [Row(part, 1, 1, 0, 1, "E230", "E2HLI" if part == 1 else "E2HUI", 6000.0, 4000.0)]


def _with_data(night: Night) -> Night:
    for sub in night.subs:
        level = sub.data[:, 1:2]
        sub.data = np.concatenate([level, level + 100.0], axis=1)
    return night


def test_chunks_that_do_not_join_are_bands_of_their_own(tmp_path: Path) -> None:
    lines = small.rows()
    lines[1].reffreq += 5.0
    store = held(tmp_path, small.on_off(rows=lines))
    scans = store.load(5)
    assert [s.band for s in scans] == [f"{small.BAND}_1", f"{small.BAND}_2"]
    one, two = (source(store, band=s.band) for s in scans)
    assert one.shape[0] == two.shape[0] == 6
    assert counts(two, 1)[0, 0, 0] == 430.0 + 6
    assert one.signal_freq[0, 0] - two.signal_freq[0, 0] == pytest.approx(17e6, abs=1.0)


def test_chunks_that_overlap_share_the_overlap(tmp_path: Path) -> None:
    lines = small.rows()
    lines[1].reffreq -= 4.0
    store = held(tmp_path, small.on_off(rows=lines))
    group = source(store)
    wanted = [430.0 + c for c in (0, 1, 2, 3, 4, 7, 8, 9, 10, 11)]
    assert counts(group, 1)[:, 0, 0].tolist() == wanted
    assert store.load(5)[0].attrs["unit_borders"] == [5]


def test_chunks_that_join_with_the_centre_alone(tmp_path: Path) -> None:
    """Chunks of 8 and 16 channels whose REFFREQ is that of their centre."""
    lines = [
        Row(1, 1, 8, 1, 6, "E230", "E2HLI", 6200.0, 2.0),
        Row(1, 9, 16, 1, 14, "E230", "E2HLI", 6200.0 + 2.0 * (5.5 - 3.5 + 1 + 7.5 - 1), 2.0),
    ]
    lines[1].reffreq = 6200.0 + 2.0 * ((6 - 3.5) + 1 + (7.5 - 1))
    nights = [small.on_off(rows=lines)]
    for night in nights:
        for sub in night.subs:
            sub.data = np.tile(sub.data[:, 1:2], (1, 24))
    store = held(tmp_path, *nights)
    assert source(store).shape[0] == 20
    lo = 230.538e9 * DOPPLER + 6250e6
    first = lo - (6200.0 + 2.0 * (1 - 3.5)) * 1e6
    assert source(store).signal_freq[0, 0] == pytest.approx(first, abs=1.0)
    assert assumed(store, 5)["reference_channel"] == "centre"


@pytest.mark.parametrize(
    ("sideband", "band", "signal", "image"),
    [
        ("LSB", "E2HLI", +48.0, 12548.0 - 96.0),
        ("USB", "E2HUI", -48.0, -12548.0 + 96.0),
        ("LSB", "E2HUI", 12500.0 - 48.0, 48.0),
        ("USB", "E2HLI", -12500.0 + 48.0, -48.0),
    ],
)
def test_both_sidebands(
    tmp_path: Path, sideband: str, band: str, signal: float, image: float
) -> None:
    """The first good channel has the IF 6202 MHz, 48 MHz below IFCENTER: signal and image."""
    tuned = Tuned("E230", 230.538, sideband, 6250.0)
    lines = small.rows(band=band)
    nights = [small.on_off(rows=lines, tuned=tuned)]
    group = source(held(tmp_path, *nights))
    sky = 230.538e9 * DOPPLER
    side = 1 if band[3] == "U" else -1
    lo = sky + (6250e6 if sideband == "LSB" else -6250e6)
    assert group.signal_freq[0, 0] == pytest.approx(lo + side * 6202e6, abs=1.0)
    assert group.image_freq[0, 0] == pytest.approx(lo - side * 6202e6, abs=1.0)
    assert group.signal_freq[0, 0] - sky == pytest.approx(signal * 1e6, abs=1.0)
    assert group.freq_res[0, 0] == side * 2e6
    assert group.image_freq[0, 0] - sky == pytest.approx(image * 1e6, abs=1.0)


def test_both_sidebands_of_a_receiver_whose_tuning_is_not_told(tmp_path: Path) -> None:
    """One of them alone must be the tuned one; of two, a profile says which."""
    tuned = Tuned("E230", 230.538, "?", 6250.0)
    wanted = 230.538e9 * DOPPLER + 48e6
    one = held(_made(tmp_path / "one"), small.on_off(tuned=tuned))
    assert source(one).signal_freq[0, 0] == pytest.approx(wanted, abs=1.0)
    lines = [*small.rows(), *small.rows(band="E2HUI", part=2)]
    for n, line in enumerate(lines):
        line.refchan = 1 + 8 * n
    night = small.on_off(tuned=tuned, rows=lines)
    for sub in night.subs:
        sub.data = np.concatenate([sub.data, sub.data], axis=1)
    with pytest.raises(ImportFormatError, match="of both sidebands"):
        held(tmp_path, night)
    two = held(tmp_path, night, profile=profile(tmp_path, 'sideband = "LSB"'))
    assert source(two).signal_freq[0, 0] == pytest.approx(wanted, abs=1.0)


def test_flipped_if(tmp_path: Path) -> None:
    """IFFLIPS: IFCENTER changes its sign; chunks of negative IF then lie around the line as others do."""
    lines = small.rows()
    for line in lines:
        line.reffreq = -line.reffreq
        line.spacing = -line.spacing
    tuned = small.receiver(IFFLIPS=1)
    nights = [small.on_off(rows=lines, tuned=tuned)]
    group = source(held(tmp_path, *nights))
    sky = 230.538e9 * DOPPLER
    assert group.signal_freq[0, 0] == pytest.approx(sky - 48e6, abs=1.0)
    assert group.image_freq[0, 0] == pytest.approx(sky + 12500e6 + 48e6, abs=1.0)


def test_flipped_if_with_chunks_before_the_flip(tmp_path: Path) -> None:
    tuned = small.receiver(IFFLIPS=1)
    night = small.on_off(tuned=tuned)
    with pytest.raises(
        ImportFormatError, match=r"begins at 6202 MHz, but IFCENTER is -6250 MHz: .* if_sign = -1"
    ):
        held(tmp_path, night)
    site = profile(tmp_path, "if_sign = -1")
    store = held(tmp_path, night, profile=site)
    assert source(store).signal_freq[0, 0] == pytest.approx(230.538e9 * DOPPLER - 48e6, abs=1.0)


def test_doppler_of_each_subscan(tmp_path: Path) -> None:
    night = small.on_off()
    night.subs[2].doppler = 0.9999
    group = source(held(tmp_path, night))
    moved = (0.9999 - DOPPLER) * 230.538e9
    assert group.signal_freq[0, 2] - group.signal_freq[0, 1] == pytest.approx(moved, abs=1.0)


def test_units_in_doubt(tmp_path: Path) -> None:
    """THOT and TAMBIENT in deg C or K, IFCENTER in GHz, PRESSURE in Torr: told by their size."""
    celsius = Tuned("E230", 230.538, "LSB", 6250.0, columns={"THOT": 20.0, "IFCENTER": 6.25})
    head = {"TAMBIENT": 275.5, "PRESSURE": 540.0}
    store = held(tmp_path, small.calibration(tuned=celsius, head=head), small.on_off())
    group = loads(store)
    np.testing.assert_allclose(group.thot[0], 293.15, atol=1e-4)
    np.testing.assert_allclose(group.tamb, 275.5)
    np.testing.assert_allclose(group.pamb, 540.0)
    said = assumed(store, 4)
    assert said["unit of PRESSURE"] == "Torr"
    assert said["unit of TAMBIENT"] == "K"
    assert said["unit of IFCENTER of E230"] == "GHz"
    np.testing.assert_allclose(loads(store).signal_freq[0, 0], source(store).signal_freq[0, 0])


def test_hot_load_of_the_scan_where_the_receiver_has_none(tmp_path: Path) -> None:
    store = held(tmp_path, small.calibration(tuned=small.receiver(THOT=0.0)))
    np.testing.assert_allclose(loads(store).thot, 291.0)


def test_temperatures_that_are_not_known_stay_so(tmp_path: Path) -> None:
    tuned = small.receiver(THOT=0.0, TCOLD=0.0)
    cal = small.calibration(tuned=tuned, head={"THOT": None, "TAMBIENT": -999.0, "PRESSURE": 0.0})
    group = loads(held(tmp_path, cal))
    for name in ("thot", "tcold", "tamb", "pamb"):
        assert np.isnan(getattr(group, name)).all(), name


@pytest.mark.parametrize(("etafss", "beameff", "wanted"), [(0.94, 0.6, 0.94), (0.6, 0.92, 0.92)])
def test_the_larger_efficiency(
    tmp_path: Path, etafss: float, beameff: float, wanted: float
) -> None:
    tuned = small.receiver(ETAFSS=etafss, BEAMEFF=beameff)
    store = held(tmp_path, small.on_off(tuned=tuned))
    assert _band(store, 5, small.BAND).attrs["f_eff"] == wanted


def test_what_is_not_known_must_be_given(tmp_path: Path) -> None:
    """Neither an efficiency nor a sideband ratio is made up."""
    tuned = small.receiver(ETAFSS=0.3, BEAMEFF=92.0, GAINIMAG=-13.0)
    nights = [small.on_off(tuned=tuned)]
    store = held(tmp_path, *nights)
    attrs = _band(store, 5, small.BAND).attrs
    assert "f_eff" not in attrs
    assert "gain_image" not in attrs
    site = profile(tmp_path, "f_eff = 0.9\n[imbfits.receiver.E230]\ngain_image = 0.07")
    other = tmp_path / "b"
    other.mkdir()
    attrs = _band(held(other, *nights, profile=site), 5, small.BAND).attrs
    assert (attrs["f_eff"], attrs["gain_image"]) == (0.9, 0.07)


def test_offset_of_the_projection_is_added(tmp_path: Path) -> None:
    rad = np.deg2rad(10 * ARCSEC)
    offsets = [("Nasmyth", 1.0, 1.0), ("projection", rad, -2 * rad)]
    night = small.on_off(offsets=offsets)
    store = held(tmp_path, night)
    np.testing.assert_allclose(source(store).otf_lon[:, 1], 10 * ARCSEC, atol=1e-9)
    np.testing.assert_allclose(source(store).otf_lat[:, 1], -20 * ARCSEC, atol=1e-9)


@pytest.mark.parametrize(("start", "shrunk"), [(55144.5, True), (55145.5, False)])
def test_horizontal_offsets_before_and_after_november_2009(
    tmp_path: Path, start: float, shrunk: bool
) -> None:
    """2009-11-10 is MJD 55145."""
    given = {"system": "horizontalTrue"}
    night = small.on_off(start=start, sub=given)
    store = held(tmp_path, night)
    factor = np.cos(0.9) if shrunk else 1.0
    np.testing.assert_allclose(source(store).otf_lon[:, 0], 600 * ARCSEC * factor, atol=1e-6)
    assert "source_direction" not in _band(store, 5, small.BAND).attrs


def test_version_1(tmp_path: Path) -> None:
    """REC1, REC2; configuration in IMBF-scan; the tables of a subscan in another order; no TSTAMPED."""
    old: dict[str, Any] = {"version": "1.35", "stamp": None}
    store = imported(tmp_path, small.calibration(**old), small.on_off(**old))
    assert counts(source(store), 1)[0, 0, 0] == 430.0
    assert assumed(store, 5)["TSTAMPED"] == 1.0
    assert _band(store, 5, small.BAND).attrs["imbfits_version"] == 1.35


def test_version_1_with_other_columns(tmp_path: Path) -> None:
    """BAND numbers the spectra where there is no PART; the words of a column PART are counted."""
    for column, values in (("BAND", [3, 3]), ("PART", ["A", "A"])):
        folder = _made(tmp_path / column)
        raw = _made(folder / "raw")
        night = small.on_off(version="1.35", stamp=None)
        units = night.units()
        at = next(k for k, u in enumerate(units) if u.name == "IMBF-scan")
        form = "J" if column == "BAND" else "4A"
        kept = [c for c in units[at].columns if c.name != "PART"]
        made = fits.BinTableHDU.from_columns(
            [*kept, fits.Column(name=column, format=form, array=np.array(values))]
        )
        for card in units[at].header.cards:
            if not re.match(r"T[A-Z]+\d|TFIELDS|NAXIS|XTENSION|BITPIX|PCOUNT|GCOUNT", card.keyword):
                made.header[card.keyword] = card.value
        units[at] = made
        units.writeto(raw / night.name())
        number = 3 if column == "BAND" else 1
        store = held(folder)
        assert [s.band for s in store.load(5)] == [f"band_fts_{number}"]
        assert source(store, band=f"band_fts_{number}").shape[0] == 12


def test_a_compressed_file(tmp_path: Path) -> None:
    import gzip

    raw = tmp_path / "raw"
    raw.mkdir()
    path = small.on_off().write(raw)
    (raw / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
    path.unlink()
    assert counts(source(held(tmp_path)), 1)[0, 0, 0] == 430.0


# --- scans, numbers, calibration scans ------------------------------------------------------------


def test_the_calibration_scan_is_the_nearest_earlier_one_of_the_same_setup(tmp_path: Path) -> None:
    t, hour = small.START, 1.0 / 24
    other = Tuned("E230", 231.9, "LSB", 6250.0)
    nights = [
        small.calibration(1, start=t),
        small.calibration(2, start=t + 1.0 * hour),
        small.calibration(3, start=t + 1.1 * hour, tuned=other),
        small.calibration(4, start=t + 1.2 * hour, project="other"),
        small.on_off(5, start=t + 2.0 * hour),
        small.calibration(6, start=t + 2.1 * hour),
        small.on_off(7, start=t + 2.5 * hour, tuned=other),
        small.on_off(8, start=t + 3.0 * hour, project="nobody's"),
    ]
    store = imported(tmp_path, *nights)
    served = {n: int(source(store, n).lloadsn[0]) for n in (5, 7, 8)}
    assert served == {5: 2, 7: 3, 8: -1}
    near = imported(_made(tmp_path / "near"), *nights, cal="nearest")
    assert int(source(near, 5).lloadsn[0]) == 6


def test_a_calibration_scan_that_cannot_be_used_serves_nothing(tmp_path: Path) -> None:
    t, hour = small.START, 1.0 / 24
    bad = small.calibration(2, start=t + hour)
    bad.subs = [s for s in bad.subs if s.kind != "calAmbient"]
    nights = [small.calibration(1, start=t), bad, small.on_off(5, start=t + 2 * hour)]
    store = imported(tmp_path, *nights, code=2)
    assert int(source(store).lloadsn[0]) == 1


def test_loads_in_the_scan_itself_serve_it(tmp_path: Path) -> None:
    """Although there is a calibration scan before it."""
    night = small.on_off()
    start = small.START + 300 / DAY
    night.subs.append(small.sub(5, "calAmbient", 900.0, start=start))
    store = imported(tmp_path, small.calibration(), night)
    assert set(source(store).lloadsn.tolist()) == {5}
    assert loads(store, 5).sobsmode == ("HOT",)


def test_a_later_calibration_scan_serves_where_there_is_no_earlier_one(tmp_path: Path) -> None:
    nights = small.on_off(5), small.calibration(6, start=small.START + 0.1)
    assert int(source(imported(tmp_path, *nights)).lloadsn[0]) == 6


def test_each_day_counts_its_scans_from_one(tmp_path: Path) -> None:
    nights = [
        n
        for day in (0.0, 1.0)
        for n in (
            small.calibration(4, start=small.START + day),
            small.on_off(5, start=small.START + 0.01 + day),
        )
    ]
    store = imported(tmp_path, *nights)
    assert open_l0(store).numbers() == [4, 5, 100004, 100005]
    assert int(source(store, 100005).lloadsn[0]) == 100004


def test_backends_of_a_scan_are_its_bands(tmp_path: Path) -> None:
    nights = [f(backend=b) for f in (small.calibration, small.on_off) for b in ("FTS", "VESPA")]
    store = imported(tmp_path, *nights)
    assert [s.band for s in open_l0(store).load(5)] == ["band_fts_1", "band_vespa_1"]
    assert int(source(store, 5, "band_vespa_1").lloadsn[0]) == 4


def test_only_the_scans_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = _made(tmp_path / "raw")
    for night in (small.calibration(), small.on_off()):
        night.write(raw)
    out = str(tmp_path / "l0")
    assert main(["import", "imbfits", str(raw), out, "--scans", "5"]) == 0
    assert open_l0(out).numbers() == [5]
    assert int(source(tmp_path / "l0").lloadsn[0]) == 4
    assert main(["import", "auto", str(raw), out]) == 0
    assert "imbfits" in capsys.readouterr().err
    assert open_l0(out).numbers() == [4, 5]
    assert main(["import", "imbfits", str(raw), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "onOff" in told
    assert "band_fts_1" in told
    assert main(["inspect", out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


# --- ON and OFF -----------------------------------------------------------------------------------


def test_on_and_off_are_told_by_their_offsets(tmp_path: Path) -> None:
    store = held(tmp_path, small.on_off(order="SRRSSR"))
    assert source(store).sobsmode == ("ON", "OFF", "OFF", "ON", "ON", "OFF")


def test_several_places_on_the_source(tmp_path: Path) -> None:
    """The farthest place is the OFF, the others are ON."""
    night = small.on_off(order="RSSR")
    night.subs[2].trace["lon"] = night.subs[2].trace["lon"] + 30 * ARCSEC
    store = held(tmp_path, night)
    assert source(store).sobsmode == ("OFF", "ON", "ON", "OFF")


@pytest.mark.parametrize(
    ("places", "said"),
    [
        (((0, 0), (0, 0)), "there is no OFF among them"),
        (((300, 0), (-300, 0)), "two of them are equally far"),
        (((0, 0), (300, 0), (0, -300)), "two of them are equally far"),
    ],
)
def test_on_and_off_in_doubt(tmp_path: Path, places: Any, said: str) -> None:
    subs = [small.sub(n, "track", 430.0, place=p) for n, p in enumerate(places, 1)]
    with pytest.raises(ImportFormatError, match=said):
        held(tmp_path, small.night(5, "onOff", subs))


# --- switching ------------------------------------------------------------------------------------


def test_frequency_switching(tmp_path: Path) -> None:
    """Two phases in turn become two subscans; a cycle with a bad dump in it is left out."""
    tuned = small.receiver(FRQOFF1=3.0, FRQOFF2=-3.0)
    phases = [1, 2, 1, 0, 2, 1, 2, 1, 2]
    start = small.START + 300 / DAY
    subs = [small.phased(n, "track", phases, (430.0, 420.0), start=start) for n in (1, 2)]
    night = small.night(5, "onOff", subs, tuned=tuned, switch="frequencySwitching", phases=2)
    group = source(held(tmp_path, night))
    assert group.sobsmode == ("FSW-SIG", "FSW-REF") * 2
    assert group.shape[1] == 3
    for s, level in enumerate((430.0, 420.0) * 2):
        assert set(counts(group, s)[0, :, 0].tolist()) == {level}
    assert group.freq_throw[0].tolist() == [3e6, -3e6] * 2
    seconds = (group.mjd[:, 0] - subs[0].middle[0]) * DAY
    np.testing.assert_allclose(seconds, [0, 5, 7], atol=1e-3)


def test_unit_and_sign_of_the_throw(tmp_path: Path) -> None:
    tuned = small.receiver(FRQOFF1=0.003, FRQOFF2=-0.003)
    sub = small.phased(1, "track", [1, 2], (430.0, 420.0))
    changes: dict[str, Any] = {"tuned": tuned, "switch": "frequencySwitching", "phases": 2}
    night = small.night(5, "onOff", [sub], **changes)
    assert source(held(tmp_path, night)).freq_throw[0].tolist() == [3e6, -3e6]
    site = profile(tmp_path, 'frqoff_unit = "MHz"\nfrqoff_sign = -1')
    group = source(held(_made(tmp_path / "b"), night, profile=site))
    np.testing.assert_allclose(group.freq_throw[0], [-3e3, 3e3])


def test_wobbler_switching(tmp_path: Path) -> None:
    """The source in phase 1 (PHASEONE ON); nods to either side are told by their offsets."""
    phases = [1, 2, 1, 2, 0, 1, 2, 2]
    start = small.START + 300 / DAY
    subs = [
        small.phased(n, "track", phases, (430.0, 410.0), start=start, place=(x, 0.0))
        for n, x in enumerate((60.0, -60.0), 1)
    ]
    night = small.night(5, "onOff", subs, switch="wobblerSwitching", phases=2)
    group = source(held(tmp_path, night))
    assert group.sobsmode == ("WSW-ON", "WSW-OFF")
    assert group.chop_phase.T.tolist() == [[0, 1, 0, 1], [1, 0, 1, 0]]
    for s in (0, 1):
        assert counts(group, s)[0, :, 0].tolist() == [430.0, 410.0] * 2
    np.testing.assert_allclose(group.otf_lon, 0.0, atol=1e-9)


def test_wobbler_whose_first_phase_is_off_the_source(tmp_path: Path) -> None:
    sub = small.phased(1, "track", [1, 2, 1, 2], (410.0, 430.0), backend={"PHASEONE": "OFF"})
    night = small.night(5, "onOff", [sub], switch="wobblerSwitching", phases=2)
    group = source(held(tmp_path, night))
    assert group.chop_phase[:, 0].tolist() == [1, 0, 1, 0]


# --- pixels ---------------------------------------------------------------------------------------


def hera(by_row: bool, slow: bool = False, **changes: Any) -> Night:
    """Four pixels of HERA1; counts of a pixel are 1000 more than those of the one before."""
    pixels = (2, 4, 6, 8)
    lines = [r for p in pixels for r in small.rows("HERA1", "HERA1", p)]
    tuned = Tuned("HERA1", 230.538, "LSB", 6250.0)
    night = small.on_off(rows=lines, tuned=tuned, version="1.35", backend="WILMA", **changes)
    for n, row in enumerate(lines):
        row.refchan = 1 + 8 * (n % 2 if by_row else n)
    for sub in night.subs:
        shifted = [sub.data + 1000.0 * k for k in range(4)]
        n, assert_phase = len(sub.middle), sub.phase
        assert assert_phase is not None
        if not by_row:
            sub.data = np.concatenate(shifted, axis=1)
        elif slow:
            sub.data = np.concatenate(shifted)
            sub.middle, sub.phase = np.tile(sub.middle, 4), np.tile(assert_phase, 4)
        else:
            sub.data = np.stack(shifted, axis=1).reshape(4 * n, -1)
            sub.middle, sub.phase = np.repeat(sub.middle, 4), np.repeat(assert_phase, 4)
    return night


@pytest.mark.parametrize(("by_row", "slow"), [(False, False), (True, False), (True, True)])
def test_pixels_in_a_row_or_a_row_each(tmp_path: Path, by_row: bool, slow: bool) -> None:
    night = hera(by_row, slow, front={"DEWANG": 0.0})
    store = held(tmp_path, night)
    group = source(store, band="band_wilma_1")
    assert group.shape == (12, 3, 1, 4, 4)
    for c in range(12):
        np.testing.assert_array_equal(
            counts(group, 1)[c], np.tile(430.0 + c + 1000.0 * np.arange(4), (3, 1))
        )
    offsets = np.stack([group.pixel_offset_lon, group.pixel_offset_lat])[:, 0, :, 0] * 3600
    np.testing.assert_allclose(offsets, [[0, -24, 24, 0], [24, 0, 0, -24]], atol=1e-9)
    assert _band(store, 5, "band_wilma_1").attrs["pixels"] == [2, 4, 6, 8]


def test_a_pixel_may_lose_a_dump_alone(tmp_path: Path) -> None:
    night = hera(True, front={"DEWANG": 0.0})
    sub = night.subs[1]
    assert sub.phase is not None
    first_good = 4  # after the four rows before the subscan
    sub.phase[first_good + 2] = 0
    group = source(held(tmp_path, night), band="band_wilma_1")
    lost = np.isnan(counts(group, 1)[0])
    assert np.argwhere(lost).tolist() == [[0, 2]]


def test_the_derotator_turns_the_pixels(tmp_path: Path) -> None:
    """30 deg at the begin of the night, 0.02 deg more every second."""
    night = hera(False, front={"DEWRTMOD": "frame"})
    for sub in night.subs:
        when = np.arange(sub.middle[1] - 7 / DAY, sub.middle[1] + 20 / DAY, 5 / DAY)
        sub.derotator = (when, 30.0 + 0.02 * (when - night.subs[0].middle[1]) * DAY)
    group = source(held(tmp_path, night), band="band_wilma_1")
    for s, sub in enumerate(night.subs):
        middle = (
            sub.middle[[4, 12, 16]].mean() if len(sub.middle) > 7 else sub.middle[[1, 3, 4]].mean()
        )
        a = np.deg2rad(30.0 + 0.02 * (middle - night.subs[0].middle[1]) * DAY)
        # pixel 6 lies at (24, 0): the angle counts from the first axis to the second
        assert group.pixel_offset_lon[0, 2, s] * 3600 == pytest.approx(24 * np.cos(a), abs=0.01)
        assert group.pixel_offset_lat[0, 2, s] * 3600 == pytest.approx(24 * np.sin(a), abs=0.01)


@pytest.mark.parametrize(
    ("front", "derotator", "said"),
    [
        (
            {"DEWRTMOD": "horizontal"},
            None,
            "has no table of the derotator, whose mode is horizontal",
        ),
        ({"DEWANG": 10.0}, 12.0, "2.00 deg from DEWANG 10"),
        ({"DEWANG": 10.0}, None, ""),
    ],
)
def test_a_derotator_in_doubt(
    tmp_path: Path, front: dict[str, Any], derotator: float | None, said: str
) -> None:
    night = hera(False, front=front)
    for sub in night.subs if derotator is not None else ():
        when = np.arange(sub.middle[1] - 7 / DAY, sub.middle[1] + 20 / DAY, 5 / DAY)
        sub.derotator = (when, np.full(len(when), derotator))
    if said:
        with pytest.warns(GpucalWarning, match=said):
            held(tmp_path, night)
        return
    group = source(held(tmp_path, night), band="band_wilma_1")
    assert group.pixel_offset_lat[0, 2, 0] * 3600 == pytest.approx(
        24 * np.sin(np.deg2rad(10)), abs=1e-6
    )


def test_pixel_offsets_of_a_profile(tmp_path: Path) -> None:
    pairs = ", ".join(f"[{n}, {-n}]" for n in range(1, 10))
    site = profile(tmp_path, f"[imbfits.receiver.HERA1]\npixel_offsets = [{pairs}]")
    night = hera(False, front={"DEWANG": 0.0})
    group = source(held(tmp_path, night, profile=site), band="band_wilma_1")
    np.testing.assert_allclose(group.pixel_offset_lon[0, :, 0] * 3600, [2, 4, 6, 8])
