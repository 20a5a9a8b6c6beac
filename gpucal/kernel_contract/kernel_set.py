"""The five kernels as one set; ``gpucal.kernels`` holds it in CUDA, ``cpu_fallback`` in NumPy."""

from __future__ import annotations

from typing import Protocol

from gpucal.kernel_contract.argument import Array, Contract
from gpucal.kernel_contract.calibrate import CALIBRATE, CalibrationTile
from gpucal.kernel_contract.chi2 import CHI2, SkyFits
from gpucal.kernel_contract.dump_mean import DUMP_MEAN, DumpMean, SubscanDumps
from gpucal.kernel_contract.fold import FOLD, FoldTile
from gpucal.kernel_contract.reference import REFERENCE, OffPair

CONTRACTS: dict[str, Contract] = {
    contract.kernel: contract for contract in (CALIBRATE, DUMP_MEAN, REFERENCE, CHI2, FOLD)
}


class KernelSet(Protocol):
    """The kernels of a backend; each meets the contract of its name.

    Every function raises ValueError when an array does not fit its contract.
    """

    def calibrate(self, tile: CalibrationTile) -> int:
        """Write T_A* and flags of a tile; see ``kernel_contract.calibrate``."""

    def dump_mean(self, dumps: SubscanDumps) -> DumpMean:
        """Mean over dumps and the number of dumps in it; see ``kernel_contract.dump_mean``."""

    def reference(self, offs: OffPair) -> Array:
        """Counts between two OFFs; see ``kernel_contract.reference``."""

    def chi2(self, fits: SkyFits) -> Array:
        """Chi2 of the PWV model, or with its derivatives; see ``kernel_contract.chi2``."""

    def fold(self, tile: FoldTile) -> int:
        """Write both phases of a frequency switch as one; see ``kernel_contract.fold``."""
