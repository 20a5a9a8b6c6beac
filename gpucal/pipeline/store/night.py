"""Calibrate a whole store: prefetch, stream, commit; failures never stop the others."""

from __future__ import annotations

import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gpucal.backend.cpu import cpu_backend, usable_cores
from gpucal.backend.device_io import with_device_io
from gpucal.backend.protocol import Backend
from gpucal.backend.select import select_backend
from gpucal.config import CalibrationConfig
from gpucal.errors import DeviceLostError, GpucalWarning
from gpucal.io.atmosphere.choice import site_table
from gpucal.io.atmosphere.tables import load_table
from gpucal.io.l0.store import open_l0
from gpucal.io.l1.writer import L1Store, ScanWriter, write_failures
from gpucal.physics.atm import AtmosphereTable
from gpucal.pipeline.scan.memory_budget import Ring, stream_in_ring
from gpucal.pipeline.scan.solve import StageTimer
from gpucal.pipeline.scan.stream import Cancelled
from gpucal.pipeline.store.interrupt import ctrl_c_sets
from gpucal.pipeline.store.l1_arrays import L1Sink, band_attributes, root_attributes, write_band
from gpucal.pipeline.store.outcome import band_quality, band_summary, failure_of
from gpucal.pipeline.store.prefetch import Prefetch
from gpucal.pipeline.store.provenance import provenance
from gpucal.pipeline.store.report import Failure, Observer, ScanSummary, SilentObserver, StoreReport
from gpucal.pipeline.store.selection import select_scans
from gpucal.pipeline.store.solver import Solved, Solver
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

Work = Callable[[], None]


def calibrate_here(
    l0: str | Path,
    out: str | Path,
    config: CalibrationConfig,
    *,
    backend: Backend | None = None,
    observer: Observer | None = None,
    command_line: Sequence[str] = (),
) -> StoreReport:
    """Calibrate the chosen scans of a store in this process; see ``calibrate_store``."""
    return Night(l0, out, config, backend, observer or SilentObserver(), command_line).run()


class Night:
    """The state of one run of ``calibrate_store``, or of one of its processes.

    ``lost`` is set when the device is lost. The CPU then does the other scans, or, where ``goes_on``
    was set to False, ``work`` ends. ``scan_done`` is called, from another thread, when all is known about
    a scan.
    """

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
        self.ring = Ring(self.workers, config.ring << 20)
        chosen = with_device_io(
            backend or select_backend(config.backend), config.io, config.codec, observer.message
        )
        self.l0 = open_l0(l0)
        self.table = self._table()
        self.l1 = L1Store(out, codec=config.codec, dtype=config.dtype)
        self.solver = Solver(self.l0, self.l1, config, self.table, chosen)
        self.lost: DeviceLostError | None = None
        self.goes_on = True
        self.scan_done: Callable[[int], None] = lambda number: None
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
        self.l1.set_root_attrs(root_attributes(self.l0.attrs))
        selection = select_scans(self.l0, self.config)
        self.observer.night_started(selection.numbers, 0)
        for note in selection.notes:
            self.observer.message("info", note)
        for failure in selection.failures:
            self._failed(failure)
        interrupted = not self.work(selection.numbers)
        self.failures.sort(key=lambda f: f.scan)
        write_failures(self.l1, [f.as_dict() for f in self.failures])
        return StoreReport(tuple(self.summaries), tuple(self.failures), interrupted)

    def work(self, numbers: Iterable[int | None]) -> bool:
        """Calibrate scans as their numbers come; True at their end, False when it was interrupted.

        None among the numbers: the next one is not known yet, and what is begun should be finished.
        """
        backend = self.solver.backend
        if self.config.backend == "auto":
            text = f"backend {backend.name} ({backend.device}), {backend.reason}"
            self.observer.message("info", text)
        # The commits come first, so that they end last: what is calibrated is kept, come what may.
        with ExitStack() as stack:
            commits = stack.enter_context(ThreadPoolExecutor(1, "commit"))
            pool = stack.enter_context(ThreadPoolExecutor(self.workers, "tile"))
            ahead = stack.enter_context(ThreadPoolExecutor(1, "prefetch"))
            try:
                with ctrl_c_sets(self.cancel):
                    self._work(numbers, pool, ahead, commits)
            except (KeyboardInterrupt, Cancelled):
                self.cancel.set()
                pool.shutdown(wait=True, cancel_futures=True)
                ahead.shutdown(wait=True, cancel_futures=True)
                return False
        return True

    def _work(
        self,
        numbers: Iterable[int | None],
        pool: ThreadPoolExecutor,
        ahead: ThreadPoolExecutor,
        commits: ThreadPoolExecutor,
    ) -> None:
        committing: deque[Future[None]] = deque()
        self.prefetch = Prefetch(lambda: self.solver, ahead, pool, self.cancel)
        for solved in self.prefetch.solved(numbers):
            if self.cancel.is_set():
                raise Cancelled
            commit = self._scan(solved, pool)
            committing.append(commits.submit(self._end, solved.number, commit))
            self.solver.library.release(solved.number)
            while len(committing) >= COMMITS_WAITING:
                committing.popleft().result()
        for last in committing:
            last.result()

    def _end(self, number: int, commit: Work) -> None:
        commit()
        self.scan_done(number)

    def _scan(self, solved: Solved, pool: ThreadPoolExecutor) -> Work:
        """Stream all bands of a scan; returns what commits it."""
        number = solved.number
        if solved.trouble is not None:
            return self._in_trouble(number, "solve", solved.trouble)
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
            return self._in_trouble(number, "calibrate", error)

    def _in_trouble(self, number: int, stage: str, error: Exception) -> Work:
        """Record a scan as failed; after the loss of the device nothing that lies on it is used again."""
        found = self.solver.backend.health.failure(error) or error
        if isinstance(found, DeviceLostError):
            lost = self.solver.backend
            self.lost = found
            self.observer.message("error", f"scan {number}: {found.message}{self._what_now()}")
            cpu = cpu_backend(reason=f"{lost.device} was lost in scan {number}")
            self.solver = Solver(self.l0, self.l1, self.config, self.table, cpu)
        self._failed(failure_of(number, stage, found))
        return _nothing

    def _what_now(self) -> str:
        if self.goes_on:
            return " The CPU calibrates the other scans of this run."
        self.cancel.set()
        return ""

    def _stream(self, solved: Solved, pool: ThreadPoolExecutor) -> Work:
        found = self.solver.checksums(solved)
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
        self, solved: Solved, writer: ScanWriter, pool: ThreadPoolExecutor, found: dict[str, str]
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
                lost = isinstance(solution.backend.health.failure(error), DeviceLostError)
                if lost or (not summaries and i + 1 == len(solved.solutions)):
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
        sums, self.ring = stream_in_ring(
            solution,
            L1Sink(writer, solution),
            self.ring,
            pool=pool,
            cancel=self.cancel,
            progress=lambda n: self.observer.tile_done(scan.number, scan.band, n),
            alone=self.prefetch.alone,
            tell=lambda text: self.observer.message("warning", text),
        )
        return sums

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
