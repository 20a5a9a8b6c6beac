"""Samples and dumps that cannot be: beyond what the radiometer equation and their neighbours allow.

Physics section 6, "Samples that cannot be", equations (6.5) to (6.7). A sample is compared with the other dumps of its
channel, and a whole dump with the other dumps of its pixel; what neighbours share is real. Shapes: C channels, c of a
tile, D dumps, R receivers, A pixels, P = R A.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.axes import FLAG_DTYPE, Flag
from gpucal.backend.protocol import Backend
from gpucal.steps.judge.dumps import judge_dumps, moved_pixels, without_levels
from gpucal.steps.judge.samples import find_spikes
from gpucal.steps.judge.tile import Columns, Thresholds, Tile
from gpucal.steps.quality import OUTLIERS, Counts
from gpucal.steps.scale import OutputScale
from gpucal.steps.solution import ScanSolution

Array = Any
F64 = npt.NDArray[np.float64]
Bits = npt.NDArray[np.uint16]

FEWEST = 4
"""Fewer channels of a tile do not tell a dump from a line, unless they are all there are."""


@dataclass(frozen=True, eq=False)
class Outliers:
    """Flag bits of one tile, u16 [c,D,R,A] on the host, 0 where nothing is wrong."""

    bits: Bits

    def numbers(self) -> dict[Flag, Counts]:
        """Samples with each flag, i64 [R,A]."""
        return {
            flag: np.asarray(np.count_nonzero(self.bits & int(flag), axis=(0, 1)), dtype=np.int64)
            for flag in OUTLIERS
        }

    def put(self, flags: Array, backend: Backend) -> None:
        """Set the bits in flags u16 [c,D,R,A] of the backend."""
        flags[...] = flags | backend.asarray(self.bits)

    def left_out(self, spectra: Array, backend: Backend) -> Array:
        """A copy of spectra [c,D,R,A] with NaN for SPIKE."""
        xp = backend.xp
        spikes = backend.asarray((self.bits & int(Flag.SPIKE)) != 0)
        return xp.where(spikes, xp.asarray(np.nan, dtype=spectra.dtype), spectra)


def find_outliers(
    solution: ScanSolution, output: int, scale: OutputScale, mean: Array, spectra: Array
) -> Outliers | None:
    """Samples (SPIKE) and dumps (TSYS_OUTLIER, SPIKE) of a tile that cannot be; None when there are none.

    spectra [c,D,R,A] K; mean f64 [c,R,A] K, over its dumps. Nothing is found in a single dump.
    """
    config, backend = solution.config, solution.backend
    if not config.spike_sigma or spectra.shape[1] < 2:
        return None
    rate = solution.pairing.recipes[output].dump_noise(solution.group.exptime)
    noise = (rate / solution.setup.noise_width) ** 0.5
    thresholds = Thresholds.of(config.spike_sigma, spectra.shape[1])
    # A device tells whether there is anything to judge; that is done on the host, so that the results are the same.
    if not isinstance(spectra, np.ndarray) and not _any_far(
        spectra, mean, thresholds.suspect * noise * scale.t_sys_star, backend
    ):
        return None
    here = np.asarray(backend.to_host(spectra))
    c, d = here.shape[:2]
    mean, t_sys = (
        np.asarray(backend.to_host(v), dtype=np.float64).reshape(c, -1)
        for v in (mean, scale.t_sys_star)
    )
    values, sigma = here.reshape(c, d, -1), noise * t_sys
    columns = thresholds.suspects(values, mean, sigma)
    if not columns.pixel.size:
        return None
    of_dump = np.broadcast_to(_noise_of_dumps(solution, output, d)[:, None], values.shape[1:])
    # A tile of few channels cannot tell a dump from a line, unless there are no more.
    dumps = c >= min(FEWEST, solution.output_shape[0])
    bits = _judge(Tile(values, mean, sigma, t_sys, of_dump), thresholds, columns, dumps)
    return None if bits is None else Outliers(bits.reshape(here.shape))


def _judge(tile: Tile, thresholds: Thresholds, columns: Columns, dumps: bool) -> Bits | None:
    """Flag bits u16 [c,D,P] from the columns that are to be looked at, None without any; dumps: whole ones, too."""
    moved = np.zeros(tile.mean.shape[1], np.bool_)
    if dumps:
        moved = moved_pixels(tile, thresholds, columns)
    spikes = find_spikes(tile, thresholds, columns.where(~moved[columns.pixel]))
    bits = np.zeros(tile.values.shape, FLAG_DTYPE) if spikes.dump.size else None
    if bits is not None:
        bits[spikes] = int(Flag.SPIKE)
    if not moved.any():
        return bits
    pixels, part = np.flatnonzero(moved), tile.of_pixels(moved)
    verdict = judge_dumps(part, thresholds)
    part = without_levels(part, verdict)
    suspects = thresholds.suspects(part.values, part.mean, part.sigma)
    spikes = find_spikes(part, thresholds, suspects, flat=False)
    if not spikes.dump.size and not verdict.outlier.any():
        return bits
    bits = np.zeros(tile.values.shape, FLAG_DTYPE) if bits is None else bits
    bits[spikes.channel, spikes.dump, pixels[spikes.pixel]] = int(Flag.SPIKE)
    for dump, pixel in np.argwhere(verdict.outlier):
        unusable = Flag.SPIKE if verdict.unusable[dump, pixel] else 0
        bits[:, dump, pixels[pixel]] |= int(Flag.TSYS_OUTLIER | unusable)
    return bits


def _any_far(spectra: Array, mean: Array, reach: Array, backend: Backend) -> bool:
    """Whether a sample of spectra [c,D,R,A] lies further from the mean of its column than reach, [c,R,A] K."""
    xp = backend.xp
    reach = xp.where(reach > 0, reach, xp.nan)
    low, high = (mean - reach)[:, None, ...], (mean + reach)[:, None, ...]
    return bool(xp.any((spectra > high) | (spectra < low)))


def _noise_of_dumps(solution: ScanSolution, output: int, n_dumps: int) -> F64:
    """Noise of each dump over that of the mean dump, f64 [D]: short ones have more."""
    recipe = solution.pairing.recipes[output]
    seconds = np.asarray(recipe.track(solution.group.exptime, n_dumps, total=True), np.float64)
    usual = np.nanmean(seconds) if np.isfinite(seconds).any() else np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.sqrt(usual / seconds)
    return np.where(np.isfinite(ratio), np.maximum(ratio, 1.0), 1.0)
