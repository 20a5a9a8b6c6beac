"""dump_mean: the mean over the dumps of a subscan, without its fill samples; physics section 4."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np

from gpucal.kernel_contract.argument import BOOL, COUNTS, Array, Contract, given
from gpucal.kernel_contract.counts import is_fill


class SubscanDumps(NamedTuple):
    """Dumps of one subscan; ``valid`` marks those to be used, None for all."""

    counts: Annotated[Array, given(COUNTS, "c D R A", unit="counts")]
    valid: Annotated[Array | None, given(BOOL, "D", optional=True)] = None


class DumpMean(NamedTuple):
    """mean f64 [c,R,A], counts; number i32 [c,R,A]: dumps in the mean."""

    mean: Array
    number: Array


def dump_mean(dumps: SubscanDumps) -> DumpMean:
    """The mean of the valid dumps that are not fill, and their number; NaN where there is none.

    Integers are added exactly and divided once; floats are added in f64 in the order of the dumps.
    """
    counts, valid = dumps
    channels, n_dumps, receivers, pixels = counts.shape
    rows = (channels, receivers, pixels)
    mean, number = np.full(rows, np.nan), np.zeros(rows, np.int32)
    for c, r, a in np.ndindex(rows):
        chosen = [counts[c, d, r, a] for d in range(n_dumps) if valid is None or valid[d]]
        data = [count.item() for count in chosen if not is_fill(count)]
        number[c, r, a] = len(data)
        total = 0  # Python's integers hold any sum
        for count in data:
            total += count
        if data:
            mean[c, r, a] = float(total) / len(data)
    return DumpMean(mean, number)


DUMP_MEAN = Contract("dump_mean", SubscanDumps, dump_mean)
