"""Codecs of the device, each with its own stream and memory, and the pool that hands them to threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from gpucal.backend.device_codec import CodecError, DeviceTools
from gpucal.backend.duties import DeviceDuties
from gpucal.backend.lanes import Array, Bytes


class Coder:
    """A stream with its codec and its memory, used by one thread at a time. Raises CodecError."""

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


class CoderPool:
    """As many coders as threads that read or write at once."""

    def __init__(self, tools: DeviceTools, duties: DeviceDuties) -> None:
        self._tools, self._duties = tools, duties
        self._idle: list[Coder] = []
        self._lock = threading.Lock()

    @contextmanager
    def take(self) -> Iterator[Coder]:
        """A coder that no other thread uses; the last one used, if possible.

        Raises CodecError when the device gives none; the host then does all the work.
        """
        with self._lock:
            coder = self._idle.pop() if self._idle else None
        if coder is None:
            try:
                coder = Coder(self._tools)
            except CodecError as error:  # no thread will fare better
                self._duties.to_host("reads", str(error))
                self._duties.to_host("writes", str(error))
                raise
        try:
            yield coder
        finally:
            with self._lock:
                self._idle.append(coder)

    def forget(self) -> None:
        """Free the coders that are not in use, and their memory."""
        with self._lock:
            self._idle.clear()
