"""SDFITS files made here, imported as L0: what becomes of rows, and what is refused."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.gbt import N_CHAN, Row, nod, row, vane, w_band_sequence, write_table
from builders.groups import known, loads_of, source_of
from typer.testing import CliRunner

from gpucal import GpucalWarning, ImportFormatError, L0Error, import_sdfits, open_l0
from gpucal.io.fits.sdfits_read import read_sdfits

pytest.importorskip("astropy.io.fits")


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Write rows into a new file and return its path."""
    count = iter(range(100))

    def build(rows: Iterable[Row], **options: Any) -> Path:
        return write_table(tmp_path / f"bank{next(count)}.fits", rows, **options)

    return build


@pytest.fixture(autouse=True)
def _no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Syncing the whole file system takes seconds on a busy machine and changes no result."""
    monkeypatch.setattr("gpucal.io.incoming.landing.sync_tree", lambda path: None)


def counts_of(group: Any) -> np.ndarray:
    return np.stack([group.counts.read(0, group.shape[0], s) for s in range(group.shape[4])], -1)


def test_nod_with_vane_from_two_banks(make: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "night.zarr"
    banks = [
        make([r for r in vane() + nod() if r["FDNUM"] == 7]),
        make([r for r in vane() + nod() if r["FDNUM"] == 3]),
    ]
    assert import_sdfits(banks, out).scans == (
        2,
        5,
    )
    store = open_l0(out)
    assert store.attrs["telescope"] == "GBT"
    assert store.attrs["site"] == {"lat_deg": 38.4, "lon_deg": -79.8, "alt_m": 824.0}
    (load,), (science,) = store.load(2), store.load(5)
    assert load.source is None
    assert loads_of(load).sobsmode == ("HOT", "SKY")
    assert known(loads_of(load).thot)[0, 0] == pytest.approx(280.15)  # deg C -> K
    source = source_of(science)
    assert source.sobsmode == ("NOD-1", "NOD-2")
    assert source.shape == (N_CHAN, 2, 1, 2, 2)
    assert source.counts.dtype == np.float32
    assert science.attrs["nod_beams"] == [[0, 0], [0, 1]]
    assert science.attrs["feeds"] == [3, 7]
    assert list(source.lloadsn) == [2, 2]
    channel = np.arange(N_CHAN)
    data = counts_of(source)
    for s in (0, 1):
        for a, feed in enumerate((3, 7)):
            for d in (0, 1):
                expected = (5 + s) * 1000 + feed * 100 + 2.0 * d + channel
                np.testing.assert_array_equal(data[:, d, 0, a, s], expected)


def test_times_pointing_and_frequencies(make: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "night.zarr"
    import_sdfits([make(vane() + nod())], out)
    source = source_of(open_l0(out).load(5)[0])
    start = 60431.0 + 5 * 60.0 / 86400.0  # 2024-05-01 00:05
    np.testing.assert_allclose(
        source.mjd[:, 0], start + np.array([1.0, 3.0]) / 86400.0, rtol=0, atol=1e-9
    )
    assert source.exptime == pytest.approx(np.full((2, 2), 1.5))
    assert source.elevation == pytest.approx(np.full((2, 2), np.pi / 3))
    assert source.azimuth == pytest.approx(np.full((2, 2), 2 * np.pi / 3))
    assert source.signal_freq == pytest.approx(np.full((1, 2), 93.0e9))
    assert source.ref_channel == pytest.approx(np.full((1, 2), 8.0))  # CRPIX1 counts from 1
    assert source.freq_res == pytest.approx(np.full((1, 2), -1.0e5))
    assert source.otf_lon == pytest.approx(np.full((2, 2), 100.0))
    assert source.pixel_offset_lon[0] == pytest.approx(np.array([[0.0, 0.02], [0.02, 0.0]]))
    assert source.pamb == pytest.approx(np.full(2, 690.0))


def test_headers_are_kept(make: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "night.zarr"
    import_sdfits([make(vane() + nod())], out)
    attrs = open_l0(out).load(5)[0].attrs
    headers = json.loads(attrs["raw_headers"])
    cards = headers["cards"]["bank0.fits"]
    assert any(card.startswith("BACKEND = 'VEGAS") for card in cards)
    assert not any(card.startswith("TFORM") for card in cards)
    assert headers["first_row"]["SCAN"] == 5
    assert attrs["scan_metadata"]["PROCSEQN"] == {"min": 1, "max": 2}
    assert attrs["project"] == "TEST_01"
    assert attrs["rest_freq_hz"] == 93.17e9


def test_missing_feed_and_short_subscan_are_nan(make: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "night.zarr"
    rows = [
        r
        for r in vane() + nod(dumps=3)
        if not (r["SCAN"] == 6 and (r["FDNUM"] == 3 or r["DATE-OBS"].endswith("04.00")))
    ]
    import_sdfits([make(rows)], out)
    source = source_of(open_l0(out).load(5)[0])
    data = counts_of(source)
    assert data.shape[1] == 3
    assert np.isfinite(data[..., 0]).all()
    assert np.isnan(data[:, :, 0, 0, 1]).all()
    assert np.isfinite(data[:, :2, 0, 1, 1]).all()
    assert np.isnan(data[:, 2, 0, 1, 1]).all()
    assert source.mjd[2, 1] == source.mjd[1, 1]


def test_a_dump_missing_in_one_feed_keeps_the_others_in_time(
    make: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "night.zarr"
    rows = [
        r
        for r in vane() + nod(dumps=3)
        if not (r["SCAN"] == 5 and r["FDNUM"] == 7 and r["DATE-OBS"].endswith("02.00"))
    ]
    import_sdfits([make(rows)], out)
    data = counts_of(source_of(open_l0(out).load(5)[0]))
    assert np.isnan(data[:, 1, 0, 1, 0]).all()
    assert data[0, 2, 0, 1, 0] == 5704.0


def test_frequency_switching(make: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "night.zarr"
    switch = {"OBSMODE": "Track:FSWITCH:FSW12NOCAL", "PROCSIZE": 1}
    phases = [
        row(9, 2.0 * d, SIG=sig, CRVAL1=93.0e9 + throw, **switch)
        for d in (0, 1)
        for sig, throw in (("T", 0.0), ("F", 25e6))
    ]
    import_sdfits([make(vane(feeds=(0,)) + phases)], out)
    source = source_of(open_l0(out).load(9)[0])
    assert source.sobsmode == ("FSW-SIG", "FSW-REF")
    assert source.shape[1] == 2
    assert source.signal_freq == pytest.approx(np.full((1, 2), 93.0e9))
    assert source.freq_throw == pytest.approx(np.array([[0.0, 25e6]]))
    assert list(source.lloadsn) == [2, 2]


def test_a_load_tuned_elsewhere_does_not_serve(make: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "night.zarr"
    far = vane(2, CRVAL1=90.0e9)
    near = vane(8)
    import_sdfits([make(far + nod(5) + near)], out)
    assert list(source_of(open_l0(out).load(5)[0]).lloadsn) == [8, 8]


@pytest.mark.parametrize(
    ("procedure", "modes"), [("OnOff", ("ON", "OFF")), ("OffOn", ("OFF", "ON"))]
)
def test_position_switching(
    make: Callable[..., Path], tmp_path: Path, procedure: str, modes: tuple[str, str]
) -> None:
    out = tmp_path / "night.zarr"
    rows = [
        row(5, OBSMODE=f"{procedure}:NONE:TPNOCAL"),
        row(6, OBSMODE=f"{procedure}:NONE:TPNOCAL"),
    ]
    rows[1]["PROCSEQN"] = 2
    assert import_sdfits([make(rows)], out).scans == (5,)
    scan = open_l0(out).load(5)[0]
    assert source_of(scan).sobsmode == modes
    assert list(source_of(scan).lloadsn) == [-1, -1]
    assert scan.attrs["gbt_scans"] == [5, 6]


def test_w_band_loads_are_other_rows_for_each_feed(
    make: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "night.zarr"
    assert import_sdfits([make(w_band_sequence(4))], out).scans == (4,)
    group = loads_of(open_l0(out).load(4)[0])
    modes = {mode: s for s, mode in enumerate(group.sobsmode)}
    data = counts_of(group)[0, 0, 0]  # [A, S]
    assert data.shape == (2, 3)
    np.testing.assert_array_equal(data[:, modes["HOT"]], [4020.0, 4110.0])
    np.testing.assert_array_equal(data[:, modes["COLD"]], [4010.0, 4120.0])
    np.testing.assert_array_equal(data[:, modes["SKY"]], [4000.0, 4100.0])
    assert known(group.thot)[0, modes["HOT"]] == pytest.approx(265.0)  # K already
    assert known(group.tcold)[0, modes["COLD"]] == pytest.approx(54.0 - 0.6 * 10.0)


def test_several_bands_and_polarisations(make: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "night.zarr"
    rows = [
        {
            **r,
            "IFNUM": i,
            "PLNUM": p,
            "CRVAL1": 93e9 + 1e9 * i,
            "DATA": r["DATA"] + 10000 * i + 7 * p,
        }
        for r in vane() + nod()
        for i in (0, 2)
        for p in (0, 1)
    ]
    import_sdfits([make(rows)], out)
    bands = {scan.band: scan for scan in open_l0(out).load(5)}
    assert sorted(bands) == ["band_1", "band_3"]
    third = source_of(bands["band_3"])
    assert third.shape == (N_CHAN, 2, 2, 2, 2)
    assert third.signal_freq == pytest.approx(np.full((2, 2), 95e9))
    data = counts_of(third)
    np.testing.assert_array_equal(data[:, :, 1] - data[:, :, 0], np.full(data[:, :, 0].shape, 7.0))
    assert data[0, 0, 0, 0, 0] == 25300.0
    assert bands["band_3"].attrs["ifnum"] == 2


def test_what_cannot_be_used_is_left_out_with_a_warning(
    make: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "night.zarr"
    half = [r for r in nod(20) if r["SCAN"] == 20]
    track = [row(30, OBSMODE="Track:NONE:TPNOCAL", PROCSIZE=1)]
    sky = [r for r in vane(40) if r["OBJECT"] == "SKY"]
    with pytest.warns(GpucalWarning) as caught:
        assert import_sdfits([make(vane() + nod() + half + track + sky)], out).scans == (
            2,
            5,
        )
    texts = " | ".join(str(w.message) for w in caught)
    assert "scan 20 is the first half of a Nod" in texts
    assert "scan 30 is a Track" in texts
    assert "scan 41 looks at the sky" in texts


def test_unlikely_load_temperature_is_a_warning(make: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.warns(GpucalWarning, match=r"recorded at 372\.15 K, the air at 280\.00 K.*--t-hot"):
        import_sdfits([make(vane(TWARM=99.0) + nod())], tmp_path / "night.zarr")


def test_nod_without_the_tracked_feed_warns(make: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "night.zarr"
    with pytest.warns(GpucalWarning, match="beams of the nod are not known"):
        import_sdfits([make([r for r in nod() if r["FDNUM"] == 3])], out)
    assert "nod_beams" not in open_l0(out).load(5)[0].attrs


BAD: dict[str, tuple[Callable[[], list[Row]], str]] = {
    "noise diode": (
        lambda: [{**r, "CAL": "T" if r["SCAN"] == 5 else "F"} for r in nod()],
        r"scan 5: 4 rows .*noise diode on \(CAL=T\)",
    ),
    "twice": (lambda: nod() + nod(), "is there twice.*each file once"),
    "two projects": (lambda: [*nod(), row(5, FDNUM=9, PROJID="B")], "projects TEST_01 and B"),
    "frequency": (lambda: [*nod(), row(5, FDNUM=9, CRVAL1=92e9)], "feeds differ by 1000000000 Hz"),
    "channel width": (lambda: [*nod(), row(5, FDNUM=9, CDELT1=3e5)], "CDELT1 is .* expected one"),
    "not a number": (lambda: [*nod(), row(5, FDNUM=9, CRVAL1=np.nan)], "CRVAL1 is not a number"),
    "date": (
        lambda: [{**r, "DATE-OBS": "yesterday"} for r in nod()],
        "DATE-OBS 'yesterday' cannot be read",
    ),
    "axis": (lambda: [{**r, "CTYPE1": "VELO-LSR"} for r in nod()], "CTYPE1 is 'VELO-LSR'"),
    "no wheel": (
        lambda: [r for r in w_band_sequence(4) if r["CALPOSITION"] == "Observing"],
        "no HOT rows",
    ),
    "third W-band feed": (
        lambda: [*w_band_sequence(4), {**w_band_sequence(4)[0], "FDNUM": 2}],
        "feeds 0 and 1, but FDNUM 2",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_rows_that_break_a_rule_are_one_error(
    make: Callable[..., Path], tmp_path: Path, case: str
) -> None:
    rows, pattern = BAD[case]
    file = make(rows())
    out = tmp_path / "night.zarr"
    with pytest.raises(ImportFormatError, match=pattern):
        import_sdfits([file], out)
    assert sorted(p.name for p in tmp_path.iterdir()) == [file.name]


def test_nothing_known_is_an_error(make: Callable[..., Path], tmp_path: Path) -> None:
    file = make([row(5, OBSMODE="RALongMap:NONE:TPNOCAL", PROCSIZE=9)])
    with (
        pytest.warns(GpucalWarning, match="scan 5 is a RALongMap"),
        pytest.raises(ImportFormatError, match="no scan can be imported"),
    ):
        import_sdfits([file], tmp_path / "night.zarr")


def test_mixed_channel_counts(make: Callable[..., Path], tmp_path: Path) -> None:
    short = [{**r, "DATA": r["DATA"][:8]} for r in nod(feeds=(11, 12))]
    with pytest.raises(
        ImportFormatError, match="scan 5: IFNUM 0 holds spectra of 8 and 16 channels"
    ):
        import_sdfits([make(nod()), make(short)], tmp_path / "night.zarr")


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4000])


def _cut_in_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:4000])


def _text(path: Path) -> None:
    path.write_text("this is no FITS file\n")


@pytest.mark.parametrize(
    ("damage", "pattern"),
    [
        (_truncated, "is truncated: its table ends at byte"),
        (_cut_in_header, "bank0.fits"),
        (_text, "cannot be read as FITS"),
        (Path.unlink, "does not exist"),
    ],
)
def test_damaged_files(
    make: Callable[..., Path], tmp_path: Path, damage: Callable[[Path], None], pattern: str
) -> None:
    file = make(nod())
    damage(file)
    with pytest.raises(ImportFormatError, match=pattern):
        import_sdfits([file], tmp_path / "night.zarr")
    assert not (tmp_path / "night.zarr").exists()


def test_other_fits_files(make: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ImportFormatError, match="holds no table named SINGLE DISH"):
        import_sdfits([make(nod(), name="EVENTS")], tmp_path / "night.zarr")


@pytest.mark.parametrize("column", ["DATA", "FDNUM", "CRVAL1"])
def test_missing_column(make: Callable[..., Path], tmp_path: Path, column: str) -> None:
    with pytest.raises(ImportFormatError, match=rf"bank0\.fits has no column {column}"):
        import_sdfits([make(nod(), drop=column)], tmp_path / "night.zarr")


def test_existing_store_is_kept_unless_told(make: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "night.zarr"
    import_sdfits([make(nod(5))], out)
    with pytest.raises(L0Error, match="already there"):
        import_sdfits([make(nod(8))], out)
    with pytest.raises(ImportFormatError, match="noise diode"):
        import_sdfits([make([row(8, CAL="T")])], out, overwrite=True)
    assert open_l0(out).numbers() == [5]
    import_sdfits([make(nod(8))], out, overwrite=True)
    assert open_l0(out).numbers() == [8]
    assert not (tmp_path / "night.zarr.staging").exists()


def test_overwrite_replaces_only_l0_stores(make: Callable[..., Path], tmp_path: Path) -> None:
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "chapter1.tex").write_text("...")
    with pytest.raises(L0Error):
        import_sdfits([make(nod())], precious, overwrite=True)
    assert (precious / "chapter1.tex").exists()


def test_a_failure_while_writing_leaves_nothing(
    make: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gpucal.io.incoming.landing.write_l0_scan", full)
    file = make(nod())
    with pytest.raises(OSError, match="No space left"):
        import_sdfits([file], tmp_path / "night.zarr")
    assert sorted(p.name for p in tmp_path.iterdir()) == [file.name]


def test_header_keywords_stand_in_for_columns(make: Callable[..., Path]) -> None:
    rows = read_sdfits([make(nod())], ["SCAN", "SITELAT"], {"NOTTHERE": -1.0})
    assert len(rows) == 8
    np.testing.assert_array_equal(rows["SITELAT"], np.full(8, 38.4))
    np.testing.assert_array_equal(rows["NOTTHERE"], np.full(8, -1.0))
    assert rows["SCAN"].dtype == np.int64


def test_command(make: Callable[..., Path], tmp_path: Path) -> None:
    from gpucal.cli.commands.import_ import app

    out = tmp_path / "night.zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = CliRunner().invoke(app, ["sdfits", str(make(vane() + nod())), str(out)])
    assert result.exit_code == 0, result.output
    assert "NOD-1 NOD-2" in result.output
    assert "2 scans in" in result.output
    assert CliRunner().invoke(app, ["sdfits", str(out)]).exit_code != 0
