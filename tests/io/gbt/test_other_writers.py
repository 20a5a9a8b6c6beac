"""Tables as other programs write them, by astropy alone: stated units, packed files, pairs broken off.

The right values are of GBT Memo 302, by hand: OFF 1000, ON 1100, vane 3000 counts at 280.15 K, tau 0.1,
T_atm 260 K, elevation 60 degrees.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpucal import (
    CalibrationConfig,
    GpucalWarning,
    ImportFormatError,
    calibrate_store,
    import_sdfits,
    main,
    open_l0,
    open_l1,
)

fits = pytest.importorskip("astropy.io.fits")

Row = dict[str, Any]
T_CAL = (260.0 - 2.725) + (280.15 - 260.0) * np.exp(0.1 / np.sin(np.radians(60.0)))
T_SYS = T_CAL * 1000.0 / (3000.0 - 1000.0)
CONFIG = CalibrationConfig(atmosphere="none", tau=0.1, t_atm=260.0)


def spectrum(scan: int, when: str, counts: float, **changes: Any) -> Row:
    """A row of a Track; its keys are the columns of the telescope's own files."""
    return {
        "OBJECT": "W3OH",
        "OBSMODE": "Track:NONE:TPNOCAL",
        **dict.fromkeys(("IFNUM", "PLNUM", "FDNUM"), 0),
        "SCAN": scan,
        "SIG": "T",
        "CAL": "F",
        "PROCSEQN": 1,
        "PROCSIZE": 1,
        "FRONTEND": "RcvrArray75_115",
        "EXPOSURE": 9.5,
        "DURATION": 10.0,
        "CRVAL1": 86.2e9,
        "CRPIX1": 13.0,
        "CDELT1": 9.2e4,
        "CTYPE1": "FREQ-OBS",
        "CTYPE2": "RA",
        "CRVAL2": 36.8,
        "CTYPE3": "DEC",
        "CRVAL3": 61.9,
        "ELEVATIO": 60.0,
        "AZIMUTH": 310.0,
        "TAMBIENT": 279.0,
        "PRESSURE": 688.0,
        "TWARM": 7.0,
        "CALPOSITION": "Observing",
        "RESTFREQ": 86.243e9,
        "VFRAME": 21e3,
        "VELOCITY": 0.0,
        "DATE-OBS": f"2025-02-03T{when}",
        "DATA": np.full(24, counts, np.float32),
        **changes,
    }


def loads(hour: str = "20", **changes: Any) -> list[Row]:
    return [
        spectrum(41, f"{hour}:00:00.00", 3000.0, OBJECT="VANE", CALPOSITION="Vane", **changes),
        spectrum(42, f"{hour}:01:00.00", 1000.0, OBJECT="SKY", **changes),
    ]


def half(second: bool, hour: str = "20", **changes: Any) -> list[Row]:
    word = "PSWITCHOFF" if second else "PSWITCHON"
    pair = {"OBSMODE": f"OnOff:{word}:TPNOCAL", "PROCSEQN": 1 + second, "PROCSIZE": 2, **changes}
    counts, minute = (1000.0, 4) if second else (1100.0, 3)
    return [
        spectrum(43 + second, f"{hour}:{minute:02d}:{10 * d:02d}.00", counts, **pair)
        for d in (0, 1)
    ]


def night() -> list[Row]:
    return loads() + half(False) + half(True)


def table(rows: Sequence[Row], units: Mapping[str, str] = {}) -> Any:
    codes = {"U": "32A", "f": "D", "i": "J"}
    columns = []
    for name in rows[0]:
        values = np.array([r[name] for r in rows])
        code = f"{values.shape[1]}E" if values.ndim == 2 else codes[values.dtype.kind]
        columns.append(fits.Column(name, code, array=values, unit=units.get(name)))
    made = fits.BinTableHDU.from_columns(columns)
    made.header["EXTNAME"] = "SINGLE DISH"
    return made


def saved(path: Path, made: Any) -> Path:
    fits.HDUList([fits.PrimaryHDU(), made]).writeto(path)
    return path


def check(folder: Path, number: int = 43) -> None:
    """The one scan is there with the right numbers."""
    assert calibrate_store(folder / "l0", folder / "l1", CONFIG).exit_code == 0
    store = open_l1(folder / "l1")
    assert store.scans() == [number]
    assert store[number]["t_sys"][...] == pytest.approx(T_SYS, rel=1e-6)
    assert store[number]["spectra"][...] == pytest.approx(0.1 * T_SYS, rel=1e-6)


@pytest.mark.parametrize("lost", [False, True])
def test_a_pair_broken_off_and_observed_again(tmp_path: Path, lost: bool) -> None:
    """The first half of the first try has no second half, also when that one cannot be used."""
    first = half(False, "19", DATA=np.full(24, 7000.0, np.float32))
    if lost:
        first += half(True, "19", CAL="T")
    rows = first + night()
    with pytest.warns(GpucalWarning) as caught:
        report = import_sdfits(saved(tmp_path / "n.fits", table(rows)), tmp_path / "l0")
    said = "scan 43 is the first half of a OnOff without its second: left out."
    assert said in [str(w.message) for w in caught]
    assert report.scans == (41, 100043)
    assert [o.scan for o in report.lost] == ([44] if lost else [])
    check(tmp_path, 100043)


def test_a_sky_hours_after_the_vane_is_not_its_sky(tmp_path: Path) -> None:
    vane, sky = loads()
    sky |= {"DATE-OBS": "2025-02-03T23:00:00.00", "DATA": sky["DATA"] * 2.5}
    rows = [vane, sky, *half(False), *half(True)]
    with pytest.warns(
        GpucalWarning, match="scan 42 looks at the sky, but no vane scan is beside it"
    ):
        import_sdfits(saved(tmp_path / "n.fits", table(rows)), tmp_path / "l0")
    check(tmp_path)


@pytest.mark.parametrize(
    ("unit", "columns", "factor"),
    [
        ("rad", ("ELEVATIO", "AZIMUTH"), np.pi / 180),
        ("arcmin", ("ELEVATIO",), 60.0),
        ("GHz", ("CRVAL1", "CDELT1", "RESTFREQ"), 1e-9),
        ("MHZ", ("CRVAL1", "CDELT1"), 1e-6),
        ("ms", ("EXPOSURE", "DURATION"), 1e3),
        ("hPa", ("PRESSURE",), 101325 / 76000),
        ("km/s", ("VFRAME",), 1e-3),
    ],
)
def test_columns_in_the_unit_that_they_state(
    tmp_path: Path, unit: str, columns: tuple[str, ...], factor: float
) -> None:
    import_sdfits(saved(tmp_path / "right.fits", table(night())), tmp_path / "right")
    rows = [{**r, **{name: r[name] * factor for name in columns}} for r in night()]
    made = table(rows, dict.fromkeys(columns, unit))
    import_sdfits(saved(tmp_path / "n.fits", made), tmp_path / "l0")
    check(tmp_path)
    scan, right = (open_l0(tmp_path / name).load(43)[0] for name in ("l0", "right"))
    assert scan.source is not None
    assert right.source is not None
    for name in ("elevation", "signal_freq", "freq_res", "exptime", "pamb", "mjd"):
        found, expected = (getattr(s.source, name) for s in (scan, right))
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert scan.attrs["velocity_frame_mps"] == pytest.approx(21e3)


def test_air_in_degrees_celsius(tmp_path: Path) -> None:
    rows = [{**r, "TAMBIENT": 5.85} for r in night()]
    made = table(rows, {"TAMBIENT": "degC"})
    import_sdfits(saved(tmp_path / "n.fits", made), tmp_path / "l0")
    source = open_l0(tmp_path / "l0").load(43)[0].source
    assert source is not None
    assert source.tamb == pytest.approx(279.0)


def test_an_unknown_unit_is_one_sentence(tmp_path: Path) -> None:
    path = saved(tmp_path / "n.fits", table(night(), {"ELEVATIO": "turns"}))
    with pytest.raises(ImportFormatError, match="column ELEVATIO in 'turns', expected 'deg'"):
        import_sdfits(path, tmp_path / "l0")


@pytest.mark.parametrize("where", ["column", "keyword", "unit"])
def test_calibrated_spectra_wherever_the_table_says_so(tmp_path: Path, where: str) -> None:
    """TUNIT7 keeps its name where the spectra are not the seventh column."""
    rows = [{**r, "TUNIT7": "Ta"} if where == "column" else r for r in night()]
    made = table(rows, {"DATA": "Jy"} if where == "unit" else {})
    if where == "keyword":
        made.header["BUNIT"] = "K"
    with pytest.raises(ImportFormatError, match=r"unit of DATA is (Ta|K|Jy), expected counts"):
        import_sdfits(saved(tmp_path / "n.fits", made), tmp_path / "l0")
    assert not (tmp_path / "l0").exists()


def test_values_that_nobody_could_read_cost_their_scan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An elevation of 0 with an azimuth is refused by every reader: not written, and said."""
    rows = night() + [
        {
            **r,
            "SCAN": r["SCAN"] + 2,
            "DATE-OBS": r["DATE-OBS"].replace("T20", "T21"),
            "ELEVATIO": 0.0,
        }
        for r in half(False) + half(True)
    ]
    path = saved(tmp_path / "n.fits", table(rows))
    assert main(["import", "sdfits", str(path), str(tmp_path / "l0")]) == 2
    said = capsys.readouterr().err
    assert "not imported: scan 45" in said
    assert "elevation of dump 0 is 0 rad" in said
    check(tmp_path)
    # nothing is left: no store
    path = saved(tmp_path / "m.fits", table([{**r, "ELEVATIO": 0.0} for r in night()]))
    assert main(["import", "sdfits", str(path), str(tmp_path / "m")]) == 1
    assert "elevation of dump 0 is 0 rad" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("how", ["bz2", "xz", "gz"])
def test_packed_files_and_damaged_ones(tmp_path: Path, how: str) -> None:
    pack: Any = {"bz2": bz2.compress, "xz": lzma.compress, "gz": gzip.compress}[how]
    packed = pack(saved(tmp_path / "n.fits", table(night())).read_bytes())
    folder = tmp_path / "session"
    folder.mkdir()
    (folder / f"n.fits.{how}").write_bytes(packed)
    import_sdfits(folder, tmp_path / "l0")
    check(tmp_path)
    (tmp_path / "cut").write_bytes(packed[:-100])
    with pytest.raises(ImportFormatError, match="is compressed, and its end or a part is damaged"):
        import_sdfits(tmp_path / "cut", tmp_path / "cut.l0")


@pytest.mark.parametrize(
    ("begin", "what"),
    [(b"PK\3\4", "zip archive"), (b"\x1f\x9d", "compress"), (b"\x28\xb5\x2f\xfd", "zstd")],
)
def test_other_archives_are_named(tmp_path: Path, begin: bytes, what: str) -> None:
    (tmp_path / "n.fits").write_bytes(begin + bytes(5000))
    with pytest.raises(ImportFormatError, match=rf"is .*{what}.*Unpack it"):
        import_sdfits(tmp_path / "n.fits", tmp_path / "l0")


def test_a_table_of_fpack_is_named(tmp_path: Path) -> None:
    made = table(night())
    made.header["ZTABLE"] = True
    with pytest.raises(ImportFormatError, match=r"compressed with fpack.*funpack"):
        import_sdfits(saved(tmp_path / "n.fits", made), tmp_path / "l0")


def test_a_day_with_the_seconds_beside_it(tmp_path: Path) -> None:
    """DATE-OBS and TIME of the SDFITS convention; a day alone says too little."""
    rows = []
    for r in night():
        day, _, clock = r["DATE-OBS"].partition("T")
        h, m, s = (float(part) for part in clock.split(":"))
        rows.append({**r, "DATE-OBS": day, "TIME": 3600 * h + 60 * m + s})
    import_sdfits(saved(tmp_path / "n.fits", table(rows)), tmp_path / "l0")
    check(tmp_path)
    source = open_l0(tmp_path / "l0").load(43)[0].source
    assert source is not None
    assert source.mjd[0, 0] == pytest.approx(60709 + (20 * 3600 + 185.0) / 86400, abs=1e-9)
    alone = [{k: v for k, v in r.items() if k != "TIME"} for r in rows]
    with pytest.raises(ImportFormatError, match=r"without a time.*cannot be read"):
        import_sdfits(saved(tmp_path / "m.fits", table(alone)), tmp_path / "m")


def test_small_letters_and_a_zone(tmp_path: Path) -> None:
    rows = [
        {**r, "OBSMODE": r["OBSMODE"].lower(), "DATE-OBS": r["DATE-OBS"] + "Z"} for r in night()
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        import_sdfits(saved(tmp_path / "n.fits", table(rows)), tmp_path / "l0")
    check(tmp_path)


def test_banks_whose_stamps_differ_by_a_second_are_one_scan(tmp_path: Path) -> None:
    rows = [
        {
            **r,
            "FDNUM": bank,
            "DATE-OBS": f"{r['DATE-OBS'][:-2]}{40 * bank:02d}",
            "TIMESTAMP": f"2025_02_03_20:{r['DATE-OBS'][14:16]}:0{bank}",
        }
        for bank in (0, 1)
        for r in night()
    ]
    path = saved(tmp_path / "n.fits", table(rows))
    assert import_sdfits(path, tmp_path / "l0").scans == (41, 43)
    check(tmp_path)


def test_flag_files_with_their_columns_in_another_order(tmp_path: Path) -> None:
    path = saved(tmp_path / "n.fits", table(night()))
    head = "#SCAN,IFNUM,FDNUM,PLNUM,RECNUM,INTNUM,ECHAN,BCHAN,IDSTRING"
    (tmp_path / "n.flag").write_text(f"[header]\n[flags]\n{head}\n43|*|*|*|*|1|9|4|a|b\n")
    import_sdfits(path, tmp_path / "l0")
    source = open_l0(tmp_path / "l0").load(43)[0].source
    assert source is not None
    blank = np.isnan(source.counts.read(0, 24, 0)[:, :, 0, 0])
    assert not blank[:, 0].any()
    np.testing.assert_array_equal(np.flatnonzero(blank[:, 1]), np.arange(4, 10))
    (tmp_path / "n.flag").write_text("[flags]\n#SCAN,IFNUM,BEAM\n43|*|*|*|*|1|9|4|a\n")
    with pytest.raises(ImportFormatError, match="line 2: the columns are SCAN, IFNUM, BEAM"):
        import_sdfits(path, tmp_path / "m")


def test_an_imported_session_has_no_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Positions on the sky are no offsets of 36 degrees, and OnOff is a known procedure."""
    import_sdfits(saved(tmp_path / "n.fits", table(night())), tmp_path / "l0")
    assert main(["inspect", str(tmp_path / "l0")]) == 0
    said = "".join(capsys.readouterr())
    assert "problem" not in said
    assert "did you mean" not in said


def test_a_single_channel(tmp_path: Path) -> None:
    rows = [{**r, "DATA": r["DATA"][:1]} for r in night()]
    import_sdfits(saved(tmp_path / "n.fits", table(rows)), tmp_path / "l0")
    check(tmp_path)
