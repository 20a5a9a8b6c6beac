"""Backends that catch what NumPy forgives: array-api-strict arrays, and read-only NumPy arrays."""

from __future__ import annotations

from typing import Any

import array_api_strict as strict
import numpy as np

from cpu_fallback import NumpyKernels
from gpucal.backend.lanes import HostLane, LanePool
from gpucal.backend.protocol import Backend
from gpucal.kernel_contract.calibrate import CalibrationTile
from gpucal.kernel_contract.chi2 import SkyFits
from gpucal.kernel_contract.dump_mean import DumpMean, SubscanDumps
from gpucal.kernel_contract.fold import FoldTile
from gpucal.kernel_contract.reference import OffPair


def to_numpy(array: Any) -> Any:
    """A NumPy view of a strict array; NumPy arrays, numbers and None pass."""
    return array._array if hasattr(array, "_array") else array


class StrictKernels:
    """The NumPy kernels behind array-api-strict arrays."""

    def __init__(self) -> None:
        self._kernels = NumpyKernels(threads=1)

    def calibrate(self, tile: CalibrationTile) -> int:
        return self._kernels.calibrate(CalibrationTile(*map(to_numpy, tile)))

    def dump_mean(self, dumps: SubscanDumps) -> DumpMean:
        found = self._kernels.dump_mean(SubscanDumps(*map(to_numpy, dumps)))
        return DumpMean(*map(strict.asarray, found))

    def reference(self, offs: OffPair) -> Any:
        return strict.asarray(self._kernels.reference(OffPair(*map(to_numpy, offs))))

    def chi2(self, fits: SkyFits) -> Any:
        return strict.asarray(self._kernels.chi2(SkyFits(*map(to_numpy, fits))))

    def fold(self, tile: FoldTile) -> int:
        return self._kernels.fold(FoldTile(*map(to_numpy, tile)))


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
