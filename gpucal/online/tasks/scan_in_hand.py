"""The scan of one calibration job, as far as it has been observed, and what is needed to calibrate it."""

from __future__ import annotations

import contextlib
import time
import warnings
from concurrent.futures import Executor
from dataclasses import replace

from gpucal.backend.select import select_backend
from gpucal.errors import EmptyScanError, GpucalWarning, LoadError
from gpucal.io.atmosphere.choice import atmosphere_for
from gpucal.online.queue.arrival import NotThereYetError, late_bands, require_subscan, store_of
from gpucal.online.queue.events import END, Job, ScanView
from gpucal.online.site.context import Context
from gpucal.online.tasks.made_from import CAME_AFTER, MadeFrom, metadata_digest, row_of
from gpucal.physics.atm import AtmosphereTable
from gpucal.pipeline.scan.averaging import AveragedScan, average_scan
from gpucal.pipeline.scan.load_library import LoadLibrary
from gpucal.pipeline.scan.solve import LoadChoice
from gpucal.procedures.names import procedure_of
from gpucal.scan import Scan


class ScanInHand:
    """The bands of a scan that may still grow, its loads, and its record in the database.

    bands: none when not even a subscan is there; late: bands that lack what the job announces; loads: the load
    scans that serve it and their digests, None where it needs none; warnings: what was said about this job so far.
    """

    def __init__(self, job: Job, context: Context, pool: Executor) -> None:
        """Raises NotThereYetError when what the job announces is not there, L0Error when the scan cannot be read."""
        self.job = job
        self.context = context
        self.pool = pool
        self.store = store_of(job)
        self.options = context.config.calibration.model_copy(update={"partial": True, "scans": ""})
        self.backend = select_backend(self.options.backend, kernels=self.options.kernels)
        self.library = LoadLibrary(self.store, self.options, self.backend)
        self.warnings: list[str] = []
        self.loads: dict[int, str] | None = None
        self._digest = metadata_digest(job.store, job.scan)  # before anything is read
        self.bands: list[Scan] = self._bands()
        broken = self.library.broken_bands(job.scan) if self.bands else {}
        require_subscan(job, self.bands)
        self.late = late_bands(job, self.bands, broken)

    def _bands(self) -> list[Scan]:
        """The bands that can be read now; none for a scan that ended before its first subscan."""
        try:
            return self.library.scan(self.job.scan)
        except EmptyScanError as error:
            if self.job.subscan == END:  # a scan may end before it has begun
                return []
            raise NotThereYetError(error.message, scan=self.job.scan) from error

    def note(self) -> ScanView:
        """Enter the scan in the table of scans; returns what a decision about it needs."""
        job = self.job
        first = max(self.bands, key=_length, default=None)  # the others may be late
        attrs = first.attrs if first is not None else {}
        observed = first.source.sobsmode if first is not None and first.source is not None else ()
        loads = first.calibration if first is not None else None
        # What is decided for a subscan depends on nothing that comes later.
        of_subscan = job.group == "source" and job.subscan != END
        view = ScanView(
            scan=job.scan,
            modes=observed[: job.subscan + 1] if of_subscan else observed,
            calibration_modes=loads.sobsmode if loads is not None else (),
            planned=int(attrs.get("n_subscans_planned") or 0),
        )
        row = {
            "project": job.project,
            "scan": job.scan,
            "store": job.store,
            "source": str(attrs.get("source") or ""),
            "procedure": procedure_of(job.procedure, view.modes, view.calibration_modes),
            "obs_class": job.obs_class,
            "setup": job.setup,
            "planned": view.planned,
            "subscans": len(observed),
            "seen": time.time(),
        }
        self.context.results.save("scans", [row])
        if view.modes or row["procedure"] == "skydip":
            self.loads = self._loads()
        return replace(view, calibrated=bool(self.loads)) if view.modes else view

    def _loads(self) -> dict[int, str]:
        """The load scans that serve the bands now, with their digests; none when no band has any."""
        found: set[int] = set()
        for band in self.bands:
            with contextlib.suppress(LoadError):
                found.update(self.library.choose(band, self.pool).numbers)
        return {n: metadata_digest(self.job.store, n) for n in sorted(found)}

    def note_end(self) -> None:
        """Enter that the scan has ended, and from what its results are made."""
        row = row_of(self.job, self.context)
        before = (MadeFrom.of_row(row) if row else None) or MadeFrom()
        cancelled = self.job.cancelled or before.cancelled
        if before.own not in ("", self._digest):
            self.say(CAME_AFTER, "info")
        made = MadeFrom(self._digest, self.loads, cancelled, before.woken)
        place = {"project": self.job.project, "scan": self.job.scan}
        row = {**place, "state": "ended", "message": "", "made_from": made.to_json()}
        self.context.results.save("scans", [row])

    def note_state(self, state: str, message: str = "") -> None:
        """Enter the new state of the scan; the states are those of ``site.tables.SCANS``."""
        place = {"project": self.job.project, "scan": self.job.scan}
        self.context.results.save("scans", [{**place, "state": state, "message": message}])

    def say(self, text: str, level: str) -> None:
        """Tell the observer, and keep it for the looks of this job."""
        self.warnings.append(text)
        self.context.say(self.job, text, level)

    def calibrated(self, scan: Scan) -> AveragedScan:
        """One band, or some subscans of it, calibrated in memory with the loads that serve it.

        Raises GpucalError when that cannot be.
        """
        return self.calibrated_with(scan, self.library.choose(scan, self.pool))

    def calibrated_with(self, scan: Scan, load: Scan | LoadChoice) -> AveragedScan:
        """The same with these loads."""
        table = self._atmosphere(scan)
        return average_scan(scan, self.options, load=load, table=table, backend=self.backend)

    def _atmosphere(self, scan: Scan) -> AtmosphereTable | None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GpucalWarning)  # L1 of the scan records it
            return atmosphere_for(self.options, scan.store_attrs, scan.path)


def _length(scan: Scan) -> int:
    """Subscans of a band, of loads where it has no others."""
    group = scan.source or scan.calibration
    return group.shape[4] if group is not None else 0
