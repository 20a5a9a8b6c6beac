"""Mean spectra of a scan with T_sys and transmission below them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gpucal.errors import L1Error
from gpucal.plot.binning import Binned, bin_channels, bin_width
from gpucal.plot.source import F64, ScanView
from gpucal.plot.style import (
    OKABE_ITO,
    T_A,
    T_SYS,
    note_in,
    picture,
    receiver_style,
    robust_limits,
    say_in,
    set_padded,
)

MAX_PIXELS = 6
"""Single pixels shown below the mean over all pixels."""
MAX_COLUMNS = 4
"""Receivers with frequency axes of their own, side by side."""


def plot_spectra(view: ScanView, binned: Binned, path: Path) -> None:
    """Draw T_A* (mean over pixels, and single pixels), T_sys and exp(-tau A) against frequency.

    Receivers on one frequency axis share the panels; otherwise each gets a column.
    """
    columns = _columns(binned)
    several = binned.mean.shape[2] > 1
    heights = [3.0, 2.6, 1.5, 1.5] if several else [3.0, 1.5, 1.5]
    size = (min(16.0, 8.0 + 4.0 * (len(columns) - 1)), 1.6 + 0.95 * sum(heights))
    with picture(path, size, view.title) as figure:
        panels = figure.subplots(
            len(heights), len(columns), sharex="col", squeeze=False, height_ratios=heights
        )
        for column, receivers in enumerate(columns):
            here = list(panels[:, column])
            _draw_mean(here[0], binned, receivers)
            if several:
                _draw_pixels(here[1], binned, receivers[0])
            _draw_t_sys(here[-2], view, binned, receivers)
            _draw_transmission(here[-1], view, binned, receivers)
            _draw_axes(here, binned, receivers)
            if column == 0:
                _label_rows(here, several)


def _columns(binned: Binned) -> list[list[int]]:
    """Receivers grouped by frequency axis."""
    groups: list[list[int]] = []
    for receiver in range(binned.frequency.shape[1]):
        axis = binned.frequency[:, receiver]
        for group in groups:
            if np.allclose(binned.frequency[:, group[0]], axis, rtol=1e-9, equal_nan=True):
                group.append(receiver)
                break
        else:
            groups.append([receiver])
    return groups[:MAX_COLUMNS]


def _draw_mean(axes: Any, binned: Binned, receivers: list[int]) -> None:
    shown = []
    for receiver in receivers:
        spectrum = _pixel_mean(binned, receiver)
        axes.plot(
            _ghz(binned, receiver),
            spectrum,
            drawstyle="steps-mid",
            label=f"receiver {receiver}",
            **receiver_style(receiver),
        )
        shown.append(np.where(_quiet(binned, receiver), spectrum, np.nan))
    axes.axhline(0.0, color="#777777", linewidth=0.6)
    pixels = binned.mean.shape[2]
    note_in(axes, f"mean over {pixels} pixels" if pixels > 1 else "mean over dumps")
    set_padded(axes, *robust_limits(np.array(shown), 0.0, 100.0))
    if len(receivers) > 1:
        axes.legend(loc="upper right", ncols=min(4, len(receivers)))
    if not np.isfinite(shown).any():
        say_in(axes, "no valid samples")


def _pixel_mean(binned: Binned, receiver: int) -> F64:
    """Mean over pixels with weight 1/T_sys^2, f64 [B] K."""
    spectra, t_sys = binned.mean[:, receiver], binned.t_sys[:, receiver]
    weight = np.where(np.isfinite(t_sys) & (t_sys > 0), t_sys, np.inf) ** -2.0
    if not weight.any():
        weight = np.ones_like(spectra)
    weight = np.where(np.isfinite(spectra), weight, 0.0)
    total = weight.sum(axis=1)
    sums = (np.nan_to_num(spectra) * weight).sum(axis=1)
    return np.where(total > 0, sums / np.where(total > 0, total, 1.0), np.nan)


def _quiet(binned: Binned, receiver: int) -> Any:
    """Bins whose noise is not far above the rest: only these set the limits of an axis."""
    spectrum = _pixel_mean(binned, receiver)
    step = np.abs(np.diff(spectrum, prepend=spectrum[:1]))
    window = max(3, spectrum.size // 50)
    smooth = np.convolve(np.nan_to_num(step), np.ones(window) / window, mode="same")
    typical = np.median(smooth[smooth > 0]) if (smooth > 0).any() else 0.0
    lined = np.abs(spectrum) > 20.0 * typical  # a line is steep too, and must be seen whole
    return (smooth <= 8.0 * typical) | (lined & (smooth <= 100.0 * typical))


def _draw_pixels(axes: Any, binned: Binned, receiver: int) -> None:
    """Single pixels, one above the other, each with its own zero line."""
    alive = np.flatnonzero(np.isfinite(binned.mean[:, receiver]).any(axis=0))
    note_in(axes, f"receiver {receiver}, single pixels")
    if alive.size == 0:
        say_in(axes, "no valid samples")
        return
    chosen = alive[np.linspace(0, alive.size - 1, min(MAX_PIXELS, alive.size)).round().astype(int)]
    x = _ghz(binned, receiver)
    quiet = _quiet(binned, receiver)
    spectra = np.where(quiet[:, None], binned.mean[:, receiver, chosen], np.nan)
    low, high = robust_limits(spectra, 0.0, 100.0)
    step = high - low
    for row, pixel in enumerate(chosen[::-1]):
        axes.axhline(row * step, color="#777777", linewidth=0.5)
        axes.plot(
            x,
            binned.mean[:, receiver, pixel] + row * step,
            drawstyle="steps-mid",
            linewidth=0.7,
            color=OKABE_ITO[0] if row % 2 == 0 else OKABE_ITO[1],
        )
        axes.annotate(
            f"pixel {pixel}",
            (1.005, row * step),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8,
        )
    set_padded(axes, min(low, 0.0), (chosen.size - 1) * step + max(high, 0.0), 0.04)


def _draw_t_sys(axes: Any, view: ScanView, binned: Binned, receivers: list[int]) -> None:
    shown = []
    for receiver in receivers:
        t_sys = binned.t_sys[:, receiver]
        alive = np.isfinite(t_sys).any(axis=1)
        if not alive.any():
            continue
        low, middle, high = np.full((3, t_sys.shape[0]), np.nan)
        low[alive], middle[alive], high[alive] = np.nanpercentile(
            t_sys[alive], [16, 50, 84], axis=1
        )
        x = _ghz(binned, receiver)
        style = receiver_style(receiver)
        axes.plot(x, middle, **style)
        if t_sys.shape[1] > 1:
            axes.fill_between(x, low, high, color=style["color"], alpha=0.2, linewidth=0)
        shown += [low, high]
    if not shown:
        say_in(axes, "T_sys is not known")
        return
    several = binned.t_sys.shape[2] > 1
    convention = str(view.arrays["t_sys"].attrs.get("t_sys_convention", "DSB"))
    note_in(axes, convention + (", median and 16-84 % of the pixels" if several else ""))
    set_padded(axes, *robust_limits(np.array(shown), 1.0, 98.0), 0.15)


def _draw_transmission(axes: Any, view: ScanView, binned: Binned, receivers: list[int]) -> None:
    airmass = mean_airmass(view)
    drawn = False
    for name, line, text in (("tau_signal", "-", "signal"), ("tau_image", "--", "image")):
        tau = view.small(name)
        if tau is None or not np.isfinite(tau).any() or not np.isfinite(airmass):
            continue
        tau = tau.reshape(tau.shape[0], -1)
        value = bin_channels(np.exp(-airmass * tau), bin_width(tau.shape[0]))
        column = value[:, min(receivers[0], value.shape[1] - 1)]
        color = OKABE_ITO[2] if text == "signal" else OKABE_ITO[6]
        axes.plot(_ghz(binned, receivers[0]), column, line, color=color, label=f"{text} sideband")
        drawn = True
    if not drawn:
        say_in(axes, "no opacity was determined")
        return
    axes.set_title(f"transmission at airmass {airmass:.2f}{_water(view)}", loc="left")
    axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]), top=min(1.02, axes.get_ylim()[1]))
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=2, borderaxespad=0.0)


def mean_airmass(view: ScanView) -> float:
    """1/sin of the mean elevation of the scan; NaN when it is not known."""
    elevation = view.small("elevation")
    if elevation is None or not np.isfinite(elevation).any():
        return float("nan")
    return float(1.0 / np.sin(np.nanmean(elevation)))


def _water(view: ScanView) -> str:
    """PWV with its error, both with the digits that the error leaves."""
    pwv, error = view.small("pwv"), view.small("pwv_error")
    if pwv is None or not np.isfinite(pwv).any():
        return ""
    value = float(np.nanmedian(pwv))
    sigma = float(np.nanmedian(error)) if error is not None and np.isfinite(error).any() else 0.0
    if sigma <= 0:
        return f", PWV {value:.3g} mm"
    digits = int(np.clip(1 - np.floor(np.log10(sigma)), 0, 5))
    return f", PWV {value:.{digits}f} ± {sigma:.{digits}f} mm"


def _ghz(binned: Binned, receiver: int) -> F64:
    return np.asarray(binned.frequency[:, receiver] / 1e9)


def _draw_axes(panels: list[Any], binned: Binned, receivers: list[int]) -> None:
    """Frequency below the lowest panel, channel above the highest."""
    x = _ghz(binned, receivers[0])
    if not np.isfinite(x).all():
        raise L1Error(f"the frequency axis of receiver {receivers[0]} holds NaN.")
    bottom, top = panels[-1], panels[0]
    bottom.set_xlabel("signal frequency [GHz]")
    bottom.ticklabel_format(axis="x", useOffset=False)
    low, high = float(x.min()), float(x.max())
    if low == high:
        low, high = low - 1e-3, high + 1e-3
    bottom.set_xlim(low, high)
    if x.size > 1:
        slope = float((binned.channel[-1] - binned.channel[0]) / (x[-1] - x[0]))
        first, start = float(binned.channel[0]), float(x[0])
        second = top.secondary_xaxis(
            "top",
            functions=(
                lambda f: first + (f - start) * slope,
                lambda c: start + (c - first) / slope,
            ),
        )
        second.set_xlabel("channel")
    if len(receivers) < binned.mean.shape[1]:
        names = ", ".join(str(r) for r in receivers)
        note_in(top, f"receiver{'s' if len(receivers) > 1 else ''} {names}", right=True)


def _label_rows(panels: list[Any], several: bool) -> None:
    panels[0].set_ylabel(f"{T_A} [K]")
    if several:
        panels[1].set_ylabel(f"{T_A} + offset [K]")
    panels[-2].set_ylabel(f"{T_SYS} [K]")
    panels[-1].set_ylabel(r"$\exp(-\tau A)$")
