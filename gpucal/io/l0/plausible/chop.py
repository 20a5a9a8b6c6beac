"""The phases of a chopper: it dwells as long on one side as on the other, and a single dump that does not is doubtful.

Shapes use D dumps, S subscans.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.scan import SubscanGroup

LONGEST_DWELL = 8
"""Dumps on one side."""

MOST_ODD = 0.1
"""Part of the dumps that may break the sequence; with more there is none."""

Phases = npt.NDArray[Any]


def check_chop(group: SubscanGroup, notes: list[str]) -> None:
    """A warning about a single dump whose phase breaks the sequence that all others keep."""
    if group.chop_phase is None:
        return
    stop = [len(group.recorded_of(group.mjd, s)) for s in range(group.shape[4])]
    columns = [group.chop_phase[:n, s] for s, n in enumerate(stop)]
    total = sum(map(len, columns))
    if not all(set(np.unique(c)) <= {0, 1} for c in columns):
        return
    best = min(
        ([_misfits(c, dwell) for c in columns] for dwell in range(1, LONGEST_DWELL + 1)),
        key=lambda found: sum(len(odd) for odd in found),
    )
    if not 0 < sum(map(len, best)) <= MOST_ODD * total:
        return
    for s, odd in enumerate(best):
        # At the ends of a subscan a dump may be missing, after which the sequence is displaced.
        alone = [d for d in odd if 0 < d < stop[s] - 1 and not {d - 1, d + 1} & set(odd)]
        if alone:
            phase = int(columns[s][alone[0]])
            notes.append(
                f"chop_phase of dump {alone[0]} of subscan {s} ({group.sobsmode[s]}) is {phase}, the sequence of "
                f"all others makes it {1 - phase}: source and reference of it may be exchanged."
            )
            return


def _misfits(column: Phases, dwell: int) -> list[int]:
    """The dumps of a subscan whose phases do not alternate every ``dwell`` dumps, from the best start."""
    at = np.arange(len(column))
    found = (np.flatnonzero((at + start) // dwell % 2 != column) for start in range(2 * dwell))
    return [int(d) for d in min(found, key=len)]
