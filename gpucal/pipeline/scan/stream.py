"""Stream a scan through memory: read, calibrate and hand on one tile after another.

Each worker takes one tile through decoding, calibration and the sink (encode, store) while it is in
cache. A bounded number of tiles is in flight, so memory does not grow with the scan.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from gpucal.axes import FLAG_DTYPE
from gpucal.backend.lanes import Lane, Lanes
from gpucal.steps.quality import QualitySums, TileStatistics, tile_statistics
from gpucal.steps.scale import scale_of_output
from gpucal.steps.solution import ScanSolution
from gpucal.steps.tile import calibrate_tile

Array = Any
Host = npt.NDArray[Any]

L1_CHUNK_BYTES = 16 << 20
"""Upper bound of one chunk of spectra, as f64; fixed, so that L1 depends on the shape alone."""

T_SYS_CHUNK_BYTES = 16 << 20


class Cancelled(Exception):
    """The user interrupted the work."""


class TileSink(Protocol):
    """Takes calibrated tiles, from several threads at once; arrays are reused after the call."""

    def write_tile(
        self, output: int, channels: tuple[int, int], spectra: Host, flags: Host, n_fill: int
    ) -> None:
        """On the host: spectra [c,D,R,A] K and flags u16 [c,D,R,A] of channels c0..c1 of one output."""

    def write_t_sys(self, output: int, channels: tuple[int, int], t_sys: Array) -> None:
        """T_sys f64 [c,R,A] K of channels c0..c1 of one output."""


@runtime_checkable
class EncodedSink(Protocol):
    """A ``TileSink`` that also takes tiles where they were made, and has them encoded there."""

    def write_on_device(
        self,
        lane: Lane,
        output: int,
        channels: tuple[int, int],
        spectra: Array,
        flags: Array,
        n_fill: int,
    ) -> None:
        """As ``TileSink.write_tile`` with arrays of the backend, written by ``lane``."""


@dataclass(frozen=True)
class Unit:
    """What one worker takes at a time: blocks of channels of outputs that share raw chunks."""

    outputs: tuple[int, ...]
    blocks: tuple[tuple[int, int], ...]


def block_channels(n_channels: int, per_channel: int) -> int:
    """Channels in a chunk of L1: a power of two below L1_CHUNK_BYTES, or all.

    ``per_channel``: bytes of one channel of one subscan, as f64.
    """
    most = max(1, L1_CHUNK_BYTES // max(1, per_channel))
    return n_channels if most >= n_channels else 1 << int(math.log2(most))


def l1_blocks(solution: ScanSolution) -> list[tuple[int, int]]:
    """The channel blocks of the spectra of this scan."""
    c, d, r, a, _ = solution.output_shape
    return cut(c, block_channels(c, d * r * a * 8))


def cut(n: int, step: int) -> list[tuple[int, int]]:
    """0..n in steps."""
    return [(i, min(i + step, n)) for i in range(0, n, step)]


def t_sys_blocks(solution: ScanSolution) -> list[tuple[int, int]]:
    """The channel blocks of ``t_sys`` of this scan."""
    c, _, r, a, _ = solution.output_shape
    step = max(1, T_SYS_CHUNK_BYTES // (r * a * 8))
    return cut(c, c if step >= c else 1 << int(math.log2(step)))


def channels_around(solution: ScanSolution) -> int:
    """Channels on both sides of a block that are needed for it: only folding needs any."""
    return max(sum(recipe.channels_around()) for recipe in solution.pairing.recipes)


def unit_bytes(solution: ScanSolution, outputs: Sequence[int]) -> int:
    """Memory that a unit takes: windows of raw counts, spectra, flags and their encoded form."""
    counts = solution.group.counts
    _, d, r, a, _ = counts.shape
    step = l1_blocks(solution)[0][1]
    window = min(counts.shape[0], step + counts.chunks[0] + channels_around(solution))
    subscans = {s for j in outputs for s in solution.pairing.recipes[j].subscans()}
    samples = d * r * a
    return samples * (len(subscans) * window * counts.dtype.itemsize + 2 * step * (8 + 2))


def plan_units(solution: ScanSolution, budget: int) -> list[Unit]:
    """Cut the work so that a raw chunk is decoded by one worker, within ``budget`` bytes each.

    Neighbouring outputs whose ON lie in one raw chunk go together as far as the budget allows; so do as
    many blocks of channels as cover whole raw chunks, and all of them where blocks overlap (folding). For
    each block the outputs come in ascending order, however they are cut.
    """
    chunks = solution.group.counts.chunks
    groups: list[tuple[tuple[int, ...], list[int]]] = []
    for j, recipe in enumerate(solution.pairing.recipes):
        key = tuple(s // chunks[4] for s in recipe.subscans())
        if groups and groups[-1][0] == key and unit_bytes(solution, [*groups[-1][1], j]) <= budget:
            groups[-1][1].append(j)
        else:
            groups.append((key, [j]))
    blocks = l1_blocks(solution)
    step = blocks[0][1]
    together = math.lcm(chunks[0], step) // step
    if channels_around(solution):
        together = len(blocks)
    return [
        Unit(tuple(outputs), tuple(blocks[i : i + together]))
        for _, outputs in groups
        for i in range(0, len(blocks), together)
    ]


class TileReader:
    """Raw counts of one unit: a window per subscan that moves up and decodes each chunk once."""

    def __init__(self, solution: ScanSolution, lane: Lane) -> None:
        self._counts = solution.group.counts
        self._xp = solution.backend.xp
        self._lane = lane
        self._windows: dict[int, tuple[int, Array]] = {}
        self._reads: dict[int, int] = {}

    def __call__(self, c0: int, c1: int, subscan: int) -> Array:
        """Counts [c1-c0, D, R, A]; requests come with ascending c0."""
        start, held = self._windows.get(subscan, (c0, None))
        stop = start if held is None else start + held.shape[0]
        if held is None or not start <= c0 <= stop:
            start, stop, held = c0, c0, None
        if c1 > stop:
            step = self._counts.chunks[0]
            end = min(-(-c1 // step) * step, self._counts.shape[0])
            new = self._read(stop, end, subscan)
            if held is not None and c0 < stop:
                new = self._xp.concat([held[c0 - start :, ...], new], axis=0)
                start = c0
            else:
                start = stop
            held = new
            self._windows[subscan] = (start, held)
        return held[c0 - start : c1 - start, ...]

    def _read(self, c0: int, c1: int, subscan: int) -> Array:
        """Decode into the lane's memory; two pieces by turns, as the old window is still needed."""
        n = self._reads[subscan] = self._reads.get(subscan, -1) + 1
        place = list(self._reads).index(subscan)
        key = 2 * place + n % 2
        return self._lane.read(key, self._counts, c0, c1, subscan)


TileResults = list[tuple[tuple[int, int], TileStatistics]]


class _TileWork:
    """What one worker does with a unit; shared by all workers of a scan."""

    def __init__(
        self,
        solution: ScanSolution,
        sink: TileSink,
        lanes: Lanes,
        stop: threading.Event,
        progress: Callable[[int], None] | None,
    ) -> None:
        self._solution = solution
        self._sink = sink
        self._lanes = lanes
        self._stop = stop
        self._progress = progress
        self._dtype = np.dtype(np.float64 if solution.config.dtype == "f64" else np.float32)

    def tasks(self, units: Sequence[Unit]) -> Iterator[Callable[[], TileResults]]:
        """All the work of a scan, in the order in which its results are added up."""
        for unit in units:
            yield partial(self._unit, unit)
        for output in range(self._solution.output_shape[4]):
            yield partial(self._t_sys, output)

    def _unit(self, unit: Unit) -> TileResults:
        with self._lanes.take() as lane:
            read = TileReader(self._solution, lane)
            return [
                (channels, self._tile(lane, read, output, channels))
                for channels in unit.blocks
                for output in unit.outputs
            ]

    def _tile(
        self, lane: Lane, read: TileReader, output: int, channels: tuple[int, int]
    ) -> TileStatistics:
        if self._stop.is_set():
            raise Cancelled
        solution = self._solution
        shape = (channels[1] - channels[0], *solution.output_shape[1:4])
        spectra, flags = lane.output(0, shape, self._dtype), lane.output(1, shape, FLAG_DTYPE)
        n_fill, scale = calibrate_tile(solution, output, channels, read, spectra, flags)
        tile = tile_statistics(solution, output, scale, spectra, flags, n_fill)
        if lane.encodes and isinstance(self._sink, EncodedSink):
            self._sink.write_on_device(lane, output, channels, spectra, flags, n_fill)
        else:
            spectra_here, flags_here = lane.download(spectra, flags)
            self._sink.write_tile(output, channels, spectra_here, flags_here, n_fill)
        if self._progress is not None:
            self._progress(math.prod(shape) * solution.group.counts.dtype.itemsize)
        return tile

    def _t_sys(self, output: int) -> TileResults:
        for c0, c1 in t_sys_blocks(self._solution):
            scale = scale_of_output(self._solution, output, c0, c1)
            self._sink.write_t_sys(output, (c0, c1), scale.t_sys)
        return []


def stream_scan(
    solution: ScanSolution,
    sink: TileSink,
    *,
    pool: Executor,
    workers: int,
    ring_bytes: int,
    cancel: threading.Event | None = None,
    progress: Callable[[int], None] | None = None,
) -> QualitySums:
    """Calibrate every tile of a scan and hand it to ``sink``; returns the quality sums.

    At most ``workers`` units run at once, fewer where their raw windows, spectra and flags would
    take more than ``ring_bytes`` together; one always runs. Raises Cancelled when ``cancel`` is set,
    and the first error of a worker.
    """
    stop = cancel or threading.Event()
    units = plan_units(solution, ring_bytes // workers)
    largest = max(unit_bytes(solution, unit.outputs) for unit in units)
    most = max(1, min(workers + 1, ring_bytes // largest))
    work = _TileWork(solution, sink, solution.backend.lanes(workers), stop, progress)
    c, _, r, a, _ = solution.output_shape
    sums = QualitySums(c, r, a)
    # Closing waits for the running tiles: nothing may write once this function is left.
    with closing(in_order(work.tasks(units), pool, most, stop)) as finished:
        try:
            for results in finished:
                for channels, tile in results:
                    sums.add(channels, tile)
        except KeyboardInterrupt:
            stop.set()
            raise
    return sums


def in_order(
    tasks: Iterable[Callable[[], Any]], pool: Executor, most: int, stop: threading.Event
) -> Generator[Any, None, None]:
    """Run tasks on the pool, at most ``most`` at once, and yield their results in order.

    The order makes sums of floats independent of the number of workers. On an error the running
    tasks are waited for, then it is raised.
    """
    waiting: dict[int, Future[Any]] = {}
    done: dict[int, Any] = {}
    ahead = 2 * most
    submitted = emitted = 0
    source = iter(tasks)
    exhausted = False
    try:
        while True:
            while not exhausted and len(waiting) < most and submitted - emitted < ahead:
                task = next(source, None)
                if task is None:
                    exhausted = True
                    break
                waiting[submitted] = pool.submit(task)
                submitted += 1
            if not waiting and emitted == submitted:
                return
            wait(waiting.values(), return_when=FIRST_COMPLETED)
            for index in [i for i, f in waiting.items() if f.done()]:
                done[index] = waiting.pop(index).result()
            while emitted in done:
                yield done.pop(emitted)
                emitted += 1
            if stop.is_set():
                raise Cancelled
    except KeyboardInterrupt:
        stop.set()
        raise
    finally:
        for future in waiting.values():
            future.cancel()
        wait(waiting.values())
