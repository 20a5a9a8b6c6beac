"""The scan of one calibration job, as far as it has been observed, and what is needed to calibrate it."""

from __future__ import annotations

import time
import warnings
from concurrent.futures import Executor
from dataclasses import replace

from gpucal.backend.select import select_backend
from gpucal.errors import EmptyScanError, GpucalWarning, LoadError
from gpucal.io.atmosphere.choice import atmosphere_for
from gpucal.io.l0.store import open_l0
from gpucal.online.queue.events import END, Job, ScanView
from gpucal.online.site.context import Context
from gpucal.physics.atm import AtmosphereTable
from gpucal.pipeline.scan.averaging import AveragedScan, average_scan
from gpucal.pipeline.scan.load_library import LoadLibrary
from gpucal.procedures.names import procedure_of
from gpucal.scan import Scan


class ScanInHand:
    """The bands of a scan that may still grow, its loads, and its record in the database.

    bands: none when not even a subscan is there; warnings: what was said about this job so far.
    """

    def __init__(self, job: Job, context: Context, pool: Executor) -> None:
        """Raises L0Error when the scan cannot be read, or an ordinary job finds it empty."""
        self.job = job
        self.context = context
        self.pool = pool
        self.store = open_l0(job.store)
        self.options = context.config.calibration.model_copy(update={"partial": True, "scans": ""})
        self.backend = select_backend(self.options.backend)
        self.library = LoadLibrary(self.store, self.options, self.backend)
        self.warnings: list[str] = []
        self.bands: list[Scan] = self._bands()

    def _bands(self) -> list[Scan]:
        """The bands that can be read now; none for a scan that ended before its first subscan."""
        try:
            return self.library.scan(self.job.scan)
        except EmptyScanError:
            if self.job.subscan == END:  # a scan may end before it has begun
                return []
            raise

    def note(self) -> ScanView:
        """Enter the scan in the table of scans; returns what a decision about it needs."""
        job = self.job
        first = self.bands[0] if self.bands else None
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
        if first is None or not view.modes:
            return view
        return replace(view, calibrated=self._has_loads(first))

    def _has_loads(self, scan: Scan) -> bool:
        """Whether loads for this band are there already."""
        try:
            self.library.choose(scan)
        except LoadError:
            return False
        return True

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
        choice = self.library.choose(scan, self.pool)
        load = next(s for s in self.library.scan(choice.first.scan) if s.band == scan.band)
        return self.calibrated_with(scan, load)

    def calibrated_with(self, scan: Scan, load: Scan) -> AveragedScan:
        """The same with the loads of ``load``."""
        table = self._atmosphere(scan)
        return average_scan(scan, self.options, load=load, table=table, backend=self.backend)

    def _atmosphere(self, scan: Scan) -> AtmosphereTable | None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GpucalWarning)  # L1 of the scan records it
            return atmosphere_for(self.options, scan.store_attrs, scan.path)
