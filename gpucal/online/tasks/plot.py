"""The plot task: pictures of the looks, the fits and the calibrated scans."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gpucal.errors import GpucalError
from gpucal.io.l1.reader import open_l1
from gpucal.online.looks.drawing import draw_look, look_title
from gpucal.online.looks.look import load_look
from gpucal.online.queue.events import Job
from gpucal.online.site.context import Context
from gpucal.online.site.pictures import Drawing, pictures_of
from gpucal.online.tasks.outcome import Outcome, Product, load_product, outcome_path


def plot(job: Job, context: Context) -> list[str]:
    """Pictures of the looks, of the fit, and, at the end of a scan, of its spectra."""
    outcome = Outcome.load(outcome_path(context.config, job))
    product = load_product(context.config, job)
    with pictures_of(job, context) as drawing:
        _draw_looks(job, context, outcome, drawing)
        _draw_fit(job, product, drawing)
        if outcome.l1:
            _draw_l1(job, context, drawing)
    return []


def _draw_looks(job: Job, context: Context, outcome: Outcome, drawing: Drawing) -> None:
    """Draw the looks that the calibration task left beside its outcome."""
    folder = outcome_path(context.config, job).parent
    for i, name in enumerate(outcome.looks):
        look = load_look(folder / name)
        picture = f"{job.part}_look{i if i else ''}.png"
        draw_look(look, drawing.path(picture, "look", look_title(look), look.mjd))


def _draw_fit(job: Job, product: Product, drawing: Drawing) -> None:
    """The fits of a pointing, focus or skydip; averages of switched observations are drawn from L1."""
    from gpucal.plot.fits import plot_fits

    reduced = product.reduced
    if reduced is None or isinstance(reduced.result, dict):
        return
    ending = "" if product.final else f" subscan {job.subscan}"
    title = f"scan {job.scan}{ending}   {reduced.procedure}   {reduced.source}".rstrip()
    name = reduced.procedure if product.final else f"{job.part}_{reduced.procedure}"
    # of an array with many pixels there are several, none of which has the name asked for
    for path in plot_fits(reduced.result, drawing.aside / f"{name}.png", title):
        drawing.add(path, reduced.procedure, title, reduced.mjd)


def _draw_l1(job: Job, context: Context, drawing: Drawing) -> None:
    """The standard pictures of a calibrated scan."""
    from gpucal.plot import plot_scan

    try:
        end = _end_of(context.l1(job), job.scan)
        for path in plot_scan(context.l1(job), drawing.aside, job.scan):
            kind = path.stem.rpartition("_")[2]
            drawing.add(path, kind, f"scan {job.scan} {kind}", end)
    except GpucalError as error:
        context.say(job, f"a picture could not be drawn: {error}", "warning")


def _end_of(store: Path, number: int) -> float:
    """UTC, as MJD, of the last dump of a calibrated scan; NaN where no time is known."""
    scan = open_l1(store).scan(number)
    parts = [scan.band_scan(band) for band in scan.bands] or [scan]
    times = np.concatenate([np.asarray(part["mjd"][...]).ravel() for part in parts])
    known = times[np.isfinite(times)]
    return float(known.max()) if known.size else float("nan")
