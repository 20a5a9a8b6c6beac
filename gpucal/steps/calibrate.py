"""Calibrate tiles: (C_ON - C_REF) F with flags, for every observing mode; physics section 6.

A tile is a block of channels of one output subscan, [c,D,R,A]. Nothing here depends on how the
channels are cut into tiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.axes import Flag
from gpucal.backend.protocol import Backend
from gpucal.config import CalibrationConfig
from gpucal.kernel_contract.calibrate import CalibrationTile
from gpucal.kernel_contract.dump_mean import SubscanDumps
from gpucal.kernel_contract.fold import FoldTile
from gpucal.kernel_contract.reference import OffPair
from gpucal.physics.fold import fold_shifts, shift_reach
from gpucal.physics.radiometry import airmass as airmass_of
from gpucal.products import (
    Atmosphere,
    BeamMerge,
    ChopCycles,
    DumpPair,
    GainDrift,
    Interpolated,
    LoadSolution,
    MeanKey,
    NodBeams,
    Pairing,
    PhaseDifference,
    Recipe,
    SpectralSetup,
    SubscanMean,
)
from gpucal.scan import Scan, SubscanGroup
from gpucal.steps.gain_drift import corrected
from gpucal.steps.pwv_fit import OPAQUE
from gpucal.steps.sky_model import sky_brightness
from gpucal.steps.vane import channel_calibration

Array = Any
ReadCounts = Callable[[int, int, int], Array]
"""(c0, c1, subscan) -> raw counts [c1-c0, D, R, A] on the backend."""


@dataclass(frozen=True, eq=False)
class ScanSolution:
    """Everything that the tiles of one scan and band need, decided before the first tile."""

    scan: Scan
    config: CalibrationConfig
    backend: Backend
    setup: SpectralSetup
    loads: LoadSolution
    pairing: Pairing
    means: Mapping[MeanKey, SubscanMean]
    atmosphere: Atmosphere
    drift: GainDrift | None
    vane_temperatures: Sequence[tuple[Array, Array]] = ()
    load_sky: tuple[Array, float] | None = None
    warnings: tuple[str, ...] = ()

    @property
    def group(self) -> SubscanGroup:
        assert self.scan.source is not None
        return self.scan.source

    @property
    def output_shape(self) -> tuple[int, int, int, int, int]:
        """(C, D, R, A, S_on) of the calibrated spectra."""
        c, _, r, a, _ = self.group.shape
        return (c, self.pairing.n_dumps, r, a, len(self.pairing.recipes))

    def gamma_of_first_output(self) -> Array:
        """gamma, or T_cal of a vane scheme, f64 [C,R,A] K."""
        return scale_of_output(self, 0, 0, self.output_shape[0]).gamma

    def vane_sky(self, output: int, airmass: float) -> tuple[Array, float]:
        """The sky of a vane scheme, mean counts f64 [C,R,A], and its airmass: the output's own OFF, or
        the SKY of the load scan."""
        if self.load_sky is not None:
            return self.load_sky
        return self.sky_counts(output), airmass

    def sky_counts(self, output: int) -> Array:
        """Mean counts of the sky as this output's OFF saw it, f64 [C,R,A]."""
        recipe = self.pairing.recipes[output]
        if isinstance(recipe, NodBeams):
            second = self.backend.asarray(recipe.second)[None, ...]
            here, there = (self.means[MeanKey(s)].mean for s in (recipe.on, recipe.other))
            return self.backend.xp.where(second, here, there)
        return self.means[self.pairing.sky[output]].mean


@dataclass(frozen=True, eq=False)
class OutputScale:
    """What a block of channels of one output subscan is multiplied with; c channels.

    gain f64 [c,R,A]: K per count, or T_sys* for the ratio scheme "vane"; t_sig f64 [c,R|1,A|1] or
    None where it is already in the gain; t_sys f64 [c,R,A] K as stored in L1; t_sys_star f64 [c,R,A]
    K; gamma f64 [c,R,A] K; flags u16 [c,R,A].
    """

    gain: Array
    t_sig: Array | None
    t_sys: Array
    t_sys_star: Array
    gamma: Array
    flags: Array
    ratio: bool

    def factor(self) -> Array:
        """F f64 [c,R,A]: the gain over the transmission of the signal sideband."""
        return self.gain if self.t_sig is None else self.gain / self.t_sig

    def cut(self, start: int, stop: int) -> OutputScale:
        """The channels start..stop of this block."""
        part = {
            name: value[start:stop, ...]
            for name in ("gain", "t_sig", "t_sys", "t_sys_star", "gamma", "flags")
            if (value := getattr(self, name)) is not None
        }
        return replace(self, **part)


def scale_of_output(
    solution: ScanSolution, output: int, c0: int, c1: int, *, on: int | None = None
) -> OutputScale:
    """Factor, system temperature and flags for the channels c0..c1 of one output subscan.

    Physics sections 6 and 9. ``on``: the subscan whose elevation counts (default: the output's ON).
    """
    backend, loads = solution.backend, solution.loads
    xp = backend.xp
    atmosphere, setup = solution.atmosphere, solution.setup
    seen = solution.pairing.recipes[output].on if on is None else on
    elevation = float(np.mean(solution.group.elevation[:, seen]))
    airmass = float(airmass_of(np.asarray(elevation), solution.config.airmass))
    pwv = backend.asarray(atmosphere.pwv_of(output))
    t_sig = atmosphere.model.transmission(0, pwv, airmass, c0, c1)
    bad = loads.bad[c0:c1, ...]
    flags = _flags_of_output(solution, output, elevation, t_sig, bad)
    if loads.cold is not None:
        line_gain = setup.line_gain()
        line_gain = line_gain if line_gain.shape[0] == 1 else line_gain[c0:c1, ...]
        t_sys = loads.t_rec[c0:c1, ...] + sky_brightness(atmosphere.model, pwv, airmass, c0, c1)
        gamma = loads.gamma[c0:c1, ...]
        return OutputScale(
            gain=gamma / loads.span[c0:c1, ...],
            t_sig=t_sig,
            t_sys=t_sys,
            t_sys_star=t_sys / (line_gain * t_sig),
            gamma=gamma,
            flags=flags,
            ratio=False,
        )
    t_vane: Array | None = None
    if loads.scheme == "vane":
        zero = xp.zeros_like(loads.hot[c0:c1, ...])
        gamma, t_star = (x[None, ...] + zero for x in solution.vane_temperatures[output])
        factor = t_star
    else:
        sky, sky_airmass = solution.vane_sky(output, airmass)
        t_vane = t_sig
        t_cal, factor = channel_calibration(
            loads, sky, setup, atmosphere, pwv, sky_airmass, (c0, c1)
        )
        gamma = t_cal / t_sig
        t_star = factor * sky[c0:c1, ...] / t_sig
    t_star = xp.where(bad, xp.nan, t_star)
    return OutputScale(
        gain=xp.where(bad, xp.nan, factor),
        t_sig=t_vane,
        t_sys=t_star,
        t_sys_star=t_star,
        gamma=gamma,
        flags=flags,
        ratio=loads.scheme == "vane",
    )


def _flags_of_output(
    solution: ScanSolution, output: int, elevation: float, t_sig: Array, bad: Array
) -> Array:
    """Flag bits that hold for all dumps of an output, u16 [c,R,A]."""
    xp = solution.backend.xp
    config, atmosphere = solution.config, solution.atmosphere

    def bit(mask: Array, flag: Flag) -> Array:
        return xp.astype(mask, xp.uint16) * xp.asarray(int(flag), dtype=xp.uint16)

    whole = 0
    whole |= int(Flag.ELEVATION_LOW) if np.degrees(elevation) < config.elevation_low else 0
    whole |= int(Flag.REFERENCE_EXTRAPOLATED) if solution.pairing.extrapolated[output] else 0
    whole |= int(Flag.CAL_STALE) if solution.loads.stale else 0
    poor = solution.backend.asarray(
        atmosphere.poor[:, :, output if atmosphere.poor.shape[2] > 1 else 0]
    )
    return (
        bit(bad, Flag.BAD_CHANNEL)
        | bit(t_sig < OPAQUE, Flag.LOW_TRANSMISSION)
        | bit(poor[None, ...], Flag.ATMOSPHERE_POOR)
        | xp.asarray(whole, dtype=xp.uint16)
    )


def calibrate_tile(
    solution: ScanSolution,
    output: int,
    channels: tuple[int, int],
    read: ReadCounts,
    out: Array,
    out_flags: Array,
) -> tuple[int, OutputScale]:
    """Calibrate the channels c0..c1 of one output subscan.

    out f64/f32 [c,D,R,A] K and out_flags u16 [c,D,R,A] are overwritten. Returns the number of
    samples with the flag FILL_VALUE, and the scale that was used.
    """
    xp = solution.backend.xp
    recipe = solution.pairing.recipes[output]
    if isinstance(recipe, PhaseDifference) and recipe.fold:
        return _fold(solution, recipe, output, channels, read, out, out_flags)
    scale = scale_of_output(solution, output, *channels)
    if not isinstance(recipe, BeamMerge):
        n_fill = _one_beam(solution, recipe, scale, channels, read, out, out_flags)
        return n_fill, scale
    # Double beam switching: out = (cal_A + cal_B)/2, flags OR-ed; physics section 7.
    other, other_flags = xp.empty_like(out), xp.empty_like(out_flags)
    scale_b = scale_of_output(solution, output, *channels, on=recipe.b.on)
    _one_beam(solution, recipe.a, scale, channels, read, out, out_flags)
    _one_beam(solution, recipe.b, scale_b, channels, read, other, other_flags)
    out[...] = 0.5 * (out + other)
    out_flags[...] = out_flags | other_flags
    return _count_fill(out_flags, xp), scale


def _one_beam(
    solution: ScanSolution,
    recipe: Recipe,
    scale: OutputScale,
    channels: tuple[int, int],
    read: ReadCounts,
    out: Array,
    out_flags: Array,
) -> int:
    counts, reference = _on_and_reference(solution, recipe, channels, read)
    return _apply(solution, counts, reference, scale.factor(), scale, out, out_flags)


def _count_fill(flags: Array, xp: Any) -> int:
    return int(xp.sum(xp.astype((flags & int(Flag.FILL_VALUE)) != 0, xp.int64)))


def _apply(
    solution: ScanSolution,
    counts: Array,
    reference: Array,
    gain: Array,
    scale: OutputScale,
    out: Array,
    out_flags: Array,
) -> int:
    xp = solution.backend.xp
    if scale.ratio:
        wide = reference[:, None, ...] if reference.ndim == 3 else reference
        counts = _as_float(counts, xp) / wide
        reference = xp.ones((counts.shape[0], *counts.shape[2:]), dtype=xp.float64)
    tile = CalibrationTile(counts, reference, gain, scale.flags, out, out_flags)
    return solution.backend.kernels.calibrate(tile)


def _as_float(counts: Array, xp: Any) -> Array:
    """Counts as f64, fill as NaN."""
    value = xp.astype(counts, xp.float64)
    if counts.dtype == xp.int32:
        return xp.where(counts == xp.iinfo(xp.int32).min, xp.nan, value)
    return xp.where(xp.isfinite(value), value, xp.nan)


def _on_and_reference(
    solution: ScanSolution, recipe: Recipe, channels: tuple[int, int], read: ReadCounts
) -> tuple[Array, Array]:
    """Counts [c,D,R,A] of the source and the reference [c,R,A] or [c,D,R,A] of a recipe."""
    backend, means = solution.backend, solution.means
    xp = backend.xp
    c0, c1 = channels

    def on_gain(subscan: int, *, off: bool) -> Array:
        counts = read(c0, c1, subscan)
        drift = solution.drift
        if drift is None or (off and not drift.correct_off):
            return counts
        return corrected(counts, solution.group.mjd[:, subscan], drift, c0, c1, backend)

    if isinstance(recipe, Interpolated):
        first, second = means[recipe.off1].mean[c0:c1, ...], means[recipe.off2].mean[c0:c1, ...]
        weight = backend.asarray(np.asarray(recipe.weight, dtype=np.float64))
        offs = OffPair(first, second, weight)
        return on_gain(recipe.on, off=False), backend.kernels.reference(offs)
    if isinstance(recipe, NodBeams):
        second_beam = backend.asarray(recipe.second)
        both = [on_gain(s, off=False) for s in (recipe.on, recipe.other)]
        here, there = (means[MeanKey(s)].mean[c0:c1, ...] for s in (recipe.on, recipe.other))
        return (
            xp.where(second_beam, both[1], both[0]),
            xp.where(second_beam, here, there),
        )
    if isinstance(recipe, ChopCycles):
        return _cycle_means(solution, recipe, on_gain(recipe.on, off=False))
    assert isinstance(recipe, DumpPair | PhaseDifference)
    off = _as_float(on_gain(recipe.off, off=True), xp)
    return on_gain(recipe.on, off=False), off


def _cycle_means(solution: ScanSolution, recipe: ChopCycles, counts: Array) -> tuple[Array, Array]:
    """Mean of the source phase and of the other phase of each chop cycle, f64 [c,n,R,A]."""
    backend = solution.backend
    xp = backend.xp
    n_dumps = counts.shape[1]
    sides: list[list[Array]] = [[], []]
    for cycle in recipe.cycles:
        for side, dumps in zip(sides, cycle, strict=True):
            mask = np.zeros(n_dumps, dtype=np.bool_)
            mask[list(dumps)] = True
            dumps_of_cycle = SubscanDumps(counts, backend.asarray(mask))
            side.append(backend.kernels.dump_mean(dumps_of_cycle).mean)
    empty = xp.full((counts.shape[0], *counts.shape[2:]), xp.nan)
    for side in sides:
        side += [empty] * (solution.pairing.n_dumps - len(side))
    return xp.stack(sides[0], axis=1), xp.stack(sides[1], axis=1)


def fold_reach(throw: npt.NDArray[np.float64]) -> tuple[int, int]:
    """Channels below and above c that the folded channel c is made of."""
    below = max(math.ceil(float(s)) + shift_reach(float(s))[0] for s in throw.ravel())
    above = max(math.ceil(float(-s)) + shift_reach(float(s))[1] for s in throw.ravel())
    return max(below, 0), max(above, 0)


def _fold(
    solution: ScanSolution,
    recipe: PhaseDifference,
    output: int,
    channels: tuple[int, int],
    read: ReadCounts,
    out: Array,
    out_flags: Array,
) -> tuple[int, OutputScale]:
    """(w_1 T'(shifted by throw 1) - w_2 T'(shifted by throw 2)) / (w_1 + w_2); physics section 7.

    w = 1/T_sys*^2. The transmission is that of the folded frequency, which both phases share.
    """
    backend = solution.backend
    xp = backend.xp
    n_chan = solution.output_shape[0]
    c0, c1 = channels
    below, above = fold_reach(recipe.throw)
    lo, hi = max(0, c0 - below), min(n_chan, c1 + above)
    counts, reference = _on_and_reference(solution, recipe, (lo, hi), read)
    wide = xp.empty(counts.shape, dtype=xp.float64)
    wide_flags = xp.empty(counts.shape, dtype=xp.uint16)
    around = scale_of_output(solution, output, lo, hi)
    scale = around.cut(c0 - lo, c1 - lo)
    _apply(solution, counts, reference, around.gain, around, wide, wide_flags)
    shifts = fold_shifts(recipe.throw)
    tile = FoldTile(
        spectra=wide,
        flags=wide_flags,
        weight=1.0 / around.t_sys_star**2,
        taps=backend.asarray(shifts.taps),
        nearest=backend.asarray(c0 - lo - shifts.whole),
        transmission=scale.t_sig,
        base_flags=scale.flags,
        out=out,
        out_flags=out_flags,
    )
    return backend.kernels.fold(tile), scale
