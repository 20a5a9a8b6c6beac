"""A device without hardware that is as unkind as the rules allow, and checks them.

Copies are queued and run as late as possible: only when an event that comes after them is waited
for. Array operations of the current stream run at once, so they see stale data unless the stream
was told to wait. Each copy must wait for the work of its own thread on the arrays it touches.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from cpu_fallback import NumpyKernels
from gpucal.backend.health import Health
from gpucal.backend.lanes import DeviceStreams, device_lanes
from gpucal.backend.protocol import Backend


def _ran() -> None:
    """What is done leaves nothing behind."""


@dataclass(eq=False)
class FakeStream:
    """A queue; ``tick`` is the newest compute work that its later entries wait for."""

    device: FakeDevice
    queue: list[Callable[[], None]] = field(default_factory=list)
    done: int = 0
    tick: int = 0

    def record(self) -> FakeEvent:
        with self.device.lock:
            tick = self.device.tick if self is self.device.compute else self.tick
            return FakeEvent(self, len(self.queue), tick)

    def wait_event(self, event: Any) -> None:
        with self.device.lock:
            self.tick = max(self.tick, event.tick)
            if self is self.device.compute:
                event.stream.run_to(event.position)
            else:
                self.queue.append(lambda: event.stream.run_to(event.position))

    def run_to(self, position: int) -> None:
        while self.done < position:
            self.done += 1
            self.queue[self.done - 1]()
            self.queue[self.done - 1] = _ran  # it held memory


@dataclass(frozen=True, eq=False)
class FakeEvent:
    stream: FakeStream
    position: int
    tick: int

    def synchronize(self) -> None:
        last = self.stream.device.last
        last.waited = max(self.tick, getattr(last, "waited", 0))
        with self.stream.device.lock:
            self.stream.run_to(self.position)


class FakeDevice:
    """A ``CopyDevice`` of NumPy arrays, with a count of what it was asked for."""

    def __init__(self, capacity: int | None = None) -> None:
        self.lock = threading.RLock()
        self.compute = FakeStream(self)
        self.tick = 0
        self.last = threading.local()
        self.allocations = self.pinned_allocations = 0
        self.copies_in = self.copies_out = 0
        self.memory_in_use = 0
        self.capacity = capacity

    def stream(self) -> FakeStream:
        return FakeStream(self)

    def default(self) -> FakeStream:
        return self.compute

    def worked(self) -> None:
        """A kernel ran on the compute stream."""
        with self.lock:
            self.tick += 1
            self.last.tick = self.tick

    def pinned(self, nbytes: int) -> Any:
        self.allocations += 1
        self.pinned_allocations += 1
        return np.full(nbytes, 0xAB, dtype=np.uint8)

    def memory(self, nbytes: int) -> Any:
        self.allocations += 1
        self.memory_in_use += nbytes
        if self.capacity is not None and self.memory_in_use > self.capacity:
            raise MemoryError(nbytes)
        return np.full(nbytes, 0xCD, dtype=np.uint8)

    def view(self, memory: Any, shape: tuple[int, ...], dtype: Any) -> Any:
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return memory[:nbytes].view(dtype).reshape(shape)

    def copy_in(self, target: Any, source: Any, stream: Any) -> None:
        with self.lock:
            self._require(stream, "an upload does not wait for the steps that read its memory")
            self.copies_in += 1
            stream.queue.append(lambda: np.copyto(target, source))

    def copy_out(self, target: Any, source: Any, stream: Any) -> None:
        with self.lock:
            self._require(stream, "a download does not wait for the kernel that makes its data")
            self.copies_out += 1
            stream.queue.append(lambda: np.copyto(target, source))

    def gather_out(self, target: Any, source: Any, pieces: Any, stream: Any) -> None:
        with self.lock:
            self._require(stream, "a download does not wait for the kernel that makes its data")
            self.copies_out += 1
            at = 0
            for start, size in pieces:
                to, piece = target[at : at + size], source[start : start + size]
                stream.queue.append(partial(np.copyto, to, piece))
                at += size

    def _require(self, stream: FakeStream, message: str) -> None:
        assert stream.tick >= getattr(self.last, "tick", 0), message


class WatchedKernels:
    """NumPy kernels that tell the device when they ran."""

    def __init__(self, device: FakeDevice) -> None:
        self._kernels = NumpyKernels(threads=1)
        self._device = device

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._kernels, name)

        def run(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            self._device.worked()
            return result

        return run


class FakeHealth(Health):
    """As ``CudaHealth``, without a pool."""

    def __init__(self, streams: DeviceStreams) -> None:
        self._streams = streams

    def release(self) -> None:
        super().release()
        self._streams.pinned.release()


def fake_backend(
    device: FakeDevice, kernels: Any = None, streams: DeviceStreams | None = None
) -> Backend:
    """A backend whose tiles go through ``DeviceLane`` on the fake device."""
    streams = streams or DeviceStreams(device)
    return Backend(
        name="fake",
        xp=np,
        kernels=kernels or WatchedKernels(device),
        asarray=np.asarray,
        to_host=np.asarray,
        lanes=lambda count: device_lanes(count, streams),
        device="fake",
        health=FakeHealth(streams),
    )
