"""Each stage of a night alone, with the threads and tiles of the whole.

If all overlap, the wall time of the whole is that of its slowest stage. The counts are read and the spectra
written by the host here (``io = host``), so that each stage can be timed without the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness import seconds
from gpucal import CalibrationConfig, load_table, open_l0
from gpucal.axes import FLAG_DTYPE
from gpucal.backend.cpu import usable_cores
from gpucal.backend.lanes import Lane
from gpucal.backend.protocol import Backend
from gpucal.io.l1.writer import L1Store
from gpucal.pipeline.scan.load_library import LoadLibrary
from gpucal.pipeline.scan.solve import solve_scan
from gpucal.pipeline.scan.work_units import (
    Unit,
    channels_around,
    l1_blocks,
    plan_units,
)
from gpucal.pipeline.store.l1_arrays import L1Sink
from gpucal.pipeline.store.selection import select_scans
from gpucal.steps.judge.outliers import find_outliers
from gpucal.steps.quality import tile_mean, tile_statistics
from gpucal.steps.solution import ScanSolution
from gpucal.steps.tile import calibrate_tile

Array = Any

Work = Callable[[Lane, "Tiles", Unit], None]

STAGES = ("solve", "read", "upload", "compute", "download", "write")
"""Loads, OFF means and PWV; read and decode; copies; calibrate and statistics; encode and write."""


@dataclass(frozen=True)
class Tiles:
    """One scan and band that is solved, and the tiles it is cut into."""

    solution: ScanSolution
    units: list[Unit]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The largest tile of spectra, [c,D,R,A]."""
        first = l1_blocks(self.solution)[0]
        return (first[1] - first[0], *self.solution.output_shape[1:4])

    def windows(self, unit: Unit) -> Iterator[tuple[int, int, int, int]]:
        """(key, c0, c1, subscan) of the raw counts of a unit, each chunk once."""
        counts, recipes = self.solution.group.counts, self.solution.pairing.recipes
        subscans = dict.fromkeys(s for j in unit.outputs for s in recipes[j].subscans())
        step, last = counts.chunks[0], counts.shape[0]
        done = unit.blocks[0][0] // step * step
        for _, stop in unit.blocks:
            end = min(-(-stop // step) * step, last)
            if end > done:
                yield from ((key, done, end, s) for key, s in enumerate(subscans))
                done = end

    def counts_shape(self, channels: int) -> tuple[int, int, int, int]:
        """Raw counts of so many channels, [c,D,R,A]."""
        _, d, r, a, _ = self.solution.group.counts.shape
        return (channels, d, r, a)


class StageRun:
    """The scans of one L0 store on one backend."""

    def __init__(self, l0: Path, config: CalibrationConfig, backend: Backend, out: Path) -> None:
        self._l0, self._config, self._backend = l0, config, backend
        self._out = out
        self._workers = config.workers or usable_cores()
        self._filled: set[int] = set()

    def seconds(self) -> dict[str, float]:
        """Seconds of each of ``STAGES`` alone, after one run of each that warms up."""
        with ThreadPoolExecutor(self._workers) as pool:
            solved: list[Tiles] = []
            self._solve(pool, solved)
            again: list[Tiles] = []
            found = {"solve": seconds(lambda: self._solve(pool, again))}
            for stage in STAGES[1:]:
                found[stage] = sum(self._alone(stage, tiles, pool) for tiles in solved)
        return found

    def _solve(self, pool: ThreadPoolExecutor, solved: list[Tiles]) -> None:
        """Solve every scan, and plan its units with the memory that one worker may use."""
        l0 = open_l0(self._l0)
        library = LoadLibrary(l0, self._config, self._backend)
        table = load_table(self._config.atmosphere)
        for number in select_scans(l0, self._config).numbers:
            for scan in library.scan(number):
                if scan.source is None:
                    continue
                choice = library.choose(scan, pool)
                solution = solve_scan(scan, choice, table, self._config, self._backend, pool=pool)
                budget = (self._config.ring << 20) // self._workers
                solved.append(Tiles(solution, plan_units(solution, budget)))

    def _alone(self, stage: str, tiles: Tiles, pool: ThreadPoolExecutor) -> float:
        """One stage of one scan; memory is prepared by a first run."""
        lanes = self._backend.lanes(self._workers)
        self._filled.clear()
        store = L1Store(self._out, codec=self._config.codec, dtype=self._config.dtype)
        times = []
        for _ in range(2):
            writer = store.begin(tiles.solution.scan.number)
            writer.group(tiles.solution.scan.band)
            work = self._stage(stage, tiles, L1Sink(writer, tiles.solution))

            def task(unit: Unit, work: Work = work) -> None:
                with lanes.take() as lane:
                    work(lane, tiles, unit)

            try:
                times.append(seconds(partial(_finish, pool, task, tiles.units)))
            finally:
                writer.abort()
        lanes.close()
        return times[-1]

    def _stage(self, stage: str, tiles: Tiles, sink: L1Sink) -> Work:
        """The function of one stage for one scan."""
        if stage == "write":
            noise = noise_like_spectra(tiles.shape).astype(self._dtype, copy=False)
            flags = np.zeros(tiles.shape, dtype=FLAG_DTYPE)
            return partial(_write, sink, noise, flags)
        work: dict[str, Work] = {
            "read": self._read,
            "upload": self._upload,
            "compute": self._compute,
            "download": self._download,
        }
        return work[stage]

    def _read(self, lane: Lane, tiles: Tiles, unit: Unit) -> None:
        """The read stage: decode the counts of a unit into staging memory."""
        counts = tiles.solution.group.counts
        for key, c0, c1, subscan in tiles.windows(unit):
            out = lane.staging(key, tiles.counts_shape(c1 - c0), counts.dtype)
            counts.read(c0, c1, subscan, out=out)

    def _upload(self, lane: Lane, tiles: Tiles, unit: Unit) -> None:
        dtype = tiles.solution.group.counts.dtype
        for key, c0, c1, _ in tiles.windows(unit):
            lane.upload(key, lane.staging(key, tiles.counts_shape(c1 - c0), dtype))
        # What comes last waits for all before it.
        lane.download(lane.output(2, (1,), FLAG_DTYPE))

    def _compute(self, lane: Lane, tiles: Tiles, unit: Unit) -> None:
        """The compute stage, on counts that stay on the device; the last download waits for the kernels."""
        solution = tiles.solution
        wide = min(tiles.shape[0] + channels_around(solution), solution.group.counts.shape[0])
        shape = tiles.counts_shape(wide)
        resident = lane.output(3, shape, solution.group.counts.dtype)
        if id(lane) not in self._filled:
            resident[...] = 30000
            self._filled.add(id(lane))
        for channels in unit.blocks:
            for output in unit.outputs:
                spectra, flags = self._outputs(lane, tiles, channels)
                n_own, scale = calibrate_tile(
                    *(solution, output, channels, lambda c0, c1, _: resident[: c1 - c0, ...]),
                    *(spectra, flags),
                )
                averaged = tile_mean(solution.backend, spectra, n_own)
                find_outliers(solution, output, scale, averaged.mean, spectra)
                tile_statistics(solution, output, scale, averaged, flags, n_own)
        lane.download(lane.output(2, (1,), FLAG_DTYPE))

    def _download(self, lane: Lane, tiles: Tiles, unit: Unit) -> None:
        """The download stage: the outputs of a unit, whatever they hold."""
        for channels in unit.blocks:
            for _ in unit.outputs:
                lane.download(*self._outputs(lane, tiles, channels))

    def _outputs(self, lane: Lane, tiles: Tiles, channels: tuple[int, int]) -> tuple[Array, Array]:
        shape = (channels[1] - channels[0], *tiles.shape[1:])
        return lane.output(0, shape, self._dtype), lane.output(1, shape, FLAG_DTYPE)

    @property
    def _dtype(self) -> Any:
        return np.dtype(np.float64 if self._config.dtype == "f64" else np.float32)


def _write(sink: L1Sink, noise: Any, flags: Any, lane: Lane, tiles: Tiles, unit: Unit) -> None:
    """The write stage: every tile of a unit is encoded and written; the values are prepared noise."""
    for channels in unit.blocks:
        n = channels[1] - channels[0]
        for output in unit.outputs:
            sink.write_tile(output, channels, noise[:n], flags[:n], 0)


def _finish(pool: ThreadPoolExecutor, task: Callable[[Unit], None], units: list[Unit]) -> None:
    """All units on the pool; raises the first error."""
    for _ in pool.map(task, units):
        pass


_NOISE: dict[tuple[int, ...], Any] = {}


def noise_like_spectra(shape: tuple[int, ...]) -> Any:
    """Radiometer noise around 0 K, of counts that are integers: it compresses as real spectra do."""
    if shape not in _NOISE:
        rng = np.random.default_rng(0)
        counts = rng.normal(0.0, 600.0, shape).round()
        _NOISE[shape] = counts * rng.normal(3e-4, 1e-6, (shape[0], 1, *shape[2:]))
    return _NOISE[shape]


def shares(alone: dict[str, float]) -> dict[str, float]:
    """Share of each stage in the sum of all."""
    total = sum(alone.values())
    return {stage: spent / total for stage, spent in alone.items()}
