"""Every zstd stream that zarr-python reads is read by our own decoder, and gives the same counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs.zstd import Zstd
from zarr.codecs import ZstdCodec

from gpucal import errors
from gpucal.io.chunks.counts import ZarrCounts
from gpucal.io.chunks.unpack import decompress, zstd_frames

SHAPE = (7, 3, 2, 5, 1)
VALUES = np.random.default_rng(3).integers(0, 90, SHAPE).astype(np.int32)
RAW = VALUES.tobytes()
MAGIC = 0xFD2FB528.to_bytes(4, "little")


def skippable(content: bytes, kind: int = 0) -> bytes:
    return (0x184D2A50 + kind).to_bytes(4, "little") + len(content).to_bytes(4, "little") + content


def without_size(frame: bytes) -> bytes:
    """The same frame with a window instead of the content size (RFC 8878, 3.1.1.1)."""
    descriptor = frame[4]
    assert descriptor & 0x20
    width = (1, 2, 4, 8)[descriptor >> 6]
    return frame[:4] + bytes([descriptor & 0x04, 0x58]) + frame[5 + width :]


def stored_blocks(content: bytes, size: int) -> bytes:
    """A frame of uncompressed blocks, as an encoder writes that gave up; no content size."""
    pieces = [content[i : i + size] for i in range(0, len(content), size)] or [b""]
    blocks = b"".join(
        (len(p) << 3 | (i == len(pieces) - 1)).to_bytes(3, "little") + p
        for i, p in enumerate(pieces)
    )
    return MAGIC + bytes([0, 0x58]) + blocks


def repeated_byte(byte: int, times: int) -> bytes:
    """A frame with one RLE block."""
    return MAGIC + bytes([0, 0x58]) + (times << 3 | 2 | 1).to_bytes(3, "little") + bytes([byte])


def with_dictionary(frame: bytes, number: int) -> bytes:
    """The same frame saying that it needs a dictionary."""
    descriptor = frame[4] & ~3 | 1
    return frame[:4] + bytes([descriptor, number]) + frame[5:]


HALF = len(RAW) // 2
STREAMS = {
    "skippable first": skippable(b"notes") + Zstd(1).encode(RAW),
    "skippable empty": skippable(b"") + Zstd(1).encode(RAW) + skippable(b"", 15),
    "skippable between": Zstd(1).encode(RAW[:HALF]) + skippable(b"x") + Zstd(1).encode(RAW[HALF:]),
    "checksum": Zstd(3, checksum=True).encode(RAW),
    "no size": without_size(Zstd(1).encode(RAW)),
    "no size, checksum": without_size(Zstd(1, checksum=True).encode(RAW)),
    "no size twice": b"".join(without_size(Zstd(1).encode(p)) for p in (RAW[:HALF], RAW[HALF:])),
    "declared, then not": Zstd(1).encode(RAW[:HALF]) + without_size(Zstd(1).encode(RAW[HALF:])),
    "blocks": stored_blocks(RAW, 100),
    "empty frame first": Zstd(1).encode(b"") + Zstd(1).encode(RAW),
    "empty frame last": Zstd(1).encode(RAW) + stored_blocks(b"", 9),
}


def array_of(path: Path, data: bytes) -> Any:
    """An array whose only chunk file holds ``data``."""
    array = zarr.create_array(
        path, shape=SHAPE, chunks=SHAPE, dtype="i4", compressors=ZstdCodec(level=1)
    )
    array[...] = VALUES
    (path / "c/0/0/0/0/0").write_bytes(data)
    return zarr.open_array(path, mode="r")


@pytest.mark.parametrize("name", STREAMS)
def test_stream_as_zarr_reads_it(tmp_path: Path, name: str) -> None:
    array = array_of(tmp_path / "a.zarr", STREAMS[name])
    np.testing.assert_array_equal(array[...], VALUES)
    counts = ZarrCounts(array)
    assert counts.direct
    np.testing.assert_array_equal(counts.read(0, SHAPE[0], 0), VALUES[..., 0])


BROKEN = {
    "dictionary": (with_dictionary(Zstd(1).encode(RAW), 77), "zstd dictionary 77"),
    "dictionary second": (
        Zstd(1).encode(RAW[:HALF]) + with_dictionary(Zstd(1).encode(RAW[HALF:]), 9),
        "zstd dictionary 9",
    ),
    "only notes": (skippable(b"notes"), "holds 0 bytes"),
    "notes cut": (skippable(b"notes")[:-1], "cut off"),
    "too much": (Zstd(1).encode(RAW) + Zstd(1).encode(b"1234"), "zstd|more than"),
    "too little": (Zstd(1).encode(RAW[:-4]), f"holds {len(RAW) - 4} bytes"),
    "garbage behind": (Zstd(1).encode(RAW) + b"abc", "zstd"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_wrong_stream_is_an_error(tmp_path: Path, name: str) -> None:
    data, words = BROKEN[name]
    counts = ZarrCounts(array_of(tmp_path / "a.zarr", data), scan=4)
    with pytest.raises(errors.CorruptDataError, match=words) as caught:
        counts.read(0, SHAPE[0], 0)
    assert caught.value.scan == 4


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A stream of any legal frames, and what it holds."""
    stream, content = b"", b""
    for _ in range(draw(st.integers(1, 5))):
        piece = draw(st.binary(max_size=400))
        encoded = Zstd(draw(st.sampled_from([-3, 1, 9])), checksum=draw(st.booleans())).encode(
            piece
        )
        form = draw(st.sampled_from(["plain", "no size", "blocks", "rle", "notes"]))
        if form == "plain":
            stream, content = stream + encoded, content + piece
        elif form == "no size" and encoded[4] & 0x20:
            stream, content = stream + without_size(encoded), content + piece
        elif form == "blocks":
            stream += stored_blocks(piece, draw(st.integers(1, 200)))
            content += piece
        elif form == "rle":
            times = draw(st.integers(1, 300))
            stream, content = stream + repeated_byte(7, times), content + bytes([7]) * times
        else:
            stream += skippable(piece, draw(st.integers(0, 15)))
    return stream, content


def decoded(stream: bytes, size: int) -> npt.NDArray[np.uint8]:
    out = np.zeros(size, np.uint8)
    decompress("zstd", np.frombuffer(stream, np.uint8), out)
    return out


@settings(max_examples=300, deadline=None)
@given(streams())
def test_any_legal_stream(case: tuple[bytes, bytes]) -> None:
    stream, content = case
    if not content:  # a chunk is never empty
        return
    assert decoded(stream, len(content)).tobytes() == content
    assert bytes(Zstd().decode(stream)) == content
    for wrong in (len(content) + 1, len(content) - 1):
        if wrong > 0:
            with pytest.raises(ValueError, match=r"bytes|zstd"):
                decoded(stream, wrong)


@settings(max_examples=200, deadline=None)
@given(streams(), st.data())
def test_cut_streams_are_never_read_as_whole(
    case: tuple[bytes, bytes], data: st.DataObject
) -> None:
    stream, content = case
    if not content:
        return
    cut = stream[: data.draw(st.integers(1, len(stream) - 1))]
    try:
        found = decoded(cut, len(content))
    except ValueError:
        return
    assert found.tobytes() == content  # only notes, or frames without content, were cut off
    assert sum(end - start for start, end, _ in zstd_frames(lambda a, n: cut[a : a + n], len(cut)))
