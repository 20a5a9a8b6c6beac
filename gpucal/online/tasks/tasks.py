"""The tasks of the pipe: ordinary functions of a job, over the same steps as offline.

Each does its work so that doing it again changes nothing, and returns the tasks that come next.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from gpucal.errors import GpucalError, GpucalWarning
from gpucal.io.l0.store import open_l0
from gpucal.online.queue.events import END, Job
from gpucal.online.queue.pipe import Pipe
from gpucal.online.site.context import Context
from gpucal.online.tasks.calibrating import Calibration, Outcome, outcome_path, waiting_scans
from gpucal.online.tasks.looks import Look, counts_look, load_look
from gpucal.online.tasks.procedures import load_product, run_procedure

Task = Callable[[Job, Context], list[str]]


def calibration(job: Job, context: Context) -> list[str]:
    """Looks and L1; see ``calibrating``. A new calibration wakes the scans that waited for one."""
    outcome = Calibration(job, context.config, context.results).run()
    if outcome.loads:
        entry = Pipe(context.config.pipe).task("calibration")
        for waiting in waiting_scans(context.results, job):
            entry.put(waiting)
    following = ["obs_procedure"]
    if outcome.l1:
        following.append("class")
    return following


def obs_procedure(job: Job, context: Context) -> list[str]:
    """Fits, results, logs; see ``procedures``."""
    run_procedure(job, context)
    return ["plot"]


def plot(job: Job, context: Context) -> list[str]:
    """Pictures of the looks, of the fit, and, at the end of a scan, of its spectra."""
    from gpucal.plot.fits import plot_fits

    outcome = Outcome.load(outcome_path(context.config, job))
    product = load_product(context.config, job)
    folder = context.project(job) / "plots" / f"{job.scan:06d}"
    stem = subscan_stem(job)
    with _replacing(folder, context, job) as drawn:
        for i, name in enumerate(outcome.looks):
            look = load_look(outcome_path(context.config, job).parent / name)
            draw_look(
                look, drawn.path(f"{stem}_look{i if i else ''}.png", "look", look_title(look))
            )
        reduced = product.reduced
        if reduced is not None and not isinstance(reduced.result, dict):
            ending = "" if product.final else f" subscan {job.subscan}"
            title = f"scan {job.scan}{ending}   {reduced.procedure}   {reduced.source}".rstrip()
            name = reduced.procedure if product.final else f"{stem}_{reduced.procedure}"
            first = drawn.path(f"{name}.png", reduced.procedure, title)
            for extra in plot_fits(reduced.result, first, title)[1:]:
                drawn.add(extra, reduced.procedure, title)
        if outcome.l1:
            _draw_l1(job, context, drawn)
    return []


def fits_heterodyne(job: Job, context: Context) -> list[str]:
    """Raw counts of a scan that has ended as one FITS file."""
    return _raw_fits(job, context, "plot_heterodyne")


def fits_bolometer(job: Job, context: Context) -> list[str]:
    """The same for a bolometer scan, with the telescope's track merged in."""
    state = "ended" if scan_has_ended(job) else "open"
    row = {"project": job.project, "scan": job.scan, "store": job.store, "state": state}
    context.results.save("scans", [{**row, "obs_class": job.obs_class, "procedure": job.procedure}])
    return _raw_fits(job, context, "plot_bolometer")


def plot_raw(job: Job, context: Context) -> list[str]:
    """Counts of the last subscan of a scan that went to FITS."""
    (scan, *_) = open_l0(job.store).load(job.scan, partial=True)
    group = scan.source or scan.calibration
    if group is None:
        return []
    last = group.shape[4] - 1
    bands = (counts_look(group, [last], scan.band),)
    name = str(scan.attrs.get("source") or "")
    look = Look(job.scan, (last,), "counts", source=name, bands=bands)
    folder = context.project(job) / "plots" / f"{job.scan:06d}"
    with _replacing(folder, context, job) as drawn:
        draw_look(look, drawn.path("raw.png", "raw", look_title(look)))
    return []


def class_export(job: Job, context: Context) -> list[str]:
    """The averaged spectra of a calibrated scan as a CLASS file."""
    from gpucal.export.rows import Selection, spectra_of_store
    from gpucal.io.gildas.writer import write_class
    from gpucal.io.l1.reader import open_l1

    folder = context.project(job) / "class"
    folder.mkdir(parents=True, exist_ok=True)
    selection = Selection(scans=frozenset([job.scan]), average="dumps")
    spectra = spectra_of_store(open_l1(context.project(job) / "l1.zarr"), selection)
    write_class(folder / f"scan_{job.scan:06d}.30m", spectra, overwrite=True)
    return []


TASK_FUNCTIONS: dict[str, Task] = {
    "calibration": calibration,
    "obs_procedure": obs_procedure,
    "plot": plot,
    "class": class_export,
    "fits_heterodyne": fits_heterodyne,
    "plot_heterodyne": plot_raw,
    "fits_bolometer": fits_bolometer,
    "plot_bolometer": plot_raw,
}
"""Task -> what it does."""


def _raw_fits(job: Job, context: Context, following: str) -> list[str]:
    if not scan_has_ended(job):
        return []
    from gpucal.io.raw_fits.writer import write_raw_fits

    folder = context.project(job) / "fits"
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", GpucalWarning)
        write_raw_fits(
            open_l0(job.store), job.scan, folder / f"scan_{job.scan:06d}.fits", overwrite=True
        )
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


def subscan_stem(job: Job) -> str:
    """Beginning of the names of the pictures of one subscan, "s00003"."""
    return job.name.removesuffix(".json").rpartition(".")[2]


class _Drawing:
    """Pictures drawn aside, to be renamed into the folder of their scan together."""

    def __init__(self, aside: Path) -> None:
        self.aside = aside
        self.made: list[tuple[str, str, str]] = []

    def path(self, name: str, kind: str, title: str) -> Path:
        """Where to draw a picture called ``name``."""
        self.made.append((name, kind, title))
        return self.aside / name

    def add(self, path: Path, kind: str, title: str) -> None:
        """Enter a picture that lies in ``aside`` already."""
        self.made.append((path.name, kind, title))


@contextmanager
def _replacing(folder: Path, context: Context, job: Job) -> Iterator[_Drawing]:
    """Draw aside, then rename picture by picture: nobody sees half of one."""
    folder.mkdir(parents=True, exist_ok=True)
    # One name per job and task: what a killed worker has left is swept by the next.
    aside = folder / f".drawing-{context.task}-{job.name.removesuffix('.json')}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        drawing = _Drawing(aside)
        yield drawing
        for name, kind, title in drawing.made:
            os.replace(drawing.aside / name, folder / name)
            of_subscan = name.startswith(f"{subscan_stem(job)}_")
            context.plotted(job, folder / name, kind, title, of_subscan=of_subscan)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _draw_l1(job: Job, context: Context, drawing: _Drawing) -> None:
    """The standard pictures of a calibrated scan."""
    from gpucal.plot import plot_scan

    store = context.project(job) / "l1.zarr"
    try:
        for path in plot_scan(store, drawing.aside, job.scan):
            kind = path.stem.rpartition("_")[2]
            drawing.add(path, kind, f"scan {job.scan} {kind}")
    except GpucalError as error:
        context.say(job, f"a picture could not be drawn: {error}", "warning")


def look_title(look: Look) -> str:
    """Scan, subscans, source, line and what kind of look it is."""
    subscans = ", ".join(str(s) for s in look.subscans[:8]) + (
        "..." if len(look.subscans) > 8 else ""
    )
    modes = "/".join(dict.fromkeys(m for band in look.bands for m in band.modes))
    plural = "s" if len(look.subscans) > 1 else ""
    parts = [f"scan {look.scan} subscan{plural} {subscans}", modes, look.source, look.line]
    return "   ".join(part for part in parts if part)


def draw_look(look: Look, path: Path) -> None:
    """Draw a look with the numbers an observer asks for first."""
    from gpucal.plot.look import LookPanel, plot_look

    panels = []
    for band in look.bands:
        numbers = [("$T_\\mathrm{sys}$", band.t_sys, "K"), ("$T_\\mathrm{rec}$", band.t_rec, "K")]
        notes = [
            f"{name} {np.nanmedian(values):.0f} {unit}"
            for name, values, unit in numbers
            if np.isfinite(values).any()
        ]
        if np.isfinite(band.pwv):
            notes.append(f"PWV {band.pwv:.2f} mm")
        if np.isfinite(band.rms).any():
            notes.append(f"rms {np.nanmedian(band.rms):.3g} K per channel")
        panels.append(
            LookPanel(
                label=band.band,
                unit=band.unit,
                frequency=band.frequency,
                spectrum=band.spectrum,
                continuum=band.continuum,
                lon=band.lon,
                lat=band.lat,
                note="   ".join(notes),
            )
        )
    plot_look(panels, path, look_title(look))
