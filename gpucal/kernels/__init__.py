"""The kernels of the CUDA backend, twins of ``cpu_fallback``; importable without a GPU."""

from __future__ import annotations

from typing import Any

from gpucal.kernels.calibrate import Tile, calibrate_tile
from gpucal.kernels.chi2 import Problem, chi2_sums
from gpucal.kernels.device import CupyDevice, Device
from gpucal.kernels.dump_mean import mean_over_dumps
from gpucal.kernels.fold import FoldTile, fold_phases
from gpucal.kernels.reference import blend_references

__all__ = ["CudaKernels"]


class CudaKernels:
    """The five fused functions on CuPy arrays, on the current device and its current stream.

    Results are those of ``cpu_fallback.NumpyKernels``: the same bits for all but
    chi2; for chi2 up to rounding, in an order of summation of its own that never changes. May be
    used from several threads. ``device``: where to run; None is CuPy's device.
    Raises BackendError when CuPy or a device is missing, ValueError when arrays do not fit.
    """

    def __init__(self, device: Device | None = None) -> None:
        self._device: Device = CupyDevice() if device is None else device

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

        See ``gpucal.backend.KernelSet.calibrate``. Waits for the current stream.
        """
        tile = Tile(counts, reference, factor, base_flags, out, out_flags)
        return calibrate_tile(tile, self._device)

    def dump_mean(self, counts: Any, valid: Any | None = None) -> tuple[Any, Any]:
        """Mean over dumps [c,D,R,A] -> [c,R,A] and the number of valid dumps; physics section 4.

        See ``gpucal.backend.KernelSet.dump_mean``.
        """
        return mean_over_dumps(counts, valid, self._device)

    def reference(self, off1: Any, off2: Any, weight: Any) -> Any:
        """(1-w) OFF_1 + w OFF_2, [c,R,A] or [c,D,R,A]; physics section 7.

        See ``gpucal.backend.KernelSet.reference``.
        """
        return blend_references(off1, off2, weight, self._device)

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

        See ``gpucal.backend.KernelSet.chi2``.
        """
        problem = Problem(pwv, observed, weight, amplitude, opacity)
        return chi2_sums(problem, airmass, derivatives, self._device)

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

        See ``gpucal.backend.KernelSet.fold``. Waits for the current stream.
        """
        tile = FoldTile(
            *(spectra, flags, weight, taps, nearest, transmission, base_flags, out, out_flags)
        )
        return fold_phases(tile, self._device)
