"""T_rec, T_sys and measured over expected rms of every pixel, on the footprint of the array."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gpucal.plot.binning import Binned
from gpucal.plot.source import F64, ScanView, t_sys_name
from gpucal.plot.style import COLOUR_MAP, MISSING, T_REC, picture, robust_limits

MAX_COLUMNS = 4
"""Receivers in one picture; more go to further pictures."""
PITCH_INCH = 0.45
"""Size of a pixel in the picture, while the panel does not get wider than MAX_INCH."""
MAX_INCH = 6.5
SMALLEST_PT, LARGEST_PT = 5.0, 8.5
"""Size of the numbers in the pixels; those that would be smaller are left out."""
TOGETHER = 0.35
"""Pixels nearer than this part of the usual spacing are at one place."""
ARCSEC = 3600.0


def plot_array(view: ScanView, binned: Binned, path: Path) -> list[Path]:
    """Draw one row per quantity and one column per receiver; returns the files written."""
    rows = [
        (f"{T_REC} [K]", channel_median(view.small("t_rec"), view.shape[2:4])),
        (f"{t_sys_name(view)} [K]", channel_median(binned.t_sys, view.shape[2:4])),
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
    placed = [footprint(view, receiver) for receiver in columns]
    inch = max(_panel_inch(x, y) for x, y, _ in placed)
    size = (1.4 + inch) * len(rows), 1.3 + inch
    if not flat:
        size = 1.6 + inch * len(columns), 1.0 + (inch - 0.3) * len(rows)
    with picture(path, size, view.title) as figure:
        panels = figure.subplots(
            *((1, len(rows)) if flat else (len(rows), len(columns))), squeeze=False
        )
        panels = panels.T if flat else panels
        written: list[tuple[Any, list[Label]]] = []
        for row, (name, values) in enumerate(rows):
            limits = _colour_range(values[columns], ratio=_unit(name) == "")
            for column, receiver in enumerate(columns):
                axes = panels[row, column]
                x, y, known = placed[column]
                shown, labels = _draw_pixels(axes, x, y, values[receiver], limits)
                written.append((axes, labels))
                median = _median(values[receiver], _unit(name))
                axes.set_title(f"{name.split(' [')[0]}, receiver {receiver}: {median}", loc="left")
                below = flat or row == len(rows) - 1
                _label_axes(
                    axes, placed=known, below=below, left=column == 0 and not (flat and row)
                )
                if below:
                    _explain(axes, x, y, values[receiver])
            figure.colorbar(shown, ax=list(panels[row]), label=name, pad=0.02, aspect=25)
        figure.draw_without_rendering()  # the circles have their size only now
        figure.set_layout_engine("none")  # and keep it
        for axes, labels in written:
            _write_labels(axes, labels)


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
        if finite and (pixels == 1 or np.ptp(together, axis=0).max() > 0.0):
            return together[:, 0], together[:, 1], True
    side = int(np.ceil(np.sqrt(pixels)))
    index = np.arange(pixels)
    return (index % side).astype(np.float64), -(index // side).astype(np.float64), False


def _places(x: F64, y: F64) -> tuple[list[list[int]], float]:
    """The pixels at each place of the sky, and the usual distance of neighbouring places, arcsec.

    Pixels of one place: two polarisations, or the two beams of a nod, which look at the source in turn.
    """
    middle = np.hypot(x - np.median(x), y - np.median(y))
    # a line of n pixels, the least dense of arrays, has a spacing of about 4 times this
    places = _grouped(x, y, float(np.median(middle)) / max(1, x.size))
    spacing = _usual_spacing(x, y, places)
    places = _grouped(x, y, TOGETHER * spacing)
    return places, _usual_spacing(x, y, places)


def _grouped(x: F64, y: F64, near: float) -> list[list[int]]:
    """Pixels within ``near`` of the first pixel of a group; every pixel is in one group."""
    groups: list[list[int]] = []
    for pixel in range(x.size):
        for group in groups:
            if np.hypot(x[pixel] - x[group[0]], y[pixel] - y[group[0]]) <= near:
                group.append(pixel)
                break
        else:
            groups.append([pixel])
    return groups


def _usual_spacing(x: F64, y: F64, places: list[list[int]]) -> float:
    """Median distance of a place to its neighbour; 20 for a single place."""
    if len(places) < 2:
        return 20.0
    first = [group[0] for group in places]
    distance = np.hypot(x[first][:, None] - x[first], y[first][:, None] - y[first])
    np.fill_diagonal(distance, np.inf)
    return float(np.median(distance.min(axis=1)))


def _panel_inch(x: F64, y: F64) -> float:
    """Side of a panel in which the pixels are large enough for their numbers, inches."""
    across = max(np.ptp(x), np.ptp(y)) / _places(x, y)[1] + 1.0
    return float(np.clip(PITCH_INCH * across, 3.6, MAX_INCH))


def _circles(x: F64, y: F64) -> tuple[F64, F64, F64, float]:
    """Middle and radius of the circle of every pixel, f64 [A] arcsec, and the radius of a lone one.

    Pixels at one place are drawn side by side.
    """
    places, spacing = _places(x, y)
    whole = 0.46 * spacing
    cx, cy, radius = x.copy(), y.copy(), np.full(x.shape, whole)
    for group in places:
        side = int(np.ceil(np.sqrt(len(group))))
        if side == 1:
            continue
        small = 1.1 * whole / side
        rows = -(-len(group) // side)
        for i, pixel in enumerate(group):
            # longitude grows to the left: the first pixel comes out left
            cx[pixel] = np.mean(x[group]) - (i % side - 0.5 * (side - 1)) * 2.0 * small
            cy[pixel] = np.mean(y[group]) - (i // side - 0.5 * (rows - 1)) * 2.0 * small
        radius[group] = small
    return cx, cy, radius, whole


Label = tuple[float, float, float, str, str]
"""x, y, radius (arcsec), text and colour of the numbers in a pixel."""


def _draw_pixels(
    axes: Any, x: F64, y: F64, values: F64, limits: tuple[float, float]
) -> tuple[Any, list[Label]]:
    """Draw a circle per pixel; a pixel without value is grey and hatched. Returns what to write in them."""
    from matplotlib.collections import PatchCollection
    from matplotlib.colors import Normalize
    from matplotlib.patches import Circle

    cx, cy, radii, whole = _circles(x, y)
    known = np.isfinite(values)
    circles = [Circle((px, py), r) for px, py, r in zip(cx, cy, radii, strict=True)]
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
    axes.grid(False)
    axes.set_aspect("equal")
    # Longitude grows to the left, as on the sky.
    axes.set_xlim(float((cx + radii).max()) + 0.5 * whole, float((cx - radii).min()) - 0.5 * whole)
    axes.set_ylim(float((cy - radii).min()) - 0.5 * whole, float((cy + radii).max()) + 0.5 * whole)
    labels = []
    for pixel, value in enumerate(values):
        bright = (value - limits[0]) / (limits[1] - limits[0]) > 0.55
        colour = "black" if bright or not np.isfinite(value) else "white"
        text = f"{pixel}\n" + (_label(float(value)) if np.isfinite(value) else "–")
        labels.append((float(cx[pixel]), float(cy[pixel]), float(radii[pixel]), text, colour))
    return good, labels


def _write_labels(axes: Any, labels: list[Label]) -> None:
    """Write pixel number and value into each circle that has room for them."""
    width = abs(float(np.diff(axes.get_xlim())[0]))
    points = axes.get_window_extent().width / axes.figure.dpi * 72.0 / width  # per arcsec
    for x, y, radius, text, colour in labels:
        longest = max(len(line) for line in text.split("\n"))
        # two lines, 2.4 of the size high and 0.64 of it wide for each character, within the circle
        size = min(2.0 * radius * points / float(np.hypot(2.4, 0.64 * longest)), LARGEST_PT)
        if size >= SMALLEST_PT:
            axes.text(x, y, text, ha="center", va="center", fontsize=size, color=colour)


def _explain(axes: Any, x: F64, y: F64, values: F64) -> None:
    """Say below a panel what its hatching means, and which pixels look at one place."""
    shared = [group for group in _places(x, y)[0] if len(group) > 1]
    words = ["hatched: no value"] if not np.isfinite(values).all() else []
    if shared:
        named = "; ".join(", ".join(str(p) for p in group) for group in shared[:4])
        more = " and others" if len(shared) > 4 else ""
        words.append(f"at one place, drawn side by side: pixels {named}{more}")
    if words:
        axes.set_xlabel("\n".join([axes.get_xlabel(), *words]))


def _label(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"
