"""Decompress chunks into memory of their size and no more: a small file that holds far more is an error."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

_ZSTD_MAGIC = 0xFD2FB528


def decompress(name: str, data: Bytes, out: Bytes) -> None:
    """Decode ``data`` so that it fills ``out`` exactly, else ValueError."""
    from numcodecs import get_codec

    codec = get_codec({"id": name})
    if not data.size:
        raise ValueError("it is empty")
    declared = _declared_size(name, data)
    if declared is not None and declared != out.size and name != "zstd":
        raise ValueError(f"it holds {declared} bytes of counts, expected {out.size}")
    if name in ("gzip", "zlib"):
        _inflate(31 if name == "gzip" else 15, data, out)
        return
    try:
        if declared == out.size:
            # numcodecs leaves the rest of a too large ``out`` untouched without a word: only a
            # declared size that fits may go straight into it
            codec.decode(data, out=out)
        elif name == "zstd":
            _decode_frames(codec, data, out)
        else:
            raise ValueError(f"its size is not declared, expected {out.size} bytes of counts")
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error


def _decode_frames(codec: Any, data: Bytes, out: Bytes) -> None:
    """Decode zstd frames, none of them into more memory than is left of ``out``."""
    filled = 0
    frames = zstd_frames(lambda at, n: data[at : at + n].tobytes(), data.size)
    for start, end, content in frames:
        left = out.size - filled
        if content is None and left:
            # How much it holds only decoding tells: it and all that follow must fill the rest exactly.
            codec.decode(data[start:], out=out[filled:])
            return
        if content is None or content > left:
            raise ValueError(f"it holds more than the expected {out.size} bytes of counts")
        if content:
            codec.decode(data[start:end], out=out[filled : filled + content])
            filled += content
    if filled != out.size:
        raise ValueError(f"it holds {filled} bytes of counts, expected {out.size}")


def _inflate(wbits: int, data: Bytes, out: Bytes) -> None:
    """Decode one or several gzip or zlib streams that fill ``out`` exactly; no more memory is used."""
    rest, filled = data.tobytes(), 0
    while rest.strip(b"\0"):
        stream = zlib.decompressobj(wbits)
        try:
            piece = stream.decompress(rest, out.size - filled + 1)
        except zlib.error as error:
            raise ValueError(f"{error}") from error
        if filled + len(piece) > out.size:
            raise ValueError(f"it holds more than the expected {out.size} bytes of counts")
        if not stream.eof:
            raise ValueError("its last stream is cut off")
        out[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
        filled += len(piece)
        rest = stream.unused_data
    if filled != out.size:
        raise ValueError(f"it holds {filled} bytes of counts, expected {out.size}")


def _declared_size(name: str, data: Bytes) -> int | None:
    """Decoded size that the head of the data declares; None where it declares none."""
    if name == "zstd":
        head = data[:18].tobytes()
        return None if _is_skippable(head) else _zstd_header(head)[1]
    if name == "lz4" and data.size >= 4:
        return int.from_bytes(data[:4].tobytes(), "little")
    if name == "blosc":
        if data.size < 16:
            raise ValueError(f"it has {data.size} bytes, less than a blosc header")
        nbytes, _, stored = struct.unpack("<III", data[4:16].tobytes())
        if stored != data.size:
            raise ValueError(f"it has {data.size} bytes, its blosc header says {stored}")
        return int(nbytes)
    return None


def unpacked_size(name: str, data: Bytes) -> int | None:
    """Decoded size of a whole file, of several zstd frames too; None where a part of it does not declare any."""
    if name != "zstd":
        return _declared_size(name, data)
    frames = zstd_frames(lambda at, n: data[at : at + n].tobytes(), data.size)
    sizes = [content for _, _, content in frames]
    return None if None in sizes else sum(size or 0 for size in sizes)


def _zstd_header(head: bytes) -> tuple[int, int | None]:
    """Size of a frame's header and the content size in it (None: not declared). RFC 8878, 3.1.1."""
    if len(head) < 6 or int.from_bytes(head[:4], "little") != _ZSTD_MAGIC:
        raise ValueError("it does not start with a zstd frame")
    descriptor = head[4]
    single = descriptor >> 5 & 1
    start = 5 + (1 - single)
    at = start + (0, 1, 2, 4)[descriptor & 3]
    if dictionary := int.from_bytes(head[start:at], "little"):
        raise ValueError(
            f"it was compressed with the zstd dictionary {dictionary}, which no Zarr store holds; "
            "write it without a dictionary"
        )
    width = (single, 2, 4, 8)[descriptor >> 6]
    content = int.from_bytes(head[at : at + width], "little") if width else None
    if width == 2 and content is not None:
        content += 256
    return at + width, content


def _is_skippable(head: bytes) -> bool:
    """Whether a frame is one that holds no content: notes of a program, as pzstd and seekable formats write."""
    return len(head) >= 4 and int.from_bytes(head[:4], "little") & 0xFFFFFFF0 == 0x184D2A50


def zstd_frames(
    read: Callable[[int, int], bytes], size: int
) -> Iterator[tuple[int, int, int | None]]:
    """Walk concatenated zstd frames: (start, end, declared content size or None) of each.

    ``read(at, n)`` gives n bytes from offset ``at``, fewer at the end; only headers are read.
    Skippable frames are left out. Raises ValueError for anything that is not whole frames.
    """
    start = 0
    while start < size:
        head = read(start, 18)
        if _is_skippable(head):
            start += 8 + int.from_bytes(head[4:8], "little")
            if start > size:
                raise ValueError("its last zstd frame is cut off")
            continue
        header, content = _zstd_header(head)
        end, last = start + header, False
        while not last:
            text = read(end, 3)
            if len(text) < 3:
                raise ValueError("its last zstd frame is cut off")
            block = int.from_bytes(text, "little")
            last = bool(block & 1)
            if content is None and last and end == start + header and not block >> 3:
                content = 0  # its only block is empty
            end += 3 + (1 if block >> 1 & 3 == 1 else block >> 3)
        end += 4 if head[4] >> 2 & 1 else 0
        if end > size:
            raise ValueError("its last zstd frame is cut off")
        yield start, end, content
        start = end
