"""The plain form of each kernel as the benches call it, and how far two forms are apart.

Where no card is, ``host_loops`` builds the texts of ``gpucal.kernels.plain``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpucal.kernel_contract.calibrate import CalibrationTile
from gpucal.kernel_contract.chi2 import SkyFits
from gpucal.kernel_contract.dump_mean import SubscanDumps
from gpucal.kernel_contract.fold import FoldTile
from gpucal.kernel_contract.reference import OffPair
from gpucal.kernels import plain

Array = Any

PIECE = 1 << 24
"""Samples that are compared at a time."""


class PlainKernels:
    """The five functions in their plain form; each returns what the kernel returns or writes."""

    def __init__(self, xp: Any, loops: Any) -> None:
        self._own = plain.PlainKernels(xp, loops)

    def calibrate(self, tile: CalibrationTile) -> tuple[Array, Array, int]:
        """Into ``out`` and ``out_flags``; see ``gpucal.kernel_contract.calibrate``."""
        return tile.out, tile.out_flags, self._own.calibrate(tile)

    def dump_mean(self, dumps: SubscanDumps) -> tuple[Array, Array]:
        """See ``gpucal.kernel_contract.dump_mean``."""
        mean, number = self._own.dump_mean(dumps)
        return mean, number

    def reference(self, offs: OffPair) -> tuple[Array]:
        """One weight, or one for each dump; see ``gpucal.kernel_contract.reference``."""
        return (self._own.reference(offs),)

    def chi2(self, fits: SkyFits) -> tuple[Array]:
        """See ``gpucal.kernel_contract.chi2``."""
        return (self._own.chi2(fits),)

    def fold(self, tile: FoldTile) -> tuple[Array, Array, int]:
        """Into ``out`` and ``out_flags``; see ``gpucal.kernel_contract.fold``."""
        return tile.out, tile.out_flags, self._own.fold(tile)


def disagreement(found: Sequence[Any], expected: Sequence[Any], xp: Any) -> float:
    """Largest |a - b| over the larger of |b| and the rms of b around it; infinite where integers or
    the places of NaN differ. Works through large arrays piece by piece."""
    worst = 0.0
    for a, b in zip(found, expected, strict=True):
        if isinstance(b, int) or b.dtype.kind in "iu":
            same = a == b if isinstance(b, int) else bool((a == b).all())
            worst = worst if same else np.inf
            continue
        one, other = a.reshape(-1), b.reshape(-1)
        for start in range(0, one.size, PIECE):
            x, y = one[start : start + PIECE], other[start : start + PIECE]
            seen = xp.isfinite(y)
            if not bool((xp.isfinite(x) == seen).all()):
                return np.inf
            x, y = xp.where(seen, x, 0.0), xp.where(seen, y, 0.0)
            scale = xp.maximum(abs(y), xp.sqrt(xp.mean(y * y, dtype=np.float64)))
            worst = max(worst, float(xp.max(abs(x - y) / xp.maximum(scale, 1e-300))))
    return worst
