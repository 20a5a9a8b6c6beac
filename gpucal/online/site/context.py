"""The context of a task: configuration, results, and where its files go."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpucal.online.queue.events import END, Job
from gpucal.online.site.config import OnlineConfig
from gpucal.online.site.results import Results, append_once

SITE_LOG_TAIL = 1 << 20
"""Bytes of the logs across projects in which a line is looked for: they grow for years."""


@dataclass(frozen=True)
class Context:
    """One task's view of the world. waited: s since a worker saw the job for the first time and it had to wait."""

    config: OnlineConfig
    results: Results
    task: str
    waited: float = 0.0

    def project(self, job: Job) -> Path:
        """Folder of the job's project."""
        return self.config.project(job.project)

    def l1(self, job: Job) -> Path:
        """The store of calibrated spectra of the job's project."""
        return self.project(job) / "l1.zarr"

    def work(self, job: Job) -> Path:
        """This task's working directory for the job's project, made when missing."""
        folder = self.config.work_of(self.task, job.project)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def say(self, job: Job, text: str, level: str = "info") -> None:
        """Tell observer and operator, once."""
        self.results.message(text, level=level, task=self.task, project=job.project, scan=job.scan)

    def log(self, job: Job, name: str, line: str) -> None:
        """Append a line to ``logs/<name>.log`` of the project, and to that of the site with the project, once."""
        append_once(self.project(job) / "logs" / f"{name}.log", line)
        everywhere = self.config.data / "logs" / f"{name}.log"
        append_once(everywhere, f"{job.project}  {line}", tail=SITE_LOG_TAIL)

    def plotted(
        self,
        job: Job,
        path: Path,
        kind: str,
        title: str,
        *,
        mjd: float = math.nan,
        of_subscan: bool = False,
    ) -> None:
        """Add a picture of the job's subscan or scan to the index of its project, once.

        mjd: UTC at the end of what it shows, NaN where that is not known.
        """
        file = path.relative_to(self.project(job)).as_posix()
        row: dict[str, Any] = {
            "project": job.project,
            "scan": job.scan,
            "subscan": job.subscan if of_subscan else END,
            "file": file,
            "kind": kind,
            "title": title,
            "mjd": mjd if math.isfinite(mjd) else None,
        }
        self.results.save("plots", [{**row, "made": os.stat(path).st_mtime}])
        append_once(self.project(job) / "plots" / "index.jsonl", json.dumps(row))
