"""Samples and dumps that cannot be: beyond what the radiometer equation and their neighbours allow.

Physics section 6, "Samples that cannot be", equations (6.5) to (6.7). A sample is compared with the other dumps of its
channel, and a whole dump with the other dumps of its pixel; what neighbours share is real. Shapes: C channels, c of a
tile, D dumps, R receivers, A pixels, P = R A.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpucal.axes import FLAG_DTYPE, Flag
from gpucal.backend.protocol import Backend
from gpucal.steps.judge.columns import GROUP_BYTES, excess_of_columns
from gpucal.steps.judge.medians import mean_over_dumps, median_of_rows, scatter_of, some_of
from gpucal.steps.judge.neighbours import NEAR, Around, Candidates, Places, joined, on_a_slope
from gpucal.steps.quality import OUTLIERS, Counts
from gpucal.steps.scale import OutputScale
from gpucal.steps.solution import ScanSolution

Array = Any
F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Index = npt.NDArray[np.intp]
Bits = npt.NDArray[np.uint16]

LEAST_SUSPECT, MOST_SUSPECT = 0.75, 0.875
"""A sample this part of the threshold away from the mean over dumps is looked at: a spike moves the mean, too."""

USUAL = 4.5
"""Noise alone takes one of many samples so many sigma away from the mean."""

MUCH = 0.02
"""Where more than this part of the channels stands out, the noise is looked at first."""

SURELY = 0.5
"""A sample less than this part of the threshold away from the mean, with the noise that was found, is no spike."""

OF_LINE = 0.5
"""Pointing and gain may change a line by this part of it from dump to dump."""

JUMP, HIGH_JUMP, LOW_JUMP = 0.5, 3.0, -0.5
"""Jumps of a whole dump in units of T_sys*: a remark; no source in one dump alone; no sky at all."""

CEILING = 1e4
"""In units of T_sys*: no receiver is linear over 40 dB, so a whole dump beyond this is no measurement."""

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
    noise = (rate / solution.setup.channel_width) ** 0.5
    judge = _Judge(
        config.spike_sigma,
        suspect=config.spike_sigma * _suspect(spectra.shape[1]),
        # A tile of few channels cannot tell a dump from a line, unless there are no more.
        dumps=spectra.shape[0] >= min(FEWEST, solution.output_shape[0]),
    )
    # A device tells whether there is anything to judge; that is done on the host, so that the results are the same.
    if not isinstance(spectra, np.ndarray) and not _any_far(
        spectra, mean, judge.suspect * noise * scale.t_sys_star, backend
    ):
        return None
    here = np.asarray(backend.to_host(spectra))
    c, d = here.shape[:2]
    mean, t_sys = (
        np.asarray(backend.to_host(v), dtype=np.float64).reshape(c, -1)
        for v in (mean, scale.t_sys_star)
    )
    values = here.reshape(c, d, -1)
    excess = judge.excess(values, mean, noise * t_sys)
    if not (excess > 1).any():
        return None
    of_dump = np.broadcast_to(_noise_of_dumps(solution, output, d)[:, None], values.shape[1:])
    bits = judge.bits(_Tile(values, mean, noise * t_sys, t_sys, of_dump), excess)
    return None if bits is None else Outliers(bits.reshape(here.shape))


def _suspect(n_dumps: int) -> float:
    """Part of the threshold beyond which a sample is looked at."""
    return min(max(LEAST_SUSPECT, 1.0 - 2.0 / n_dumps), MOST_SUSPECT)


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


class _Tile(NamedTuple):
    """Values [c,D,P] K with what is expected of them.

    mean over dumps, sigma (noise of the mean dump) and t_sys (T_sys*), f64 [c,P] K; of_dump f64 [D,P]: noise of a dump
    over that of the mean dump.
    """

    values: npt.NDArray[Any]
    mean: F64
    sigma: F64
    t_sys: F64
    of_dump: F64

    def of_pixels(self, mask: Mask) -> _Tile:
        """Some pixels of it, copied."""
        return _Tile(*(part[..., mask] for part in self))


@dataclass(frozen=True, eq=False)
class _Judge:
    """The judge of tiles: thresholds in sigma, and whether whole dumps are judged.

    sigma: from the median of the column; suspect: from its mean, to be looked at.
    """

    sigma: float
    suspect: float
    dumps: bool

    def excess(self, values: npt.NDArray[Any], mean: F64, sigma: F64) -> F64:
        """``excess_of_columns``, in units of what makes a suspect."""
        return excess_of_columns(values, mean, self.suspect * sigma, USUAL / self.suspect)

    def bits(self, tile: _Tile, excess: F64) -> Bits | None:
        """Flag bits u16 [c,D,P], None where there are none; excess f64 [c,P] of ``excess``."""
        moved = self._moved(tile, excess)
        spikes = self._spikes(tile, np.where(moved, 0.0, excess))
        if not spikes.dump.size and not moved.any():
            return None
        bits = np.zeros(tile.values.shape, dtype=FLAG_DTYPE)
        bits[spikes] = int(Flag.SPIKE)
        if moved.any():
            bits[:, :, moved] = self._moving(tile.of_pixels(moved))
        return bits if bits.any() else None

    def _moved(self, tile: _Tile, excess: F64) -> Mask:
        """Pixels, bool [P], of which more than half of the channels lie far from their means in some dump."""
        good = np.isfinite(tile.mean) & (tile.sigma > 0)
        moved = 2 * np.count_nonzero(excess > 1, axis=0) > np.count_nonzero(good, axis=0)
        if not self.dumps:
            moved[...] = False
        for p in np.flatnonzero(moved):
            channels = some_of(np.flatnonzero(good[:, p]))
            reach = self.suspect * tile.sigma[channels, p]
            with np.errstate(invalid="ignore"):
                away = np.abs(tile.values[channels, :, p] - tile.mean[channels, p, None])
                far = np.count_nonzero(away > reach[:, None], axis=0)
            moved[p] = (2 * far > len(channels)).any()
        return np.asarray(moved)

    def _moving(self, tile: _Tile) -> Bits:
        """Flag bits u16 [c,D,P] of pixels in which all channels move together."""
        bits = np.zeros(tile.values.shape, dtype=FLAG_DTYPE)
        shift, of_dump = np.zeros((2, *tile.of_dump.shape))
        for p in range(len(shift.T)):
            channels = some_of(np.flatnonzero(np.isfinite(tile.mean[:, p])))
            level = median_of_rows(np.asarray(tile.values[channels, :, p], dtype=np.float64).T)
            outlier, unusable = self._outliers(level, tile.sigma[:, p], tile.t_sys[:, p])
            bits[:, outlier, p] |= int(Flag.TSYS_OUTLIER)
            bits[:, unusable, p] |= int(Flag.SPIKE)
            # What all channels do together says nothing about one of them.
            level[outlier | ~np.isfinite(level)] = np.nan
            shift[:, p] = level - median_of_rows(level[None])[0]
            # A bright source has noise of its own.
            brightness = np.abs(level) / median_of_rows(tile.t_sys[:, p][None])[0]
            of_dump[:, p] = tile.of_dump[:, p] * (1.0 + np.nan_to_num(brightness))
        values = tile.values - shift
        tile = tile._replace(values=values, mean=mean_over_dumps(values), of_dump=of_dump)
        excess = self.excess(values, tile.mean, tile.sigma)
        bits[self._spikes(tile, excess)] |= int(Flag.SPIKE)
        return bits

    def _outliers(self, level: F64, sigma: F64, t_sys: F64) -> tuple[Mask, Mask]:
        """Dumps, bool [D], that are outliers, and those of them that are unusable; equation (6.7)."""
        typical = median_of_rows(t_sys[None])[0]
        least = max(JUMP * typical, self.sigma * median_of_rows(sigma[None])[0])
        jump = level - median_of_rows(level[None])[0]
        size = np.abs(jump)
        framed = np.pad(jump, 1, constant_values=np.nan)
        beside = np.fmax(np.sign(jump) * framed[:-2], np.sign(jump) * framed[2:])
        with np.errstate(invalid="ignore"):
            alone = (size > least) & (np.maximum(beside, 0.0) < NEAR * size)
            # Of two dumps the one near 0 K is right; so is one that the source is not in.
            alone &= np.abs(level) >= 0.5 * size
            above = np.abs(level) > CEILING * typical
            wrong = (jump > HIGH_JUMP * typical) | (jump < LOW_JUMP * typical)
        return alone | above, (alone & wrong) | above

    def _spikes(self, tile: _Tile, excess: F64) -> Places:
        """Samples that stand alone, (6.5) and (6.6); excess f64 [c,P] of ``excess_of_columns``."""
        noise = np.ones(excess.shape[1])
        odd = excess > 1
        # Where much stands out the noise is known before anything is judged, else where something stands alone.
        known = np.count_nonzero(odd, axis=0) > MUCH * len(odd)
        if known.any():
            noise[known] = scatter_of(tile.values, tile.sigma, known)
            odd &= excess > np.maximum(1.0, SURELY * self.sigma / self.suspect * noise)
        found = self._far(tile, *np.nonzero(odd), noise)
        if not found.value.size:
            return found.places
        at = found.places
        column = at.channel, at.pixel
        around = Around(tile.values, at)
        left = around.alone(np.inf, tile.t_sys[column])
        new = np.zeros_like(known)
        new[at.pixel[left]] = True
        new &= ~known
        if new.any():
            noise[new] = scatter_of(tile.values, tile.sigma, new)
        of_dump = tile.of_dump[at.dump, at.pixel]
        least = self._least(tile, *column, found.center, noise)
        left &= found.size > least * of_dump + OF_LINE * np.abs(found.center)
        left &= around.alone(tile.sigma[column] * noise[at.pixel] * of_dump, tile.t_sys[column])
        return at.where(left)

    def _far(self, tile: _Tile, channel: Index, pixel: Index, noise: F64) -> Candidates:
        """The samples of some columns, i64 [n], that are beyond (6.5) and not on the slope of a line."""
        step = max(1, GROUP_BYTES // (tile.values.shape[1] * 8))
        parts = []
        for start in range(0, max(1, len(channel)), step):
            c, p = channel[start : start + step], pixel[start : start + step]
            rows = np.asarray(tile.values[c, :, p], dtype=np.float64)
            center = median_of_rows(rows)
            limit = self._least(tile, c, p, center, noise)[:, None] * tile.of_dump.T[p]
            limit += OF_LINE * np.abs(center)[:, None]
            with np.errstate(invalid="ignore"):
                row, dump = np.nonzero(np.abs(rows - center[:, None]) > limit)
            far = Candidates(Places(c[row], dump, p[row]), rows[row, dump], center[row])
            parts.append(far.where(~on_a_slope(tile.values, far, tile.t_sys)))
        return joined(parts)

    def _least(self, tile: _Tile, channel: Index, pixel: Index, center: F64, noise: F64) -> F64:
        """First term of the limit of (6.5) for a dump of the mean length, f64 [n] K; noise f64 [P]."""
        sigma, t_sys = tile.sigma[channel, pixel], tile.t_sys[channel, pixel]
        return np.asarray(self.sigma * sigma * noise[pixel] * (1.0 + np.abs(center) / t_sys))
