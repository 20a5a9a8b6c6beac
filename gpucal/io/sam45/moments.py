"""What a SAM45 log holds in order of time: moments, and runs of moments that become subscans.

A moment is one dump of all arrays: records of one scan type that were taken together.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.errors import GpucalWarning, ImportFormatError
from gpucal.io.sam45.log import Sam45Log, texts
from gpucal.io.sam45.records import ARRAYS
from gpucal.io.sam45.times import DAY_S, F64, JST_H, days_of, local_mjds

I32 = npt.NDArray[np.int32]

LOADS = ("ZERO", "R", "SKY")
SCIENCE = ("OFF", "ON")
SKIPPED = "PRE"
LONGEST_LOG_D = 2.0
"""Records of one log further apart have times that cannot be right."""

SAME_ZONE_S = 2.0
"""How far the texts and the numbers of the times of a record may differ."""


@dataclass(frozen=True, eq=False)
class Moments:
    """M moments in order of time.

    kind, line  scan type and number of the OTF row (0 but for ON)
    rows        i32 [M, 32]  record of each array, -1 where there is none
    mjd         f64 [M]      middle, UTC;  length f64 [M] s;  start: JST of the time in the record, MJD
    """

    kind: list[str]
    line: npt.NDArray[np.int64]
    rows: I32
    mjd: F64
    length: F64
    start: F64


@dataclass(frozen=True, eq=False)
class Run:
    """Moments first..last-1 of one kind (and one OTF row): a subscan."""

    kind: str
    first: int
    last: int

    @property
    def moments(self) -> slice:
        """The moments in it."""
        return slice(self.first, self.last)

    @property
    def n(self) -> int:
        """How many."""
        return self.last - self.first


def moments_of(log: Sam45Log, otf: bool) -> Moments:
    """The moments of a log; invalid records (idmy_flag) and those of type PRE are left out.

    Raises ImportFormatError for a time or an array that cannot be read, for an array that has two records at one
    time, and when nothing is left; warns (GpucalWarning) about scan types that are not known.
    """
    heads = log.heads
    kinds = np.array(list(texts(heads["cscan_type"])))
    good = (heads["idmy_flag"] != 1) & (kinds != SKIPPED)
    strange = sorted(set(kinds[good].tolist()) - {*LOADS, *SCIENCE})
    if strange:
        warnings.warn(
            f"{log.path}: {int(np.isin(kinds, strange).sum())} records of the scan types "
            f"{', '.join(repr(s) for s in strange)} are left out, expected {', '.join((*LOADS, *SCIENCE))}.",
            GpucalWarning,
            stacklevel=3,
        )
        good &= ~np.isin(kinds, strange)
    chosen = np.flatnonzero(good)
    if not chosen.size:
        raise ImportFormatError(
            f"{log.path}: none of the {good.size} records can be used (PRE, or marked as invalid)."
        )
    array = _arrays(log, chosen)
    start = _times(log, "cint_sttm", chosen)
    middle, length = _middles(log, chosen, start, otf)
    order = np.lexsort((array, start))
    groups = _grouped(log, chosen, array, start, kinds, length, order)
    return _table(log, groups, (chosen, array, start, middle, length), kinds)


def _arrays(log: Sam45Log, chosen: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Index 0..31 of the array of each record, from its name: A1 or A01 is 0."""
    names = np.array(list(texts(log.heads["cary_name"][chosen])))
    known = {f"A{form}": n - 1 for n in range(1, ARRAYS + 1) for form in (f"{n}", f"{n:02d}")}
    bad = ~np.isin(names, list(known))
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        raise ImportFormatError(
            f"{log.path}: dat record {chosen[at]} is of the array {str(names[at])!r}, expected A1..A{ARRAYS}."
        )
    return np.array([known[name] for name in names.tolist()])


def _times(log: Sam45Log, field: str, chosen: npt.NDArray[Any]) -> F64:
    """MJD (JST) of a text field; ImportFormatError for one that cannot be read or lies days away."""
    said = list(texts(log.heads[field][chosen]))
    mjd = local_mjds(said)
    bad = ~np.isfinite(mjd)
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        raise ImportFormatError(
            f"{log.path}: {field} of dat record {chosen[at]} is {said[at]!r}, expected YYYYMMDDhhmmss.f (JST); "
            f"{int(bad.sum())} records."
        )
    far = np.abs(mjd - np.median(mjd)) > LONGEST_LOG_D
    if far.any():
        at = int(np.flatnonzero(far)[0])
        raise ImportFormatError(
            f"{log.path}: {field} of dat record {chosen[at]} is {said[at]}, days away from the others of the log."
        )
    return mjd


def _middles(log: Sam45Log, chosen: npt.NDArray[Any], start: F64, otf: bool) -> tuple[F64, F64]:
    """Middle (MJD, UTC) and length (s) of each record.

    OTF: the time in the record is the middle, and dumps last diptim, or iinteg_time where they are that far
    apart. Else it is the beginning; the end is that of the numbers (dint_stmjd, dint_edmjd) where they agree with
    the text, else that of the text, else iinteg_time later.
    """
    heads = log.heads[chosen]
    whole = heads["iinteg_time"].astype(np.float64)
    utc = start - JST_H / 24.0
    if otf:
        dump = float(log.obs["diptim"])
        return utc, np.where(np.isfinite(dump) & (dump > 0), dump, whole)
    begin, end = days_of(heads["dint_stmjd"]), days_of(heads["dint_edmjd"])
    # in JST or in UTC: the text tells which
    shift = np.where(np.abs(begin - start) < np.abs(begin - utc), JST_H / 24.0, 0.0)
    agrees = np.abs(begin - shift - utc) * DAY_S < SAME_ZONE_S
    text_end = local_mjds(texts(heads["cint_edtm"])) - JST_H / 24.0
    end = np.where(agrees & (end > begin), end - shift, text_end)
    begin = np.where(agrees, begin - shift, utc)
    length = (end - begin) * DAY_S
    # texts are whole seconds: an integration that is known is better than their difference
    sound = (length > 0) & (length < 3600.0)
    length = np.where(sound, length, whole)
    return begin + 0.5 * length / DAY_S, np.where(whole > 0, np.minimum(whole, length), length)


def _grouped(
    log: Sam45Log,
    chosen: npt.NDArray[Any],
    array: npt.NDArray[np.int64],
    start: F64,
    kinds: npt.NDArray[np.str_],
    length: F64,
    order: npt.NDArray[Any],
) -> list[list[int]]:
    """Records (indices into ``chosen``) of each moment, in order of time.

    Records of one type are one moment until an array comes again or half a dump has passed.
    """
    kind = kinds[chosen].tolist()
    line = log.heads["iline_no"][chosen].tolist()
    arrays, times, lengths = array.tolist(), (start * DAY_S).tolist(), length.tolist()
    groups: list[list[int]] = []
    seen: set[int] = set()
    now: tuple[str, int] = ("", 0)
    begin = 0.0
    for k in order.tolist():
        key = (kind[k], line[k] if kind[k] == "ON" else 0)
        again = arrays[k] in seen and key == now
        if again and times[k] - begin < 1e-4:
            raise ImportFormatError(
                f"{log.path}: array A{arrays[k] + 1} has two {kind[k]} records at one time, dat record "
                f"{chosen[k]} is the second.",
                hint="Two logs in one file, or a copy gone wrong.",
            )
        late = times[k] - begin > 0.5 * max(lengths[k], 1e-3)
        if not groups or again or late or key != now:
            groups.append([])
            seen, now, begin = set(), key, times[k]
        groups[-1].append(k)
        seen.add(arrays[k])
    return groups


def _table(
    log: Sam45Log, groups: list[list[int]], parts: tuple[Any, ...], kinds: npt.NDArray[np.str_]
) -> Moments:
    chosen, array, start, middle, length = parts
    rows = np.full((len(groups), ARRAYS), -1, np.int32)
    lead = np.array([group[0] for group in groups])
    for m, group in enumerate(groups):
        rows[m, array[group]] = chosen[group]
    kind = kinds[chosen[lead]].tolist()
    line = np.where(kinds[chosen[lead]] == "ON", log.heads["iline_no"][chosen[lead]], 0)
    return Moments(kind, line, rows, middle[lead], length[lead], start[lead])


def runs_of(moments: Moments) -> list[Run]:
    """The subscans: successive moments of one kind and OTF row."""
    runs: list[Run] = []
    keys = list(zip(moments.kind, moments.line.tolist(), strict=True))
    for m, key in enumerate(keys):
        if not runs or key != keys[m - 1]:
            runs.append(Run(key[0], m, m + 1))
        else:
            runs[-1] = Run(key[0], runs[-1].first, m + 1)
    return runs
