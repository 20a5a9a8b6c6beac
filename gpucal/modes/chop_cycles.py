"""Wobbler: both phases are in the dumps of one subscan (``chop_phase``); physics section 7."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gpucal.kernel_contract.dump_mean import SubscanDumps
from gpucal.modes.recipe import (
    F64,
    Array,
    Difference,
    OnAndReference,
    ReferenceTrack,
    TileCounts,
    mean_exptime,
)
from gpucal.products import MeanKey


class ChopCycle(NamedTuple):
    """The dumps of one cycle: those on the source, and those off it."""

    source: tuple[int, ...]
    off: tuple[int, ...]


@dataclass(frozen=True)
class ChopCycles(Difference):
    """Mean of the ON dumps minus mean of the OFF dumps of each cycle; an output dump is a cycle.

    sky: the mean over all dumps of the phase off the source.
    """

    on: int
    cycles: tuple[ChopCycle, ...]
    sky: MeanKey

    def subscans(self) -> tuple[int, ...]:
        """The single subscan that holds both phases."""
        return (self.on,)

    def means(self) -> tuple[MeanKey, ...]:
        """The phase off the source, for the sky alone."""
        return (self.sky,)

    def sky_key(self) -> MeanKey:
        """The phase off the source."""
        return self.sky

    def output_dumps(self, n_dumps: int) -> int:
        """One for each cycle."""
        return len(self.cycles)

    def on_and_reference(self, tile: TileCounts) -> OnAndReference:
        """Mean of either phase of each cycle, f64 [c,n,R,A]; NaN beyond the last cycle."""
        xp, counts = tile.backend.xp, tile.source(self.on)
        sides: tuple[list[Array], list[Array]] = ([], [])
        for cycle in self.cycles:
            for side, dumps in zip(sides, cycle, strict=True):
                mask = np.zeros(counts.shape[1], dtype=np.bool_)
                mask[list(dumps)] = True
                phase = SubscanDumps(counts, tile.backend.asarray(mask))
                side.append(tile.backend.kernels.dump_mean(phase).mean)
        empty = xp.full((counts.shape[0], *counts.shape[2:]), xp.nan)
        for side in sides:
            side += [empty] * (tile.n_dumps - len(side))
        return OnAndReference(xp.stack(sides[0], axis=1), xp.stack(sides[1], axis=1))

    def dump_noise(self, exptime: F64) -> float:
        """1/t_on + 1/t_off of a cycle."""
        dump = mean_exptime(exptime, self.on)
        rates = [1.0 / (len(x) * dump) + 1.0 / (len(y) * dump) for x, y in self.cycles]
        return float(np.mean(rates))

    def reference_tracks(self, values: F64, n_dumps: int) -> list[ReferenceTrack]:
        """Mean over the dumps off the source of each cycle; NaN beyond the last cycle."""
        out = np.full(n_dumps, np.nan)
        for i, cycle in enumerate(self.cycles):
            out[i] = values[list(cycle.off), self.on].mean()
        return [ReferenceTrack(1.0, out)]

    def track(self, values: F64, n_dumps: int, *, total: bool = False) -> F64:
        """Mean or sum over the dumps on the source of each cycle; NaN beyond the last cycle."""
        column = values[:, self.on]
        out = np.full(n_dumps, np.nan)
        for i, cycle in enumerate(self.cycles):
            part = column[list(cycle.source)]
            out[i] = part.sum() if total else part.mean()
        return out
