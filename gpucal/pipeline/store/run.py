"""One run over the scans of a store, in this process.

Open the stores, choose the scans, solve them one ahead, stream their bands, put them in place, report. What goes wrong
with a scan never stops the others.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path

from gpucal.backend.cpu import cpu_backend
from gpucal.backend.device_io import with_device_io
from gpucal.backend.protocol import Backend
from gpucal.backend.select import select_backend
from gpucal.config import CalibrationConfig
from gpucal.errors import DeviceLostError, GpucalError, GpucalWarning
from gpucal.io.atmosphere.choice import atmosphere_for, atmosphere_text
from gpucal.io.l0.store import L0Store, open_l0
from gpucal.io.l1.claims import RunClaim
from gpucal.io.l1.manual_flags import apply_rules
from gpucal.io.l1.writer import L1Store
from gpucal.physics.atm import AtmosphereTable
from gpucal.pipeline.scan.memory_budget import MemoryBudget
from gpucal.pipeline.scan.ordered_pool import Cancelled, Threads
from gpucal.pipeline.store.band_writer import BandWriter
from gpucal.pipeline.store.commits import Commits, ScanDone, StagedScan, nobody_waits
from gpucal.pipeline.store.finished import Finished, claim_of, finished_scans
from gpucal.pipeline.store.interrupt import ctrl_c_sets
from gpucal.pipeline.store.l1_arrays import root_attributes, scan_attributes
from gpucal.pipeline.store.outcome import failure_of, record_failures
from gpucal.pipeline.store.prefetch import Prefetch
from gpucal.pipeline.store.provenance import Origin
from gpucal.pipeline.store.record import Record
from gpucal.pipeline.store.report import Observer, SilentObserver, StoreReport
from gpucal.pipeline.store.selection import Selection, flag_rules_of, select_scans
from gpucal.pipeline.store.solver import BandSolution, Solved, Solver


def calibrate_here(
    l0: str | Path,
    out: str | Path,
    config: CalibrationConfig,
    *,
    backend: Backend | None = None,
    observer: Observer | None = None,
    command_line: Sequence[str] = (),
    claimed: bool = False,
) -> StoreReport:
    """Calibrate the chosen scans of a store in this process; see ``calibrate_store`` and ``Run.chosen_scans``."""
    run = Run(
        l0,
        out,
        config,
        backend=backend,
        observer=observer or SilentObserver(),
        command_line=command_line,
    )
    return run.chosen_scans(claimed=claimed)


class Run:
    """One run of ``calibrate_store`` in this process, or the share of one of several processes.

    cancel: set from outside, it stops the work soon. scan_done: of a share; called, in another thread, when all is
    known about a scan. When the device is lost the CPU does the other scans; the work of a share ends there. ``lost``
    is the loss. Raises GpucalError when nothing can be done at all: unreadable store, unknown table, output in the way.
    """

    def __init__(
        self,
        l0: str | Path,
        out: str | Path,
        config: CalibrationConfig,
        *,
        backend: Backend | None = None,
        observer: Observer,
        command_line: Sequence[str] = (),
        cancel: threading.Event | None = None,
        scan_done: ScanDone | None = None,
    ) -> None:
        self._config = config
        self._observer = observer
        self._command_line = command_line
        self._cpu_after_loss = scan_done is None
        self._cancel = cancel or threading.Event()
        self._budget = MemoryBudget.of_config(config)
        backend = backend or select_backend(config.backend, kernels=config.kernels)
        workers = self._budget.workers
        chosen = with_device_io(backend, config.io, config.codec, observer.message, workers)
        self._l0 = open_l0(l0)
        self._rules = flag_rules_of(config, self._l0)
        self._table = _atmosphere_of(self._l0, config, observer)
        self._l1 = L1Store(out, codec=config.codec, dtype=config.dtype)
        self._bands = BandWriter(config, self._table, observer, self._budget, self._cancel)
        self._record = Record(observer)
        self._scan_done = scan_done or nobody_waits
        self._finished = Finished()
        self._may_write: Callable[[], None] = _nothing_to_check
        self.solver = Solver(self._l0, config, self._table, chosen)
        self.lost: DeviceLostError | None = None

    def chosen_scans(self, *, claimed: bool = False) -> StoreReport:
        """Calibrate the scans that the configuration chooses, and report.

        claimed: they are claimed already, by the process that handed them out.
        """
        # Choose: the science scans asked for. Those that cannot be read are failures already.
        selection = select_scans(self._l0, self._config)
        # Claim them: no other run writes them, nor others with other settings, while this one lasts.
        claim = nullcontext() if claimed else self._claim_of(selection.numbers)
        with claim as held:
            self._may_write = held.check if held else _nothing_to_check
            return self._claimed_scans(selection)

    def _claim_of(self, numbers: Collection[int]) -> RunClaim:
        return claim_of(self._l1.path, numbers, self._config, lambda: self._table)

    def _claimed_scans(self, selection: Selection) -> StoreReport:
        """Calibrate what is left of a selection, and report."""
        # Compare with those that are there; if they were made otherwise, nothing is touched.
        self._finished = finished_scans(
            self._l0, self._l1.path, selection.numbers, self._config, lambda: self._table
        )
        self.solver = self._solver_on(self.solver.backend)
        for note in self._finished.notes:
            self._observer.message("warning", note)
        self._l1.set_root_attrs(root_attributes(self._l0.attrs))
        self._observer.night_started(selection.numbers, 0)
        for note in selection.notes:
            self._observer.message("info", note)
        for failure in selection.failures:
            self._record.scan_failed(failure)
        # Calibrate them.
        interrupted = not self.calibrate(selection.numbers)
        # Report: what could not be done stays beside the scans, so that it can be looked up later.
        report = self._record.report(interrupted)
        record_failures(self._l1, report)
        return replace(report, atmosphere=atmosphere_text(self._table, self._config))

    def _solver_on(self, backend: Backend) -> Solver:
        """A new solver; all that an old one keeps lies on another device."""
        return Solver(self._l0, self._config, self._table, backend, self._finished.numbers)

    def calibrate(self, numbers: Iterable[int | None]) -> bool:
        """Calibrate scans as their numbers come; True at their end, False when it was interrupted.

        None among the numbers: the next one is not known yet, and what is begun should be finished.
        """
        backend = self.solver.backend
        if self._config.backend == "auto":
            text = f"backend {backend.name} ({backend.device}), {backend.reason}"
            self._observer.message("info", text)
        with ExitStack() as threads:
            # The commits come first, so that they end last: what is calibrated is kept, come what may.
            commits = threads.enter_context(
                Commits(
                    self._record,
                    self._config.overwrite,
                    self._scan_done,
                    self._may_write,
                    self._rules,
                )
            )
            pool = threads.enter_context(Threads(self._budget.workers, "tile", backend.in_thread))
            ahead = threads.enter_context(Threads(1, "prefetch", backend.in_thread))
            prefetch = Prefetch(lambda: self.solver, ahead, pool, self._cancel)
            try:
                with ctrl_c_sets(self._cancel):
                    self._each_scan(numbers, prefetch, pool, commits)
            except (KeyboardInterrupt, Cancelled):
                self._cancel.set()
                pool.shutdown(wait=True, cancel_futures=True)
                ahead.shutdown(wait=True, cancel_futures=True)
                return False
        return True

    def _each_scan(
        self,
        numbers: Iterable[int | None],
        prefetch: Prefetch,
        pool: Threads,
        commits: Commits,
    ) -> None:
        """Loop over scans: while one streams, the next is solved and the one before is synced to disk."""
        # Solve: loads, OFF means and atmosphere of the next scan.
        for solved in prefetch.solved(numbers):
            if self._cancel.is_set():
                raise Cancelled
            # Stream: its spectra, into files aside.
            staged = self._staged(solved, prefetch, pool)
            self.solver.library.release(solved.number)
            # Commit: the whole scan at once, at its place.
            commits.submit(solved.number, staged)
        commits.finish()

    def _staged(self, solved: Solved, prefetch: Prefetch, pool: Threads) -> StagedScan | None:
        """Stream a solved scan; None where there is nothing to commit, the reason is then in the record."""
        number, record = solved.number, self._record
        if solved.trouble is not None:
            self._in_trouble(number, "solve", solved.trouble)
            return None
        record.add_failures(solved.failures, tell=bool(solved.solutions))
        if solved.done:
            for band in solved.solutions:
                self._bands.remember_sky(band.solution)
            self._skip(number)
            return None
        if not solved.solutions:
            record.nothing_left(number, solved.failures)
            return None
        try:
            return self._stream(solved, prefetch, pool)
        except Cancelled:
            raise
        except Exception as error:
            self._in_trouble(number, "calibrate", error)
            return None

    def _skip(self, number: int) -> None:
        """Leave a scan that is there as it is, but for flag rules that it does not have yet."""
        try:
            notes = apply_rules(self._l1.path, self._rules, [number]) if self._rules else []
        except GpucalError as error:
            self._record.scan_failed(failure_of(number, "write", error))
            return
        for note in notes:
            self._observer.message("warning", note)
        self._record.skipped(self._finished.of(number))

    def _stream(self, solved: Solved, prefetch: Prefetch, pool: Threads) -> StagedScan:
        """Stream all bands of a scan into a staged one; raises when none of them can be calibrated."""
        origin = Origin(
            solved.started,
            self.solver.checksums(solved),
            tuple(self._command_line),
            self.solver.counts(solved),
        )
        replaces = self._l1.finished(solved.number) is not None
        staged = StagedScan(self._l1.begin(solved.number), replaces)
        try:
            for band in solved.solutions:
                try:
                    summary = self._bands.write(band, staged.writer, origin, pool, prefetch.alone)
                    staged.summaries.append(summary)
                except Cancelled:
                    raise
                except Exception as error:
                    self._drop_band(band, staged, solved, error)
            attributes = scan_attributes(
                solved.solutions[0].solution, solved.failed_bands, self._table, origin
            )
            staged.writer.set_attrs("", attributes)
        except BaseException:
            staged.writer.abort()
            raise
        return staged

    def _drop_band(
        self, band: BandSolution, staged: StagedScan, solved: Solved, error: Exception
    ) -> None:
        """Leave out a band that failed; raises ``error`` where no other band can be saved."""
        lost = isinstance(band.solution.backend.health.failure(error), DeviceLostError)
        if lost or (not staged.summaries and band is solved.solutions[-1]):
            raise error
        name = band.solution.scan.band
        staged.writer.drop(name)
        self._record.add_failures([failure_of(solved.number, "calibrate", error)], tell=True)
        solved.failed_bands.append(name)

    def _in_trouble(self, number: int, stage: str, error: Exception) -> None:
        """Record a scan as failed; if the device was lost, drop everything that lies on it."""
        found = self.solver.backend.health.failure(error) or error
        if isinstance(found, DeviceLostError):
            device, self.lost = self.solver.backend.device, found
            what_now = ""
            if self._cpu_after_loss:
                what_now = " The CPU calibrates the other scans of this run."
            else:
                self._cancel.set()
            self._observer.message("error", f"scan {number}: {found.message}{what_now}")
            cpu = cpu_backend(reason=f"{device} was lost in scan {number}")
            self.solver = self._solver_on(cpu)
        self._record.scan_failed(failure_of(number, stage, found))


def _nothing_to_check() -> None:
    """For the share of a run, whose scans another process has claimed."""


def _atmosphere_of(
    store: L0Store, config: CalibrationConfig, observer: Observer
) -> AtmosphereTable | None:
    """The atmosphere table of the run; warnings about it are told to the observer once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", GpucalWarning)
        table = atmosphere_for(config, store.attrs, store.path)
    for warning in caught:
        observer.message("warning", str(warning.message))
    return table
