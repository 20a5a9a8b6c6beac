"""Chunk files packed side by side in memory, with the places of their zstd frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gpucal.backend.coders import Coder
from gpucal.backend.device_codec import CodecError
from gpucal.backend.lanes import Bytes, Span
from gpucal.scan import EncodedBlock, Frame

PAGE = 4096
"""Files start at multiples of this in page-locked and device memory: GDS wants it."""


class Piece(NamedTuple):
    """One file in work: its first ``size`` bytes hold the frames.

    data: these bytes where the host has read them, else None; place: where the chunk begins in the
    decoded window; at: where the file begins in the packed memory.
    """

    path: Path
    size: int
    data: Bytes | None
    frames: Sequence[Frame]
    place: int
    at: int


def read_pieces(coder: Coder, block: EncodedBlock, chunk: int, *, gds: bool) -> list[Piece]:
    """The files of a block, read into page-locked memory; only their headers where ``gds`` reads them.

    chunk: bytes of a decoded chunk. Raises OSError and ValueError where a file is not what it
    should be.
    """
    step = coder.codec.alignment if block.compressed else 1
    pieces: list[Piece] = []
    for i, (path, size) in enumerate(zip(block.paths, block.sizes, strict=True)):
        if path is None:
            continue
        frames: Sequence[Frame] = ()
        data: Bytes | None = None
        if gds and not block.checksum:
            frames = block.frames_on_disk(path)
        if not frames or any(frame.start % step for frame in frames):
            data = _read(path, coder.pinned(("file", i), size))
            frames = block.frames(data)
            if any(frame.start % step for frame in frames):
                room = coder.pinned(("moved", i), sum(round_up(f.size, step) for f in frames))
                data, frames = _moved(data, frames, room, step)
        end = frames[-1].start + frames[-1].size
        data = None if data is None else data[:end]
        at = round_up(pieces[-1].at + pieces[-1].size, PAGE) if pieces else 0
        pieces.append(Piece(path, end, data, frames, i * chunk, at))
    return pieces


def round_up(n: int, step: int) -> int:
    """The least multiple of ``step`` from n on."""
    return -(-n // step) * step


def _read(path: Path, out: Bytes) -> Bytes:
    """Read a file into ``out``, which has the size that the file had when it was looked up."""
    with open(path, "rb", buffering=0) as file:
        got = 0
        while got < out.size and (n := file.readinto(memoryview(out)[got:])):  # type: ignore[arg-type]
            got += n
    if got != out.size:
        raise ValueError(f"it has {got} bytes, expected {out.size}")
    return out


def _moved(
    data: Bytes, frames: Sequence[Frame], out: Bytes, step: int
) -> tuple[Bytes, list[Frame]]:
    """Copy of the frames to other memory, at multiples of ``step``."""
    moved: list[Frame] = []
    at = 0
    for start, size, nbytes in frames:
        out[at : at + size] = data[start : start + size]
        moved.append(Frame(at, size, nbytes))
        at += round_up(size, step)
    return out, moved


class Spans(NamedTuple):
    """Places of the frames in the packed memory, and of what they decode to in the window."""

    frames: list[Span]
    places: list[Span]


def spans_of(pieces: Sequence[Piece], step: int) -> Spans:
    """Spans of all frames of the pieces. Raises CodecError where counts are not at a multiple of ``step``."""
    spans = Spans([], [])
    for piece in pieces:
        place = piece.place
        for frame in piece.frames:
            if place % step:
                raise CodecError(f"counts at byte {place} do not lie at a multiple of {step}")
            spans.frames.append(Span(piece.at + frame.start, frame.size))
            spans.places.append(Span(place, frame.nbytes))
            place += frame.nbytes
    return spans
