"""The report of a run that several processes share."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from functools import cache

from gpucal.config import CalibrationConfig
from gpucal.errors import GpucalWarning
from gpucal.io.atmosphere.choice import atmosphere_for
from gpucal.io.l0.store import L0Store
from gpucal.physics.atm import AtmosphereTable
from gpucal.pipeline.store.finished import Finished, Table
from gpucal.pipeline.store.report import Failure, Observer, ScanSummary, StoreReport
from gpucal.pipeline.store.selection import Selection


def table_of(store: L0Store, config: CalibrationConfig) -> Table:
    """The table that every process will choose, loaded when it is asked for; its warnings are theirs to tell."""

    @cache
    def table() -> AtmosphereTable | None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GpucalWarning)
            return atmosphere_for(config, store.attrs, store.path)

    return table


class Gathered:
    """Summaries and failures from all processes, in the order of arrival. ``left``: scans to calibrate."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        self.left: list[int] = []
        self._summaries: list[ScanSummary] = []
        self._failures: list[Failure] = []

    def begin(self, selection: Selection, finished: Finished) -> None:
        """Tell the observer what there is to do; scans that cannot be read are failures already, some are done."""
        self.observer.night_started(selection.numbers, 0)
        for note in selection.notes:
            self.observer.message("info", note)
        for note in finished.notes:
            self.observer.message("warning", note)
        for failure in selection.failures:
            self.fail(failure)
        self.add(finished.summaries, ())
        self.left = [n for n in selection.numbers if n not in finished.numbers]

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

    def report(self, *, interrupted: bool, atmosphere: str) -> StoreReport:
        """The report, in the order of the scans; ``atmosphere`` as ``atmosphere_text`` says it."""
        return StoreReport(
            tuple(sorted(self._summaries, key=lambda s: (s.scan, s.band))),
            tuple(sorted(self._failures, key=lambda f: f.scan)),
            interrupted,
            atmosphere=atmosphere,
        )
