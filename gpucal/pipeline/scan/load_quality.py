"""Quality of a load scan by itself: receiver temperature, bad channels, and which pixels it can serve."""

from __future__ import annotations

import math
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.backend.protocol import Backend
from gpucal.config import CalibrationConfig
from gpucal.errors import ConfigError, LoadError
from gpucal.products import LoadMeans, SpectralSetup
from gpucal.scan import Scan
from gpucal.steps.loads import (
    bad_channels,
    load_brightness,
    load_means,
    require_good,
    solve_loads,
    spectral_setup,
)

Array = Any
F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

MOST_CONTRAST = 10.0
"""HOT/COLD - 1 of a channel counts up to this: one channel at the edge of the band must not decide for all."""
SAME_VANE_K = 1.0
"""A vane whose temperature differs by more does not serve a pixel of another load scan."""
SAME_SKY = math.radians(1.0)
"""SKY subscans at elevations further apart have airmasses of their own."""
MOST_NAMED = 5


@dataclass(frozen=True, eq=False)
class LoadQuality:
    """Receiver temperature and fraction of bad channels of each pixel.

    t_rec f64 [R,A] K, median over good channels, NaN without one and for a vane; bad f64 [R,A], fraction of the
    channels, 1 where the loads cannot be told apart.
    """

    t_rec: F64
    bad: F64


def load_quality(
    scan: Scan, config: CalibrationConfig, backend: Backend, pool: Executor | None = None
) -> LoadQuality:
    """Solve the loads of one scan and band; physics section 4, equation (4.3).

    Without COLD the HOT is a vane, compared with the SKY of the same scan as section 9 asks: bad channels, and no
    T_rec. Raises LoadError for loads that cannot be used.
    """
    means = load_means(scan, config, backend, pool)
    valid = valid_pixels(means, setup_or_none(scan, config, backend), config, backend)
    if means.cold is None:
        found = _vane_quality(means, config, backend)
        return LoadQuality(found.t_rec, np.where(valid, found.bad, 1.0))
    setup = spectral_setup(scan, config, backend)
    loads = solve_loads(means, setup, config, backend)
    t_rec = np.asarray(backend.to_host(loads.t_rec), dtype=np.float64)
    bad = np.asarray(backend.to_host(loads.bad)) | ~np.isfinite(t_rec) | ~valid
    empty = bad.all(axis=0)
    median = np.nanmedian(np.where(bad & ~empty, np.nan, t_rec), axis=0)
    return LoadQuality(np.where(empty, np.nan, median), bad.mean(axis=0))


def _vane_quality(means: LoadMeans, config: CalibrationConfig, backend: Backend) -> LoadQuality:
    """Bad channels of a vane against its SKY; against nothing where the scan has no SKY."""
    sky = means.sky if means.sky is not None else backend.xp.zeros_like(means.hot)
    bad = bad_channels(means.hot - sky, None, config, backend)
    require_good(bad, "SKY", means.scan, backend)
    fraction = np.asarray(backend.to_host(bad)).mean(axis=0)
    return LoadQuality(np.full(fraction.shape, np.nan), fraction)


def setup_or_none(scan: Scan, config: CalibrationConfig, backend: Backend) -> SpectralSetup | None:
    """The setup of a load scan; None where its gains are not known, as a load scan need not say them."""
    try:
        return spectral_setup(scan, config, backend)
    except ConfigError:
        return None


def valid_pixels(
    means: LoadMeans,
    setup: SpectralSetup | None,
    config: CalibrationConfig,
    backend: Backend,
    own_sky: Array | None = None,
) -> Mask:
    """Which pixels the loads can serve, bool [R,A]; physics section 8, "Valid loads".

    HOT must lie above COLD (of a vane: above the sky) in the mean over the channels, by so much that T_rec (T_sys*)
    is not above ``clip_trec``, and one channel at least must be good by the rules of section 4. ``own_sky`` f64
    [C,R,A] counts: what a vane without SKY is compared with. Raises LoadError, which says why, when no pixel is valid.
    """
    xp = backend.xp
    vane = means.cold is None or config.cal_scheme in ("vane", "vane-channel")
    other = (means.sky if means.sky is not None else own_sky) if vane else means.cold
    if other is None:  # a vane of which nothing is known but its counts
        there = xp.any(xp.isfinite(means.hot), axis=0)
        return _some(np.asarray(backend.to_host(there)), means.scan, "it has no counts")
    both = xp.isfinite(means.hot) & xp.isfinite(other) & (other > 0)
    ratio = xp.where(both, means.hot / xp.where(both, other, 1.0) - 1.0, 0.0)
    number = xp.sum(xp.astype(both, xp.float64), axis=0)
    total = xp.sum(xp.clip(ratio, -1.0, MOST_CONTRAST), axis=0)
    contrast, seen = (np.asarray(backend.to_host(x), dtype=np.float64) for x in (total, number))
    contrast /= np.maximum(seen, 1.0)
    hot = _of_receivers(means.t_hot)
    if vane:
        # What cannot be compared, as the sky has no counts, is not the fault of the vane.
        there = np.asarray(backend.to_host(xp.any(xp.isfinite(means.hot), axis=0)))
        good = np.where(seen > 0, contrast * config.clip_trec >= hot[:, None], there)
        return _some(good, means.scan, "the HOT counts do not lie above those of the sky")
    cold = _of_receivers(means.t_cold)
    wanted = (hot - cold)[:, None] / (config.clip_trec + cold[:, None])
    good = (seen > 0) & (contrast > 0) & (contrast >= wanted)
    if setup is not None and good.any():
        bad = solve_loads(means, setup, config, backend).bad
        good &= ~np.asarray(backend.to_host(bad)).all(axis=0)
    return _some(good, means.scan, "the HOT and COLD counts cannot be told apart")


def _of_receivers(temperature: Array) -> F64:
    """One physical temperature per receiver, f64 [R] K."""
    t = np.asarray(temperature, dtype=np.float64)
    return np.asarray(t.mean(axis=(0, 1)) if t.ndim == 3 else t)


def _some(good: Mask, scan: int, why: str) -> Mask:
    """``good`` if any pixel is; else raises LoadError."""
    if not good.any():
        raise LoadError(
            f"no pixel can be calibrated with the loads of scan {scan}: {why}, in the mean over the channels.",
            hint="Look at the counts of the loads; --clip-trec sets the highest T_rec that is believed.",
        )
    return np.asarray(good, dtype=np.bool_)


def blank(means: LoadMeans, valid: Mask, backend: Backend) -> LoadMeans:
    """The loads without the pixels that they cannot serve; the same object where they serve all."""
    if valid.all():
        return means
    xp, keep = backend.xp, backend.asarray(valid)[None, ...]
    cold = None if means.cold is None else xp.where(keep, means.cold, xp.nan)
    return replace(means, hot=xp.where(keep, means.hot, xp.nan), cold=cold)


def can_lend(means: LoadMeans, other: LoadMeans) -> bool:
    """Whether pixels of ``other`` may stand in for some of ``means``: both of one kind, at like temperatures."""
    if (means.cold is None) != (other.cold is None):
        return False
    if np.shape(means.t_hot) != np.shape(other.t_hot):
        return False
    if means.cold is not None:
        return True
    return bool(
        np.all(np.abs(_of_receivers(means.t_hot) - _of_receivers(other.t_hot)) <= SAME_VANE_K)
    )


def with_pixels_of(
    means: LoadMeans, other: LoadMeans, pixels: Mask, setup: SpectralSetup, backend: Backend
) -> LoadMeans:
    """``means`` with some pixels, bool [R,A], of ``other``.

    Their counts are put on the temperatures of the loads of ``means`` along the line through HOT and COLD, which leaves
    T_rec and counts per kelvin as they are (equation 4.1 is linear in J). A vane keeps its counts: see ``can_lend``.
    """
    xp = backend.xp
    take = backend.asarray(pixels)[None, ...]
    hot, cold = other.hot, other.cold
    if cold is not None:
        j_hot, j_cold, new_hot, new_cold = (
            load_brightness(setup, t, backend, coupling)
            for x in (other, means)
            for t, coupling in ((x.t_hot, x.hot_coupling), (x.t_cold, x.cold_coupling))
        )
        per_kelvin = (hot - cold) / (j_hot - j_cold)
        hot, cold = (
            cold + per_kelvin * (new_hot - j_cold),
            cold + per_kelvin * (new_cold - j_cold),
        )
        assert means.cold is not None
        cold = xp.where(take, cold, means.cold)
    sky = means.sky
    if sky is not None and other.sky is not None and _one_sky(means, other):
        sky = xp.where(take, other.sky, sky)
    elif (
        sky is not None and cold is not None
    ):  # it belongs to loads that are not those of these pixels
        sky = xp.where(take, xp.nan, sky)
    return replace(
        means,
        hot=xp.where(take, hot, means.hot),
        cold=cold,
        sky=sky,
        others=(*means.others, other.scan),
    )


def _one_sky(means: LoadMeans, other: LoadMeans) -> bool:
    """Whether the SKY of both is at one elevation; that of a vane is taken as it is."""
    apart = abs(means.sky_elevation - other.sky_elevation)
    return means.cold is None or (apart < SAME_SKY and other.sky_spread < SAME_SKY)


def named(pixels: Mask) -> str:
    """The pixels of a mask [R,A] in words."""
    places = [f"receiver {r} pixel {a}" for r, a in np.argwhere(pixels)]
    more = len(places) - MOST_NAMED
    return ", ".join(places[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
