"""Backends that catch what NumPy forgives: array-api-strict arrays, and read-only NumPy arrays."""

from __future__ import annotations

from typing import Any

import array_api_strict as strict
import numpy as np

from cpu_fallback import NumpyKernels
from gpucal.backend import Backend
from gpucal.backend.lanes import HostLane, LanePool


def to_numpy(array: Any) -> Any:
    """A NumPy view of a strict array; NumPy arrays pass."""
    return np.asarray(array._array if hasattr(array, "_array") else array)


class StrictKernels:
    """The NumPy kernels behind array-api-strict arrays."""

    def __init__(self) -> None:
        self._kernels = NumpyKernels(threads=1)

    def calibrate(self, *arrays: Any) -> int:
        counts, reference, factor, flags, out, out_flags = (to_numpy(a) for a in arrays)
        return self._kernels.calibrate(counts, reference, factor, flags, out, out_flags)

    def dump_mean(self, counts: Any, valid: Any = None) -> tuple[Any, Any]:
        mask = None if valid is None else to_numpy(valid)
        mean, n = self._kernels.dump_mean(to_numpy(counts), mask)
        return strict.asarray(mean), strict.asarray(n)

    def reference(self, off1: Any, off2: Any, weight: Any) -> Any:
        parts = (to_numpy(a) for a in (off1, off2, weight))
        return strict.asarray(self._kernels.reference(*parts))

    def chi2(
        self,
        pwv: Any,
        airmass: float,
        observed: Any,
        weight: Any,
        amplitude: Any,
        opacity: Any,
        derivatives: bool = False,
    ) -> Any:
        arrays = [to_numpy(a) for a in (pwv, observed, weight, amplitude, opacity)]
        p, o, w, a, t = arrays
        return strict.asarray(self._kernels.chi2(p, airmass, o, w, a, t, derivatives))

    def fold(self, *arrays: Any) -> int:
        return self._kernels.fold(*(None if a is None else to_numpy(a) for a in arrays))


class StrictLane(HostLane):
    """Strict arrays over the recycled memory of a host lane."""

    def upload(self, key: int, counts: Any) -> Any:
        return strict.asarray(counts, copy=False)

    def output(self, key: int, shape: tuple[int, ...], dtype: Any) -> Any:
        return strict.asarray(super().output(key, shape, dtype), copy=False)

    def download(self, *arrays: Any) -> tuple[Any, ...]:
        return tuple(to_numpy(a) for a in arrays)


def strict_backend() -> Backend:
    """array-api-strict namespace: only what the standard has."""
    return Backend(
        name="strict",
        xp=strict,
        kernels=StrictKernels(),
        asarray=lambda a: a if hasattr(a, "_array") else strict.asarray(np.asarray(a)),
        to_host=to_numpy,
        lanes=lambda count: LanePool(count, StrictLane),
    )


def read_only_backend() -> Backend:
    """NumPy whose transferred arrays cannot be written: steps never edit their inputs."""

    def frozen(array: Any) -> Any:
        view = np.asarray(array).view()
        view.flags.writeable = False
        return view

    return Backend(
        name="read-only", xp=np, kernels=NumpyKernels(threads=1), asarray=frozen, to_host=np.asarray
    )
