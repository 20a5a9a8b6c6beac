"""The tasks plot_heterodyne and plot_bolometer: a picture of raw counts."""

from __future__ import annotations

from gpucal.io.l0.store import open_l0
from gpucal.online.looks.computing import counts_look
from gpucal.online.looks.drawing import draw_look, look_title
from gpucal.online.looks.look import Look
from gpucal.online.queue.events import Job
from gpucal.online.site.context import Context
from gpucal.online.site.pictures import pictures_of


def plot_raw(job: Job, context: Context) -> list[str]:
    """Counts of the last subscan of a scan that went to FITS."""
    (scan, *_) = open_l0(job.store).load(job.scan, partial=True, broken={})
    group = scan.source or scan.calibration
    if group is None:
        return []
    last = group.shape[4] - 1
    bands = (counts_look(group, [last], scan.band),)
    name = str(scan.attrs.get("source") or "")
    look = Look(job.scan, (last,), "counts", source=name, bands=bands)
    with pictures_of(job, context) as drawing:
        draw_look(look, drawing.path("raw.png", "raw", look_title(look), look.mjd))
    return []
