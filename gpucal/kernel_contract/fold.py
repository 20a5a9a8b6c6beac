"""fold: both phases of a frequency switch moved onto each other and averaged; physics section 7, equation (7.3)."""

from __future__ import annotations

import math
from typing import Annotated, Any, NamedTuple

import numpy as np

from gpucal.axes import Flag
from gpucal.kernel_contract.argument import (
    F64,
    FLAGS,
    I64,
    SPECTRA,
    Array,
    Contract,
    given,
    written,
)


class FoldTile(NamedTuple):
    """The difference of the two phases, T, and all that folds it, with room for the result.

    spectra, flags, weight: more channels (m) than the output has (c), as far as there are any;
    weight is 1/T_sys*^2. taps [phase,R,:]: of the interpolation between channels. nearest
    [phase,2,R]: the two channels of ``spectra`` on both sides of the shifted channel 0, the nearest
    first, or the same twice for a shift by whole channels. transmission: t of the folded frequency,
    None for 1.
    """

    spectra: Annotated[Array, given(F64, "m D R A", unit="K")]
    flags: Annotated[Array, given(FLAGS, "m D R A")]
    weight: Annotated[Array, given(F64, "m R A", unit="1/K^2")]
    taps: Annotated[Array, given(F64, "2 R 2h+1")]
    nearest: Annotated[Array, given(I64, "2 2 R", unit="channels")]
    transmission: Annotated[
        Array | None, given(F64, "c R A", "c R 1", "c 1 A", "c 1 1", optional=True)
    ]
    base_flags: Annotated[Array, given(FLAGS, "c R A")]
    out: Annotated[Array, written(SPECTRA, "c D R A", unit="K")]
    out_flags: Annotated[Array, written(FLAGS, "c D R A")]


class _Phase(NamedTuple):
    """One sample of a phase moved to its channel: temperature, weight, flags."""

    value: float
    weight: float
    flag: int


def fold(tile: FoldTile) -> int:
    """Write (w_1 T_1 - w_2 T_2) / (w_1 + w_2) / t; returns the number of samples with bit 1 (no data).

    A sample has the flags of both phases, and its base flags without bit 0. What is not finite
    becomes NaN, with bit 1 unless bit 0 is set.
    """
    lost = 0
    for c, d, r, a in np.ndindex(tile.out.shape):
        first, second = (_phase(tile, phase, (c, d, r, a)) for phase in range(2))
        flag = first.flag | second.flag | (int(tile.base_flags[c, r, a]) & ~Flag.BAD_CHANNEL)
        with np.errstate(all="ignore"):
            both = np.float64(first.weight) + second.weight
            value = (first.weight * first.value - second.weight * second.value) / both
            if tile.transmission is not None:
                through = np.broadcast_to(tile.transmission, tile.base_flags.shape)
                value = value / np.float64(through[c, r, a])
            lost_here = not math.isfinite(value)
            if lost_here and not flag & Flag.BAD_CHANNEL:
                flag |= Flag.FILL_VALUE
            tile.out[c, d, r, a] = math.nan if lost_here else value
        tile.out_flags[c, d, r, a] = flag
        lost += bool(flag & Flag.FILL_VALUE)
    return lost


def _phase(tile: FoldTile, phase: int, sample: tuple[int, int, int, int]) -> _Phase:
    """T'(c) = sum of taps[m] T(near + m), over the sum of those taps whose T is not NaN.

    m = -h..h in this order; a shift by whole channels has the middle tap alone. NaN in one of the two
    nearest channels gives NaN, and their flags are united. Beyond the channels T and the weight
    are NaN, and the flag is bit 1.
    """
    c, d, r, a = sample
    near, other = (int(n) + c for n in tile.nearest[phase, :, r])
    spectrum = tile.spectra[:, d, r, a]
    half = tile.taps.shape[2] // 2
    reach = range(1) if near == other else range(-half, half + 1)
    total = norm = 0.0
    for m in reach:
        value = float(_within(spectrum, near + m, math.nan))
        if not math.isnan(value):
            tap = float(tile.taps[phase, r, half + m])
            total += tap * value
            norm += tap
    gone = any(math.isnan(_within(spectrum, n, math.nan)) for n in (near, other))
    flags = [int(_within(tile.flags[:, d, r, a], n, Flag.FILL_VALUE)) for n in (near, other)]
    return _Phase(
        math.nan if gone else total / (norm or 1.0),
        float(_within(tile.weight[:, r, a], near, math.nan)),
        flags[0] | flags[1],
    )


def _within(channels: Array, place: int, beyond: Any) -> Any:
    """The value of a channel, or ``beyond`` where there is none."""
    return channels[place] if 0 <= place < len(channels) else beyond


FOLD = Contract("fold", FoldTile, fold, first="out")
