"""Rows as the telescope and other programs write them: each fault costs its scan, no number is wrong.

The right values are of GBT Memo 302, worked out by hand from the counts: T_cal = (T_atm - T_bg) +
(T_vane - T_atm) exp(tau A), T_sys* = T_cal OFF / (VANE - OFF), T_A* = T_sys* (ON - OFF) / OFF.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.gbt import Row, row, write_table

from gpucal import (
    CalibrationConfig,
    GpucalWarning,
    ImportFormatError,
    ImportReport,
    calibrate_store,
    import_sdfits,
    main,
    open_l0,
    open_l1,
)

VANE, OFF, ON = 3000.0, 1000.0, 1100.0
T_CAL = (260.0 - 2.725) + (280.15 - 260.0) * np.exp(0.1 / np.sin(np.radians(60.0)))
T_SYS = T_CAL * OFF / (VANE - OFF)
T_A = T_SYS * (ON - OFF) / OFF
CONFIG = CalibrationConfig(atmosphere="none", tau=0.1, t_atm=260.0)
N = 32


def spectrum(counts: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.full(N, counts, np.float32)


def loads(scan: int = 1, hour: int = 0, **changes: Any) -> list[Row]:
    """A vane scan and the sky scan after it."""
    rows = [
        row(scan, OBJECT="VANE", CALPOSITION="Vane", DATA=spectrum(VANE)),
        row(scan + 1, OBJECT="SKY", DATA=spectrum(OFF)),
    ]
    track = {"OBSMODE": "Track:NONE:TPNOCAL", "PROCSIZE": 1}
    return at(hour, [{**r, **track, **changes} for r in rows])


def pair(scan: int = 3, hour: int = 0, on: float = ON, **changes: Any) -> list[Row]:
    """OnOff as the telescope writes it: the second word of OBSMODE tells the halves apart."""
    rows = []
    for half, (word, counts) in enumerate((("PSWITCHON", on), ("PSWITCHOFF", OFF))):
        mode = {"OBSMODE": f"OnOff:{word}:TPNOCAL", "PROCSEQN": half + 1}
        rows += [
            {**row(scan + half, 2.0 * d, DATA=spectrum(counts)), **mode, **changes} for d in (0, 1)
        ]
    return at(hour, rows)


def at(hour: int, rows: Iterable[Row]) -> list[Row]:
    return [{**r, "DATE-OBS": r["DATE-OBS"].replace("T00", f"T{hour:02d}")} for r in rows]


def brought_in(folder: Path, rows: Sequence[Row], **options: Any) -> ImportReport:
    return import_sdfits([write_table(folder / "night.fits", rows)], folder / "l0", **options)


def calibrated(folder: Path, scans: Sequence[int], value: float = T_A) -> None:
    """Every scan of ``scans``, and no other, has the right T_sys* and T_A*."""
    assert calibrate_store(folder / "l0", folder / "l1", CONFIG).exit_code == 0
    store = open_l1(folder / "l1")
    assert store.scans() == list(scans)
    for n in scans:
        assert store[n]["t_sys_star"][...] == pytest.approx(T_SYS, rel=1e-6)
        assert store[n]["spectra"][...] == pytest.approx(value, rel=1e-6)


def test_the_halves_of_a_pair_differ_in_the_second_word(tmp_path: Path) -> None:
    assert brought_in(tmp_path, loads() + pair()) == ImportReport((1, 3))
    calibrated(tmp_path, [3])


@pytest.mark.parametrize("words", [("PSWITCHOFF", "PSWITCHON"), ("PSWITCHON", "PSWITCHON")])
def test_a_pair_whose_words_contradict_its_order_is_left_out(
    tmp_path: Path, words: tuple[str, str]
) -> None:
    rows = [
        {**r, "OBSMODE": f"OnOff:{words[r['PROCSEQN'] - 1]}:TPNOCAL"} if r["SCAN"] > 2 else r
        for r in loads() + pair()
    ]
    with pytest.warns(GpucalWarning, match=r"by PROCSEQN, but OBSMODE says PSWITCH.*left out"):
        assert brought_in(tmp_path, rows).scans == (1,)


def test_a_pair_of_two_sources_is_no_pair(tmp_path: Path) -> None:
    rows = [{**r, "OBJECT": "W3"} if r["SCAN"] == 4 else r for r in loads() + pair()]
    with pytest.warns(GpucalWarning, match="without its"):
        assert brought_in(tmp_path, rows).scans == (1,)


@pytest.mark.parametrize("stamped", [True, False])
def test_a_vane_number_used_again_hours_later_is_another_scan(
    tmp_path: Path, stamped: bool
) -> None:
    again = [{**r, "DATA": r["DATA"] * 3} for r in loads(1, hour=5)]
    later = [{**r, "DATA": r["DATA"] * 3} for r in pair(5, hour=5)]
    rows = loads() + pair() + again + later
    if stamped:
        rows = [{**r, "TIMESTAMP": f"{r['DATE-OBS'][:13]}:{r['SCAN']:02d}"} for r in rows]
    with pytest.warns(GpucalWarning) as caught:
        report = brought_in(tmp_path, rows)
    said = "scan number 1 comes again later in the session: that scan is 100001 here."
    assert said in [str(w.message) for w in caught]
    assert report.scans == (1, 3, 5, 100001)
    assert open_l0(tmp_path / "l0").load(5)[0].source.lloadsn.tolist() == [100001, 100001]  # type: ignore[union-attr]
    calibrated(tmp_path, [3, 5])


def test_a_pair_observed_again_is_not_added_to_the_first(tmp_path: Path) -> None:
    rows = loads() + pair() + pair(3, hour=1)
    with pytest.warns(GpucalWarning) as caught:
        assert brought_in(tmp_path, rows).scans == (1, 3, 100003)
    assert len(caught) == 2
    calibrated(tmp_path, [3, 100003])


def test_a_number_used_for_another_source_is_another_scan(tmp_path: Path) -> None:
    rows = loads() + pair() + pair(3, hour=0, OBJECT="W3")
    moved = [
        {**r, "DATE-OBS": f"2024-05-01T00:{r['SCAN'] + 7:02d}:{r['DATE-OBS'][17:]}"}
        if r["OBJECT"] == "W3"
        else r
        for r in rows
    ]
    with pytest.warns(GpucalWarning) as caught:
        assert brought_in(tmp_path, moved).scans == (1, 3, 100003)
    assert len(caught) == 2
    names = [open_l0(tmp_path / "l0").load(n)[0].attrs["source"] for n in (3, 100003)]
    assert names == ["DR21", "W3"]
    calibrated(tmp_path, [3, 100003])


def test_trimmed_rows_with_one_time_stamp_are_one_scan(tmp_path: Path) -> None:
    """A selection of rows has gaps; the stamp of the scan says that they belong together."""
    rows = [{**r, "TIMESTAMP": f"2024_05_01_00:{r['SCAN']:02d}:00"} for r in loads() + pair()]
    late = [r for r in rows if r["SCAN"] == 4]
    late[-1]["DATE-OBS"] = "2024-05-01T00:09:00.00"
    assert brought_in(tmp_path, rows).scans == (1, 3)


LOST: dict[str, tuple[dict[str, Any], str]] = {
    "noise diode": ({"CAL": "T"}, r"scan 5: 2 rows .*noise diode on"),
    "antenna": ({"ELEVATIO": 0.0, "AZIMUTH": 0.0}, "scan 5: the pointing is missing in 2 of 2"),
    "calibrated": ({"TUNIT7": "Ta"}, "scan 5: the unit of DATA is Ta, expected counts"),
    "date": ({"DATE-OBS": ""}, "scan 5: DATE-OBS '' cannot be read"),
    "frequency": ({"CRVAL1": np.inf}, "scan 5: column CRVAL1 is not a number in 2 rows"),
    "axis": ({"CTYPE1": "VELO"}, "scan 5: CTYPE1 is 'VELO'"),
}


@pytest.mark.parametrize("fault", LOST)
def test_a_bad_scan_costs_itself_alone(tmp_path: Path, fault: str) -> None:
    changes, sentence = LOST[fault]
    ordinary = {"CAL": "F", "CTYPE1": "FREQ-OBS"} | (
        {"TUNIT7": "Counts"} if fault == "calibrated" else {}
    )
    good = [{**r, **ordinary} for r in loads() + pair()]
    # the builder writes DATA as the last column but one; TUNIT follows its place
    bad = [{**r, **ordinary, **changes} for r in pair(5)]
    rows = good + bad
    if fault == "calibrated":
        place = [k for k in rows[0] if k != "TUNIT7"].index("DATA") + 1
        rows = [{(f"TUNIT{place}" if k == "TUNIT7" else k): v for k, v in r.items()} for r in rows]
    report = brought_in(tmp_path, rows)
    assert report.scans == (1, 3)
    assert report.exit_code == 2
    assert {x.scan for x in report.lost} == {5, 6}
    assert any(re.search(sentence, x.sentence) for x in report.lost)
    calibrated(tmp_path, [3])


def test_a_bank_lost_for_one_scan_costs_that_band(tmp_path: Path) -> None:
    both = [{**r, "IFNUM": i} for r in loads() + pair() + pair(5) for i in (0, 1)]
    rows = [r for r in both if not (r["SCAN"] == 6 and r["IFNUM"] == 1)]
    report = brought_in(tmp_path, rows)
    assert report.scans == (1, 3, 5)
    assert [(x.scan, x.band) for x in report.lost] == [(5, "band_2")]
    assert "IFNUM 1 has no rows for OFF" in report.lost[0].sentence
    assert [s.band for s in open_l0(tmp_path / "l0").load(5)] == ["band_1"]


def test_a_vane_is_used_without_the_sky_of_another_setup(tmp_path: Path) -> None:
    other = [{**r, "DATA": np.repeat(r["DATA"], 2)} for r in loads() if r["OBJECT"] == "SKY"]
    file = write_table(tmp_path / "a.fits", loads()[:1] + pair())
    wide = write_table(tmp_path / "b.fits", other)
    with pytest.warns(GpucalWarning, match="scan 2 looks at the sky"):
        import_sdfits([file, wide], tmp_path / "l0")
    calibrated(tmp_path, [3])


def test_second_sixty_is_the_end_of_its_minute(tmp_path: Path) -> None:
    rows = loads() + pair()
    rows[-2]["DATE-OBS"], rows[-1]["DATE-OBS"] = (
        f"2024-05-01T00:04:{s}" for s in ("58.5", "60.50")
    )
    assert brought_in(tmp_path, rows).scans == (1, 3)
    mjd = open_l0(tmp_path / "l0").load(3)[0].source.mjd  # type: ignore[union-attr]
    seconds = (np.asarray(mjd)[-1, 1] - np.floor(mjd[-1, 1])) * 86400.0
    assert seconds == pytest.approx(5 * 60 + 0.5 + 1.0, abs=1e-3)


def test_what_follows_a_nul_is_not_read(tmp_path: Path) -> None:
    file = write_table(tmp_path / "night.fits", loads() + pair())
    data = file.read_bytes()
    for name in (b"VANE", b"SKY"):
        junk = name + b"\0\0junk"
        data = data.replace(name + b"\0" * (32 - len(name)), junk + b"\0" * (32 - len(junk)))
    file.write_bytes(data)
    import_sdfits([file], tmp_path / "l0")
    assert open_l0(tmp_path / "l0").load(1)[0].attrs["source"] == "VANE"
    calibrated(tmp_path, [3])


def test_a_gzipped_file_and_a_folder_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "session.raw.vegas"
    folder.mkdir()
    file = write_table(tmp_path / "x.fits", loads() + pair())
    (folder / "x.fits.gz").write_bytes(gzip.compress(file.read_bytes()))
    (folder / "._x.fits").write_bytes(b"left by another system")
    assert import_sdfits([folder], tmp_path / "l0").scans == (1, 3)
    calibrated(tmp_path, [3])
    (folder / "x.fits.gz").write_bytes(gzip.compress(file.read_bytes())[:-200])
    with pytest.raises(ImportFormatError, match="is compressed, and its end"):
        import_sdfits([folder], tmp_path / "other")
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(ImportFormatError, match=r"holds no file that ends in .fits"):
        import_sdfits([folder], tmp_path / "other")


def test_a_table_without_rows_beside_a_full_one(tmp_path: Path) -> None:
    from astropy.io import fits

    file = write_table(tmp_path / "night.fits", loads() + pair())
    with fits.open(file) as hdus:
        empty = fits.BinTableHDU(hdus[1].data[:0], header=hdus[1].header)
        fits.HDUList([hdus[0], hdus[1], empty]).writeto(tmp_path / "two.fits")
    with pytest.warns(GpucalWarning, match="1 SINGLE DISH table without rows"):
        import_sdfits([tmp_path / "two.fits"], tmp_path / "l0")
    calibrated(tmp_path, [3])


def test_blank_integers_and_spectra_of_zeros_are_no_counts(tmp_path: Path) -> None:
    from astropy.io import fits

    rows = loads() + pair()
    rows[-1]["DATA"] = spectrum(0.0)
    file = write_table(tmp_path / "night.fits", rows)
    with fits.open(file) as hdus:
        table = hdus[1]
        counts = table.data["DATA"].astype(np.int32)
        counts[:, 3] = -32768
        columns = [c for c in table.columns if c.name != "DATA"]
        columns.append(fits.Column("DATA", f"{N}J", null=-32768, array=counts))
        new = fits.BinTableHDU.from_columns(columns, header=table.header)
        new.header["TNULL" + str(len(columns))] = -32768
        fits.HDUList([hdus[0], new]).writeto(tmp_path / "int.fits")
    with pytest.warns(GpucalWarning, match="scan 4: 1 spectra are 0 in all channels"):
        import_sdfits([tmp_path / "int.fits"], tmp_path / "l0")
    source = open_l0(tmp_path / "l0").load(3)[0].source
    assert source is not None
    on, off = (np.asarray(source.counts.read(0, N, s)) for s in (0, 1))
    assert np.isnan(on[3]).all()
    assert np.isnan(off[:, 1]).all()
    assert (np.delete(off[:, 0], 3, axis=0) == OFF).all()


def test_banks_are_matched_by_time_and_not_by_rank(tmp_path: Path) -> None:
    """Feed 1 lacks its first integration: what it has belongs to the second dump."""
    rows = [{**r, "FDNUM": f} for r in loads() + pair() for f in (0, 1)]
    rows = [
        r
        for r in rows
        if not (r["SCAN"] == 3 and r["FDNUM"] == 1 and r["DATE-OBS"].endswith("00.00"))
    ]
    late = [{**r, "DATE-OBS": r["DATE-OBS"][:-2] + "40"} if r["FDNUM"] == 1 else r for r in rows]
    assert brought_in(tmp_path, late).scans == (1, 3)
    source = open_l0(tmp_path / "l0").load(3)[0].source
    assert source is not None
    assert source.shape == (N, 2, 1, 2, 2)
    on = np.asarray(source.counts.read(0, 1, 0))[0, :, 0, :]
    assert np.array_equal(np.isnan(on), [[False, True], [False, False]])


def test_the_command_imports_what_is_wanted_and_says_what_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = loads() + pair() + [{**r, "CAL": "T"} for r in pair(5)]
    file = str(write_table(tmp_path / "night.fits", rows))
    assert main(["import", "sdfits", file, str(tmp_path / "l0")]) == 2
    printed = capsys.readouterr()
    assert "2 scans in" in printed.out
    assert "not imported: scans 5, 6: 2 rows were taken with the noise diode" in printed.err
    assert main(["import", "sdfits", file, str(tmp_path / "some"), "--scans", "1-4"]) == 0
    assert open_l0(tmp_path / "some").numbers() == [1, 3]
    assert main(["import", "sdfits", file, str(tmp_path / "no"), "--scans", "77"]) == 1
    assert "SCAN there: 1, 2, 3, 4, 5, 6" in capsys.readouterr().err
    assert main(["import", "sdfits", file, str(tmp_path / "no"), "--bands", "x"]) == 64


def test_headers_hold_the_row_as_it_was(tmp_path: Path) -> None:
    brought_in(tmp_path, loads() + pair())
    headers = json.loads(open_l0(tmp_path / "l0").load(3)[0].attrs["raw_headers"])
    assert headers["first_row"]["OBSMODE"] == "OnOff:PSWITCHON:TPNOCAL"


@pytest.mark.parametrize(
    ("form", "scale", "zero"), [("I", 0.5, 0.0), ("J", 1.0, 100.0), ("I", 1.0, 32768.0)]
)
def test_tnull_of_a_scaled_column_is_no_number(
    tmp_path: Path, form: str, scale: float, zero: float
) -> None:
    """The stored number that means nothing would be a plausible count once it is scaled."""
    from astropy.io import fits

    file = write_table(tmp_path / "plain.fits", loads() + pair())
    with fits.open(file) as hdus:
        columns = [c for c in hdus[1].columns if c.name != "DATA"]
        stored = (hdus[1].data["DATA"].astype(np.float64) - zero) / scale
        stored[-1, 3] = 200
        counts = fits.Column("DATA", f"{N}{form}", array=stored.astype(int))
        table = fits.BinTableHDU.from_columns([*columns, counts])
        table.header["EXTNAME"] = "SINGLE DISH"
        fits.HDUList([hdus[0], table]).writeto(tmp_path / "night.fits")
    for key, value in {"TSCAL": scale, "TZERO": zero, "TNULL": 200}.items():
        fits.setval(tmp_path / "night.fits", f"{key}{len(columns) + 1}", value=value, ext=1)
    import_sdfits([tmp_path / "night.fits"], tmp_path / "l0")
    group = open_l0(tmp_path / "l0").load(3)[0].source
    assert group is not None
    off = group.counts.read(0, N, 1)
    assert np.isnan(off[3, 1, 0, 0])
    assert off[2, 1, 0, 0] == OFF
    calibrated(tmp_path, [3])


@pytest.mark.parametrize("column", ["FLAGS", "FLAGGED"])
def test_columns_in_which_other_programs_mark_channels(tmp_path: Path, column: str) -> None:
    marks = np.zeros(N, np.uint8)
    rows = []
    for r in loads() + pair():
        bad = marks.copy()
        bad[5] = r["SCAN"] == 3
        data = r["DATA"].copy()
        data[5] = 9e9 if r["SCAN"] == 3 else data[5]
        rows.append({**r, "DATA": data, column: bad})
    from astropy.io import fits

    plain = [{k: v for k, v in r.items() if k != column} for r in rows]
    file = write_table(tmp_path / "plain.fits", plain)
    with fits.open(file) as hdus:
        values = np.array([r[column] for r in rows])
        added = fits.ColDefs([fits.Column(column, f"{N}B", array=values)])
        table = fits.BinTableHDU.from_columns(hdus[1].columns + added, header=hdus[1].header)
        fits.HDUList([hdus[0], table]).writeto(tmp_path / "night.fits")
    import_sdfits([tmp_path / "night.fits"], tmp_path / "l0")
    group = open_l0(tmp_path / "l0").load(3)[0].source
    assert group is not None
    on = group.counts.read(0, N, 0)
    assert np.isnan(on[5]).all()
    assert (on[6] == ON).all()
    import_sdfits([tmp_path / "night.fits"], tmp_path / "unheeded", flags=False)
    group = open_l0(tmp_path / "unheeded").load(3)[0].source
    assert group is not None
    assert (group.counts.read(0, N, 0)[5] > 8e9).all()


@pytest.mark.parametrize(("day", "told"), [("2018-10-22T18", True), ("2018-10-22T20", False)])
def test_exchanged_argus_beams_are_told_of(tmp_path: Path, day: str, told: bool) -> None:
    rows = [{**r, "FDNUM": f} for r in loads() + pair() for f in (0, 2)]
    rows = [{**r, "DATE-OBS": r["DATE-OBS"].replace("2024-05-01T00", day)} for r in rows]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        brought_in(tmp_path, rows)
    said = [str(w.message) for w in caught if "exchanged" in str(w.message)]
    assert len(said) == told
    if told:
        assert said[0].startswith("scans 1 to 4: until 2018-10-22 19:30 UT Argus beams 2 and 3")
        assert "FDNUM 2 here" in said[0]


def test_loads_of_a_frequency_switched_session_use_the_signal_phase(tmp_path: Path) -> None:
    """Both phases have one time; the reference phase sees another frequency, and another bandpass here."""
    both = []
    for r in loads():
        both.append({**r, "SIG": "T"})
        other = {**r, "SIG": "F", "CRVAL1": r["CRVAL1"] + 2e6, "DATA": r["DATA"] * np.float32(2)}
        both.append(other)
    assert brought_in(tmp_path, both + pair()).scans == (1, 3)
    calibrated(tmp_path, [3])


def test_a_velocity_without_a_definition_is_not_one_in_the_lsr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moving = {"VELOCITY": 7e5, "VFRAME": 1e4, "VELDEF": ""}
    brought_in(tmp_path, [{**r, **moving} for r in loads() + pair()])
    attrs = open_l0(tmp_path / "l0").load(3)[0].attrs
    assert attrs["velocity_definition"] == "not recorded"
    calibrated(tmp_path, [3])
    out = tmp_path / "spectra"
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["export", "fits1d", str(tmp_path / "l1"), str(out), "--quiet"]) == 0
    assert "the velocity of the source (700 km/s) is left out" in capsys.readouterr().err
    from astropy.io import fits

    header = fits.getheader(next(out.iterdir()))
    assert "VELOCITY" not in header
