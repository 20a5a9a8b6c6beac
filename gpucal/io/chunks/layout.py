"""Decode the chunk files of a local Zarr array straight into memory.

The Zarr pipeline copies each chunk several times; for the plain layouts that raw counts use
(bytes, one compressor, crc32c) the file can be decoded into the destination instead. Sources: Zarr
v2 and v3 core specifications; RFC 8878 (Zstandard frames); Blosc 1 header format.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.io.chunks.unpack import Bytes, decompress, unpacked_size
from gpucal.io.files.regular import largest_file, open_regular, read_document

_CODECS = {"zstd": "zstd", "blosc": "blosc", "gzip": "gzip", "zlib": "zlib", "lz4": "lz4"}


class MissingChunkError(ValueError):
    """A chunk has no file, and its numbers none that means no data."""


@dataclass(frozen=True)
class ChunkFiles:
    """Location and coding of the chunk files of one array.

    stored: dtype in the file, with its byte order; chunk: shape of a whole chunk; codec: name of
    the compressor, "" for none; checksum: a crc32c ends the file.
    """

    folder: Path
    prefix: str
    separator: str
    chunk: tuple[int, ...]
    stored: np.dtype[Any]
    codec: str
    checksum: bool
    fill_value: Any

    def path(self, key: tuple[int, ...]) -> Path:
        """File of the chunk with the grid index ``key``."""
        return self.folder / (self.prefix + self.separator.join(map(str, key)))

    def decode(self, key: tuple[int, ...], out: npt.NDArray[Any]) -> None:
        """Decode a chunk into ``out``: whole chunk shape, C order, native byte order.

        A chunk without a file is all ``fill_value``; where that is None, MissingChunkError. Raises
        ValueError saying what is wrong with the file, OSError when it cannot be read. Several
        threads may decode at once.
        """
        raw = out.reshape(-1).view(np.uint8)
        try:
            with open_regular(self.path(key), largest_file(raw.size)) as file:
                if self.codec:
                    decompress(self.codec, self.checked(_read_all(file)), raw)
                else:
                    self._read_plain(file, raw)
        except FileNotFoundError:
            if self.fill_value is None:
                raise MissingChunkError("it is not there") from None
            out[...] = self.fill_value
            return
        if not self.stored.isnative:
            out.byteswap(inplace=True)

    def checked(self, data: Bytes) -> Bytes:
        """The bytes of a file without their checksum; ValueError when that is wrong."""
        if not self.checksum:
            return data
        if data.size < 4:
            raise ValueError(f"it has {data.size} bytes, not even a checksum")
        _verify(data[:-4], data[-4:])
        return data[:-4]

    def _read_plain(self, file: Any, raw: Bytes) -> None:
        """Read a chunk that is not compressed straight into ``raw``, and verify it."""
        got = _fill(file, raw)
        tail = np.frombuffer(file.read(5), np.uint8)
        wanted = 4 if self.checksum else 0
        if got != raw.size or tail.size != wanted:
            found = file.seek(0, 2)
            raise ValueError(f"it has {found} bytes, expected {raw.size + wanted}")
        if self.checksum:
            _verify(raw, tail)


class _Scratch(threading.local):
    """One reused byte buffer per thread and purpose: fresh memory costs page faults each time."""

    def __init__(self) -> None:
        self.buffers: dict[str, Bytes] = {}

    def take(self, purpose: str, size: int) -> Bytes:
        buffer = self.buffers.get(purpose)
        if buffer is None or buffer.size < size:
            buffer = self.buffers[purpose] = np.empty(size, np.uint8)
        return buffer[:size]


SCRATCH = _Scratch()


def chunk_files(array: Any) -> ChunkFiles | None:
    """Layout of a Zarr array's chunk files, or None where Zarr itself must read it.

    None: not a plain local store, sharding, filters, transposed or F order, other codecs.
    """
    from zarr.storage import LocalStore

    store = array.store
    if not isinstance(store, LocalStore):
        return None
    folder = Path(store.root) / array.path
    v3 = array.metadata.zarr_format == 3
    try:
        document = json.loads(read_document(folder / ("zarr.json" if v3 else ".zarray")))
        layout = _layout_v3(document) if v3 else _layout_v2(document)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if layout is None or (layout["checksum"] and not _can_verify()):
        return None
    fill = array.fill_value
    return ChunkFiles(folder=folder, fill_value=0 if fill is None else fill, **layout)


def has_checksum(document: Mapping[str, Any]) -> bool:
    """Whether the metadata of an array say that the bytes of every chunk end with a crc32c, those in shards too.

    The index of a shard always has one; it says nothing about the numbers.
    """
    codecs: list[dict[str, Any]] = [
        {"name": c} if isinstance(c, str) else c for c in document.get("codecs") or ()
    ]
    if not codecs:
        return False
    last = codecs[-1]
    if last["name"] == "sharding_indexed":
        return has_checksum(last["configuration"])
    return bool(last["name"] == "crc32c")


def with_fill(array: Any, value: Any) -> Any:
    """The same Zarr array, of which chunks that are not there, in shards too, read as ``value``."""
    import zarr

    inner = array.async_array
    fill = np.asarray(value).astype(array.dtype)[()]
    metadata = replace(array.metadata, fill_value=fill)
    return zarr.Array(zarr.AsyncArray(metadata, array.store_path, inner.config))


def _layout_v3(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """Chunk layout from a zarr.json; None for grids, keys or codecs that are not decoded here."""
    grid, keys = document["chunk_grid"], document["chunk_key_encoding"]
    if grid["name"] != "regular" or document.get("storage_transformers"):
        return None
    if keys["name"] not in ("default", "v2"):
        return None
    default = keys["name"] == "default"
    separator = keys.get("configuration", {}).get("separator", "/" if default else ".")
    codecs: list[dict[str, Any]] = [
        {"name": codec, "configuration": {}} if isinstance(codec, str) else codec
        for codec in document["codecs"]
    ]
    first = codecs.pop(0)
    order = {"little": "<", "big": ">"}.get(first.get("configuration", {}).get("endian"))
    if first["name"] != "bytes" or order is None:
        return None
    checksum = bool(codecs) and codecs[-1]["name"] == "crc32c"
    if checksum:
        codecs.pop()
    name = codecs.pop()["name"].removeprefix("numcodecs.") if codecs else ""
    if codecs or (name and name not in _CODECS):
        return None
    return {
        "prefix": f"c{separator}" if default else "",
        "separator": separator,
        "chunk": tuple(grid["configuration"]["chunk_shape"]),
        "stored": np.dtype(document["data_type"]).newbyteorder(order),
        "codec": name,
        "checksum": checksum,
    }


def _layout_v2(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """Chunk layout from a .zarray; None for orders, filters or codecs that are not decoded here."""
    if document.get("order", "C") != "C" or document.get("filters"):
        return None
    compressor = document.get("compressor")
    name = compressor["id"] if compressor else ""
    if name and name not in _CODECS:
        return None
    return {
        "prefix": "",
        "separator": document.get("dimension_separator", "."),
        "chunk": tuple(document["chunks"]),
        "stored": np.dtype(document["dtype"]),
        "codec": name,
        "checksum": False,
    }


def _read_all(file: Any) -> Bytes:
    """The whole file in a buffer of this thread, valid until its next read."""
    size = file.seek(0, 2)
    file.seek(0)
    buffer = SCRATCH.take("file", size)
    got = _fill(file, buffer)
    return buffer[:got]


def _fill(file: Any, buffer: Bytes) -> int:
    """Read until the buffer is full or the file ends; return the number of bytes."""
    view, got = buffer.data, 0
    while got < len(view):
        count = file.readinto(view[got:])
        if not count:
            break
        got += count
    return got


def _can_verify() -> bool:
    """Whether the package that computes crc32c is installed."""
    try:
        import google_crc32c  # noqa: F401
    except ImportError:
        return False
    return True


def _verify(data: Bytes, checksum: Bytes) -> None:
    """Raise ValueError unless the bytes have this crc32c."""
    import google_crc32c

    found, expected = google_crc32c.value(data), int.from_bytes(checksum.tobytes(), "little")
    if found != expected:
        raise ValueError(f"its crc32c is {found:08x}, expected {expected:08x}")


def check_fits(document: Mapping[str, Any], data: Bytes) -> None:
    """Raise ValueError unless a chunk file, without its checksum, unpacks to the size of a chunk of this zarr.json.

    That size is all the memory that is ever used; the headers alone are read where they tell. Arrays with other
    codecs than ours are not looked at.
    """
    layout = _layout_v3(document)
    if layout is None or not layout["codec"]:
        return
    nbytes = math.prod(layout["chunk"]) * layout["stored"].itemsize
    declared = unpacked_size(layout["codec"], data)
    if declared is None:
        decompress(layout["codec"], data, np.empty(nbytes, np.uint8))
    elif declared != nbytes:
        raise ValueError(f"it holds {declared} bytes, expected {nbytes}")
