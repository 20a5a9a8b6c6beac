"""The NumPy backend."""

from __future__ import annotations

import os
import platform
from typing import Any

import numpy as np

import cpu_fallback
from gpucal.backend.protocol import Backend


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_backend(*, threads: int = 1, reason: str = "asked for") -> Backend:
    """NumPy arrays and the kernels of ``cpu_fallback``, each split over ``threads`` threads."""

    def as_is(array: Any) -> Any:
        return np.asarray(array)

    return Backend(
        name="cpu",
        xp=np,
        kernels=cpu_fallback.NumpyKernels(threads=threads),
        asarray=as_is,
        to_host=as_is,
        device=platform.processor() or platform.machine(),
        reason=reason,
    )
