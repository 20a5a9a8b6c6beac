"""Samples and dumps that cannot be: beyond what the radiometer equation and their neighbours allow.

Physics section 6, "Samples that cannot be", equations (6.5) to (6.7). A sample is compared with the other dumps of its
channel, and a whole dump with the other dumps of its pixel; what neighbours share is real. Shapes: C channels, c of a
tile, D dumps, R receivers, A pixels, P = R A.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpucal.axes import FLAG_DTYPE, Flag
from gpucal.backend.protocol import Backend
from gpucal.steps.quality import MEDIAN_OF_SQUARE, OUTLIERS, Counts
from gpucal.steps.scale import OutputScale
from gpucal.steps.solution import ScanSolution

Array = Any
F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Index = npt.NDArray[np.intp]
Bits = npt.NDArray[np.uint16]

SUSPECT = 0.75
"""A sample this part of the threshold away from the mean over dumps is looked at; a spike moves the mean, too."""

OF_LINE = 0.5
"""Pointing and gain may change a line by this part of it from dump to dump."""

NEAR, FAR, NOISE = 0.3, 0.05, 3.0
"""What a neighbour of a spike may have of it: less than NEAR, or of a high spike FAR or NOISE sigma."""

JUMP, HIGH_JUMP, LOW_JUMP = 0.5, 3.0, -0.5
"""Jumps of a whole dump in units of T_sys*: a remark; no source in one dump alone; no sky at all."""

IMPOSSIBLE = 1e3
"""In units of T_sys*: in one dump alone this is no line, however wide."""

CEILING = 1e4
"""In units of T_sys*: no receiver is linear over 40 dB, so a whole dump beyond this is no measurement."""

FEWEST = 4
"""Fewer channels of a tile do not tell a dump from a line, unless they are all there are."""

SOME = 32
"""Channels, and dumps, from which levels and the scatter are taken."""

WORTHWHILE = 0.8
"""Limits for a whole group that are narrower than this part of those of a channel would often be exceeded."""

GROUP_BYTES = 300 << 10
"""Samples that stay in the cache of a core while they are compared."""


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
    sigma = scale.t_sys_star * (rate / solution.setup.channel_width) ** 0.5
    xp = backend.xp
    reach = SUSPECT * config.spike_sigma * xp.where(sigma > 0, sigma, xp.nan)
    low, high = mean - reach, mean + reach
    # A device tells whether there is anything to judge; that is done on the host, so that the results are the same.
    if not isinstance(spectra, np.ndarray):
        odd = (spectra > high[:, None, ...]) | (spectra < low[:, None, ...])
        if not bool(xp.any(odd)):
            return None
    here = np.asarray(backend.to_host(spectra))
    c, d = here.shape[:2]
    low, high, sigma, t_sys = (
        np.asarray(backend.to_host(v), dtype=np.float64).reshape(c, -1)
        for v in (low, high, sigma, scale.t_sys_star)
    )
    samples = here.reshape(c, d, -1)
    suspects = _suspects(samples, low, high)
    if not suspects.dump.size:
        return None
    judge = _Judge(config.spike_sigma, _noise_of_dumps(solution, output, d))
    # A tile of few channels cannot tell a dump from a line, unless there are no more.
    moved = _moved(suspects, samples.shape, low)
    if c < FEWEST and c < solution.output_shape[0]:
        moved[...] = False
    spikes = judge.samples(samples, sigma, t_sys, suspects.where(~moved[suspects.pixel]))
    if not spikes.dump.size and not moved.any():
        return None
    bits = np.zeros(samples.shape, dtype=FLAG_DTYPE)
    bits[spikes] = int(Flag.SPIKE)
    for p in np.flatnonzero(moved):
        own = np.array(samples[:, :, p : p + 1], dtype=np.float64)
        bits[:, :, p : p + 1] = judge.whole_pixel(own, sigma[:, p : p + 1], t_sys[:, p : p + 1])
    return Outliers(bits.reshape(here.shape)) if bits.any() else None


def _noise_of_dumps(solution: ScanSolution, output: int, n_dumps: int) -> F64:
    """Noise of each dump over that of the mean dump, f64 [D]: short ones have more."""
    recipe = solution.pairing.recipes[output]
    seconds = np.asarray(recipe.track(solution.group.exptime, n_dumps, total=True), np.float64)
    usual = np.nanmean(seconds) if np.isfinite(seconds).any() else np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.sqrt(usual / seconds)
    return np.where(np.isfinite(ratio), np.maximum(ratio, 1.0), 1.0)


class _Places(NamedTuple):
    """Indices of some samples, each i64 [n]."""

    channel: Index
    dump: Index
    pixel: Index

    def where(self, mask: Mask) -> _Places:
        """Some of them."""
        return _Places(self.channel[mask], self.dump[mask], self.pixel[mask])


def _suspects(samples: npt.NDArray[Any], low: F64, high: F64) -> _Places:
    """Samples [c,D,P] below low or above high, f64 [c,P]. NaN is no suspect.

    One limit for all channels of a group costs little; only where it is exceeded each channel gets its own.
    """
    c, d, p = samples.shape
    step = max(1, GROUP_BYTES // max(1, d * p * samples.itemsize))
    beyond = np.empty((2, min(step, c), d, p), dtype=np.bool_)
    low, high = low.astype(samples.dtype), high.astype(samples.dtype)
    found = []
    for start in range(0, c, step):
        part = slice(start, min(start + step, c))
        group = samples[part]
        below, above = beyond[:, : len(group)]
        if _within(group, low[part], high[part]):
            continue
        np.less(group, low[part, None], out=below)
        np.greater(group, high[part, None], out=above)
        np.logical_or(below, above, out=above)
        if above.any():
            channel, dump, pixel = np.nonzero(above)
            found.append(_Places(channel + start, dump, pixel))
    if not found:
        found.append(_Places(*np.zeros((3, 0), dtype=np.intp)))
    return _Places(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _within(group: npt.NDArray[Any], low: F64, high: F64) -> bool:
    """Whether a group [g,D,P] lies between the narrowest limits of its channels; False where those are too narrow."""
    most, least = np.fmax.reduce(low, axis=0), np.fmin.reduce(high, axis=0)
    wide = np.fmin.reduce(high - low, axis=0)
    if (least - most < WORTHWHILE * wide).any():
        return False
    if (np.fmax.reduce(group, axis=0) > least).any():
        return False
    return not (np.fmin.reduce(group, axis=0) < most).any()


def _moved(suspects: _Places, shape: tuple[int, ...], low: F64) -> Mask:
    """Pixels, bool [P], of which more than half of the good channels are suspects in some dump."""
    _, d, p = shape
    number = np.bincount(suspects.dump * p + suspects.pixel, minlength=d * p).reshape(d, p)
    return np.asarray((2 * number > np.isfinite(low).sum(axis=0)).any(axis=0))


@dataclass(frozen=True, eq=False)
class _Judge:
    """The judge of a tile: threshold in sigma, and the noise of each dump over that of the mean dump, f64 [D]."""

    sigma: float
    of_dump: F64

    def whole_pixel(self, values: F64, sigma: F64, t_sys: F64) -> Bits:
        """Bits u16 [c,D,1] of values f64 [c,D,1], which are changed; sigma and t_sys (T_sys*) f64 [c,1], K."""
        bits = np.zeros(values.shape, dtype=FLAG_DTYPE)
        level = _levels(values[:, :, 0])
        outlier, unusable = self._dumps(level, sigma[:, 0], t_sys[:, 0])
        bits[:, outlier] |= int(Flag.TSYS_OUTLIER)
        bits[:, unusable] |= int(Flag.SPIKE)
        # What all channels do together says nothing about one of them.
        level[outlier | ~np.isfinite(level)] = np.nan
        values -= (level - _median(level[None])[0])[:, None]
        reach = SUSPECT * self.sigma * sigma[:, None]
        with np.errstate(invalid="ignore"):
            far = np.abs(values - _mean(values[:, :, 0])[:, None, None]) > reach
        # A bright source has noise of its own.
        brightness = 1.0 + np.abs(level) / _median(t_sys.T)[0]
        judge = replace(self, of_dump=self.of_dump * np.where(brightness > 1, brightness, 1.0))
        bits[judge.samples(values, sigma, t_sys, _Places(*np.nonzero(far)))] |= int(Flag.SPIKE)
        return bits

    def _dumps(self, level: F64, sigma: F64, t_sys: F64) -> tuple[Mask, Mask]:
        """Dumps, bool [D], that are outliers, and those of them that are unusable; equation (6.7)."""
        typical = _median(t_sys[None])[0]
        least = max(JUMP * typical, self.sigma * _median(sigma[None])[0])
        jump = level - _median(level[None])[0]
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

    def samples(
        self, values: npt.NDArray[Any], sigma: F64, t_sys: F64, suspects: _Places
    ) -> _Places:
        """Those of the suspects in values [c,D,P] that stand alone; sigma, t_sys f64 [c,P]; (6.5) and (6.6)."""
        if not suspects.dump.size:
            return suspects
        own = _Columns(values, [suspects])
        candidates = suspects.where(self._far(own, sigma, t_sys, suspects))
        if not candidates.dump.size:
            return candidates
        around = _Around(values, candidates)
        column = candidates.channel, candidates.pixel
        # Noise above that of the radiometer equation is looked for only where something stands alone.
        widest = np.full(len(candidates.dump), np.inf)
        left = around.alone(widest, t_sys[column])
        pixels = np.unique(candidates.pixel[left])
        more = np.ones(values.shape[2])
        for p in pixels:
            more[p] = _scatter(np.asarray(values[:, :, p], dtype=np.float64), sigma[:, p])
        noise = sigma * more
        left &= around.alone(noise[column] * self.of_dump[candidates.dump], t_sys[column])
        left &= self._far(own, noise, t_sys, candidates)
        return candidates.where(left)

    def _far(self, columns: _Columns, noise: F64, t_sys: F64, places: _Places) -> Mask:
        """Whether samples lie beyond the threshold, (6.5); noise of the mean dump and T_sys* f64 [c,P], K."""
        column = places.channel, places.pixel
        center = np.abs(columns.center(places))
        least = self.sigma * noise[column] * (1.0 + center / t_sys[column])
        limit = least * self.of_dump[places.dump] + OF_LINE * center
        with np.errstate(invalid="ignore"):
            return np.asarray(np.abs(columns.deviation(places)) > limit)


class _Columns:
    """Some columns (channel, pixel) of values [c,D,P] with their median over dumps; NaN for places outside of them."""

    def __init__(self, values: npt.NDArray[Any], places: Sequence[_Places]) -> None:
        self._shape = values.shape
        c, _, p = values.shape
        keys = [q.channel * p + q.pixel for q in places]
        all_keys = np.unique(np.concatenate(keys))
        self._keys = all_keys[(all_keys >= 0) & (all_keys < c * p)]
        self._rows = np.asarray(values[self._keys // p, :, self._keys % p], dtype=np.float64)
        self._center = _median(self._rows)

    def value(self, places: _Places) -> F64:
        """The samples at these places."""
        row, inside = self._row(places)
        dump = np.clip(places.dump, 0, self._shape[1] - 1)
        inside &= dump == places.dump
        return np.asarray(np.where(inside, self._rows[row, dump], np.nan))

    def center(self, places: _Places) -> F64:
        """The medians of their columns."""
        row, inside = self._row(places)
        return np.asarray(np.where(inside, self._center[row], np.nan))

    def deviation(self, places: _Places) -> F64:
        """The samples less those medians."""
        return self.value(places) - self.center(places)

    def _row(self, places: _Places) -> tuple[Index, Mask]:
        """Row of each place, and whether there is one."""
        c, _, p = self._shape
        row = np.searchsorted(self._keys, places.channel * p + places.pixel)
        inside = np.asarray((places.channel >= 0) & (places.channel < c))
        return np.where(inside, np.minimum(row, len(self._keys) - 1), 0), inside


class _Around:
    """Candidates and their neighbours, everything in the direction in which a candidate deviates."""

    def __init__(self, values: npt.NDArray[Any], candidates: _Places) -> None:
        self._at = candidates
        self._columns = _Columns(values, [self._next(step, 0) for step in range(-2, 3)])
        deviation = self._columns.deviation(candidates)
        self._sign, self._size = np.sign(deviation), np.abs(deviation)

    def alone(self, noise: F64, t_sys: F64) -> Mask:
        """Whether no neighbour has a part of a candidate, (6.6); noise and T_sys* f64 of the candidates, K."""
        size = self._size
        before, after = (np.fmin(*self._above(step)) for step in (-1, 1))
        beside = np.fmax(
            *(self._sign * self._over_gap(self._columns.deviation, s, 0) for s in (-1, 1))
        )
        allowed = np.minimum(NEAR * size, np.maximum(FAR * size, NOISE * noise))
        with np.errstate(invalid="ignore"):
            narrow = (np.fmax(before, after) < allowed) & (beside < NEAR * size)
            narrow &= np.fmax(*self._above(0)) > 0.5 * size
            itself = self._sign * self._columns.value(self._at)
            huge = (size > IMPOSSIBLE * t_sys) & (itself > 0.5 * size)
            huge &= np.fmax(self._away(0, -1), self._away(0, 1)) < FAR * size
        return np.asarray(narrow | huge)

    def _next(self, channels: int, dumps: int) -> _Places:
        """The places that many channels and dumps further on."""
        at = self._at
        return _Places(at.channel + channels, at.dump + dumps, at.pixel)

    def _away(self, channels: int, dumps: int) -> F64:
        """Deviation of a neighbour; NaN where there is none."""
        return self._sign * self._columns.deviation(self._next(channels, dumps))

    def _above(self, dumps: int) -> list[F64]:
        """How far the sample that many dumps on stands out from the channels on its two sides."""
        own = self._columns.value(self._next(0, dumps))
        return [
            self._sign * (own - self._over_gap(self._columns.value, step, dumps))
            for step in (-1, 1)
        ]

    def _over_gap(self, what: Callable[[_Places], F64], side: int, dumps: int) -> F64:
        """A quantity of the next channel on one side, of the one after it where that is blank."""
        near, far = (what(self._next(n * side, dumps)) for n in (1, 2))
        return np.asarray(np.where(np.isfinite(near), near, far))


def _levels(values: F64) -> F64:
    """Median over some channels of each dump, f64 [D], of values f64 [c,D]."""
    good = np.flatnonzero(np.isfinite(values).any(axis=1))
    return _median(values[good[:: max(1, len(good) // SOME)]].T)


def _scatter(values: F64, sigma: F64) -> float:
    """Noise of values f64 [c,D] over that of the radiometer equation, at least 1.

    The lower of two: from one dump to the next, and from one channel to the next; medians of some squares.
    """
    channels = slice(0, max(1, len(values) - 1), max(1, len(values) // SOME))
    dumps = slice(0, max(1, values.shape[1] - 1), max(1, values.shape[1] // SOME))
    here = values[channels, dumps]
    variance = 2.0 * (sigma[channels] ** 2)[:, None]
    following = [values[:, 1:]]
    if len(values) > 1:
        following.append(values[1:])
    found = [
        _median(((other[channels, dumps] - here) ** 2 / variance).reshape(1, -1))[0]
        for other in following
    ]
    known = [v for v in found if np.isfinite(v)]
    return float(np.sqrt(max(1.0, min(known) / MEDIAN_OF_SQUARE))) if known else 1.0


def _median(values: F64) -> F64:
    """Median of each row of values f64 [n,m] without what is not finite; NaN for a row without any."""
    ordered = np.sort(np.where(np.isfinite(values), values, np.nan), axis=1)
    n = np.isfinite(ordered).sum(axis=1)
    top = np.maximum(n - 1, 0)
    rows = np.arange(len(values))
    middle = 0.5 * (ordered[rows, top // 2] + ordered[rows, (top + 1) // 2])
    return np.asarray(np.where(n > 0, middle, np.nan))


def _mean(values: F64) -> F64:
    """Mean of each row of values f64 [n,m] without what is not finite; NaN for a row without any."""
    good = np.isfinite(values)
    n = good.sum(axis=1)
    total = np.where(good, values, 0.0).sum(axis=1)
    return np.asarray(np.where(n > 0, total / np.maximum(n, 1), np.nan))
