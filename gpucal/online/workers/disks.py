"""Free space of the file systems that the pipeline writes to."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from gpucal.online.site.config import OnlineConfig
from gpucal.online.workers.status_values import Disk


def disks_of(config: OnlineConfig) -> Iterable[Disk]:
    """The file systems under the three folders, each once."""
    uses: dict[int, list[str]] = {}
    places: dict[int, Path] = {}
    for use in ("data", "work", "pipe"):
        path = Path(getattr(config, use)).absolute()
        while not path.exists() and path != path.parent:
            path = path.parent
        try:
            device = path.stat().st_dev
        except OSError:
            continue
        uses.setdefault(device, []).append(use)
        places[device] = path
    for device, path in places.items():
        try:
            found = shutil.disk_usage(path)
        except OSError:
            continue
        yield Disk(tuple(uses[device]), found.free, found.total)
