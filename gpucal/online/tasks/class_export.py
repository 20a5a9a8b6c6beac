"""The class task: spectra of a calibrated scan for GILDAS."""

from __future__ import annotations

from gpucal.online.queue.events import Job
from gpucal.online.site.context import Context
from gpucal.procedures.names import kind_of, kind_of_mode


def class_export(job: Job, context: Context) -> list[str]:
    """The spectra of a calibrated scan as a CLASS file: every dump of an on-the-fly scan, else a mean per subscan."""
    from gpucal.export.rows import Average, Selection, spectra_of_store
    from gpucal.io.gildas.writer import write_class
    from gpucal.io.l1.reader import open_l1

    folder = context.project(job) / "class"
    folder.mkdir(parents=True, exist_ok=True)
    store = open_l1(context.l1(job))
    scan = store.scan(job.scan)
    modes = {str(scan.band_scan(band).attrs.get("mode")) for band in scan.bands}
    moves = "otf" in {
        kind_of(job.procedure),
        *map(kind_of_mode, modes or {str(scan.attrs.get("mode"))}),
    }
    chosen = context.config.class_average
    average: Average = ("none" if moves else "dumps") if chosen == "auto" else chosen
    spectra = spectra_of_store(store, Selection(scans=frozenset([job.scan]), average=average))
    write_class(folder / f"scan_{job.scan:06d}.30m", spectra, overwrite=True)
    return []
