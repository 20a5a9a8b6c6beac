"""All dumps of one pixel against frequency."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gpucal.plot.binning import Binned
from gpucal.plot.source import F64, ScanView
from gpucal.plot.spectra import add_upper_axis
from gpucal.plot.style import (
    MISSING,
    OKABE_ITO,
    T_A,
    curve_limits,
    draw_steps,
    frequency_limits,
    line_width,
    picture,
    robust_limits,
    say_in,
    show_curves,
)

MAX_MARKED = 40
"""Subscans up to which their borders are drawn."""


def central_pixel(view: ScanView) -> tuple[int, int]:
    """The (receiver, pixel) nearest to the middle of the array that has a T_rec, or without any a T_sys."""
    _, _, receivers, pixels, _ = view.shape
    distance = np.zeros((receivers, pixels))
    for name in ("pixel_offset_lon", "pixel_offset_lat"):
        values = view.small(name)
        if values is not None:
            values = values[:, :, 0] if values.ndim == 3 else values
            distance += np.nan_to_num(values, nan=1e3) ** 2
    for name in ("t_rec", "t_sys"):
        known = view.small(name)
        if known is not None and np.isfinite(known).any():
            known = known[..., 0] if known.ndim == 4 else known
            distance[~np.isfinite(known).any(axis=0)] = np.inf
            break
    receiver, pixel = np.unravel_index(int(np.argmin(distance)), distance.shape)
    return int(receiver), int(pixel)


def plot_waterfall(view: ScanView, binned: Binned, path: Path) -> None:
    """Draw the spectra of one pixel as an image, dump by dump, with their mean above."""
    from matplotlib.colors import Normalize

    receiver, pixel = binned.pixel
    title = f"{view.title}   receiver {receiver}, pixel {pixel}"
    values = binned.waterfall
    with picture(path, (8.5, 6.0), title) as figure:
        grid = figure.add_gridspec(2, 1, height_ratios=[1, 3])
        below = figure.add_subplot(grid[1])
        above = figure.add_subplot(grid[0], sharex=below)
        x = binned.frequency[:, receiver] / 1e9
        mean = binned.mean[:, receiver, pixel]
        draw_steps(above, x, mean, color=OKABE_ITO[0], linewidth=line_width(mean))
        above.axhline(0.0, color="#777777", linewidth=0.6)
        show_curves(above, mean, curve_limits(mean), "K", top=0.0, room=0.25)
        if not np.isfinite(mean).any():
            say_in(above, "no valid samples")
        above.set_ylabel(f"mean {T_A} [K]")
        above.tick_params(labelbottom=False)
        add_upper_axis(above, view, binned, receiver)
        low, high = _colours(values, mean)
        image = below.pcolormesh(
            _edges(x), _edges(binned.dump), values, norm=Normalize(low, high), rasterized=True
        )
        below.grid(False)
        _mark_missing(below, values)
        below.set_xlabel("signal frequency [GHz]")
        below.set_xlim(*frequency_limits(_edges(x)))
        below.set_ylabel("dump, all ON subscans in order")
        if binned.dump.size == 1:
            below.set_yticks(binned.dump)
        else:
            below.yaxis.get_major_locator().set_params(integer=True)
        below.ticklabel_format(axis="x", useOffset=False)
        figure.colorbar(image, ax=below, label=f"{T_A} [K]", extend="both", pad=0.02, aspect=25)
        _mark_subscans(below, view)
        if not np.isfinite(values).any():
            say_in(below, "no valid samples")


def _colours(values: F64, mean: F64) -> tuple[float, float]:
    """Range of the colours: 98 % of the samples, and the line of the mean whatever share it has."""
    low, high = robust_limits(values, 1.0, 99.0)
    line = curve_limits(mean)
    return (min(low, line[0]), max(high, line[1])) if np.isfinite(mean).any() else (low, high)


def _mark_missing(axes: Any, values: F64) -> None:
    """Hatch what has no data, so that it looks like neither a value nor a border, and say so."""
    axes.set_facecolor(MISSING)
    axes.patch.set(hatch="////", edgecolor="#ffffff", linewidth=0.0)
    if np.isnan(values).any():
        axes.set_title("grey, hatched: flagged or no data", loc="left", fontsize=7)


def _edges(centres: Any) -> Any:
    """Borders of cells from their middles; a single cell gets the width 1 (or 1 MHz in GHz)."""
    if centres.size == 1:
        half = 0.5 if abs(centres[0]) < 1 else 5e-4
        return np.array([centres[0] - half, centres[0] + half])
    middle = 0.5 * (centres[1:] + centres[:-1])
    first, last = 2 * centres[0] - middle[0], 2 * centres[-1] - middle[-1]
    return np.concatenate([[first], middle, [last]])


def _mark_subscans(axes: Any, view: ScanView) -> None:
    """Draw borders between subscans, with their numbers in the raw store at the right."""
    _, dumps, _, _, subscans = view.shape
    if not 1 < subscans <= MAX_MARKED or dumps < 2:
        return
    index = view.small("on_index")
    axes.set_title("subscan", loc="right", fontsize=7)
    for s in range(subscans):
        if s:
            axes.axhline(s * dumps - 0.5, color="white", linewidth=0.6)
        name = f"{index[s]:.0f}" if index is not None else f"{s}"
        axes.annotate(
            name,
            (1.003, (s + 0.5) * dumps - 0.5),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=6 if subscans > 15 else 7,
            annotation_clip=False,
        )
