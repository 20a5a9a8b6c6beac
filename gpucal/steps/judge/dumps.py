"""Whole dumps: pixels in which any moves all channels, dumps that are outliers, and a tile without the levels.

Physics section 6, equation (6.7). Shapes: c channels of a tile, D dumps, P pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gpucal.steps.judge.medians import mean_over_dumps, median_of_rows, some_of
from gpucal.steps.judge.neighbours import NEAR
from gpucal.steps.judge.tile import Columns, Thresholds, Tile

F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

JUMP, HIGH_JUMP, LOW_JUMP = 0.5, 3.0, -0.5
"""Jumps of a whole dump in units of T_sys*: a remark; no source in one dump alone; no sky at all."""

CEILING = 1e4
"""In units of T_sys*: no receiver is linear over 40 dB, so a whole dump beyond this is no measurement."""


class Dumps(NamedTuple):
    """Level f64 [D,P] K of the dumps of some pixels, T_sys* f64 [P] K, outliers and unusable dumps, bool [D,P]."""

    level: F64
    t_sys: F64
    outlier: Mask
    unusable: Mask


def moved_pixels(tile: Tile, thresholds: Thresholds, columns: Columns) -> Mask:
    """Pixels, bool [P], of which most channels lie far from their means in one dump; columns: those that do in any."""
    number = np.bincount(columns.pixel, minlength=tile.mean.shape[1])
    moved = np.zeros(len(number), dtype=np.bool_)
    pixels = np.flatnonzero(number)
    good = np.isfinite(tile.mean[:, pixels]) & (tile.sigma[:, pixels] > 0)
    most = 2 * number[pixels] > np.count_nonzero(good, axis=0)
    if most.any():
        pixels, good = pixels[most], good[:, most]
        channels = some_of(np.flatnonzero(good.any(axis=1)))
        values = tile.values[channels][..., pixels]
        mean, sigma = (v[channels][:, None, pixels] for v in (tile.mean, tile.sigma))
        with np.errstate(invalid="ignore"):
            far = np.count_nonzero(np.abs(values - mean) > thresholds.suspect * sigma, axis=0)
        number_of = np.count_nonzero(good[channels], axis=0)
        moved[pixels] = (2 * far > number_of).any(axis=0)
    return moved


def judge_dumps(tile: Tile, thresholds: Thresholds) -> Dumps:
    """The levels of all dumps, and those that are outliers, (6.7)."""
    channels = some_of(np.flatnonzero(np.isfinite(tile.mean).any(axis=1)))
    values = np.asarray(tile.values[channels], dtype=np.float64)
    level = median_of_rows(values.reshape(len(channels), -1).T).reshape(values.shape[1:])
    typical, sigma = (median_of_rows(v[channels].T) for v in (tile.t_sys, tile.sigma))
    jump = level - median_of_rows(level.T)
    size = np.abs(jump)
    framed = np.pad(jump, ((1, 1), (0, 0)), constant_values=np.nan)
    beside = np.fmax(np.sign(jump) * framed[:-2], np.sign(jump) * framed[2:])
    with np.errstate(invalid="ignore"):
        alone = size > np.maximum(JUMP * typical, thresholds.spike * sigma)
        alone &= np.maximum(beside, 0.0) < NEAR * size
        # Of two dumps the one near 0 K is right; so is one that the source is not in.
        alone &= np.abs(level) >= 0.5 * size
        above = np.abs(level) > CEILING * typical
        wrong = (jump > HIGH_JUMP * typical) | (jump < LOW_JUMP * typical)
    return Dumps(level, typical, alone | above, (alone & wrong) | above)


def without_levels(tile: Tile, dumps: Dumps) -> Tile:
    """The tile less the levels of its dumps: what all channels do together says nothing about one of them.

    NaN in dumps that are outliers. A bright source has noise of its own, which enters ``of_dump``.
    """
    lost = dumps.outlier | ~np.isfinite(dumps.level)
    level = np.where(lost, np.nan, dumps.level)
    shift = level - median_of_rows(level.T)
    values = tile.values - np.where(lost, 0.0, shift)
    places = np.argwhere(lost)
    for dump, pixel in places:
        values[:, dump, pixel] = 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.einsum("cdp->cp", values) / np.count_nonzero(~lost, axis=0)
    for dump, pixel in places:
        values[:, dump, pixel] = np.nan
    # Channels without some of their samples.
    gaps = np.flatnonzero((np.isfinite(tile.mean) & ~np.isfinite(mean)).any(axis=1))
    mean[gaps] = mean_over_dumps(values[gaps])
    brightness = np.where(lost, 0.0, np.abs(level)) / dumps.t_sys
    return tile._replace(values=values, mean=mean, of_dump=tile.of_dump * (1.0 + brightness))
