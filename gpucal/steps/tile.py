"""Calibrate tiles: (C_ON - C_REF) F with flags, for every observing mode; physics section 6, equation (6.1).

A tile is a block of channels of one output subscan, [c,D,R,A]. Nothing here depends on how the
channels are cut into tiles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from array_api_compat import array_namespace

from gpucal.axes import Flag
from gpucal.backend.protocol import Backend
from gpucal.kernel_contract.calibrate import CalibrationTile
from gpucal.kernel_contract.fold import FoldTile
from gpucal.modes.recipe import Difference, OnAndReference, Recipe
from gpucal.physics.fold import fold_shifts
from gpucal.products import MeanKey
from gpucal.steps.elevation.dumps import airmass_of_dumps, relative_transmission
from gpucal.steps.elevation.off_sky import sky_difference
from gpucal.steps.hot_cold.gain_drift import corrected
from gpucal.steps.scale import OutputScale, scale_of_output
from gpucal.steps.solution import ScanSolution

Array = Any
ReadCounts = Callable[[int, int, int], Array]
"""(c0, c1, subscan) -> raw counts [c1-c0, D, R, A] on the backend."""


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
    recipe = solution.pairing.recipes[output]
    beams, throw = recipe.parts(), recipe.fold_throw()
    if throw is not None:
        counts = _CountsOfBlock(solution, *_widened(solution, recipe, channels), read)
        return _folded(counts, output, beams[0], throw, channels, out, out_flags)
    counts = _CountsOfBlock(solution, *channels, read)
    scale = scale_of_output(solution, output, *channels)
    n_fill = _one_beam(counts, output, beams[0], scale, out, out_flags)
    if len(beams) == 2:
        n_fill = _mean_with(counts, output, beams[1], out, out_flags)
    return n_fill, scale


@dataclass(frozen=True, eq=False)
class _CountsOfBlock:
    """A ``TileCounts``: the counts of the channels c0..c1, as a recipe asks for them."""

    solution: ScanSolution
    c0: int
    c1: int
    read: ReadCounts

    @property
    def backend(self) -> Backend:
        return self.solution.backend

    @property
    def n_dumps(self) -> int:
        return self.solution.pairing.n_dumps

    def source(self, subscan: int) -> Array:
        return self._without_drift(subscan, correct=True)

    def reference(self, subscan: int) -> Array:
        drift = self.solution.drift
        counts = self._without_drift(subscan, correct=drift is not None and drift.correct_off)
        return _as_float(counts, self.backend.xp)

    def mean(self, key: MeanKey) -> Array:
        return self.solution.means[key].mean[self.c0 : self.c1, ...]

    def _without_drift(self, subscan: int, *, correct: bool) -> Array:
        """Raw counts, or counts on the gain of the first load scan where the drift is known; equation (8.1)."""
        counts = self.read(self.c0, self.c1, subscan)
        drift = self.solution.drift
        if drift is None or not correct:
            return counts
        mjd = self.solution.group.mjd[:, subscan]
        return corrected(counts, mjd, drift, self.c0, self.c1, self.backend)


def _one_beam(
    counts: _CountsOfBlock,
    output: int,
    part: Difference,
    scale: OutputScale,
    out: Array,
    out_flags: Array,
) -> int:
    """(C_ON - C_REF) F into ``out``; returns the number of samples with the flag FILL_VALUE."""
    both = part.on_and_reference(counts)
    backend, solution = counts.backend, counts.solution
    channels, factor = (counts.c0, counts.c1), scale.factor()
    through, sky = _of_elevation(solution, output, part, scale, channels)
    if through is None and sky is None:
        return _apply(backend, both, factor, scale, out, out_flags)
    wide = _unrounded(out, backend.xp)
    n_fill = _apply(backend, both, factor, scale, wide, out_flags)
    if sky is not None:
        wide -= sky
    _put_scaled(out, wide, through)
    return n_fill


def _of_elevation(
    solution: ScanSolution,
    output: int,
    part: Difference,
    scale: OutputScale,
    channels: tuple[int, int],
) -> tuple[Array | None, Array | None]:
    """``_through_dumps``, and the ``sky_difference`` where the sky of the reference is to be moved."""
    through = _through_dumps(solution, output, part, channels)
    if not solution.config.scale_off_airmass:
        return through, None
    return through, sky_difference(solution, output, part, scale, channels, above_air=True)


def _through_dumps(
    solution: ScanSolution, output: int, part: Difference, channels: tuple[int, int]
) -> Array | None:
    """What each dump's own airmass makes of its T_A*, f64 [c,D,R|1,A|1]; None where that of the subscan serves."""
    airmass = airmass_of_dumps(solution, part)
    return None if airmass is None else relative_transmission(solution, output, airmass, *channels)


def _unrounded(out: Array, xp: Any) -> Array:
    """``out`` itself where it is f64, else room for as much."""
    return out if out.dtype == xp.float64 else xp.empty(out.shape, dtype=xp.float64)


def _put_scaled(out: Array, wide: Array, scale: Array | None) -> None:
    """``wide`` times ``scale``, rounded once into ``out``."""
    if scale is not None:
        wide *= scale
    if wide is not out:
        out[...] = array_namespace(wide).astype(wide, out.dtype)


def _mean_with(
    counts: _CountsOfBlock, output: int, part: Difference, out: Array, out_flags: Array
) -> int:
    """Average ``out`` with a second beam, flags OR-ed; physics equation (7.2). Returns as ``_one_beam``."""
    xp = counts.backend.xp
    other, other_flags = xp.empty_like(out), xp.empty_like(out_flags)
    scale = scale_of_output(counts.solution, output, counts.c0, counts.c1, part=part)
    _one_beam(counts, output, part, scale, other, other_flags)
    out[...] = 0.5 * (out + other)
    out_flags[...] = out_flags | other_flags
    return int(xp.sum(xp.astype((out_flags & int(Flag.FILL_VALUE)) != 0, xp.int64)))


def _widened(solution: ScanSolution, recipe: Recipe, channels: tuple[int, int]) -> tuple[int, int]:
    """The block with the channels around it that the recipe needs, as far as there are any."""
    below, above = recipe.channels_around()
    c0, c1 = channels
    return max(0, c0 - below), min(solution.output_shape[0], c1 + above)


def _folded(
    counts: _CountsOfBlock,
    output: int,
    part: Difference,
    throw: npt.NDArray[np.float64],
    channels: tuple[int, int],
    out: Array,
    out_flags: Array,
) -> tuple[int, OutputScale]:
    """(w_1 T'(shifted by throw 1) - w_2 T'(shifted by throw 2)) / (w_1 + w_2) / t_sig; physics equation (7.3).

    w = 1/T_sys*^2. The transmission is that of the folded frequency, which both phases share.
    """
    backend, start = counts.backend, channels[0] - counts.c0
    xp = backend.xp
    both = part.on_and_reference(counts)
    wide = xp.empty(both.on.shape, dtype=xp.float64)
    wide_flags = xp.empty(both.on.shape, dtype=xp.uint16)
    around = scale_of_output(counts.solution, output, counts.c0, counts.c1)
    scale = around.cut(start, channels[1] - counts.c0)
    _apply(backend, both, around.gain, around, wide, wide_flags)
    if counts.solution.config.scale_off_airmass:
        wider = (counts.c0, counts.c1)
        sky = sky_difference(counts.solution, output, part, around, wider, above_air=False)
        wide -= 0.0 if sky is None else sky
    shifts = fold_shifts(throw)
    through = _through_dumps(counts.solution, output, part, channels)
    folded = out if through is None else _unrounded(out, xp)
    tile = FoldTile(
        spectra=wide,
        flags=wide_flags,
        weight=1.0 / around.t_sys_star**2,
        taps=backend.asarray(shifts.taps),
        nearest=backend.asarray(start - shifts.whole),
        transmission=scale.t_sig,
        base_flags=scale.flags,
        out=folded,
        out_flags=out_flags,
    )
    n_fill = backend.kernels.fold(tile)
    if through is not None:
        _put_scaled(out, folded, through)
    return n_fill, scale


def _apply(
    backend: Backend,
    both: OnAndReference,
    factor: Array,
    scale: OutputScale,
    out: Array,
    out_flags: Array,
) -> int:
    """Write the difference times ``factor``; in the ratio scheme it is that of C_ON/C_REF and 1."""
    xp, (counts, reference) = backend.xp, both
    if scale.ratio:
        wide = reference[:, None, ...] if reference.ndim == 3 else reference
        counts = _as_float(counts, xp) / wide
        reference = xp.ones((counts.shape[0], *counts.shape[2:]), dtype=xp.float64)
    tile = CalibrationTile(counts, reference, factor, scale.flags, out, out_flags)
    return backend.kernels.calibrate(tile)


def _as_float(counts: Array, xp: Any) -> Array:
    """Counts as f64, fill as NaN."""
    value = xp.astype(counts, xp.float64)
    if counts.dtype == xp.int32:
        return xp.where(counts == xp.iinfo(xp.int32).min, xp.nan, value)
    return xp.where(xp.isfinite(value), value, xp.nan)
