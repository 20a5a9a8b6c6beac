"""Quick looks of the calibration task: some subscans of a running scan, in counts or calibrated."""

from __future__ import annotations

from collections.abc import Sequence

from gpucal.errors import GpucalError
from gpucal.online.looks.computing import calibrated_look, counts_look
from gpucal.online.looks.look import BandLook, Look, save_look
from gpucal.online.looks.subset import choose_subscans
from gpucal.online.queue.events import Group
from gpucal.online.tasks.outcome import outcome_path
from gpucal.online.tasks.scan_in_hand import ScanInHand


class QuickLooks:
    """The looks of one job. files: their names, beside the outcome of the job."""

    def __init__(self, scan: ScanInHand) -> None:
        self._scan = scan
        self.files: list[str] = []

    def counts(self, subscan: int, group: Group) -> None:
        """Show the counts of one subscan, in every band that has it."""
        bands = []
        for scan in self._scan.bands:
            found = scan.source if group == "source" else scan.calibration
            if found is not None and subscan < found.shape[4]:
                bands.append(counts_look(found, [subscan], scan.band))
        self._keep("counts", [subscan], bands, group)

    def calibrated(self, subscans: Sequence[int], references: Sequence[int]) -> None:
        """Calibrate some subscans in memory; a band that cannot be is shown as counts."""
        bands: list[BandLook] = []
        kind = "calibrated"
        for scan in self._scan.bands:
            if scan.source is None or scan.source.shape[4] <= max(*subscans, *references, 0):
                continue  # it is late
            chosen = choose_subscans(scan, [*subscans, *references])
            try:
                bands.append(calibrated_look(self._scan.calibrated(chosen)))
            except GpucalError as error:
                kind = "counts"
                self._scan.say(f"quick look in counts: {error}", "warning")
                bands.append(counts_look(scan.source, subscans, scan.band))
        self._keep(kind, subscans, bands, "source")

    def _keep(
        self, kind: str, subscans: Sequence[int], bands: Sequence[BandLook], group: Group
    ) -> None:
        """Write a look for the tasks after this one, with what was said until now."""
        job = self._scan.job
        attrs = self._scan.bands[0].attrs
        look = Look(
            scan=job.scan,
            subscans=tuple(int(s) for s in subscans),
            kind=kind,
            group=group,
            source=str(attrs.get("source") or ""),
            line=str(attrs.get("line") or ""),
            procedure=job.procedure,
            date_obs=str(attrs.get("date_obs") or ""),
            warnings=tuple(self._scan.warnings),
            bands=tuple(bands),
        )
        name = f"{job.stem}.{len(self.files)}.npz"
        save_look(look, outcome_path(self._scan.context.config, job).parent / name)
        self.files.append(name)
