"""The loads for each science scan, chosen by the rules, read once and kept for the next scans."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gpucal.axes import OFF_MODES
from gpucal.backend.protocol import Backend
from gpucal.config import CalibrationConfig
from gpucal.errors import CorruptDataError, GpucalError, LoadError
from gpucal.io.chunks.counts import ZarrCounts
from gpucal.io.chunks.zarr_metadata import scan_name
from gpucal.pipeline.scan.load_quality import (
    Mask,
    blank,
    can_lend,
    named,
    setup_or_none,
    valid_pixels,
    with_pixels_of,
)
from gpucal.pipeline.scan.load_rules import (
    SECONDS_PER_DAY,
    LoadScans,
    candidates,
    has_hot,
    later_loads,
    load_blocks,
    load_time,
    time_of,
)
from gpucal.pipeline.scan.solve import LoadChoice
from gpucal.products import LoadMeans, MeanKey
from gpucal.scan import Scan, SubscanGroup
from gpucal.steps.judge.references import Judge
from gpucal.steps.loads import load_means
from gpucal.steps.means import dump_means

NOTES_SHOWN = 3
"""Load scans that could not be used and are named in an error."""

SCANS_KEPT = 64
"""Scans whose small arrays stay in memory, so that a long night does not fill it."""

MEANS_KEPT = 8
"""Load scans (and bands) whose means stay on the backend."""

OTHERS_ASKED = 3
"""Further load scans that are asked for a COLD, or for pixels that the first one cannot serve."""


class ScanStore(Protocol):
    """A store that scans are read from (``io.l0.store.L0Store``)."""

    def numbers(self) -> list[int]:
        """Scan numbers, ascending."""

    def load(
        self,
        number: int,
        *,
        partial: bool = False,
        t_hot_given: bool = False,
        broken: dict[str, GpucalError] | None = None,
    ) -> list[Scan]:
        """The readable bands of one scan; the others are entered in ``broken``."""


@dataclass(frozen=True, eq=False)
class _Judged:
    """Means of a load scan, and which pixels they can serve, bool [R,A]."""

    scan: Scan
    means: LoadMeans
    valid: Mask


class LoadLibrary:
    """Load scans of one night; safe to use from several threads."""

    def __init__(self, store: ScanStore, config: CalibrationConfig, backend: Backend) -> None:
        self._store = store
        self._config = config
        self._backend = backend
        self._scans: OrderedDict[int, list[Scan]] = OrderedDict()
        self._failed: dict[int, GpucalError] = {}
        self._broken: dict[int, dict[str, GpucalError]] = {}
        self._means: OrderedDict[tuple[int, str], LoadMeans] = OrderedDict()
        self._without_loads: set[int] = set()
        self._judgements: dict[tuple[int, str], Mask | LoadError] = {}
        self._lock = threading.RLock()

    def scan(self, number: int) -> list[Scan]:
        """The readable bands of a scan, read once; raises what reading it raised when there is none."""
        with self._lock:
            if number in self._failed:
                raise self._failed[number]
            if number not in self._scans:
                broken: dict[str, GpucalError] = {}
                try:
                    self._scans[number] = self._store.load(
                        number,
                        partial=self._config.partial,
                        t_hot_given=self._config.t_hot is not None,
                        broken=broken,
                    )
                    self._broken[number] = broken
                except GpucalError as error:
                    self._failed[number] = error
                    raise
                while len(self._scans) > SCANS_KEPT:
                    self._scans.popitem(last=False)
            self._scans.move_to_end(number)
            return self._scans[number]

    def broken_bands(self, number: int) -> dict[str, GpucalError]:
        """Bands of a scan that cannot be read, while others can."""
        self.scan(number)
        return self._broken[number]

    def release(self, number: int) -> None:
        """Free the decoded counts of a scan that is done."""
        with self._lock:
            bands = self._scans.get(number, [])
        for scan in bands:
            _forget(scan.source)
            _forget(scan.calibration)

    def choose(self, scan: Scan, pool: Executor | None = None) -> LoadChoice:
        """The loads of one scan and band; raises LoadError when there are none."""
        notes: list[str] = []
        night = self._night(notes)
        # Choose: the best load scan that can serve.
        found = (c.scan for c in candidates(scan, night, self._config.max_cal_age, notes.append))
        usable = self._valid(scan, self._with_cold(found, scan, notes), notes, pool)
        best = next(usable, None)
        if best is None:
            seen = " ".join(f"{note[0].upper()}{note[1:]}" for note in notes[:NOTES_SHOWN])
            raise LoadError(
                "no valid HOT/COLD (or HOT/SKY) load scan of the same setup was found before it, nor "
                f"within {self._config.max_cal_age:.0f} s after it. {seen}".rstrip(),
                hint="Check gpucal inspect, or raise --max-cal-age.",
                scan=scan.number,
                band=scan.band,
                stage="loads",
            )
        first = self._complete(scan, best, islice(usable, OTHERS_ASKED), notes)
        notes += _of_another_project(scan, best.scan)
        # Judge its age: old loads are used, and every sample says so.
        age = abs(time_of(scan) - first.mjd) * SECONDS_PER_DAY
        limit = self._config.max_cal_age
        if age > limit:
            notes.append(
                f"the loads of scan {first.scan} are {age:.0f} s away, more than the {limit:.0f} s of "
                "--max-cal-age: all samples have the flag CAL_STALE."
            )
        # Follow the loads of the scan itself, where it measured them several times.
        blocks = load_blocks(scan) if best.scan.number == scan.number else []
        if blocks and self._config.gain_interpolate:
            means = [load_means(b, self._config, self._backend, pool) for b in blocks]
            followed = tuple(blank(m, best.valid, self._backend) for m in means)
            return LoadChoice(followed[0], None, age > limit, tuple(notes), followed)
        if blocks:
            notes.append(
                f"its loads were measured {len(blocks)} times and averaged: --gain-interpolate 3 follows them."
            )
        # Find the one on the other side, where the gain is interpolated.
        second = None
        if self._config.gain_interpolate:
            later = (c for c in later_loads(scan, night) if c.number != first.scan)
            after = next(self._valid(scan, later, notes, pool), None)
            second = blank(after.means, after.valid, self._backend) if after is not None else None
        return LoadChoice(first, second, age > limit, tuple(notes))

    def _with_cold(
        self, candidates: Iterator[Scan], scan: Scan, notes: list[str]
    ) -> Iterator[Scan]:
        """The candidates without those that lack a COLD, where one of the next ones has it.

        Such a one is a calibration that was stopped, among others that were not; where none has a COLD, it is a vane.
        """
        if self._config.cal_scheme not in ("auto", "hot-cold"):
            yield from candidates
            return
        limit = self._config.max_cal_age / SECONDS_PER_DAY
        ahead: deque[Scan] = deque()
        while candidate := ahead.popleft() if ahead else next(candidates, None):
            if _has_cold(candidate):
                yield candidate
                continue
            ahead.extend(islice(candidates, OTHERS_ASKED - len(ahead)))
            near = (c for c in ahead if abs(load_time(c) - time_of(scan)) <= limit)
            if self._config.cal_scheme == "hot-cold" or any(map(_has_cold, near)):
                notes.append(f"load scan {candidate.number} was passed over: it has no COLD.")
            else:
                yield candidate

    def _valid(
        self, scan: Scan, candidates: Iterator[Scan], notes: list[str], pool: Executor | None
    ) -> Iterator[_Judged]:
        """Those candidates that can serve a pixel of ``scan`` at least; the others are noted."""
        for candidate in candidates:
            try:
                means = self._means_of(candidate, pool)
                yield _Judged(candidate, means, self._judged(candidate, means, scan, pool))
            except (CorruptDataError, LoadError) as error:
                if self._backend.health.failure(error) is not None:
                    raise  # the device is at fault, not the loads
                notes.append(_passed_over(candidate.number, error))

    def _judged(self, candidate: Scan, means: LoadMeans, scan: Scan, pool: Executor | None) -> Mask:
        """Which pixels the loads of a candidate can serve, judged once; raises LoadError when there are none."""
        key = (candidate.number, candidate.band)
        with self._lock:
            known = self._judgements.get(key)
        if known is None:
            setup = setup_or_none(candidate, self._config, self._backend)
            try:
                known = valid_pixels(means, setup, self._config, self._backend)
            except LoadError as error:
                known = error
            with self._lock:
                self._judgements[key] = known
        if means.sky is None or isinstance(known, LoadError) or not known.all():
            known = self._vane_and_own_sky(means, scan, known, pool)
        if isinstance(known, LoadError):
            raise known
        return known

    def _vane_and_own_sky(
        self, means: LoadMeans, scan: Scan, alone: Mask | LoadError, pool: Executor | None
    ) -> Mask | LoadError:
        """A vane without SKY, or whose SKY says nothing good, judged by the OFF that it will be compared with."""
        if means.cold is not None or self._config.vane_sky == "sky":
            return alone
        sky = self._own_sky(scan, pool)
        if sky is None:
            return alone
        try:
            own = valid_pixels(replace(means, sky=None), None, self._config, self._backend, sky)
        except LoadError as error:
            return error if means.sky is None or isinstance(alone, LoadError) else alone
        return own if means.sky is None or isinstance(alone, LoadError) else own | alone

    def _own_sky(self, scan: Scan, pool: Executor | None) -> Any:
        """Counts f64 [C,R,A] of the first OFF of a scan; None where it has none."""
        group = scan.source
        if group is None:
            return None
        off = [s for s, mode in enumerate(group.sobsmode) if mode in OFF_MODES]
        if not off:
            return None
        key = MeanKey(off[0])
        judge = Judge(self._config, self._backend)
        return dump_means(group, [key], self._backend, pool=pool, judge=judge)[key].mean

    def _complete(
        self, scan: Scan, best: _Judged, others: Iterator[_Judged], notes: list[str]
    ) -> LoadMeans:
        """The loads of ``best``, with those pixels from the next load scans that it cannot serve.

        Not from older ones than ``max_cal_age``, nor where the gain is interpolated between two epochs.
        """
        if best.valid.all():
            return best.means
        means, missing = blank(best.means, best.valid, self._backend), ~best.valid
        setup = setup_or_none(best.scan, self._config, self._backend)
        if setup is not None and not self._config.gain_interpolate:
            for other in others:
                age = abs(time_of(scan) - other.means.mjd) * SECONDS_PER_DAY
                lent = missing & other.valid
                if age > self._config.max_cal_age or not lent.any():
                    continue
                if can_lend(means, other.means):
                    means = with_pixels_of(means, other.means, lent, setup, self._backend)
                    missing &= ~lent
                    notes.append(
                        f"the loads of scan {best.means.scan} cannot serve {named(lent)}: those of "
                        f"scan {other.means.scan} do."
                    )
                if not missing.any():
                    return means
        counted = np.asarray(
            self._backend.to_host(self._backend.xp.any(best.means.hot > 0, axis=0))
        )
        if (missing & counted).any():
            notes.append(
                f"no loads can serve {named(missing & counted)}: HOT and the other load cannot be "
                "told apart. It has no data."
            )
        return means

    def _means_of(self, scan: Scan, pool: Executor | None) -> LoadMeans:
        """Means of the loads of a scan and band, computed once as long as they are kept."""
        key = (scan.number, scan.band)
        with self._lock:
            if key in self._means:
                self._means.move_to_end(key)
                return self._means[key]
        means = load_means(scan, self._config, self._backend, pool)
        _forget(scan.calibration)
        with self._lock:
            self._means[key] = means
            while len(self._means) > MEANS_KEPT:
                self._means.popitem(last=False)
        return means

    def _night(self, notes: list[str]) -> LoadScans:
        """The scans of the store for the rules; ``notes`` gets those that cannot be read."""

        def bands(number: int) -> list[Scan]:
            if number not in self._scans and not _may_hold_loads(self._store, number):
                self._without_loads.add(number)
            if number in self._without_loads:
                return []
            try:
                found = [band for band in self.scan(number) if has_hot(band)]
            except GpucalError as error:
                note = _passed_over(number, error)
                notes.extend([note] if note not in notes else [])
                return []
            if not found:
                self._without_loads.add(number)
            return found

        return LoadScans(self._store.numbers, bands)


def _may_hold_loads(store: ScanStore, number: int) -> bool:
    """Whether a scan has a group for loads, without reading it where the store is a folder.

    A search for loads passes by many scans.
    """
    path = getattr(store, "path", "")
    folder = Path(path) / scan_name(number)
    if not path or not folder.is_dir():
        return True
    places = (folder.glob("calibration"), folder.glob("*/calibration"))
    return any(True for found in places for _ in found)


def _has_cold(scan: Scan) -> bool:
    """Whether a scan has a COLD load."""
    return scan.calibration is not None and "COLD" in scan.calibration.sobsmode


def _of_another_project(scan: Scan, load: Scan) -> list[str]:
    """The note on loads that another project took: they serve as well as one's own."""
    own, theirs = (str(s.attrs.get("project") or "") for s in (scan, load))
    if own == theirs or not (own and theirs):
        return []
    return [f"the loads of scan {load.number} were taken for project {theirs}."]


def _passed_over(number: int, error: GpucalError) -> str:
    """The note on a load scan that cannot be used."""
    # a LoadError says which option helps; the other hints are about the file, not about this scan
    text = f"load scan {number} was passed over: {error.message}"
    return f"{text} {error.hint}".rstrip() if isinstance(error, LoadError) else text


def _forget(group: SubscanGroup | None) -> None:
    """Free the decoded counts of a group."""
    if group is not None and isinstance(group.counts, ZarrCounts):
        group.counts.forget()
