"""The kernels of the NumPy backend: the twins of the CUDA ones, and production code.

They follow the contract of ``gpucal.backend.KernelSet`` and need NumPy alone.
"""

from __future__ import annotations

from typing import Any

from cpu_fallback.calibrate import calibrate_tile
from cpu_fallback.chi2 import chi2_sums
from cpu_fallback.dump_mean import mean_over_dumps
from cpu_fallback.fold import FoldTile, fold_phases
from cpu_fallback.reference import blend_references
from cpu_fallback.workers import Workers

__all__ = ["NumpyKernels"]


class NumpyKernels:
    """The five fused functions on NumPy arrays, split over ``threads`` threads.

    Results do not depend on ``threads``. One object may be used from several threads at once.
    Raises ValueError when ``threads`` is below 1 or when array shapes or dtypes do not fit.
    """

    def __init__(self, threads: int = 1) -> None:
        self._workers = Workers(threads)

    @property
    def threads(self) -> int:
        """Number of threads one call may use."""
        return self._workers.threads

    def calibrate(
        self,
        counts: Any,
        reference: Any,
        factor: Any,
        base_flags: Any,
        out: Any,
        out_flags: Any,
    ) -> int:
        """T_A* = (C_ON - C_REF) * F of a tile into ``out`` and ``out_flags``; physics section 6.

        See ``cpu_fallback.calibrate.calibrate_tile`` for shapes and rules.
        """
        return calibrate_tile(counts, reference, factor, base_flags, out, out_flags, self._workers)

    def dump_mean(self, counts: Any, valid: Any | None = None) -> tuple[Any, Any]:
        """Mean over dumps [c,D,R,A] -> [c,R,A] and the number of valid dumps; physics section 4.

        See ``cpu_fallback.dump_mean.mean_over_dumps`` for the rules.
        """
        return mean_over_dumps(counts, valid, self._workers)

    def reference(self, off1: Any, off2: Any, weight: Any) -> Any:
        """(1-w) OFF_1 + w OFF_2, [c,R,A] or [c,D,R,A]; physics section 7.

        See ``cpu_fallback.reference.blend_references`` for the rules.
        """
        return blend_references(off1, off2, weight, self._workers)

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
        """Chi2 of the PWV model [K,N], or with its derivatives [4,K,N]; physics section 5.

        See ``cpu_fallback.chi2.chi2_sums`` for shapes and rules.
        """
        return chi2_sums(
            pwv, airmass, observed, weight, amplitude, opacity, derivatives, self._workers
        )

    def fold(
        self,
        spectra: Any,
        flags: Any,
        weight: Any,
        taps: Any,
        nearest: Any,
        transmission: Any | None,
        base_flags: Any,
        out: Any,
        out_flags: Any,
    ) -> int:
        """Both phases of a frequency switch as one into ``out`` and ``out_flags``; physics section 7.

        See ``gpucal.backend.KernelSet.fold``.
        """
        tile = FoldTile(
            *(spectra, flags, weight, taps, nearest, transmission, base_flags, out, out_flags)
        )
        return fold_phases(tile, self._workers)
