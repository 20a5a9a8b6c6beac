"""Scans that are broken in thirty ways and more: one sentence each, and the good scans beside them are imported."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.mbfits import DAY, MbScan, small

from gpucal import ImportFormatError, ImportReport, import_raw, main, open_l0

Make = Callable[[int, float, Path], object]
START = small.START


def scan(change: Callable[[MbScan], object] | None = None, **changes: Any) -> Make:
    """An ON-OFF with other headers, or changed by a function."""

    def make(number: int, start: float, folder: Path) -> None:
        made = small.on_off(number, start=start, **changes)
        if change is not None:
            change(made)
        made.write(folder)

    return make


def edited(edit: Callable[[Any], object], **changes: Any) -> Make:
    """An ON-OFF in one file whose FITS tables are changed before they are written."""

    def make(number: int, start: float, folder: Path) -> None:
        from astropy.io import fits

        made = small.on_off(number, start=start, **changes)
        units = fits.HDUList([made.primary(), *(m[4] for m in made.members())])
        edit(units)
        units.writeto(folder / f"{made.name()}.fits")

    return make


def bytes_of(change: Callable[[bytes], bytes]) -> Make:
    def make(number: int, start: float, folder: Path) -> None:
        path = small.on_off(number, start=start).write(folder)
        path.write_bytes(change(path.read_bytes()))

    return make


def folder_of(change: Callable[[Path], object]) -> Make:
    """An ON-OFF as a folder that is changed after it is written."""

    def make(number: int, start: float, folder: Path) -> None:
        change(small.on_off(number, start=start).write(folder, grouped=True))

    return make


def unit(units: Any, name: str, nth: int = 0) -> Any:
    wanted = name if name == "PRIMARY" else f"{name}-MBFITS"
    return [u for u in units if u.name.upper() == wanted][nth]


def key(name: str, keyword: str, value: Any, nth: int = 0) -> Make:
    """A keyword set, or taken away with None."""

    def edit(units: Any) -> None:
        header = unit(units, name, nth).header
        if value is None:
            del header[keyword]
        else:
            header[keyword] = value

    return edited(edit)


def values(name: str, column: str, value: Any) -> Make:
    """A column of all tables of that name set to a value."""

    def edit(units: Any) -> None:
        for u in units:
            if u.name.upper() == f"{name}-MBFITS":
                u.data[column][...] = value

    return edited(edit)


def without_column(name: str, column: str) -> Make:
    def edit(units: Any) -> None:
        from astropy.io import fits

        skip = re.compile(r"T(TYPE|FORM|UNIT|DIM)\d+|TFIELDS|NAXIS\d?|PCOUNT|GCOUNT|THEAP")
        for k, u in enumerate(units):
            if u.name.upper() == f"{name}-MBFITS":
                kept = [c for c in u.columns if c.name != column]
                header = fits.Header([c for c in u.header.cards if not skip.fullmatch(c.keyword)])
                units[k] = fits.BinTableHDU.from_columns(kept, header=header)

    return edited(edit)


def subs(change: Callable[[Any], object], **changes: Any) -> Make:
    """All subscans changed by a function."""
    return scan(lambda made: [change(s) for s in made.subs], **changes)


def pointing(**columns: Any) -> Make:
    return subs(lambda s: s.__dict__.update(columns))


def band(**cards: Any) -> Make:
    """Keywords of the axis; the x before them is taken off."""
    plain = {k.removeprefix("x"): v for k, v in cards.items()}
    return scan(febes=[small.febe(bands=[small.baseband(cards=plain)])])


def febe(**columns: Any) -> Make:
    return scan(febes=[small.febe(columns=columns)])


def calibration(number: int, start: float, folder: Path) -> None:
    made = small.calibration(number, start=start)
    made.subs = [s for s in made.subs if s.kind != "HOT"]
    made.write(folder)


def twice(number: int, start: float, folder: Path) -> None:
    made = small.on_off(number, start=start)
    made.write(folder)
    (folder / f"copy{number}").mkdir()
    made.write(folder / f"copy{number}")


def two_of(name: str) -> Make:
    return edited(lambda units: units.append(unit(units, name).copy()))


def switched(**changes: Any) -> Make:
    def make(number: int, start: float, folder: Path) -> None:
        subs = [small.phased(1, [1, 2, 1, 2], (1.0, 2.0), start=start)]
        small.scan(number, "ONOFF", subs, **changes).write(folder)

    return make


def heap(data: bytes) -> bytes:
    """The place of the first values of variable length in MONITOR-MBFITS, moved out of the table."""
    at = data.index(b"MONITOR-MBFITS")
    begin = data.index(b"END" + 77 * b" ", at)
    begin += -(-(begin + 80) // 2880) * 2880 - begin
    place = begin + 8 + 30 + 4
    return data[:place] + (10**6).to_bytes(4, "big") + data[place + 4 :]


ARRAY, PARS, SCAN, FEBEPAR = "ARRAYDATA", "DATAPAR", "SCAN", "FEBEPAR"
NAME = r"APEX-\d+-[\d-]+-T-087.F-0001"

BROKEN: dict[str, tuple[Make, str]] = {
    "cut in a table": (
        bytes_of(lambda b: b[: len(b) - 2800]),
        r"is truncated: its table \d+ \(.*\) ends at byte \d+, the file at byte \d+",
    ),
    "cut in a header": (
        bytes_of(lambda b: b[: len(b) - 2880 - 1440]),
        "cannot be read as FITS at its unit",
    ),
    "rubbish in a header": (
        bytes_of(lambda b: re.sub(rb"TFIELDS =  .{19}", b"TFIELDS = 'eleven'            ", b, count=1)),
        "cannot be read as FITS at its unit",
    ),
    "columns do not fill a row": (
        bytes_of(lambda b: re.sub(rb"TFORM1  = 'D ", b"TFORM1  = 'E ", b)),
        r"columns take \d+ bytes, but a row \(NAXIS1\) has \d+",
    ),
    "values outside the heap": (bytes_of(heap), r"row 1 of MONVALUE lies at bytes 1000000 to"),
    "version unknown": (scan(version="3.1"), "is MBFITS of version '3.1', expected 1.57"),
    "version missing": (scan(first={"MBFTSVER": None}), "has no MBFTSVER"),
    "another time system": (scan(system="TDB"), r"counts time in 'TDB' \(TIMESYS\)"),
    "time system missing": (
        scan(head={"TIMESYS": None}, first={"TIMESYS": None}),
        "has no TIMESYS, .* may be 37 s off. Set time_system",
    ),
    "no scan table": (scan(without=["SCAN-MBFITS"]), "has no table SCAN-MBFITS"),
    "two scan tables": (two_of(SCAN), "has 2 of them, expected one table SCAN-MBFITS"),
    "no FEBEPAR": (scan(without=["FEBEPAR-MBFITS"]), "has no table FEBEPAR-MBFITS"),
    "no counts": (scan(without=["ARRAYDATA-MBFITS"]), "holds no counts"),
    "no DATAPAR": (scan(without=["DATAPAR-MBFITS"]), "a subscan 1 whose kind is not told"),
    "counts of another receiver": (key(ARRAY, "FEBE", "LASMA-FFTS1"), r"has counts of 'LASMA-FFTS1'"),
    "subscan of another scan": (key(ARRAY, "SCANNUM", 999), "is of scan 999, SCAN-MBFITS of scan"),
    "two tables of one subscan": (two_of(PARS), "has two tables DATAPAR-MBFITS of subscan 1"),
    "two tables of counts": (two_of(ARRAY), "two tables ARRAYDATA-MBFITS of subscan 1 .* baseband 1"),
    "subscans without a number": (
        edited(lambda units: [u.header.update(OBSNUM=0) for u in units if "OBSNUM" in u.header]),
        "has neither OBSNUM nor SUBSNUM above 0",
    ),
    "there twice": (twice, "is the scan of .* once more"),
    "kind unknown": (subs(lambda s: s.__dict__.update(kind="DANCE")), "whose kind is 'DANCE'"),
    "all aborted": (
        subs(lambda s: s.pars.update(OBSTATUS="ABORT")),
        "has no subscan that was not aborted",
    ),
    "no column MJD": (without_column(ARRAY, "MJD"), "has no column MJD, but DATA"),
    "no column DATA": (without_column(ARRAY, "DATA"), "has no column DATA, but MJD"),
    "no column INTEGTIM": (without_column(PARS, "INTEGTIM"), "has no column INTEGTIM"),
    "no column LONGOFF": (without_column(PARS, "LONGOFF"), "has no column LONGOFF"),
    "no column USEFEED": (
        scan(lambda made: [s.data.update({k: np.tile(v, (1, 2, 1)) for k, v in s.data.items()}) for s in made.subs]),
        r"holds 2 spectra, but USEFEED is \[1\]",
    ),
    "CHANNELS": (key(ARRAY, "CHANNELS", 7), "DATA holds 6 numbers, expected CHANNELS x NUSEFEED = 7 x 1"),
    "NUSEFEED": (key(ARRAY, "NUSEFEED", 2), "expected CHANNELS x NUSEFEED = 6 x 2"),
    "CHANNELS missing": (key(ARRAY, "CHANNELS", None), "has no keyword CHANNELS"),
    "dumps elsewhere": (
        subs(lambda s: s.columns.update(MJD=("D", s.middle + 100 / DAY))),
        "none of its 4 rows has the time .* the nearest is",
    ),
    "MJD of 0": (values(ARRAY, "MJD", 0.0), "MJD of its first row is 0, expected days"),
    "MJD backwards": (
        subs(lambda s: s.__dict__.update(middle=s.middle[::-1].copy())),
        "MJD of row 2 is 1.000 s before",
    ),
    "integration of 0 s": (values(PARS, "INTEGTIM", 0.0), "INTEGTIM of row 1 is 0, expected s above 0"),
    "integration blank": (values(PARS, "INTEGTIM", -999.0), "none of its 3 rows has MJD and INTEGTIM"),
    "offsets in arcsec": (pointing(lon=720.0), "LONGOFF is 720, expected deg of at most 90"),
    "elevation in radians": (pointing(el=0.9), "ELEVATIO is 0.9, expected deg; it looks like radians"),
    "below the horizon": (pointing(el=-40.0), "elevation of dump 0 is -0.69"),
    "PHASE of 12": (pointing(phase=12), "PHASE is 12, expected 1 to NPHASES"),
    "phases without a switch": (switched(), "is it a noise diode"),
    "frequency switch without a throw": (
        switched(head={"PHASE1": "FLO", "PHASE2": "FHI"}),
        "FRTHRWLO and FRTHRWHI of HET345-XFFTS2 are 0 or missing",
    ),
    "no axis": (band(x1CRVL2S=0.0, x1CRVL2F=0.0), "has no axis, .* bolometer or continuum"),
    "frequency in GHz": (band(x1CRVL2S=345.8), "1CRVL2S is 345.8 Hz, expected"),
    "axis of velocities": (band(x1CUNI2S="km/s"), r"is 'KM/S' \(1CUNI2S\), expected Hz"),
    "rest and sky apart": (band(x1CRVL2F=1e10), "expected about the same"),
    "reference pixel missing": (band(x1CRPX2S=None), "has 1CRVL2S, but no 1CRPX2S"),
    "feed offsets in arcsec": (
        scan(febes=[small.febe(feeds=(1, 2), offsets=((0.0, 0.0), (20.0, 0.0)))], sub={"feeds": 2}),
        "a feed is 20 from the reference .* looks like arcsec",
    ),
    "a feed that is not there": (
        febe(USEFEED=("1J", [[4]])),
        r"feed 4 is in use \(USEFEED\), but FEEDOFFX has 1 feeds",
    ),
    "DATA scaled": (key(ARRAY, "TSCAL2", 2.0), r"DATA is scaled \(TSCAL2, TZERO2\)"),
    "calibration without a hot load": (calibration, "has no HOT among its 2 subscans of loads"),
    "a member that is damaged": (
        folder_of(lambda p: (p / "SCAN.fits").write_bytes(b"hello")),
        "SCAN.fits is no FITS file",
    ),
    "a member that is missing": (
        folder_of(lambda p: (p / f"{small.NAME}-FEBEPAR.fits").unlink()),
        "lists HET345-XFFTS2-FEBEPAR.fits, which is not there",
    ),
    "GROUPING empty": (
        folder_of(lambda p: (p / "GROUPING.fits").write_bytes(b"")),
        "GROUPING.fits is empty",
    ),
}  # fmt: skip

NUMBERS = {name: 10 + k for k, name in enumerate(BROKEN)}
PARTLY = {"there twice", "counts of another receiver"}
"""Broken in a part: the rest of the scan is imported."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = tmp_path_factory.mktemp("broken") / "raw"
    raw.mkdir()
    small.calibration().write(raw)
    small.on_off().write(raw, grouped=True)
    for name, (make, _) in BROKEN.items():
        make(NUMBERS[name], START + 600 / DAY + NUMBERS[name] * 120 / DAY, raw)
    return raw


@pytest.fixture(scope="module")
def report(folder: Path) -> ImportReport:
    return import_raw(folder, folder.parent / "l0", format="mbfits")


def test_the_good_scans_are_there_and_the_exit_code_says_that_not_all_are(
    folder: Path, report: ImportReport
) -> None:
    assert len(BROKEN) > 30
    assert report.exit_code == 2
    assert {4, 5} <= set(report.scans)
    partly = {NUMBERS[n] for n in BROKEN if NUMBERS[n] in report.scans}
    names = {n for n in BROKEN if NUMBERS[n] in partly}
    told = {n for n in names if any(x.scan == NUMBERS[n] for x in report.lost)}
    assert names == told
    store = open_l0(folder.parent / "l0")
    assert store.numbers() == sorted(report.scans)
    for number in store.numbers():
        store.load(number, partial=True)


@pytest.mark.parametrize("name", BROKEN)
def test_one_sentence(name: str, report: ImportReport) -> None:
    number = NUMBERS[name]
    mine = [x for x in report.lost if x.scan == number or f"/APEX-{number}-" in x.sentence]
    assert mine, f"{name}: nothing is lost"
    said = [x.sentence for x in mine]
    assert any(re.search(BROKEN[name][1], s) for s in said), said
    for sentence in said:
        assert "Traceback" not in sentence
        assert "\n" not in sentence
        assert len(sentence) < 600
    # what is wrong in all subscans is said of each
    assert len(mine) <= 3


def test_nothing_is_written_when_nothing_is_left(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    scan(version="3.1")(7, START, raw)
    out = tmp_path / "l0"
    with pytest.raises(ImportFormatError, match=r"version '3\.1'"):
        import_raw(raw, out)
    assert not out.exists()


@pytest.mark.parametrize("grouped", [False, True])
def test_a_file_that_is_cut_while_it_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grouped: bool
) -> None:
    """The scan is lost whole; the other one is written."""
    raw = tmp_path / "raw"
    raw.mkdir()
    small.calibration().write(raw)
    path = small.on_off().write(raw, grouped)
    from gpucal.io.mbfits import counts, groups

    plain = counts.counts_of

    def cut(dataset: Any, unit: Any, *args: Any) -> Any:
        if dataset.number == 5:
            with open(unit.path, "r+b") as stream:
                stream.truncate(unit.start + 10)
        return plain(dataset, unit, *args)

    monkeypatch.setattr(groups, "counts_of", cut)
    out = tmp_path / "l0"
    report = import_raw(raw, out)
    assert path.exists()
    assert report.exit_code == 2
    assert "became shorter" in report.lost[0].sentence
    assert open_l0(out).numbers() == [4]


def test_an_interrupted_import_goes_on_and_the_same_again_changes_nothing(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    small.calibration().write(raw)
    import_raw(raw, tmp_path / "l0")
    small.on_off().write(raw, grouped=True)
    report = import_raw(raw, tmp_path / "l0")
    assert (report.scans, report.present) == ((5,), (4,))
    assert import_raw(raw, tmp_path / "l0").present == (4, 5)


@pytest.mark.filterwarnings("ignore::gpucal.GpucalWarning")
def test_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = next(folder.glob(f"APEX-{NUMBERS['version unknown']}-*"))
    good = next(folder.glob("APEX-5-*"))
    out = folder.parent / "b"
    assert main(["import", "auto", str(good), str(out), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert not out.exists()
    for word in ("ONOFF", "HET345-XFFTS2", "no calibration scan"):
        assert word in shown, shown
    assert main(["import", "mbfits", str(bad), str(good), str(out)]) == 2
    told = [x for x in capsys.readouterr().err.splitlines() if "not imported" in x]
    assert len(told) == 1
    assert "version '3.1'" in told[0]
    assert main(["import", "mbfits", str(good), str(out), "--cal", "first"]) == 64
