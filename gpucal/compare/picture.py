"""A comparison as one picture: ratios and differences of every pixel, scan by scan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpucal.compare.products import F64, BandComparison, StoreComparison
from gpucal.plot.style import MARKERS, OKABE_ITO, picture, require_matplotlib, robust_limits

MOST_NAMES = 40
"""Scans whose names have room below the picture."""


def _of(quantity: str, name: str) -> Callable[[BandComparison], F64]:
    """A field of a change, [R,A]; empty where it was not compared."""

    def values(band: BandComparison) -> F64:
        change = band.changes.get(quantity)
        return np.empty((0, 0)) if change is None else np.asarray(getattr(change, name))

    return values


def _water(band: BandComparison) -> F64:
    change = band.changes.get("pwv")
    return np.empty((0, 0)) if change is None else change.new - change.old


def _flagged(band: BandComparison) -> F64:
    change = band.changes.get("spectra")
    bits = [old + new for old, new in band.flags.values()]
    return (
        np.zeros((1, 1)) if change is None or not bits else np.sum(bits, axis=0, dtype=np.float64)
    )


PANELS: tuple[tuple[str, Callable[[BandComparison], F64]], ...] = (
    ("T_A* ratio", _of("spectra", "ratio")),
    ("T_A* rms of\ndifference [K]", _of("spectra", "rms")),
    ("T_sys* ratio", _of("t_sys_star", "ratio")),
    ("T_rec ratio", _of("t_rec", "ratio")),
    ("PWV difference\n[mm]", _water),
    ("changed flags", _flagged),
)


def plot_comparison(comparison: StoreComparison, path: str | Path) -> Path:
    """Draw every pixel of every scan and band: ratio and rms difference of T_A*, ratios of temperatures, water, flags.

    path: .png, .pdf or .svg. Raises GpucalError without matplotlib.
    """
    require_matplotlib()
    out = Path(path)
    bands = comparison.bands
    names = sorted({b.band for b in bands})
    title = f"{Path(comparison.new).name} against {Path(comparison.old).name}"
    with picture(out, (8.5, 0.8 + 1.6 * len(PANELS)), title) as figure:
        panels = list(figure.subplots(len(PANELS), 1, sharex=True))
        for axes, (label, values) in zip(panels, PANELS, strict=True):
            _draw(axes, bands, names, values)
            axes.set_ylabel(label)
            axes.ticklabel_format(axis="y", useOffset=False)
        if len(names) > 1:
            panels[0].legend(fontsize=7, loc="best")
        scans = sorted({b.scan for b in bands})
        if len(scans) <= MOST_NAMES:
            panels[-1].set_xticks(range(len(scans)), [str(n) for n in scans], rotation=90)
        panels[-1].set_xlabel("scan")
    return out


def _draw(
    axes: Any,
    bands: Sequence[BandComparison],
    names: Sequence[str],
    values: Callable[[BandComparison], F64],
) -> None:
    """One panel: a mark for each pixel."""
    place = {n: i for i, n in enumerate(sorted({b.scan for b in bands}))}
    seen = [np.empty(0)]
    for number, name in enumerate(names):
        x, y = [np.empty(0)], [np.empty(0)]
        for band in bands:
            if band.band == name:
                found = values(band).ravel()
                y.append(found)
                x.append(np.full(found.size, place[band.scan] + 0.1 * number))
        seen += y
        axes.plot(
            np.concatenate(x),
            np.concatenate(y),
            linestyle="none",
            marker=MARKERS[number % len(MARKERS)],
            color=OKABE_ITO[number % len(OKABE_ITO)],
            markersize=3.0,
            alpha=0.6,
            label=name,
        )
    low, high = robust_limits(np.concatenate(seen), 0.0, 100.0)
    room = 0.08 * (high - low)
    axes.set_ylim(low - room, high + room)
