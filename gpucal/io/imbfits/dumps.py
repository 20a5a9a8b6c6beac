"""The dumps of a subscan: which rows of DATA belong to which moment and pixel, and which of them can be used.

Source: docs/reference/imbfits.md, dumps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpucal.errors import ImportFormatError
from gpucal.io.fits.units import Unit
from gpucal.io.imbfits.chunks import BackendLayout
from gpucal.io.imbfits.file import SubscanTables
from gpucal.io.imbfits.pointing import limits_of
from gpucal.io.incoming.assumptions import Assumptions
from gpucal.io.incoming.phase_cycles import whole_cycles

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
DAY_S = 86400.0
EDGE_S = 1e-3
"""How far outside its subscan a dump may lie."""
LONGEST_DUMP_S = 3600.0
OLD_STAMP = 1.0
"""Where in a dump its time is when TSTAMPED is not told."""


@dataclass(frozen=True, eq=False)
class Dumps:
    """D dumps in order of time.

    rows     i64 [D, P]  row of DATA for each place of a pixel (P = 1 where a row holds all), -1 lost
    mjd      f64 [D]     middle, UTC; length f64 [D] s; phase i64 [D]: ISWITCH
    order    i64 [D]     place in the file: a number is missing where a bad dump was
    left_out how many were bad (ISWITCH 0), and how many lie outside the subscan
    """

    rows: I64
    mjd: F64
    length: F64
    phase: I64
    order: I64
    left_out: tuple[int, int] = (0, 0)

    @property
    def n(self) -> int:
        """D."""
        return len(self.mjd)

    def only(self, chosen: npt.NDArray[np.bool_] | I64) -> Dumps:
        """Some of them, in the same order."""
        return Dumps(
            self.rows[chosen],
            self.mjd[chosen],
            self.length[chosen],
            self.phase[chosen],
            self.order[chosen],
            self.left_out,
        )


def dumps_of(tables: SubscanTables, layout: BackendLayout, assumed: Assumptions) -> Dumps:
    """The good dumps of a subscan; ImportFormatError when none is left or the rows do not add up."""
    unit = tables.data
    assert unit is not None
    number = tables.number
    if not unit.rows:
        raise ImportFormatError(f"{unit.place} has no dump.", subscan=number)
    mjd, length, phase = _times(unit, number, assumed)
    places = len(layout.pixels) if layout.by_row else 1
    good = phase > 0
    grid = _grid(unit, mjd, good, places, number)
    dumps = _good_dumps(unit, number, grid, (mjd, length, phase), good)
    begin, end = limits_of(tables)
    inside = (dumps.mjd >= begin - EDGE_S / DAY_S) & (dumps.mjd <= end + EDGE_S / DAY_S)
    bad, outside = len(grid) - dumps.n, int((~inside).sum())
    if not inside.any():
        raise ImportFormatError(
            f"{unit.place}: none of its {dumps.n} good dumps lies in its subscan, which took "
            f"{(end - begin) * DAY_S:.1f} s (DATE-OBS, DATE-END); the nearest is "
            f"{_apart(dumps.mjd, begin, end):.1f} s away.",
            subscan=number,
        )
    kept = dumps.only(inside)
    return Dumps(kept.rows, kept.mjd, kept.length, kept.phase, kept.order, (bad, outside))


def _apart(mjd: F64, begin: float, end: float) -> float:
    return float(np.maximum(begin - mjd, mjd - end).min()) * DAY_S


def _times(unit: Unit, number: int, assumed: Assumptions) -> tuple[F64, F64, I64]:
    """Middle (MJD), length (s) and ISWITCH of each row; of good rows they are known to be possible."""
    mjd, length = unit.numbers("MJD"), unit.numbers("INTEGTIM")
    phase = np.nan_to_num(unit.numbers("ISWITCH")).astype(np.int64)
    good = phase > 0
    phases = int(unit.number("NPHASES", 0.0)) or int(phase.max())
    if good.any() and phase.max() > phases:
        raise ImportFormatError(
            f"{unit.place}: ISWITCH is {phase.max()}, expected 0 (bad) to {phases} (NPHASES).",
            subscan=number,
        )
    if not good.any():
        raise ImportFormatError(
            f"{unit.place}: all {len(mjd)} dumps are marked as bad (ISWITCH 0).", subscan=number
        )
    wrong = good & ~((length > 0) & (length < LONGEST_DUMP_S))
    if wrong.any():
        raise ImportFormatError(
            f"{unit.place}: INTEGTIM of row {int(np.flatnonzero(wrong)[0]) + 1} is {length[wrong][0]:g}, expected s "
            f"above 0 and below {LONGEST_DUMP_S:g}.",
            subscan=number,
        )
    wrong = good & ~((mjd > 40000.0) & (mjd < 80000.0))
    if wrong.any():
        raise ImportFormatError(
            f"{unit.place}: MJD of row {int(np.flatnonzero(wrong)[0]) + 1} is {mjd[wrong][0]:g}, expected days.",
            subscan=number,
        )
    stamp = unit.number("TSTAMPED", np.nan)
    if not np.isfinite(stamp):
        assumed.note("TSTAMPED", OLD_STAMP, "it is missing: MJD is the end of a dump")
        stamp = OLD_STAMP
    if not 0.0 <= stamp <= 1.0:
        raise ImportFormatError(
            f"{unit.place}: TSTAMPED is {stamp:g}, expected 0 (begin) to 1 (end of a dump).",
            subscan=number,
        )
    return mjd + (0.5 - stamp) * length / DAY_S, length, phase


def _grid(unit: Unit, mjd: F64, good: npt.NDArray[np.bool_], places: int, number: int) -> I64:
    """Row of DATA of each dump and place [D, P]: rows of one time are the pixels of one dump."""
    n = len(mjd)
    if n % places:
        raise ImportFormatError(
            f"{unit.place} has {n} rows, expected a multiple of its {places} pixels.",
            subscan=number,
        )
    rows = np.arange(n)
    for grid in (rows.reshape(-1, places), rows.reshape(places, -1).T):
        times = np.where(good[grid], mjd[grid], np.nan)
        some = good[grid].any(axis=1)
        spread = np.nanmax(times[some], axis=1) - np.nanmin(times[some], axis=1)
        if not spread.size or spread.max() * DAY_S < EDGE_S:
            return grid
    raise ImportFormatError(
        f"{unit.place}: its rows are of one pixel each, but neither successive ones nor those {n // places} apart have "
        "the same time (MJD).",
        subscan=number,
    )


def _good_dumps(
    unit: Unit,
    number: int,
    grid: I64,
    values: tuple[F64, F64, I64],
    good: npt.NDArray[np.bool_],
) -> Dumps:
    """The dumps of which at least one pixel is good, in order of time."""
    mjd, length, phase = values
    there = good[grid]
    kept = np.flatnonzero(there.any(axis=1))
    lead = grid[kept, there[kept].argmax(axis=1)]
    rows = np.where(there[kept], grid[kept], -1)
    mixed = there[kept] & (phase[grid[kept]] != phase[lead][:, None])
    if mixed.any():
        raise ImportFormatError(
            f"{unit.place}: pixels of one time are in different phases (ISWITCH).", subscan=number
        )
    steps = np.diff(mjd[lead])
    if (steps < 0).any():
        at = int(np.flatnonzero(steps < 0)[0])
        raise ImportFormatError(
            f"{unit.place}: MJD runs backwards by {-steps[at] * DAY_S:.3f} s at row {int(lead[at + 1]) + 1}.",
            subscan=number,
        )
    return Dumps(rows, mjd[lead], length[lead], phase[lead], kept)


def cycles(dumps: Dumps) -> tuple[Dumps, int]:
    """The whole cycles of two phases, and how many dumps did not belong to one."""
    kept = whole_cycles(dumps.phase, dumps.order)
    return dumps.only(kept), dumps.n - len(kept)
