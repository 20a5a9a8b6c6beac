"""Nights to calibrate on a card and on its host, and the comparison of what they wrote."""

from __future__ import annotations

import math
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr

from bench import harness
from bench.bench_io import SHARED_MEMORY
from gpucal import CalibrationConfig, calibrate_store, load_config, simulate_night
from gpucal.backend.cpu import usable_cores
from gpucal.backend.protocol import Backend
from gpucal.pipeline.store.report import SilentObserver
from gpucal.simulate.presets import preset

NIGHTS = {
    "toy": {"upgreat": (64, 4, 2, 2), "chai": (32, 3, 2, 1)},
    "full": {"upgreat": (16384, 20, 6, 3), "chai": (16384, 16, 4, 1)},
}
"""Channels, dumps, ON subscans, scans; upgreat 2 x 7 pixels, chai 2 bands of 64."""

PIXELS = {"upgreat": 14, "chai": 128}


def has_io() -> bool:
    """Whether this version can read and write on the device."""
    return "io" in CalibrationConfig.model_fields


class Notes(SilentObserver):
    """An observer that keeps the messages of a run."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def message(self, level: Literal["info", "warning", "error"], text: str) -> None:
        """See ``gpucal.pipeline.store.report.Observer``."""
        self.said.append(f"{level}: {text}")


@dataclass
class Night:
    """One simulated L0 store and the options it is calibrated with."""

    folder: Path
    codec: str

    def simulate(self, name: str, size: str, scans: int, n_on: int) -> None:
        """Write the L0 store and the table of its atmosphere."""
        channels, dumps, _, _ = NIGHTS[size][name]
        setup = preset(name, channels=channels, dumps=dumps, n_on=n_on)
        simulate_night(
            self.folder / "l0", setup, scans, codec=self.codec, table_out=self.folder / "table.npz"
        )

    def config(self, io: str) -> CalibrationConfig:
        """The options of one run."""
        table = str(self.folder / "table.npz")
        choice = {"io": "host" if io == "cpu" else io} if has_io() else {}
        return load_config(None, codec=self.codec, atmosphere=table, **choice)

    def calibrate(
        self, backend: Backend, out: str, io: str
    ) -> tuple[float, dict[str, float], list[str]]:
        """Calibrate into ``out``; returns the wall time, milliseconds of each stage, and messages."""
        target = self.folder / out
        shutil.rmtree(target, ignore_errors=True)
        notes = Notes()
        reports: list[Any] = []
        wall = harness.seconds(
            lambda: reports.append(
                calibrate_store(
                    self.folder / "l0", target, self.config(io), backend=backend, observer=notes
                )
            )
        )
        if reports[0].failures:
            raise RuntimeError(reports[0].failures[0].sentence)
        stages: dict[str, float] = {}
        for summary in reports[0].summaries:
            for stage, spent in summary.timing.items():
                stages[stage] = stages.get(stage, 0.0) + spent
        return wall, stages, notes.said


def pairs(one: Path, other: Path, name: str) -> list[tuple[Any, Any, int]]:
    """All arrays called ``name`` in two stores, with each subscan. Raises ValueError when they do not match."""
    stores = [zarr.open_group(path, mode="r") for path in (one, other)]
    found: list[dict[str, Any]] = [
        {key: array for key, array in store.members(max_depth=None) if key.endswith(f"/{name}")}
        for store in stores
    ]
    if not found[0] or found[0].keys() != found[1].keys():
        raise ValueError(f"the stores hold {sorted(found[0])} and {sorted(found[1])}.")
    listed = []
    for key in sorted(found[0]):
        first, second = (arrays[key] for arrays in found)
        if first.shape != second.shape:
            raise ValueError(f"{key} has shapes {first.shape} and {second.shape}.")
        listed += [(first, second, s) for s in range(first.shape[-1])]
    return listed


def difference(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """Largest |a - b| over max(|b|, rms of b); infinite when one is NaN where the other is not."""
    seen = np.isfinite(b)
    if not np.array_equal(np.isfinite(a), seen):
        return float("inf")
    if not seen.any():
        return 0.0
    values = b[seen]
    scale = np.maximum(np.abs(values), np.sqrt(np.mean(values * values)))
    return float(np.max(np.abs(a[seen] - values) / np.maximum(scale, np.finfo(float).tiny)))


def compare(one: Path, other: Path) -> tuple[float, int]:
    """The largest difference of the spectra, and the number of flags that differ; on all cores."""

    def spectra(task: tuple[Any, Any, int]) -> float:
        first, second, s = task
        return difference(np.asarray(first[..., s]), np.asarray(second[..., s]))

    def flags(task: tuple[Any, Any, int]) -> int:
        first, second, s = task
        return int((np.asarray(first[..., s]) != np.asarray(second[..., s])).sum())

    with ThreadPoolExecutor(usable_cores()) as pool:
        largest = max(pool.map(spectra, pairs(one, other, "spectra")))
        return largest, sum(pool.map(flags, pairs(one, other, "flags")))


def samples_in(store: Path) -> int:
    """Samples of the spectra in a store."""
    return sum(math.prod(first.shape[:-1]) for first, _, _ in pairs(store, store, "spectra"))


class NoRoom(Exception):
    """Raised when there is no room for a single scan."""


def samples_per_on(name: str, size: str) -> int:
    """Samples of one ON subscan."""
    channels, dumps, _, _ = NIGHTS[size][name]
    return channels * dumps * PIXELS[name]


def scans_with_room(
    name: str, size: str, folder: Path | None, n_on: int | None = None
) -> tuple[int, int]:
    """Scans for which there is room, at most those of ``NIGHTS``, and the bytes that they take.

    n_on: ON subscans of a scan, None: those of ``NIGHTS``.

    Counts, warm-up and two results at once: 40 bytes a sample. Raises NoRoom when not even one fits.
    """
    _, _, usual, scans = NIGHTS[size][name]
    per_scan = samples_per_on(name, size) * (n_on or usual) * 40
    free = max(
        shutil.disk_usage(place).free
        for place in ([folder] if folder else [SHARED_MEMORY, Path(tempfile.gettempdir())])
        if place.is_dir()
    )
    fitting = min(scans, int(0.8 * free) // per_scan)
    if fitting < 1:
        raise NoRoom(f"{per_scan >> 20} MiB are needed for one scan, {free >> 20} MiB are free.")
    return fitting, fitting * per_scan
