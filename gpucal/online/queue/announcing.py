"""The job that announces a subscan of an L0 store."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpucal.io.l0.schema import is_bolometer
from gpucal.online.queue.events import END, Group, Job


def job_of(
    store: str | Path,
    scan: int,
    subscan: int,
    group: Group,
    attrs: Mapping[str, Any],
    *,
    project: str = "",
    end_of_scan: bool = False,
    cancelled: bool = False,
) -> Job:
    """The job that announces one subscan (or, END, the end) of a scan with the attributes ``attrs``."""
    return Job(
        store=str(Path(store).absolute()),
        scan=scan,
        subscan=subscan,
        project=project or str(attrs.get("project") or "none"),
        group=group,
        obs_class="bolometer" if is_bolometer(attrs) else "heterodyne",
        procedure=str(attrs.get("obs_procedure") or ""),
        setup=str(attrs.get("line") or ""),
        end_of_scan=end_of_scan or subscan == END,
        cancelled=cancelled,
        created=time.time(),
    )
