"""Chunk files decoded directly give what Zarr gives, each chunk once, and never garbage."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec

from gpucal import CorruptDataError
from gpucal.io.chunks.counts import ZarrCounts
from gpucal.io.chunks.layout import chunk_files

FAST = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
V3_CODECS = {
    "none": (),
    "crc": (Crc32cCodec(),),
    "zstd": (ZstdCodec(level=1),),
    "zstd+checksum+crc": (ZstdCodec(level=1, checksum=True), Crc32cCodec()),
    "blosc+crc": (BloscCodec(cname="lz4", typesize=4, shuffle="shuffle"), Crc32cCodec()),
    "gzip": (GzipCodec(level=1),),
}
V2_CODECS = {
    "none": None,
    "zstd": numcodecs.Zstd(1),
    "blosc": numcodecs.Blosc("zstd"),
    "gzip": numcodecs.GZip(1),
    "zlib": numcodecs.Zlib(1),
    "lz4": numcodecs.LZ4(),
}


ZSTD = V3_CODECS["zstd"]


def make(
    path: Path, data: NDArray[Any], chunks: tuple[int, ...], codecs: Any = ZSTD, **options: Any
) -> Any:
    array = zarr.create_array(
        str(path),
        shape=data.shape,
        dtype=data.dtype,
        chunks=chunks,
        compressors=codecs,
        overwrite=True,
        **options,
    )
    array[...] = data
    return zarr.open_array(str(path), mode="r")


def sample(shape: tuple[int, ...], dtype: str = "i4", seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng(seed).integers(0, 1000, shape).astype(dtype)


def chunk_file(path: Path) -> Path:
    return next(p for p in sorted(path.rglob("*")) if p.is_file() and p.name[0] not in "z.")


@st.composite
def layouts(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    shape = tuple(draw(st.integers(1, n)) for n in (9, 4, 3, 3, 4))
    chunks = tuple(draw(st.integers(1, n + 1)) for n in shape)
    return shape, chunks


@FAST
@given(
    layout=layouts(),
    dtype=st.sampled_from(["<i4", "<u4", "<f4", "<f8", ">i4", ">u4", ">f4", ">f8"]),
    codec=st.integers(0, 5),
    version=st.sampled_from([2, 3]),
    cache=st.sampled_from([0, 1 << 20]),
    separator=st.sampled_from(["/", "."]),
    data=st.data(),
)
def test_reading_equals_zarr(
    tmp_path: Path,
    layout: tuple[tuple[int, ...], tuple[int, ...]],
    dtype: str,
    codec: int,
    version: int,
    cache: int,
    separator: str,
    data: st.DataObject,
) -> None:
    shape, chunks = layout
    values = sample(shape, dtype)
    values[0] = 7  # some chunks hold nothing but the fill value
    options: dict[str, Any] = {"zarr_format": version, "fill_value": 7}
    options["config"] = {"write_empty_chunks": True}  # those that are missing: test_missing_chunks
    if version == 3:
        options["serializer"] = BytesCodec(endian="big" if dtype[0] == ">" else "little")
        options["chunk_key_encoding"] = {"name": "default", "separator": separator}
        codecs = list(V3_CODECS.values())[codec]
    else:
        options["chunk_key_encoding"] = {"name": "v2", "separator": separator}
        codecs = list(V2_CODECS.values())[codec]
    array = make(tmp_path / "a.zarr", values, chunks, codecs, **options)
    counts = ZarrCounts(array, cache_bytes=cache)
    assert counts.direct
    assert counts.shape == shape
    assert counts.dtype == np.dtype(dtype).newbyteorder("=")
    for s in range(shape[4]):
        c0 = data.draw(st.integers(0, shape[0] - 1))
        c1 = data.draw(st.integers(c0 + 1, shape[0]))
        block = counts.read(c0, c1, s)
        assert block.flags.c_contiguous
        assert block.dtype.isnative
        np.testing.assert_array_equal(block, array[c0:c1, ..., s])
        np.testing.assert_array_equal(block, values[c0:c1, ..., s])


@pytest.mark.parametrize(
    "options",
    [
        {"shards": (8, 3, 2, 2, 4)},
        {"filters": TransposeCodec(order=(4, 3, 2, 1, 0))},
        {"order": "F", "zarr_format": 2, "codecs": None},
        {"zarr_format": 2, "codecs": numcodecs.BZ2(1)},
        {"zarr_format": 2, "codecs": None, "filters": [numcodecs.Delta("i4")]},
        {"codecs": (ZstdCodec(level=1), GzipCodec(level=1))},
    ],
    ids=["sharded", "transposed", "F order", "bz2", "filter", "two compressors"],
)
def test_other_layouts_are_left_to_zarr(tmp_path: Path, options: dict[str, Any]) -> None:
    values = sample((8, 3, 2, 2, 4))
    array = make(tmp_path / "a.zarr", values, (4, 3, 2, 1, 2), **options)
    counts = ZarrCounts(array)
    assert not counts.direct
    for s in range(4):
        np.testing.assert_array_equal(counts.read(0, 8, s), values[..., s])
        np.testing.assert_array_equal(counts.read(1, 6, s), values[1:6, ..., s])


def test_store_in_memory_is_left_to_zarr() -> None:
    values = sample((8, 3, 2, 2, 4))
    array = zarr.create_array({}, data=values, chunks=(4, 3, 2, 2, 1))
    counts = ZarrCounts(array)
    assert not counts.direct
    np.testing.assert_array_equal(counts.read(2, 7, 1), values[2:7, ..., 1])


@pytest.mark.parametrize("options", [{}, {"shards": (16, 3, 2, 2, 4)}], ids=["direct", "by zarr"])
@pytest.mark.parametrize(
    ("chunks", "block"),
    [((4, 3, 2, 2, 1), 4), ((4, 3, 2, 2, 4), 4), ((8, 3, 2, 2, 1), 3), ((8, 3, 2, 2, 2), 5)],
    ids=["aligned", "chunk holds subscans", "block cuts chunk", "both"],
)
def test_each_chunk_is_decoded_once_by_many_threads(
    tmp_path: Path, chunks: tuple[int, int, int, int, int], block: int, options: dict[str, Any]
) -> None:
    values = sample((16, 3, 2, 2, 4))
    array = make(tmp_path / "a.zarr", values, chunks, **options)
    counts = ZarrCounts(array)
    start = threading.Barrier(4)
    requests = [(c, min(c + block, 16), s) for s in range(4) for c in range(0, 16, block)]

    def work(i: int) -> list[Any]:
        start.wait()
        return [(r, counts.read(*r)) for r in requests[i::4]]

    with ThreadPoolExecutor(4) as pool:
        results = [pair for part in pool.map(work, range(4)) for pair in part]
    for (c0, c1, s), got in results:
        np.testing.assert_array_equal(got, values[c0:c1, ..., s])
    expected = (16 // chunks[0]) * (4 // chunks[4])
    assert counts.decoded_chunks == expected
    assert counts.chunks == chunks


def test_cache_stays_within_its_bytes(tmp_path: Path) -> None:
    values = sample((16, 3, 2, 2, 4))
    array = make(tmp_path / "a.zarr", values, (4, 3, 2, 2, 4))
    chunk_bytes = 4 * 3 * 2 * 2 * 4 * 4
    counts = ZarrCounts(array, cache_bytes=2 * chunk_bytes)
    for s in range(2):
        np.testing.assert_array_equal(counts.read(0, 16, s), values[..., s])
    assert counts.decoded_chunks == 8  # four chunks do not fit into the room for two
    np.testing.assert_array_equal(counts.read(8, 16, 3), values[8:, ..., 3])
    assert counts.decoded_chunks == 8


def test_read_into_a_given_array(tmp_path: Path) -> None:
    values = sample((8, 3, 2, 2, 2))
    counts = ZarrCounts(make(tmp_path / "a.zarr", values, (4, 3, 2, 2, 1)))
    out = np.empty((8, 3, 2, 2), "i4")
    assert counts.read(0, 8, 1, out=out) is out
    np.testing.assert_array_equal(out, values[..., 1])
    with pytest.raises(ValueError, match="expected C-contiguous int32"):
        counts.read(0, 8, 1, out=np.empty((8, 3, 2, 2), "i8"))
    for bad in ((0, 9, 0), (3, 3, 0), (0, 8, 2), (-1, 2, 0)):
        with pytest.raises(IndexError, match="do not lie"):
            counts.read(*bad)


def test_hidden_subscans(tmp_path: Path) -> None:
    values = sample((8, 3, 2, 2, 4))
    counts = ZarrCounts(make(tmp_path / "a.zarr", values, (4, 3, 2, 2, 4)), n_subscans=3)
    assert counts.shape == (8, 3, 2, 2, 3)
    np.testing.assert_array_equal(counts.read(0, 8, 2), values[..., 2])
    with pytest.raises(IndexError):
        counts.read(0, 8, 3)


CORRUPTIONS: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda b: b[: len(b) // 2],
    "cut to nothing": lambda b: b"",
    "last byte gone": lambda b: b[:-1],
    "one byte more": lambda b: b + b"x",
    "noise": lambda b: bytes(len(b)),
}


@pytest.mark.parametrize("how", CORRUPTIONS)
@pytest.mark.parametrize("codec", V3_CODECS)
def test_corrupt_chunks_are_named(tmp_path: Path, codec: str, how: str) -> None:
    values = sample((4, 3, 2, 2, 1))
    path = tmp_path / "a.zarr"
    array = make(path, values, (4, 3, 2, 2, 1), V3_CODECS[codec])
    file = chunk_file(path)
    file.write_bytes(CORRUPTIONS[how](file.read_bytes()))
    if (codec, how) == ("none", "noise"):
        assert not ZarrCounts(array).read(0, 4, 0).any()  # nothing can tell
        return
    with pytest.raises(CorruptDataError, match="cannot be decoded") as caught:
        ZarrCounts(array, scan=25650, band="band_1").read(0, 4, 0)
    text = str(caught.value)
    assert text.startswith("scan 25650 band_1, subscan 0: ")
    assert str(file) in text


@pytest.mark.parametrize("codec", ["crc", "zstd+checksum+crc", "blosc+crc"])
def test_a_flipped_bit_is_found(tmp_path: Path, codec: str) -> None:
    values = sample((4, 3, 2, 2, 1))
    path = tmp_path / "a.zarr"
    array = make(path, values, (4, 3, 2, 2, 1), V3_CODECS[codec])
    file = chunk_file(path)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)
    with pytest.raises(CorruptDataError, match=r"crc32c is [0-9a-f]{8}, expected [0-9a-f]{8}"):
        ZarrCounts(array).read(0, 4, 0)


@pytest.mark.parametrize("size", [4 * 3 * 2 * 2 - 1, 4 * 3 * 2 * 2 + 1])
@pytest.mark.parametrize("codec", [c for c in V2_CODECS if c != "none"])
def test_a_chunk_that_decodes_to_another_size_is_corrupt(
    tmp_path: Path, codec: str, size: int
) -> None:
    """numcodecs leaves the rest of a destination as it was when the data are short."""
    path = tmp_path / "a.zarr"
    array = make(path, sample((4, 3, 2, 2, 1)), (4, 3, 2, 2, 1), V2_CODECS[codec], zarr_format=2)
    chunk_file(path).write_bytes(V2_CODECS[codec].encode(np.zeros(size, "i4")))
    with pytest.raises(CorruptDataError, match="expected"):
        ZarrCounts(array).read(0, 4, 0)


def test_a_failed_decode_is_tried_again(tmp_path: Path) -> None:
    values = sample((4, 3, 2, 2, 2))
    path = tmp_path / "a.zarr"
    counts = ZarrCounts(make(path, values, (4, 3, 2, 2, 2)))
    file = chunk_file(path)
    content = file.read_bytes()
    file.write_bytes(b"")
    with pytest.raises(CorruptDataError, match="empty"):
        counts.read(0, 4, 0)
    file.write_bytes(content)
    np.testing.assert_array_equal(counts.read(0, 4, 0), values[..., 0])


def plain_frame(data: bytes, *, declare: bool, checksum_bit: bool = False) -> bytes:
    """A zstd frame of one raw block, with or without the content size in its header."""
    header = struct.pack("<I", 0xFD2FB528)
    if declare:
        header += bytes([0b10100000]) + struct.pack("<I", len(data))
    else:
        header += bytes([0x00, 0x58])
    return header + ((len(data) << 3) | 1).to_bytes(3, "little") + data


@pytest.mark.parametrize("pieces", [1, 2, 3, 7])
@pytest.mark.parametrize("kind", ["compressed", "plain", "plain, size not declared", "skippable"])
def test_concatenated_zstd_frames(tmp_path: Path, kind: str, pieces: int) -> None:
    """A chunk may be several zstd frames one after the other (batched GPU encoders write so)."""
    values = sample((4, 3, 2, 2, 1))
    path = tmp_path / "a.zarr"
    array = make(path, values, (4, 3, 2, 2, 1), numcodecs.Zstd(1), zarr_format=2)
    parts = [p.tobytes() for p in np.array_split(values.reshape(-1), pieces)]
    if kind == "compressed":
        frames = [numcodecs.Zstd(1, checksum=bool(i % 2)).encode(p) for i, p in enumerate(parts)]
    else:
        frames = [plain_frame(p, declare="not declared" not in kind) for p in parts]
    if kind == "skippable":
        frames.insert(1, struct.pack("<II", 0x184D2A50, 3) + b"abc")
    chunk_file(path).write_bytes(b"".join(frames))
    np.testing.assert_array_equal(ZarrCounts(array).read(0, 4, 0), values[..., 0])


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_cut_concatenated_frames(tmp_path: Path, cut: int) -> None:
    values = sample((4, 3, 2, 2, 1))
    path = tmp_path / "a.zarr"
    array = make(path, values, (4, 3, 2, 2, 1), numcodecs.Zstd(1), zarr_format=2)
    parts = np.array_split(values.reshape(-1), 3)
    frames = b"".join(plain_frame(p.tobytes(), declare=False) for p in parts)
    chunk_file(path).write_bytes(frames[:-cut])
    with pytest.raises(CorruptDataError, match=r"cut off|zstd"):
        ZarrCounts(array).read(0, 4, 0)


def test_layout_names_the_files(tmp_path: Path) -> None:
    values = sample((4, 3, 2, 2, 2))
    array = make(tmp_path / "a.zarr", values, (4, 3, 2, 2, 1), V3_CODECS["blosc+crc"])
    files = chunk_files(array)
    assert files is not None
    assert (files.codec, files.checksum) == ("blosc", True)
    assert all(files.path((0, 0, 0, 0, s)).is_file() for s in range(2))
