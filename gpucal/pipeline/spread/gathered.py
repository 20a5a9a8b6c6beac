"""The report of a run that several processes share."""

from __future__ import annotations

from collections.abc import Iterable

from gpucal.pipeline.store.report import Failure, Observer, ScanSummary, StoreReport
from gpucal.pipeline.store.selection import Selection


class Gathered:
    """Summaries and failures from all processes, in the order of arrival."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        self._summaries: list[ScanSummary] = []
        self._failures: list[Failure] = []

    def begin(self, selection: Selection) -> None:
        """Tell the observer what there is to do; scans that cannot be read are failures already."""
        self.observer.night_started(selection.numbers, 0)
        for note in selection.notes:
            self.observer.message("info", note)
        for failure in selection.failures:
            self.fail(failure)

    def add(self, summaries: Iterable[ScanSummary], failures: Iterable[Failure]) -> None:
        """Add what a process reports about its scans."""
        for summary in summaries:
            self._summaries.append(summary)
            self.observer.scan_finished(summary)
        self._failures.extend(failures)

    def fail(self, failure: Failure) -> None:
        """Record a scan that no process reports on."""
        self.observer.message("error", failure.message)
        summary = ScanSummary(failure.scan, "", "", "failed", error=failure.message)
        self.add([summary], [failure])

    def report(self, *, interrupted: bool) -> StoreReport:
        """The report, in the order of the scans."""
        return StoreReport(
            tuple(sorted(self._summaries, key=lambda s: (s.scan, s.band))),
            tuple(sorted(self._failures, key=lambda f: f.scan)),
            interrupted,
        )
