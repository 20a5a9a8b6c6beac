"""Work on one tile: read its raw counts, calibrate it, and hand it to a sink.

A tile is a block of channels of one output subscan. Each worker takes one through decoding, calibration and the sink
(encode, store) while it is in cache. Shapes: C channels, D dumps, R receivers, A pixels.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from gpucal.axes import FLAG_DTYPE
from gpucal.backend.lanes import Lane, Lanes
from gpucal.pipeline.scan.ordered_pool import Cancelled
from gpucal.pipeline.scan.work_units import Unit, t_sys_blocks
from gpucal.steps.judge.outliers import find_outliers
from gpucal.steps.means import measured
from gpucal.steps.precision import Precision, Rounding, round_tile, smallest_noise
from gpucal.steps.quality import TileStatistics, tile_mean, tile_statistics
from gpucal.steps.scale import OutputScale, scale_of_output
from gpucal.steps.solution import ScanSolution
from gpucal.steps.tile import calibrate_tile

Array = Any
Host = npt.NDArray[Any]


class TileSink(Protocol):
    """Receiver of calibrated tiles, called from several threads at once; arrays are reused after the call."""

    def write_tile(
        self, output: int, channels: tuple[int, int], spectra: Host, flags: Host, n_own: int
    ) -> None:
        """On the host: spectra [c,D,R,A] K and flags u16 [c,D,R,A] of channels c0..c1 of one output.

        n_own: samples whose flags are their own (fill, spikes); 0: the flags of all dumps are equal.
        """

    def write_t_sys(
        self, output: int, channels: tuple[int, int], t_sys: Array, t_sys_star: Array
    ) -> None:
        """T_sys and T_sys*, f64 [c,R,A] K, of channels c0..c1 of one output."""


@runtime_checkable
class EncodedSink(Protocol):
    """A ``TileSink`` that also takes tiles in the memory of the device, to have them encoded there."""

    def write_on_device(
        self,
        lane: Lane,
        output: int,
        channels: tuple[int, int],
        spectra: Array,
        flags: Array,
        n_own: int,
    ) -> None:
        """As ``TileSink.write_tile`` with arrays of the backend, written by ``lane``."""


@runtime_checkable
class StoredSink(Protocol):
    """A ``TileSink`` that keeps the spectra as ``config.precision`` says."""

    def begin(self, precision: Precision) -> None:
        """The spectra that follow are in this form; called again where all of them come again in another."""


class BeyondRoundingError(Exception):
    """T_A* is too large for f32 in steps of the rounding."""


class CountsWindows:
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
        # A first request, or a jump: nothing that is held helps.
        if held is None or not start <= c0 <= stop:
            start, stop, held = c0, c0, None
        # Move up: decode whole chunks to the end of the request, and keep what overlaps with it.
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
        return measured(self._lane.read(key, self._counts, c0, c1, subscan), self._xp)


TileResults = list[tuple[tuple[int, int], TileStatistics]]
"""(channels, statistics) of each tile of a unit, in the order of its tiles."""


class TileWork:
    """The work on a unit, tile by tile; shared by all workers of a scan.

    stop: raises Cancelled before the next tile; progress: gets the bytes of raw counts of each tile that is
    done. ``rounding`` may be set before the tasks of the tiles: the sink then gets rounded spectra, f32.
    """

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
        self.rounding: Rounding | None = None

    def tasks(self, units: Sequence[Unit]) -> Iterator[Callable[[], TileResults]]:
        """The tasks of all tiles, in the order in which their results are added up."""
        for unit in units:
            yield partial(self._unit, unit)

    def t_sys_tasks(self) -> Iterator[Callable[[], TileResults]]:
        """The tasks that write T_sys, one for each output; they need no counts and enter no statistics."""
        for output in range(self._solution.output_shape[4]):
            yield partial(self._t_sys, output)

    def noise_tasks(self) -> Iterator[Callable[[], float]]:
        """The same, and each returns the smallest noise of one dump in its output, K."""
        for output in range(self._solution.output_shape[4]):
            yield partial(self._noise, output)

    def _unit(self, unit: Unit) -> TileResults:
        """All tiles of a unit, block by block, so that the windows move up."""
        with self._lanes.take() as lane:
            read = CountsWindows(self._solution, lane)
            return [
                (channels, self._tile(lane, read, output, channels))
                for channels in unit.blocks
                for output in unit.outputs
            ]

    def _tile(
        self, lane: Lane, read: CountsWindows, output: int, channels: tuple[int, int]
    ) -> TileStatistics:
        """Read, calibrate, judge and hand on one tile."""
        if self._stop.is_set():
            raise Cancelled
        solution = self._solution
        shape = (channels[1] - channels[0], *solution.output_shape[1:4])
        # What is rounded is computed as if it were not: quality and spikes do not depend on it.
        dtype = self._dtype if self.rounding is None else np.dtype(np.float64)
        spectra, flags = lane.output(0, shape, dtype), lane.output(1, shape, FLAG_DTYPE)
        n_own, scale = calibrate_tile(solution, output, channels, read, spectra, flags)
        averaged = tile_mean(solution.backend, spectra, n_own)
        found = find_outliers(solution, output, scale, averaged.mean, spectra)
        numbers = None
        if found is not None:
            found.put(flags, solution.backend)
            n_own += int(np.count_nonzero(found.bits))
            averaged = tile_mean(solution.backend, found.left_out(spectra, solution.backend), n_own)
            numbers = found.numbers()
        statistics = tile_statistics(solution, output, scale, averaged, flags, n_own, numbers)
        if self.rounding is not None:
            spectra = self._rounded(lane, self.rounding, spectra, flags)
        # A device that can encode does so before the samples leave it.
        if lane.encodes and isinstance(self._sink, EncodedSink):
            self._sink.write_on_device(lane, output, channels, spectra, flags, n_own)
        else:
            spectra_here, flags_here = lane.download(spectra, flags)
            self._sink.write_tile(output, channels, spectra_here, flags_here, n_own)
        if self._progress is not None:
            self._progress(math.prod(shape) * solution.group.counts.dtype.itemsize)
        return statistics

    def _rounded(self, lane: Lane, rounding: Rounding, spectra: Array, flags: Array) -> Array:
        """The spectra rounded, f32; raises BeyondRoundingError where one of them is too large for it."""
        out = lane.output(3, spectra.shape, np.dtype(np.float32))
        if not round_tile(self._solution.backend, rounding, spectra, flags, out):
            raise BeyondRoundingError(
                f"it reaches beyond {rounding.largest:.4g} K, the most that f32 holds in steps of {rounding.step:.3g} K"
            )
        return out

    def _t_sys(self, output: int) -> TileResults:
        """Write T_sys and T_sys* of one output."""
        for _ in self._written_scales(output):
            pass
        return []

    def _noise(self, output: int) -> float:
        """Write T_sys and T_sys* of one output; returns its smallest noise of one dump, K."""
        scales = self._written_scales(output)
        return min(smallest_noise(self._solution, output, scale) for scale in scales)

    def _written_scales(self, output: int) -> Iterator[OutputScale]:
        for c0, c1 in t_sys_blocks(self._solution):
            scale = scale_of_output(self._solution, output, c0, c1)
            self._sink.write_t_sys(output, (c0, c1), scale.t_sys, scale.t_sys_star)
            yield scale
