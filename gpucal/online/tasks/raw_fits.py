"""The tasks fits_heterodyne and fits_bolometer: raw scans as FITS files, once they have ended."""

from __future__ import annotations

import warnings

from gpucal.errors import GpucalWarning
from gpucal.io.l0.store import open_l0
from gpucal.online.queue.events import END, Job
from gpucal.online.site.context import Context
from gpucal.online.site.identity import claim_number


def fits_heterodyne(job: Job, context: Context) -> list[str]:
    """Raw counts of a scan that has ended as one FITS file."""
    return _raw_fits(job, context, "plot_heterodyne")


def fits_bolometer(job: Job, context: Context) -> list[str]:
    """The same for a bolometer scan, with the telescope's track merged in.

    No calibration notes a bolometer scan: it is entered among the scans here.
    """
    claim_number(job, context)
    row = {
        "project": job.project,
        "scan": job.scan,
        "store": job.store,
        "state": "ended" if scan_has_ended(job) else "open",
        "obs_class": job.obs_class,
        "procedure": job.procedure,
    }
    context.results.save("scans", [row])
    return _raw_fits(job, context, "plot_bolometer")


def _raw_fits(job: Job, context: Context, following: str) -> list[str]:
    """Write the file and pass on the writer's warnings; ``following``: the task after it."""
    if not scan_has_ended(job):
        return []
    claim_number(job, context)
    from gpucal.io.raw_fits.writer import write_raw_fits

    folder = context.project(job) / "fits"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"scan_{job.scan:06d}.fits"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", GpucalWarning)
        write_raw_fits(open_l0(job.store), job.scan, path, overwrite=True)
    for warning in caught:
        context.say(job, str(warning.message), "warning")
    return [following]


def scan_has_ended(job: Job) -> bool:
    """Whether this job is the last of its scan, as far as job and store tell."""
    if job.subscan == END or job.end_of_scan or job.cancelled:
        return True
    attrs = dict(open_l0(job.store).scan_group(job.scan).attrs)
    planned = int(attrs.get("n_subscans_planned") or 0)
    return job.group == "source" and 0 < planned <= job.subscan + 1
