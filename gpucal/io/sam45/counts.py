"""Counts of a SAM45 log as the telescope's own programs form them: less ZERO, and R times its attenuation.

Shapes use C channels, D dumps, R receivers, A array pixels. Source: docs/reference/sam45.md, the rules of
the raw counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gpucal.io.sam45.bands import ArraySetup, Band
from gpucal.io.sam45.log import Sam45Log
from gpucal.io.sam45.moments import Moments, Run
from gpucal.io.sam45.pointing import Pointing

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


class LogCounts:
    """Reads the counts of one log, subscan by subscan; ZERO spectra are kept."""

    def __init__(
        self,
        log: Sam45Log,
        moments: Moments,
        runs: Sequence[Run],
        lost: npt.NDArray[np.bool_],
        *,
        subtract: bool = True,
    ) -> None:
        """lost: moments whose counts are not to be used; runs: all subscans, to find the ZEROs.

        subtract: False where ZERO was subtracted before.
        """
        self._log, self._moments, self._lost = log, moments, lost
        self.zeros = [run for run in runs if run.kind == "ZERO"]
        self._zero_of: dict[tuple[int, int], F64] = {}
        self.subtract = subtract

    def without_zero(self, band: Band) -> list[ArraySetup]:
        """The arrays of a band that have no ZERO in the whole log: their counts cannot be told from offsets."""
        if not self.subtract:
            return []
        have = [(self._moments.rows[run.moments] >= 0).any(axis=0) for run in self.zeros]
        there = np.logical_or.reduce(have) if have else np.zeros(self._moments.rows.shape[1], bool)
        return [s for s in band.members if not there[s.index]]

    def block(self, band: Band, run: Run, dumps: int) -> F32:
        """Counts f32 [C,D,R,A] of one subscan; NaN where there is none."""
        lead = band.lead
        out = np.full((lead.channels, dumps, len(band.arrays), len(band.beams)), np.nan, np.float32)
        for r, row in enumerate(band.arrays):
            for a, array in enumerate(row):
                if array is None:
                    continue
                zero = None if run.kind == "ZERO" else self._zero(array, run)
                if zero is None and self.subtract and run.kind != "ZERO":
                    continue
                for d in range(run.n):
                    record = int(self._moments.rows[run.first + d, array.index])
                    if record < 0 or self._lost[run.first + d]:
                        continue
                    out[:, d, r, a] = self._counts(array, run.kind, record, zero)
        return out

    def _counts(self, array: ArraySetup, kind: str, record: int, zero: F64 | None) -> F64:
        counts = self._log.spectrum(record, array.channels).astype(np.float64)
        if zero is not None:
            counts -= zero
        if kind == "R":
            counts *= 10.0 ** (array.attenuation_db / 10.0)
        return counts[::-1] if array.flipped else counts

    def _zero(self, array: ArraySetup, run: Run) -> F64 | None:
        """Mean of the last ZERO of an array before a subscan, else of the first after it; None without one."""
        if not self.subtract:
            return None
        having = [z for z in self.zeros if (self._moments.rows[z.moments, array.index] >= 0).any()]
        if not having:
            return None
        before = [z for z in having if z.last <= run.first]
        chosen = before[-1] if before else having[0]
        key = (chosen.first, array.index)
        if key not in self._zero_of:
            records = self._moments.rows[chosen.moments, array.index]
            spectra = [
                self._log.spectrum(int(n), array.channels).astype(np.float64)
                for n in records
                if n >= 0
            ]
            self._zero_of[key] = np.mean(spectra, axis=0)
        return self._zero_of[key]


def lost_dumps(pointing: Pointing, runs: Sequence[Run]) -> int:
    """Dumps of some subscans without a position."""
    return sum(int(pointing.lost[run.moments].sum()) for run in runs)
