"""Time of each stage of a calibration, from clocks around the functions that do the work."""

from __future__ import annotations

import functools
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import cpu_fallback
from gpucal.io.chunks import array_writer, codecs
from gpucal.io.chunks import layout as chunk_files
from gpucal.io.files import atomic
from gpucal.pipeline.scan import tiles
from gpucal.pipeline.store import l1_arrays as l1_layout
from gpucal.pipeline.store import solver as solved

STAGES: dict[str, tuple[Any, str]] = {
    "decode": (chunk_files.ChunkFiles, "decode"),
    "kernel": (cpu_fallback.NumpyKernels, "calibrate"),
    "mean": (tiles, "tile_mean"),
    "outliers": (tiles, "find_outliers"),
    "statistics": (tiles, "tile_statistics"),
    "round": (tiles, "round_tile"),
    "encode": (codecs.ChunkEncoder, "payload"),
    "store": (array_writer, "_write_chunk_file"),
    "sync": (atomic, "sync_tree"),
    "solve": (solved, "solve_scan"),
    "small arrays": (l1_layout, "small_arrays"),
}
"""Stage -> the function that does it and nothing of another stage (in its own thread)."""


class StageClock:
    """While entered, adds up wall and processor time of the stages over all threads."""

    def __init__(self, stages: Sequence[str] = tuple(STAGES)) -> None:
        self.wall: defaultdict[str, float] = defaultdict(float)
        self.cpu: defaultdict[str, float] = defaultdict(float)
        self._stages = stages
        self._lock = threading.Lock()
        self._originals: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> StageClock:
        for stage in self._stages:
            owner, name = STAGES[stage]
            original = getattr(owner, name)
            self._originals.append((owner, name, original))
            setattr(owner, name, self._timed(stage, original))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self._originals:
            setattr(*self._originals.pop())

    def _timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function`` with its wall and processor time added to a stage."""

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            wall, cpu = time.perf_counter(), time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
                with self._lock:
                    self.wall[stage] += wall
                    self.cpu[stage] += cpu

        return timed

    def shares(self, total: float) -> dict[str, float]:
        """Share of each stage in ``total`` seconds of processor time, and the rest as other."""
        found = {stage: self.cpu[stage] / total for stage in self._stages}
        return {**found, "other": 1.0 - sum(found.values())}
