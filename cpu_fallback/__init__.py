"""NumPy kernels, twins of those in ``gpucal.kernels``; production code. Definitions belong in kernel_contract.

Arguments and results of each kernel are defined in ``gpucal.kernel_contract``. They need NumPy alone.
"""

from __future__ import annotations

from cpu_fallback.calibrate import calibrate_tile
from cpu_fallback.chi2 import chi2_sums
from cpu_fallback.dump_mean import mean_over_dumps
from cpu_fallback.fold import fold_phases
from cpu_fallback.reference import blend_references
from cpu_fallback.workers import Workers
from gpucal.kernel_contract.argument import Array
from gpucal.kernel_contract.calibrate import CALIBRATE, CalibrationTile
from gpucal.kernel_contract.chi2 import CHI2, SkyFits
from gpucal.kernel_contract.dump_mean import DUMP_MEAN, DumpMean, SubscanDumps
from gpucal.kernel_contract.fold import FOLD, FoldTile
from gpucal.kernel_contract.reference import REFERENCE, OffPair

__all__ = ["NumpyKernels"]


class NumpyKernels:
    """A ``KernelSet`` on NumPy arrays, split over ``threads`` threads.

    Results do not depend on ``threads``. One object may be used from several threads at once.
    Raises ValueError when ``threads`` is below 1 or when arrays do not fit their contract.
    """

    def __init__(self, threads: int = 1) -> None:
        self._workers = Workers(threads)

    @property
    def threads(self) -> int:
        """Number of threads one call may use."""
        return self._workers.threads

    def calibrate(self, tile: CalibrationTile) -> int:
        """Write T_A* = (C_ON - C_REF) * F and flags of a tile; returns the samples with bit 1."""
        CALIBRATE.check(tile)
        return calibrate_tile(tile, self._workers)

    def dump_mean(self, dumps: SubscanDumps) -> DumpMean:
        """Mean over dumps without fill samples, and the number of dumps in it."""
        DUMP_MEAN.check(dumps)
        return mean_over_dumps(dumps, self._workers)

    def reference(self, offs: OffPair) -> Array:
        """Return (1-w) OFF_1 + w OFF_2, counts, [c,R,A] or [c,D,R,A]."""
        REFERENCE.check(offs)
        return blend_references(offs, self._workers)

    def chi2(self, fits: SkyFits) -> Array:
        """Chi2 of the PWV model [K,N], or with its derivatives [4,K,N]."""
        CHI2.check(fits)
        return chi2_sums(fits, self._workers)

    def fold(self, tile: FoldTile) -> int:
        """Write both phases of a frequency switch as one; returns the samples with bit 1."""
        FOLD.check(tile)
        return fold_phases(tile, self._workers)
