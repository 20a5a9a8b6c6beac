"""A card to measure on, or NumPy in its place for a dry run."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np

from bench import harness, host_loops
from bench.gpu.baseline import PlainKernels
from cpu_fallback import NumpyKernels
from gpucal.kernel_contract.kernel_set import KernelSet

Array = Any


@dataclass(frozen=True)
class Card:
    """Where the kernels run: array namespace, kernels, events."""

    xp: Any
    kernels: KernelSet
    plain: PlainKernels
    name: str
    free_bytes: int
    event: Callable[[], Any]
    elapsed_ms: Callable[[Any, Any], float]
    release: Callable[[], None]
    versions: dict[str, str]
    has_plain: bool = True
    """False where the plain forms cannot be built: a dry run without a compiler."""

    def seconds(self, run: Callable[[], object]) -> float:
        """Time between two events around one call."""
        start, stop = self.event(), self.event()
        start.record()
        run()
        stop.record()
        stop.synchronize()
        return self.elapsed_ms(start, stop) / 1e3


class HostEvent:
    """Stands in for a CUDA event where there is no card."""

    def __init__(self) -> None:
        self.at = math.nan

    def record(self) -> None:
        """Note the time."""
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        """Host calls are over when they return."""


def cupy_version() -> str:
    """The version of whichever CuPy package is installed."""
    for name in ("cupy-cuda13x", "cupy-cuda12x", "cupy"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return ""


def cuda_card(size: str) -> Card:
    """The current CUDA device. Raises BackendError when there is none."""
    from gpucal.backend.cuda import cuda_backend

    backend = cuda_backend()
    xp = backend.xp
    if size == "toy":
        # Without the pool each array is an allocation of its own, whose ends a checker knows.
        xp.cuda.set_allocator(None)
    runtime = xp.cuda.runtime
    return Card(
        xp=xp,
        kernels=backend.kernels,
        plain=PlainKernels(xp, xp),
        name=slug(backend.device),
        free_bytes=int(runtime.memGetInfo()[0]),
        event=xp.cuda.Event,
        elapsed_ms=xp.cuda.get_elapsed_time,
        release=xp.get_default_memory_pool().free_all_blocks,
        versions={
            **harness.versions(),
            "cupy": cupy_version(),
            "cuda": str(runtime.runtimeGetVersion()),
            "driver": str(runtime.driverGetVersion()),
        },
    )


def host_card() -> Card:
    """NumPy in place of a card, for the dry run."""
    return Card(
        xp=np,
        kernels=NumpyKernels(threads=1),
        plain=PlainKernels(np, host_loops),
        name="no-card",
        free_bytes=1 << 30,
        event=HostEvent,
        elapsed_ms=lambda start, stop: 1e3 * (stop.at - start.at),
        release=lambda: None,
        versions=harness.versions(),
        has_plain=host_loops.available(),
    )


def slug(text: str) -> str:
    """A name for a file, such as ``nvidia-h200``."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
