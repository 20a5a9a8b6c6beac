"""The CUDA backend: CuPy arrays, the kernels of ``gpucal.kernels``, three streams per device.

The only module beside ``gpucal.kernels`` that imports CuPy.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from gpucal.backend import Backend
from gpucal.backend.lanes import Bytes, DeviceStreams, LanePool, device_lanes
from gpucal.errors import BackendError
from gpucal.kernels import CudaKernels
from gpucal.kernels.device import CupyDevice

Array = Any


class CupyCopies:
    """Streams, page-locked memory and copies through CuPy; a ``lanes.CopyDevice``."""

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy

    def stream(self) -> Any:
        """A stream that does not wait for the default one."""
        return self._cupy.cuda.Stream(non_blocking=True)

    def default(self) -> Any:
        """CuPy's default stream, that of every thread which chooses no other."""
        return self._cupy.cuda.Stream.null

    def pinned(self, nbytes: int) -> Bytes:
        """Page-locked host memory, u8 [nbytes]; raises BackendError when there is none left."""
        runtime = self._cupy.cuda.runtime
        try:
            memory = self._cupy.cuda.PinnedMemory(nbytes)
        except runtime.CUDARuntimeError as error:
            raise BackendError(
                f"{nbytes >> 20} MiB of page-locked memory cannot be had: {error}.",
                hint="Use a smaller --ring or fewer --workers.",
            ) from error
        pointer = self._cupy.cuda.PinnedMemoryPointer(memory, 0)
        return np.frombuffer(pointer, dtype=np.uint8, count=nbytes)

    def memory(self, nbytes: int) -> Array:
        """Device memory, u8 [nbytes]; raises BackendError when the card is full."""
        try:
            return self._cupy.empty(nbytes, dtype=self._cupy.uint8)
        except self._cupy.cuda.memory.OutOfMemoryError as error:
            raise BackendError(
                f"the device has no room for {nbytes >> 20} MiB more.",
                hint="Use a smaller --ring or fewer --workers.",
            ) from error

    def view(self, memory: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        """The first bytes of ``memory`` as an array."""
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        return memory[:nbytes].view(dtype).reshape(shape)

    def copy_in(self, target: Array, source: Any, stream: Any) -> None:
        """Queue a copy from page-locked memory."""
        target.set(source, stream=stream)

    def copy_out(self, target: Any, source: Array, stream: Any) -> None:
        """Queue a copy to page-locked memory."""
        source.get(stream=stream, out=target, blocking=False)


def cuda_backend(*, reason: str = "asked for") -> Backend:
    """The backend of the current CUDA device. Raises BackendError when it cannot be used."""
    card = CupyDevice()
    cupy = card.xp
    # CuPy's arrays do not name their namespace; this one fills what the standard wants.
    import array_api_compat.cupy as standard

    streams = DeviceStreams(CupyCopies(cupy))

    def to_host(array: Any) -> Any:
        return cupy.asnumpy(array) if isinstance(array, cupy.ndarray) else np.asarray(array)

    def lanes(count: int) -> LanePool:
        return device_lanes(count, streams)

    return Backend(
        name="cuda",
        xp=standard,
        kernels=CudaKernels(card),
        asarray=cupy.asarray,
        to_host=to_host,
        lanes=lanes,
        device=device_name(cupy),
        reason=reason,
    )


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
            stream.synchronize()
            times.append(time.perf_counter() - start)
        found[name] = nbytes / min(times[1:]) / 1e9
    return found
