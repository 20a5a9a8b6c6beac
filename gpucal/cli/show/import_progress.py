"""The bar of an import on a terminal."""

from __future__ import annotations

from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from gpucal.io.incoming.protocol import ImportPlan, PlannedScan


class ImportBars:
    """One bar for all scans of a plan, by the bytes of their counts."""

    def __init__(self, plan: ImportPlan, console: Console | None = None) -> None:
        self._total = sum(scan.nbytes for scan in plan.scans)
        self._scans, self._finished, self._done = len(plan.scans), 0, 0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[count]}"),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console or Console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task("import", total=self._total or None, count="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def scan_started(self, scan: PlannedScan) -> None:
        """Name the scan."""
        self._done = 0
        self._progress.update(
            self._task,
            description=f"scan {scan.number}",
            count=f"{self._finished}/{self._scans} scans",
        )

    def advance(self, nbytes: int) -> None:
        """Move the bar."""
        self._done += nbytes
        self._progress.update(self._task, advance=nbytes)

    def scan_finished(self, scan: PlannedScan) -> None:
        """Count the scan, and what of it was not read because it was there or is lost."""
        self._finished += 1
        self._progress.update(
            self._task,
            advance=max(0, scan.nbytes - self._done),
            count=f"{self._finished}/{self._scans} scans",
        )
