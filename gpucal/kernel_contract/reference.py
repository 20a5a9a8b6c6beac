"""reference: the counts between two OFF positions, linear in time; physics section 7, equation (7.1)."""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpucal.kernel_contract.argument import F64, Array, Contract, given


class OffPair(NamedTuple):
    """Means of the OFF before and of the OFF after, and the weight w of the second.

    weight: one for all dumps, or one per dump.
    """

    off1: Annotated[Array, given(F64, "c R A", unit="counts")]
    off2: Annotated[Array, given(F64, "c R A", unit="counts")]
    weight: Annotated[Array, given(F64, "", "D")]


def reference(offs: OffPair) -> NDArray[np.float64]:
    """(1-w) OFF_1 + w OFF_2, counts: f64 [c,R,A], or [c,D,R,A] for one weight per dump.

    Where one OFF is NaN the other is taken, exactly; w = 0 gives OFF_1 and w = 1 gives OFF_2 exactly,
    even when the other one is infinite.
    """
    off1, off2, weight = offs
    channels, *pixels = off1.shape
    weights = np.atleast_1d(weight)
    out = np.empty((channels, len(weights), *pixels))
    for c, d, r, a in np.ndindex(out.shape):
        first, second, w = off1[c, r, a], off2[c, r, a], weights[d]
        if w == 0 or math.isnan(second):
            between = second if math.isnan(first) else first
        elif w == 1 or math.isnan(first):
            between = second
        else:
            with np.errstate(all="ignore"):
                between = (1.0 - w) * first + w * second
        out[c, d, r, a] = between
    return out if np.ndim(weight) else out[:, 0]


REFERENCE = Contract("reference", OffPair, reference)
