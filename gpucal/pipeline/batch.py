"""Calibrate a whole store: prefetch, stream, commit; failures never stop the others."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gpucal.backend import Backend, select_backend
from gpucal.config import CalibrationConfig, parse_scans
from gpucal.errors import GpucalError, GpucalWarning, L1Error
from gpucal.io.atm_tables import load_table, site_table
from gpucal.io.read import L0Store, open_l0
from gpucal.io.write import L1Store, write_failures
from gpucal.physics.atm import AtmosphereTable
from gpucal.pipeline.chain import StageTimer, solve_scan
from gpucal.pipeline.l1_layout import L1Sink, band_attributes, write_band
from gpucal.pipeline.load_library import LoadLibrary
from gpucal.pipeline.provenance import now, provenance
from gpucal.pipeline.report import Failure, Observer, ScanSummary, SilentObserver, StoreReport
from gpucal.pipeline.stream import Cancelled, stream_scan
from gpucal.steps.calibrate import ScanSolution, scale_of_output
from gpucal.steps.loads import nan_median
from gpucal.steps.quality import quality_attributes, system_temperature_from_counts
from gpucal.steps.sky_diff import (
    SkyDifferences,
    SkyHistory,
    chop_differences,
    layout_key,
    sky_differences,
)


@dataclass
class _Solved:
    """A scan ready to stream: one solution per band that could be solved."""

    number: int
    solutions: list[tuple[ScanSolution, StageTimer]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    skipped: str = ""
    started: str = ""


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


def chosen_scans(store: L0Store, config: CalibrationConfig) -> list[int]:
    """Numbers to work on: those asked for (there or not), else all science scans."""
    wanted = parse_scans(config.scans)
    if wanted is not None:
        present = store.numbers()
        return [n for n in sorted(wanted) if n in present]
    return store.numbers()


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
        self.workers = config.workers or os.cpu_count() or 1
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
        numbers = self._numbers()
        interrupted = False
        self.observer.night_started(numbers, 0)
        with ExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(self.workers, "tile"))
            ahead = stack.enter_context(ThreadPoolExecutor(1, "prefetch"))
            commits = stack.enter_context(ThreadPoolExecutor(1, "commit"))
            committing: Future[None] | None = None
            try:
                for solved in self._prefetched(numbers, ahead, pool):
                    finish = self._scan(solved, pool)
                    if committing is not None:
                        committing.result()
                    committing = commits.submit(finish)
                if committing is not None:
                    committing.result()
            except (KeyboardInterrupt, Cancelled):
                interrupted = True
                self.cancel.set()
                pool.shutdown(wait=True, cancel_futures=True)
                ahead.shutdown(wait=True, cancel_futures=True)
                if committing is not None:
                    committing.result()
        write_failures(self.l1, [f.as_dict() for f in self.failures])
        return StoreReport(tuple(self.summaries), tuple(self.failures), interrupted)

    def _numbers(self) -> list[int]:
        """Scans to work on; load-only scans serve as loads and are not science."""
        wanted = parse_scans(self.config.scans)
        present = self.l0.numbers()
        for missing in sorted((wanted or frozenset()) - set(present)):
            self._fail(missing, "read", LookupError(f"scan {missing} is not in {self.l0.path}."))
        out = []
        for n in present:
            if wanted is not None and n not in wanted:
                continue
            try:
                if self.l0.kind(n) == "science":
                    out.append(n)
                elif wanted is not None:
                    self.observer.message("info", f"scan {n} is a load scan: nothing to calibrate")
            except GpucalError as error:
                self._fail(n, "read", error)
        return out

    def _prefetched(
        self, numbers: Sequence[int], ahead: ThreadPoolExecutor, pool: ThreadPoolExecutor
    ) -> Iterator[_Solved]:
        """Solved scans in order, one ahead of the caller."""
        pending: Future[_Solved] | None = None
        for n in numbers:
            following = ahead.submit(self._solve, n, pool)
            if pending is not None:
                yield pending.result()
            pending = following
        if pending is not None:
            yield pending.result()

    def _solve(self, number: int, pool: ThreadPoolExecutor) -> _Solved:
        solved = _Solved(number, started=now())
        try:
            timer = StageTimer()
            bands = timer.run("load", lambda: self.library.scan(number))
            solved.skipped = self._finished(number, self._checksum(number))
        except Exception as error:
            solved.failures.append(_failure(number, "read", error))
            return solved
        if solved.skipped and not self.config.skydiff:
            return solved
        for scan in bands:
            if scan.source is None:
                continue
            own = StageTimer()
            own.milliseconds = dict(timer.milliseconds)
            try:
                choice = own.run("load", lambda scan=scan: self.library.choose(scan, pool))  # type: ignore[misc]
                solution = solve_scan(
                    scan, choice, self.table, self.config, self.backend, pool=pool, timer=own
                )
                solved.solutions.append((solution, own))
            except Exception as error:
                solved.failures.append(_failure(number, "solve", error))
        return solved

    def _checksum(self, number: int) -> dict[str, str]:
        return {f"{number}/{s.band}": s.metadata_sha256 for s in self.library.scan(number)}

    def _finished(self, number: int, checksums: dict[str, str]) -> str:
        """Why the scan need not be done again, or "". Raises L1Error when another one is there."""
        if self.config.overwrite:
            return ""
        found = self.l1.finished(number)
        if found is None:
            return ""
        same_input = all(
            found.get("provenance", {}).get("l0_metadata_sha256", {}).get(k) == v
            for k, v in checksums.items()
        )
        same_config = found.get("config_sha256") == self.config.fingerprint()
        if same_config and same_input and not found.get("failed_bands"):
            return "already calibrated with the same configuration"
        if same_config and same_input:
            return ""
        what = "from other raw data" if same_config else "with another configuration"
        raise L1Error(
            f"the scan is already there, calibrated {what}.",
            hint="Use --overwrite to replace it, or another output.",
            scan=number,
            stage="write",
        )

    def _scan(self, solved: _Solved, pool: ThreadPoolExecutor) -> Callable[[], None]:
        """Stream all bands of a scan; returns what commits it."""
        self.failures += solved.failures
        number = solved.number
        for failure in solved.failures:
            self.observer.message("error", failure.message)
        if solved.skipped:
            for solution, _ in solved.solutions:
                self._differences(solution)
            self._summary(ScanSummary(number, "", "", "skipped", warnings=(solved.skipped,)))
            return _nothing
        if not solved.solutions:
            text = "; ".join(f.message for f in solved.failures)
            self._summary(ScanSummary(number, "", "", "failed", error=text))
            return _nothing
        writer = self.l1.begin(number)
        summaries = []
        try:
            for solution, timer in solved.solutions:
                summaries.append(self._band(solution, timer, writer, pool, solved.started))
        except (KeyboardInterrupt, Cancelled):
            self.cancel.set()
            writer.abort()
            raise
        except Exception as error:
            writer.abort()
            self._fail(number, "calibrate", error)
            return _nothing
        failed_bands = sorted({f.message.split(":")[0] for f in solved.failures})
        writer.set_attrs(
            "",
            {
                "scan_number": number,
                "failed_bands": failed_bands,
                "config_sha256": self.config.fingerprint(),
                "config": self.config.result_keys(),
                **_passed_through(solved.solutions[0][0]),
            },
        )
        return lambda: self._commit(writer, number, summaries)

    def _band(
        self,
        solution: ScanSolution,
        timer: StageTimer,
        writer: Any,
        pool: ThreadPoolExecutor,
        started: str,
    ) -> ScanSummary:
        scan = solution.scan
        begin = time.perf_counter()
        shape = solution.group.shape
        total = int(np.prod(solution.output_shape)) * solution.group.counts.dtype.itemsize
        self.observer.scan_started(scan.number, scan.band, total)
        writer.group(scan.band)
        sink = L1Sink(writer, solution)
        sums = timer.run(
            "calibrate",
            lambda: stream_scan(
                solution,
                sink,
                pool=pool,
                workers=self.workers,
                ring_bytes=self.config.ring << 20,
                cancel=self.cancel,
                progress=lambda n: self.observer.tile_done(scan.number, scan.band, n),
            ),
        )
        middle = solution.output_shape[4] // 2
        t_sys = scale_of_output(solution, middle, 0, shape[0]).t_sys
        xp = solution.backend.xp
        quality = quality_attributes(
            solution, sums, float(nan_median(xp.reshape(t_sys, (-1,)), xp))
        )
        quality |= system_temperature_from_counts(solution, middle, solution.backend)
        quality["pwv_outside_table"] = self._outside_table(quality["pwv"])
        attributes = {
            **band_attributes(solution),
            "qa": quality,
            "provenance": provenance(
                solution, self.table, self._checksum(scan.number), started, self.command_line
            ),
        }
        timer.run(
            "write",
            lambda: write_band(writer, solution, attributes, self._differences(solution)),
        )
        notes = list(attributes["warnings"])
        if quality["pwv_outside_table"]:
            notes.append(
                f"the fitted PWV of {quality['pwv']:.3g} mm lies outside the range of the atmosphere table"
            )
        ratio = np.asarray(quality["rms_ratio"], dtype=np.float64)
        return ScanSummary(
            scan=scan.number,
            band=scan.band,
            mode=solution.pairing.mode,
            status="calibrated",
            pwv=quality["pwv"],
            pwv_error=quality["pwv_error"],
            t_rec=quality["t_rec_median"],
            t_sys=quality["t_sys_median"],
            rms_ratio=float(np.median(ratio[np.isfinite(ratio)]))
            if np.isfinite(ratio).any()
            else np.nan,
            flagged_fraction=quality["flagged_fraction"],
            seconds=time.perf_counter() - begin,
            bytes_read=total,
            warnings=tuple(notes),
            timing=dict(timer.milliseconds),
        )

    def _outside_table(self, pwv: float) -> bool:
        span = self.table.pwv_range_mm if self.table is not None else None
        return span is not None and bool(np.isfinite(pwv)) and not span[0] <= pwv <= span[1]

    def _differences(self, solution: ScanSolution) -> dict[str, SkyDifferences]:
        found: dict[str, SkyDifferences] = {}
        if self.config.skydiff and solution.loads.cold is not None:
            key = layout_key(solution)
            entries = self.history.of(key)
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

    def _commit(self, writer: Any, number: int, summaries: Sequence[ScanSummary]) -> None:
        begin = time.perf_counter()
        try:
            writer.commit(overwrite=self.config.overwrite or self.l1.finished(number) is not None)
        except Exception as error:
            writer.abort()
            self._fail(number, "write", error)
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

    def _fail(self, number: int, stage: str, error: BaseException) -> None:
        failure = _failure(number, stage, error)
        self.failures.append(failure)
        self.observer.message("error", failure.message)
        self._summary(ScanSummary(number, "", "", "failed", error=failure.message))


def _nothing() -> None:
    """There is nothing to commit."""


def _failure(number: int, stage: str, error: BaseException) -> Failure:
    if isinstance(error, GpucalError):
        error.locate(scan=number, stage=stage)
        hint, error.hint = error.hint, ""
        text = str(error)
        error.hint = hint
        return Failure(number, error.stage, type(error).__name__, text, hint)
    text = f"scan {number}: {type(error).__name__}: {error}"
    return Failure(number, stage, type(error).__name__, text, "Run with --verbose for the details.")


def _passed_through(solution: ScanSolution) -> dict[str, Any]:
    """Scan attributes of L0 that users look for in L1."""
    skip = {"complete", "raw_headers"}
    return {k: v for k, v in solution.scan.attrs.items() if k not in skip}
