"""The lane that reads chunk files and encodes spectra on the device.

Files are read into page-locked memory, or by GPUDirect Storage straight into device memory, and
decoded there; spectra are encoded there. A file that is wrong is read again by the host, which says
what is wrong with it. The device is never asked to decode anything but whole frames whose declared
sizes fill the chunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gpucal.axes import FEWEST_CHANNELS, FILL_INT32
from gpucal.backend.coders import Coder, CoderPool
from gpucal.backend.device_codec import CodecError, DeviceTools
from gpucal.backend.duties import DeviceDuties
from gpucal.backend.lanes import Array, Bytes, DeviceLane
from gpucal.backend.packing import read_pieces, spans_of
from gpucal.scan import CountsSource, EncodedBlock


class DeviceIOLane(DeviceLane):
    """A ``DeviceLane`` that reads chunk files and encodes spectra on the device where it can.

    The coder's stream waits for the steps before it writes into memory that they may read, and for
    the kernels whose output it encodes; the host waits for the coder, so the steps need not.
    """

    def __init__(self, tools: DeviceTools, coders: CoderPool, duties: DeviceDuties) -> None:
        super().__init__(tools.streams)
        self._files = tools.files
        self._coders, self._duties = coders, duties

    @property
    def encodes(self) -> bool:  # type: ignore[override]
        """See ``Lane.encodes``."""
        return self._duties.writes

    def read(self, key: int, counts: CountsSource, c0: int, c1: int, subscan: int) -> Array:
        """See ``Lane.read``; the memory holds whole chunks, the array is the part asked for.

        A file with a crc32c is read by the host, which verifies it; without one by GDS if there is.
        Raises CorruptDataError as the host does.
        """
        reason = ""
        try:
            block = self._duties.files_of(counts, c0, c1, subscan)
            if block is not None and self._reads_faster(key, block, counts, (c0, c1, subscan)):
                window = self._decoded(key, block, counts)
                return window[c0 - block.first : c1 - block.first, ...]
        except (ValueError, OSError) as error:
            reason = str(error)
        # The host gives the counts, or says what is wrong with the file.
        found = super().read(key, counts, c0, c1, subscan)
        if reason:
            self._duties.to_host("reads", reason, forever=False)
        return found

    def _reads_faster(
        self, key: int, block: EncodedBlock, counts: CountsSource, part: tuple[int, int, int]
    ) -> bool:
        """Whether the device decodes these counts faster than the host; part: c0, c1, subscan."""
        choice, layout = self._duties.choice, self._duties.layout_of(counts, block)
        if choice is None or layout == (0, 0) or isinstance(layout, str):
            return True
        c0, c1, subscan = part

        def by_host() -> None:
            counts.read(c0, c1, subscan, out=room)

        # Page-locked memory takes long to get, but only once.
        room = self.staging(key, (c1 - c0, *counts.shape[1:4]), counts.dtype)
        return choice.device_wins(
            "reads", layout, by_host, lambda: self._decoded(key, block, counts)
        )

    def encode(
        self, array: Array, shape: tuple[int, ...], fill: Any, by_host: Callable[[Any], object]
    ) -> Bytes | None:
        """See ``Lane.encode``; the level of zstd is nvCOMP's own."""
        if not self._duties.writes:
            return None
        choice = self._duties.choice
        if choice is None:
            return self._encoded(array, shape, fill)
        on_host: list[Any] = []

        def by_device() -> None:
            self._certainly_encoded(array, shape, fill)
            if not on_host:  # the first, untimed call: the copy is no part of encoding
                on_host.extend(self.download(array))

        try:
            layout = (1, math.prod(shape) * array.dtype.itemsize)
            wins = choice.device_wins("writes", layout, lambda: by_host(on_host[0]), by_device)
        except CodecError as error:
            self._duties.to_host("writes", str(error))
            return None
        return self._encoded(array, shape, fill) if wins else None

    def _encoded(self, array: Array, shape: tuple[int, ...], fill: Any) -> Bytes | None:
        """As ``encode`` by the device, or None, with the reason reported."""
        try:
            return self._certainly_encoded(array, shape, fill)
        except CodecError as error:
            self._duties.to_host("writes", str(error))
            return None

    def _certainly_encoded(self, array: Array, shape: tuple[int, ...], fill: Any) -> Bytes:
        """As ``encode`` by the device. Raises CodecError."""
        streams = self._streams
        if tuple(array.shape) != shape:
            padded = self.output(-1, shape, array.dtype)
            padded[...] = fill
            padded[tuple(slice(n) for n in array.shape)] = array
            array = padded
        raw = array.reshape(-1).view(np.uint8)
        with self._coders.take() as coder:
            coder.stream.wait_event(streams.compute.record())
            pieces = coder.codec.encode(raw, coder.memory)
            host = self._host("frames", 0, sum(size for _, size in pieces))
            room = coder.memory(0)
            streams.device.gather_out(host, room, pieces, coder.stream)
            coder.finish()
        return host

    def distrust(self, reason: str) -> None:
        """See ``Lane.distrust``."""
        self._duties.to_host("writes", f"what the device encoded is wrong, {reason}")

    def _decoded(self, key: int, block: EncodedBlock, counts: CountsSource) -> Array:
        """As ``_decode`` with a coder of the pool."""
        with self._coders.take() as coder:
            return self._decode(coder, key, block, counts)

    def _decode(self, coder: Coder, key: int, block: EncodedBlock, counts: CountsSource) -> Array:
        """Counts [rows of all files, D, R, A] on the device, complete."""
        inner, device = counts.shape[1:4], self._streams.device
        shape = (block.rows * len(block.paths), *inner)
        chunk = math.prod((block.rows, *inner)) * counts.dtype.itemsize
        memory = self._on_device("in", key, chunk * len(block.paths))
        window = device.view(memory, shape, counts.dtype)
        bytes_in = device.view(memory, (chunk * len(block.paths),), np.uint8)
        for i, path in enumerate(block.paths):
            if path is None:
                window[i * block.rows : (i + 1) * block.rows, ...] = block.fill
        pieces = read_pieces(coder, block, chunk, gds=self._files is not None)
        # The steps of an earlier tile may still read this memory.
        ready = self._streams.compute.record()
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
                elif self._files is not None:
                    self._files.read(piece.path, place)
            if block.compressed and pieces:
                spans = spans_of(pieces, coder.codec.alignment)
                coder.codec.decode(packed, spans.frames, bytes_in, spans.places)
        finally:
            coder.finish()
        for i in range(len(block.paths) if block.guarded else 0):
            last = min(block.rows, counts.shape[0] - block.first - i * block.rows)
            blank_what_is_no_data(window[i * block.rows : i * block.rows + last], block.zeros_lost)
        return window


def blank_what_is_no_data(chunk: Array, zeros_lost: bool) -> None:
    """What the host does with raw counts [c, D, R, A] of a chunk, on the device: no data become so.

    Floats of INT32_MIN, and with ``zeros_lost`` dumps that are 0 in all channels. Numbers that stay are
    divided by 1 or have 0 added: exact. u32 has no value for no data.
    """
    kind = chunk.dtype.kind
    with np.errstate(divide="ignore", invalid="ignore"):
        if kind == "f":
            chunk /= (chunk != FILL_INT32).astype(chunk.dtype)  # -inf where it is
        if zeros_lost and kind != "u" and len(chunk) >= FEWEST_CHANNELS:
            _blank_dead(chunk)


def _blank_dead(chunk: Array) -> None:
    """As ``blank_what_is_no_data``, for dumps that are 0; the first channel shows whether there may be any."""
    if not bool((chunk[0] == 0).any()):
        return
    dead = (chunk == 0).all(axis=0).astype(chunk.dtype)
    if chunk.dtype.kind == "f":
        chunk /= 1 - dead
    else:
        chunk += dead * chunk.dtype.type(FILL_INT32)
