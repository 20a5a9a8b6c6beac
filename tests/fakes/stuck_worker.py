"""Workers that hang for ever: a device worker in certain scans, an online worker in jobs of a store ``stuck``."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

# Run as a script: its own folder is in front of the path, where tests/ should be.
if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from gpucal.online.queue.events import Job
from gpucal.online.site.context import Context
from gpucal.online.tasks.table import TASK_FUNCTIONS
from gpucal.online.workers.worker import worker_main
from gpucal.pipeline.scan.stream import stream_within_memory
from gpucal.pipeline.spread import device_worker
from gpucal.pipeline.store import band_writer


def stuck_in(numbers: set[int]) -> Any:
    def stream(solution: Any, *args: Any, **kwargs: Any) -> Any:
        if solution.scan.number in numbers:
            threading.Event().wait()
        return stream_within_memory(solution, *args, **kwargs)

    return stream


def online_worker(task: str, *args: Any) -> None:
    """As ``worker_main``, in a process of its own."""
    function = TASK_FUNCTIONS[task]

    def stuck(job: Job, context: Context) -> list[str]:
        if "stuck" in job.store:
            threading.Event().wait()
        return function(job, context)

    TASK_FUNCTIONS[task] = stuck
    worker_main(task, *args)


if __name__ == "__main__":
    stuck = stuck_in({int(n) for n in sys.argv[1].split(",")})
    setattr(band_writer, "stream_within_memory", stuck)  # noqa: B010
    device_worker.main()
