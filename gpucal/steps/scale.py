"""Scale of the counts of one output: factor, system temperature and flags; physics sections 6 and 9."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpucal.axes import Flag
from gpucal.backend.protocol import Backend
from gpucal.modes.recipe import Recipe
from gpucal.steps.atmosphere import airmass_seen, elevation_seen
from gpucal.steps.pwv_fit import OPAQUE
from gpucal.steps.sky_model import sky_brightness
from gpucal.steps.solution import ScanSolution
from gpucal.steps.vane import channel_calibration

Array = Any
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class OutputScale:
    """Scale of a block of c channels of one output subscan.

    gain f64 [c,R,A]: K per count, or T_sys* for the ratio scheme "vane"; t_sig f64 [c,R|1,A|1] or
    None where it is already in the gain; t_sys f64 [c,R,A] K at the receiver's input, t_sys_star f64 [c,R,A]
    K above the air, equations (6.2) and (6.3); gamma f64 [c,R,A] K; flags u16 [c,R,A].
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


class _Sight(NamedTuple):
    """View of the source by an output in the channels c0..c1: pwv f64 [R|1,A|1] mm, airmass (f64 [R,A]
    where the pixels differ), transmission t_sig f64 [c,R|1,A|1], bad bool and flags u16 [c,R,A]."""

    c0: int
    c1: int
    pwv: Array
    airmass: float | Array
    t_sig: Array
    bad: Array
    flags: Array


def scale_of_output(
    solution: ScanSolution, output: int, c0: int, c1: int, *, part: Recipe | None = None
) -> OutputScale:
    """Factor, system temperature and flags for the channels c0..c1 of one output subscan.

    Physics sections 6 and 9. ``part``: the beam of the output whose elevation counts (default: the first).
    """
    backend, loads, atmosphere = solution.backend, solution.loads, solution.atmosphere
    seen = (part or solution.pairing.recipes[output]).source_subscan()
    elevation = elevation_seen(solution.group, seen)
    airmass = _put(airmass_seen(solution.group, seen, solution.config.airmass), backend)
    pwv = backend.asarray(atmosphere.pwv_of(output))
    t_sig = atmosphere.model.transmission(0, pwv, airmass, c0, c1)
    bad = loads.bad[c0:c1, ...]
    flags = _flags_of_output(solution, output, elevation, t_sig, bad)
    sight = _Sight(c0, c1, pwv, airmass, t_sig, bad, flags)
    if loads.cold is not None:
        return _scale_of_loads(solution, sight)
    if loads.scheme == "vane":
        return _scale_per_pixel(solution, output, sight)
    return _scale_per_channel(solution, output, sight)


def _put(value: float | F64, backend: Backend) -> float | Array:
    """A number as it is, an array on the backend."""
    return value if isinstance(value, float) else backend.asarray(value)


def gamma_of_scan(solution: ScanSolution) -> Array:
    """gamma of the loads, or T_cal of a vane scheme as the first output has it; f64 [C,R,A] K."""
    if solution.loads.cold is not None:
        return solution.loads.gamma
    return scale_of_output(solution, 0, 0, solution.output_shape[0]).gamma


def _scale_of_loads(solution: ScanSolution, sight: _Sight) -> OutputScale:
    """Hot and cold load: F = gamma/(C_hot - C_cold)/t_sig; physics equations (6.1) to (6.3)."""
    loads, c0, c1 = solution.loads, sight.c0, sight.c1
    line_gain = solution.setup.line_gain(slice(c0, c1))
    j_sky = sky_brightness(solution.atmosphere.model, sight.pwv, sight.airmass, c0, c1)
    t_sys = loads.t_rec[c0:c1, ...] + j_sky
    gamma = loads.gamma[c0:c1, ...]
    return OutputScale(
        gain=gamma / loads.span[c0:c1, ...],
        t_sig=sight.t_sig,
        t_sys=t_sys,
        t_sys_star=t_sys / (line_gain * sight.t_sig),
        gamma=gamma,
        flags=sight.flags,
        ratio=False,
    )


def _scale_per_pixel(solution: ScanSolution, output: int, sight: _Sight) -> OutputScale:
    """Scheme "vane": one T_sys* for all channels of a pixel, times (C_ON - C_REF)/C_REF; equation (9.3).

    T_sys is equation (9.6); T_cal holds no sideband gain, so it has none either.
    """
    xp = solution.backend.xp
    zero = xp.zeros_like(solution.loads.hot[sight.c0 : sight.c1, ...])
    t_cal, t_star, t_sig = (x[None, ...] + zero for x in solution.vane_temperatures[output])
    t_star = xp.where(sight.bad, xp.nan, t_star)
    return OutputScale(
        gain=t_star,
        t_sig=None,
        t_sys=t_star * (solution.setup.f_eff * t_sig),
        t_sys_star=t_star,
        gamma=t_cal,
        flags=sight.flags,
        ratio=True,
    )


def _scale_per_channel(solution: ScanSolution, output: int, sight: _Sight) -> OutputScale:
    """Scheme "vane-channel": F = T_cal'/(C_hot - C_sky) channel by channel; physics equations (9.4) to (9.6)."""
    xp, t_sig = solution.backend.xp, sight.t_sig
    c0, c1 = sight.c0, sight.c1
    sky = solution.vane_sky(output)
    t_cal, factor = channel_calibration(
        solution.loads,
        sky.counts,
        solution.setup,
        solution.atmosphere,
        sight.pwv,
        _put(sky.airmass, solution.backend),
        (c0, c1),
    )
    seen = xp.where(sight.bad, xp.nan, factor * sky.counts[c0:c1, ...])
    return OutputScale(
        gain=xp.where(sight.bad, xp.nan, factor),
        t_sig=t_sig,
        t_sys=seen * solution.setup.line_gain(slice(c0, c1)),
        t_sys_star=seen / t_sig,
        gamma=t_cal / t_sig,
        flags=sight.flags,
        ratio=False,
    )


def _flags_of_output(
    solution: ScanSolution, output: int, elevation: float | F64, t_sig: Array, bad: Array
) -> Array:
    """Flag bits that hold for all dumps of an output, u16 [c,R,A]."""
    xp = solution.backend.xp
    config, atmosphere = solution.config, solution.atmosphere
    extrapolated = solution.pairing.recipes[output].extrapolated()

    def bit(mask: Array, flag: Flag) -> Array:
        return xp.astype(mask, xp.uint16) * xp.asarray(int(flag), dtype=xp.uint16)

    left_out = np.zeros((1, 1), dtype=np.bool_)
    if solution.verdict is not None:
        left_out = solution.verdict.left_out
    whole = 0
    low = np.atleast_2d(np.degrees(elevation) < config.elevation_low)[None, ...]
    whole |= int(Flag.REFERENCE_EXTRAPOLATED) if extrapolated else 0
    whole |= int(Flag.CAL_STALE) if solution.loads.stale else 0
    poor = solution.backend.asarray(
        atmosphere.poor[:, :, output if atmosphere.poor.shape[2] > 1 else 0]
    )
    return (
        bit(bad, Flag.BAD_CHANNEL)
        | bit(solution.backend.asarray(low), Flag.ELEVATION_LOW)
        | bit(solution.backend.asarray(left_out[None, ...]), Flag.TSYS_OUTLIER)
        | bit(t_sig < OPAQUE, Flag.LOW_TRANSMISSION)
        | bit(poor[None, ...], Flag.ATMOSPHERE_POOR)
        | xp.asarray(whole, dtype=xp.uint16)
    )
