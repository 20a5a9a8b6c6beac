"""The class task: spectra of a calibrated scan for GILDAS."""

from __future__ import annotations

from gpucal.online.queue.events import Job
from gpucal.online.site.context import Context


def class_export(job: Job, context: Context) -> list[str]:
    """The averaged spectra of a calibrated scan as a CLASS file."""
    from gpucal.export.rows import Selection, spectra_of_store
    from gpucal.io.gildas.writer import write_class
    from gpucal.io.l1.reader import open_l1

    folder = context.project(job) / "class"
    folder.mkdir(parents=True, exist_ok=True)
    selection = Selection(scans=frozenset([job.scan]), average="dumps")
    spectra = spectra_of_store(open_l1(context.l1(job)), selection)
    write_class(folder / f"scan_{job.scan:06d}.30m", spectra, overwrite=True)
    return []
