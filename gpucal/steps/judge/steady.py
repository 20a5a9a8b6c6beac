"""Dumps and samples of a load or a reference that cannot be: what is looked at does not change from dump to dump.

Physics section 4, equation (4.5). Shapes: c channels of a block, D dumps, R receivers, A pixels, P = R A, n columns.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpucal.axes import FILL_INT32
from gpucal.backend.protocol import Backend
from gpucal.steps.judge.columns import excess_of_columns
from gpucal.steps.judge.medians import median_of_rows
from gpucal.steps.judge.tile import USUAL, Thresholds

Array = Any
F64 = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]

STEADY = frozenset({"HOT", "COLD", "SKY", "OFF", "OTF-OFF", "WSW-ON", "WSW-OFF", "NOD-1", "NOD-2"})
"""Modes in which every dump of a subscan, or of a phase of it, sees the same."""

FEWEST_DUMPS = 3
"""Of two that differ nobody knows which is right."""

LEVEL = 0.02
"""Part of the total power by which a dump of a steady load may differ: gains are not quite steady."""

NEAR = 0.3
"""Part of its deviation that the dumps beside it may have: what they share is real."""

ROUNDING = 0.3
"""rms of the rounding to whole counts: few counts hide their noise."""

FEW_CHANNELS, LEAST_NOISE = 8, 3.0
"""Channels that tell whether the dumps of a pixel are equal, and counts of noise that no rounding hides."""

MAD = 1.4826
BLOCK = 1 << 20
"""Columns times dumps that are looked at together."""


class Steady(NamedTuple):
    """What is known of the dumps of a subscan: threshold in sigma, and noise over counts of each, f64 [D]."""

    sigmas: float
    noise: F64


def cannot_be(counts: Array, mean: Array, steady: Steady, backend: Backend) -> Mask | None:
    """Samples bool [c,D,R,A], on the host, that lie beyond what noise and the other dumps allow; None without any.

    counts [c,D,R,A], fill where blank; mean f64 [c,R,A] of their dumps. At least three dumps are needed.
    """
    n_dumps = counts.shape[1]
    if not steady.sigmas or n_dumps < FEWEST_DUMPS:
        return None
    limits = Thresholds.of(steady.sigmas, n_dumps)
    reach = limits.suspect * float(steady.noise.max()) * mean
    if not isinstance(counts, np.ndarray) and not _any_far(counts, mean, reach, backend):
        return None
    here = np.asarray(backend.to_host(counts))
    c = len(here)
    samples = here.reshape(c, n_dumps, -1)
    middle, far = (
        np.asarray(backend.to_host(v), dtype=np.float64).reshape(c, -1) for v in (mean, reach)
    )
    excess = excess_of_columns(samples, middle, far, USUAL / limits.suspect)
    channel, pixel = np.nonzero(excess > 1)
    if not channel.size:
        return None
    bad = _judge(samples, channel, pixel, steady)
    return bad.reshape(here.shape) if bad.any() else None


def stands_still(counts: Array, mean: Array, steady: Steady, backend: Backend) -> Mask:
    """Pixels bool [R,A] of which the first channels hold the same number in all dumps, though noise would change it."""
    here = np.asarray(backend.to_host(counts[:FEW_CHANNELS, ...]))
    level = np.asarray(backend.to_host(mean[:FEW_CHANNELS, ...]), dtype=np.float64)
    noise = level * float(steady.noise.min())
    least = LEAST_NOISE if here.dtype.kind in "iu" else 0.0
    with np.errstate(invalid="ignore"):
        same = (here == here[:, :1]).all(axis=1) & (noise > least)
    enough = here.shape[1] >= 2 and len(here) >= 2
    return np.asarray(same.all(axis=0) & enough)


def _any_far(counts: Array, mean: Array, reach: Array, backend: Backend) -> bool:
    """Whether a sample of counts [c,D,R,A] lies further from its mean than reach [c,R,A]; fill is below 0."""
    xp = backend.xp
    counts = xp.astype(counts, xp.float64)
    low, high = (mean - reach)[:, None, ...], (mean + reach)[:, None, ...]
    return bool(xp.any((counts > high) | ((counts < low) & (counts > 0))))


def _judge(samples: npt.NDArray[Any], channel: Index, pixel: Index, steady: Steady) -> Mask:
    """The samples bool [c,D,P] that are left out, of the columns that are to be looked at; each is judged by itself."""
    bad = np.zeros(samples.shape, np.bool_)
    step = max(1, BLOCK // samples.shape[1])
    for start in range(0, len(channel), step):
        c, p = channel[start : start + step], pixel[start : start + step]
        rows = samples[c, :, p]
        values = _relative(rows)
        spread = MAD * median_of_rows(np.abs(values))
        noise = np.maximum(steady.noise[None, :], spread[:, None]) + _rounding(rows)[:, None]
        size = np.abs(values)
        framed = np.pad(values, ((0, 0), (1, 1)), constant_values=np.nan)
        beside = np.fmax(np.sign(values) * framed[:, :-2], np.sign(values) * framed[:, 2:])
        with np.errstate(invalid="ignore"):
            far = size > np.maximum(LEVEL, steady.sigmas * noise)
            bad[c, :, p] = far & ~(beside > NEAR * size)
    return bad


def _relative(rows: npt.NDArray[Any]) -> F64:
    """Rows [n,D] over their median, less 1, f64; NaN for fill."""
    blank = rows == FILL_INT32 if rows.dtype.kind == "i" else ~np.isfinite(rows)
    values = np.where(blank, np.nan, rows.astype(np.float64))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(values / median_of_rows(values)[:, None] - 1.0)


def _rounding(rows: npt.NDArray[Any]) -> F64:
    """What rounding to whole counts does to rows [n,D], over their counts, f64 [n]; 0 where they are not whole."""
    values = rows.astype(np.float64)
    whole = (~np.isfinite(values) | (values == np.rint(values))).all(axis=1)
    middle = median_of_rows(np.where(values > 0, values, np.nan))
    return np.asarray(np.where(whole & (middle > 0), ROUNDING / np.fmax(middle, 1e-300), 0.0))
