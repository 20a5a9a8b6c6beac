"""Lanes: the recycled memory of the tiles in flight, on the host and on a device with its streams.

A lane belongs to one worker for one unit of work. Counts are decoded straight into its staging
memory, uploaded, calibrated into its output buffers and downloaded; nothing is allocated per tile once
the buffers have grown to the size of the largest.
"""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from gpucal.scan import CountsSource

Array = Any
Bytes = npt.NDArray[np.uint8]


class Span(NamedTuple):
    """A piece of u8 memory: its first byte and its length."""

    start: int
    size: int


class Lane(Protocol):
    """Memory and transfers that a worker uses for one tile after another."""

    def staging(self, key: int, shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
        """Host memory to decode counts into, one piece per ``key``; safe to overwrite."""

    def upload(self, key: int, counts: npt.NDArray[Any]) -> Array:
        """Counts of ``staging(key)`` as an array of the backend, ready for the steps."""

    def read(self, key: int, counts: CountsSource, c0: int, c1: int, subscan: int) -> Array:
        """Counts [c1-c0, D, R, A] of one subscan in the memory of ``key``, ready for the steps."""

    @property
    def encodes(self) -> bool:
        """Whether ``encode`` can be used."""

    def encode(
        self, array: Array, shape: tuple[int, ...], fill: Any, by_host: Callable[[Any], object]
    ) -> Bytes | None:
        """The array, filled up to ``shape`` with ``fill``, as concatenated zstd frames on the host.

        u8, valid until the next call; None when the host is to encode it. by_host: how the host would
        encode the array once it is there; it may be called to see how fast that is.
        """

    def distrust(self, reason: str) -> None:
        """Stop using ``encode``: what it returned was wrong."""

    def output(self, key: int, shape: tuple[int, ...], dtype: Any) -> Array:
        """An uninitialised array of the backend, the same memory for the same ``key``."""

    def download(self, *arrays: Array) -> tuple[npt.NDArray[Any], ...]:
        """The arrays on the host, complete; valid until the next call."""

    def close(self) -> None:
        """Give back what other lanes can use; nothing of this one may be used after."""


class Lanes(Protocol):
    """A fixed number of lanes, handed out one by one."""

    def take(self) -> AbstractContextManager[Lane]:
        """A free lane; waits until there is one."""


class StagedLane:
    """Base of lanes whose counts are decoded on the host and uploaded; nothing is encoded here."""

    encodes = False

    def read(self: Lane, key: int, counts: CountsSource, c0: int, c1: int, subscan: int) -> Array:
        """See ``Lane.read``."""
        staging = self.staging(key, (c1 - c0, *counts.shape[1:4]), counts.dtype)
        return self.upload(key, counts.read(c0, c1, subscan, out=staging))

    def encode(
        self, array: Array, shape: tuple[int, ...], fill: Any, by_host: Callable[[Any], object]
    ) -> Bytes | None:
        """None: the host must encode."""
        return None

    def distrust(self, reason: str) -> None:
        """Do nothing: this lane does not encode."""

    def close(self) -> None:
        """Do nothing: the memory goes with the lane."""


class HostLane(StagedLane):
    """A lane of recycled host memory: fresh pages cost more than the arithmetic."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, int], Bytes] = {}

    def staging(self, key: int, shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
        """See ``Lane.staging``."""
        return self._array("in", key, shape, dtype)

    def upload(self, key: int, counts: npt.NDArray[Any]) -> Array:
        """The counts themselves."""
        return counts

    def output(self, key: int, shape: tuple[int, ...], dtype: Any) -> Array:
        """See ``Lane.output``."""
        return self._array("out", key, shape, dtype)

    def download(self, *arrays: Array) -> tuple[npt.NDArray[Any], ...]:
        """The arrays themselves."""
        return tuple(np.asarray(a) for a in arrays)

    def _array(self, kind: str, key: int, shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
        """Memory of this kind and key as an array; it grows and never shrinks."""
        wanted = np.dtype(dtype)
        nbytes = math.prod(shape) * wanted.itemsize
        buffer = self._buffers.get((kind, key))
        if buffer is None or buffer.size < nbytes:
            buffer = self._buffers[kind, key] = np.empty(nbytes, dtype=np.uint8)
        array: npt.NDArray[Any] = buffer[:nbytes].view(wanted).reshape(shape)
        return array


class LanePool:
    """A ``Lanes`` that makes its lanes on demand, at most ``count``."""

    def __init__(self, count: int, make: Callable[[], Any]) -> None:
        self._free: queue.LifoQueue[Any] = queue.LifoQueue()
        for _ in range(count):
            self._free.put(None)
        self._make, self._count = make, count

    @contextmanager
    def take(self) -> Iterator[Lane]:
        """A free lane, the one used last if possible: its memory is warm."""
        lane = self._free.get()
        try:
            if lane is None:
                lane = self._make()
            yield lane
        finally:
            self._free.put(lane)

    def close(self) -> None:
        """Close the lanes, once all are back; those that are taken after are new."""
        lanes = [self._free.get() for _ in range(self._count)]
        try:
            for lane in filter(None, lanes):
                lane.close()
        finally:
            for _ in lanes:
                self._free.put(None)


def host_lanes(count: int) -> LanePool:
    """Lanes of recycled host memory."""
    return LanePool(count, HostLane)


class Event(Protocol):
    """A point in a stream."""

    def synchronize(self) -> None:
        """Wait on the host until the point is reached."""


class Stream(Protocol):
    """A queue of work on a device."""

    def record(self) -> Event:
        """The point after all work queued so far."""

    def wait_event(self, event: Event) -> None:
        """Work queued from now on starts after ``event``."""


class CopyDevice(Protocol):
    """The operations of a device that lanes need; ``backend.cuda`` implements them with CuPy."""

    def stream(self) -> Stream:
        """A new stream that does not wait for the default one."""

    def default(self) -> Stream:
        """The stream that array operations of all threads go to."""

    def pinned(self, nbytes: int) -> Bytes:
        """Page-locked host memory."""

    def memory(self, nbytes: int) -> Array:
        """Device memory, u8 [nbytes]."""

    def view(self, memory: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        """The first bytes of device memory as an array."""

    def copy_in(self, target: Array, source: npt.NDArray[Any], stream: Stream) -> None:
        """Queue a copy to the device."""

    def copy_out(self, target: npt.NDArray[Any], source: Array, stream: Stream) -> None:
        """Queue a copy to the host."""

    def gather_out(
        self, target: Bytes, source: Array, pieces: Sequence[Span], stream: Stream
    ) -> None:
        """Queue copies of pieces of u8 memory to the host, one after another."""


class Recycled:
    """Page-locked memory that outlives the lanes: getting a GiB of it takes some tenths of a second.

    Pieces come in classes of size, an eighth of a power of two apart, so that scans of like shapes use
    the same ones. At most twice what was ever in use at once lies idle (the means of the loads have pieces
    of their own); the oldest goes first.
    """

    def __init__(self, make: Callable[[int], Bytes]) -> None:
        self._make = make
        self._idle: list[Bytes] = []
        self._used = self._most = 0
        self._lock = threading.Lock()

    def take(self, nbytes: int) -> Bytes:
        """Memory of at least ``nbytes``; raises what the device raises when there is none left."""
        size = size_class(nbytes)
        with self._lock:
            place = next((i for i, one in enumerate(self._idle) if one.size == size), None)
            found = None if place is None else self._idle.pop(place)
        memory = self._make(size) if found is None else found
        with self._lock:
            self._used += size
            self._most = max(self._most, self._used)
        return memory

    def give(self, memory: Bytes) -> None:
        """Back from a lane, which must not use it any more."""
        with self._lock:
            self._used -= memory.size
            self._idle.append(memory)
            while sum(one.size for one in self._idle) > 2 * self._most:
                self._idle.pop(0)

    def release(self) -> None:
        """Give up all that is idle."""
        with self._lock:
            self._idle.clear()
            self._most = self._used


def size_class(nbytes: int) -> int:
    """The least size on the scale of eighths of a power of two, at least a page."""
    step = max(4096, 1 << max(0, nbytes.bit_length() - 4))
    return -(-max(nbytes, 1) // step) * step


class DeviceStreams:
    """The streams for upload, compute and download, side by side; one set serves all lanes of a device.

    Compute is the default stream, where the steps of all threads run one after another: an array
    made by one of them is whole when another reads it.
    """

    def __init__(self, device: CopyDevice) -> None:
        self.device = device
        self.upload = device.stream()
        self.compute = device.default()
        self.download = device.stream()
        self.pinned = Recycled(device.pinned)


class DeviceLane(StagedLane):
    """Pinned staging and device memory of one tile, with the events that keep them apart.

    Decode -> staging | upload stream: copy in | compute stream waits for it | download stream waits
    for compute: copy out | the host waits for that. Staging is written again only when its copy
    is done; outputs only after ``download`` has returned.
    """

    def __init__(self, streams: DeviceStreams) -> None:
        self._streams = streams
        self._pinned: dict[tuple[str, int], Bytes] = {}
        self._memory: dict[tuple[str, int], Array] = {}
        self._uploaded: dict[int, Event] = {}

    def staging(self, key: int, shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
        """See ``Lane.staging``; waits for the copy that may still read this memory."""
        event = self._uploaded.pop(key, None)
        if event is not None:
            event.synchronize()
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        array: npt.NDArray[Any] = self._host("in", key, nbytes).view(dtype).reshape(shape)
        return array

    def upload(self, key: int, counts: npt.NDArray[Any]) -> Array:
        """See ``Lane.upload``; the compute stream waits for the copy, the host does not."""
        streams, device = self._streams, self._streams.device
        target = device.view(self._on_device("in", key, counts.nbytes), counts.shape, counts.dtype)
        # The steps of an earlier tile may still read this memory.
        streams.upload.wait_event(streams.compute.record())
        device.copy_in(target, counts, streams.upload)
        event = streams.upload.record()
        streams.compute.wait_event(event)
        self._uploaded[key] = event
        return target

    def output(self, key: int, shape: tuple[int, ...], dtype: Any) -> Array:
        """See ``Lane.output``."""
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        return self._streams.device.view(self._on_device("out", key, nbytes), shape, dtype)

    def download(self, *arrays: Array) -> tuple[npt.NDArray[Any], ...]:
        """See ``Lane.download``; waits for these copies only."""
        streams = self._streams
        streams.download.wait_event(streams.compute.record())
        out = []
        for i, array in enumerate(arrays):
            host = self._host("out", i, array.nbytes).view(array.dtype).reshape(array.shape)
            streams.device.copy_out(host, array, streams.download)
            out.append(host)
        streams.download.record().synchronize()
        return tuple(out)

    def close(self) -> None:
        """Give the page-locked memory to the lanes that come, once no copy reads it any more."""
        while self._uploaded:
            self._uploaded.popitem()[1].synchronize()
        while self._pinned:
            self._streams.pinned.give(self._pinned.popitem()[1])

    def _host(self, kind: str, key: int, nbytes: int) -> Bytes:
        """Page-locked memory of this kind and key, u8 [nbytes]; it grows and never shrinks."""
        buffer = self._pinned.get((kind, key))
        if buffer is None or buffer.size < nbytes:
            if buffer is not None:
                self._streams.pinned.give(self._pinned.pop((kind, key)))
            buffer = self._pinned[kind, key] = self._streams.pinned.take(nbytes)
        return buffer[:nbytes]

    def _on_device(self, kind: str, key: int, nbytes: int) -> Array:
        """Device memory of this kind and key, at least nbytes; it grows and never shrinks."""
        memory = self._memory.get((kind, key))
        if memory is None or memory.nbytes < nbytes:
            memory = self._memory[kind, key] = self._streams.device.memory(nbytes)
        return memory


def device_lanes(count: int, streams: DeviceStreams) -> LanePool:
    """Lanes that share the three streams of a device, and its page-locked memory with those before them."""
    return LanePool(count, lambda: DeviceLane(streams))
