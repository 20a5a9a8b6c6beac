"""The calibration task: counts to looks during a scan, to L1 at its end.

Everything is computed by the chain that also runs offline; here is only decided what, and where it goes.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gpucal.axes import OFF_MODES
from gpucal.backend import select_backend
from gpucal.backend.cpu import usable_cores
from gpucal.config import CalibrationConfig
from gpucal.errors import (
    EmptyScanError,
    GpucalError,
    GpucalWarning,
    L1Error,
    LoadError,
    OnlineError,
)
from gpucal.io.atmosphere.choice import site_table
from gpucal.io.atmosphere.tables import load_table
from gpucal.io.l0.store import open_l0
from gpucal.online.queue.events import (
    END,
    CountsLook,
    EndOfScan,
    Job,
    NewCalibration,
    Notice,
    OtfGroup,
    QuickLook,
    ScanView,
)
from gpucal.online.queue.trigger import decide
from gpucal.online.site.config import OnlineConfig
from gpucal.online.site.results import Results
from gpucal.online.tasks.looks import BandLook, Look, calibrated_look, counts_look, save_look
from gpucal.online.tasks.subset import choose_subscans, sky_as_scan
from gpucal.physics.atm import AtmosphereTable
from gpucal.pipeline.calibrate import calibrate_store
from gpucal.pipeline.scan.averaging import AveragedScan, average_scan
from gpucal.pipeline.scan.load_library import LoadLibrary
from gpucal.pipeline.scan.load_quality import load_quality
from gpucal.pipeline.store.report import StoreReport
from gpucal.procedures.names import procedure_of
from gpucal.scan import Scan

TASK = "calibration"


@dataclass(frozen=True)
class Outcome:
    """What was done for a job; the tasks after it read this.

    looks: files beside it; end: procedure of a scan that has ended, "" while it goes on; l1: its spectra are
    in the project's store; loads: it brought a new calibration.
    """

    looks: tuple[str, ...] = ()
    end: str = ""
    cancelled: bool = False
    l1: bool = False
    loads: bool = False

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.new")
        aside.write_text(json.dumps(vars(self)), encoding="utf-8")
        aside.replace(path)

    @classmethod
    def load(cls, path: Path) -> Outcome:
        try:
            found = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise OnlineError(f"{path.name} of the calibration cannot be read: {error}.") from error
        return cls(**{**found, "looks": tuple(found["looks"])})


def outcome_path(config: OnlineConfig, job: Job) -> Path:
    """Where the calibration task leaves what it did for ``job``."""
    return config.work_of(TASK, job.project) / job.name


class Calibration:
    """One job of the calibration task."""

    def __init__(self, job: Job, config: OnlineConfig, results: Results) -> None:
        self.job = job
        self.config = config
        self.results = results
        self.folder = config.work_of(TASK, job.project)
        self.store = open_l0(job.store)
        self.options = config.calibration.model_copy(update={"partial": True, "scans": ""})
        self.backend = select_backend(self.options.backend)
        self.library = LoadLibrary(self.store, self.options, self.backend)
        self.looks: list[str] = []
        self.warnings: list[str] = []

    def run(self) -> Outcome:
        """Decide and do. Raises GpucalError for what another try may cure."""
        scans = self._scans()
        view = self._view(scans)
        outcome = Outcome()
        with ThreadPoolExecutor(self.options.workers or usable_cores()) as pool:
            for action in decide(view, self.job):
                if isinstance(action, Notice):
                    self._say(action.text, "warning")
                elif isinstance(action, CountsLook):
                    self._counts(scans, action)
                elif isinstance(action, QuickLook):
                    self._look(scans, action.subscans, action.references, pool)
                elif isinstance(action, OtfGroup):
                    beside = [s for s in (action.before, action.after) if s is not None]
                    self._look(scans, action.subscans, beside, pool)
                elif isinstance(action, NewCalibration):
                    outcome = replace(outcome, loads=self._loads(scans, pool))
                elif isinstance(action, EndOfScan):
                    self._state("ended")
                    done = self._can_be_l1(view, action.procedure) and self._to_l1()
                    outcome = replace(
                        outcome, end=action.procedure, cancelled=action.cancelled, l1=done
                    )
        outcome = replace(outcome, looks=tuple(self.looks))
        outcome.save(outcome_path(self.config, self.job))
        return outcome

    def _scans(self) -> list[Scan]:
        """The bands as far as they go; none when not even a subscan is there."""
        job = self.job
        try:
            return self.library.scan(job.scan)
        except EmptyScanError:
            if job.subscan == END:
                return []
            raise

    def _view(self, scans: Sequence[Scan]) -> ScanView:
        job = self.job
        attrs = dict(scans[0].attrs) if scans else {}
        source = scans[0].source if scans else None
        loads = scans[0].calibration if scans else None
        modes = source.sobsmode if source is not None else ()
        if job.group == "source" and job.subscan != END:
            modes = modes[: job.subscan + 1]
        view = ScanView(
            scan=job.scan,
            modes=modes,
            calibration_modes=loads.sobsmode if loads is not None else (),
            planned=int(attrs.get("n_subscans_planned") or 0),
        )
        self._note_scan(view, attrs, len(source.sobsmode) if source is not None else 0)
        if not modes or not scans:
            return view
        return replace(view, calibrated=self._has_loads(scans[0]))

    def _note_scan(self, view: ScanView, attrs: dict[str, Any], there: int) -> None:
        job = self.job
        row = {
            "project": job.project,
            "scan": job.scan,
            "store": job.store,
            "source": str(attrs.get("source") or ""),
            "procedure": procedure_of(job.procedure, view.modes, view.calibration_modes),
            "obs_class": job.obs_class,
            "setup": job.setup,
            "date_obs": str(attrs.get("date_obs") or ""),
            "planned": view.planned,
            "subscans": there,
            "seen": time.time(),
        }
        self.results.save("scans", [row])

    def _has_loads(self, scan: Scan) -> bool:
        try:
            self.library.choose(scan)
        except LoadError:
            return False
        return True

    def _counts(self, scans: Sequence[Scan], action: CountsLook) -> None:
        bands = []
        for scan in scans:
            group = scan.source if action.group == "source" else scan.calibration
            if group is not None and action.subscan < group.shape[4]:
                bands.append(counts_look(group, [action.subscan], scan.band))
        self._save(scans[0], "counts", (action.subscan,), bands, action.group)

    def _look(
        self,
        scans: Sequence[Scan],
        subscans: Sequence[int],
        references: Sequence[int],
        pool: ThreadPoolExecutor,
    ) -> None:
        """Calibrate some subscans in memory; a band that cannot be is shown as counts."""
        bands: list[BandLook] = []
        kind = "calibrated"
        for scan in scans:
            chosen = choose_subscans(scan, [*subscans, *references])
            try:
                bands.append(calibrated_look(self._in_memory(chosen, pool)))
            except GpucalError as error:
                kind = "counts"
                self._say(f"quick look in counts: {error}", "warning")
                assert scan.source is not None
                bands.append(counts_look(scan.source, subscans, scan.band))
        self._save(scans[0], kind, tuple(subscans), bands, "source")

    def _in_memory(self, scan: Scan, pool: ThreadPoolExecutor) -> AveragedScan:
        choice = self.library.choose(scan, pool)
        load = next(s for s in self.library.scan(choice.first.scan) if s.band == scan.band)
        table = self._table(scan)
        return average_scan(scan, self.options, load=load, table=table, backend=self.backend)

    def _table(self, scan: Scan) -> AtmosphereTable | None:
        options = self.options
        if options.atmosphere == "none" or (
            options.atmosphere == "auto" and options.tau is not None
        ):
            return None
        automatic = options.atmosphere == "auto"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GpucalWarning)  # L1 of the scan records it
            return load_table(site_table(scan.store_attrs) if automatic else options.atmosphere)

    def _save(
        self,
        scan: Scan,
        kind: str,
        subscans: tuple[int, ...],
        bands: Sequence[BandLook],
        group: str,
    ) -> None:
        attrs = scan.attrs
        look = Look(
            scan=self.job.scan,
            subscans=tuple(int(s) for s in subscans),
            kind=kind,
            group=group,
            source=str(attrs.get("source") or ""),
            line=str(attrs.get("line") or ""),
            procedure=self.job.procedure,
            date_obs=str(attrs.get("date_obs") or ""),
            warnings=tuple(self.warnings),
            bands=tuple(bands),
        )
        stem = self.job.name.removesuffix(".json")
        name = f"{stem}.{len(self.looks)}.npz"
        save_look(look, self.folder / name)
        self.looks.append(name)

    def _loads(self, scans: Sequence[Scan], pool: ThreadPoolExecutor) -> bool:
        """T_rec, T_sys, PWV and bad channels of a load scan, per pixel, into the results."""
        rows: list[dict[str, Any]] = []
        for scan in scans:
            if scan.calibration is None:
                continue
            try:
                rows += self._load_rows(scan, pool)
            except GpucalError as error:
                self._say(f"the loads cannot be used: {error}", "error")
        self.results.save("calibrations", rows)
        return bool(rows)

    def _load_rows(self, scan: Scan, pool: ThreadPoolExecutor) -> list[dict[str, Any]]:
        group = scan.calibration
        assert group is not None
        quality = load_quality(scan, self.options, self.backend, pool)
        sky = self._sky(scan, pool)
        rows = []
        for r, a in np.ndindex(*quality.t_rec.shape):
            good = bool(np.isfinite(quality.t_rec[r, a]))
            row = {
                "project": self.job.project,
                "scan": self.job.scan,
                "band": scan.band,
                "receiver": r,
                "pixel": a,
                "setup": self.job.setup,
                "t_rec": float(quality.t_rec[r, a]),
                "bad_fraction": float(quality.bad[r, a]),
                "mjd": float(np.mean(group.mjd_mid)),
                "valid": good,
                "reason": "" if good else "every channel is bad",
                "t_sys": float(sky.t_sys[r, a]) if sky is not None else float("nan"),
                "pwv": sky.pwv if sky is not None else float("nan"),
            }
            rows.append(row)
        return rows

    def _sky(self, scan: Scan, pool: ThreadPoolExecutor) -> BandLook | None:
        """T_sys and PWV of a load scan that also saw the sky."""
        pseudo = sky_as_scan(scan)
        if pseudo is None:
            return None
        try:
            table = self._table(scan)
            result = average_scan(
                pseudo, self.options, load=scan, table=table, backend=self.backend
            )
        except GpucalError as error:
            self._say(f"no T_sys from the SKY of this calibration: {error}", "warning")
            return None
        return calibrated_look(result)

    def _can_be_l1(self, view: ScanView, procedure: str) -> bool:
        """Drifts and tips without a reference give their result, but no T_A*."""
        without = procedure in ("pointing", "focus", "skydip") and not OFF_MODES & set(view.modes)
        return bool(view.modes) and not without

    def _to_l1(self) -> bool:
        """Calibrate the whole scan as offline; returns whether it is in the project's store."""
        job = self.job
        out = self.config.project(job.project) / "l1.zarr"
        out.parent.mkdir(parents=True, exist_ok=True)
        options = self._final_options()
        report = calibrate_store(job.store, out, options)
        if any(f.is_a(L1Error) for f in report.failures):
            # an earlier end of this scan was wrong, or the configuration was changed
            again = options.model_copy(update={"overwrite": True})
            report = calibrate_store(job.store, out, again)
        return self._report(report)

    def _final_options(self) -> CalibrationConfig:
        partial = False
        try:
            self.store.load(self.job.scan)
        except GpucalError:
            partial = True
        update = {"scans": str(self.job.scan), "partial": partial}
        return self.config.calibration.model_copy(update=update)

    def _report(self, report: StoreReport) -> bool:
        for summary in report.summaries:
            for text in summary.warnings:
                self._say(text, "warning")
        if not report.failures:
            self._state("calibrated")
            return True
        sentence = " ".join(f.sentence for f in report.failures)
        waits = all(f.is_a(LoadError) for f in report.failures)
        wanted = waits and self.config.use_later_calibration
        self._state("waiting" if wanted else "failed", sentence)
        self._say(sentence, "warning" if wanted else "error")
        return any(s.status != "failed" for s in report.summaries)

    def _state(self, state: str, message: str = "") -> None:
        place = {"project": self.job.project, "scan": self.job.scan}
        self.results.save("scans", [{**place, "state": state, "message": message}])

    def _say(self, text: str, level: str) -> None:
        self.warnings.append(text)
        self.results.message(
            text, level=level, task=TASK, project=self.job.project, scan=self.job.scan
        )


def waiting_scans(results: Results, job: Job) -> list[Job]:
    """End jobs for scans of the same project and setup that wait for a calibration."""
    rows = results.rows("scans", project=job.project, state="waiting", setup=job.setup)
    return [
        Job(
            store=row["store"],
            scan=row["scan"],
            subscan=END,
            project=job.project,
            procedure=row["procedure"],
            setup=row["setup"],
            end_of_scan=True,
        )
        for row in rows
        if row["scan"] != job.scan
    ]
