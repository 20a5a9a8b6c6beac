"""Commit calibrated scans in a thread of its own, so that the sync to disk does not hold up the next scan."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from types import TracebackType

from gpucal.io.l1.flag_rules import FlagRule
from gpucal.io.l1.writer import L1Store, ScanWriter
from gpucal.pipeline.store.outcome import failure_of
from gpucal.pipeline.store.record import Record
from gpucal.pipeline.store.report import ScanSummary, StoreReport

COMMITS_WAITING = 2
"""Scans whose sync to disk may lag behind."""

ScanDone = Callable[[int, StoreReport], None]
"""Called with a scan number and what is known of that scan when nothing more will come."""


def nobody_waits(number: int, known: StoreReport) -> None:
    """A ``ScanDone`` that does nothing: for a run whose report is enough."""


@dataclass
class StagedScan:
    """A scan whose files are written, but not yet at their place; ``summaries`` of its bands."""

    writer: ScanWriter
    summaries: list[ScanSummary] = field(default_factory=list)


class Commits:
    """Queue of scans to commit, in the order in which they come; leaving the block waits for all of them."""

    def __init__(
        self,
        store: L1Store,
        record: Record,
        overwrite: bool,
        scan_done: ScanDone,
        rules: Sequence[FlagRule] = (),
    ) -> None:
        self._rules = rules
        self._store = store
        self._record = record
        self._overwrite = overwrite
        self._scan_done = scan_done
        self._thread = ThreadPoolExecutor(1, "commit")
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> Commits:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.shutdown(wait=True)

    def submit(self, number: int, staged: StagedScan | None) -> None:
        """Commit a scan (None: it has nothing to commit) and say that it is done; waits when too many lag."""
        self._waiting.append(self._thread.submit(self._end, number, staged))
        while len(self._waiting) >= COMMITS_WAITING:
            self._waiting.popleft().result()

    def finish(self) -> None:
        """Wait for all that were submitted."""
        while self._waiting:
            self._waiting.popleft().result()

    def _end(self, number: int, staged: StagedScan | None) -> None:
        """Commit one scan in the thread, and say that it is done."""
        if staged is not None:
            self._commit(number, staged)
        self._scan_done(number, self._record.of_scan(number))

    def _commit(self, number: int, staged: StagedScan) -> None:
        """Put a scan in place and enter its bands; one that cannot be put there has failed."""
        begin = time.perf_counter()
        try:
            there = self._store.finished(number) is not None
            notes = staged.writer.commit(self._overwrite or there, self._rules)
        except Exception as error:
            staged.writer.abort()
            self._record.scan_failed(failure_of(number, "write", error))
            return
        spent = 1e3 * (time.perf_counter() - begin)
        for summary in staged.summaries:
            timing = dict(summary.timing)
            timing["write"] = timing.get("write", 0.0) + spent
            timing["wall"] = 1e3 * summary.seconds + spent
            milliseconds = {f"{k}_ms": v for k, v in timing.items()}
            warnings = (*summary.warnings, *notes)
            self._record.calibrated(replace(summary, timing=milliseconds, warnings=warnings))
            notes = []
