"""Choice of the knots of a table that is read by linear interpolation in frequency."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

FINEST_STEP_HZ = 2.0e4


def refine(
    knots: F64,
    evaluate: Callable[[F64], F64],
    measure: Callable[[F64], F64],
    tolerance: float,
    report: Callable[[int], None],
) -> tuple[F64, F64]:
    """Halve intervals until linear interpolation inside them is good to about ``tolerance``.

    ``evaluate`` f64 [N] -> f64 [K, N] exact values; ``measure`` turns values into what has to be right,
    f64 [.., N]. Intervals shorter than FINEST_STEP_HZ stay. Returns knots [N'] and values [K, N'].
    """
    values = evaluate(knots)
    open_ = np.ones(knots.size - 1, dtype=bool)
    while np.any(open_):
        at = np.flatnonzero(open_)
        middle = 0.5 * (knots[at] + knots[at + 1])
        exact = evaluate(middle)
        guess = 0.5 * (values[:, at] + values[:, at + 1])
        fails = np.max(np.abs(measure(guess) - measure(exact)), axis=0) > tolerance
        # every point computed is kept here, also where the interval was good enough
        open_[at] = fails
        knots = np.insert(knots, at + 1, middle)
        values = np.insert(values, at + 1, exact, axis=1)
        open_ = np.insert(open_, at + 1, fails)
        # a middle can agree by accident, so the curvature at both ends has a say too
        open_ |= _curvature_error(knots, values, measure) > 2 * tolerance
        open_ &= np.diff(knots) > 2 * FINEST_STEP_HZ
        report(knots.size)
    return knots, values


def _curvature_error(knots: F64, values: F64, measure: Callable[[F64], F64]) -> F64:
    """Error at the middle of each interval, f64 [N-1], from the parabolas through three knots."""
    step = np.diff(knots)
    slope = np.diff(values, axis=1) / step
    bend = np.diff(slope, axis=1) / (knots[2:] - knots[:-2])
    middle = 0.5 * (values[:, :-1] + values[:, 1:])
    linear = measure(middle)
    worst = np.zeros(step.size)
    for side in (slice(1, None), slice(None, -1)):  # the parabola shared with the left, the right
        sagged = middle[:, side] - 0.25 * step[side] ** 2 * bend
        with np.errstate(over="ignore"):  # beside a sharp line the parabola may run far away
            change = np.max(np.abs(measure(sagged) - linear[..., side]), axis=0)
        worst[side] = np.maximum(worst[side], change)
    return worst


def thin(freq: F64, parts: F64, measure: Callable[[F64], F64], tolerance: float) -> tuple[F64, F64]:
    """Drop knots while linear interpolation gives all of the original ones back to ``tolerance``.

    freq [N], parts [K, N]; ``measure`` as for ``refine``. Returns fewer knots and their values.
    """
    want = measure(parts)
    kept = np.arange(freq.size)
    idle = 0
    while idle < 2 and kept.size > 2:
        for phase in (1, 2):  # every other knot at a time: both neighbours of a dropped one stay
            candidate = np.zeros(kept.size, dtype=bool)
            candidate[phase:-1:2] = True
            trial = kept[~candidate]
            guess = np.stack([np.interp(freq, freq[trial], row[trial]) for row in parts])
            error = np.max(np.abs(measure(guess) - want), axis=0)
            worst = np.maximum.reduceat(error, trial[:-1])
            segment = np.searchsorted(trial, kept, side="right") - 1
            drop = candidate & (worst[np.minimum(segment, worst.size - 1)] < tolerance)
            idle = 0 if np.count_nonzero(drop) > 0.005 * kept.size else idle + 1
            kept = kept[~drop]
            if kept.size <= 2:
                break
    return freq[kept], parts[:, kept]
