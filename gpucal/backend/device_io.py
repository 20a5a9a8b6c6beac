"""Chunk files decoded and encoded on the device: only compressed bytes cross the bus.

Files are read into page-locked memory, or by GPUDirect Storage straight into device memory, and
decoded there; spectra are encoded there. Whatever the device cannot do the host does, with one
message per night for reading and one for writing; a file that is wrong is read again on the host,
which says what is wrong with it. The device is never asked to decode anything but whole frames
whose declared sizes fill the chunk.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpucal.backend.device_codec import CodecError, DeviceTools
from gpucal.backend.health import Health
from gpucal.backend.lanes import Array, Bytes, DeviceLane, LanePool
from gpucal.errors import BackendError
from gpucal.scan import CountsSource, EncodedBlock, Frame

PAGE = 4096
"""Files start at multiples of this in page-locked and device memory: GDS wants it."""

LEVEL = "zstd:1"

Message = Callable[[Any, str], None]


def with_device_io(backend: Any, choice: str, codec: str, message: Message) -> Any:
    """The backend with lanes that read and write on the device, as far as ``choice`` and it allow.

    choice: auto, host or device; codec: that of the spectra, such as "zstd:1". ``message`` gets the
    reasons for what the host does instead: as warnings where the device was asked for. nvCOMP has
    no levels, so auto lets the host encode any other zstd level than 1. Never raises for what is
    missing.
    """
    asked = choice == "device"
    if choice == "host" or (backend.device_io is None and not asked):
        return backend
    level = "warning" if asked else "info"
    if backend.device_io is None:
        message(
            level, f"counts are read and spectra written by the host: {backend.name} has no device."
        )
        return backend
    tools = backend.device_io()
    io = DeviceIO(tools, level, message)
    if tools.codec is None:
        io.host("reads", tools.missing)
        io.host("writes", tools.missing)
        return backend
    name, _, _ = codec.partition(":")
    if name != "zstd":
        io.host("writes", f"the codec is {codec}, the device encodes zstd")
    elif codec != LEVEL and not asked:
        io.host("writes", f"the device has no zstd levels, {codec} was asked for")
    work = "reads counts and writes spectra" if io.writes else "reads counts"
    message("info", f"the device {work}: {tools.described}.")
    return replace(
        backend,
        lanes=lambda count: LanePool(count, lambda: DeviceIOLane(io)),
        health=HealthWithCoders(backend.health, io),
    )


class DeviceIO:
    """What all lanes of a night share: the coders, and what was already said.

    There are as many coders as threads that read or write at once.
    """

    def __init__(self, tools: DeviceTools, level: str, message: Message) -> None:
        self.streams = tools.streams
        self.files = tools.files
        self.reads = self.writes = True
        self._tools = tools
        self._idle: list[Coder] = []
        self._level, self._message = level, message
        self._said: set[str] = set()
        self._lock = threading.Lock()

    @contextmanager
    def coder(self) -> Iterator[Coder]:
        """A coder that no other thread uses; the last one used, if possible. Raises CodecError."""
        with self._lock:
            coder = self._idle.pop() if self._idle else None
        try:
            coder = coder or Coder(self._tools)
        except CodecError as error:  # no thread will fare better
            self.host("reads", str(error))
            self.host("writes", str(error))
            raise
        try:
            yield coder
        finally:
            with self._lock:
                self._idle.append(coder)

    def forget(self) -> None:
        """Let go of the coders that are not in use, and of their memory."""
        with self._lock:
            self._idle.clear()

    def host(self, what: str, reason: str, *, forever: bool = True) -> None:
        """The host ``reads`` or ``writes`` for this reason: the first one is told.

        forever: the device is not tried again this night.
        """
        with self._lock:
            if forever:
                setattr(self, what, False)
            if what in self._said:
                return
            self._said.add(what)
        subject = "counts are read" if what == "reads" else "spectra are encoded"
        self._message(self._level, f"{subject} by the host: {reason.rstrip('.')}.")

    def block(self, counts: CountsSource, c0: int, c1: int, subscan: int) -> EncodedBlock | None:
        """The files of these counts; None where the host must read them, the reason is told."""
        if not self.reads:
            return None
        encoded = getattr(counts, "encoded", None)
        reason = "the raw counts are not files"
        if encoded is not None:
            found = encoded(c0, c1, subscan)
            if isinstance(found, EncodedBlock):
                return found
            reason = found
        self.host("reads", reason, forever=False)
        return None


class HealthWithCoders(Health):
    """The device's own, which can also free the memory of the coders."""

    def __init__(self, device: Health, io: DeviceIO) -> None:
        self._device, self._io = device, io

    def failure(self, error: BaseException) -> BackendError | None:
        """See ``Health.failure``."""
        return self._device.failure(error)

    def free_bytes(self) -> int | None:
        """See ``Health.free_bytes``."""
        return self._device.free_bytes()

    def release(self) -> None:
        """See ``Health.release``."""
        self._io.forget()
        self._device.release()


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


class Coder:
    """A stream with its codec and its memory, used by one thread at a time."""

    def __init__(self, tools: DeviceTools) -> None:
        assert tools.codec is not None
        device = tools.streams.device
        self.stream = device.stream()
        self.codec = tools.codec(self.stream)
        self._device, self._compute = device, tools.streams.compute
        self._pinned: dict[tuple[str, int], Bytes] = {}
        self._memory: Array | None = None

    def pinned(self, key: tuple[str, int], nbytes: int) -> Bytes:
        """Page-locked memory of this coder."""
        buffer = self._pinned.get(key)
        if buffer is None or buffer.size < nbytes:
            buffer = self._pinned[key] = self._device.pinned(nbytes)
        return buffer[:nbytes]

    def memory(self, nbytes: int) -> Array:
        """Device memory for encoded bytes, u8; the same memory each time while it is large enough."""
        if self._memory is None or self._memory.nbytes < nbytes:
            self._memory = None
            self._memory = self._device.memory(nbytes)
            # The pool gives it in the order of the compute stream: steps of other threads that were
            # queued before it was free may still use it, and neither this stream nor GDS knows.
            self._compute.record().synchronize()
        return self._memory

    def finish(self) -> None:
        """Wait for all work of this coder."""
        self.stream.record().synchronize()


class DeviceIOLane(DeviceLane):
    """A ``DeviceLane`` that reads chunk files and encodes spectra on the device where it can.

    The coder's stream waits for the steps before it writes into memory that they may read, and for
    the kernels whose output it encodes; the host waits for the coder, so the steps need not.
    """

    def __init__(self, io: DeviceIO) -> None:
        super().__init__(io.streams)
        self._io = io

    @property
    def encodes(self) -> bool:  # type: ignore[override]
        """See ``Lane.encodes``."""
        return self._io.writes

    def read(self, key: int, counts: CountsSource, c0: int, c1: int, subscan: int) -> Array:
        """See ``Lane.read``; the memory holds whole chunks, the array is the part asked for.

        A file with a crc32c is read by the host, which verifies it; without one by GDS if there is.
        Raises CorruptDataError as the host does.
        """
        reason = ""
        try:
            block = self._io.block(counts, c0, c1, subscan)
            if block is not None:
                with self._io.coder() as coder:
                    window = self._decode(coder, key, block, counts)
                return window[c0 - block.first : c1 - block.first, ...]
        except (ValueError, OSError) as error:
            reason = str(error)
        # The host gives the counts, or says what is wrong with the file.
        found = super().read(key, counts, c0, c1, subscan)
        if reason:
            self._io.host("reads", reason, forever=False)
        return found

    def encode(self, array: Array, shape: tuple[int, ...], fill: Any) -> Bytes | None:
        """See ``Lane.encode``; the level of zstd is nvCOMP's own."""
        if not self._io.writes:
            return None
        streams = self._io.streams
        if tuple(array.shape) != shape:
            padded = self.output(-1, shape, array.dtype)
            padded[...] = fill
            padded[tuple(slice(n) for n in array.shape)] = array
            array = padded
        raw = array.reshape(-1).view(np.uint8)
        try:
            with self._io.coder() as coder:
                coder.stream.wait_event(streams.compute.record())
                pieces = coder.codec.encode(raw, coder.memory)
                host = self._host("frames", 0, sum(size for _, size in pieces))
                room = coder.memory(0)
                streams.device.gather_out(host, room, pieces, coder.stream)
                coder.finish()
        except CodecError as error:
            self._io.host("writes", str(error))
            return None
        return host

    def distrust(self, reason: str) -> None:
        """See ``Lane.distrust``."""
        self._io.host("writes", f"what the device encoded is wrong, {reason}")

    def _decode(self, coder: Coder, key: int, block: EncodedBlock, counts: CountsSource) -> Array:
        """Counts [rows of all files, D, R, A] on the device, complete."""
        inner, device = counts.shape[1:4], self._io.streams.device
        shape = (block.rows * len(block.paths), *inner)
        chunk = math.prod((block.rows, *inner)) * counts.dtype.itemsize
        memory = self._on_device("in", key, chunk * len(block.paths))
        window = device.view(memory, shape, counts.dtype)
        bytes_in = device.view(memory, (chunk * len(block.paths),), np.uint8)
        for i, path in enumerate(block.paths):
            if path is None:
                window[i * block.rows : (i + 1) * block.rows, ...] = block.fill
        pieces = self._pieces(coder, block, chunk)
        # The steps of an earlier tile may still read this memory.
        ready = self._io.streams.compute.record()
        coder.stream.wait_event(ready)
        if any(piece.data is None for piece in pieces):
            ready.synchronize()  # GDS knows no streams
        packed = bytes_in
        if block.compressed and pieces:
            packed = coder.memory(pieces[-1].at + pieces[-1].size)
        try:
            for piece in pieces:
                at = piece.at if block.compressed else piece.place
                place = packed[at : at + piece.size]
                if piece.data is not None:
                    device.copy_in(place, piece.data, coder.stream)
                elif self._io.files is not None:
                    self._io.files.read(piece.path, place)
            if block.compressed and pieces:
                frames, places = _spans(pieces, coder.codec.alignment)
                coder.codec.decode(packed, frames, bytes_in, places)
        finally:
            coder.finish()
        return window

    def _pieces(self, coder: Coder, block: EncodedBlock, chunk: int) -> list[Piece]:
        """Read the files, or only their headers where GDS reads them."""
        step = coder.codec.alignment if block.compressed else 1
        pieces: list[Piece] = []
        for i, (path, size) in enumerate(zip(block.paths, block.sizes, strict=True)):
            if path is None:
                continue
            frames: Sequence[Frame] = ()
            data: Bytes | None = None
            if self._io.files is not None and not block.checksum:
                frames = block.frames_on_disk(path)
            if not frames or any(frame.start % step for frame in frames):
                data = _read(path, coder.pinned(("file", i), size))
                frames = block.frames(data)
                if any(frame.start % step for frame in frames):
                    room = coder.pinned(("moved", i), sum(_up(f.size, step) for f in frames))
                    data, frames = _moved(data, frames, room, step)
            end = frames[-1].start + frames[-1].size
            data = None if data is None else data[:end]
            at = _up(pieces[-1].at + pieces[-1].size, PAGE) if pieces else 0
            pieces.append(Piece(path, end, data, frames, i * chunk, at))
        return pieces


def _up(n: int, step: int) -> int:
    return -(-n // step) * step


def _read(path: Path, out: Bytes) -> Bytes:
    """The bytes of a file in ``out``, which has its size as it was looked up."""
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
    """The frames at multiples of ``step`` in other memory."""
    moved: list[Frame] = []
    at = 0
    for start, size, nbytes in frames:
        out[at : at + size] = data[start : start + size]
        moved.append(Frame(at, size, nbytes))
        at += _up(size, step)
    return out, moved


def _spans(
    pieces: Sequence[Piece], step: int
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(start, size) of all frames in the packed memory, and of what they decode to in the window."""
    frames, places = [], []
    for piece in pieces:
        place = piece.place
        for frame in piece.frames:
            if place % step:
                raise CodecError(f"counts at byte {place} do not lie at a multiple of {step}")
            frames.append((piece.at + frame.start, frame.size))
            places.append((place, frame.nbytes))
            place += frame.nbytes
    return frames, places
