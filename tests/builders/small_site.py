"""A site small enough for tests: a simulated night, its configuration, and workers without processes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.errors import ZarrUserWarning

from gpucal import CalibrationConfig
from gpucal.online.queue.pipe import TASKS, Pipe
from gpucal.online.site.config import OnlineConfig
from gpucal.online.workers.worker import Worker


def site(folder: Path, table: Path, **changes: Any) -> OnlineConfig:
    """A configuration below ``folder``."""
    calibration = CalibrationConfig(atmosphere=str(table), workers=1)
    values = {
        "data": folder / "data",
        "work": folder / "work",
        "pipe": folder / "pipe",
        "calibration": calibration,
        "poll": 0.2,
        **changes,
    }
    config = OnlineConfig(**values)
    Pipe(config.pipe).create()
    return config


def drain(config: OnlineConfig, tasks: tuple[str, ...] = tuple(TASKS)) -> None:
    """Do all jobs of these tasks here and now, those that they make included."""
    workers = [Worker(task, config) for task in tasks]
    busy = True
    while busy:
        busy = False
        for worker in workers:
            while worker.step():
                busy = True
    for worker in workers:
        worker.results.close()


def arrays_of(store: Path) -> dict[str, Any]:
    """Path -> values of every array of an L1 store."""
    found: dict[str, Any] = {}

    def walk(group: Any, place: str) -> None:
        for name, array in group.arrays():
            found[f"{place}/{name}"] = array[...]
        for name, below in group.groups():
            walk(below, f"{place}/{name}")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ZarrUserWarning)  # failures.json lies in the store too
        walk(zarr.open_group(store, mode="r"), "")
    return found


def assert_same_arrays(store: Path, other: Path) -> None:
    """Both stores hold the same arrays bit for bit."""
    ours, theirs = arrays_of(store), arrays_of(other)
    assert ours.keys() == theirs.keys()
    assert ours
    for name, values in theirs.items():
        assert ours[name].dtype == values.dtype, name
        np.testing.assert_array_equal(ours[name], values, err_msg=name)


def chunk_bytes(store: Path) -> dict[str, bytes]:
    """Relative path -> bytes of every chunk file."""
    return {
        str(p.relative_to(store)): p.read_bytes()
        for p in sorted(store.rglob("*"))
        if p.is_file() and "/c/" in str(p)
    }
