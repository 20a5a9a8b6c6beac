"""What is known of a run so far: summaries and failures as they come, told to the observer at once."""

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
        """One band of a scan is done."""
        self._enter(summary)

    def skipped(self, number: int) -> None:
        """A scan is there already."""
        self._enter(ScanSummary(number, "", "", "skipped"))

    def scan_failed(self, failure: Failure) -> None:
        """A whole scan failed."""
        self._failures.append(failure)
        self.nothing_left(failure.scan, [failure])

    def nothing_left(self, number: int, failures: Sequence[Failure]) -> None:
        """A scan comes to nothing, for the reasons in ``failures``, which are known."""
        text = " ".join(failure.sentence for failure in failures)
        self._enter(ScanSummary(number, "", "", "failed", error=text))

    def add_failures(self, failures: Iterable[Failure], *, tell: bool) -> None:
        """Failures of bands. tell: the observer would not hear of them with the scan."""
        for failure in failures:
            self._failures.append(failure)
            if tell:
                self._observer.message("error", failure.sentence)

    def of_scan(self, number: int) -> StoreReport:
        """What is known of one scan."""
        return StoreReport(
            tuple(s for s in list(self._summaries) if s.scan == number),
            tuple(f for f in list(self._failures) if f.scan == number),
        )

    def report(self, interrupted: bool) -> StoreReport:
        """Everything; the failures in the order of the scans."""
        failures = tuple(sorted(self._failures, key=lambda f: f.scan))
        return StoreReport(tuple(self._summaries), failures, interrupted)

    def _enter(self, summary: ScanSummary) -> None:
        self._summaries.append(summary)
        self._observer.scan_finished(summary)
