"""The groups of one scan and band: small arrays, and the maker of the counts.

Shapes use C channels, D dumps, R receivers, A array pixels, S subscans.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.io.fits.units import Unit
from gpucal.io.incoming.assumptions import Assumptions
from gpucal.io.l0.write import CountsMaker, GroupArrays
from gpucal.io.mbfits.axis import SkyAxis
from gpucal.io.mbfits.counts import Layout, counts_of
from gpucal.io.mbfits.dataset import BLANK, Dataset
from gpucal.io.mbfits.feeds import Feeds, turned
from gpucal.io.mbfits.modes import LOADS, Observed, Sorted
from gpucal.io.mbfits.monitor import Air


@dataclass(frozen=True)
class Around:
    """What the monitor points of a subscan say: the air, and the temperatures of the loads, K."""

    air: Air
    hot: float
    cold: float


def filled(around: Mapping[int, Around]) -> dict[int, Around]:
    """Around each subscan, in order of time; what its own points do not say is that of the nearest which says it.

    Points that are recorded once a minute are missing in short subscans.
    """
    rows = [[a.air.tamb, a.air.pamb, a.air.pwv, a.hot, a.cold] for a in around.values()]
    table = np.array(rows)
    for column in table.T:
        there = np.flatnonzero(np.isfinite(column))
        missing = np.flatnonzero(~np.isfinite(column)) if there.size else there
        for k in missing:
            column[k] = column[there[np.argmin(np.abs(there - k))]]
    return {
        n: Around(Air(*row[:3]), *row[3:]) for n, row in zip(around, table.tolist(), strict=True)
    }


@dataclass(frozen=True, eq=False)
class Band:
    """All that the subscans of a band share, and what each has of its own (by its number)."""

    name: str
    key: tuple[str, int]
    layout: Layout
    feeds: Feeds
    axes: Mapping[int, SkyAxis]
    units: Mapping[int, Unit]
    around: Mapping[int, Around]
    sums: bool = False


def group_of(
    dataset: Dataset, band: Band, kinds: Sorted, observed: Sequence[Observed], assumed: Assumptions
) -> GroupArrays:
    """``source/`` or ``calibration/``: subscans with fewer dumps than the longest are padded with NaN counts."""
    deep = max(o.dumps.n for o in observed)
    n_receivers, n_pixels = band.feeds.places.shape
    shape = (band.layout.channels, deep, n_receivers, n_pixels, len(observed))

    def make(s: int) -> npt.NDArray[Any]:
        o = observed[s]
        unit = band.units[o.subscan.number]
        return counts_of(dataset, unit, band.layout, band.feeds, o.dumps, deep, band.sums)

    loads = observed[0].mode in LOADS
    arrays = _per_dump(observed, deep) | _axis(band, kinds, observed, n_receivers)
    around = [band.around[o.subscan.number] for o in observed]
    arrays |= {
        "tamb": np.array([x.air.tamb for x in around]),
        "pamb": np.array([x.air.pamb for x in around]),
    }
    if loads:
        arrays["thot"] = np.array([x.hot for x in around])
        arrays["tcold"] = np.array([x.cold for x in around])
        del arrays["otf_lon"], arrays["otf_lat"]
    if n_pixels > 1 or band.feeds.is_array:
        arrays |= _pixel_offsets(dataset, band, observed, n_receivers, assumed)
    maker = CountsMaker(shape, np.dtype(band.layout.dtype), make)
    return GroupArrays(maker, [o.mode for o in observed], arrays)


def _per_dump(observed: Sequence[Observed], deep: int) -> dict[str, npt.NDArray[Any]]:
    """Times, pointing and phase [D, S]; padding repeats the last dump, or for phases the cycle."""
    columns: dict[str, list[npt.NDArray[Any]]] = {}
    for o in observed:
        at = np.minimum(np.arange(deep), o.dumps.n - 1)
        values: dict[str, npt.NDArray[Any]] = {
            "mjd": o.dumps.mjd,
            "exptime": o.dumps.length,
            "elevation": o.dumps.values["elevation"],
            "azimuth": o.dumps.values["azimuth"],
            "otf_lon": o.dumps.values["lon"] - o.origin[0],
            "otf_lat": o.dumps.values["lat"] - o.origin[1],
        }
        for name, value in values.items():
            columns.setdefault(name, []).append(value[at])
        if o.chop is not None:
            columns.setdefault("chop_phase", []).append(np.resize(o.chop, deep))
    return {name: np.stack(parts, axis=1) for name, parts in columns.items()}


def _axis(
    band: Band, kinds: Sorted, observed: Sequence[Observed], receivers: int
) -> dict[str, npt.NDArray[Any]]:
    """The frequency axis [R, S] of each subscan, and the throws of a frequency switch."""
    axes = [band.axes[o.subscan.number] for o in observed]
    rows = {
        "signal_freq": [a.signal for a in axes],
        "image_freq": [a.signal if a.image is None else a.image for a in axes],
        "freq_res": [a.step for a in axes],
        "ref_channel": [a.reference for a in axes],
    }
    if any(o.phase for o in observed):
        rows["freq_throw"] = [kinds.throws[o.phase] for o in observed]
    return {name: np.tile(np.array(row), (receivers, 1)) for name, row in rows.items()}


def _pixel_offsets(
    dataset: Dataset,
    band: Band,
    observed: Sequence[Observed],
    receivers: int,
    assumed: Assumptions,
) -> dict[str, npt.NDArray[Any]]:
    """Offsets of the pixels on the sky [R, A, S], deg."""
    turns = []
    for o in observed:
        pars = o.subscan.pars
        dewar = pars.number("DEWANG", BLANK)
        place = f"{dataset.lead}, subscan {o.subscan.number}"
        angles = o.dumps.values["rotation"]
        turns.append(turned(band.feeds, angles, dewar, place, dataset, assumed))
    both = np.tile(np.stack(turns, axis=2)[None], (receivers, 1, 1, 1))
    return {"pixel_offset_lon": both[:, :, 0, :], "pixel_offset_lat": both[:, :, 1, :]}
