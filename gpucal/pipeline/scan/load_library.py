"""The loads for each science scan, chosen by the rules, read once and kept for the next scans."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Protocol

from gpucal.backend.protocol import Backend
from gpucal.config import CalibrationConfig
from gpucal.errors import CorruptDataError, GpucalError, LoadError
from gpucal.io.chunks.counts import ZarrCounts
from gpucal.pipeline.scan.load_rules import (
    SECONDS_PER_DAY,
    LoadScans,
    candidates,
    has_hot,
    later_loads,
    time_of,
)
from gpucal.pipeline.scan.solve import LoadChoice
from gpucal.products import LoadMeans
from gpucal.scan import Scan, SubscanGroup
from gpucal.steps.loads import load_means

NOTES_SHOWN = 3
"""Load scans that could not be used and are named in an error."""

SCANS_KEPT = 64
"""Scans whose small arrays stay in memory, so that a long night does not fill it."""

MEANS_KEPT = 8
"""Load scans (and bands) whose means stay on the backend."""


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
        # Choose: the best load scan whose counts can be used.
        found = candidates(scan, night, self._config.max_cal_age, notes.append)
        first = next(self._usable((c.scan for c in found), notes, pool), None)
        if first is None:
            seen = " ".join(f"{note[0].upper()}{note[1:]}" for note in notes[:NOTES_SHOWN])
            raise LoadError(
                "no valid HOT/COLD (or HOT/SKY) load scan of the same setup was found before it, nor "
                f"within {self._config.max_cal_age:.0f} s after it. {seen}".rstrip(),
                hint="Check gpucal inspect, or raise --max-cal-age.",
                scan=scan.number,
                band=scan.band,
                stage="loads",
            )
        # Judge its age: old loads are used, and every sample says so.
        age = abs(time_of(scan) - first.mjd) * SECONDS_PER_DAY
        limit = self._config.max_cal_age
        if age > limit:
            notes.append(
                f"the loads of scan {first.scan} are {age:.0f} s away, more than the {limit:.0f} s of "
                "--max-cal-age: all samples have the flag CAL_STALE."
            )
        # Find the one on the other side, where the gain is interpolated.
        second = None
        if self._config.gain_interpolate:
            later = (c for c in later_loads(scan, night) if c.number != first.scan)
            second = next(self._usable(later, notes, pool), None)
        return LoadChoice(first, second, age > limit, tuple(notes))

    def _usable(
        self, candidates: Iterator[Scan], notes: list[str], pool: Executor | None
    ) -> Iterator[LoadMeans]:
        """Means of those candidates that can be read; the others are noted."""
        for candidate in candidates:
            try:
                yield self._means_of(candidate, pool)
            except (CorruptDataError, LoadError) as error:
                if self._backend.health.failure(error) is not None:
                    raise  # the device is at fault, not the loads
                notes.append(_passed_over(candidate.number, error))

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


def _passed_over(number: int, error: GpucalError) -> str:
    """The note on a load scan that cannot be used."""
    # a LoadError says which option helps; the other hints are about the file, not about this scan
    text = f"load scan {number} was passed over: {error.message}"
    return f"{text} {error.hint}".rstrip() if isinstance(error, LoadError) else text


def _forget(group: SubscanGroup | None) -> None:
    """Free the decoded counts of a group."""
    if group is not None and isinstance(group.counts, ZarrCounts):
        group.counts.forget()
