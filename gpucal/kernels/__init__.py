"""CUDA kernels, twins of ``cpu_fallback``; importable without a GPU. Memory and streams belong in backend.

Arguments and results of each kernel are defined in ``gpucal.kernel_contract``.
"""

from __future__ import annotations

from gpucal.kernel_contract.argument import Array
from gpucal.kernel_contract.calibrate import CALIBRATE, CalibrationTile
from gpucal.kernel_contract.chi2 import CHI2, SkyFits
from gpucal.kernel_contract.dump_mean import DUMP_MEAN, DumpMean, SubscanDumps
from gpucal.kernel_contract.fold import FOLD, FoldTile
from gpucal.kernel_contract.reference import REFERENCE, OffPair
from gpucal.kernels.calibrate import calibrate_tile
from gpucal.kernels.chi2 import chi2_sums
from gpucal.kernels.device import CupyDevice, Device
from gpucal.kernels.dump_mean import mean_over_dumps
from gpucal.kernels.fold import fold_phases
from gpucal.kernels.reference import blend_references

__all__ = ["CudaKernels"]


class CudaKernels:
    """A ``KernelSet`` on CuPy arrays: runs on the current device and its current stream.

    Results are those of ``cpu_fallback.NumpyKernels``: the same bits for all but chi2; for chi2 up to
    rounding, in an order of summation of its own that never changes. May be used from several
    threads. ``device``: where to run; None is CuPy's device. Raises BackendError when CuPy or a
    device is missing, ValueError when arrays do not fit their contract.
    """

    def __init__(self, device: Device | None = None) -> None:
        self._device: Device = CupyDevice() if device is None else device

    def calibrate(self, tile: CalibrationTile) -> int:
        """Write T_A* = (C_ON - C_REF) * F and flags of a tile; returns the samples with bit 1.

        Waits for the current stream.
        """
        CALIBRATE.check(tile)
        return calibrate_tile(tile, self._device)

    def dump_mean(self, dumps: SubscanDumps) -> DumpMean:
        """Mean over dumps without fill samples, and the number of dumps in it."""
        DUMP_MEAN.check(dumps)
        return mean_over_dumps(dumps, self._device)

    def reference(self, offs: OffPair) -> Array:
        """Return (1-w) OFF_1 + w OFF_2, counts, [c,R,A] or [c,D,R,A]."""
        REFERENCE.check(offs)
        return blend_references(offs, self._device)

    def chi2(self, fits: SkyFits) -> Array:
        """Chi2 of the PWV model [K,N], or with its derivatives [4,K,N]."""
        CHI2.check(fits)
        return chi2_sums(fits, self._device)

    def fold(self, tile: FoldTile) -> int:
        """Write both phases of a frequency switch as one; returns the samples with bit 1.

        Waits for the current stream.
        """
        FOLD.check(tile)
        return fold_phases(tile, self._device)
