"""Record of a run so far: summaries and failures as they come, told to the observer at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gpucal.pipeline.store.report import Failure, Observer, ScanSummary, StoreReport


class Record:
    """Summaries and failures of the scans of one process; entries come from several threads."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._summaries: list[ScanSummary] = []
        self._failures: list[Failure] = []

    def calibrated(self, summary: ScanSummary) -> None:
        """Record that one band of a scan is calibrated."""
        self._enter(summary)

    def skipped(self, summaries: Iterable[ScanSummary]) -> None:
        """Record that a scan is in the store already, by the rows of its bands."""
        for summary in summaries:
            self._enter(summary)

    def scan_failed(self, failure: Failure) -> None:
        """Record that a whole scan failed."""
        self._failures.append(failure)
        self.nothing_left(failure.scan, [failure])

    def nothing_left(self, number: int, failures: Sequence[Failure]) -> None:
        """Record that no band of a scan could be saved; ``failures`` are recorded already."""
        text = " ".join(failure.sentence for failure in failures)
        self._enter(ScanSummary(number, "", "", "failed", error=text))

    def add_failures(self, failures: Iterable[Failure], *, tell: bool) -> None:
        """Record failures of bands. tell: inform the observer now, as no scan will report them."""
        for failure in failures:
            self._failures.append(failure)
            if tell:
                self._observer.message("error", failure.sentence)

    def of_scan(self, number: int) -> StoreReport:
        """The summaries and failures of one scan."""
        return StoreReport(
            tuple(s for s in list(self._summaries) if s.scan == number),
            tuple(f for f in list(self._failures) if f.scan == number),
        )

    def report(self, interrupted: bool) -> StoreReport:
        """The report of the run; failures in the order of the scans."""
        failures = tuple(sorted(self._failures, key=lambda f: f.scan))
        return StoreReport(tuple(self._summaries), failures, interrupted)

    def _enter(self, summary: ScanSummary) -> None:
        self._summaries.append(summary)
        self._observer.scan_finished(summary)
