"""The groups of one scan of a SAM45 log: small arrays, and the maker of the counts.

Shapes use C channels, D dumps, R receivers, A array pixels, S subscans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.io.l0.write import CountsMaker, GroupArrays
from gpucal.io.sam45.bands import Band, SkyAxis
from gpucal.io.sam45.counts import LogCounts
from gpucal.io.sam45.log import Sam45Log
from gpucal.io.sam45.moments import Moments, Run
from gpucal.io.sam45.pointing import Pointing
from gpucal.io.sam45.segments import LOAD_MODES, MODES, Segment

KELVIN = 273.15
TORR_PER_HPA = 0.750062
LOAD_LIKELY_K = (200.0, 350.0)
AIR_POSSIBLE_C = (-40.0, 45.0)


@dataclass(frozen=True, eq=False)
class LogParts:
    """A log with all that was made of its headers.

    how: "position", "otf" or "frequency"; t_hot: K of the hot load as a profile gives it, NaN: as the log says;
    pixel_offsets: arcsec [A, 2] or None.
    """

    log: Sam45Log
    moments: Moments
    runs: Sequence[Run]
    pointing: Pointing
    counts: LogCounts
    how: str
    t_hot: float = float("nan")
    pixel_offsets: npt.NDArray[np.float64] | None = None


def group_of(parts: LogParts, segment: Segment, band: Band, axis: SkyAxis) -> GroupArrays:
    """``calibration/`` of a block of loads, ``source/`` of what lies between two.

    Subscans with fewer dumps than the longest are padded with NaN counts at their last dump.
    """
    runs = segment.runs
    dumps = max(run.n for run in runs)
    shape = (
        band.lead.channels,
        dumps,
        len(band.arrays),
        len(band.beams),
        len(runs),
    )

    def make(s: int) -> npt.NDArray[Any]:
        parts.log.reopen()
        return parts.counts.block(band, runs[s], dumps)

    arrays = _per_dump(parts, runs, dumps) | _frequencies(parts, runs, shape[2], axis)
    arrays |= _weather(parts, runs)
    modes = LOAD_MODES if segment.loads else MODES[parts.how]
    if segment.loads:
        for name in ("otf_lon", "otf_lat"):
            del arrays[name]
        arrays["thot"] = _hot(parts, runs, band)
    else:
        arrays["lloadsn"] = np.full(len(runs), segment.load_scan, np.int32)
        if parts.pixel_offsets is not None:
            each = np.zeros((shape[2], shape[3], len(runs)))
            for k, name in enumerate(("pixel_offset_lon", "pixel_offset_lat")):
                arrays[name] = each + parts.pixel_offsets[None, :, k, None] / 3600.0
    return GroupArrays(
        CountsMaker(shape, np.dtype(np.float32), make), [modes[run.kind] for run in runs], arrays
    )


def _per_dump(parts: LogParts, runs: Sequence[Run], dumps: int) -> dict[str, npt.NDArray[Any]]:
    """Times and pointing [D, S]."""
    at = np.stack([np.minimum(np.arange(dumps), run.n - 1) + run.first for run in runs], axis=1)
    m, p = parts.moments, parts.pointing
    values = {
        "mjd": m.mjd,
        "exptime": m.length,
        "elevation": p.elevation,
        "azimuth": p.azimuth,
        "otf_lon": p.lon,
        "otf_lat": p.lat,
    }
    return {name: value[at] for name, value in values.items()}


def _frequencies(
    parts: LogParts, runs: Sequence[Run], receivers: int, axis: SkyAxis
) -> dict[str, npt.NDArray[Any]]:
    """The axis [R, S], the same in all subscans: the telescope keeps the rest frame in place."""
    each = np.ones((receivers, len(runs)))
    arrays = {
        "signal_freq": axis.signal * each,
        "image_freq": axis.image * each,
        "freq_res": axis.width * each,
        "ref_channel": axis.ref * each,
    }
    if parts.how == "frequency" and any(run.kind in ("ON", "OFF") for run in runs):
        arrays["freq_throw"] = each * [axis.throw if run.kind == "OFF" else 0.0 for run in runs]
    return arrays


def air(parts: LogParts, run: Run) -> tuple[float, float]:
    """Temperature of the air, K, and pressure, Torr, of a subscan; NaN where they are not recorded."""
    records = parts.moments.rows[run.moments].max(axis=1)
    said = parts.log.heads["dweather"][records][:, :2]
    said = said[np.isfinite(said).all(axis=1)]
    celsius, hpa = said.mean(axis=0).tolist() if len(said) else (float("nan"), float("nan"))
    lo, hi = AIR_POSSIBLE_C
    sound = lo <= celsius <= hi and (celsius, hpa) != (0.0, 0.0)
    pressure = hpa * TORR_PER_HPA if 300.0 <= hpa <= 1100.0 else float("nan")
    return (celsius + KELVIN if sound else float("nan")), pressure


def _weather(parts: LogParts, runs: Sequence[Run]) -> dict[str, npt.NDArray[Any]]:
    both = np.array([air(parts, run) for run in runs])
    return {"tamb": both[:, 0], "pamb": both[:, 1]}


def _hot(parts: LogParts, runs: Sequence[Run], band: Band) -> npt.NDArray[np.float64]:
    """Temperature of R [R, S], K: the profile's, else iipint of the arrays where it can be one, else the air's."""
    lo, hi = LOAD_LIKELY_K
    rows = []
    for row in band.arrays:
        told = [a.load_k for a in row if a is not None and lo <= a.load_k <= hi]
        given = parts.t_hot if np.isfinite(parts.t_hot) else (np.mean(told) if told else np.nan)
        rows.append([given if np.isfinite(given) else air(parts, run)[0] for run in runs])
    return np.array(rows, dtype=np.float64)
