"""The pipe: a directory per task, a small file per job, claimed and handed on by rename.

Nothing here is ever in two states: a rename either has happened or has not, whoever dies when. Renames
need no disk space, so a full disk stops the work but loses none of it.
"""

from __future__ import annotations

from pathlib import Path

from gpucal.errors import OnlineError
from gpucal.online.queue.events import Job
from gpucal.online.queue.job_files import ACTIVE, FAILED, INCOMING
from gpucal.online.queue.task_directory import TaskDirectory, TaskStatus

TASKS = {
    "calibration": "raw/calibration",
    "obs_procedure": "raw/calibration/obs_procedure",
    "plot": "raw/calibration/obs_procedure/plot",
    "class": "raw/calibration/class",
    "fits_heterodyne": "raw/fits_heterodyne",
    "plot_heterodyne": "raw/fits_heterodyne/plot",
    "fits_bolometer": "raw/fits_bolometer",
    "plot_bolometer": "raw/fits_bolometer/plot",
}
"""Task -> its directory below the root of the pipe."""

TASK_NAMES = {
    "calibration": "Calibration",
    "obs_procedure": "Fits and results",
    "plot": "Pictures",
    "class": "CLASS files",
    "fits_heterodyne": "Raw FITS, spectra",
    "plot_heterodyne": "Pictures of raw spectra",
    "fits_bolometer": "Raw FITS, bolometers",
    "plot_bolometer": "Pictures of raw bolometers",
}
"""Task -> what it makes, in plain words."""

ENTRY_TASKS = {
    "heterodyne": ("calibration", "fits_heterodyne"),
    "bolometer": ("fits_bolometer",),
}
"""Class of observation -> the tasks that asked to be told of new data."""


class Pipe:
    """All task directories below ``root``."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def create(self) -> None:
        """Make the directories. Raises OnlineError when the place cannot be written."""
        try:
            for path in TASKS.values():
                for below in ("", ACTIVE, FAILED, INCOMING):
                    (self.root / path / below).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OnlineError(f"the pipe {self.root} cannot be made: {error.strerror}.") from error

    def task(self, name: str, worker: str = "") -> TaskDirectory:
        """The directory of one task. Raises OnlineError for an unknown name."""
        if name not in TASKS:
            raise OnlineError(f"there is no task {name!r}.", hint=f"Tasks: {', '.join(TASKS)}.")
        return TaskDirectory(self.root / TASKS[name], name, worker)

    def submit(self, job: Job) -> None:
        """Put a job into every first task for its class of observation."""
        for name in ENTRY_TASKS[job.obs_class]:
            self.task(name).put(job)

    def status(self) -> list[TaskStatus]:
        """The state of all tasks."""
        return [self.task(name).status() for name in TASKS]
