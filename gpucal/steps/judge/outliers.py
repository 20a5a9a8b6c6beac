"""Samples and dumps that cannot be: beyond what the radiometer equation and their neighbours allow.

Physics section 6, "Samples that cannot be", equations (6.5) to (6.7). A sample is compared with the other dumps of its
channel, and a whole dump with the other dumps of its pixel; what neighbours share is real. Shapes: C channels, c of a
tile, D dumps, R receivers, A pixels, P = R A.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

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

SOME = 64
"""Channels, and dumps, from which levels and the scatter are taken."""

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
    if suspects is None:
        return None
    judge = _PixelJudge(
        config.spike_sigma,
        _noise_of_dumps(solution, output, d),
        whole=c >= FEWEST or c == solution.output_shape[0],
    )
    bits = np.zeros(samples.shape, dtype=FLAG_DTYPE)
    for p in np.flatnonzero(suspects.any(axis=(0, 1))):
        own = np.array(samples[:, :, p], dtype=np.float64)
        bits[:, :, p] = judge(own, sigma[:, p], t_sys[:, p], suspects[:, :, p])
    return Outliers(bits.reshape(here.shape)) if bits.any() else None


def _noise_of_dumps(solution: ScanSolution, output: int, n_dumps: int) -> F64:
    """Noise of each dump over that of the mean dump, f64 [D]: short ones have more."""
    recipe = solution.pairing.recipes[output]
    seconds = np.asarray(recipe.track(solution.group.exptime, n_dumps, total=True), np.float64)
    usual = np.nanmean(seconds) if np.isfinite(seconds).any() else np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.sqrt(usual / seconds)
    return np.where(np.isfinite(ratio), np.maximum(ratio, 1.0), 1.0)


def _suspects(samples: npt.NDArray[Any], low: F64, high: F64) -> Mask | None:
    """Samples [c,D,P] below low or above high, f64 [c,P]; None when there are none. NaN is no suspect.

    One limit for all channels of a group costs little; only where it is exceeded each channel gets its own.
    """
    c, d, p = samples.shape
    step = max(1, GROUP_BYTES // max(1, d * p * samples.itemsize))
    found: Mask | None = None
    beyond = np.empty((min(step, c), d * p), dtype=np.bool_)
    for start in range(0, c, step):
        part = slice(start, min(start + step, c))
        rows = samples[part].reshape(-1, d * p)
        answer = beyond[: len(rows)]
        least, most = np.fmin.reduce(high[part], axis=0), np.fmax.reduce(low[part], axis=0)
        limits = (np.tile(v.astype(samples.dtype), d) for v in (least, most))
        if not any(
            compare(rows, limit, out=answer).any()
            for compare, limit in zip((np.greater, np.less), limits, strict=True)
        ):
            continue
        odd = (samples[part] > high[part, None]) | (samples[part] < low[part, None])
        if odd.any():
            if found is None:
                found = np.zeros(samples.shape, dtype=np.bool_)
            found[part] = odd
    return found


@dataclass(frozen=True, eq=False)
class _PixelJudge:
    """The judge of the spectra of one pixel: threshold in sigma, noise of the dumps f64 [D], whether to judge dumps."""

    sigma: float
    of_dump: F64
    whole: bool

    def __call__(self, values: F64, sigma: F64, t_sys: F64, suspects: Mask) -> Bits:
        """Bits u16 [c,D] of values f64 [c,D], which are changed; sigma and t_sys (T_sys*) f64 [c], K."""
        bits = np.zeros(values.shape, dtype=FLAG_DTYPE)
        values[~np.isfinite(sigma)] = np.nan
        n_good = np.isfinite(values).any(axis=1).sum()
        if self.whole and (2 * suspects.sum(axis=0) > n_good).any():
            level = _levels(values)
            outlier, unusable = self._dumps(level, sigma, t_sys)
            bits[:, outlier] |= int(Flag.TSYS_OUTLIER)
            bits[:, unusable] |= int(Flag.SPIKE)
            # What all channels do together says nothing about one of them.
            level[outlier | ~np.isfinite(level)] = np.nan
            values -= level - _median(level[None])[0]
            reach = SUSPECT * self.sigma * sigma[:, None]
            with np.errstate(invalid="ignore"):
                suspects = np.abs(values - _mean(values)[:, None]) > reach
        spikes = self._samples(values, sigma, t_sys, suspects)
        bits[spikes] |= int(Flag.SPIKE)
        return bits

    def _dumps(self, level: F64, sigma: F64, t_sys: F64) -> tuple[Mask, Mask]:
        """Dumps, bool [D], that are outliers, and those of them that are unusable; equation (6.7)."""
        typical = _median(t_sys[None])[0]
        least = max(JUMP * typical, self.sigma * _median(sigma[None])[0])
        jump = level - _median(level[None])[0]
        size = np.abs(jump)
        beside = _largest(np.sign(jump) * v for v in _shifted(jump[None], axis=1))[0]
        with np.errstate(invalid="ignore"):
            alone = (size > least) & (np.maximum(beside, 0.0) < NEAR * size)
            # Of two dumps the one near 0 K is right; so is one that the source is not in.
            alone &= np.abs(level) >= 0.5 * size
            above = np.abs(level) > CEILING * typical
            wrong = (jump > HIGH_JUMP * typical) | (jump < LOW_JUMP * typical)
        return alone | above, (alone & wrong) | above

    def _samples(self, values: F64, sigma: F64, t_sys: F64, suspects: Mask) -> Mask:
        """Single samples, bool [c,D], that stand alone; equations (6.5) and (6.6)."""
        spikes = np.zeros(values.shape, dtype=np.bool_)
        rows = suspects.any(axis=1)
        if not rows.any():
            return spikes
        noise = sigma * _scatter(values, sigma)
        needed: Mask = np.array(rows)
        needed[1:] |= rows[:-1]
        needed[:-1] |= rows[1:]
        center = np.full(len(values), np.nan)
        center[needed] = _median(values[needed])
        line = np.abs(center)
        least = self.sigma * noise * (1.0 + line / t_sys)
        with np.errstate(invalid="ignore"):
            deviation = values - center[:, None]
            limit = least[:, None] * self.of_dump + OF_LINE * line[:, None]
            channel, dump = np.nonzero(suspects & (np.abs(deviation) > limit))
        if not channel.size:
            return spikes
        around = _Around(values, deviation, channel, dump)
        alone = around.alone(noise[channel] * self.of_dump[dump], t_sys[channel])
        spikes[channel[alone], dump[alone]] = True
        return spikes


class _Around:
    """Candidates, at (channel, dump), and their neighbours; everything in the direction of the candidate."""

    def __init__(
        self,
        values: F64,
        deviation: F64,
        channel: npt.NDArray[np.intp],
        dump: npt.NDArray[np.intp],
    ) -> None:
        self._values, self._deviation = (_framed(v) for v in (values, deviation))
        self._channel, self._dump = channel + 1, dump + 1
        self._sign = np.sign(deviation[channel, dump])
        self.size = np.abs(deviation[channel, dump])

    def alone(self, noise: F64, t_sys: F64) -> Mask:
        """Whether no neighbour has a part of a candidate; noise and T_sys* f64 of the candidates, K."""
        in_time = _largest(
            np.fmax(self._seen(self._deviation, 0, step), self._above_channels(step, _smallest))
            for step in (-1, 1)
        )
        in_channel = _largest(self._seen(self._deviation, step, 0) for step in (-1, 1))
        stands_out = self._above_channels(0, _largest)
        allowed = np.minimum(NEAR * self.size, np.maximum(FAR * self.size, NOISE * noise))
        with np.errstate(invalid="ignore"):
            narrow = (np.maximum(in_time, in_channel) < allowed) & (stands_out > 0.5 * self.size)
            itself = self._sign * self._values[self._channel, self._dump]
            huge = (self.size > IMPOSSIBLE * t_sys) & (in_time < FAR * self.size)
        return narrow | (huge & (itself > 0.5 * self.size))

    def _seen(self, framed: F64, channels: int, dumps: int) -> F64:
        """The values that many channels and dumps further on; NaN where there is none."""
        return np.asarray(self._sign * framed[self._channel + channels, self._dump + dumps])

    def _above_channels(self, dumps: int, choose: Any) -> F64:
        """Of the samples that many dumps on: how far they stand out from the channels beside them."""
        own = self._seen(self._values, 0, dumps)
        return np.asarray(choose(own - self._seen(self._values, step, dumps) for step in (-1, 1)))


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


def _framed(values: F64) -> F64:
    """The values with a border of NaN."""
    return np.pad(values, 1, constant_values=np.nan)


def _shifted(values: F64, axis: int) -> Iterator[F64]:
    """The neighbours before and after, NaN at the ends."""
    for step in (1, -1):
        moved = np.roll(values, step, axis=axis)
        edge = [slice(None)] * values.ndim
        edge[axis] = slice(0, 1) if step == 1 else slice(-1, None)
        moved[tuple(edge)] = np.nan
        yield moved


def _largest(values: Iterator[F64]) -> F64:
    """The largest at each place; NaN where there is none."""
    one, other = values
    return np.asarray(np.fmax(one, other))


def _smallest(values: Iterator[F64]) -> F64:
    """The smallest at each place; NaN where there is none."""
    one, other = values
    return np.asarray(np.fmin(one, other))
