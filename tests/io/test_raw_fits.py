"""Raw scans as FITS: what comes back is what was written, bit for bit; what is damaged is named."""

from __future__ import annotations

import shutil
import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from builders import l0 as build
from builders.groups import source_of
from numpy.typing import NDArray
from typer.testing import CliRunner

from gpucal import (
    CalibrationConfig,
    CountsMaker,
    GpucalWarning,
    GroupArrays,
    ImportFormatError,
    L0Error,
    calibrate_store,
    export_raw_fits,
    import_raw_fits,
    load_config,
    open_l0,
    open_l1,
    simulate_night,
    write_l0_scan,
)
from gpucal.axes import FILL_INT32
from gpucal.cli.commands.inspect import describe_store, exit_code
from gpucal.io.l0.track import merge_track
from gpucal.io.raw_fits import writer as raw_fits_write
from gpucal.io.raw_fits.importer import RawFitsReport
from gpucal.io.raw_fits.layout import DataSum, decode, encode
from gpucal.pipeline.store.selection import select_scans
from gpucal.simulate.presets import PRESETS, preset

fits = pytest.importorskip("astropy.io.fits")

DEG = np.pi / 180


@pytest.fixture(autouse=True)
def _no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Syncing the whole file system takes seconds on a busy machine and changes no result."""
    monkeypatch.setattr("gpucal.io.files.atomic.sync_tree", lambda path: None)


def tree(path: Path) -> dict[str, Any]:
    """Everything that a reader of a scan can see: path -> (dtype, shape, dims, fill, attrs, bytes)."""
    found: dict[str, Any] = {}

    def walk(group: Any, prefix: str) -> None:
        found[prefix] = dict(group.attrs)
        for name, node in group.members():
            place = f"{prefix}/{name}"
            if isinstance(node, zarr.Group):
                walk(node, place)
                continue
            values = np.asarray(node[...])
            content = values.tolist() if values.dtype.kind in "OTU" else values.tobytes()
            fill = np.asarray(node.fill_value).tobytes()
            names = getattr(node.metadata, "dimension_names", None)
            found[place] = (str(node.dtype), node.shape, names, fill, dict(node.attrs), content)

    walk(zarr.open_group(str(path), mode="r"), "")
    return found


def there_and_back(store: Path, tmp_path: Path, **options: Any) -> tuple[list[Path], Path]:
    files = export_raw_fits(store, tmp_path / "fits", **options)
    back = tmp_path / "back.zarr"
    import_raw_fits(files, back)
    return files, back


def special(dtype: str, shape: tuple[int, ...] = build.SHAPE) -> NDArray[Any]:
    """Counts with the ends of their range, fill values, and NaN with a payload."""
    kind = np.dtype(dtype)
    values = build.counts(shape, dtype)
    flat = values.reshape(-1)
    if kind.kind == "f":
        flat[:4] = [np.nan, np.inf, -0.0, np.finfo(kind).tiny / 2]
        flat[4:5].view(f"u{kind.itemsize}")[0] = np.array([np.nan], kind).view(f"u{kind.itemsize}")[
            0
        ] | np.array(5, f"u{kind.itemsize}")
    else:
        flat[:3] = [np.iinfo(kind).min, np.iinfo(kind).max, 0]
    return values


@pytest.mark.parametrize("dtype", ["i4", "u4", "f4", "f8"])
@pytest.mark.parametrize("zarr_format", [3, 2])
def test_a_scan_comes_back_bit_for_bit(tmp_path: Path, dtype: str, zarr_format: int) -> None:
    store = build.new_store(tmp_path / "night.zarr", zarr_format=zarr_format, observer="N. N.")
    attrs = {
        "scan_metadata": {"nested": [1, {"é": None}], "long": "x y " * 1500, "blank": " " * 4100},
        "gain_image": [[1.0] * 4] * 2,
    }
    source = build.source_group(data_5d=special(dtype))
    build.write_scan(store, 7, source, build.calibration_group(), attrs=attrs, chunk_channels=5)
    _, back = there_and_back(store, tmp_path)
    before, after = tree(store / "scan_000007"), tree(back / "scan_000007")
    if zarr_format == 2:  # names of dimensions stand in an attribute there
        before = {k: v if isinstance(v, dict) else (*v[:2], *v[3:]) for k, v in before.items()}
        after = {k: v if isinstance(v, dict) else (*v[:2], *v[3:]) for k, v in after.items()}
    assert before == after
    assert open_l0(back).attrs == open_l0(store).attrs
    old, new = open_l0(store).load(7)[0], open_l0(back).load(7)[0]
    assert old.metadata_sha256 == new.metadata_sha256


def test_bands_text_arrays_and_unknown_arrays_come_back(tmp_path: Path) -> None:
    store = build.new_store(tmp_path / "night.zarr")
    groups = {
        f"band_{b}": {"source": build.lean_source(), "calibration": build.lean_calibration()}
        for b in (1, 2)
    }
    extra = {"band_1": {}, "band_2": {"line": "CO(7-6)"}}
    write_l0_scan(
        store, 9, attrs={"f_eff": 0.9, "gain_image": 1.0}, groups=groups, band_attrs=extra
    )
    source = zarr.open_group(str(store / "scan_000009/band_2/source"))
    modes = source.attrs["sobsmode"]
    del source.attrs["sobsmode"]
    source.create_array("sobsmode", shape=(5,), dtype=str)[...] = np.array(modes, dtype=object)
    for name, dtype in (("a_u2", "u2"), ("b_i1", "i1"), ("c_u8", "u8"), ("d_bool", "?")):
        shape = (3, 1, 2)
        values = np.array([0, 1, 2, 127, 100, 1]).astype(dtype).reshape(shape)
        source.create_array(name, shape=shape, dtype=dtype, fill_value=1)[...] = values
    source.create_array("e_scalar", shape=(), dtype="f8")[...] = np.pi
    _, back = there_and_back(store, tmp_path)
    assert tree(store / "scan_000009") == tree(back / "scan_000009")
    assert [s.attrs.get("line") for s in open_l0(back).load(9)] == [None, "CO(7-6)"]


def test_other_programs_can_read_the_file(tmp_path: Path) -> None:
    store = build.new_store(tmp_path / "night.zarr")
    counts = special("u4")
    source = build.source_group(data_5d=counts)
    build.write_scan(store, 7, source, build.calibration_group(), attrs={"line": "CO(4-3)"})
    (file,) = export_raw_fits(store, tmp_path / "fits")
    assert file.name == "scan_000007.fits"
    with fits.open(file, checksum=True) as hdus:  # a wrong DATASUM is a warning, here an error
        hdus.verify("exception")
        assert hdus[0].header["TELESCOP"] == "FYST"
        assert hdus[0].header["LINE"] == "CO(4-3)"
        assert hdus[0].header["NTABLES"] == len(hdus) - 1
        for s, mode in enumerate(build.SOURCE_MODES):
            table = hdus["SOURCE", s + 1]
            assert table.header["SOBSMODE"] == mode
            assert table.header["SUBSCAN"] == s
            np.testing.assert_array_equal(table.data["COUNTS"], np.moveaxis(counts[..., s], 1, 0))
            for column, name in (("MJD", "mjd"), ("EXPTIME", "exptime"), ("LON", "otf_lon")):
                np.testing.assert_array_equal(table.data[column], source.arrays[name][:, s])
            np.testing.assert_array_equal(table.data["PHASE"], source.arrays["chop_phase"][:, s])
            n = table.columns.names.index("COUNTS") + 1
            assert table.header[f"TDIM{n}"] == "(4,2,12)"
            assert table.header[f"TZERO{n}"] == 2**31
            assert table.header[f"3CRVL{n}"] == 460e9
            assert table.header[f"3CRPX{n}"] == 7.0
        assert hdus["CALIBRATION", 1].header["THOT2"] == 295.0
        assert hdus["CALIBRATION", 2].header["TCOLD1"] == 77.0
        arrays = hdus["SOURCE_ARRAYS"].data
        np.testing.assert_array_equal(
            arrays["pixel_offset_lon"][0], source.arrays["pixel_offset_lon"]
        )


def test_int32_fill_is_named_and_unchanged(tmp_path: Path) -> None:
    store = build.new_store(tmp_path / "night.zarr")
    counts = build.counts(build.SHAPE)
    counts[3, 1, 0, 2, 4] = FILL_INT32
    build.write_scan(store, 7, build.lean_source(data_5d=counts))
    (file,) = export_raw_fits(store, tmp_path / "fits")
    with fits.open(file) as hdus:
        table = hdus["SOURCE", 5]
        n = table.columns.names.index("COUNTS") + 1
        assert table.header[f"TNULL{n}"] == FILL_INT32
        assert table.data["COUNTS"][1, 3, 0, 2] == FILL_INT32


def test_slabs_make_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = build.new_store(tmp_path / "night.zarr")
    build.write_scan(store, 7, chunk_channels=5)
    (whole,) = export_raw_fits(store, tmp_path / "whole")
    per_channel = 3 * 2 * 4 * 4
    for channels in (1, 7):
        monkeypatch.setattr(raw_fits_write, "SLAB_BYTES", channels * per_channel)
        (sliced,) = export_raw_fits(store, tmp_path / f"slabs{channels}")
        assert sliced.read_bytes() == whole.read_bytes()


def test_memory_does_not_grow_with_the_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = (2048, 16, 2, 32, 4)  # 8 MiB a subscan, 32 MiB in all
    maker = CountsMaker(shape, np.dtype("i4"), lambda s: np.full(shape[:4], s + 1, "i4"))
    arrays = {k: v for k, v in build.lean_source().arrays.items() if v.ndim == 2}
    arrays |= {k: np.full((16, 4), 2.0) for k in ("exptime",)}
    arrays |= {k: np.full((16, 4), 1.0) for k in ("elevation", "azimuth")}
    arrays |= {k: v[:, :4] for k, v in arrays.items() if v.shape == (2, 5)}
    arrays["mjd"] = 60310.0 + np.arange(4) * 1e-3
    store = build.new_store(tmp_path / "night.zarr")
    group = GroupArrays(maker, ["OFF", "ON", "ON", "OFF"], arrays)
    write_l0_scan(
        store, 3, attrs={"gain_image": 1.0}, groups={"": {"source": group}}, chunk_channels=32
    )
    monkeypatch.setattr(raw_fits_write, "SLAB_BYTES", 1 << 20)
    monkeypatch.setattr("gpucal.io.l0.zarr_arrays.CHUNK_BYTES", 1 << 19)
    export_raw_fits(store, tmp_path / "warm", scans=[])  # imports are not counted
    tracemalloc.start()
    try:
        files, back = there_and_back(store, tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert files[0].stat().st_size > 32 << 20
    assert peak < 12 << 20, f"{peak / 2**20:.1f} MiB"
    scan = open_l0(back).load(3)[0]
    assert [int(source_of(scan).counts.read(500, 501, s).max()) for s in range(4)] == [1, 2, 3, 4]


def test_subscans_that_are_not_complete_and_scans_without_references_are_kept(
    tmp_path: Path,
) -> None:
    store = build.new_store(tmp_path / "night.zarr")
    modes = ["ON"] * 5  # no reference: cannot be calibrated, but it is data
    groups = {"": {"source": build.lean_source()}}
    write_l0_scan(
        store, 7, attrs={"complete": False, "n_subscans_planned": 9, "gain_image": 1}, groups=groups
    )
    zarr.open_group(str(store / "scan_000007/source")).attrs["sobsmode"] = modes
    _, back = there_and_back(store, tmp_path)
    assert tree(store / "scan_000007") == tree(back / "scan_000007")


# --- again, in the way, interrupted --------------------------------------------------------------


def test_the_same_again_is_kept_another_needs_overwrite(tmp_path: Path) -> None:
    store = build.new_store(tmp_path / "night.zarr")
    build.write_scan(store, 7)
    (file,) = export_raw_fits(store, tmp_path / "fits")
    first = file.stat()
    export_raw_fits(store, tmp_path / "fits")
    assert file.stat().st_ino == first.st_ino
    zarr.open_group(str(store / "scan_000007")).attrs["source"] = "another"
    with pytest.raises(L0Error, match=r"scan 7: .*scan_000007.fits is already there"):
        export_raw_fits(store, tmp_path / "fits")
    assert file.stat().st_ino == first.st_ino
    export_raw_fits(store, tmp_path / "fits", overwrite=True)
    with fits.open(file) as hdus:
        assert hdus[0].header["OBJECT"] == "another"
    assert [p.name for p in (tmp_path / "fits").iterdir()] == ["scan_000007.fits"]
    assert not (tmp_path / "fits.staging").exists()


def test_a_foreign_file_is_not_replaced(tmp_path: Path) -> None:
    store = build.new_store(tmp_path / "night.zarr")
    build.write_scan(store, 7)
    (tmp_path / "fits").mkdir()
    precious = tmp_path / "fits" / "scan_000007.fits"
    precious.write_text("thesis")
    with pytest.raises(L0Error, match="already there"):
        export_raw_fits(store, tmp_path / "fits")
    assert precious.read_text() == "thesis"


def test_counts_that_cannot_be_read_leave_no_file(tmp_path: Path) -> None:
    store = build.new_store(tmp_path / "night.zarr")
    build.write_scan(store, 7)
    chunk = next((store / "scan_000007/source/data_5d/c").rglob("4"))
    chunk.write_bytes(chunk.read_bytes()[:-3])
    with pytest.raises(OSError, match="cannot be decoded"):
        export_raw_fits(store, tmp_path / "fits")
    assert list((tmp_path / "fits").iterdir()) == []
    assert not (tmp_path / "fits.staging").exists()


def test_a_scan_that_is_not_there(tmp_path: Path) -> None:
    store = build.new_store(tmp_path / "night.zarr")
    build.write_scan(store, 7)
    with pytest.raises(L0Error, match=r"scan 8: it is not in"):
        export_raw_fits(store, tmp_path / "fits", scans=[7, 8])
    assert not (tmp_path / "fits").exists()


def test_import_continues_and_never_overwrites(tmp_path: Path) -> None:
    store = build.new_store(tmp_path / "night.zarr")
    for number in (7, 8):
        build.write_scan(store, number)
    files = export_raw_fits(store, tmp_path / "fits")
    back = tmp_path / "back.zarr"
    assert import_raw_fits(files[:1], back) == RawFitsReport((7,))
    assert import_raw_fits(files, back) == RawFitsReport((8,), (7,))
    zarr.open_group(str(back / "scan_000007")).attrs["source"] = "edited"
    with pytest.raises(L0Error, match=r"scan 7: .*holds another scan of this number"):
        import_raw_fits(files[:1], back)
    report = import_raw_fits(files, back)
    assert (report.scans, report.present, report.exit_code) == ((), (8,), 2)
    assert "holds another scan of this number" in str(report.lost[0])
    assert zarr.open_group(str(back / "scan_000007")).attrs["source"] == "edited"
    other = build.new_store(tmp_path / "other.zarr")
    zarr.open_group(str(other)).attrs["telescope"] = "IRAM"
    with pytest.raises(ImportFormatError, match=r"is of telescope 'FYST', .* of 'IRAM'"):
        import_raw_fits(files, other)
    with pytest.warns(GpucalWarning, match="scan 7: .* it is taken once"):
        assert import_raw_fits([files[0], files[0]], tmp_path / "new.zarr").scans == (7,)


def night_file(folder: Path, *scans: tuple[int, float, int], **attrs: Any) -> list[Path]:
    """Raw FITS files of scans (number, begin as MJD, lloadsn)."""
    folder.mkdir()
    store = build.new_store(folder / "night.zarr")
    for number, begin, load in scans:
        source = build.lean_source(
            mjd=begin + 0.01 * np.arange(5), lloadsn=np.full(5, load, "i4"), pamb=None
        )
        loads = build.lean_calibration(mjd=begin + 0.01 * np.arange(2))
        build.write_scan(store, number, source, loads, attrs=attrs)
    return export_raw_fits(store, folder / "fits")


def test_two_scans_of_one_number_are_told_apart_by_time(tmp_path: Path) -> None:
    """A load scan and a source scan in the evening, and both numbers again hours later."""
    early = night_file(tmp_path / "a", (1, 61000.0, -1), (3, 61000.1, 1))
    late = night_file(tmp_path / "b", (1, 61000.5, -1), (5, 61000.6, 1))
    out = tmp_path / "l0"
    with pytest.warns(GpucalWarning, match=r"scan number 1 comes again in .*: that scan is 100001"):
        report = import_raw_fits([*late, *early], out)
    assert report == RawFitsReport((1, 3, 5, 100001))
    for number, begin, load in ((3, 61000.1, 1), (5, 61000.6, 100001)):
        group = source_of(open_l0(out).load(number)[0])
        assert group.mjd.min() == pytest.approx(begin, abs=0.01)
        assert set(group.lloadsn.tolist()) == {load}
    assert open_l0(out).scan_group(100001).attrs["scan_number"] == 100001
    with pytest.warns(GpucalWarning, match="comes again"):
        again = import_raw_fits([*early, *late], out)
    assert (again.scans, again.present) == ((), (1, 3, 5, 100001))


def test_two_scans_of_one_number_and_time_are_refused(tmp_path: Path) -> None:
    one = night_file(tmp_path / "a", (1, 61000.0, -1), (3, 61000.1, 1))
    two = night_file(tmp_path / "b", (1, 61000.0, -1), source="W3")
    report = import_raw_fits([*one, *two], tmp_path / "l0")
    assert report.scans == (3,)
    assert "their times do not tell them apart" in str(report.lost[0])


def test_gzipped_files_and_a_folder(tmp_path: Path, good: Path) -> None:
    import gzip

    folder = tmp_path / "fits"
    folder.mkdir()
    (folder / "scan_000007.fits.gz").write_bytes(gzip.compress(good.read_bytes()))
    assert import_raw_fits([folder], tmp_path / "back.zarr").scans == (7,)
    plain = tmp_path / "plain.zarr"
    import_raw_fits([good], plain)
    assert tree(tmp_path / "back.zarr") == tree(plain)
    (folder / "scan_000007.fits.gz").write_bytes(gzip.compress(good.read_bytes())[:-50])
    with pytest.raises(ImportFormatError, match="is compressed, and its end or a part is damaged"):
        import_raw_fits([folder], tmp_path / "other.zarr")


@pytest.mark.parametrize(("dtype", "factor"), [("float64", 2.0), ("int32", 1.0)])
def test_packed_counts_are_written_unpacked(tmp_path: Path, dtype: str, factor: float) -> None:
    """Counts of the same type as the packed ones too, where nothing but the value shows it."""
    store = build.new_store(tmp_path / "night.zarr")
    build.write_scan(store, 7)
    place = store / "scan_000007" / "source" / "data_5d"
    right = np.asarray(zarr.open_array(str(place), mode="r")[...], dtype=np.float64)
    shutil.rmtree(place)
    group = zarr.open_group(str(store / "scan_000007" / "source"), mode="r+")
    array = group.create_array("data_5d", data=((right - 20.0) / factor).astype(dtype))
    array.attrs.update({"scale_factor": factor, "add_offset": 20.0, "units": "count"})
    (file,) = export_raw_fits(store, tmp_path / "fits")
    import_raw_fits([file], tmp_path / "back.zarr")
    back: Any = zarr.open_array(str(tmp_path / "back.zarr/scan_000007/source/data_5d"), mode="r")
    np.testing.assert_array_equal(back[...], right)
    assert "scale_factor" not in back.attrs


# --- malformed files -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that can be imported."""
    folder = tmp_path_factory.mktemp("good")
    store = build.new_store(folder / "night.zarr")
    build.write_scan(store, 7)
    return export_raw_fits(store, folder / "fits")[0]


def flip_byte(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def card(path: Path, old: bytes, new: bytes) -> None:
    """Replace text in a header; both of the same length."""
    assert len(old) == len(new)
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


def in_counts(path: Path) -> int:
    with fits.open(path) as hdus:
        return int(hdus["SOURCE", 4].fileinfo()["datLoc"] + hdus["SOURCE", 4].header["NAXIS1"] - 9)


def in_last_header(path: Path) -> int:
    with fits.open(path) as hdus:
        return int(hdus[-1].fileinfo()["hdrLoc"])


def cut(path: Path, at: int) -> None:
    path.write_bytes(path.read_bytes()[:at])


def flip_sha(path: Path) -> None:
    data = bytearray(path.read_bytes())
    at = data.index(b"L0SHA256= '") + 12
    data[at] = ord("0") if data[at] != ord("0") else ord("1")
    path.write_bytes(data)


MALFORMED: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated in the data": (
        lambda p: cut(p, in_counts(p)),
        r"is truncated: table \d+ \(SOURCE\) .* ends at byte \d+, the file at byte \d+",
    ),
    "truncated in a header": (lambda p: cut(p, in_last_header(p) + 1000), "cannot be read as FITS"),
    "last table missing": (
        lambda p: cut(p, in_last_header(p)),
        r"is truncated: it holds \d+ tables, expected \d+",
    ),
    "empty": (lambda p: cut(p, 0), "cannot be read as FITS"),
    "text": (lambda p: p.write_text("counts\n" * 1000), "cannot be read as FITS"),
    "not there": (lambda p: p.unlink(), "does not exist"),
    "another kind of FITS": (
        lambda p: card(p, b"FILEFMT = 'gpucal-raw-fits'", b"FILEFMT = 'somebody-s-fits'"),
        "has FILEFMT 'somebody-s-fits', expected 'gpucal-raw-fits'",
    ),
    "a newer layout": (
        lambda p: card(p, b"FMTVERS =                    1", b"FMTVERS =                    2"),
        "layout version 2, this program reads up to 1",
    ),
    "no scan number": (lambda p: card(p, b"SCAN    =", b"SCAM    ="), "has no keyword SCAN"),
    "no role": (lambda p: card(p, b"ROLE    = 'SUBSCAN", b"RULE    = 'SUBSCAN"), "no keyword ROLE"),
    "no subscan": (lambda p: card(p, b"SUBSCAN =", b"SUBSCAM ="), "has no keyword SUBSCAN"),
    "no group": (lambda p: card(p, b"GROUP   = 'source", b"CROUP   = 'source"), "no keyword GROUP"),
    "column gone": (
        lambda p: card(p, b"= 'COUNTS  '", b"= 'COWNTS  '"),
        r"table \d+ \(CALIBRATION\) of .* has no column COUNTS",
    ),
    "array column gone": (lambda p: card(p, b"= 'mjd     '", b"= 'mjb     '"), "no column mjd"),
    "wrong column type": (
        lambda p: card(p, b"= '96J     '", b"= '96E     '"),
        r"has the column COUNTS of format 96E \(4,2,12\) with zero 0, expected 96J",
    ),
    "other channel count in one subscan": (
        lambda p: card(p, b"= '(4,2,12)'", b"= '(4,3,8)' "),
        r"COUNTS of format 96J \(4,3,8\) .* expected 96J \(4,2,12\)",
    ),
    "rows missing": (
        lambda p: card(
            p, b"NAXIS2  =                    3 / rows", b"NAXIS2  =                    2 / rows"
        ),
        "2 rows of .* expected 3 rows",
    ),
    "subscan twice": (
        lambda p: card(p, b"SUBSCAN =                    3", b"SUBSCAN =                    2"),
        r"subscans \[0, 1, 2, 4\] of source, expected 0..4",
    ),
    "scaled": (
        lambda p: card(p, b"TUNIT5  = 'count   '", b"TSCAL5  =        0.5"),
        r"the column COUNTS is scaled by 0.5 \(TSCAL5\)",
    ),
    "calibrated": (
        lambda p: card(p, b"= 'count   '", b"= 'K       '"),
        r"\(CALIBRATION\) .*: the column COUNTS has the unit K, which is no count",
    ),
    "another mark for no data": (
        lambda p: card(p, b"=          -2147483648 / no data", b"=                    0 / no data"),
        r"the column COUNTS marks no data by 0 \(TNULL5\), expected the numbers as they were",
    ),
    "attributes edited": (lambda p: card(p, b'"f_eff":0.95', b'"f_eff":0.85'), "are damaged"),
    "checksum of the metadata": (flip_sha, "not those that were written"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_file_is_one_sentence_and_nothing_is_written(
    tmp_path: Path, good: Path, case: str
) -> None:
    damage, pattern = MALFORMED[case]
    file = tmp_path / "scan_000007.fits"
    shutil.copy(good, file)
    damage(file)
    with pytest.raises(ImportFormatError, match=pattern) as caught:
        import_raw_fits([file], tmp_path / "back.zarr")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "back.zarr").exists()
    report = import_raw_fits([good, file], tmp_path / "back.zarr")
    assert (report.scans, report.exit_code) == ((7,), 2)
    assert [str(error) for error in report.lost] == [str(caught.value)]


def test_a_flipped_bit_in_the_counts_is_found_while_copying(tmp_path: Path, good: Path) -> None:
    file = tmp_path / "scan_000007.fits"
    shutil.copy(good, file)
    flip_byte(file, in_counts(file))
    back = tmp_path / "back.zarr"
    with pytest.raises(ImportFormatError, match=r"\(SOURCE\) .* are damaged: their checksum is"):
        import_raw_fits([file], back)
    assert open_l0(back).numbers() == []
    assert [p.name for p in back.iterdir()] == ["zarr.json"]


def test_encoding_is_bit_exact() -> None:
    rng = np.random.default_rng(3)
    for dtype in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", "?"):
        raw = rng.integers(0, 256, 8 * 12, dtype="u1")
        values = (raw > 9) if dtype == "?" else raw.view(dtype)
        back = decode(encode(values).reshape(-1).view("u1"), values.dtype.name, values.shape)
        assert back.tobytes() == values.tobytes()
        assert back.dtype == values.dtype


def test_datasum_agrees_with_astropy() -> None:
    data = np.random.default_rng(4).integers(0, 256, 2880 * 3, dtype="u1")
    table = fits.BinTableHDU.from_columns(
        [fits.Column(name="X", format="2880B", array=data.reshape(3, 2880))]
    )
    table.add_datasum()
    total = DataSum()
    for piece in (data[4000:], data[:1000], data[1000:4000]):
        total.add(piece)
    assert total.value == int(table.header["DATASUM"])


# --- bolometers ----------------------------------------------------------------------------------

RATE_S, N_DUMP, N_BOLO = 0.02, 50, 7


def bolometer_group(
    n_subscans: int = 2, before: float = -0.5, after: float = 0.5, **changes: Any
) -> GroupArrays:
    """An azimuth scan through north at 2 deg/s; the track is recorded every 0.13 s.

    before, after: s by which the track begins before and ends after the dumps.
    """
    start = 60310.0 + np.arange(n_subscans) * 10 / 86400
    mjd = start + np.arange(N_DUMP)[:, None] * RATE_S / 86400
    first, last = before, (n_subscans - 1) * 10 + (N_DUMP - 1) * RATE_S + after
    seconds = np.arange(first, last, 0.13)
    track = {
        "track_mjd": 60310.0 + seconds / 86400,
        "track_azimuth": ((359.0 + 2.0 * seconds) % 360.0) * DEG,
        "track_elevation": (40.0 + 0.1 * seconds) * DEG,
        "track_lon": (359.5 + 0.3 * seconds) % 360.0,
        "track_lat": -5.0 + 0.2 * seconds,
    }
    shape = (1, N_DUMP, 1, N_BOLO, n_subscans)
    counts = np.random.default_rng(5).normal(size=shape).astype("f4")
    arrays = {"mjd": mjd, "exptime": np.full(mjd.shape, RATE_S), **track} | changes
    kept = {k: v for k, v in arrays.items() if v is not None}
    return GroupArrays(counts, ["ON"] * n_subscans, kept)


def write_bolometer(
    store: Path, number: int = 40, group: GroupArrays | None = None, **attrs: Any
) -> None:
    write_l0_scan(
        store,
        number,
        attrs={"obs_class": "bolometer", "source": "Uranus", **attrs},
        groups={"": {"source": group or bolometer_group()}},
    )


def expected_positions(mjd: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    seconds = (mjd - 60310.0) * 86400
    return (359.0 + 2.0 * seconds) % 360.0, 40.0 + 0.1 * seconds


def degrees_apart(a: Any, b: Any) -> Any:
    return np.abs((a - b + 180) % 360 - 180)


def test_bolometer_scan_gets_its_positions_from_the_track(tmp_path: Path) -> None:
    store = build.new_store(tmp_path / "night.zarr")
    write_bolometer(store)
    opened = open_l0(store)
    assert opened.kind(40) == "bolometer"
    (scan,) = opened.load(40)
    assert scan.warnings == ()
    azimuth, elevation = expected_positions(source_of(scan).mjd)
    assert degrees_apart(source_of(scan).azimuth / DEG, azimuth).max() < 1e-5
    assert np.abs(source_of(scan).elevation / DEG - elevation).max() < 1e-6
    assert source_of(scan).azimuth.min() >= 0
    assert source_of(scan).azimuth.max() <= 2 * np.pi


def test_bolometer_file_holds_the_merged_track_and_the_track(tmp_path: Path) -> None:
    store = build.new_store(tmp_path / "night.zarr")
    group = bolometer_group()
    write_bolometer(store, group=group)
    (file,), back = there_and_back(store, tmp_path)
    with fits.open(file, checksum=True) as hdus:
        assert hdus[0].header["OBSCLASS"] == "bolometer"
        track = hdus["SOURCE_TRACK"].data
        for name in ("track_mjd", "track_azimuth", "track_elevation", "track_lon", "track_lat"):
            np.testing.assert_array_equal(track[name], group.arrays[name])
        for s in (0, 1):
            table = hdus["SOURCE", s + 1].data
            azimuth, elevation = expected_positions(table["MJD"])
            assert degrees_apart(table["AZIMUTH"] / DEG, azimuth).max() < 1e-5
            assert np.abs(table["ELEVATION"] / DEG - elevation).max() < 1e-6
            seconds = (table["MJD"] - 60310.0) * 86400
            assert degrees_apart(table["LON"], 359.5 + 0.3 * seconds).max() < 1e-5
            assert np.abs(table["LAT"] - (-5.0 + 0.2 * seconds)).max() < 1e-5
            counts: Any = group.data_5d
            np.testing.assert_array_equal(table["COUNTS"][:, 0, 0], counts[0, :, 0, :, s])
    assert tree(store / "scan_000040") == tree(back / "scan_000040")


def test_samples_outside_the_track_are_nan_and_counted(tmp_path: Path) -> None:
    store = build.new_store(tmp_path / "night.zarr")
    write_bolometer(store, group=bolometer_group(before=0.1, after=0.5))
    (scan,) = open_l0(store).load(40)
    assert scan.warnings == (
        "azimuth and elevation are not known for 5 of 100 samples: they lie outside the "
        "telescope's track, or were not recorded.",
    )
    with pytest.warns(GpucalWarning, match="scan 40: 5 of 100 samples lie outside the time range"):
        (file,) = export_raw_fits(store, tmp_path / "fits")
    with fits.open(file) as hdus:
        bad = np.isnan(hdus["SOURCE", 1].data["AZIMUTH"])
        assert bad.tolist() == [True] * 5 + [False] * 45
        assert not np.isnan(hdus["SOURCE", 2].data["ELEVATION"]).any()


def test_a_night_with_a_bolometer_scan_is_inspected_and_it_is_skipped(tmp_path: Path) -> None:
    store = build.new_store(tmp_path / "night.zarr")
    build.write_scan(store, 7)
    write_bolometer(store)
    report = describe_store(store)
    assert exit_code(report) == 0, report
    assert [(row["scan"], row["kind"]) for row in report["scans"]] == [
        (7, "science"),
        (40, "bolometer"),
    ]
    chosen = select_scans(open_l0(store), load_config())
    assert chosen.numbers == (7,)
    assert chosen.failures == ()
    assert chosen.notes == ("scan 40 is a bolometer scan: nothing to calibrate, skipped",)


def test_recorded_positions_win_over_the_track(tmp_path: Path) -> None:
    store = build.new_store(tmp_path / "night.zarr")
    own = np.full((N_DUMP, 2), 0.5)
    write_bolometer(store, group=bolometer_group(elevation=own))
    (scan,) = open_l0(store).load(40)
    np.testing.assert_array_equal(source_of(scan).elevation, own)
    assert degrees_apart(source_of(scan).azimuth[0, 0] / DEG, 359.0) < 1e-5


BAD_TRACKS: dict[str, tuple[dict[str, Any], str]] = {
    "backwards": ({"track_mjd": np.array([2.0, 1.0, 3.0])}, "does not increase from sample 0 to 1"),
    "not finite": ({"track_mjd": np.array([1.0, np.nan, 3.0])}, "track_mjd of sample 1 is nan"),
    "length": ({"track_azimuth": np.zeros(2)}, r"track_azimuth has shape \(2,\), track_mjd \(3,\)"),
    "integers": ({"track_azimuth": np.zeros(3, int)}, "dtype int64, expected floating"),
    "no elevation": ({"track_elevation": None}, "track_elevation is missing"),
}


@pytest.mark.parametrize("case", BAD_TRACKS)
def test_a_bad_track_is_named(case: str) -> None:
    changes, pattern = BAD_TRACKS[case]
    track = {"track_mjd": np.array([1.0, 2.0, 3.0]), "track_azimuth": np.zeros(3)}
    track |= {"track_elevation": np.ones(3)} | changes
    with pytest.raises(L0Error, match=pattern):
        merge_track({k: v for k, v in track.items() if v is not None}, np.array([1.5]))


@pytest.mark.parametrize(
    ("degrees", "at", "expected"),
    [
        ([350, 358, 6], [1.5, 2.375, 2.5], [354, 1, 2]),  # 0..360
        ([-176, 178, 172], [1.5, 2.0], [-179, 178]),  # -180..180
        ([355, 365, 375], [1.5, 2.5], [360, 370]),  # a cable wrap, as recorded
    ],
)
def test_azimuth_keeps_to_the_range_of_the_track(
    degrees: list[int], at: list[float], expected: list[int]
) -> None:
    track = {
        "track_mjd": np.array([1.0, 2.0, 3.0]),
        "track_azimuth": np.array(degrees) * DEG,
        "track_elevation": np.array([0.5, np.nan, 0.7]),
    }
    merged = merge_track(track, np.array([*at, 0.5, 3.5, np.nan]))
    np.testing.assert_allclose(merged["azimuth"][: len(at)] / DEG, expected, atol=1e-9)
    assert np.isnan(merged["azimuth"][len(at) :]).all()
    assert np.isnan(merged["elevation"]).all()  # one of the two samples is not a number


def test_other_classes_are_refused(tmp_path: Path) -> None:
    store = build.new_store(tmp_path / "night.zarr")
    write_bolometer(store, obs_class="optical")
    with pytest.raises(L0Error, match="obs_class is 'optical', expected heterodyne or bolometer"):
        open_l0(store).load(40)


def test_commands(tmp_path: Path) -> None:
    from gpucal.cli.commands.export import app as export_app
    from gpucal.cli.commands.import_ import app as import_app

    store = build.new_store(tmp_path / "night.zarr")
    for number in (7, 8):
        build.write_scan(store, number)
    out = str(tmp_path / "fits")
    run = CliRunner().invoke(export_app, ["raw-fits", str(store), out, "--scans", "8"])
    assert run.exit_code == 0, run.output
    assert "1 files in" in run.output
    assert [p.name for p in (tmp_path / "fits").iterdir()] == ["scan_000008.fits"]
    assert CliRunner().invoke(export_app, ["raw-fits", str(store), out, "--scans", "x"]).exit_code
    file = str(tmp_path / "fits" / "scan_000008.fits")
    back = str(tmp_path / "back.zarr")
    run = CliRunner().invoke(import_app, ["raw-fits", file, back])
    assert run.exit_code == 0, run.output
    assert "1 scans written" in run.output
    run = CliRunner().invoke(import_app, ["raw-fits", file, back])
    assert "0 scans written" in run.output
    assert "1 were there already" in run.output


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_night_of_each_preset_is_calibrated_as_before(tmp_path: Path, name: str) -> None:
    """What the GBT's format cannot hold (image sideband, cold loads, maps, choppers) is kept here."""
    setup = replace(preset(name, channels=32, dumps=4, n_on=2, sky="isothermal"), pixels=2)
    store = tmp_path / "night.zarr"
    numbers = simulate_night(store, setup, 2, table_out=tmp_path / "table.npz")
    files = export_raw_fits(store, tmp_path / "fits")
    assert import_raw_fits(files, tmp_path / "back.zarr") == RawFitsReport(tuple(numbers))
    spectra = []
    for number in numbers:
        assert tree(tmp_path / "back.zarr" / f"scan_{number:06d}") == tree(
            store / f"scan_{number:06d}"
        )
    # a vane alone does not tell the PWV
    config = CalibrationConfig(atmosphere=str(tmp_path / "table.npz"), pwv=setup.weather.pwv_mm)
    for raw in (store, tmp_path / "back.zarr"):
        out = tmp_path / f"{raw.stem}.l1"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GpucalWarning)
            report = calibrate_store(raw, out, config)
        assert not report.failures
        spectra.append(
            [
                np.asarray(open_l1(out).scan(n, band)["spectra"][...]).tobytes()
                for n in open_l1(out).scans()
                for band in open_l1(out).scan(n).bands or [""]
            ]
        )
    assert spectra[0] == spectra[1]
    assert spectra[0]
