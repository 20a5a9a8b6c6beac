"""The tasks fits_heterodyne and fits_bolometer: raw scans as FITS files, once they have ended."""

from __future__ import annotations

import warnings
from pathlib import Path

from gpucal.errors import EmptyScanError, GpucalError, GpucalWarning, L0Error
from gpucal.io.l0.store import L0Store
from gpucal.online.queue.arrival import (
    BAND_WAIT_S,
    NotThereYetError,
    late_bands,
    require_subscan,
    store_of,
)
from gpucal.online.queue.events import END, Job
from gpucal.online.queue.trigger import has_ended
from gpucal.online.replay.growing import as_far_as_written
from gpucal.online.site.context import Context
from gpucal.online.site.identity import claim_number
from gpucal.online.site.whole_files import write_whole
from gpucal.online.tasks.made_from import metadata_digest

MOST_TIMES = 5
"""A scan that grows while it is written is written again at most so often; each subscan has its own job."""


def fits_heterodyne(job: Job, context: Context) -> list[str]:
    """Raw counts of a scan that has ended as one FITS file."""
    return _raw_fits(job, context, "plot_heterodyne")


def fits_bolometer(job: Job, context: Context) -> list[str]:
    """The same for a bolometer scan, with the telescope's track merged in.

    No calibration notes a bolometer scan: it is entered among the scans here.
    """
    store = store_of(job)
    claim_number(job, context)
    row = {
        "project": job.project,
        "scan": job.scan,
        "store": job.store,
        "obs_class": job.obs_class,
        "procedure": job.procedure,
    }
    if has_ended(job, planned_of(store, job)):
        row["state"] = "ended"
    context.results.save("scans", [row])
    return _raw_fits(job, context, "plot_bolometer")


def _raw_fits(job: Job, context: Context, following: str) -> list[str]:
    """Write the file of a scan that has ended, again when more of it comes; ``following``: the task after it.

    Raises NotThereYetError when what the job announces may still come.
    """
    store = store_of(job)
    if not _is_there(job, store, context):
        return []
    path = context.project(job) / "fits" / f"scan_{job.scan:06d}.fits"
    known = context.results.rows("scans", project=job.project, scan=job.scan, state="ended")
    late = path.exists() or (job.obs_class == "bolometer" and known)
    if not has_ended(job, planned_of(store, job)):
        written = _digest_file(job, context)
        now = metadata_digest(job.store, job.scan)
        if not late or (written.exists() and written.read_text("utf-8") == now):
            return []  # it goes on, or it has ended with this subscan in it
    claim_number(job, context)
    path.parent.mkdir(parents=True, exist_ok=True)
    for text in _written(job, path, context):
        context.say(job, text, "warning")
    return [following]


def _is_there(job: Job, store: L0Store, context: Context) -> bool:
    """Whether there is anything to write: a scan may end before it has begun.

    Raises NotThereYetError when the subscan of the job is not there, or (for a while) not in every band.
    """
    broken: dict[str, GpucalError] = {}
    try:
        bands = store.load(job.scan, partial=True, t_hot_given=True, broken=broken)
    except EmptyScanError as error:
        if job.subscan == END:
            return False
        raise NotThereYetError(error.message, scan=job.scan) from error
    except L0Error:
        return True  # nobody can calibrate it, but it can be kept
    require_subscan(job, bands)
    late = late_bands(job, bands, broken)
    if late and context.waited < min(BAND_WAIT_S, context.config.end_timeout):
        raise NotThereYetError(f"{', '.join(late)} is late.", scan=job.scan)
    return True


def _written(job: Job, path: Path, context: Context) -> list[str]:
    """Write the file until it holds the scan as it is now, which may grow meanwhile; what the writer warns of."""
    from gpucal.io.raw_fits.writer import write_raw_fits

    before = ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", GpucalWarning)
        for _ in range(MOST_TIMES):
            now = metadata_digest(job.store, job.scan)
            if before and now == before:
                break
            before = now
            with as_far_as_written(store_of(job), job.scan, context.work(job)) as store:
                write_raw_fits(store, job.scan, path, overwrite=True)
    write_whole(_digest_file(job, context), before.encode())
    return [str(warning.message) for warning in caught]


def _digest_file(job: Job, context: Context) -> Path:
    """What tells from which metadata the file of a scan was written."""
    return context.work(job) / f"{job.scan_name}digest"


def planned_of(store: L0Store, job: Job) -> int:
    """The number of subscans that the observer asked for; 0 where it is not known."""
    return int(dict(store.scan_group(job.scan).attrs).get("n_subscans_planned") or 0)
