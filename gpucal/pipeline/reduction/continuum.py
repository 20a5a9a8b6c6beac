"""The continuum of a scan: one value per dump and pixel, and where the telescope was.

Shapes: C channels, D dumps, R receivers, A pixels, S subscans.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.axes import FILL_INT32, OFF_MODES
from gpucal.pipeline.reduction.load_scale import LoadScale
from gpucal.procedures.switching import NoiseModel
from gpucal.scan import SubscanGroup
from gpucal.steps.means import channel_blocks

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Track:
    """Times and directions of the dumps of several subscans.

    mjd, exptime (s), elevation, azimuth (rad), lon, lat (deg) f64 [D,S]; pixel_lon, pixel_lat f64 [R,A,S] deg;
    subscan i32 [S]: number in L0.
    """

    mjd: F64
    exptime: F64
    elevation: F64
    azimuth: F64
    lon: F64
    lat: F64
    pixel_lon: F64
    pixel_lat: F64
    subscan: I32

    def pick(self, subscans: list[int]) -> Track:
        """The track of some of the subscans, given by their index in this track."""
        return Track(*(getattr(self, f.name)[..., subscans] for f in fields(self)))

    @classmethod
    def of_group(cls, group: SubscanGroup, subscans: list[int]) -> Track:
        """The track of some subscans of an L0 group."""

        whole = cls(
            group.mjd,
            group.exptime,
            group.elevation,
            group.azimuth,
            group.otf_lon,
            group.otf_lat,
            group.pixel_offset_lon,
            group.pixel_offset_lat,
            np.arange(group.shape[4], dtype=np.int32),
        )
        return whole.pick(subscans)

    @classmethod
    def of_l1(cls, read: Callable[[str], npt.NDArray[Any]]) -> Track:
        """The track of a band of L1."""

        def pick(name: str) -> F64:
            return np.asarray(read(name), dtype=np.float64)

        return cls(
            pick("mjd"),
            pick("exptime"),
            pick("elevation"),
            pick("azimuth"),
            pick("otf_lon"),
            pick("otf_lat"),
            pick("pixel_offset_lon"),
            pick("pixel_offset_lat"),
            np.asarray(read("on_index"), dtype=np.int32),
        )


@dataclass(frozen=True, eq=False)
class Continuum:
    """Mean over the good channels per dump, f64 [D,R,A,S], in ``unit``.

    scale "T_A*", "T" (receiver input, against the loads) or "counts"; noise: of the outputs, where it is
    known; label: the band
    """

    values: F64
    track: Track
    scale: str
    noise: NoiseModel | None = None
    label: str = ""

    @property
    def unit(self) -> str:
        return "count" if self.scale == "counts" else "K"


def raw_continuum(
    group: SubscanGroup,
    subscans: list[int],
    label: str,
    scale: LoadScale | None = None,
) -> Continuum:
    """Mean over channels per dump of the raw counts of some subscans, f64 [D,R,A,S].

    scale: turns counts into K against the loads; None leaves counts. Fill values are left out.
    """
    counts = group.counts
    _, d, r, a, _ = counts.shape
    out = np.full((d, r, a, len(subscans)), np.nan)
    for i, s in enumerate(subscans):
        total, n = np.zeros((d, r, a)), np.zeros((d, r, a))
        for c0, c1 in channel_blocks(counts):
            block = counts.read(c0, c1, s)
            values = block.astype(np.float64)
            if counts.dtype.kind == "i":
                values[block == FILL_INT32] = np.nan
            if scale is not None:
                values = scale.offset[c0:c1, None] + scale.factor[c0:c1, None] * values
            good = np.isfinite(values)
            total += np.where(good, values, 0.0).sum(axis=0)
            n += good.sum(axis=0)
        out[..., i] = np.where(n > 0, total / np.where(n > 0, n, 1.0), np.nan)
    track = Track.of_group(group, subscans)
    return Continuum(out, track, "counts" if scale is None else "T", None, label)


def off_subtracted(continuum: Continuum, sobsmode: tuple[str, ...]) -> Continuum:
    """The ON subscans less the mean of the OFF before and after each, interpolated in time.

    For continua that were not calibrated against their OFF. Without an OFF nothing is taken off.
    """
    modes = [sobsmode[s] for s in continuum.track.subscan]
    on = [i for i, m in enumerate(modes) if m not in OFF_MODES]
    off = [i for i, m in enumerate(modes) if m in OFF_MODES]
    if not off or not on:
        return continuum
    when = continuum.track.mjd.mean(axis=0)
    seen = np.isfinite(continuum.values)
    level = np.where(seen, continuum.values, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    values = continuum.values[..., on].copy()
    for j, i in enumerate(on):
        before = max((k for k in off if when[k] <= when[i]), key=lambda k: when[k], default=None)
        after = min((k for k in off if when[k] > when[i]), key=lambda k: when[k], default=before)
        before = after if before is None else before
        span = when[after] - when[before]
        w = (when[i] - when[before]) / span if span > 0 else 0.0
        values[..., j] -= (1.0 - w) * level[..., before] + w * level[..., after]
    return replace(continuum, values=values, track=continuum.track.pick(on))
