"""Collect what the procedures need while a scan streams: continuum per dump, means per subscan.

A band comes from an L1 store, or is calibrated on the way from L0; either way its spectra pass tile by tile
and only sums stay. Shapes: C channels, D dumps, R receivers, A pixels, S output subscans.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gpucal.axes import UNUSABLE
from gpucal.io.l1.reader import L1Scan
from gpucal.io.l1.stored_t_sys import StoredTSys
from gpucal.pipeline.reduction.continuum import Continuum, Track
from gpucal.pipeline.scan.memory_budget import MemoryBudget
from gpucal.pipeline.scan.noise import noise_of_attribute, noise_of_solution
from gpucal.pipeline.scan.rules_in_memory import marks_of
from gpucal.pipeline.scan.stream import stream_scan
from gpucal.pipeline.store.l1_arrays import small_arrays
from gpucal.procedures.switching import NoiseModel, SwitchedBlock, average_block, dump_mean
from gpucal.steps.scale import scale_of_output
from gpucal.steps.solution import ScanSolution

Array = Any
F64 = npt.NDArray[np.float64]
TILE_BYTES = 64 << 20


class Consumer(Protocol):
    """Receiver of tiles, called from several threads at once; arrays are reused after the call."""

    def add(self, output: int, channels: tuple[int, int], spectra: F64, t_sys_star: F64) -> None:
        """spectra [c,D,R,A] K, NaN = bad; t_sys_star f64 [c,R,A] K; of channels c0..c1."""


class Band(Protocol):
    """One calibrated band: shape (C, D, R, A, S), frequency f64 [C,F] Hz, width_hz (of the noise), track, noise."""

    label: str
    mode: str
    attrs: Mapping[str, Any]

    @property
    def shape(self) -> tuple[int, int, int, int, int]: ...
    @property
    def frequency(self) -> F64: ...
    @property
    def width_hz(self) -> float: ...
    @property
    def track(self) -> Track: ...
    @property
    def noise(self) -> NoiseModel: ...

    def stream(self, consumer: Consumer) -> None:
        """Hand every tile to ``consumer``."""


class StoredBand:
    """A band of an L1 store."""

    def __init__(self, scan: L1Scan) -> None:
        self._scan = scan
        self._t_sys = StoredTSys(scan, missing=1.0)
        self.label = scan.band
        self.mode = str(scan.attrs.get("mode", ""))
        self.attrs: Mapping[str, Any] = scan.attrs
        self.track = Track.of_l1(lambda name: np.asarray(scan[name][...]))

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        c, d, r, a, s = self._scan["spectra"].shape
        return (c, d, r, a, s)

    @property
    def frequency(self) -> F64:
        found = np.asarray(self._scan["frequency"][...], dtype=np.float64)
        return found.reshape(found.shape[0], -1)

    @property
    def width_hz(self) -> float:
        return channel_width(self.frequency) * float(self.attrs.get("noise_bandwidth", 1.0))

    @property
    def noise(self) -> NoiseModel:
        """Noise model as L1 records it.

        An L1 of an earlier version does not say which OFFs with which weights made a reference. Then what
        ``rms_expected`` holds beyond the dumps is due to it, and outputs with the same nearest OFF share one.
        """
        seconds = np.nansum(self.track.exptime, axis=0)
        recorded = noise_of_attribute(self.attrs.get("noise") or {}, seconds)
        if recorded is not None:
            return recorded
        rate = 1.0 / seconds
        expected = np.asarray((self.attrs.get("qa") or {}).get("rms_expected", np.nan), dtype=float)
        middle = self.shape[4] // 2
        t_sys2 = np.nanmean(self.t_sys_star(middle, 0, self.shape[0]) ** 2, axis=0)
        total = float(np.nanmedian(expected**2 * self.width_hz / t_sys2))
        rest = np.clip(total - rate, 0.0, None) if math.isfinite(total) else np.zeros(rate.shape)
        nearest = np.asarray(self._scan["off_index_per_on"][...])
        own = nearest[:, None] == np.unique(nearest)[None, :]
        return NoiseModel(seconds, rate, own * np.sqrt(rest)[:, None])

    def stream(self, consumer: Consumer) -> None:
        """Read block by block of channels, unusable samples as NaN; see ``Band``."""
        spectra = self._scan["spectra"]
        flags: Any = None
        if "flags" in self._scan:
            flags = self._scan["flags"]
        c, d, r, a, s = self.shape
        chunk = spectra.chunks[0]
        step = chunk * max(1, TILE_BYTES // (chunk * d * r * a * 8))
        for output in range(s):
            for c0 in range(0, c, step):
                c1 = min(c0 + step, c)
                block = np.asarray(spectra[c0:c1, ..., output], dtype=np.float64)
                if flags is not None:
                    block[(flags[c0:c1, ..., output] & np.uint16(int(UNUSABLE))) != 0] = np.nan
                consumer.add(output, (c0, c1), block, self.t_sys_star(output, c0, c1))

    def t_sys_star(self, output: int, c0: int, c1: int) -> F64:
        """T_sys* f64 [c,R,A] K; see ``StoredTSys``."""
        return self._t_sys.star(output, slice(c0, c1))


class SolvedBand:
    """A band that is calibrated as it streams; ``solution`` of ``solve_scan``."""

    def __init__(self, solution: ScanSolution, pool: Executor) -> None:
        self._solution = solution
        self._pool = pool
        self.label = solution.scan.band
        self.mode = solution.pairing.mode
        self.attrs: Mapping[str, Any] = solution.scan.attrs
        self._arrays = small_arrays(solution)
        self.track = Track.of_l1(lambda name: self._arrays[name][0])

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        return self._solution.output_shape

    @property
    def frequency(self) -> F64:
        found = np.asarray(self._arrays["frequency"][0], dtype=np.float64)
        return found.reshape(found.shape[0], -1)

    @property
    def width_hz(self) -> float:
        return self._solution.setup.noise_width

    @property
    def noise(self) -> NoiseModel:
        return noise_of_solution(self._solution, np.nansum(self.track.exptime, axis=0))

    def stream(self, consumer: Consumer) -> None:
        """Calibrate tile by tile; see ``Band``."""
        budget = MemoryBudget.of_config(self._solution.config)
        stream_scan(self._solution, _ToConsumer(self._solution, consumer), budget, pool=self._pool)


class _ToConsumer:
    """A TileSink that hands spectra and T_sys* to a consumer; what readers of L1 leave out is NaN."""

    def __init__(self, solution: ScanSolution, consumer: Consumer) -> None:
        self._solution = solution
        self._consumer = consumer
        self._marks = marks_of(solution)

    def write_tile(
        self,
        output: int,
        channels: tuple[int, int],
        spectra: npt.NDArray[Any],
        flags: npt.NDArray[Any],
        n_own: int,
    ) -> None:
        scale = scale_of_output(self._solution, output, *channels)
        t_sys_star = np.asarray(self._solution.backend.to_host(scale.t_sys_star), dtype=np.float64)
        values = np.asarray(spectra, dtype=np.float64)
        if n_own:
            values = np.where(flags & int(UNUSABLE), np.nan, values)
        for mark in self._marks:
            by_hand = mark.within((slice(*channels), *[slice(None)] * 3, slice(output, output + 1)))
            values = np.where(by_hand[..., 0], np.nan, values)
        self._consumer.add(output, channels, values, t_sys_star)

    def write_t_sys(
        self, output: int, channels: tuple[int, int], t_sys: Array, t_sys_star: Array
    ) -> None:
        """T_sys* came with the tiles."""


def channel_width(frequency: F64) -> float:
    """Channel width of a frequency axis f64 [C,F], Hz; NaN for a single channel."""
    return float(np.median(np.abs(np.diff(frequency[:, 0])))) if len(frequency) > 1 else math.nan


class ContinuumSums:
    """Sum of w T_A* over channels, w = 1/T_sys*^2; a Consumer."""

    def __init__(self) -> None:
        self._parts: dict[tuple[int, int], tuple[F64, F64]] = {}

    def add(self, output: int, channels: tuple[int, int], spectra: F64, t_sys_star: F64) -> None:
        usable = np.isfinite(t_sys_star) & (t_sys_star > 0)
        weight = np.where(usable, 1.0 / np.where(usable, t_sys_star, 1.0) ** 2, 0.0)[:, None]
        good = np.isfinite(spectra)
        total = np.sum(np.where(good, spectra, 0.0) * weight, axis=0)
        self._parts[output, channels[0]] = total, np.sum(good * weight, axis=0)

    def mean(self, n_outputs: int) -> F64:
        """Weighted mean over channels, f64 [D,R,A,S]; blocks are added in order of channel, whichever came first."""
        columns = []
        for output in range(n_outputs):
            keys = sorted(key for key in self._parts if key[0] == output)
            total = sum(self._parts[key][0] for key in keys)
            weight = np.asarray(sum(self._parts[key][1] for key in keys))
            columns.append(np.where(weight > 0, total / np.where(weight > 0, weight, 1.0), np.nan))
        return np.stack(columns, axis=-1)


def continuum_of(band: Band) -> Continuum:
    """Continuum T_A* per dump of a calibrated band, weights 1/T_sys*^2 over its good channels."""
    sums = ContinuumSums()
    band.stream(sums)
    values = sums.mean(band.shape[4])
    return Continuum(values, band.track, "T_A*", band.noise, band.label)


class _SubscanMeans:
    """Dump means of every subscan, f64 [C,R,A,S]; a Consumer."""

    def __init__(self, shape: tuple[int, int, int, int, int], track: Track) -> None:
        c, _, r, a, s = shape
        self.mean, self.time, self.t_sys_star = (np.full((c, r, a, s), np.nan) for _ in range(3))
        self._exptime = track.exptime

    def add(self, output: int, channels: tuple[int, int], spectra: F64, t_sys_star: F64) -> None:
        place = (slice(*channels), ..., output)
        self.mean[place], self.time[place] = dump_mean(spectra, self._exptime[:, output])
        self.t_sys_star[place] = t_sys_star


def averaged(band: Band) -> SwitchedBlock:
    """The average over dumps and subscans of a calibrated band."""
    means = _SubscanMeans(band.shape, band.track)
    band.stream(means)
    return average_block(means.mean, means.time, means.t_sys_star, band.width_hz, band.noise)
