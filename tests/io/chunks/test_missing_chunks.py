"""A chunk that is not there is no data, or an error, whatever the fill value says and however it is read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from builders import l0 as build
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import ZipStore

from gpucal import CorruptDataError
from gpucal.axes import FILL_INT32
from gpucal.io.chunks.counts import ZarrCounts
from gpucal.io.conventions.coding import Coding

SHAPE = (8, 2, 1, 2, 3)
LAYOUTS: dict[str, dict[str, Any]] = {
    "direct": {"chunks": (2, 2, 1, 2, 1)},
    "direct v2": {"chunks": (2, 2, 1, 2, 1), "zarr_format": 2, "compressors": numcodecs.Zstd(1)},
    "several subscans": {"chunks": (2, 2, 1, 2, 3)},
    "filter": {"chunks": (2, 2, 1, 2, 1), "compressors": (ZstdCodec(level=1), ZstdCodec(level=1))},
    "shards": {"chunks": (2, 2, 1, 2, 1), "shards": (8, 2, 1, 2, 3)},
    "zip": {"chunks": (2, 2, 1, 2, 1)},
}


def stored(path: Path, layout: str, dtype: str, fill: int) -> Any:
    """An array whose channels 2..3 were never written: no file, no entry in its shard."""
    options = {"compressors": (ZstdCodec(level=1), Crc32cCodec()), **LAYOUTS[layout]}
    store: Any = ZipStore(path, mode="w") if layout == "zip" else str(path)
    array = zarr.create_array(store, shape=SHAPE, dtype=dtype, fill_value=fill, **options)
    values = np.full(SHAPE, 500, dtype)
    array[:2], array[4:] = values[:2], values[4:]
    if layout == "zip":
        store.close()
        store = ZipStore(path, mode="r")
    return zarr.open_array(store, mode="r")


@pytest.mark.parametrize("fill", [0, 99])
@pytest.mark.parametrize("dtype", ["i4", "f4", "f8", "u4"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("coded", [True, False])
def test_a_chunk_that_is_not_there_is_no_data(
    tmp_path: Path, layout: str, dtype: str, fill: int, coded: bool
) -> None:
    array = stored(tmp_path / "a", layout, dtype, fill)
    counts = ZarrCounts(array, scan=3, coding=Coding() if coded else None, zeros_lost=False)
    if dtype == "u4":
        with pytest.raises(
            CorruptDataError, match=r"scan 3.* is not there, .*uint32 counts have no"
        ):
            counts.read(0, 8, 1)
        return
    block = counts.read(0, 8, 1)
    lost = np.isnan(block) if dtype[0] == "f" else block == FILL_INT32
    assert lost[2:4].all()
    assert (block[:2] == 500).all()
    assert (block[4:] == 500).all()


def test_counts_of_zero_that_were_written_stay(tmp_path: Path) -> None:
    options: Any = {"chunks": (2, 2, 1, 2, 1), "config": {"write_empty_chunks": True}}
    places: dict[str, dict[str, Any]] = {"a": {}, "b": {"shards": (8, 2, 1, 2, 3)}}
    for place, more in places.items():
        array = zarr.create_array(str(tmp_path / place), shape=SHAPE, dtype="u4", **options, **more)
        array[...] = np.full(SHAPE, 0xFFFFFFFF, "u4")
        array[:2] = np.zeros((2, *SHAPE[1:]), "u4")
        block = ZarrCounts(array).read(0, 8, 0)
        assert (block[:2] == 0).all()
        assert (block[2:] == 0xFFFFFFFF).all()


@pytest.mark.parametrize(("dtype", "fill"), [("i4", 0), ("i4", 99), ("f4", 0), ("u4", 0)])
def test_the_device_is_told_the_same(tmp_path: Path, dtype: str, fill: int) -> None:
    counts = ZarrCounts(stored(tmp_path / "a", "direct", dtype, fill))
    block = counts.encoded(0, 8, 1)
    if dtype == "u4":
        assert isinstance(block, str)
        assert "is not there" in block
        assert not isinstance(counts.encoded(4, 8, 1), str)
        return
    assert not isinstance(block, str)
    assert block.paths[1] is None
    assert np.isnan(block.fill) if dtype == "f4" else block.fill == FILL_INT32


def test_a_missing_subscan_is_named(tmp_path: Path) -> None:
    path = build.new_store(tmp_path / "night.zarr")
    build.write_scan(path, 1)
    folder = path / "scan_000001/source/data_5d"
    chunks = [p for p in folder.rglob("*") if p.is_file() and p.name == "3"]
    assert chunks
    for chunk in chunks:
        chunk.unlink()
    import gpucal

    (scan,) = gpucal.open_l0(path).load(1)
    assert scan.source is not None
    assert any("subscan 3 (ON)" in w and "no chunk" in w for w in scan.warnings), scan.warnings
    assert (scan.source.counts.read(0, 12, 3) == FILL_INT32).all()


@pytest.mark.parametrize("name", ["mjd", "exptime", "elevation", "signal_freq", "freq_res"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_small_array_without_its_chunk_is_refused(
    tmp_path: Path, name: str, packed: bool
) -> None:
    import gpucal

    path = build.new_store(tmp_path / "night.zarr")
    build.write_scan(path, 1)
    build.write_scan(path, 2)
    shutil.rmtree(path / f"scan_000001/source/{name}/c")
    if packed:
        path = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", path))
    store = gpucal.open_l0(path)
    with pytest.raises(gpucal.GpucalError, match=f"scan 1: .*array {name} .*not there"):
        store.load(1)
    assert store.load(2)


def test_zeros_that_do_not_count_may_lack_their_chunks(tmp_path: Path) -> None:
    """zarr-python leaves chunks of zeros out: loads at elevation 0, weather that was not recorded."""
    import gpucal

    path = build.new_store(tmp_path / "night.zarr")
    build.write_scan(path, 1)
    for place in ("calibration/elevation", "source/tamb"):
        shutil.rmtree(path / f"scan_000001/{place}/c")
    (scan,) = gpucal.open_l0(path).load(1)
    (warning,) = scan.warnings
    assert "all chunks of array tamb are not there" in warning
    assert scan.calibration is not None
    assert not scan.calibration.elevation.any()


def test_written_zeros_have_chunks(tmp_path: Path) -> None:
    path = build.new_store(tmp_path / "night.zarr")
    build.write_scan(path, 1, build.lean_source(otf_lon=np.zeros(5)))
    assert (path / "scan_000001/source/otf_lon/c/0").exists()


def test_lost_positions_are_told(tmp_path: Path) -> None:
    import gpucal

    path = build.new_store(tmp_path / "night.zarr")
    build.write_scan(
        path,
        1,
        build.lean_source(
            modes=("OTF-OFF", "OTF-ON", "OTF-OFF", "OTF-ON", "OTF-OFF"),
            otf_lon=np.ones((3, 5)),
            ref_channel=np.full(5, 6.0),
        ),
    )
    shutil.rmtree(path / "scan_000001/source/otf_lon/c")
    (warning,) = gpucal.open_l0(path).load(1)[0].warnings
    assert "array otf_lon" in warning
    assert "taken as 0" in warning
    shutil.rmtree(path / "scan_000001/source/ref_channel/c")
    with pytest.raises(
        gpucal.GpucalError, match="ref_channel is 0 in source/ and 6 in calibration/"
    ):
        gpucal.open_l0(path).load(1)
