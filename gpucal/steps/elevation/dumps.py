"""Airmass of the dumps of an output, where that of their subscan is not enough; physics equations (6.8) and (6.9).

Shapes: c channels of a block, D dumps of the output, R receivers, A pixels, J points in a channel.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpucal.modes.recipe import Difference
from gpucal.physics.radiometry import airmass as airmass_of
from gpucal.scan import SubscanGroup
from gpucal.steps.atmosphere import airmass_seen
from gpucal.steps.solution import ScanSolution

Array = Any
F64 = npt.NDArray[np.float64]

ENOUGH = 1e-3
"""Change of T_A* between the dumps of an output above which each has the airmass of its own."""

STEEPEST = 60.0
"""Largest exponent of a correction: such a channel is opaque."""


class DumpAirmass(NamedTuple):
    """Airmass of each dump, f64 [D], or [D,R,A] where the pixels saw the source in different subscans, and that of
    the subscan, a number or f64 [R,A], which the scale of the output holds for."""

    own: F64
    usual: float | F64

    @property
    def wide(self) -> tuple[F64, F64]:
        """Both as f64 [D,R|1,A|1] and [R|1,A|1]."""
        own = self.own.reshape(len(self.own), *(self.own.shape[1:] or (1, 1)))
        return own, np.asarray(self.usual, dtype=np.float64).reshape(np.shape(self.usual) or (1, 1))


def elevations(group: SubscanGroup) -> F64:
    """Elevation of the recorded dumps, f64 [D,S] rad; NaN in the padding and below the horizon."""
    found = np.array(group.elevation, dtype=np.float64)
    if group.recorded is not None:
        found[np.arange(len(found))[:, None] >= group.recorded[None, :]] = np.nan
    found[~(found > 0)] = np.nan
    return found


def airmass_of_dumps(solution: ScanSolution, part: Difference) -> DumpAirmass | None:
    """The airmass of each dump on the source; None where that of the subscan serves all of them.

    ``config.airmass_per`` decides; "auto" asks whether T_A* differs by more than ENOUGH between the dumps, at the
    opacity of the middle channel of the scan. A dump without an elevation has the airmass of its subscan.
    """
    config, group = solution.config, solution.group
    if config.airmass_per == "subscan":
        return None
    track = part.source_track(elevations(group), solution.pairing.n_dumps)
    usual = airmass_seen(group, part.source_subscan(), config.airmass)
    with np.errstate(invalid="ignore"):
        own = np.asarray(airmass_of(track, config.airmass), dtype=np.float64)
    own = np.where(np.isfinite(own), own, usual)
    span = float(np.max(np.ptp(own, axis=0), initial=0.0))
    least = 0.0 if config.airmass_per == "dump" else ENOUGH
    return DumpAirmass(own, usual) if span * solution.usual_opacity > least else None


def relative_transmission(
    solution: ScanSolution, output: int, airmass: DumpAirmass, c0: int, c1: int
) -> Array | None:
    """t_sig at the airmass of the subscan over that of each dump, f64 [c,D,R|1,A|1]; physics equation (6.8).

    In the scheme "vane" one opacity holds for all channels of a pixel; None where that scheme takes no airmass of
    the source at all.
    """
    backend = solution.backend
    xp = backend.xp
    own, usual = (backend.asarray(x) for x in airmass.wide)
    if solution.loads.scheme == "vane":
        if not solution.vane_sees_source:
            return None
        through = solution.vane_temperatures[output].t_sig
        slant = -xp.log(through)[None, None, ...]
        beyond = (own / usual[None, ...] - 1.0)[None, ...]
        return xp.exp(xp.clip(slant * beyond, -STEEPEST, STEEPEST))
    opacity = solution.atmosphere.model.opacity
    b, q, c = (opacity[i, 0, :, c0:c1, :, None] for i in range(3))
    p = backend.asarray(solution.atmosphere.pwv_of(output))[None, None, ...]
    tau = ((b + q * p) * p + c)[:, :, None, ...]
    least = xp.min(tau, axis=0)
    beyond = (own - usual[None, ...])[None, ...]
    ratio = xp.exp(xp.clip(least * beyond, -STEEPEST, STEEPEST))
    if tau.shape[0] == 1:
        return ratio
    more = tau - least[None, ...]
    usually, here = (
        xp.mean(xp.exp(-more * mass[None, None, ...]), axis=0) for mass in (usual[None, ...], own)
    )
    return ratio * usually / here
