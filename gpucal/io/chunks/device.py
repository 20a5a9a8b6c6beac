"""Compressed chunks for and from a device: files that it decodes, and zstd frames that it encoded.

A device is given nothing that is not whole frames of declared size that fill the chunk exactly.
Source: RFC 8878 (Zstandard frames); Zarr v3 core codecs.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.io.chunks.codecs import Payload, crc32c
from gpucal.io.chunks.layout import ChunkFiles
from gpucal.io.chunks.unpack import zstd_frames
from gpucal.io.files.regular import check_regular, largest_file
from gpucal.scan import EncodedBlock, Frame

Bytes = npt.NDArray[np.uint8]
Shape5 = tuple[int, int, int, int, int]


def encoded_block(
    files: ChunkFiles | None, shape: Shape5, c0: int, c1: int, subscan: int
) -> EncodedBlock | str:
    """The files of channels c0..c1 of one subscan of an array ``shape``, or why they cannot be used.

    ``files`` is None where Zarr itself must read. Raises OSError when a file cannot be looked up,
    CorruptDataError when it is no regular one, or too large.
    """
    reason = _unsuitable(files, shape)
    if reason or files is None:
        return reason
    rows = files.chunk[0]
    found: list[Path | None] = []
    sizes = []
    nbytes = math.prod(files.chunk) * files.stored.itemsize
    for channel in range(c0 // rows, -(-c1 // rows)):
        path = files.path((channel, 0, 0, 0, subscan))
        try:
            sizes.append(check_regular(path, largest_file(nbytes)))
            found.append(path)
        except FileNotFoundError:
            if files.fill_value is None:
                return f"the chunk file {path} is not there"
            sizes.append(0)
            found.append(None)
    fill = np.asarray(files.fill_value or 0).astype(files.stored.newbyteorder("="))[()]
    return EncodedBlock(
        first=c0 // rows * rows,
        rows=rows,
        paths=tuple(found),
        sizes=tuple(sizes),
        compressed=bool(files.codec),
        checksum=files.checksum,
        fill=fill,
        frames=partial(_frames_of_file, files, nbytes),
        frames_on_disk=partial(_frames_on_disk, files, nbytes),
    )


def _unsuitable(files: ChunkFiles | None, shape: Shape5) -> str:
    """Why a device cannot decode these chunk files; "" when it can."""
    if files is None:
        return "the layout of the raw counts is one that only Zarr itself reads"
    if files.codec not in ("", "zstd"):
        return f"the raw counts are compressed with {files.codec}, the device decodes zstd"
    if files.chunk[4] != 1:
        return f"a chunk of the raw counts holds {files.chunk[4]} subscans, the device needs one"
    if files.chunk[1:4] != shape[1:4]:
        return (
            f"chunks of the raw counts hold {files.chunk[1:4]} dumps, receivers and pixels of "
            f"{tuple(shape[1:4])}, the device needs all in one"
        )
    if not files.stored.isnative:
        return "the raw counts are big endian"
    return ""


def _frames_of_file(files: ChunkFiles, nbytes: int, data: Bytes) -> list[Frame]:
    """Frames of a whole file; ValueError as on the host."""
    data = files.checked(data)
    if not files.codec:
        return _plain(data.size, nbytes)
    return _exact(zstd_frames(_reader(data), data.size), nbytes)


def _frames_on_disk(files: ChunkFiles, nbytes: int, path: Path) -> list[Frame]:
    """The same from the headers of its blocks alone, so that no checksum is verified."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = max(os.fstat(descriptor).st_size - 4 * files.checksum, 0)
        if not files.codec:
            return _plain(size, nbytes)
        return _exact(zstd_frames(lambda at, n: os.pread(descriptor, n, at), size), nbytes)
    finally:
        os.close(descriptor)


def _plain(size: int, nbytes: int) -> list[Frame]:
    """The one frame of a file that is not compressed; raises ValueError for another size."""
    if size != nbytes:
        raise ValueError(f"it has {size} bytes, expected {nbytes}")
    return [Frame(0, size, size)]


def _exact(walk: Iterable[tuple[int, int, int | None]], nbytes: int) -> list[Frame]:
    """The zstd frames that hold counts; raises ValueError unless they fill the chunk exactly."""
    frames = []
    for start, end, content in walk:
        if content is None:
            raise ValueError("a zstd frame does not declare its size")
        if content:
            frames.append(Frame(start, end - start, content))
    found = sum(frame.nbytes for frame in frames)
    if found != nbytes:
        raise ValueError(f"it holds {found} bytes of counts, expected {nbytes}")
    return frames


def frames_payload(data: Bytes, nbytes: int) -> Payload:
    """The payload of one chunk of ``nbytes`` that a device encoded as zstd frames, u8.

    The payload borrows the memory of ``data``. Raises ValueError unless the frames are whole and
    declare the size of the chunk: what a device returns is not trusted blindly.
    """
    _exact(zstd_frames(_reader(data), data.size), nbytes)
    view: Any = data
    return Payload(memoryview(view), crc32c(data))


def _reader(data: Bytes) -> Callable[[int, int], bytes]:
    """``data`` as the function (offset, n) -> bytes through which frames are walked."""
    return lambda at, n: data[at : at + n].tobytes()
