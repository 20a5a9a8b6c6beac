"""calibrate: T_A* = (C_ON - C_REF) * F of a tile; physics section 6, equation (6.1) (Ulich & Haas 1976)."""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple

import numpy as np

from gpucal.axes import BLANKING, Flag
from gpucal.kernel_contract.argument import (
    COUNTS,
    F64,
    FLAGS,
    SPECTRA,
    Array,
    Contract,
    given,
    written,
)
from gpucal.kernel_contract.counts import is_fill


class CalibrationTile(NamedTuple):
    """Counts of the source and all that turns them into T_A*, with room for the result.

    reference: counts off the source, one for all dumps or one per dump. factor: F = T_cal / gain,
    K per count. Flags: bits of ``gpucal.axes.Flag``.
    """

    counts: Annotated[Array, given(COUNTS, "c D R A", unit="counts")]
    reference: Annotated[Array, given(F64, "c R A", "c D R A", unit="counts")]
    factor: Annotated[Array, given(F64, "c R A", unit="K/count")]
    base_flags: Annotated[Array, given(FLAGS, "c R A")]
    out: Annotated[Array, written(SPECTRA, "c D R A", unit="K")]
    out_flags: Annotated[Array, written(FLAGS, "c D R A")]


def calibrate(tile: CalibrationTile) -> int:
    """Write ``out`` and ``out_flags``; returns the number of samples with bit 1 (no data).

    Each sample is ((double) count - reference) * factor, rounded once more where ``out`` is f32.
    A fill sample, and one whose reference or factor is not finite, gets bit 1 beside its base flags;
    in a channel with bit 0 (bad) only the fill sample does. A sample with bit 0 or bit 1 is NaN.
    Returns 0 where the flags are the base flags for every dump.
    """
    lost = 0
    for c, d, r, a in np.ndindex(tile.counts.shape):
        count = tile.counts[c, d, r, a]
        reference = tile.reference[(c, d, r, a) if tile.reference.ndim == 4 else (c, r, a)]
        factor = tile.factor[c, r, a]
        flag = int(tile.base_flags[c, r, a])
        bad = flag & Flag.BAD_CHANNEL
        usable = math.isfinite(reference) and math.isfinite(factor)
        if is_fill(count) or not (usable or bad):
            flag |= Flag.FILL_VALUE
        blank = flag & BLANKING
        with np.errstate(over="ignore"):
            tile.out[c, d, r, a] = math.nan if blank else (np.float64(count) - reference) * factor
        tile.out_flags[c, d, r, a] = flag
        lost += bool(flag & Flag.FILL_VALUE)
    return lost


CALIBRATE = Contract("calibrate", CalibrationTile, calibrate)
