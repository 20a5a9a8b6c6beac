"""The picture of a quick look: spectra of all pixels and what each dump saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.plot.source import F64
from gpucal.plot.style import (
    EDGE,
    OKABE_ITO,
    T_A,
    bandpass_limits,
    counts_label,
    curve_limits,
    draw_steps,
    frequency_limits,
    mark_channels,
    note_in,
    odd_channels,
    picture,
    power_of_counts,
    receiver_style,
    say_in,
    show_curves,
)

MAX_POINTS = 2000
"""Channels drawn; more are averaged into bins, a screen has no more columns."""
FEW_PIXELS = 9
"""Up to so many pixels each has its own curve."""
ARCSEC = 3600.0


@dataclass(frozen=True, eq=False)
class LookPanel:
    """One band. spectrum f64 [C,R,A], continuum f64 [D,R,A,S], both in ``unit``; frequency f64 [C] Hz;
    lon, lat f64 [D,S] deg; note: what to write into the panel."""

    label: str
    unit: str
    frequency: F64
    spectrum: F64
    continuum: F64
    lon: F64
    lat: F64
    note: str = ""


def plot_look(panels: Sequence[LookPanel], path: Path, title: str) -> Path:
    """Draw spectra (left) and continuum per dump (right), one row per band; returns ``path``."""
    rows = max(1, len(panels))
    with picture(path, (10.0, 0.7 + 2.9 * rows), title) as figure:
        grid = figure.subplots(rows, 2, squeeze=False, width_ratios=(3, 2))
        if not panels:
            say_in(grid[0][0], "no subscan")
        for (left, right), panel in zip(grid, panels, strict=False):
            _spectra(left, panel)
            _continuum(right, panel)
    return path


def _spectra(axes: Any, panel: LookPanel) -> None:
    frequency, spectrum = _binned(panel.frequency, panel.spectrum)
    # a bandpass is smooth: single channels that are far too warm do not set its scale; a line does
    find_limits = curve_limits if panel.unit == "K" else bandpass_limits
    power = 0
    odd: npt.NDArray[np.bool_] = np.zeros(frequency.size, dtype=np.bool_)
    if panel.unit != "K":
        power = power_of_counts(find_limits(spectrum)[1])
        far = odd_channels(spectrum)
        spectrum = np.where(far, np.nan, spectrum / 10.0**power)
        odd = np.asarray(far.any(axis=(1, 2)), dtype=np.bool_)
        mark_channels(axes, frequency / 1e9, odd)
    _, receivers, pixels = spectrum.shape
    shown = []
    for r in range(receivers):
        style = receiver_style(r)
        mean = _mean(spectrum[:, r, :], axis=1)
        shown.append(mean)
        shown += _pixels(axes, frequency / 1e9, spectrum[:, r, :], style)
        draw_steps(axes, frequency / 1e9, mean, linewidth=1.3, label=f"receiver {r}, mean", **style)
    axes.set_xlabel("signal frequency [GHz]")
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlim(*frequency_limits(frequency / 1e9))
    axes.set_ylabel(f"{T_A} [K]" if panel.unit == "K" else counts_label(power))
    legend = receivers > 1 or pixels > FEW_PIXELS
    drawn = np.stack(shown, axis=1)
    low, high = find_limits(drawn)
    if panel.unit == "K":
        unit = "K"
    else:
        low, unit = min(low, 0.0), rf"$\times10^{{{power}}}$" if power else ""
    show_curves(axes, drawn, (low, high), unit, top=0.3 if legend else 0.15)
    if not np.isfinite(drawn).any():
        say_in(axes, "no valid samples")
    if legend:
        axes.legend(loc="upper right", bbox_to_anchor=(1.0, 0.94), ncols=2)
    left_out = f"{int(odd.sum())} channels dead, weak or too warm (ticks)" if odd.any() else ""
    note_in(axes, "   ".join(part for part in (panel.label, panel.note, left_out) if part))


def _pixels(axes: Any, x: F64, spectrum: F64, style: dict[str, Any]) -> list[F64]:
    """Draw the single pixels, spectrum f64 [C,A]; of many their 5-95 % range and the brightest.

    Returns the curves that must fit into the panel.
    """
    pixels = spectrum.shape[1]
    if pixels == 1:
        return []
    if pixels <= FEW_PIXELS:
        axes.plot(x, spectrum, alpha=0.3, linewidth=0.4, **style)
        return [spectrum[:, a] for a in range(pixels)]
    alive = np.isfinite(spectrum).any(axis=1)
    low, high = np.full((2, spectrum.shape[0]), np.nan)
    if alive.any():
        low[alive], high[alive] = np.nanpercentile(spectrum[alive], [5.0, 95.0], axis=1)
    axes.fill_between(x, low, high, color=style["color"], alpha=0.2, linewidth=0)
    edge = round(EDGE * spectrum.shape[0])
    inner = spectrum[edge : spectrum.shape[0] - edge]
    brightest = int(np.argmax(np.nan_to_num(_mean(inner, axis=0), nan=-np.inf)))
    axes.plot(
        x,
        spectrum[:, brightest],
        color="#777777",
        linewidth=0.6,
        label=f"pixel {brightest}, brightest",
    )
    return [low, high, spectrum[:, brightest]]


def _continuum(axes: Any, panel: LookPanel) -> None:
    """Draw the continuum against the offset where the telescope moved, else against the dump."""
    power = 0
    if panel.unit != "K" and np.isfinite(panel.continuum).any():
        power = power_of_counts(float(np.nanmax(panel.continuum)))
    continuum = panel.continuum / 10.0**power
    scale = f"{T_A} [K]" if panel.unit == "K" else counts_label(power)
    dumps, receivers, pixels, subscans = continuum.shape
    lon, lat = ARCSEC * panel.lon, ARCSEC * panel.lat
    extent = [
        float(np.nanmax(x) - np.nanmin(x)) if np.isfinite(x).any() else 0.0 for x in (lon, lat)
    ]
    moved = max(extent) > 1.0 and dumps > 1
    along, name = (lon, "longitude") if extent[0] >= extent[1] else (lat, "latitude")
    for s in range(subscans):
        x = along[:, s] if moved else np.arange(dumps) + s * dumps
        for r in range(receivers):
            colour = OKABE_ITO[r % len(OKABE_ITO)]
            if pixels > 1:
                pale = colour if pixels <= FEW_PIXELS else "#999999"
                axes.plot(x, continuum[:, r, :, s], color=pale, alpha=0.3, linewidth=0.4)
            mean = _mean(continuum[:, r, :, s], axis=1)
            axes.plot(x, mean, color=colour, linewidth=1.1, marker="." if dumps < 40 else "")
    axes.set_xlabel(f"{name} offset [arcsec]" if moved else "dump")
    axes.set_ylabel(f"mean over channels, {scale}")
    axes.ticklabel_format(axis="y", useOffset=False)
    if not np.isfinite(panel.continuum).any():
        say_in(axes, "no valid samples")


def _mean(values: F64, axis: int) -> F64:
    """NaN-aware mean; NaN, without a warning, where nothing is known."""
    good = np.isfinite(values)
    n = good.sum(axis=axis)
    return np.where(n > 0, np.where(good, values, 0.0).sum(axis=axis) / np.maximum(n, 1), np.nan)


def _binned(frequency: F64, spectrum: F64) -> tuple[F64, F64]:
    """Frequency and spectrum averaged to at most MAX_POINTS for display."""
    width = -(-frequency.size // MAX_POINTS)
    if width == 1:
        return frequency, spectrum
    n = frequency.size // width
    centre = frequency[: n * width].reshape(n, width).mean(axis=1)
    return centre, _mean(spectrum[: n * width].reshape(n, width, *spectrum.shape[1:]), axis=1)
