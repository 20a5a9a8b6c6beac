"""The tasks of the pipe: which function does each.

A task is an ordinary function of a job and its context, over the same steps as offline. It does its work so
that doing it again changes nothing, and returns the tasks that come next.
"""

from __future__ import annotations

from collections.abc import Callable

from gpucal.online.queue.events import Job
from gpucal.online.site.context import Context
from gpucal.online.tasks.calibration import calibration
from gpucal.online.tasks.class_export import class_export
from gpucal.online.tasks.obs_procedure import obs_procedure
from gpucal.online.tasks.plot import plot
from gpucal.online.tasks.plot_raw import plot_raw
from gpucal.online.tasks.raw_fits import fits_bolometer, fits_heterodyne

Task = Callable[[Job, Context], list[str]]

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
