"""Which load scan serves which science scan, and the means of the loads, kept for reuse.

Rules: physics section 8. ``lloadsn`` wins when it names a valid load scan; then the scan's own
calibration; then the nearest earlier valid one of the same setup; then the nearest later within
``max_cal_age``. Scan numbers are taken to grow with time.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Protocol

import numpy as np

from gpucal.backend.protocol import Backend
from gpucal.config import CalibrationConfig
from gpucal.errors import CorruptDataError, GpucalError, LoadError
from gpucal.io.chunks.counts import ZarrCounts
from gpucal.pipeline.scan.solve import LoadChoice
from gpucal.products import LoadMeans
from gpucal.scan import Scan, SubscanGroup
from gpucal.steps.loads import load_means

SECONDS_PER_DAY = 86400.0
SAME_FREQUENCY = 2e-4
"""Doppler tracking moves the sky frequency by up to 1e-4 between scans of one setup."""

NOTES_SHOWN = 3
"""Load scans that could not be used and are named in an error."""

SCANS_KEPT = 64
"""Scans whose small arrays stay in memory, so that a long night does not fill it."""


class ScanStore(Protocol):
    """Where scans come from (``io.read.L0Store``)."""

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
        """The good bands of one scan; the others are entered in ``broken``."""


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
        """Let go of the decoded counts of a scan that is done."""
        with self._lock:
            bands = self._scans.get(number, [])
        for scan in bands:
            _forget(scan.source)
            _forget(scan.calibration)

    def choose(self, scan: Scan, pool: Executor | None = None) -> LoadChoice:
        """The loads of one scan and band; raises LoadError when there are none."""
        notes: list[str] = []
        first = next(self._usable(self._candidates(scan, notes), notes, pool), None)
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
        when = _mid(scan.source or scan.calibration)
        age = abs(when - first.mjd) * SECONDS_PER_DAY
        limit = self._config.max_cal_age
        if age > limit:
            notes.append(
                f"the loads of scan {first.scan} are {age:.0f} s away, more than the {limit:.0f} s of "
                "--max-cal-age: all samples have the flag CAL_STALE."
            )
        second = None
        if self._config.gain_interpolate:
            later = (c for c in self._later(scan, None, notes) if c.number != first.scan)
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
        key = (scan.number, scan.band)
        with self._lock:
            if key in self._means:
                self._means.move_to_end(key)
                return self._means[key]
        means = load_means(scan, self._config, self._backend, pool)
        _forget(scan.calibration)
        with self._lock:
            self._means[key] = means
            while len(self._means) > 8:
                self._means.popitem(last=False)
        return means

    def _candidates(self, scan: Scan, notes: list[str]) -> Iterator[Scan]:
        """Scans whose loads could serve, best first; ``notes`` gets those that cannot be read."""
        seen: set[int] = set()
        for candidate in (*self._named(scan, notes), *self._own(scan, notes)):
            if candidate.number not in seen:
                seen.add(candidate.number)
                yield candidate
        for candidate in self._earlier(scan, notes):
            if candidate.number not in seen:
                seen.add(candidate.number)
                yield candidate
        later = self._later(scan, self._config.max_cal_age, notes)
        yield from (c for c in later if c.number not in seen)

    def _named(self, scan: Scan, notes: list[str]) -> list[Scan]:
        """The load scan that the data name."""
        if scan.source is None:
            return []
        names = sorted({int(n) for n in scan.source.lloadsn if n >= 0})
        return [c for n in names for c in self._load_scans(n, scan, notes)]

    def _own(self, scan: Scan, notes: list[str]) -> list[Scan]:
        if _has_loads(scan) and not same_setup(scan, scan):
            notes.append(
                f"the loads of scan {scan.number} itself were passed over: their frequencies are not "
                "those of its source."
            )
            return []
        return [scan] if _has_loads(scan) else []

    def _earlier(self, scan: Scan, notes: list[str]) -> Iterator[Scan]:
        when = _mid(scan.source or scan.calibration)
        for number in reversed([n for n in self._store.numbers() if n < scan.number]):
            for candidate in self._load_scans(number, scan, notes):
                if _mid(candidate.calibration) <= when:
                    yield candidate

    def _later(self, scan: Scan, max_age: float | None, notes: list[str]) -> Iterator[Scan]:
        when = _mid(scan.source or scan.calibration)
        for number in [n for n in self._store.numbers() if n > scan.number]:
            for candidate in self._load_scans(number, scan, notes):
                age = (_mid(candidate.calibration) - when) * SECONDS_PER_DAY
                if max_age is not None and age > max_age:
                    return
                if age > 0:
                    yield candidate

    def _load_scans(self, number: int, scan: Scan, notes: list[str]) -> list[Scan]:
        """The band of scan ``number`` that could serve ``scan``; [] when there is none."""
        if number in self._without_loads:
            return []
        try:
            bands = self.scan(number)
        except GpucalError as error:
            note = _passed_over(number, error)
            notes += [note] if note not in notes else []
            return []
        if not any(_has_loads(b) for b in bands):
            self._without_loads.add(number)
        return [b for b in bands if b.band == scan.band and _has_loads(b) and same_setup(b, scan)]


def _passed_over(number: int, error: GpucalError) -> str:
    # a LoadError says which option helps; the other hints are about the file, not about this scan
    text = f"load scan {number} was passed over: {error.message}"
    return f"{text} {error.hint}".rstrip() if isinstance(error, LoadError) else text


def _has_loads(scan: Scan) -> bool:
    return scan.calibration is not None and "HOT" in scan.calibration.sobsmode


def _forget(group: SubscanGroup | None) -> None:
    if group is not None and isinstance(group.counts, ZarrCounts):
        group.counts.forget()


def _mid(group: SubscanGroup | None) -> float:
    assert group is not None
    return float(np.mean(group.mjd_mid))


def same_setup(load: Scan, scan: Scan) -> bool:
    """Whether a load scan was taken with the receiver setup of ``scan``: shape and frequencies."""
    a, b = load.calibration, scan.source or scan.calibration
    if a is None or b is None:
        return False
    if a.shape[0] != b.shape[0] or a.shape[2:4] != b.shape[2:4]:
        return False
    near = np.allclose(a.signal_freq[:, 0], b.signal_freq[:, 0], rtol=SAME_FREQUENCY, atol=0)
    return bool(near and np.allclose(a.freq_res[:, 0], b.freq_res[:, 0], rtol=1e-4, atol=0))
