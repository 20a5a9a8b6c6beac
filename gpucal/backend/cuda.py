"""The CUDA backend: CuPy arrays, the kernels of ``gpucal.kernels``, three streams per device.

The only module beside ``gpucal.kernels`` that imports CuPy.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gpucal.backend.cuda_io import cuda_tools, describe_io
from gpucal.backend.health import MEMORY_HINT, Health
from gpucal.backend.lanes import Bytes, DeviceStreams, LanePool, Span, device_lanes
from gpucal.backend.protocol import Backend
from gpucal.errors import BackendError, DeviceMemoryError
from gpucal.kernel_contract.dump_mean import SubscanDumps
from gpucal.kernels import CudaKernels
from gpucal.kernels.device import CupyDevice
from gpucal.kernels.forms import KernelForms
from gpucal.kernels.plain import PlainKernels

Array = Any


LEAST_FREE = 256 << 20
"""Free memory, bytes, below which auto leaves a card alone: one unit of the largest chunks and the
temporaries of its steps."""


class CudaHealth(Health):
    """The memory of the current CUDA device."""

    def __init__(self, cupy: Any, streams: DeviceStreams) -> None:
        self._cupy, self._streams = cupy, streams

    def release(self) -> None:
        """Give idle page-locked memory and the unused blocks of CuPy's pools back."""
        super().release()
        self._streams.pinned.release()
        self._cupy.get_default_memory_pool().free_all_blocks()
        self._cupy.get_default_pinned_memory_pool().free_all_blocks()

    def free_bytes(self) -> int | None:
        """Free memory of the device, including unused memory in CuPy's pool; None after its loss."""
        try:
            free, _ = self._cupy.cuda.runtime.memGetInfo()
        except self._cupy.cuda.runtime.CUDARuntimeError:
            return None
        return int(free + self._cupy.get_default_memory_pool().free_bytes())


class CupyStream:
    """A stream of CuPy whose events neither keep the time nor let the host spin; a ``lanes.Stream``."""

    def __init__(self, cupy: Any, own: Any) -> None:
        self._cupy, self.own = cupy, own
        self.ptr = own.ptr

    def record(self) -> Any:
        """The point after all work queued so far; a thread that waits for it sleeps."""
        return self.own.record(self._cupy.cuda.Event(block=True, disable_timing=True))

    def wait_event(self, event: Any) -> None:
        """Work queued from now on starts after ``event``."""
        self.own.wait_event(event)

    def __enter__(self) -> CupyStream:
        self.own.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.own.__exit__(*error)


class CupyCopies:
    """Streams, page-locked memory and copies through CuPy; a ``lanes.CopyDevice``."""

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy

    def stream(self) -> CupyStream:
        """A new stream that does not wait for the default one."""
        return CupyStream(self._cupy, self._cupy.cuda.Stream(non_blocking=True))

    def default(self) -> CupyStream:
        """CuPy's default stream, which every thread uses unless it chooses another."""
        return CupyStream(self._cupy, self._cupy.cuda.Stream.null)

    def pinned(self, nbytes: int) -> Bytes:
        """Page-locked host memory, u8 [nbytes]; raises DeviceMemoryError when there is none left."""
        try:
            memory = self._cupy.cuda.PinnedMemory(nbytes)
        except self._cupy.cuda.runtime.CUDARuntimeError as error:
            if isinstance(Health().failure(error), DeviceMemoryError):
                raise DeviceMemoryError(
                    f"{nbytes >> 20} MiB of page-locked memory cannot be had: {error}.",
                    hint=MEMORY_HINT,
                ) from error
            raise
        pointer = self._cupy.cuda.PinnedMemoryPointer(memory, 0)
        return np.frombuffer(pointer, dtype=np.uint8, count=nbytes)

    def memory(self, nbytes: int) -> Array:
        """Device memory, u8 [nbytes]; raises DeviceMemoryError when the card is full."""
        try:
            return self._cupy.empty(nbytes, dtype=self._cupy.uint8)
        except self._cupy.cuda.memory.OutOfMemoryError as error:
            raise DeviceMemoryError(
                f"the device has no room for {nbytes >> 20} MiB more.", hint=MEMORY_HINT
            ) from error

    def view(self, memory: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        """The first bytes of ``memory`` as an array."""
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        return memory[:nbytes].view(dtype).reshape(shape)

    def copy_in(self, target: Array, source: Any, stream: Any) -> None:
        """Queue a copy from page-locked memory."""
        target.set(source, stream=stream.own)

    def copy_out(self, target: Any, source: Array, stream: Any) -> None:
        """Queue a copy to page-locked memory."""
        source.get(stream=stream.own, out=target, blocking=False)

    def gather_out(self, target: Bytes, source: Array, pieces: Sequence[Span], stream: Any) -> None:
        """Queue copies of pieces of u8 memory to page-locked memory, joined there."""
        runtime = self._cupy.cuda.runtime
        to, at = target.ctypes.data, source.data.ptr
        # One call per piece without an array made for it: there are hundreds of them.
        for start, size in pieces:
            runtime.memcpyAsync(to, at + start, size, runtime.memcpyDeviceToHost, stream.ptr)
            to += size


def cuda_backend(*, reason: str = "asked for", kernels: str = "fused") -> Backend:
    """The backend of the current CUDA device, with the kernels of this form.

    Raises BackendError when it cannot be used.
    """
    card = CupyDevice()
    cupy = card.xp
    refuse_own_streams(os.environ)
    # CuPy's arrays do not name their namespace; this one fills what the standard wants.
    import array_api_compat.cupy as standard

    streams = DeviceStreams(CupyCopies(cupy))
    forms = KernelForms(CudaKernels(card), lambda: PlainKernels(cupy, cupy), kernels)

    def to_host(array: Any) -> Any:
        return cupy.asnumpy(array) if isinstance(array, cupy.ndarray) else np.asarray(array)

    def lanes(count: int) -> LanePool:
        return device_lanes(count, streams)

    return Backend(
        name="cuda",
        xp=standard,
        kernels=forms,
        kernel_form=forms.describe,
        asarray=cupy.asarray,
        to_host=to_host,
        lanes=lanes,
        device=device_name(cupy),
        reason=reason,
        health=CudaHealth(cupy, streams),
        in_thread=chooser(cupy),
        device_io=lambda: cuda_tools(streams, cupy.cuda.Device().id),
    )


OWN_STREAMS = "CUPY_CUDA_PER_THREAD_DEFAULT_STREAM"


def refuse_own_streams(environment: Mapping[str, str]) -> None:
    """Raise BackendError where CuPy was told to give every thread a default stream of its own.

    The arrays that threads hand to each other are ordered by the one default stream.
    """
    value = environment.get(OWN_STREAMS, "").strip()
    if value not in ("", "0"):
        raise BackendError(
            f"{OWN_STREAMS} is {value}, expected 0: with a stream of its own a thread could read counts "
            "that another has not finished.",
            hint=f"Run unset {OWN_STREAMS} first, or use --backend cpu.",
        )


def chooser(cupy: Any) -> Callable[[], None]:
    """The function that makes the device of this thread that of another one, too."""
    chosen = cupy.cuda.Device()

    def in_thread() -> None:
        # A lost device stays lost: the work itself then says so.
        with contextlib.suppress(cupy.cuda.runtime.CUDARuntimeError):
            chosen.use()

    return in_thread


def tried_backend(*, kernels: str = "fused") -> Backend:
    """The backend of the current device, once a small mean over dumps has come out right on it.

    Raises BackendError, or whatever CuPy raises, when it cannot be used; BackendError when less than
    LEAST_FREE bytes are free.
    """
    reason = "auto: a card is there, and a kernel has run on it"
    backend = cuda_backend(reason=reason, kernels=kernels)
    free = backend.health.free_bytes() or 0
    if free < LEAST_FREE:
        raise BackendError(
            f"{backend.device} has {free >> 20} MiB free, expected at least {LEAST_FREE >> 20} MiB."
        )
    first_mean(backend)
    return backend


def first_mean(backend: Backend) -> None:
    """Run a kernel on a few numbers. Raises BackendError when it comes out wrong, and as CuPy does."""
    counts = np.arange(12, dtype=np.int32).reshape(2, 3, 2, 1)
    mean, _ = backend.kernels.dump_mean(SubscanDumps(backend.asarray(counts)))
    if not np.array_equal(backend.to_host(mean), counts.mean(axis=1)):
        raise BackendError(f"{backend.device} gives a wrong mean of small numbers.")


def device_count() -> int:
    """Number of CUDA devices that this process sees; 0 where CuPy or the driver is missing."""
    try:
        return int(CupyDevice().xp.cuda.runtime.getDeviceCount())
    except Exception:  # as for auto: asking must not fail
        return 0


def device_name(cupy: Any) -> str:
    """Name of the current device, such as "NVIDIA H200"."""
    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    name = properties["name"]
    return name.decode() if isinstance(name, bytes) else str(name)


def describe_device() -> dict[str, Any]:
    """Name, memory, driver and runtime of the current device, and the measured pinned bandwidth.

    Raises BackendError when there is none.
    """
    cupy = CupyDevice().xp
    runtime = cupy.cuda.runtime
    free, total = runtime.memGetInfo()
    return {
        "name": device_name(cupy),
        "memory_gib": total / 2**30,
        "free_gib": free / 2**30,
        "compute_capability": cupy.cuda.Device().compute_capability,
        "driver": runtime.driverGetVersion(),
        "cuda_runtime": runtime.runtimeGetVersion(),
        "cupy": cupy.__version__,
        "devices": runtime.getDeviceCount(),
        "pinned_gb_per_s": _pinned_bandwidth(cupy),
        **describe_io(),
    }


def _pinned_bandwidth(cupy: Any, nbytes: int = 256 << 20, repeats: int = 5) -> dict[str, float]:
    """Best of a few copies each way between page-locked and device memory, GB/s."""
    copies = CupyCopies(cupy)
    stream = copies.stream()
    host, device = copies.pinned(nbytes), copies.memory(nbytes)
    found = {}
    directions: dict[str, Callable[[], None]] = {
        "to_device": lambda: copies.copy_in(device, host, stream),
        "to_host": lambda: copies.copy_out(host, device, stream),
    }
    for name, copy in directions.items():
        times = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            copy()
            stream.record().synchronize()
            times.append(time.perf_counter() - start)
        found[name] = nbytes / min(times[1:]) / 1e9
    return found
