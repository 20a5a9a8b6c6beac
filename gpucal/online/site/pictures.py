"""Pictures of a scan: drawn aside, put into its folder together, entered into the index of the project."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gpucal.online.queue.events import Job
from gpucal.online.site.context import Context


@dataclass(frozen=True)
class Picture:
    """One picture of a drawing, by the name of its file. mjd: UTC at the end of what it shows, NaN: not known."""

    name: str
    kind: str
    title: str
    mjd: float


class Drawing:
    """The folder in which pictures are drawn, and those that are to be shown."""

    def __init__(self, aside: Path) -> None:
        self.aside = aside
        self.made: list[Picture] = []

    def path(self, name: str, kind: str, title: str, mjd: float) -> Path:
        """Where to draw a picture called ``name``."""
        self.made.append(Picture(name, kind, title, mjd))
        return self.aside / name

    def add(self, path: Path, kind: str, title: str, mjd: float) -> None:
        """Enter a picture that lies in ``aside`` already."""
        self.made.append(Picture(path.name, kind, title, mjd))


@contextmanager
def pictures_of(job: Job, context: Context) -> Iterator[Drawing]:
    """Draw aside, then rename picture by picture: nobody sees half of one.

    A picture whose name begins with ``job.part`` counts as one of the subscan, others as of the scan.
    """
    folder = context.project(job) / "plots" / f"{job.scan:06d}"
    folder.mkdir(parents=True, exist_ok=True)
    # One name per job and task: what a killed worker has left is swept by the next.
    aside = folder / f".drawing-{context.task}-{job.stem}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        drawing = Drawing(aside)
        yield drawing
        for picture in drawing.made:
            os.replace(drawing.aside / picture.name, folder / picture.name)
            of_subscan = picture.name.startswith(f"{job.part}_")
            place = folder / picture.name
            what = (picture.kind, picture.title)
            context.plotted(job, place, *what, mjd=picture.mjd, of_subscan=of_subscan)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
