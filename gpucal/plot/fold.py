"""A frequency-switched scan before and after folding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from gpucal.plot.binning import Binned, bin_channels, bin_width
from gpucal.plot.source import F64, ScanView
from gpucal.plot.spectra import add_upper_axis, pixel_mean, quiet
from gpucal.plot.style import (
    OKABE_ITO,
    T_A,
    curve_limits,
    draw_steps,
    frequency_limits,
    line_width,
    note_in,
    picture,
    say_in,
    show_curves,
)


def plot_fold(view: ScanView, binned: Binned, unfolded: F64, throw: F64 | None, path: Path) -> None:
    """Draw the phase difference above the folded spectrum, means over the pixels of one receiver.

    ``unfolded``: f64 [C,R,A] K, T_A* averaged over dumps and subscans before folding, over the
    channels of the scan; ``throw``: f64 [2] Hz, frequency throws of the two phases, for the title.
    """
    receiver = binned.pixel[0]
    width = bin_width(unfolded.shape[0])
    before = replace(binned, mean=bin_channels(unfolded, width))
    title = f"{view.title}   receiver {receiver}"
    with picture(path, (8.5, 5.6), title) as figure:
        panels = figure.subplots(2, 1, sharex=True)
        rows = (
            ("before folding: phase 1 \u2212 phase 2" + _throw_text(throw), before, OKABE_ITO[1]),
            ("after folding", binned, OKABE_ITO[0]),
        )
        x = binned.frequency[:, receiver] / 1e9
        for axes, (text, data, color) in zip(panels, rows, strict=True):
            spectrum = pixel_mean(data, receiver)
            draw_steps(axes, x, spectrum, color=color, linewidth=line_width(spectrum))
            axes.axhline(0.0, color="#777777", linewidth=0.6)
            shown = np.where(quiet(data, receiver), spectrum, np.nan)
            show_curves(axes, spectrum, curve_limits(shown), "K")
            note_in(axes, text)
            axes.set_ylabel(f"{T_A} [K]")
            if not np.isfinite(spectrum).any():
                say_in(axes, "no valid samples")
        panels[1].set_xlabel("signal frequency [GHz]")
        panels[1].ticklabel_format(axis="x", useOffset=False)
        panels[1].set_xlim(*frequency_limits(x))
        add_upper_axis(panels[0], view, binned, receiver)


def _throw_text(throw: F64 | None) -> str:
    if throw is None or not np.isfinite(throw).all():
        return ""
    return f", thrown by {throw[0] / 1e6:.4g} and {throw[1] / 1e6:.4g} MHz"
