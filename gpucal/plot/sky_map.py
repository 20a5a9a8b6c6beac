"""A quick map of an OTF scan: the integrated line, gridded with a Gaussian kernel of the beam's size.

Shapes: C channels, D dumps, R receivers, A pixels, S ON subscans.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.errors import ConfigError, GpucalError
from gpucal.io.l1.usable import usable_block
from gpucal.physics.velocity import C_KMS, velocity_scale
from gpucal.plot.array import ARCSEC
from gpucal.plot.binning import block_ranges
from gpucal.plot.source import F64, ScanView, frequency_axis
from gpucal.plot.style import COLOUR_MAP, MISSING, T_A, picture, robust_limits, say_in

DIAMETER_M = {"GBT": 100.0, "IRAM-30M": 30.0, "APEX": 12.0, "FYST": 6.0, "SOFIA": 2.5}
"""Telescopes whose stores need no attribute ``telescope_diameter_m``."""
FWHM_PER_SIGMA = float(np.sqrt(8.0 * np.log(2.0)))
CELLS_PER_BEAM = 6.0
MAX_CELLS = 300
"""Cells along the longer side of a map."""
MAX_MARKED = 4000
"""Positions up to which every one is marked."""
MIN_POSITIONS = 4
LOWEST_WEIGHT = 0.1
"""Cells whose summed weight is below this fraction of the median of all samples stay blank."""


@dataclass(frozen=True)
class Window:
    """Channels or velocities to integrate over: low to high in ``unit`` "km/s" or "channels"."""

    low: float
    high: float
    unit: str

    def __str__(self) -> str:
        between = f"{self.low:g} to {self.high:g}".replace("-", "\u2212")
        return f"channels {between}" if self.unit == "channels" else f"{between} km/s"


@dataclass(frozen=True, eq=False)
class SkyMap:
    """A gridded map; x, y f64 arcsec (cell centres), values f64 [len(y), len(x)], NaN without data.

    positions f64 [N,2] arcsec of the samples; beam, arcsec, with ``beam_from`` saying where it
    comes from; unit "K km/s" (integrated) or "K" (mean); window in words.
    """

    x: F64
    y: F64
    values: F64
    positions: F64
    beam: float
    beam_from: str
    unit: str
    window: str


def parse_window(text: str) -> Window:
    """Read "LO,HI" (km/s) or "LO,HIch" (channels); raises ConfigError for anything else."""
    body = text.strip()
    unit = "channels" if body.endswith("ch") else "km/s"
    parts = body.removesuffix("ch").removesuffix("km/s").split(",")
    try:
        low, high = (float(part) for part in parts)
    except ValueError as error:
        raise ConfigError(
            f"the window is {text!r}, expected two numbers: LO,HI in km/s, or LO,HIch in channels."
        ) from error
    if not np.isfinite([low, high]).all() or low == high:
        raise ConfigError(f"the window {text!r} is empty.")
    return Window(min(low, high), max(low, high), unit)


def is_map(view: ScanView) -> bool:
    """Whether the scan is an OTF with dumps at more than a few places."""
    if not str(view.attrs.get("mode", "")).startswith("otf"):
        return False
    lon, lat = view.per_subscan("otf_lon"), view.per_subscan("otf_lat")
    place = np.stack([lon.ravel(), lat.ravel()], axis=1)
    place = place[np.isfinite(place).all(axis=1)]
    return len(np.unique(place.round(7), axis=0)) >= MIN_POSITIONS


def make_map(view: ScanView, window: Window | None = None, beam: float | None = None) -> SkyMap:
    """Integrate every dump of every pixel over ``window`` and grid it.

    Without a window: the inner 80 % of the channels. ``beam``: FWHM, arcsec; else 1.2 lambda/D with
    the attribute ``telescope_diameter_m`` or a known telescope, else twice the median distance of
    neighbouring samples. Receivers and pixels are weighted with 1/T_sys^2. Raises ConfigError when the
    window holds no channel or km/s cannot be told.
    """
    channels, unit, said = _channels(view, window)
    values = _integrate(view, channels)
    if unit == "K km/s":
        scale = velocity_scale(view.attrs, frequency_axis(view))
        assert scale is not None
        values = values * abs(_total_width(view, channels)) * C_KMS * scale.doppler / scale.rest
    x, y = _positions(view)
    weight = np.broadcast_to(_weights(view)[None, :, :, None], values.shape)
    good = np.isfinite(values) & np.isfinite(x) & np.isfinite(y) & (weight > 0)
    if not good.any():
        raise GpucalError(f"{view.label} has no valid sample to map.")
    where = np.stack([x[good], y[good]], axis=1)
    fwhm, told = _beam(view, beam, where)
    grid_x, grid_y = _cells(where[:, 0], fwhm), _cells(where[:, 1], fwhm)
    gridded = grid(where, values[good], weight[good], (grid_x, grid_y), fwhm)
    return SkyMap(grid_x, grid_y, gridded, where, fwhm, told, unit, said)


def grid(
    where: F64, values: F64, weight: F64, cells: tuple[F64, F64], fwhm: float
) -> npt.NDArray[np.float64]:
    """Weighted mean with a Gaussian kernel, f64 [len(y), len(x)].

    where f64 [N,2], values, weight f64 [N]; ``cells`` the centres along x and y. The kernel is cut at 3
    sigma. map = sum w k v / sum w k; NaN in cells without enough weight. A point source comes out
    with sqrt(beam^2 + fwhm^2).
    """
    sigma = fwhm / FWHM_PER_SIGMA
    step = 3.0 * sigma
    total, weights = np.zeros((2, cells[1].size, cells[0].size))
    order = np.argsort(where[:, 1], kind="stable")
    where, values, weight = where[order], values[order], weight[order]
    for row, y in enumerate(cells[1]):
        first, last = np.searchsorted(where[:, 1], (y - step, y + step))
        near = slice(int(first), int(last))
        dy2 = (where[near, 1] - y) ** 2
        for start in range(near.start, near.stop, 4096):
            part = slice(start, min(near.stop, start + 4096))
            r2 = (where[part, 0][:, None] - cells[0]) ** 2 + dy2[
                part.start - near.start : part.stop - near.start, None
            ]
            kernel = np.where(r2 <= step**2, np.exp(-0.5 * r2 / sigma**2), 0.0)
            kernel *= weight[part, None]
            weights[row] += kernel.sum(axis=0)
            total[row] += values[part] @ kernel
    enough = weights > LOWEST_WEIGHT * float(np.median(weight))
    return np.divide(total, weights, out=np.full_like(total, np.nan), where=enough)


def plot_map(view: ScanView, path: Path, window: Window | None, beam: float | None) -> None:
    """Draw the quick map with the positions of the samples and the beam."""
    from matplotlib.patches import Circle

    made = make_map(view, window, beam)
    wide = float(np.ptp(made.x) / np.ptp(made.y))
    height = float(np.clip(5.6 / wide, 2.8, 7.0))
    size = (1.9 + float(np.clip(height * wide, 2.8, 5.6)), 1.4 + height)
    with picture(path, size, view.title) as figure:
        axes = figure.add_subplot()
        low, high = robust_limits(made.values, 0.0, 100.0)
        image = axes.pcolormesh(
            made.x, made.y, made.values, cmap=COLOUR_MAP, vmin=low, vmax=high, rasterized=True
        )
        axes.set_facecolor(MISSING)
        axes.grid(False)
        if not np.isfinite(made.values).any():
            say_in(axes, "no valid samples")
        step = max(1, -(-len(made.positions) // MAX_MARKED))
        axes.plot(*made.positions[::step].T, ".", color="white", markersize=1.2, alpha=0.6)
        axes.set_aspect("equal")
        half = 0.5 * (made.x[1] - made.x[0])
        axes.set_xlim(made.x[-1] + half, made.x[0] - half)  # longitude grows to the left
        axes.set_ylim(made.y[0] - half, made.y[-1] + half)
        corner = (made.x[-1] - 0.8 * made.beam, made.y[0] + 0.8 * made.beam)
        axes.add_patch(
            Circle(corner, 0.5 * made.beam, facecolor="none", edgecolor="white", hatch="////")
        )
        axes.set_xlabel("longitude offset [arcsec]")
        axes.set_ylabel("latitude offset [arcsec]")
        if not np.isfinite(made.values).all():
            axes.set_xlabel("longitude offset [arcsec]\ngrey: no samples near;  dots: samples")
        axes.set_title(
            f"{made.window};  beam and kernel {made.beam:.3g}\u2033 ({made.beam_from})",
            loc="left",
            fontsize=8.5,
        )
        what = rf"$\int${T_A} d$v$" if made.unit == "K km/s" else f"mean {T_A}"
        figure.colorbar(image, ax=axes, label=f"{what} [{made.unit}]", pad=0.02, aspect=30)


def _channels(view: ScanView, window: Window | None) -> tuple[npt.NDArray[np.bool_], str, str]:
    """Channels [C,R] of the window, unit of the map, window in words."""
    frequency = frequency_axis(view)
    scale = velocity_scale(view.attrs, frequency)
    unit = "K" if scale is None else "K km/s"
    number = np.arange(frequency.shape[0])[:, None]
    if window is None:
        cut = int(0.1 * frequency.shape[0])
        inside = (number >= cut) & (number < frequency.shape[0] - cut)
        chosen = np.broadcast_to(inside, frequency.shape)
        return chosen, unit, "inner 80 % of the band"
    if window.unit == "channels":
        inside = (number >= window.low) & (number <= window.high)
        chosen = np.broadcast_to(inside, frequency.shape)
    elif scale is None:
        raise ConfigError(
            f"{view.label} has no rest frequency in its band, so {window} cannot be found.",
            hint="Give channels, such as 100,200ch.",
        )
    else:
        velocity = scale.velocity(frequency)
        chosen = (velocity >= window.low) & (velocity <= window.high)
    if not chosen.any(axis=0).all():
        raise ConfigError(f"{view.label} has no channel in the window {window}.")
    return chosen, unit, str(window)


def _total_width(view: ScanView, channels: npt.NDArray[np.bool_]) -> float:
    """Width of the window in Hz, of the first receiver."""
    frequency = frequency_axis(view)[:, 0]
    spacing = float(np.median(np.diff(frequency))) if frequency.size > 1 else 0.0
    return spacing * int(channels[:, 0].sum())


def _integrate(view: ScanView, channels: npt.NDArray[np.bool_]) -> F64:
    """Mean over the chosen channels, f64 [D,R,A,S] K, NaN-aware; only their blocks are read."""
    _, dumps, receivers, pixels, subscans = view.shape
    total, count = np.zeros((2, dumps, receivers, pixels, subscans))
    for c0, c1, s in block_ranges(view, "spectra"):
        chosen = channels[c0:c1]
        if not chosen.any():
            continue
        block = usable_block(view.arrays, (slice(c0, c1), ..., s))
        good = np.isfinite(block) & chosen[:, None, :, None]
        total[..., s] += np.where(good, block, 0.0).sum(axis=0)
        count[..., s] += good.sum(axis=0)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def _positions(view: ScanView) -> tuple[F64, F64]:
    """Offsets of every sample, f64 [D,R,A,S] arcsec; absolute positions become offsets."""
    lon, lat = view.per_subscan("otf_lon"), view.per_subscan("otf_lat")
    if np.nanmax(np.abs([lon, lat]), initial=0.0) > 5.0:  # deg: a position, not an offset
        centre = float(np.nanmedian(lat))
        lon = (lon - np.nanmedian(lon)) * np.cos(np.radians(centre))
        lat = lat - centre
    out = []
    for track, name in ((lon, "pixel_offset_lon"), (lat, "pixel_offset_lat")):
        offset = view.small(name)
        if offset is None:
            offset = np.zeros((view.shape[2], view.shape[3], 1))
        offset = offset[..., None] if offset.ndim == 2 else offset
        out.append((track[:, None, None, :] + offset[None]) * ARCSEC)
    return out[0], out[1]


def _weights(view: ScanView) -> F64:
    """Relative weight 1/T_sys^2 of every receiver and pixel, f64 [R,A]; 0 without a T_sys."""
    if "t_sys" not in view.arrays:
        return np.ones(view.shape[2:4])
    t_sys = np.asarray(view.arrays["t_sys"][:, :, :, 0], dtype=np.float64)
    alive = (t_sys > 0).any(axis=0)
    middle: F64 = np.full(t_sys.shape[1:], np.inf)
    middle[alive] = np.nanmedian(t_sys[:, alive], axis=0)
    if not alive.any():
        return np.ones(middle.shape)
    return np.array((middle.min() / middle) ** 2, dtype=np.float64)


def _beam(view: ScanView, given: float | None, where: F64) -> tuple[float, str]:
    """FWHM in arcsec, and in words where it came from: the option, the dish, else the sampling."""
    if given is not None:
        return given, "given"
    telescope = str(view.store_attrs.get("telescope", ""))
    told = view.attrs.get("telescope_diameter_m") or view.store_attrs.get("telescope_diameter_m")
    diameter = float(told or DIAMETER_M.get(telescope.upper(), 0.0))
    frequency = float(np.nanmean(frequency_axis(view)))
    if diameter > 0:
        beam = 1.2 * C_KMS * 1e3 / frequency / diameter
        return float(np.degrees(beam) * ARCSEC), f"1.2 λ/D, D = {diameter:g} m"
    return _twice_spacing(where), "twice the sampling"


def _twice_spacing(where: F64) -> float:
    """Twice the median distance of neighbouring positions, arcsec; 20 for a single position."""
    from scipy.spatial import cKDTree

    places = np.unique(where.round(3), axis=0)
    if len(places) < 2:
        return 20.0
    distance: Any = cKDTree(places).query(places, k=2)[0][:, 1]
    return 2.0 * float(np.median(distance))


def _cells(offsets: F64, fwhm: float) -> F64:
    """Centres of cells that cover the samples with half a beam around them, arcsec."""
    low, high = float(offsets.min()) - 0.5 * fwhm, float(offsets.max()) + 0.5 * fwhm
    step = max(fwhm / CELLS_PER_BEAM, (high - low) / MAX_CELLS)
    count = max(2, round((high - low) / step) + 1)
    middle, half = 0.5 * (low + high), 0.5 * step * (count - 1)
    return np.linspace(middle - half, middle + half, count)
