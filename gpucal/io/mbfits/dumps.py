"""The dumps of a subscan: rows of ARRAYDATA-MBFITS with the row of DATAPAR-MBFITS of the same time.

Source: docs/reference/mbfits.md, dumps.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gpucal.errors import GpucalWarning, ImportFormatError
from gpucal.io.fits.units import Unit
from gpucal.io.incoming.assumptions import Assumptions
from gpucal.io.mbfits.clock import DAY_S, Clock
from gpucal.io.mbfits.dataset import BLANK, Dataset, Key, SubscanTables

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
SAME_S = 1e-3
NEAR_DUMPS = 0.5
"""A row of DATAPAR belongs to a row of counts that is nearer than this share of a dump."""
LONGEST_DUMP_S = 3600.0
_ANGLES = {"lon": "LONGOFF", "lat": "LATOFF", "azimuth": "AZIMUTH", "elevation": "ELEVATIO"}
_EXTRA = {"rotation": "ROTANGLE", "x": "DFOCUS_X", "y": "DFOCUS_Y", "z": "DFOCUS_Z"}


@dataclass(frozen=True, eq=False)
class Dumps:
    """D dumps in order of time.

    rows     i64 [D]  row of DATA; mjd f64 [D]: middle, UTC; length f64 [D] s
    phase    i64 [D]  PHASE, 1 where there is no such column
    order    i64 [D]  place among all rows of DATA: a number is missing where a dump was left out
    values   f64 [D], NaN where blank: lon, lat (deg, true angles), azimuth, elevation (rad), rotation (deg), x, y, z
             (mm)
    left_out how many rows of counts had no row of DATAPAR, and how many were blank
    """

    rows: I64
    mjd: F64
    length: F64
    phase: I64
    order: I64
    values: Mapping[str, F64]
    left_out: tuple[int, int] = (0, 0)

    @property
    def n(self) -> int:
        """D."""
        return len(self.mjd)

    def only(self, chosen: npt.NDArray[np.bool_] | I64) -> Dumps:
        """Some of them, in the same order."""
        return replace(
            self,
            rows=self.rows[chosen],
            mjd=self.mjd[chosen],
            length=self.length[chosen],
            phase=self.phase[chosen],
            order=self.order[chosen],
            values={name: v[chosen] for name, v in self.values.items()},
        )


def dumps_of(
    dataset: Dataset, tables: SubscanTables, key: Key, clock: Clock, assumed: Assumptions
) -> Dumps:
    """The dumps of a band in a subscan; ImportFormatError when none can be used."""
    febe, number = key[0], tables.number
    counts, pars = tables.arrays.get(key), tables.datapars.get(febe)
    for unit, name in (
        (counts, f"counts of baseband {key[1]} (ARRAYDATA-MBFITS)"),
        (pars, "DATAPAR-MBFITS"),
    ):
        if unit is None:
            raise ImportFormatError(
                f"{dataset.lead} has no {name} of {febe} in subscan {number}.", subscan=number
            )
        if not unit.rows:
            raise ImportFormatError(f"{unit.place} has no row.", subscan=number)
    assert counts is not None
    assert pars is not None
    try:
        return _matched(dataset, counts, pars, number, clock, assumed)
    finally:
        dataset.rest(counts, pars)


def _matched(
    dataset: Dataset, counts: Unit, pars: Unit, number: int, clock: Clock, assumed: Assumptions
) -> Dumps:
    when, told = counts.numbers("MJD"), pars.numbers("MJD")
    length = _blanked(pars.numbers("INTEGTIM"))
    _check_times(counts, when, number)
    good_rows = _is_time(told) & np.isfinite(length)
    if not good_rows.any():
        raise ImportFormatError(
            f"{pars.place}: none of its {pars.rows} rows has MJD and INTEGTIM.", subscan=number
        )
    wrong = good_rows & ~((length > 0) & (length < LONGEST_DUMP_S))
    if wrong.any():
        raise ImportFormatError(
            f"{pars.place}: INTEGTIM of row {int(np.flatnonzero(wrong)[0]) + 1} is {length[wrong][0]:g}, expected s "
            f"above 0 and below {LONGEST_DUMP_S:g}.",
            subscan=number,
        )
    places = np.flatnonzero(good_rows)
    places = places[np.argsort(told[places], kind="stable")]
    at = _nearest(told[places], when)
    row = places[at]
    apart = (when - told[row]) * DAY_S
    near = _is_time(when) & (np.abs(apart) < NEAR_DUMPS * length[row])
    if not near.any():
        raise ImportFormatError(
            f"{counts.place}: none of its {counts.rows} rows has the time (MJD) of a row of {pars.place}; the nearest "
            f"is {np.nanmin(np.abs(apart)):.3f} s away.",
            subscan=number,
        )
    shifted = float(np.abs(apart[near]).max()) > SAME_S
    kept = np.flatnonzero(near)
    steps = np.diff(when[kept])
    if (steps <= 0).any():
        k = int(np.flatnonzero(steps <= 0)[0])
        raise ImportFormatError(
            f"{counts.place}: MJD of row {int(kept[k + 1]) + 1} is {-steps[k] * DAY_S:.3f} s before that of the row "
            "before it.",
            subscan=number,
        )
    values = _values(pars, row[kept], number, dataset, assumed)
    if shifted:
        _warn_shift(dataset, counts, float(np.median(apart[near])))
        values |= _between(pars, places, told, when[kept], number, dataset, assumed)
    blank = int((~_is_time(when)).sum())
    mine = length[row[kept]]
    phase = _phases(pars, number)[row[kept]]
    middle = clock.middle(when[kept], mine)
    lost = len(when) - len(kept) - blank
    found = Dumps(kept, middle, mine, phase, kept, values, (lost, blank))
    return found.only(phase > 0) if (phase > 0).any() else found.only(phase == phase)


def _check_times(counts: Unit, when: F64, number: int) -> None:
    if not _is_time(when).any():
        raise ImportFormatError(
            f"{counts.place}: MJD of its first row is {when[0]:g}, expected days.", subscan=number
        )


def _is_time(mjd: F64) -> npt.NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        return np.asarray((mjd > 40000.0) & (mjd < 80000.0))


def _nearest(times: F64, when: F64) -> I64:
    """Index of the nearest of the sorted ``times`` for each of ``when``."""
    filled = np.where(_is_time(when), when, times[0])
    right = np.clip(np.searchsorted(times, filled), 0, len(times) - 1)
    left = np.clip(right - 1, 0, None)
    nearer = np.abs(times[left] - filled) <= np.abs(times[right] - filled)
    return np.where(nearer, left, right)


def _blanked(values: F64) -> F64:
    """The values with NaN for those that stand for none."""
    with np.errstate(invalid="ignore"):
        return np.where((values == BLANK) | (np.abs(values) > 1e30), np.nan, values)


def _phases(pars: Unit, number: int) -> I64:
    """PHASE of each row: 1 where there is no such column, 0 for a blank one."""
    if pars.has("PHASE") is None:
        return np.ones(pars.rows, np.int64)
    values = _blanked(pars.numbers("PHASE"))
    phase = np.nan_to_num(values).astype(np.int64)
    most = int(phase.max(initial=0))
    if most > 8 or phase.min(initial=0) < 0:
        wrong = most if most > 8 else int(phase.min())
        raise ImportFormatError(
            f"{pars.place}: PHASE is {wrong}, expected 1 to NPHASES.", subscan=number
        )
    if (phase == 0).all():
        return np.ones(pars.rows, np.int64)
    return phase


def _values(
    pars: Unit, rows: I64, number: int, dataset: Dataset, assumed: Assumptions
) -> dict[str, F64]:
    """Pointing and focus of rows of DATAPAR; ImportFormatError for angles that cannot be degrees."""
    found = {}
    for name, column in {**_ANGLES, **_EXTRA}.items():
        if name in _ANGLES:
            found[name] = _blanked(pars.numbers(column))[rows]
        else:
            found[name] = _blanked(pars.numbers(column, default=BLANK))[rows]
    limits = {"lon": 90.0, "lat": 90.0, "azimuth": 720.0, "elevation": 90.5}
    for name, limit in limits.items():
        good = found[name][np.isfinite(found[name])]
        if good.size and float(np.abs(good).max()) > limit:
            raise ImportFormatError(
                f"{pars.place}: {_ANGLES[name]} is {float(good[np.argmax(np.abs(good))]):g}, expected deg of at most "
                f"{limit:g}.",
                subscan=number,
            )
    high = found["elevation"][np.isfinite(found["elevation"])]
    if high.size and 0.0 < float(np.abs(high).max()) < np.pi / 2:
        raise ImportFormatError(
            f"{pars.place}: ELEVATIO is {float(high[0]):g}, expected deg; it looks like radians.",
            subscan=number,
        )
    found["azimuth"] = np.deg2rad(found["azimuth"]) % (2 * np.pi)
    found["elevation"] = np.deg2rad(found["elevation"])
    why = "whether LONGOFF is a true angle was inferred"
    if assumed.take("longoff", "true", why) == "coordinate":
        latitude = pars.numbers("BASLAT", default=0.0)[rows]
        found["lon"] = found["lon"] * np.cos(np.deg2rad(latitude))
    return found


def _between(
    pars: Unit,
    places: I64,
    told: F64,
    when: F64,
    number: int,
    dataset: Dataset,
    assumed: Assumptions,
) -> dict[str, F64]:
    """Pointing at the times of the counts, linear between the rows of DATAPAR."""
    rows = _values(pars, places, number, dataset, assumed)
    times = told[places]
    found = {}
    for name in ("lon", "lat", "elevation"):
        good = np.isfinite(rows[name])
        if good.any():
            found[name] = np.interp(when, times[good], rows[name][good])
    good = np.isfinite(rows["azimuth"])
    if good.any():
        turns = np.unwrap(rows["azimuth"][good])
        found["azimuth"] = np.interp(when, times[good], turns) % (2 * np.pi)
    return found


def _warn_shift(dataset: Dataset, counts: Unit, apart: float) -> None:
    text = (
        f"{dataset.lead}: the times of counts and pointing (MJD of ARRAYDATA, DATAPAR) differ by {apart:.3f} s; the "
        "pointing is interpolated to those of the counts."
    )
    if text not in dataset.warned:
        dataset.warned.add(text)
        warnings.warn(text, GpucalWarning, stacklevel=2)
