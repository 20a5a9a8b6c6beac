"""Compare a calibrated store with the CLASS file that another program made of the same data.

Each spectrum of the file is sought in the store: same scan, overlapping frequencies, nearly the same time. The two
have the same noise, so among receivers and pixels the one that resembles it most is the right one.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.errors import L1Error
from gpucal.export.rows import Average, Selection, spectra_of_store
from gpucal.io.gildas.reader import ClassFile, open_class
from gpucal.io.l1.reader import L1, open_l1
from gpucal.spectrum import Spectrum

F64 = npt.NDArray[np.float64]
Progress = Callable[[str], None]

LIGHT = 299792458.0
SECONDS_PER_DAY = 86400.0
SAME_TIME_S = 1.0
"""Times of the two may differ by this, or by the integration time where that is longer."""

SAME_AXIS = 0.1
"""Channels by which the axes may differ: more, and a line is elsewhere."""

ALIKE = 0.3
"""Least correlation of two spectra of the same noise."""

FEWEST = 8
"""Fewer channels in common compare nothing."""


@dataclass(frozen=True)
class PixelComparison:
    """The spectra of one receiver and pixel, of one band of one scan: medians over ``count`` spectra.

    axis     difference of the frequency axes, channels, the largest
    ratio    T_A* of the store over that of the file, of lines and noise about their mean; t_sys: the same of T_sys*
    offset_k median difference of T_A*, K
    apart_arcsec, apart_s   difference of the positions and of the times
    alike    correlation of the two spectra, 1 for the same noise
    """

    scan: int
    band: str
    receiver: int
    pixel: int
    telescope: str
    count: int
    axis: float
    ratio: float
    offset_k: float
    t_sys: float
    apart_arcsec: float
    apart_s: float
    alike: float

    def wrong(self, rtol: float) -> tuple[str, ...]:
        """What differs by more than is allowed, in words."""
        said = []
        if self.alike < ALIKE:
            said.append("the spectra are not of the same data")
        if not self.axis <= SAME_AXIS:
            said.append(f"axis off by {self.axis:.2g} channels")
        for name, value in (("T_A*", self.ratio), ("T_sys*", self.t_sys)):
            if abs(value - 1.0) > rtol:
                said.append(f"{name} {100 * (value - 1):+.2f} %")
        return tuple(said)


@dataclass(frozen=True)
class ClassComparison:
    """``gpucal compare class``: rows by pixel, and spectra of the file that the store does not have.

    missing: scan number -> spectra of the file that were found in no pixel; only_here: scans of the store that the
    file lacks.
    """

    store: str
    file: str
    rows: tuple[PixelComparison, ...]
    missing: dict[int, int] = field(default_factory=dict)
    only_here: tuple[int, ...] = ()

    def verdict(self, rtol: float) -> str:
        """One sentence."""
        wrong = [row for row in self.rows if row.wrong(rtol)]
        if not self.rows:
            return "Nothing could be compared."
        spectra = sum(row.count for row in self.rows)
        ratio = float(np.nanmedian([row.ratio for row in self.rows]))
        if not wrong:
            return (
                f"Agrees: {spectra} spectra of {len(self.rows)} pixels within {100 * rtol:g} %, T_A* "
                f"{100 * (ratio - 1):+.2f} % in the median."
            )
        return (
            f"Differs: {len(wrong)} of {len(self.rows)} pixels by more than {100 * rtol:g} % or on another "
            f"axis; T_A* {100 * (ratio - 1):+.2f} % in the median."
        )

    def agrees(self, rtol: float) -> bool:
        """Whether all that is in the file is in the store, and the same."""
        return bool(self.rows) and not self.missing and not any(r.wrong(rtol) for r in self.rows)

    def to_dict(self, rtol: float) -> dict[str, Any]:
        """Plain values for JSON."""
        rows = [{**vars(row), "wrong": list(row.wrong(rtol))} for row in self.rows]
        return {
            "store": self.store,
            "file": self.file,
            "agrees": self.agrees(rtol),
            "verdict": self.verdict(rtol),
            "rows": rows,
            "missing": {str(n): count for n, count in self.missing.items()},
            "only_here": list(self.only_here),
        }


def compare_class(
    store: str | Path | L1,
    file: str | Path,
    *,
    scans: Collection[int] | None = None,
    progress: Progress | None = None,
) -> ClassComparison:
    """Hold the T_A* [C] of a calibrated store against the spectra of a CLASS file of the same observations.

    scans: numbers, None for all that are in the file; ``progress`` is called with the name of each. Where the
    spectra of the file are averages over dumps, so are those of the store. Memory holds the spectra of one scan of
    the file. Raises L1Error when the two have no scan in common, ImportFormatError for a file that is none.
    """
    l1 = store if isinstance(store, L1) else open_l1(store)
    theirs = open_class(file)
    of_scan: dict[int, list[int]] = defaultdict(list)
    for i, number in enumerate(theirs.index["scan"].tolist()):
        if scans is None or number in scans:
            of_scan[number].append(i)
    here = {n for n in l1.scans() if scans is None or n in scans}
    common = sorted(here & of_scan.keys())
    if not common:
        raise L1Error(
            f"{l1.path} and {file} have no scan in common.",
            hint="Give the calibrated store and the CLASS file of the same observations.",
        )
    rows: list[PixelComparison] = []
    missing = {n: len(of_scan[n]) for n in sorted(of_scan.keys() - here)}
    for number in common:
        if progress is not None:
            progress(f"scan {number}")
        found, lost = _compare_scan(l1, number, _Theirs(theirs, of_scan[number]))
        rows += found
        if lost:
            missing[number] = lost
    return ClassComparison(
        str(l1.path), str(file), tuple(rows), missing, tuple(sorted(here - of_scan.keys()))
    )


@dataclass
class _Best:
    """The spectrum of the store that resembles one of the file most."""

    alike: float
    place: tuple[str, int, int]
    measures: tuple[float, float, float, float, float, float]


class _Theirs:
    """The spectra of the file of one scan, by time."""

    def __init__(self, file: ClassFile, indices: Iterable[int]) -> None:
        self.spectra = sorted((file[i] for i in indices), key=lambda s: s.mjd)
        self._mjd = np.array([s.mjd for s in self.spectra])
        self.best: dict[int, _Best] = {}

    def exptime(self) -> float:
        """Median integration time, s."""
        return float(np.nanmedian([s.exptime for s in self.spectra]))

    def near(self, ours: Spectrum) -> Iterable[int]:
        """Those that may be of the same data, by time."""
        for_both = [ours.exptime, self.exptime(), SAME_TIME_S]
        reach = max(t for t in for_both if math.isfinite(t)) / SECONDS_PER_DAY
        first, last = np.searchsorted(self._mjd, [ours.mjd - reach, ours.mjd + reach])
        return range(int(first), int(last))

    def offer(self, i: int, found: _Best) -> None:
        """Take a spectrum of the store for the one of the file if none before resembles it more."""
        if i not in self.best or found.alike > self.best[i].alike:
            self.best[i] = found


def _compare_scan(l1: L1, number: int, theirs: _Theirs) -> tuple[list[PixelComparison], int]:
    """Rows of one scan, and how many spectra of the file were found nowhere."""
    for ours in spectra_of_store(
        l1, Selection(scans=[number], average=_average(l1, number, theirs))
    ):
        for i in theirs.near(ours):
            found = _compare(ours, theirs.spectra[i])
            if found is not None:
                theirs.offer(i, found)
    of_place: dict[tuple[str, int, int], list[int]] = defaultdict(list)
    for i, best in theirs.best.items():
        of_place[best.place].append(i)
    rows = [
        _row(number, place, [theirs.best[i] for i in found], theirs.spectra[found[0]].telescope)
        for place, found in sorted(of_place.items())
    ]
    return rows, len(theirs.spectra) - len(theirs.best)


def _average(l1: L1, number: int, theirs: _Theirs) -> Average:
    """What of the store has an integration time like that of the file: dumps, subscans, or the whole scan."""
    scan = l1.scan(number)
    scan = scan.band_scan(scan.bands[0]) if scan.bands else scan
    dumps = np.asarray(scan["exptime"], dtype=np.float64)
    choices: dict[Average, float] = {
        "none": float(np.nanmedian(dumps[dumps > 0])),
        "dumps": float(np.nanmedian(np.nansum(dumps, axis=0))),
        "subscans": float(np.nansum(dumps)),
    }
    return min(choices, key=lambda name: abs(math.log(choices[name] / theirs.exptime())))


def _compare(ours: Spectrum, theirs: Spectrum) -> _Best | None:
    """How alike two spectra are, in the frame where they are most so; None where they have little in common."""
    found = (_in_frame(ours, theirs, frame) for frame in _frames(ours, theirs))
    # Where the frames differ by less than half a channel, both are as alike: the nearer axis is meant.
    return max(
        filter(None, found),
        key=lambda best: (round(best.alike, 6), -best.measures[0]),
        default=None,
    )


def _in_frame(ours: Spectrum, theirs: Spectrum, frame: float) -> _Best | None:
    """As ``_compare``, with our sky frequencies times ``frame``, channel by channel."""
    step = ours.frequency_step * frame
    if abs(abs(theirs.frequency_step / step) - 1.0) * theirs.values.size > 0.5:
        return None
    # Where their channels lie among ours; the nearest channel is compared, and the rest of the shift is told.
    ends = theirs.frequencies[[0, -1]]
    at = (ends - ours.frequency * frame) / step + ours.ref_channel
    start = round(float(at[0]))
    direction = 1 if at[1] >= at[0] else -1
    index = start + direction * np.arange(theirs.values.size)
    inside = (index >= 0) & (index < ours.values.size)
    if inside.sum() < max(FEWEST, 0.5 * min(ours.values.size, theirs.values.size)):
        return None
    mine, other = ours.values[index[inside]], theirs.values[inside]
    good = np.isfinite(mine) & np.isfinite(other)
    if good.sum() < FEWEST:
        return None
    mine, other = mine[good], other[good]
    flat, level = mine - mine.mean(), other - other.mean()
    power = math.sqrt(float(flat @ flat) * float(level @ level))
    alike = float(flat @ level) / power if power > 0 else 0.0
    shift = np.abs(at - (start + direction * np.array([0, theirs.values.size - 1])))
    return _Best(
        alike,
        (ours.band, ours.receiver, ours.pixel),
        (
            float(shift.max()),
            math.sqrt(float(flat @ flat) / float(level @ level)) if power > 0 else math.nan,
            float(np.median(mine - other)),
            ours.t_sys / theirs.t_sys if theirs.t_sys > 0 else math.nan,
            _apart(ours, theirs),
            abs(ours.mjd - theirs.mjd) * SECONDS_PER_DAY,
        ),
    )


def _frames(ours: Spectrum, theirs: Spectrum) -> tuple[float, ...]:
    """What our sky frequencies may have to be multiplied by: a file without a Doppler factor has those of its frame of
    rest, or of the sky after all."""
    moving = math.isfinite(ours.site_velocity) and theirs.site_velocity == 0.0
    return (1.0, 1.0 + ours.site_velocity / LIGHT) if moving else (1.0,)


def _apart(ours: Spectrum, theirs: Spectrum) -> float:
    """Distance of the two positions, arcsec."""
    lon, lat = ours.offset_lon - theirs.offset_lon, ours.offset_lat - theirs.offset_lat
    return 3600.0 * math.hypot(lon, lat)


def _row(
    number: int, place: tuple[str, int, int], found: Sequence[_Best], telescope: str
) -> PixelComparison:
    measures: F64 = np.array([best.measures for best in found])
    axis, ratio, offset, t_sys, apart, late = measures.T
    return PixelComparison(
        number,
        *place,
        telescope=telescope,
        count=len(found),
        axis=float(np.max(axis)),
        ratio=_median(ratio),
        offset_k=_median(offset),
        t_sys=_median(t_sys),
        apart_arcsec=_median(apart),
        apart_s=_median(late),
        alike=_median(np.array([best.alike for best in found])),
    )


def _median(values: F64) -> float:
    good = values[np.isfinite(values)]
    return float(np.median(good)) if good.size else math.nan
