"""Chi2 of the observed sky against the atmosphere model, all fits in one launch (chi2.cu)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gpucal.kernels.device import Array, Device
from gpucal.kernels.source import Kernel

PART = 128
LANES = 8
FITS = 32
"""Channels of a partial sum, partial sums side by side, fits of a block; as in chi2.cu."""

TRIALS = 8
"""Trial values whose sums one thread keeps in registers."""

IN_FLIGHT = 8

MOST_TRIALS = 65535
"""Blocks of the third axis of a grid."""


class Problem(NamedTuple):
    """The arrays of one call, as ``gpucal.backend.KernelSet.chi2`` names them."""

    pwv: Array
    observed: Array
    weight: Array
    amplitude: Array
    opacity: Array


def kernels() -> list[Kernel]:
    """Every variant in use."""
    return [_own(1), _own(4), _shared(1, 1), _shared(1, TRIALS), _shared(4, 1), _total()]


def _own(sums: int) -> Kernel:
    return Kernel("chi2", f"chi2_own<{sums}>")


def _shared(sums: int, trials: int) -> Kernel:
    return Kernel("chi2", f"chi2_shared<{sums}, {trials}>")


def _total() -> Kernel:
    return Kernel("chi2", f"sum_parts<{IN_FLIGHT}>")


def chi2_sums(problem: Problem, airmass: float, derivatives: bool, device: Device) -> Array:
    """Return chi2 f64 [K,N], or with ``derivatives`` [4,K,N].

    Shapes and rules: ``gpucal.backend.KernelSet.chi2``. Where all fits share the PWV and the
    opacity, the exponentials of a trial value and a channel are computed once for up to 32 fits.
    The order of summation depends on the number of channels alone: 8 interleaved sums in each 128
    channels, added in order, then the parts in the same way. It differs from the NumPy twin's
    (pairs within 4096 channels), so the two agree to rounding, not to the last bit. Arrays that
    are not contiguous are copied. Raises ValueError for other shapes.
    """
    _check(problem)
    xp = device.xp
    channels, fits = problem.observed.shape
    trials = len(problem.pwv)
    sums = 4 if derivatives else 1
    total = xp.zeros((sums, trials, fits), dtype=np.float64)
    if channels and total.size:
        # A grid copied to all fits by broadcasting is one grid.
        same = problem.pwv.shape[1] == 1 or problem.pwv.strides[1] == 0
        pwv = problem.pwv[:, :1] if same else problem.pwv
        dense = Problem(
            *(xp.ascontiguousarray(xp.asarray(a, dtype=np.float64)) for a in (pwv, *problem[1:]))
        )
        shared = same and problem.opacity.shape[-1] == 1
        (_sum_shared if shared else _sum_own)(dense, float(airmass), total, device)
    return total if derivatives else total[0]


def _sum_own(problem: Problem, airmass: float, total: Array, device: Device) -> None:
    sums, trials, _ = total.shape
    if trials > MOST_TRIALS:
        raise ValueError(f"pwv has {trials} trial values, at most {MOST_TRIALS} are supported.")
    columns = tuple(np.int32(a.shape[-1]) for a in (problem.pwv, *problem[3:]))
    _sum(_own(sums), problem, airmass, total, trials, columns, device)


def _sum_shared(problem: Problem, airmass: float, total: Array, device: Device) -> None:
    sums, trials, _ = total.shape
    together = TRIALS if sums == 1 and trials > 1 else 1
    tiles = -(-trials // together)
    if tiles > MOST_TRIALS:
        raise ValueError(f"pwv has {trials} trial values, at most {MOST_TRIALS} are supported.")
    columns = (np.int32(trials), np.int32(problem.amplitude.shape[-1]))
    _sum(_shared(sums, together), problem, airmass, total, tiles, columns, device)


def _sum(
    kernel: Kernel,
    problem: Problem,
    airmass: float,
    total: Array,
    tiles: int,
    columns: tuple[Any, ...],
    device: Device,
) -> None:
    """Partial sums of all parts, then their sum into ``total``."""
    channels, fits = problem.observed.shape
    points = problem.opacity.shape[2]
    parts = -(-channels // PART)
    partial = device.xp.empty((parts, *total.shape), dtype=np.float64)
    # With few fits the other threads of a block still compute exponentials.
    across = min(max(fits, LANES), FITS)
    device.run(
        kernel,
        (parts, -(-fits // across), tiles),
        (across, LANES),
        (
            *(*problem, partial, np.float64(airmass), np.float64(1.0 / points)),
            *(np.int32(channels), np.int32(fits), np.int32(points), *columns),
        ),
    )
    device.run(
        _total(),
        (-(-total.size // FITS),),
        (FITS, LANES),
        (partial, total, np.int32(parts), np.int64(total.size)),
    )


def _check(problem: Problem) -> None:
    observed, opacity = problem.observed, problem.opacity
    if observed.ndim != 2:
        raise ValueError(f"observed has shape {observed.shape}, expected [C, N].")
    channels, fits = observed.shape
    points = opacity.shape[2] if opacity.ndim == 5 else 1
    for name, array, expected in (
        ("weight", problem.weight, [(channels, fits)]),
        ("pwv", problem.pwv, [(len(problem.pwv), n) for n in (fits, 1)]),
        ("amplitude", problem.amplitude, [(2, channels, n) for n in (fits, 1)]),
        ("opacity", opacity, [(3, 2, points, channels, n) for n in (fits, 1)]),
    ):
        if array.shape not in expected:
            raise ValueError(f"{name} has shape {array.shape}, expected {expected[0]}.")
