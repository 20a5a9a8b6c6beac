"""Which dumps of a switched observation form whole cycles of its two phases."""

from __future__ import annotations

from statistics import mode

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]


def whole_cycles(phase: I64, order: I64) -> I64:
    """Indices [K] of the dumps [D] that belong to whole cycles.

    phase: number of the phase of each dump; order: place of each among all that were taken, so that a number is missing
    where a bad dump was. A cycle is a run of dumps of one phase and the run of the other one behind it, all taken one
    after the other: with a bad dump within, or of another length than most, it is none. All cycles begin with the
    same phase.
    """
    runs: list[list[int]] = []
    for d in range(len(phase)):
        new = d == 0 or phase[d] != phase[d - 1]
        if new or order[d] != order[d - 1] + 1:
            runs.append([])
        runs[-1].append(d)
    usual = mode([len(r) for r in runs]) if runs else 0
    lead = int(phase[0]) if len(phase) else 0
    kept: list[int] = []
    k = 0
    while k + 1 < len(runs):
        one, two = runs[k], runs[k + 1]
        follows = order[two[0]] == order[one[-1]] + 1
        whole = len(one) == len(two) == usual
        if phase[one[0]] == lead != phase[two[0]] and follows and whole:
            kept += [*one, *two]
            k += 2
        else:
            k += 1
    return np.array(kept, dtype=np.int64)
