"""Quality of a calibrated scan: noise against the radiometer equation, ripple, flags.

Physics section 10, equation (10.1). Statistics are gathered tile by tile and added in a fixed order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpucal.axes import BLANKING, Flag
from gpucal.backend.protocol import Backend
from gpucal.kernel_contract.dump_mean import SubscanDumps
from gpucal.products import ErrorBudget
from gpucal.steps.judge.medians import MEDIAN_OF_SQUARE
from gpucal.steps.loads import nan_median
from gpucal.steps.scale import OutputScale
from gpucal.steps.solution import ScanSolution
from gpucal.steps.vane import inner_mean

Array = Any
F64 = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

OUTLIERS = {Flag.SPIKE: "spike_samples", Flag.TSYS_OUTLIER: "outlier_samples"}
"""Flags of samples and dumps that cannot be, with the keys of their numbers in ``qa``."""

DECILE_OF_SQUARE = 0.0157907740934312
"""First decile of the same: it still holds where lines fill most channels."""


BESIDE_BORDER, FEWEST_BESIDE = 64, 4
"""Channels on either side of the border of a unit that show its step: at most, and at least."""


@dataclass(frozen=True, eq=False)
class TileStatistics:
    """Contribution of one tile to the quality of its scan; sums are f64 [R,A].

    quiet: (measured/expected)^2 of the quietest tenth of the channels, NaN without a good channel; outliers: samples
    [R,A] by flag that cannot be.
    """

    n_samples: int
    n_nan: int
    n_flagged: int
    mean: F64
    n_differences: F64
    expected2: F64
    normalised2: F64
    quiet: F64
    outliers: Mapping[Flag, Counts] = field(default_factory=dict)


class TileMean(NamedTuple):
    """Mean over the dumps of a tile, f64 [c,R,A] K, and the number of dumps in it, f64 [c,R,A]."""

    mean: Array
    number: Array


def tile_mean(backend: Backend, spectra: Array, n_own: int) -> TileMean:
    """The mean over dumps of spectra [c,D,R,A] K; n_own 0: no sample is blank by itself."""
    xp = backend.xp
    if n_own or math.prod(spectra.shape[2:]) > 1:
        mean, number = backend.kernels.dump_mean(SubscanDumps(spectra))
        return TileMean(mean, xp.astype(number, xp.float64))
    # The dumps of a single pixel lie side by side: a plain sum is faster.
    n_dumps = spectra.shape[1]
    mean = xp.sum(spectra, axis=1, dtype=xp.float64) / n_dumps
    return TileMean(mean, xp.full(mean.shape, float(n_dumps)))


def tile_statistics(
    solution: ScanSolution,
    output: int,
    scale: OutputScale,
    averaged: TileMean,
    flags: Array,
    n_own: int,
    outliers: Mapping[Flag, Counts] | None = None,
) -> TileStatistics:
    """Statistics of one calibrated tile from its mean over dumps; flags u16 [c,D,R,A].

    n_own: samples with flags of their own; without any, those of all dumps are equal.
    """
    backend = solution.backend
    xp = backend.xp
    n_dumps = flags.shape[1]
    # Without such samples counting one dump is enough.
    seen, repeat = (flags, 1) if n_own else (flags[:, :1, ...], n_dumps)
    n_flagged = repeat * int(xp.count_nonzero(seen))
    n_nan = repeat * int(xp.count_nonzero(seen & int(BLANKING))) if n_flagged else 0
    mean, n_valid = averaged
    recipe = solution.pairing.recipes[output]
    own, shared = recipe.noise_rates(solution.group.exptime, solution.means)
    width = solution.setup.noise_width
    rate = own / xp.where(n_valid > 0, n_valid, 1.0) + shared
    variance = scale.t_sys_star**2 * rate / width
    step = mean[1:, ...] - mean[:-1, ...]
    both = variance[1:, ...] + variance[:-1, ...]
    good = xp.isfinite(step) & xp.isfinite(both) & (both > 0)
    square = xp.where(good, step * step, xp.nan)
    both = xp.where(good, both, 1.0)
    n = xp.sum(xp.astype(good, xp.float64), axis=0)

    # The median stands for the typical square, so that lines do not count.
    median, decile = _median_and_decile(square / both, xp)
    level = median / MEDIAN_OF_SQUARE

    def here(values: Array) -> F64:
        return np.asarray(backend.to_host(values), dtype=np.float64)

    return TileStatistics(
        n_samples=int(np.prod(flags.shape)),
        n_nan=n_nan,
        n_flagged=n_flagged,
        mean=np.asarray(backend.to_host(mean)),
        n_differences=here(n),
        expected2=here(xp.sum(xp.where(good, 0.5 * both, 0.0), axis=0)),
        normalised2=here(xp.where(n > 0, level * n, 0.0)),
        quiet=here(decile / DECILE_OF_SQUARE),
        outliers=outliers or {},
    )


def _median_and_decile(values: Array, xp: Any) -> tuple[Array, Array]:
    """Median, as ``nan_median``, and first decile along axis 0 of the values that are not NaN."""
    n_good = xp.sum(xp.astype(~xp.isnan(values), xp.int64), axis=0)
    if not values.shape[0]:  # one channel has no neighbour to differ from
        nothing = xp.full(values.shape[1:], xp.nan)
        return nothing, nothing
    ordered = xp.sort(xp.where(xp.isnan(values), xp.inf, values), axis=0)
    top = xp.maximum(n_good - 1, xp.zeros_like(n_good))
    low, high, tenth = (
        xp.take_along_axis(ordered, index[None, ...], axis=0)[0, ...]
        for index in (top // 2, n_good // 2, top // 10)
    )
    median = xp.where(n_good > 0, 0.5 * (low + high), xp.nan)
    return median, xp.where(n_good > 0, tenth, xp.nan)


class QualitySums:
    """Sums over tiles; for each block of channels ``add`` must be called in the order of the outputs."""

    def __init__(self, n_channels: int, n_receivers: int, n_pixels: int) -> None:
        shape = (n_receivers, n_pixels)
        self.samples = self.nans = self.flagged = 0
        self.outliers = {flag: np.zeros(shape, dtype=np.int64) for flag in OUTLIERS}
        self._blocks: dict[int, F64] = {}
        self._quiet: list[npt.NDArray[np.float32]] = []
        self._first: dict[int, TileStatistics | None] = {}
        self._pairs: list[F64] = []
        self.mean = np.zeros((n_channels, *shape))
        self.n_mean = np.zeros((n_channels, *shape))

    def add(self, channels: tuple[int, int], tile: TileStatistics) -> None:
        """Add one tile that holds the channels c0..c1."""
        c0, c1 = channels
        self.samples += tile.n_samples
        self.nans += tile.n_nan
        self.flagged += tile.n_flagged
        for flag, count in tile.outliers.items():
            self.outliers[flag] += count
        part = np.stack([tile.n_differences, tile.expected2, tile.normalised2])
        self._blocks[c0] = self._blocks[c0] + part if c0 in self._blocks else part
        self._quiet.append(np.asarray(tile.quiet, dtype=np.float32))
        if c0 not in self._first:
            self._first[c0] = tile
        elif (first := self._first[c0]) is not None:  # two outputs say enough about the noise
            self._pairs.append(_pair_level(first, tile))
            self._first[c0] = None
        good = np.isfinite(tile.mean)
        self.mean[c0:c1] += np.where(good, tile.mean, 0.0)
        self.n_mean[c0:c1] += good

    @property
    def sums(self) -> F64:
        """Sums over all tiles, f64 [3,R,A]; blocks are added from the lowest channel up, whichever came first."""
        return np.asarray(sum(self._blocks[c0] for c0 in sorted(self._blocks)), dtype=np.float64)

    def line_free_ratio(self) -> F64:
        """Measured over expected rms where lines count least, f64 [R,A]: if this is absurd, the expected rms is.

        The lower of two: the quietest tenth of the channels, and the difference of the first two outputs, in which
        what both of them see is gone; of each the median over tiles.
        """
        quiet = _median_of_tiles([q.astype(np.float64) for q in self._quiet])
        if not self._pairs:
            return np.sqrt(quiet)
        return np.sqrt(np.fmin(quiet, _median_of_tiles(self._pairs)))

    def platforming(self, borders: Sequence[int]) -> list[dict[str, Any]]:
        """Step of the mean spectrum where a unit of the spectrometer begins, K [R][A]; physics section 10.

        Of straight lines through the channels on either side, NaN where there are too few.
        """
        ends = [0, *borders, len(self.mean)]
        mean = self.mean / np.where(self.n_mean > 0, self.n_mean, np.nan)
        out = []
        for before, here, after in zip(ends, ends[1:], ends[2:], strict=False):
            n = min(BESIDE_BORDER, here - before, after - here)
            step = _at_end(mean[here : here + n]) - _at_end(mean[here - n : here][::-1])
            out.append({"channel": here, "step_k": step.tolist()})
        return out

    def ripple(self) -> F64:
        """Largest non-zero Fourier amplitude of the mean spectrum over its noise, f64 [R,A]."""
        some = self.n_mean > 0
        mean = np.where(some, self.mean / np.where(some, self.n_mean, 1.0), np.nan)
        n = np.maximum(some.sum(axis=0), 1)
        flat = np.where(some, mean - np.where(some, mean, 0.0).sum(axis=0) / n, 0.0)
        amplitude = 2.0 * np.abs(np.fft.rfft(flat, axis=0)[1:]) / n
        step = np.diff(mean, axis=0)
        good = np.isfinite(step)
        steps = np.maximum(good.sum(axis=0), 1)
        rms = np.sqrt(0.5 * (np.where(good, step, 0.0) ** 2).sum(axis=0) / steps)
        peak = amplitude.max(axis=0, initial=0.0)
        return np.where(rms > 0, peak / np.where(rms > 0, rms, 1.0), np.nan)


def _at_end(values: F64) -> F64:
    """A straight line through values f64 [n,R,A], half a channel before the first: f64 [R,A]; outliers do not count."""
    out = np.full(values.shape[1:], np.nan)
    x = np.arange(len(values)) + 0.5
    for place in np.ndindex(*out.shape):
        y = values[:, *place]
        good = np.isfinite(y)
        for _ in range(3):
            if good.sum() < FEWEST_BESIDE:
                break
            slope, out[place] = np.polyfit(x[good], y[good], 1)
            rest = np.abs(y - out[place] - slope * x)
            good &= rest <= 5.0 * np.median(rest[good])
    return out


def _pair_level(one: TileStatistics, other: TileStatistics) -> F64:
    """(measured/expected)^2 of the difference of two outputs in the same channels, f64 [R,A]."""
    step = np.diff(one.mean - other.mean, axis=0) ** 2
    expected = sum(t.expected2 / np.maximum(t.n_differences, 1.0) for t in (one, other))
    some = np.isfinite(step).any(axis=0) & (expected > 0)
    median = np.nanmedian(np.where(some, step, 0.0), axis=0) if len(step) else np.zeros(some.shape)
    return np.where(some, median / MEDIAN_OF_SQUARE / np.where(some, 2.0 * expected, 1.0), np.nan)


def _median_of_tiles(levels: Sequence[F64]) -> F64:
    """Median over tiles of levels f64 [R,A]; NaN where no tile has one."""
    stacked = np.stack(levels)
    some = np.isfinite(stacked).any(axis=0)
    return np.where(some, np.nanmedian(np.where(some, stacked, 0.0), axis=0), np.nan)


def quality_attributes(
    solution: ScanSolution, sums: QualitySums, t_sys_median: float, t_sys_star_median: float
) -> dict[str, Any]:
    """The ``qa`` attribute of L1: plain numbers, [R][A] lists where a pixel has its own."""
    totals = sums.sums
    n = np.where(totals[0] > 0, totals[0], np.nan)
    expected, ratio = np.sqrt(totals[1] / n), np.sqrt(totals[2] / n)
    borders = sorted({k for k in solution.setup.unit_borders if k < len(sums.mean)})
    return {
        **solution_quality(solution),
        "t_sys_median": t_sys_median,
        "t_sys_star_median": t_sys_star_median,
        "t_sys_sidebands": solution.setup.sidebands,
        "nan_fraction": sums.nans / max(sums.samples, 1),
        "flagged_fraction": sums.flagged / max(sums.samples, 1),
        **{key: sums.outliers[flag].tolist() for flag, key in OUTLIERS.items()},
        "rms_measured": (ratio * expected).tolist(),
        "rms_expected": expected.tolist(),
        "rms_ratio": ratio.tolist(),
        "rms_ratio_line_free": sums.line_free_ratio().tolist(),
        "baseline_ripple": sums.ripple().tolist(),
        **({"platforming": sums.platforming(borders)} if borders else {}),
    }


def outlier_notes(quality: Mapping[str, Any]) -> list[str]:
    """A sentence about samples that cannot be, from the ``qa`` attribute; empty when there are none."""
    parts = []
    for flag, key in OUTLIERS.items():
        counts = np.asarray(quality.get(key, ()), dtype=np.int64)
        if not counts.any():
            continue
        worst = np.unravel_index(int(np.argmax(counts)), counts.shape)
        place = ""
        if counts.size > 1:
            place = f" (most, {counts[worst]}, in receiver {worst[0]}, pixel {worst[1]})"
        parts.append(f"{counts.sum()} samples{place} have the flag {flag.name}")
    if not parts:
        return []
    return [f"beyond what noise and neighbours allow: {'; '.join(parts)}."]


def solution_quality(solution: ScanSolution) -> dict[str, Any]:
    """The part of ``quality_attributes`` that is known before the first tile: loads and atmosphere."""
    backend, loads, atmosphere = solution.backend, solution.loads, solution.atmosphere
    xp, ozone = backend.xp, solution.ozone
    of_pixel = backend.to_host(nan_median(loads.t_rec, xp))
    return {
        "t_rec_median": float(nan_median(xp.reshape(loads.t_rec, (-1,)), xp)),
        "t_rec_of_pixel": np.asarray(of_pixel, dtype=np.float64).tolist(),
        "t_hot_range_k": _range(loads.t_hot, backend),
        "t_cold_range_k": _range(loads.t_cold, backend),
        "highest_frequency_hz": float(xp.max(solution.setup.nu_sig)),
        "pwv": _finite_mean(atmosphere.pwv),
        "chi2_dof": _finite_mean(atmosphere.chi2),
        **_errors(solution.errors),
        "pwv_seen": [{"by": w.by, "pwv_mm": w.pwv, "error_mm": w.error} for w in solution.water],
        "ozone_scale": solution.config.ozone_scale if ozone is None else ozone.scale,
        "ozone_scale_error": math.nan if ozone is None else ozone.error,
        "pwv_channels": atmosphere.n_channels,
        "pwv_converged": atmosphere.converged,
        "atmosphere_poor": bool(atmosphere.poor.any()),
        "sky": "isothermal" if atmosphere.model.emission is None else "layered",
        "bad_channel_fraction": float(np.mean(backend.to_host(loads.bad))),
    }


def _errors(errors: ErrorBudget | None) -> dict[str, Any]:
    """The errors of the PWV and of the scale of T_A*, and their budget: a row for each source."""
    if errors is None:
        return {}
    return {
        "pwv_error": _finite_mean(errors.pwv),
        "pwv_error_noise": _finite_mean(errors.pwv_noise),
        "pwv_error_systematic": _finite_mean(errors.pwv_systematic),
        "chi2_dof_noise": _finite_mean(errors.chi2_noise),
        "t_a_star_error": _finite_mean(errors.t_a_star),
        "error_budget": [
            {
                "source": source.name,
                "sigma": source.sigma,
                "unit": source.unit,
                "pwv_mm": source.pwv,
                "t_a_star": source.t_a_star,
            }
            for source in errors.sources
        ],
    }


def _range(temperature: Array | None, backend: Backend) -> list[float] | None:
    """Lowest and highest of the temperatures of a load, K; None without the load."""
    if temperature is None:
        return None
    found = np.asarray(backend.to_host(temperature), dtype=np.float64)
    return [float(found.min()), float(found.max())]


def _finite_mean(values: F64) -> float:
    good = values[np.isfinite(values)]
    return float(good.mean()) if good.size else float("nan")


def system_temperature_from_counts(
    solution: ScanSolution, output: int, backend: Backend
) -> Mapping[str, Any]:
    """T_sys and gain straight from the counts, without an atmosphere model; physics equation (10.2).

    T_sys = <C_OFF> (J_hot-J_cold)/<C_hot-C_cold> with means over the inner 80 % of the channels, K
    [R][A]; gain = <J_hot-J_cold>/<C_hot-C_cold>, K/count. Only with a cold load.
    """
    loads = solution.loads
    if loads.cold is None:
        return {}
    xp = backend.xp
    span = inner_mean(loads.span, backend)
    difference = inner_mean(loads.j_hot - loads.j_cold + xp.zeros_like(loads.hot), backend)
    sky = inner_mean(xp.where(loads.bad, xp.nan, solution.own_sky(output).counts), backend)
    gain = backend.to_host(difference / span)
    return {
        "gain_k_per_count": gain.tolist(),
        "t_sys_from_counts": (gain * backend.to_host(sky)).tolist(),
    }
