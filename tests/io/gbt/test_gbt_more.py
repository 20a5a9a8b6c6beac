"""GBT import: flag files, interruption, memory, loads without numbers, noise diode, many banks."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.gbt import N_CHAN, Row, nod, row, vane, write_table
from builders.groups import source_of
from numpy.typing import NDArray
from typer.testing import CliRunner

from gpucal import (
    ConfigError,
    GpucalWarning,
    ImportFormatError,
    L0Error,
    import_sdfits,
    load_config,
    main,
    open_l0,
    write_l0_scan,
)
from gpucal.io.gbt.flags import flagged_channels, integration_numbers, read_flags
from gpucal.io.incoming import landing
from gpucal.io.incoming.draft import resumable

pytest.importorskip("astropy.io.fits")

HEAD = """[header]
created = Wed Jan  5 16:48:37 2022
version = 1.0
created_by = sdfits
[flags]
#RECNUM,SCAN,INTNUM,PLNUM,IFNUM,FDNUM,BCHAN,ECHAN,IDSTRING
"""


@pytest.fixture(autouse=True)
def _no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Syncing the whole file system takes seconds on a busy machine and changes no result."""
    for place in ("incoming.landing", "incoming.draft"):
        monkeypatch.setattr(f"gpucal.io.{place}.sync_tree", lambda path: None)


def counts_of(group: Any) -> NDArray[Any]:
    return np.stack([group.counts.read(0, group.shape[0], s) for s in range(group.shape[4])], -1)


def science(store: Path, number: int = 5) -> NDArray[Any]:
    return counts_of(open_l0(store).load(number)[0].source)


# --- flags ---------------------------------------------------------------------------------------


def with_flags(
    tmp_path: Path, *rules: str, rows: list[Row] | None = None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """A file with flags beside it, imported; counts of scan 5 without and with them."""
    file = write_table(tmp_path / "bank.fits", rows or vane() + nod())
    file.with_suffix(".flag").write_text(HEAD + "\n".join(rules) + "\n")
    import_sdfits([file], tmp_path / "raw.zarr", flags=False)
    import_sdfits([file], tmp_path / "flagged.zarr")
    return science(tmp_path / "raw.zarr"), science(tmp_path / "flagged.zarr")


def differing(raw: NDArray[Any], flagged: NDArray[Any]) -> NDArray[Any]:
    """Where counts became NaN; all others are as they were."""
    bad = np.isnan(flagged)
    np.testing.assert_array_equal(raw[~bad], flagged[~bad])
    return np.asarray(bad)


@pytest.mark.parametrize(
    ("rule", "where"),
    [  # index [channel, dump, receiver, pixel, subscan]; feeds 3 and 7 are pixels 0 and 1
        ("*|5|*|*|*|*|*|*|whole scan", np.s_[..., 0]),
        ("*|5|1|*|*|*|*|*|one integration", np.s_[:, 1, :, :, 0]),
        ("*|6|*|*|*|7|3|5|VEGAS_SPUR", np.s_[3:6, :, :, 1, 1]),
        ("*|5:6|*|0|0|3|14|*|open end", np.s_[14:, :, :, 0, :]),
        ("*|:5|:0|*|*|3|*|1|open beginning", np.s_[:2, 0, :, 0, 0]),
        ("*|5,6|*|*|*|3,7|2,9|2,9|two channels", np.s_[[2, 9]]),
        ("4|*|*|*|*|*|*|*|the fifth row of the file", np.s_[:, 0, :, 0, 0]),
        ("*|5|*|*|*|*|1000|2000|beyond the spectrum", np.s_[:0]),
        ("*|5|*|1|*|*|*|*|a polarisation that is not there", np.s_[:0]),
        ("* | 5 | * | * | * | 3 | 3.0 | 4 | spaces", np.s_[3:5, :, :, 0, 0]),
    ],
)
def test_flags_become_nan(tmp_path: Path, rule: str, where: Any) -> None:
    raw, flagged = with_flags(tmp_path, rule)
    expected = np.zeros(raw.shape, dtype=bool)
    expected[where] = True
    np.testing.assert_array_equal(differing(raw, flagged), expected)


def test_flags_add_up_and_are_counted(tmp_path: Path) -> None:
    raw, flagged = with_flags(tmp_path, "*|5|0|*|*|3|0|1|a", "*|5|0|*|*|3|1|2|b", "")
    assert np.nonzero(differing(raw, flagged)[:, 0, 0, 0, 0])[0].tolist() == [0, 1, 2]
    attrs = open_l0(tmp_path / "flagged.zarr").load(5)[0].attrs
    assert attrs["flagged_spectra"] == 1
    assert "flagged_spectra" not in open_l0(tmp_path / "raw.zarr").load(5)[0].attrs


def test_integer_spectra_with_flags_become_floating_point(tmp_path: Path) -> None:
    rows = [{**r, "DATA": r["DATA"].astype("i4")} for r in vane() + nod()]
    file = tmp_path / "bank.fits"
    from astropy.io import fits

    write_table(file, vane() + nod())
    with fits.open(file, mode="update") as hdus:
        table = hdus[1]
        columns = [c for c in table.columns if c.name != "DATA"]
        spectra = fits.Column("DATA", f"{N_CHAN}J", array=np.stack([r["DATA"] for r in rows]))
        hdus[1] = fits.BinTableHDU.from_columns([*columns, spectra], header=table.header)
    file.with_suffix(".flag").write_text(HEAD + "*|6|*|*|*|*|3|3|one channel\n")
    import_sdfits([file], tmp_path / "raw.zarr", flags=False)
    import_sdfits([file], tmp_path / "flagged.zarr")
    raw, flagged = science(tmp_path / "raw.zarr"), science(tmp_path / "flagged.zarr")
    assert (raw.dtype, flagged.dtype) == (np.dtype(np.int32), np.dtype(np.float64))
    expected = np.zeros(raw.shape, dtype=bool)
    expected[3, ..., 1] = True
    np.testing.assert_array_equal(differing(raw, flagged), expected)


def test_each_bank_has_its_own_flags(tmp_path: Path) -> None:
    """RECNUM counts the rows of one file, and rules hold for that file alone."""
    rows = vane() + nod()
    banks = [
        write_table(tmp_path / f"bank{f}.fits", [r for r in rows if r["FDNUM"] == f])
        for f in (3, 7)
    ]
    banks[1].with_suffix(".flag").write_text(HEAD + "2|*|*|*|*|*|*|*|first row of scan 5\n")
    import_sdfits(banks, tmp_path / "night.zarr")
    expected = np.zeros((N_CHAN, 2, 1, 2, 2), dtype=bool)
    expected[:, 0, 0, 1, 0] = True
    np.testing.assert_array_equal(np.isnan(science(tmp_path / "night.zarr")), expected)


def test_integration_numbers_count_each_output_in_time() -> None:
    keys = ("SCAN", "IFNUM", "PLNUM", "FDNUM", "SIG", "CAL")
    rows = [
        (5, 0, 0, 0, "T", "F", 2.0),
        (5, 0, 0, 0, "T", "F", 1.0),
        (5, 0, 0, 0, "F", "F", 1.5),
        (5, 0, 1, 0, "T", "F", 9.0),
        (6, 0, 0, 0, "T", "F", 3.0),
        (5, 0, 0, 0, "T", "F", 7.0),
    ]
    columns = {k: np.array([r[i] for r in rows]) for i, k in enumerate((*keys, "MJD"))}
    assert integration_numbers(columns).tolist() == [1, 0, 0, 0, 0, 2]


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("nothing\n", r"has no line \[flags\]"),
        (HEAD + "*|5|*|*|3|3|spur\n", "line 7 has 7 columns, expected 9"),
        (HEAD + "*|five|*|*|*|*|3|3|spur\n", r"line 7 cannot be understood \(.*five"),
        (HEAD + "*|5|*|*|*|*|3,4,5|3|spur\n", "3 first and 1 last channels"),
        (HEAD + "*|5|*|*|*|*|-3|3|spur\n", "'-3' is no number from 0 on"),
        (HEAD.replace("BCHAN,ECHAN", "BCHAN,LAST"), "line 6: the columns are RECNUM, SCAN"),
    ],
)
def test_a_malformed_flag_file_is_one_sentence(tmp_path: Path, text: str, pattern: str) -> None:
    file = write_table(tmp_path / "bank.fits", vane() + nod())
    file.with_suffix(".flag").write_text(text)
    with pytest.raises(ImportFormatError, match=pattern):
        import_sdfits([file], tmp_path / "night.zarr")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bank.fits", "bank.flag"]
    assert import_sdfits([file], tmp_path / "night.zarr", flags=False).scans == (
        2,
        5,
    )


def test_rules_are_read_and_files_without_flags_have_none(tmp_path: Path) -> None:
    path = tmp_path / "bank.flag"
    path.write_text(HEAD + "*|6|*|*|2|0|3072,9|3072,12|VEGAS_SPUR\n")
    (rule,) = read_flags(path)
    assert dict(rule.select) == {
        "SCAN": ((6, 6),),
        "IFNUM": ((2, 2),),
        "FDNUM": ((0, 0),),
    }
    assert rule.channels == ((3072, 3072), (9, 12))
    assert rule.reason == "VEGAS_SPUR"
    columns = {
        k: np.zeros(2, int) for k in ("SCAN", "IFNUM", "PLNUM", "FDNUM", "SIG", "CAL", "MJD")
    }
    assert flagged_channels([(tmp_path / "other.fits", np.arange(2))], columns) == ({}, [])


# --- interrupted ---------------------------------------------------------------------------------


def night_of_nods(path: Path, numbers: Sequence[int] = (5, 8, 11)) -> Path:
    rows = vane()
    for n in numbers:
        rows += nod(n)
    return write_table(path, rows)


def interrupt_at(
    monkeypatch: pytest.MonkeyPatch,
    number: int | None,
    error: BaseException | type[BaseException] = KeyboardInterrupt,
) -> list[int]:
    """Let ``write_l0_scan`` stop when it is to write a scan; returns the numbers it was given."""
    original, seen = write_l0_scan, list[int]()

    def write(store: Path, n: int, **options: Any) -> None:
        seen.append(n)
        if n == number:
            raise error
        original(store, n, **options)

    monkeypatch.setattr(landing, "write_l0_scan", write)
    return seen


def content(store: Path) -> dict[str, bytes]:
    files = (p for p in Path(store).rglob("*") if p.is_file())
    return {p.relative_to(store).as_posix(): p.read_bytes() for p in files}


def test_an_interrupted_import_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = night_of_nods(tmp_path / "bank.fits")
    whole, out = tmp_path / "whole.zarr", tmp_path / "night.zarr"
    import_sdfits([file], whole)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 8)
        with pytest.raises(KeyboardInterrupt):
            import_sdfits([file], out)
    assert not out.exists()
    waiting = tmp_path / "night.zarr.importing"
    half = waiting / "night.zarr" / "scan_000008" / "source"  # as a kill would leave it
    half.mkdir(parents=True)
    seen = interrupt_at(monkeypatch, None)
    assert import_sdfits([file], out).scans == (
        2,
        5,
        8,
        11,
    )
    assert seen == [8, 11]
    assert content(out) == content(whole)
    assert not waiting.exists()


def test_other_input_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "night.zarr"
    with monkeypatch.context() as patch:
        interrupt_at(patch, 8)
        with pytest.raises(KeyboardInterrupt):
            import_sdfits([night_of_nods(tmp_path / "bank.fits")], out)
    (tmp_path / "bank.fits").unlink()
    file = night_of_nods(tmp_path / "bank.fits", (5, 8))
    seen = interrupt_at(monkeypatch, None)
    assert import_sdfits([file], out).scans == (
        2,
        5,
        8,
    )
    assert seen == [2, 5, 8]
    assert open_l0(out).numbers() == [2, 5, 8]


def test_other_options_begin_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan written with one band must not count as done when all are wanted."""
    out, file = tmp_path / "night.zarr", night_of_nods(tmp_path / "bank.fits", (5, 8))
    with monkeypatch.context() as patch:
        interrupt_at(patch, 8)
        with pytest.raises(KeyboardInterrupt):
            import_sdfits([file], out, bands=[0])
    seen = interrupt_at(monkeypatch, None)
    assert import_sdfits([file], out).scans == (2, 5, 8)
    assert seen == [2, 5, 8]


def test_a_kill_while_the_draft_is_cleared_loses_no_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first input comes back after a run with another one was killed at the worst moment."""
    first, other = night_of_nods(tmp_path / "a.fits"), night_of_nods(tmp_path / "b.fits", (5, 8))
    whole, out = tmp_path / "whole.zarr", tmp_path / "night.zarr"
    import_sdfits([first], whole)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 8)
        with pytest.raises(KeyboardInterrupt):
            import_sdfits([first], out)
    with monkeypatch.context() as patch:
        remove = shutil.rmtree

        def killed(path: Any, **options: Any) -> None:
            remove(path, **options)
            raise KeyboardInterrupt

        patch.setattr(shutil, "rmtree", killed)
        # the data before the list of what is done
        patch.setattr(Path, "iterdir", lambda p: iter(sorted(p.glob("*"), key=Path.is_file)))
        with pytest.raises(KeyboardInterrupt):
            import_sdfits([other], out)
    assert import_sdfits([first], out).scans == (
        2,
        5,
        8,
        11,
    )
    assert content(out) == content(whole)


@pytest.mark.parametrize("there", [False, True])
def test_a_kill_right_after_the_store_is_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """What is left of the draft is not taken for the store when the import is done again."""
    old, new = night_of_nods(tmp_path / "a.fits", (5,)), night_of_nods(tmp_path / "b.fits")
    whole, out = tmp_path / "whole.zarr", tmp_path / "night.zarr"
    import_sdfits([new], whole)
    if there:
        import_sdfits([old], out)
    name = "exchange" if there else "rename_into_place"
    move = getattr(landing, name)

    def killed(*paths: Any) -> None:
        move(*paths)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(landing, name, killed)
        with pytest.raises(KeyboardInterrupt):
            import_sdfits([new], out, overwrite=there)
    assert content(out) == content(whole)
    assert import_sdfits([new], out, overwrite=True).scans == (
        2,
        5,
        8,
        11,
    )
    assert content(out) == content(whole)


def test_an_error_leaves_nothing_and_the_old_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = night_of_nods(tmp_path / "bank.fits")
    out = tmp_path / "night.zarr"
    import_sdfits([file], out)
    before = content(out)
    interrupt_at(monkeypatch, 8, OSError(28, "No space left on device"))
    with pytest.raises(OSError, match="No space left"):
        import_sdfits([file], out, overwrite=True)
    assert content(out) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bank.fits", "night.zarr"]


def test_two_imports_into_one_store_do_not_mix(tmp_path: Path) -> None:
    file = night_of_nods(tmp_path / "bank.fits")
    out = tmp_path / "night.zarr"
    with resumable(out, [file]), pytest.raises(L0Error, match=r"another import into .* is running"):
        import_sdfits([file], out)
    assert import_sdfits([file], out).scans == (
        2,
        5,
        8,
        11,
    )


# --- memory --------------------------------------------------------------------------------------

MEASURE = """
import resource, sys
from gpucal import import_sdfits
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
import_sdfits([sys.argv[1]], sys.argv[2] + "/small.zarr")
before = peak()
import_sdfits([sys.argv[3]], sys.argv[2] + "/large.zarr")
print(before, peak())
"""


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """A file of 128 MiB takes less than 64 MiB more than one of a few kB, read pages included."""
    small = night_of_nods(tmp_path / "small.fits")
    spectrum = np.arange(1 << 17, dtype=np.float32)
    rows = [{**r, "DATA": spectrum} for n in range(16) for r in nod(2 + 2 * n, dumps=4)]
    large = write_table(tmp_path / "large.fits", rows)
    assert large.stat().st_size > 128 << 20
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, str(small), str(tmp_path), str(large)],
        capture_output=True,
        text=True,
        check=True,
    )
    before, after = map(int, run.stdout.split())
    assert after - before < 64, f"{before} MiB before, {after} MiB after"


# --- what is refused -----------------------------------------------------------------------------


def test_loads_without_numbers(tmp_path: Path) -> None:
    empty = np.full(N_CHAN, np.nan, np.float32)

    def spoiled(feeds: Sequence[int]) -> list[Row]:
        return [
            {**r, "DATA": empty} if r["OBJECT"] == "VANE" and r["FDNUM"] in feeds else r
            for r in vane() + nod()
        ]

    out = tmp_path / "night.zarr"
    report = import_sdfits([write_table(tmp_path / "all.fits", spoiled((3, 7)))], out)
    assert report.scans == (5,)
    assert [x.scan for x in report.lost] == [2]
    assert "scan 2: none of the 2 HOT spectra holds a number" in report.lost[0].sentence
    shutil.rmtree(out)
    with pytest.warns(GpucalWarning, match=r"scan 2: 1 of 2 HOT .* \(FDNUM 7\)"):
        import_sdfits([write_table(tmp_path / "one.fits", spoiled((7,)))], out)


def test_loads_of_unknown_temperature_are_a_warning(tmp_path: Path) -> None:
    file = write_table(tmp_path / "bank.fits", vane(TWARM=np.nan) + nod())
    with pytest.warns(GpucalWarning, match="temperature of the warm load is not recorded.*--t-hot"):
        import_sdfits([file], tmp_path / "night.zarr")


@pytest.mark.parametrize("logical", [False, True])
def test_noise_diode_data_are_refused_on_every_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], logical: bool
) -> None:
    """CAL as the letter T, or as a logical column; nods, and scans that would be left out anyway."""
    diode = [
        row(8, 2.0 * d, CAL=c, OBSMODE="Track:NONE:TPWCAL", PROCSIZE=1)
        for d in (0, 1)
        for c in "TF"
    ]
    rows = vane() + nod() + diode
    file = write_table(tmp_path / "bank.fits", rows)
    if logical:
        from astropy.io import fits

        with fits.open(file, mode="update") as hdus:
            columns = [c for c in hdus[1].columns if c.name != "CAL"]
            values = np.array([r["CAL"] == "T" for r in rows])
            columns.append(fits.Column("CAL", "L", array=values))
            hdus[1] = fits.BinTableHDU.from_columns(columns, header=hdus[1].header)
    out = tmp_path / "night.zarr"
    assert main(["import", "sdfits", str(file), str(out)]) == 2
    text = capsys.readouterr().err
    assert "scan 8: 2 rows were taken with the noise diode on (CAL=T)" in text
    assert len(text.strip().splitlines()) == 1
    assert open_l0(out).numbers() == [2, 5]


def test_there_is_no_noise_diode_scheme() -> None:
    with pytest.raises(ConfigError, match="cal_scheme is 'noise-diode'"):
        load_config(cal_scheme="noise-diode")


@pytest.mark.parametrize(
    ("name", "form", "values", "pattern"),
    [
        ("DATA", "16A", np.array(["x"] * 12), "the column DATA of type"),
        ("DATA", "16C", np.zeros((12, 16), "c8"), "the column DATA of type >c8"),
        ("SCAN", "2J", np.ones((12, 2), "i4"), r"the column SCAN with shape \(2,\)"),
        ("CRVAL1", "D", np.full(12, np.inf), "scan 2: column CRVAL1 is not a number in 2 rows"),
    ],
)
def test_a_wrong_column_is_one_sentence(
    tmp_path: Path, name: str, form: str, values: Any, pattern: str
) -> None:
    from astropy.io import fits

    file = write_table(tmp_path / "bank.fits", vane() + nod())
    with fits.open(file, mode="update") as hdus:
        columns = [c for c in hdus[1].columns if c.name != name]
        columns.append(fits.Column(name, form, array=values))
        hdus[1] = fits.BinTableHDU.from_columns(columns, header=hdus[1].header)
    with pytest.raises(ImportFormatError, match=pattern):
        import_sdfits([file], tmp_path / "night.zarr")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bank.fits"]


def test_many_banks_with_bands_of_different_width(tmp_path: Path) -> None:
    """Two files per band, three bands of 16, 32 and 8 channels, each with its own frequency axis."""
    files = []
    for ifnum, channels in enumerate((16, 32, 8)):
        for feed in (3, 7):
            rows = [
                {
                    **r,
                    "IFNUM": ifnum,
                    "CRVAL1": 90e9 + ifnum * 1e9,
                    "DATA": np.arange(channels, dtype=np.float32) + 100 * feed + r["SCAN"],
                }
                for r in vane() + nod()
                if r["FDNUM"] == feed
            ]
            files.append(write_table(tmp_path / f"bank{ifnum}{feed}.fits", rows))
    out = tmp_path / "night.zarr"
    import_sdfits(files, out)
    bands = {s.band: s for s in open_l0(out).load(5)}
    assert [source_of(bands[b]).shape for b in sorted(bands)] == [
        (16, 2, 1, 2, 2),
        (32, 2, 1, 2, 2),
        (8, 2, 1, 2, 2),
    ]
    for i, band in enumerate(sorted(bands)):
        source = source_of(bands[band])
        assert source.signal_freq[0, 0] == 90e9 + i * 1e9
        data = counts_of(source)
        assert data[:, 0, 0, 1, 1].tolist() == [c + 706.0 for c in range(data.shape[0])]


def test_command_without_flags(tmp_path: Path) -> None:
    from gpucal.cli.commands.import_ import app

    file = write_table(tmp_path / "bank.fits", vane() + nod())
    file.with_suffix(".flag").write_text(HEAD + "*|5|*|*|*|*|0|0|spur\n")
    for option, bad in (("--no-flags", False), ("--flags", True)):
        out = tmp_path / f"night{option}.zarr"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            run = CliRunner().invoke(app, ["sdfits", str(file), str(out), option, "--quiet"])
        assert run.exit_code == 0, run.output
        assert bool(np.isnan(science(out)).any()) == bad
