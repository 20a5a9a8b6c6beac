"""Logs that are broken in thirty ways and more: one sentence each, and the good log beside them is imported."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import sam45 as build

from gpucal import (
    GpucalWarning,
    ImportFormatError,
    ImportReport,
    import_raw,
    main,
    open_l0,
)

GOOD = (1122060000, 1122060006)
PROFILE = "[sam45]\npixel_offsets = [[0, 0], [0, 0]]\n"
FIRST_DAT = 88 + 8472
Damage = Callable[[Path], object]


def put(layout: str, name: str, form: str, *values: Any, dat: int = 0, at: int = 0) -> Damage:
    """Write values into a field; of dat records number ``dat``; at: item within the field."""
    place = build.offset(layout, name) + at * struct.calcsize("<" + form.lstrip("0123456789")[:1])
    place += {build.CTL: 0, build.OBS: 88, build.DAT: FIRST_DAT + dat * 17064}[layout]

    def damage(path: Path) -> None:
        data = bytearray(path.read_bytes())
        raw = struct.pack("<" + form, *values)
        data[place : place + len(raw)] = raw
        path.write_bytes(data)

    return damage


def in_all(name: str, form: str, *values: Any) -> Damage:
    """The same in every dat record."""

    def damage(path: Path) -> None:
        n = (path.stat().st_size - FIRST_DAT) // 17064
        for k in range(n):
            put(build.DAT, name, form, *values, dat=k)(path)

    return damage


def cut(n: int) -> Damage:
    return lambda path: path.write_bytes(path.read_bytes()[:n])


def start_of(path: Path) -> float:
    """Each broken log begins at a time of its own."""
    number = int(path.stem.rpartition("_")[2] or 0)
    return build.SMALL_START + number * 10 / 1440


def rewritten(kinds: tuple[str, ...] = build.SMALL, **changes: Any) -> Damage:
    return lambda path: build.small_log(kinds, start=start_of(path), **changes).write(path)


def without(*kinds: str) -> Damage:
    """The log without records of these types."""
    return rewritten(tuple(k for k in build.SMALL if k not in kinds))


def twice(path: Path) -> None:
    log = build.small_log(start=start_of(path))
    log.dats.insert(9, log.dats[8])
    log.write(path)


NO_DUMPS = rewritten(obs={"iotf_mode": 1, "diptim": 0.0})
"""An OTF log whose dumps have no length."""
NO_THROW = rewritten(("ZERO", "R", "ON", "OFF"), obs={"isw_mod": 5})
NO_IF = rewritten(
    arrays=[replace(a, sideband="DSB", intermediate=0.0) for a in build.small_arrays()]
)


def repeated(path: Path) -> None:
    """The good log once more, under another name."""
    path.write_bytes((path.parent / "good.sam45").read_bytes())


OBS, DAT, CTL = build.OBS, build.DAT, build.CTL
N_DATS = 2 * len(build.SMALL)

BROKEN: dict[str, tuple[Damage, str]] = {
    "empty": (cut(0), r"bad_\d+.sam45 is empty"),
    "cut in ctl": (cut(50), "its ctl record ends at byte 88, the file at byte 50"),
    "cut in obs": (cut(3000), "its obs record ends at byte 8560, the file at byte 3000"),
    "no dat record": (
        lambda p: p.write_bytes(p.read_bytes()[:FIRST_DAT] + p.read_bytes()[-8:]),
        "holds no dat record",
    ),
    "cut in a dat record": (
        cut(FIRST_DAT + 5 * 17064 + 700),
        "after its 5 whole dat records and 700 bytes the end record .ED. is missing",
    ),
    "cut between records": (
        cut(FIRST_DAT + 5 * 17064),
        "after its 5 whole dat records the end record",
    ),
    "bytes lost in the middle": (
        lambda p: p.write_bytes(p.read_bytes()[:20000] + p.read_bytes()[20100:]),
        "is truncated",
    ),
    "another file": (
        lambda p: p.write_bytes(b"\x93NUMPY\0" + bytes(99999)),
        r"is no SAM45 log: it begins b'\\x93NUM', expected b'L0'",
    ),
    "compressed": (lambda p: p.write_bytes(b"\x1f\x8b\0\0" + bytes(9999)), "is compressed"),
    "big-endian": (put(CTL, "irec_len", "i", int.from_bytes(b"\0\0\0P", "little")), "big-endian"),
    "another backend": (put(CTL, "cbe_type", "8s", b"AC45"), "backend 'AC45', expected 'SAM45'"),
    "another length of ctl": (put(CTL, "irec_len", "i", 81), "says that it is 81 . 8 bytes long"),
    "obs of another type": (
        put(OBS, "crec_type", "4s", b"L7"),
        r"is of type b'L7', expected b'L1'",
    ),
    "another length of obs": (put(OBS, "irec_len", "i", 8000), "is 8000 . 8 bytes long, expected"),
    "dat of another type": (
        put(DAT, "crec_type", "4s", b"XX", dat=5),
        r"the dat .number 5. record at byte 93880 is of type b'XX'",
    ),
    "another length of dat": (put(DAT, "irec_len", "i", 1, dat=2), "dat .number 2. .* is 1 . 8 b"),
    "no array in use": (put(OBS, "iary_usefg", "32B", *[0] * 32), "marks no array as used"),
    "other arrays in use": (
        put(OBS, "iary_usefg", "3B", 0, 0, 1),
        "holds records of A1, A2, but marks A3 as used",
    ),
    "an unknown array": (
        put(DAT, "cary_name", "4s", b"B1", dat=3),
        "dat record 3 is of the array 'B1', expected A1..A32",
    ),
    "an unknown sideband": (put(OBS, "csid_type", "4s", b"???"), r"A1 is of the sideband '\?\?\?'"),
    "too many channels": (
        put(OBS, "ichannel", "i", 5000),
        "A1 has 5000 channels, expected 2..4096",
    ),
    "one point of the axis": (
        put(OBS, "dfqdat_ch", "2d", 4.0, 4.0),
        r"A1 has no frequency axis: channels \[4.0, 4.0\]",
    ),
    "no frequencies": (put(OBS, "dfqdat_fq", "2d", 0.0, 0.0), "A1 has no frequency axis"),
    "NaN as frequency": (put(OBS, "dfqdat_fq", "d", np.nan), "A1 has no frequency axis"),
    "another width": (
        put(OBS, "dbechwid", "d", 2e6),
        "a channel width of 1000000 Hz by .* but of 2000000 Hz by dbechwid",
    ),
    "frequencies in GHz": (
        lambda p: (
            put(OBS, "dfqdat_fq", "4d", 110.19, 110.2, 110.19, 110.2)(p),
            put(OBS, "dbechwid", "2d", 0.01 / 12, 0.01 / 12)(p),
        ),
        "signal_freq is 110.19.*, expected .* Hz; it looks like GHz",
    ),
    "a time that is none": (
        put(DAT, "cint_sttm", "32s", b"2025-13-01", dat=7),
        "cint_sttm of dat record 7 is '2025-13-01', expected YYYYMMDDhhmmss.f",
    ),
    "a time of another year": (
        put(DAT, "cint_sttm", "32s", b"20241121220000", dat=7),
        "dat record 7 is 20241121220000, days away",
    ),
    "all invalid": (in_all("idmy_flag", "B", 1), "none of the 14 records can be used"),
    "no integration": (
        lambda p: [
            in_all(name, form, value)(p)
            for name, form, value in (
                ("dint_stmjd", "d", 0.0),
                ("cint_edtm", "16s", b""),
                ("iinteg_time", "i", 0),
            )
        ],
        "exptime of dump 0 is 0 s",
    ),
    "below the horizon": (
        in_all("dant_real", "2d", 100.0, -3.0),
        "the elevation is not recorded in 5 of 5 dumps",
    ),
    "no ZERO": (without("ZERO"), "holds no ZERO of A1, A2"),
    "no OFF": (without("OFF"), "there is no OFF subscan for ON"),
    "nothing but OFF": (without("ON", "R", "SKY"), "holds neither an ON nor an R, but OFF, ZERO"),
    "an unknown switching mode": (put(OBS, "isw_mod", "B", 3), "isw_mod = 3, expected 1"),
    "faster than light": (
        in_all("dant_vel", "d", 9.9e8),
        "dant_vel is 9.9e.08 m/s, expected at most 1e.08",
    ),
    "OTF without dumps": (NO_DUMPS, "whose dumps last diptim = 0 s"),
    "a record twice": (twice, "array A1 has two ON records at one time, dat record 9"),
    "frequency switching without throw": (NO_THROW, "dsw_freq of A1 is 0 Hz"),
    "double sideband without IF": (NO_IF, "dflif of the DSB array A1 is 0 Hz"),
    "the same log again": (repeated, "holds a scan that began in the same second as one of"),
}
PARTLY = ("no OFF", "frequency switching without throw")
"""The loads of these are imported, as a scan of their own."""
BY_NUMBER = ("no OFF", "frequencies in GHz", "no integration")
"""Their sentences name the scan and not the file."""


def name_of(case: str) -> str:
    return f"bad_{list(BROKEN).index(case):02d}.sam45"


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ImportReport]:
    """All broken logs and a good one in one folder, imported together."""
    folder = tmp_path_factory.mktemp("logs")
    raw = folder / "raw"
    raw.mkdir()
    good = build.mjd("2025-11-22T06:00:00")
    build.small_log(start=good).write(raw / "good.sam45")
    for case, (damage, _) in BROKEN.items():
        path = raw / name_of(case)
        damage(build.small_log(start=start_of(path)).write(path))
    (raw / "site.toml").write_text(PROFILE)
    report = import_raw(raw, folder / "l0", format="sam45", profile=raw / "site.toml")
    return folder, report


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_log_is_one_sentence(imported: tuple[Path, ImportReport], case: str) -> None:
    folder, report = imported
    pattern = BROKEN[case][1]
    said = {lost.reason for lost in report.lost if name_of(case) in lost.sentence}
    if case in BY_NUMBER:
        first = int(build.time_text(start_of(Path(name_of(case))), 0)[4:])
        said = {x.reason for x in report.lost if x.scan and first <= x.scan < first + 100}
    (sentence,) = said
    assert re.search(pattern, sentence), sentence
    assert "\n" not in sentence
    # alone it is an error and nothing is written
    if case not in (*PARTLY, "the same log again"):
        with pytest.raises(ImportFormatError, match=pattern):
            import_raw(
                folder / "raw" / name_of(case),
                folder / "alone",
                format="sam45",
                profile=folder / "raw" / "site.toml",
            )
        assert not (folder / "alone").exists()


def test_the_good_log_beside_them_is_imported(imported: tuple[Path, ImportReport]) -> None:
    folder, report = imported
    assert report.exit_code == 2
    assert set(GOOD) <= set(report.scans)
    assert len(report.scans) == len(GOOD) + len(PARTLY)
    assert open_l0(folder / "l0").numbers() == sorted(report.scans)
    for number in report.scans:
        open_l0(folder / "l0").load(number)
    assert sorted(p.name for p in folder.iterdir()) == ["l0", "raw"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "raw"
    place.mkdir()
    build.small_log(start=build.mjd("2025-11-22T06:00:00")).write(place / "good.sam45")
    build.small_log().write(place / "bad_0.sam45")
    (place / "site.toml").write_text(PROFILE)
    return place


def test_the_command_says_what_is_lost(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut(3000)(folder / "bad_0.sam45")
    out = folder.parent / "l0"
    args = [str(folder), str(out), "--profile", str(folder / "site.toml")]
    assert main(["import", "sam45", *args]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("not imported: ")]
    assert "bad_0.sam45 is truncated: its obs record ends" in line
    assert main(["import", "sam45", str(folder / "bad_0.sam45"), str(out)]) == 1


def test_there_are_thirty_and_more() -> None:
    assert len(BROKEN) >= 30


def test_a_log_cut_short_is_taken_as_far_as_it_goes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut(FIRST_DAT + 12 * 17064 + 700)(folder / "bad_0.sam45")
    out = folder.parent / "l0"
    args = [str(folder / "bad_0.sam45"), str(out), "--profile", str(folder / "site.toml")]
    assert main(["import", "sam45", *args, "--partial"]) == 0
    assert "cut short" in " ".join(capsys.readouterr().out.split())
    source = open_l0(out).load(1121210006)[0].source
    assert source is not None
    assert source.sobsmode == ("OFF", "ON")


def test_a_log_that_shrinks_while_it_is_read_costs_its_scan(folder: Path) -> None:
    from gpucal.io.incoming import one_way

    out = folder.parent / "l0"
    found = one_way.recognise([folder], "sam45")
    request = one_way.request_of(found, profile=folder / "site.toml")
    plan = one_way.planned(found, request)
    cut(FIRST_DAT + 4 * 17064)(folder / "bad_0.sam45")
    report = one_way.landed(found.format, plan, out)
    assert [lost.scan for lost in report.lost] == [1121210000, 1121210006]
    assert "became shorter while it was read" in report.lost[0].sentence
    assert open_l0(out).numbers() == list(GOOD)
    assert not (folder.parent / "l0.staging").exists()


def test_texts_named_sam45_are_no_logs(folder: Path) -> None:
    (folder / "notes_sam45.txt").write_text("observed with sam45\n")
    (folder / "sam45.ant").write_text("# antenna log\n")
    report = import_raw(folder, folder.parent / "l0", format="sam45", profile=folder / "site.toml")
    assert report.exit_code == 0
    assert len(report.scans) == 4


def test_calibrating_without_loads_fails_for_that_scan_alone(folder: Path) -> None:
    without("R")(folder / "bad_0.sam45")
    with pytest.warns(GpucalWarning) as told:
        report = import_raw(
            folder, folder.parent / "l0", format="sam45", profile=folder / "site.toml"
        )
    assert report.exit_code == 0
    assert any("holds no R" in str(w.message) for w in told)
