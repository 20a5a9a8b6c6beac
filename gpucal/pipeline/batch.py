"""Calibrate a whole store: prefetch, stream, commit; failures never stop the others."""

from __future__ import annotations

import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gpucal.backend import Backend, select_backend
from gpucal.backend.cpu import usable_cores
from gpucal.config import CalibrationConfig
from gpucal.errors import GpucalWarning
from gpucal.io.atm_tables import load_table, site_table
from gpucal.io.read import open_l0
from gpucal.io.write import L1Store, ScanWriter, write_failures
from gpucal.physics.atm import AtmosphereTable
from gpucal.pipeline.chain import StageTimer, solve_scan
from gpucal.pipeline.interrupt import ctrl_c_sets
from gpucal.pipeline.l1_layout import L1Sink, band_attributes, write_band
from gpucal.pipeline.load_library import LoadLibrary
from gpucal.pipeline.outcome import band_quality, band_summary, failure_of
from gpucal.pipeline.provenance import now, provenance
from gpucal.pipeline.report import Failure, Observer, ScanSummary, SilentObserver, StoreReport
from gpucal.pipeline.selection import already_done, checksums, select_scans
from gpucal.pipeline.stream import Cancelled, stream_scan
from gpucal.scan import Scan
from gpucal.steps.calibrate import ScanSolution
from gpucal.steps.quality import QualitySums
from gpucal.steps.sky_diff import (
    SkyDifferences,
    SkyHistory,
    chop_differences,
    layout_key,
    sky_differences,
)

COMMITS_WAITING = 2
"""Scans whose sync to disk may lag behind."""

POLL_SECONDS = 0.2
"""How long a wish to stop may go unnoticed while a scan is being solved."""

Work = Callable[[], None]


@dataclass
class _Solved:
    """A scan ready to stream: one solution per band that could be solved."""

    number: int
    solutions: list[tuple[ScanSolution, StageTimer]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    failed_bands: list[str] = field(default_factory=list)
    done: bool = False
    started: str = ""

    def checksums(self, library: LoadLibrary) -> dict[str, str]:
        """SHA-256 of the metadata of this scan and of its load scans."""
        loads = [n for solution, _ in self.solutions for n in solution.loads.scans]
        return checksums(library, [self.number, *loads])


def calibrate_store(
    l0: str | Path,
    out: str | Path,
    config: CalibrationConfig | None = None,
    *,
    backend: Backend | None = None,
    observer: Observer | None = None,
    command_line: Sequence[str] = (),
) -> StoreReport:
    """Calibrate every chosen scan of an L0 store into an L1 store.

    A scan is written whole or not at all; one that is there with the same configuration and L0 checksum is
    skipped. Bad scans are recorded in the report and in ``failures.json``. Raises GpucalError only when
    nothing can be done at all: unreadable store, unknown table, output in the way.
    """
    config = config or CalibrationConfig()
    observer = observer or SilentObserver()
    if config.scheduler:
        from gpucal.pipeline.scaleout import calibrate_on_cluster

        return calibrate_on_cluster(l0, out, config, observer, command_line)
    return _Night(l0, out, config, backend, observer, command_line).run()


class _Night:
    """The state of one run of ``calibrate_store``."""

    def __init__(
        self,
        l0: str | Path,
        out: str | Path,
        config: CalibrationConfig,
        backend: Backend | None,
        observer: Observer,
        command_line: Sequence[str],
    ) -> None:
        self.config = config
        self.observer = observer
        self.command_line = command_line
        self.workers = config.workers or usable_cores()
        self.backend = backend or select_backend(config.backend)
        self.l0 = open_l0(l0)
        self.table = self._table()
        self.l1 = L1Store(out, codec=config.codec, dtype=config.dtype)
        self.library = LoadLibrary(self.l0, config, self.backend)
        self.history = SkyHistory(config.skydiff)
        self.cancel = threading.Event()
        self.summaries: list[ScanSummary] = []
        self.failures: list[Failure] = []

    def _table(self) -> AtmosphereTable | None:
        choice = self.config.atmosphere
        if choice == "none" or (choice == "auto" and self.config.tau is not None):
            return None
        name = site_table(self.l0.attrs) if choice == "auto" else choice
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", GpucalWarning)
            table = load_table(name)
        for warning in caught:
            self.observer.message("warning", str(warning.message))
        return table

    def run(self) -> StoreReport:
        """Work through the scans; the next one is solved while one streams."""
        keys = ("telescope", "site", "instrument")
        self.l1.set_root_attrs({k: self.l0.attrs[k] for k in keys if k in self.l0.attrs})
        selection = select_scans(self.l0, self.config)
        self.observer.night_started(selection.numbers, 0)
        for note in selection.notes:
            self.observer.message("info", note)
        for failure in selection.failures:
            self._failed(failure)
        interrupted = False
        # The commits come first, so that they end last: what is calibrated is kept, come what may.
        with ExitStack() as stack:
            commits = stack.enter_context(ThreadPoolExecutor(1, "commit"))
            pool = stack.enter_context(ThreadPoolExecutor(self.workers, "tile"))
            ahead = stack.enter_context(ThreadPoolExecutor(1, "prefetch"))
            try:
                with ctrl_c_sets(self.cancel):
                    self._work(selection.numbers, pool, ahead, commits)
            except (KeyboardInterrupt, Cancelled):
                interrupted = True
                self.cancel.set()
                pool.shutdown(wait=True, cancel_futures=True)
                ahead.shutdown(wait=True, cancel_futures=True)
        self.failures.sort(key=lambda f: f.scan)
        write_failures(self.l1, [f.as_dict() for f in self.failures])
        return StoreReport(tuple(self.summaries), tuple(self.failures), interrupted)

    def _work(
        self,
        numbers: Sequence[int],
        pool: ThreadPoolExecutor,
        ahead: ThreadPoolExecutor,
        commits: ThreadPoolExecutor,
    ) -> None:
        committing: deque[Future[None]] = deque()
        for solved in self._prefetched(numbers, ahead, pool):
            if self.cancel.is_set():
                raise Cancelled
            committing.append(commits.submit(self._scan(solved, pool)))
            self.library.release(solved.number)
            while len(committing) >= COMMITS_WAITING:
                committing.popleft().result()
        for commit in committing:
            commit.result()

    def _prefetched(
        self, numbers: Sequence[int], ahead: ThreadPoolExecutor, pool: ThreadPoolExecutor
    ) -> Iterator[_Solved]:
        """Solved scans in order, one ahead of the caller."""
        pending: Future[_Solved] | None = None
        for n in numbers:
            following = ahead.submit(self._solve, n, pool)
            if pending is not None:
                yield self._result(pending)
            pending = following
        if pending is not None:
            yield self._result(pending)

    def _result(self, pending: Future[_Solved]) -> _Solved:
        while not wait([pending], timeout=POLL_SECONDS).done:
            if self.cancel.is_set():
                raise Cancelled
        return pending.result()

    def _solve(self, number: int, pool: ThreadPoolExecutor) -> _Solved:
        solved = _Solved(number, started=now())
        timer = StageTimer()
        try:
            bands = timer.run("load", lambda: self.library.scan(number))
            found = self.l1.finished(number)
            solved.done = already_done(found, number, self.library, self.config, self.table)
        except Exception as error:
            solved.failures.append(failure_of(number, "read", error))
            return solved
        for band, broken in self.library.broken_bands(number).items():
            solved.failures.append(failure_of(number, "read", broken))
            solved.failed_bands.append(band)
        if solved.done and not self.config.skydiff:
            return solved
        for scan in bands:
            if scan.source is None:
                continue
            own = StageTimer()
            own.milliseconds = dict(timer.milliseconds)
            try:
                solved.solutions.append((self._solve_band(scan, pool, own), own))
            except Exception as error:
                solved.failures.append(failure_of(number, "solve", error))
                solved.failed_bands.append(scan.band)
        return solved

    def _solve_band(self, scan: Scan, pool: ThreadPoolExecutor, timer: StageTimer) -> ScanSolution:
        choice = timer.run("load", lambda: self.library.choose(scan, pool))
        return solve_scan(
            scan, choice, self.table, self.config, self.backend, pool=pool, timer=timer
        )

    def _scan(self, solved: _Solved, pool: ThreadPoolExecutor) -> Work:
        """Stream all bands of a scan; returns what commits it."""
        number = solved.number
        self.failures += solved.failures
        for failure in solved.failures if solved.solutions else ():
            self.observer.message("error", failure.sentence)
        if solved.done:
            for solution, _ in solved.solutions:
                self._differences(solution)
            self._summary(ScanSummary(number, "", "", "skipped"))
            return _nothing
        if not solved.solutions:
            text = " ".join(f.sentence for f in solved.failures)
            self._summary(ScanSummary(number, "", "", "failed", error=text))
            return _nothing
        try:
            return self._stream(solved, pool)
        except Cancelled:
            raise
        except Exception as error:
            self._failed(failure_of(number, "calibrate", error))
            return _nothing

    def _stream(self, solved: _Solved, pool: ThreadPoolExecutor) -> Work:
        found = solved.checksums(self.library)
        writer = self.l1.begin(solved.number)
        try:
            summaries = self._bands(solved, writer, pool, found)
            attributes = {
                **_passed_through(solved.solutions[0][0]),
                "scan_number": solved.number,
                "failed_bands": solved.failed_bands,
                "config_sha256": self.config.fingerprint(),
                "config": self.config.result_keys(),
                "l0_metadata_sha256": found,
                "atmosphere_sha256": self.table.sha256 if self.table is not None else None,
            }
            writer.set_attrs("", attributes)
        except BaseException:
            writer.abort()
            raise
        return lambda: self._commit(writer, solved.number, summaries)

    def _bands(
        self, solved: _Solved, writer: ScanWriter, pool: ThreadPoolExecutor, found: dict[str, str]
    ) -> list[ScanSummary]:
        """Stream band after band; one that fails leaves the others, the last error is raised when all do."""
        summaries: list[ScanSummary] = []
        for i, (solution, timer) in enumerate(solved.solutions):
            band = solution.scan.band
            try:
                summaries.append(self._band(solution, timer, writer, pool, (solved.started, found)))
            except Cancelled:
                raise
            except Exception as error:
                if not summaries and i + 1 == len(solved.solutions):
                    raise
                writer.drop(band)
                failure = failure_of(solved.number, "calibrate", error)
                self.failures.append(failure)
                self.observer.message("error", failure.sentence)
                solved.failed_bands.append(band)
        return summaries

    def _band(
        self,
        solution: ScanSolution,
        timer: StageTimer,
        writer: ScanWriter,
        pool: ThreadPoolExecutor,
        origin: tuple[str, dict[str, str]],
    ) -> ScanSummary:
        """Stream and describe one band; ``origin``: when it was begun, checksums of its inputs."""
        scan, begin = solution.scan, time.perf_counter()
        total = int(np.prod(solution.output_shape)) * solution.group.counts.dtype.itemsize
        self.observer.scan_started(scan.number, scan.band, total)
        writer.group(scan.band)
        sums = timer.run("calibrate", lambda: self._tiles(solution, writer, pool))
        quality = band_quality(solution, sums, self.table)
        started, found = origin
        attributes = {
            **band_attributes(solution),
            "qa": quality,
            "provenance": provenance(solution, self.table, found, started, self.command_line),
        }
        timer.run(
            "write",
            lambda: write_band(writer, solution, attributes, self._differences(solution)),
        )
        spent = time.perf_counter() - begin
        return band_summary(solution, quality, attributes["warnings"], timer, spent, total)

    def _tiles(
        self, solution: ScanSolution, writer: ScanWriter, pool: ThreadPoolExecutor
    ) -> QualitySums:
        scan = solution.scan
        return stream_scan(
            solution,
            L1Sink(writer, solution),
            pool=pool,
            workers=self.workers,
            ring_bytes=self.config.ring << 20,
            cancel=self.cancel,
            progress=lambda n: self.observer.tile_done(scan.number, scan.band, n),
        )

    def _differences(self, solution: ScanSolution) -> dict[str, SkyDifferences]:
        found: dict[str, SkyDifferences] = {}
        if self.config.skydiff and solution.loads.cold is not None:
            entries = self.history.of(layout_key(solution))
            result, newest = sky_differences(solution, list(entries), self.config.skydiff)
            entries.clear()
            entries.extend(newest)
            if result is not None:
                found["skydiff"] = result
        if self.config.skychopdiff:
            chopped = chop_differences(solution)
            if chopped is not None:
                found["skychopdiff"] = chopped
        return found

    def _commit(self, writer: ScanWriter, number: int, summaries: Sequence[ScanSummary]) -> None:
        begin = time.perf_counter()
        try:
            writer.commit(overwrite=self.config.overwrite or self.l1.finished(number) is not None)
        except Exception as error:
            writer.abort()
            self._failed(failure_of(number, "write", error))
            return
        spent = 1e3 * (time.perf_counter() - begin)
        for summary in summaries:
            timing = dict(summary.timing)
            timing["write"] = timing.get("write", 0.0) + spent
            timing["wall"] = 1e3 * summary.seconds + spent
            self._summary(replace(summary, timing={f"{k}_ms": v for k, v in timing.items()}))

    def _summary(self, summary: ScanSummary) -> None:
        self.summaries.append(summary)
        self.observer.scan_finished(summary)

    def _failed(self, failure: Failure) -> None:
        self.failures.append(failure)
        self._summary(ScanSummary(failure.scan, "", "", "failed", error=failure.sentence))


def _nothing() -> None:
    """There is nothing to commit."""


def _passed_through(solution: ScanSolution) -> dict[str, Any]:
    """Scan attributes of L0 that users look for in L1."""
    skip = {"complete", "raw_headers"}
    return {k: v for k, v in solution.scan.attrs.items() if k not in skip}
