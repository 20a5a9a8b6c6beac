"""A small file that unpacks to far more than its chunk is an error, and never takes the memory."""

from __future__ import annotations

import os
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr

from gpucal import CorruptDataError, open_l1
from gpucal.io.chunks.codecs import crc32c
from gpucal.io.chunks.counts import ZarrCounts
from gpucal.io.chunks.small_arrays import read_whole
from gpucal.io.l1.writer import L1Store

SHAPE = (64, 4, 2, 2, 1)
NBYTES = 4 * int(np.prod(SHAPE))
BOMB = 256 << 20
MOST = 16 << 20
"""Memory in bytes that is fair for a chunk of 4 kB: readers keep some buffers."""


def zstd(declared: int | None) -> bytes:
    """A frame of 2048 blocks, each a byte repeated 128 Ki times; RFC 8878, 3.1.1."""
    header = b"\x28\xb5\x2f\xfd"
    header += b"\x00\x50" if declared is None else b"\xc0\x50" + declared.to_bytes(8, "little")
    blocks = BOMB >> 17
    body = [
        ((1 << 17) << 3 | 1 << 1 | (n == blocks - 1)).to_bytes(3, "little") for n in range(blocks)
    ]
    return header + b"".join(block + b"\0" for block in body)


def deflated(wbits: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    parts = [packer.compress(bytes(1 << 20)) for _ in range(BOMB >> 20)]
    return b"".join([*parts, packer.flush()])


def blosc(claimed: int) -> bytes:
    data = bytearray(numcodecs.Blosc("zstd").encode(np.zeros(1 << 12, "u1")))
    data[4:8] = claimed.to_bytes(4, "little")
    return bytes(data)


def lz4(claimed: int) -> bytes:
    data = bytearray(numcodecs.LZ4().encode(np.zeros(1 << 12, "u1")))
    data[:4] = claimed.to_bytes(4, "little")
    return bytes(data)


BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "zstd, size declared": ("zstd", lambda: zstd(BOMB)),
    "zstd, size not declared": ("zstd", lambda: zstd(None)),
    "zstd, another size declared": ("zstd", lambda: zstd(NBYTES)),
    "zstd, more than any memory declared": ("zstd", lambda: zstd(1 << 50)),
    "zstd, two frames": ("zstd", lambda: numcodecs.Zstd(1).encode(bytes(64)) + zstd(None)),
    "gzip": ("gzip", lambda: deflated(31)),
    "zlib": ("zlib", lambda: deflated(15)),
    "blosc": ("blosc", lambda: blosc(0x7FFFFF00)),
    "lz4": ("lz4", lambda: lz4(0x7E000000)),
}


def with_bomb(path: Path, codec: str, bomb: bytes) -> Any:
    """An array (Zarr v2, which knows all these codecs) whose only chunk is this file."""
    made = {
        "zstd": numcodecs.Zstd(1),
        "gzip": numcodecs.GZip(1),
        "zlib": numcodecs.Zlib(1),
        "blosc": numcodecs.Blosc("zstd"),
        "lz4": numcodecs.LZ4(),
    }[codec]
    array = zarr.create_array(
        str(path), shape=SHAPE, chunks=SHAPE, dtype="<i4", compressors=made, zarr_format=2
    )
    array[...] = np.ones(SHAPE, np.int32)
    [chunk] = [p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".z")]
    chunk.write_bytes(bomb)
    return zarr.open_array(str(path), mode="r")


def read_counts(array: Any) -> None:
    ZarrCounts(array, cache_bytes=0, scan=1, band="").read(0, SHAPE[0], 0)


def read_small_array(array: Any) -> None:
    read_whole("mjd", array)


@pytest.mark.parametrize("read", [read_counts, read_small_array])
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_does_not_unpack(name: str, read: Callable[[Any], None], tmp_path: Path) -> None:
    codec, make = BOMBS[name]
    bomb = make()
    assert len(bomb) < 2 * NBYTES + (1 << 20)
    array = with_bomb(tmp_path / "a", codec, bomb)
    tracemalloc.start()
    try:
        with pytest.raises(CorruptDataError):
            read(array)
        assert tracemalloc.get_traced_memory()[1] < MOST
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", [n for n in BOMBS if n.startswith("zstd")])
def test_a_bomb_in_l1_with_a_right_checksum(name: str, tmp_path: Path) -> None:
    """Zarr itself reads L1: it never gets such a chunk."""
    bomb = BOMBS[name][1]()
    store = L1Store(tmp_path / "l1")
    with store.begin(3) as scan:
        scan.put("", "t_rec", np.zeros(64), ("channel",))
        scan.commit()
    chunk = store.scan_path(3) / "t_rec/c/0"
    chunk.write_bytes(bomb + crc32c(bomb))
    array = open_l1(store.path)[3]["t_rec"]
    tracemalloc.start()
    try:
        with pytest.raises(CorruptDataError, match=r"scan 3: array t_rec: chunk file .* cannot be"):
            array[...]
        assert tracemalloc.get_traced_memory()[1] < MOST
    finally:
        tracemalloc.stop()


def test_a_device_gets_regular_files_alone(tmp_path: Path) -> None:
    array = zarr.create_array(str(tmp_path / "a"), shape=SHAPE, chunks=SHAPE, dtype="i4")
    array[...] = np.ones(SHAPE, np.int32)
    counts = ZarrCounts(array, cache_bytes=0, scan=4, band="")
    assert not isinstance(counts.encoded(0, SHAPE[0], 0), str)
    chunk = tmp_path / "a/c/0/0/0/0/0"
    os.truncate(chunk, 1 << 33)
    with pytest.raises(CorruptDataError, match=r"scan 4, subscan 0: .* has 8589934592 bytes"):
        counts.encoded(0, SHAPE[0], 0)
    chunk.unlink()
    os.mkfifo(chunk)
    with pytest.raises(CorruptDataError, match=r"scan 4, subscan 0: .* is a FIFO"):
        counts.encoded(0, SHAPE[0], 0)
