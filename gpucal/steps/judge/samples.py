"""Single samples that stand alone: spikes. Physics section 6, equations (6.5) and (6.6).

Shapes: c channels of a tile, D dumps, P pixels, n samples.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gpucal.steps.judge.columns import GROUP_BYTES
from gpucal.steps.judge.medians import median_of_rows, scatter_of
from gpucal.steps.judge.neighbours import Around, Candidates, Places, joined, on_a_slope
from gpucal.steps.judge.tile import Columns, Thresholds, Tile

F64 = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]

MUCH = 0.02
"""Where more than this part of the channels stands out, the noise is looked at first."""

SURELY = 0.5
"""A sample less than this part of the threshold away from the mean, with the noise that was found, is no spike."""

SHARED = 2
"""Pixels and receivers with a spike in one channel: a line that is narrower than a channel, which all of them see."""

OF_LINE = 0.5
"""Pointing and gain may change a line by this part of it from dump to dump."""


def find_spikes(
    tile: Tile, thresholds: Thresholds, columns: Columns, *, flat: bool = True
) -> Places:
    """Samples of a tile that stand alone, of the columns that are to be looked at.

    Noise above that of the radiometer equation raises the threshold. Where much stands out it is known before anything
    is judged, elsewhere only where something stands alone. flat: no dump is a level off, of which a part would be left.
    """
    noise = np.ones(tile.mean.shape[1])
    known = np.bincount(columns.pixel, minlength=len(noise)) > MUCH * len(tile.mean)
    if known.any():
        noise[known] = scatter_of(tile.values, tile.sigma, known)
        surely = SURELY * thresholds.spike / thresholds.suspect * noise
        columns = columns.where(columns.excess > surely[columns.pixel])
    found = _far(tile, thresholds.spike, columns, noise)
    if not found.value.size:
        return found.places
    at, column = found.places, (found.places.channel, found.places.pixel)
    around = Around(tile.values, found)
    left = around.alone(np.inf, tile.t_sys[column])
    new = np.zeros_like(known)
    new[at.pixel[left]] = True
    new &= ~known
    if new.any():
        noise[new] = scatter_of(tile.values, tile.sigma, new)
    of_dump = tile.of_dump[at.dump, at.pixel]
    least = _least(tile, thresholds.spike, *column, found.center, noise)
    left &= found.size > least * of_dump + OF_LINE * np.abs(found.center)
    of_noise = tile.sigma[column] * noise[at.pixel] * of_dump
    left &= around.alone(of_noise, tile.t_sys[column], wings=flat)
    return at.where(left & ~_shared(at.where(left), left))


def _shared(spikes: Places, left: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which of the candidates are ``spikes`` in a channel where several pixels have one: a narrow line, bool [n]."""
    pairs = np.unique(np.stack([spikes.channel, spikes.pixel]), axis=1)
    channels, pixels = np.unique(pairs[0], return_counts=True)
    found = np.zeros(left.shape, np.bool_)
    found[left] = np.isin(spikes.channel, channels[pixels >= SHARED])
    return found


def _far(tile: Tile, spike: float, columns: Columns, noise: F64) -> Candidates:
    """The samples of some columns that are beyond (6.5) and not on the slope of a line."""
    channel, pixel = columns.channel, columns.pixel
    step = max(1, GROUP_BYTES // (tile.values.shape[1] * 8))
    parts = []
    for start in range(0, max(1, len(channel)), step):
        c, p = channel[start : start + step], pixel[start : start + step]
        rows = np.asarray(tile.values[c, :, p], dtype=np.float64)
        center = median_of_rows(rows)
        limit = _least(tile, spike, c, p, center, noise)[:, None] * tile.of_dump.T[p]
        limit += OF_LINE * np.abs(center)[:, None]
        with np.errstate(invalid="ignore"):
            row, dump = np.nonzero(np.abs(rows - center[:, None]) > limit)
        far = Candidates(Places(c[row], dump, p[row]), rows[row, dump], center[row])
        parts.append(far.where(~on_a_slope(tile.values, far, tile.t_sys)))
    return joined(parts)


def _least(tile: Tile, spike: float, channel: Index, pixel: Index, center: F64, noise: F64) -> F64:
    """First term of the limit of (6.5) for a dump of the mean length, f64 [n] K; noise f64 [P]."""
    sigma, t_sys = tile.sigma[channel, pixel], tile.t_sys[channel, pixel]
    return np.asarray(spike * sigma * noise[pixel] * (1.0 + np.abs(center) / t_sys))
