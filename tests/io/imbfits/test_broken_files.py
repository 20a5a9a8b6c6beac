"""Files that are broken in thirty ways and more: one sentence each, and the good scans beside them are imported."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.imbfits import DAY, Night, Tuned, small

from gpucal import GpucalWarning, ImportFormatError, ImportReport, import_raw, main, open_l0

Make = Callable[[int, float, Path], object]
START = small.START
HOUR = 1.0 / 24.0


def night(change: Callable[[Night], object] | None = None, **changes: Any) -> Make:
    """An ON-OFF with another header, or changed by a function."""

    def make(scan: int, start: float, folder: Path) -> None:
        made = small.on_off(scan, start=start, **changes)
        if change is not None:
            change(made)
        made.write(folder)

    return make


def edited(edit: Callable[[Any], object], **changes: Any) -> Make:
    """An ON-OFF whose FITS tables are changed before they are written."""

    def make(scan: int, start: float, folder: Path) -> None:
        made = small.on_off(scan, start=start, **changes)
        units = made.units()
        edit(units)
        units.writeto(folder / made.name())

    return make


def bytes_of(change: Callable[[bytes], bytes]) -> Make:
    def make(scan: int, start: float, folder: Path) -> None:
        path = small.on_off(scan, start=start).write(folder)
        path.write_bytes(change(path.read_bytes()))

    return make


def unit(units: Any, name: str, nth: int = 0) -> Any:
    return [u for u in units if u.name.upper() == name.upper()][nth]


def key(name: str, keyword: str, value: Any, nth: int = 0) -> Make:
    """A keyword set, or taken away with None."""

    def edit(units: Any) -> None:
        header = unit(units, name, nth).header
        if value is None:
            del header[keyword]
        else:
            header[keyword] = value

    return edited(edit)


def values(name: str, column: str, value: Any, nth: int = 0) -> Make:
    return edited(lambda units: unit(units, name, nth).data[column].__setitem__(slice(None), value))


def without_column(name: str, column: str) -> Make:
    def edit(units: Any) -> None:
        from astropy.io import fits

        for k, u in enumerate(units):
            if u.name.upper() == name.upper():
                kept = [c for c in u.columns if c.name != column]
                units[k] = fits.BinTableHDU.from_columns(kept, header=_plain(u.header))

    return edited(edit)


def _plain(header: Any) -> Any:
    from astropy.io.fits import Header

    skip = re.compile(r"T(TYPE|FORM|UNIT|DIM)\d+|TFIELDS|NAXIS\d?|PCOUNT|GCOUNT")
    return Header([c for c in header.cards if not skip.fullmatch(c.keyword)])


def subs(change: Callable[[list[Any]], object], **changes: Any) -> Make:
    return night(lambda n: change(n.subs), **changes)


def each(name: str, value: Any) -> Callable[[list[Any]], object]:
    def change(all_of_them: list[Any]) -> None:
        for s in all_of_them:
            setattr(s, name, value(s))

    return change


def rows(**changes: Any) -> Make:
    return lambda scan, start, folder: small.on_off(
        scan, start=start, rows=small.rows(**changes)
    ).write(folder)


def calibration(scan: int, start: float, folder: Path) -> None:
    made = small.calibration(scan, start=start)
    made.subs = [s for s in made.subs if s.kind != "calAmbient"]
    made.write(folder)


def renamed(scan: int, start: float, folder: Path) -> None:
    path = small.on_off(scan + 400, start=start).write(folder)
    path.rename(folder / path.name.replace(f"s{scan + 400}-", f"s{scan}-"))


def twice(scan: int, start: float, folder: Path) -> None:
    small.on_off(scan, start=start).write(folder)
    (folder / "copy").mkdir()
    small.on_off(scan, start=start).write(folder / "copy")


PRIMARY = "primary"
DATA, ANTENNA, FRONT = "IMBF-backendFTS", "IMBF-antenna", "IMBF-frontend"
NAME = r"iram30m-fts-\d+s\d+-imb.fits"
FAR = each("trace", lambda s: {k: v + (900 / DAY if k == "mjd" else 0) for k, v in s.trace.items()})
BAD = each("phase", lambda s: 0 * s.phase)

BROKEN: dict[str, tuple[Make, str]] = {
    "empty": (bytes_of(lambda b: b""), f"{NAME} is empty"),
    "no FITS": (bytes_of(lambda b: b"hello" + b), f"{NAME} is no FITS file"),
    "cut in a table": (
        bytes_of(lambda b: b[: len(b) - 9000]),
        r"is truncated: its table \d+ \(.*\) ends at byte \d+, the file at byte \d+",
    ),
    "cut in a header": (
        bytes_of(lambda b: b[: 2880 * 3 + 1000]),
        "cannot be read as FITS at its unit",
    ),
    "cut between subscans": (
        night(lambda n: n.primary.update(N_OBSP=9)),
        r"holds 4 subscans, expected 9 \(N_OBSP\)",
    ),
    "rubbish in a header": (
        bytes_of(
            lambda b: re.sub(rb"TFIELDS =  .{19}", b"TFIELDS = 'eleven'            ", b, count=1)
        ),
        "cannot be read as FITS at its unit",
    ),
    "columns do not fill a row": (
        bytes_of(lambda b: re.sub(rb"TFORM1  = 'D ", b"TFORM1  = 'E ", b)),
        r"columns take \d+ bytes, but a row \(NAXIS1\) has \d+",
    ),
    "NIKA": (key(PRIMARY, "IMBFTSVE", "10.2"), "is of NIKA .* a bolometer array"),
    "version unknown": (key(PRIMARY, "IMBFTSVE", "7.1"), "IMBFITS of version '7.1'"),
    "version missing": (key(PRIMARY, "IMBFTSVE", None), "has no IMBFTSVE"),
    "another time system": (key(PRIMARY, "TIMESYS", "TAI"), "counts time in TAI, expected UTC"),
    "no scan table": (night(without=["IMBF-scan"]), "has no table IMBF-scan, but IMBF-frontend"),
    "no frontend": (night(without=["IMBF-frontend"]), "has no table IMBF-frontend"),
    "no backend table": (
        night(without=["IMBF-backend"]),
        "no table with the backend's configuration",
    ),
    "no counts": (night(without=[DATA]), "holds no subscan with counts"),
    "no antenna": (night(without=[ANTENNA]), "has no IMBF-antenna of subscan 1"),
    "renamed": (renamed, r"says that it is scan \d+ \(SCANNUM\), its name says"),
    "there twice": (twice, "is the scan and backend of .* once more"),
    "subscan of another scan": (key(DATA, "SCANNUM", 999, 2), "is of scan 999, the file of scan"),
    "two tables of one subscan": (key(DATA, "OBSNUM", 1, 1), "has two tables .* of subscan 1"),
    "no OBSNUM": (key(DATA, "OBSNUM", None), "has no keyword OBSNUM"),
    "OBSTYPE unknown": (night(primary={"OBSTYPE": "vlbi"}), r"of the kind 'vlbi' \(OBSTYPE\)"),
    "SUBSTYPE unknown": (
        subs(lambda x: setattr(x[0], "kind", "dance")),
        "subscan 1 is of the kind 'dance'",
    ),
    "SUBSTYPE missing": (key(ANTENNA, "SUBSTYPE", None), "has no SUBSTYPE"),
    "switching unknown": (night(switch="magic"), r"switching mode 'magic' \(SWTCHMOD\)"),
    "phases without a switch": (
        subs(lambda x: setattr(x[0], "phase", 2 * x[0].phase), phases=2),
        "dumps of 2 phases .*, but its SWTCHMOD is 'totalPower'",
    ),
    "phase above NPHASES": (subs(each("phase", lambda s: 3 * s.phase)), "ISWITCH is 3, expected 0"),
    "frequency switch without a throw": (
        lambda scan, start, folder: small.night(
            scan,
            "onOff",
            [small.phased(1, "track", [1, 2], (1.0, 2.0), start=start)],
            switch="frequencySwitching",
            phases=2,
        ).write(folder),
        "FRQOFF1 and FRQOFF2 of E230 are 0 or missing",
    ),
    "all dumps bad": (subs(BAD), r"all 6 dumps are marked as bad \(ISWITCH 0\)"),
    "dumps elsewhere": (
        subs(each("middle", lambda s: s.middle + 100 / DAY)),
        "none of its .* good dumps lies in its subscan",
    ),
    "subscan ends before it begins": (
        subs(each("end", lambda s: s.begin - 1 / DAY)),
        "ends .* before it begins",
    ),
    "trace elsewhere": (subs(FAR), r"covers none of its 3 dumps: .* \+899.* --antenna-shift"),
    "trace of NaN": (
        values(ANTENNA, "LONGOFF", np.nan),
        "holds no sample of the .* that could be used",
    ),
    "offsets in arcsec": (
        subs(each("trace", lambda s: s.trace | {"lon": s.trace["lon"] + 5000.0})),
        "LONGOFF is .* expected radians",
    ),
    "elevation in degrees": (
        subs(each("trace", lambda s: s.trace | {"el": 60.0 * s.trace["el"]})),
        "CELEVATIO is 54, expected radians",
    ),
    "below the horizon": (
        subs(each("trace", lambda s: s.trace | {"el": -s.trace["el"]})),
        "elevation of dump 0 is -0.9 rad, expected more than 0",
    ),
    "integration of 0 s": (
        subs(each("exposure", lambda s: -s.exposure)),
        "INTEGTIM of row 1 is -1",
    ),
    "MJD in seconds": (values(DATA, "MJD", 5e9), "MJD of row 1 is 5e.09, expected days"),
    "TSTAMPED of 5": (key(DATA, "TSTAMPED", 5.0), "TSTAMPED is 5, expected 0"),
    "date unreadable": (key(DATA, "DATE-END", "yesterday"), "DATE-END is 'yesterday'"),
    "no DOPPLERC": (subs(each("doppler", lambda s: None)), "has no DOPPLERC, .* doppler_factor"),
    "DOPPLERC of 299": (subs(each("doppler", lambda s: 299.0)), "DOPPLERC of subscan 1 is 299"),
    "no column MJD": (
        without_column(DATA, "MJD"),
        r"has no column MJD, but INTEGTIM, ISWITCH, DATA",
    ),
    "no column DATA": (without_column(DATA, "DATA"), "has no column DATA"),
    "no column LATOFF": (without_column(ANTENNA, "LATOFF"), "has no column LATOFF"),
    "no column RECNAME": (without_column(FRONT, "RECNAME"), "has no column RECNAME"),
    "no column REFFREQ": (without_column("IMBF-backend", "REFFREQ"), "has no column REFFREQ"),
    "CHANNELS": (key(DATA, "CHANNELS", 17), "CHANNELS is 17, but a spectrum of DATA has 16"),
    "sum of channels": (rows(chans=9), r"has 16 channels \(CHANNELS\), but the chunks .* have 18"),
    "too many used": (rows(used=9), "drops 1 channels and uses 9 of 8"),
    "none used": (rows(used=0), "drops 1 channels and uses 0 of 8"),
    "gaps in REFCHAN": (
        night(lambda n: setattr(n.rows[1], "refchan", 12)),
        "chunk 2 begins at channel 12 .* expected 9",
    ),
    "SPACING of 0": (rows(spacing=0.0), "SPACING = 0, expected MHz"),
    "cross products alone": (rows(polar="REAL"), "holds cross products alone"),
    "an unknown receiver": (
        rows(receiver="E999"),
        "receiver 'E999', but the receivers .* are E230",
    ),
    "rest frequency in MHz": (
        night(tuned=Tuned("E230", 230538.0, "LSB", 6250.0)),
        "RESTFREQ of E230 is 230538, expected 40..1500 GHz",
    ),
    "no sideband": (
        night(tuned=Tuned("E230", 230.5, "?", 6250.0), rows=small.rows(band="E2")),
        "the sideband of E230 is not known",
    ),
    "two tunings of a receiver": (
        edited(lambda u: _double(u, FRONT)),
        "which has 2 tunings",
    ),
    "calibration without ambient load": (calibration, "has no calAmbient among its 2 subscans"),
    "another backend": (
        lambda scan, start, folder: small.on_off(scan, start=start, backend="BEST").write(folder),
        "is of the backend 'BEST'",
    ),
}


def _double(units: Any, name: str) -> None:
    from astropy.io import fits

    at = next(k for k, u in enumerate(units) if u.name.upper() == name.upper())
    old = units[at]
    new = fits.BinTableHDU.from_columns(old.columns, nrows=2, header=old.header)
    for column in old.columns.names:
        new.data[column][1] = old.data[column][0]
    new.data["RESTFREQ"][1] = 220.0
    new.name = name
    units[at] = new


NUMBERS = {name: 10 + k for k, name in enumerate(BROKEN)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = tmp_path_factory.mktemp("broken") / "raw"
    raw.mkdir()
    small.calibration().write(raw)
    small.on_off().write(raw)
    for name, (make, _) in BROKEN.items():
        make(NUMBERS[name], START + 600 / DAY + NUMBERS[name] * 120 / DAY, raw)
    return raw


@pytest.fixture(scope="module")
def report(folder: Path) -> ImportReport:
    return import_raw(folder, folder.parent / "l0", format="imbfits")


def test_the_good_scans_are_there_and_the_exit_code_says_that_not_all_are(
    folder: Path, report: ImportReport
) -> None:
    assert report.exit_code == 2
    assert {4, 5} <= set(report.scans)
    partly = {"there twice", "SUBSTYPE missing", "TSTAMPED of 5", "MJD in seconds"}
    partly |= {"trace of NaN", "date unreadable"}
    assert set(report.scans) - {4, 5} <= {NUMBERS[n] for n in partly}
    store = open_l0(folder.parent / "l0")
    assert store.numbers() == sorted(report.scans)
    for number in store.numbers():
        store.load(number)


@pytest.mark.parametrize("name", BROKEN)
def test_one_sentence(name: str, report: ImportReport) -> None:
    number = NUMBERS[name]
    mine = [x for x in report.lost if x.scan == number or f"s{number}-imb" in x.sentence]
    assert mine, f"{name}: nothing is lost"
    said = [x.sentence for x in mine]
    assert any(re.search(BROKEN[name][1], s) for s in said), said
    for sentence in said:
        assert "Traceback" not in sentence
        assert "\n" not in sentence
        assert len(sentence) < 600
    assert len(mine) == 1


def test_nothing_is_written_when_nothing_is_left(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    key(PRIMARY, "IMBFTSVE", "10.2")(7, START, raw)
    out = tmp_path / "l0"
    with pytest.raises(ImportFormatError, match="NIKA"):
        import_raw(raw, out)
    assert not out.exists()


def test_a_file_that_is_cut_while_it_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scan is lost whole; the other one is written."""
    raw = tmp_path / "raw"
    raw.mkdir()
    small.calibration().write(raw)
    path = small.on_off().write(raw)
    from gpucal.io.imbfits import groups

    plain = groups._counts

    def cut(file: Any, *args: Any) -> Any:
        if file.number == 5:
            with open(path, "r+b") as stream:
                stream.truncate(20000)
        return plain(file, *args)

    monkeypatch.setattr(groups, "_counts", cut)
    out = tmp_path / "l0"
    report = import_raw(raw, out)
    assert report.exit_code == 2
    assert "became shorter" in report.lost[0].sentence
    assert open_l0(out).numbers() == [4]


def test_an_interrupted_import_goes_on_and_the_same_again_changes_nothing(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    small.calibration().write(raw)
    import_raw(raw, tmp_path / "l0")
    small.on_off().write(raw)
    report = import_raw(raw, tmp_path / "l0")
    assert (report.scans, report.present) == ((5,), (4,))
    assert import_raw(raw, tmp_path / "l0").present == (4, 5)


@pytest.mark.filterwarnings("ignore::gpucal.GpucalWarning")
def test_the_command_says_it_in_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nika = next(folder.glob(f"*s{NUMBERS['NIKA']}-imb.fits"))
    good = next(folder.glob("*s5-imb.fits"))
    out = folder.parent / "b"
    assert main(["import", "imbfits", str(nika), str(good), str(out)]) == 2
    told = [x for x in capsys.readouterr().err.splitlines() if "not imported" in x]
    assert len(told) == 1
    assert "NIKA" in told[0]
    assert main(["import", "imbfits", str(good), str(out), "--cal", "first"]) == 64
    assert GpucalWarning.__name__ not in capsys.readouterr().err
