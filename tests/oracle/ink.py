"""Ink of a picture: what is drawn inside its panels, without any text, as small grey images.

Independent of fonts and of the layout they lead to, so that one stored image serves all versions
of matplotlib; a curve that is missing changes the ink of its panel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread, imsave

WIDE, HIGH = 72, 48
"""Cells of a panel."""
COLUMNS = 4
"""Panels side by side in a stored image."""
ALLOWED = 0.03
"""Ink that may differ, as a fraction of the ink of the panel; measured in test_golden."""


@contextmanager
def figures_drawn(
    before: Callable[[Figure], None] | None = None,
) -> Iterator[list[np.ndarray]]:
    """Collect the ink of every figure that is saved inside the block; ``before`` may change it."""
    collected: list[np.ndarray] = []
    original = Figure.savefig

    def savefig(self: Figure, *args: Any, **kwargs: Any) -> None:
        if before is not None:
            before(self)
        original(self, *args, **kwargs)
        collected.append(ink(self))

    patched: Any = Figure
    patched.savefig = savefig
    try:
        yield collected
    finally:
        patched.savefig = original


def side_titles(axes: Any) -> tuple[Any, Any]:
    """Left and right title, which matplotlib keeps to itself."""
    return axes._left_title, axes._right_title


def ink(figure: Figure) -> np.ndarray:
    """Darkness (0 white to 1 black) of every panel, f64 [panels, HIGH, WIDE].

    Each panel is drawn alone and at one size, so that nothing depends on the layout.
    """
    panels: dict[tuple[int, ...], list[Any]] = {}
    for axes in figure.axes:
        if axes.get_window_extent().width > 60:  # wider than a colour bar
            place = tuple(np.round(axes.bbox.extents).astype(int))
            panels.setdefault(place, []).append(axes)  # twins lie at one place
    figure.set_layout_engine("none")
    figure.set_dpi(100)
    figure.set_size_inches(4.0, 3.0)
    figure.suptitle("")
    for axes in figure.axes:
        axes.set_visible(False)
        axes.xaxis.set_visible(False)
        axes.yaxis.set_visible(False)
        words = [*axes.texts, axes.legend_, axes.title, *side_titles(axes)]
        for item in [*words, *axes.child_axes]:
            if item is not None:
                item.set_visible(False)
    return np.stack([_one(figure, shown) for shown in panels.values()])


def _one(figure: Figure, shown: list[Any]) -> np.ndarray:
    for axes in shown:
        axes.set_position([0.05, 0.05, 0.9, 0.9])
        axes.set_visible(True)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    grey = np.asarray(canvas.buffer_rgba())[::-1, :, :3] @ [0.299, 0.587, 0.114]
    x0, y0, x1, y1 = np.round(shown[0].bbox.extents).astype(int)
    for axes in shown:
        axes.set_visible(False)
    return _cells(grey[y0:y1, x0:x1])[::-1]


def _cells(pixels: np.ndarray) -> np.ndarray:
    """Mean darkness in HIGH x WIDE cells; the frame is left out."""
    inner = 1.0 - pixels[3:-3, 3:-3] / 255.0
    rows = _overlap(inner.shape[0], HIGH)
    columns = _overlap(inner.shape[1], WIDE)
    return np.asarray(rows @ inner @ columns.T)


def _overlap(n: int, cells: int) -> np.ndarray:
    """Share of each of n pixels in each cell, [cells, n], rows sum to 1."""
    edges = np.linspace(0, n, cells + 1)
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(n)
    share = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, 1)
    return np.asarray(share / share.sum(axis=1, keepdims=True))


def difference(ours: np.ndarray, stored: np.ndarray) -> float:
    """Largest share of ink of a panel that is at another place or missing."""
    if ours.shape != stored.shape:
        return float("inf")
    floor = 0.004 * WIDE * HIGH
    worst = 0.0
    for a, b in zip(ours, stored, strict=True):
        # neighbouring cells together: an edge may fall on either side of a border
        moved = np.abs(_blur(a) - _blur(b)).sum()
        worst = max(worst, float(moved / max(b.sum(), floor)))
    return worst


def _blur(image: np.ndarray) -> np.ndarray:
    wide = np.pad(image, 1, mode="edge")
    return np.asarray(
        sum(wide[i : i + HIGH, j : j + WIDE] for i in range(3) for j in range(3)) / 9.0
    )


def save(panels: np.ndarray, path: Path) -> None:
    """Store panels as one grey image."""
    rows = -(-len(panels) // COLUMNS)
    sheet = np.zeros((rows * HIGH, COLUMNS * WIDE))
    for i, panel in enumerate(panels):
        r, c = divmod(i, COLUMNS)
        sheet[r * HIGH : (r + 1) * HIGH, c * WIDE : (c + 1) * WIDE] = panel
    levels = np.round(255 * (1.0 - sheet)).astype(np.uint8)
    imsave(path, np.repeat(levels[..., None], 3, axis=2))


def load(path: Path, count: int) -> np.ndarray:
    """The ``count`` panels of a stored image, [count, HIGH, WIDE]."""
    sheet = 1.0 - imread(path)[..., 0].astype(np.float64)
    found = []
    for i in range(count):
        r, c = divmod(i, COLUMNS)
        found.append(sheet[r * HIGH : (r + 1) * HIGH, c * WIDE : (c + 1) * WIDE])
    return np.stack(found)
