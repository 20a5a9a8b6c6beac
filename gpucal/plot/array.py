"""T_rec, T_sys and measured over expected rms of every pixel, on the footprint of the array."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.plot.binning import Binned
from gpucal.plot.source import F64, ScanView
from gpucal.plot.style import COLOUR_MAP, MISSING, T_REC, T_SYS, picture, robust_limits

MAX_COLUMNS = 4
"""Receivers in one picture; more go to further pictures."""
MAX_LABELLED = 150
"""Pixels above which value labels would be unreadable."""
ARCSEC = 3600.0


def plot_array(view: ScanView, binned: Binned, path: Path) -> list[Path]:
    """Draw one row per quantity and one column per receiver; returns the files written."""
    rows = [
        (f"{T_REC} [K]", channel_median(view.small("t_rec"), view.shape[2:4])),
        (f"{T_SYS} [K]", channel_median(binned.t_sys, view.shape[2:4])),
        ("rms / expected", _rms_ratio(view)),
    ]
    known = [(name, values) for name, values in rows if np.isfinite(values).any()]
    rows = known or rows
    receivers = view.shape[2]
    written = []
    for first in range(0, receivers, MAX_COLUMNS):
        columns = list(range(first, min(receivers, first + MAX_COLUMNS)))
        target = path if receivers <= MAX_COLUMNS else _page(path, first // MAX_COLUMNS + 1)
        _draw_page(view, rows, columns, target)
        written.append(target)
    return written


def _page(path: Path, number: int) -> Path:
    """Name of one of several pages of a picture."""
    return path.with_name(f"{path.stem}_{number}{path.suffix}")


def channel_median(values: F64 | None, shape: tuple[int, ...]) -> F64:
    """NaN-aware median over channels of [C,R,A], as [R,A]; NaN for pixels without a value."""
    result = np.full(shape, np.nan)
    if values is not None and values.shape[0]:
        alive = np.isfinite(values).any(axis=0)
        result[alive] = np.nanmedian(values[:, alive], axis=0)
    return result


def _rms_ratio(view: ScanView) -> F64:
    """Measured over expected rms, f64 [R,A]."""
    ratio = view.quality("rms_ratio")
    return np.array(np.broadcast_to(ratio, view.shape[2:4]))


def _draw_page(view: ScanView, rows: list[tuple[str, F64]], columns: list[int], path: Path) -> None:
    """Draw one page: for one receiver the quantities side by side, for several a row per quantity."""
    flat = len(columns) == 1
    size = (5.0 * len(rows), 4.9) if flat else (1.6 + 3.6 * len(columns), 1.0 + 3.3 * len(rows))
    with picture(path, size, view.title) as figure:
        panels = figure.subplots(
            *((1, len(rows)) if flat else (len(rows), len(columns))), squeeze=False
        )
        panels = panels.T if flat else panels
        for row, (name, values) in enumerate(rows):
            limits = _colour_range(values[columns], ratio=_unit(name) == "")
            for column, receiver in enumerate(columns):
                axes = panels[row, column]
                x, y, placed = footprint(view, receiver)
                shown = _draw_pixels(axes, x, y, values[receiver], limits)
                median = _median(values[receiver], _unit(name))
                axes.set_title(f"{name.split(' [')[0]}, receiver {receiver}: {median}", loc="left")
                below = flat or row == len(rows) - 1
                _label_axes(
                    axes, placed=placed, below=below, left=column == 0 and not (flat and row)
                )
            figure.colorbar(shown, ax=list(panels[row]), label=name, pad=0.02, aspect=25)


def _unit(name: str) -> str:
    """The unit in brackets of a name such as "T_rec [K]"."""
    return name.partition(" [")[2].rstrip("]")


def _colour_range(values: F64, *, ratio: bool) -> tuple[float, float]:
    """Limits of the colours; for a ratio at least 0.9 to 1.1."""
    low, high = robust_limits(values, 0.0, 100.0)
    # A ratio near one is good: its scatter of a few per cent must not fill the colour bar.
    return (min(low, 0.9), max(high, 1.1)) if ratio else (low, high)


def _label_axes(axes: Any, *, placed: bool, below: bool, left: bool) -> None:
    if not placed:
        axes.set_xticks([])
        axes.set_yticks([])
    if below:
        axes.set_xlabel(
            "longitude offset [arcsec]" if placed else "no offsets: order of the pixels"
        )
    if left and placed:
        axes.set_ylabel("latitude offset [arcsec]")


def _median(values: F64, unit: str) -> str:
    finite = values[np.isfinite(values)]
    return f"median {_label(float(np.median(finite)))} {unit}" if finite.size else "not known"


def footprint(view: ScanView, receiver: int) -> tuple[F64, F64, bool]:
    """Offsets of the pixels, arcsec [A], of the first ON subscan.

    Without usable offsets the pixels are laid out on a square grid and False is returned.
    """
    offsets = []
    pixels = view.shape[3]
    for name in ("pixel_offset_lon", "pixel_offset_lat"):
        values = view.small(name)
        if values is None:
            break
        values = values[:, :, 0] if values.ndim == 3 else values
        offsets.append(values[receiver] * ARCSEC)
    if len(offsets) == 2:
        together = np.stack(offsets, axis=1)
        finite = bool(np.isfinite(together).all())
        if finite and len(np.unique(together.round(4), axis=0)) == pixels:
            return together[:, 0], together[:, 1], True
    side = int(np.ceil(np.sqrt(pixels)))
    index = np.arange(pixels)
    return (index % side).astype(np.float64), -(index // side).astype(np.float64), False


def _spacing(x: F64, y: F64) -> float:
    """Distance of the closest two pixels; 20 for a single one."""
    if x.size < 2:
        return 20.0
    distance = np.hypot(x[:, None] - x, y[:, None] - y)
    np.fill_diagonal(distance, np.inf)
    return float(distance.min())


def _draw_pixels(axes: Any, x: F64, y: F64, values: F64, limits: tuple[float, float]) -> Any:
    """Draw a circle per pixel with its value in it; a pixel without value is grey and hatched."""
    from matplotlib.collections import PatchCollection
    from matplotlib.colors import Normalize
    from matplotlib.patches import Circle

    radius = 0.46 * _spacing(x, y)
    known = np.isfinite(values)
    circles = [Circle((px, py), radius) for px, py in zip(x, y, strict=True)]
    good = PatchCollection(
        [c for c, k in zip(circles, known, strict=True) if k],
        cmap=COLOUR_MAP,
        norm=Normalize(*limits),
        edgecolor="#333333",
        linewidth=0.5,
    )
    good.set_array(values[known])
    axes.add_collection(good)
    dead = [c for c, k in zip(circles, known, strict=True) if not k]
    axes.add_collection(
        PatchCollection(dead, facecolor="#f4f4f4", edgecolor=MISSING, hatch="////", linewidth=0.5)
    )
    if values.size <= MAX_LABELLED:
        _write_values(axes, x, y, values, limits)
    axes.grid(False)
    axes.set_aspect("equal")
    # Longitude grows to the left, as on the sky.
    axes.set_xlim(float(x.max()) + 1.5 * radius, float(x.min()) - 1.5 * radius)
    axes.set_ylim(float(y.min()) - 1.5 * radius, float(y.max()) + 1.5 * radius)
    return good


def _write_values(
    axes: Any, x: F64, y: F64, values: npt.NDArray[np.float64], limits: tuple[float, float]
) -> None:
    """Write pixel number and value into each circle, in a colour that contrasts with it."""
    size = float(np.clip(32.0 / np.sqrt(values.size), 4.0, 8.5))
    for pixel, (px, py, value) in enumerate(zip(x, y, values, strict=True)):
        bright = (value - limits[0]) / (limits[1] - limits[0]) > 0.55
        color = "black" if bright or not np.isfinite(value) else "white"
        text = f"{pixel}\n" + (_label(float(value)) if np.isfinite(value) else "–")
        axes.text(px, py, text, ha="center", va="center", fontsize=size, color=color)


def _label(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"
