"""One sky over one telescope: the water of the receivers and of the bands of a scan compared; physics section 12.

Where they disagree by more than their errors, and T_A* with them, something that differs between them is wrong: the
temperature of a load, a sideband ratio, the table in one of the bands.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import NamedTuple

import numpy as np

from gpucal.physics.rounding import with_error
from gpucal.products import WaterSeen
from gpucal.steps.skies.load_sky import MATTERS, change_of_scale
from gpucal.steps.solution import ScanSolution

RECEIVERS_APART, BANDS_APART = 3.0, 2.0
"""In errors: of the noise within a band, where receivers share what else is wrong; of all there is between bands."""


class _Pair(NamedTuple):
    """Two that disagree, and by which fraction T_A* would change with the other's PWV."""

    one: WaterSeen
    other: WaterSeen
    effect: float

    def said(self) -> str:
        one, other = (f"{w.by} has {with_error(w.pwv, w.error)} mm" for w in (self.one, self.other))
        return f"{one}, {other}, which is {100 * self.effect:.1f} % of T_A*"


def with_receivers(solution: ScanSolution) -> ScanSolution:
    """The solution with what each of its receivers says of the water, and a warning where they disagree."""
    seen = () if solution.errors is None else solution.errors.receivers
    if len(seen) < 2:
        return solution
    pairs = [
        _Pair(a, b, _effect(solution, a, b))
        for a, b in combinations(seen, 2)
        if _apart(a, b, RECEIVERS_APART)
    ]
    water = (*solution.water, *seen)
    worst = _worst(pairs)
    if worst is None:
        return replace(solution, water=water)
    text = (
        f"the receivers disagree about the water, and one PWV serves all of them: {worst.said()}. Look at the "
        "temperatures of their loads and at gain_image; --pwv-scope per-pixel gives each its own."
    )
    return replace(solution, water=water, warnings=(*solution.warnings, text))


def with_other_bands(solutions: Sequence[ScanSolution]) -> list[ScanSolution]:
    """The bands of one scan, each with what the others say of the water, and a warning where two disagree."""
    seen = [_of_band(solution) for solution in solutions]
    found = []
    for i, (solution, own) in enumerate(zip(solutions, seen, strict=True)):
        if own is None:
            found.append(solution)
            continue
        others = [
            (w, s)
            for j, (w, s) in enumerate(zip(seen, solutions, strict=True))
            if j != i and w is not None
        ]
        pairs = [
            _Pair(own, w, max(_effect(solution, own, w), _effect(s, w, own)))
            for w, s in others
            if _apart(own, w, BANDS_APART)
        ]
        worst = _worst(pairs)
        text: tuple[str, ...] = ()
        if worst is not None:
            text = (
                f"the bands disagree about the water of one sky: {worst.said()}. Look at the temperatures of the "
                "loads, gain_image and the table of both; --pwv gives all of them the same.",
            )
        found.append(
            replace(
                solution,
                water=(*solution.water, *(w for w, _ in others)),
                warnings=(*solution.warnings, *text),
            )
        )
    return found


def _of_band(solution: ScanSolution) -> WaterSeen | None:
    """The fitted PWV of a band, the mean where there are several, with all its errors; None without a fit."""
    errors = solution.errors
    if errors is None or not np.isfinite(errors.pwv_noise).any():
        return None
    name = solution.scan.band or "the band"
    return WaterSeen(
        name, float(np.nanmean(solution.atmosphere.pwv)), float(np.nanmean(errors.pwv))
    )


def _apart(one: WaterSeen, other: WaterSeen, errors: float) -> bool:
    return abs(one.pwv - other.pwv) > errors * math.hypot(one.error, other.error)


def _effect(solution: ScanSolution, own: WaterSeen, other: WaterSeen) -> float:
    """Fraction of T_A* of a band between its own and the other PWV."""
    mass = float(np.mean(solution.atmosphere.airmass))
    model = solution.few_channels
    return abs(change_of_scale(model, other.pwv, own.pwv, mass, solution.backend))


def _worst(pairs: Sequence[_Pair]) -> _Pair | None:
    """The pair that matters most; None where none does."""
    worst = max(pairs, key=lambda p: p.effect, default=None)
    return worst if worst is not None and worst.effect >= MATTERS else None
