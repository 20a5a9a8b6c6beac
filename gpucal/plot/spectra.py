"""Mean spectra of a scan with the transmission behind them and T_sys below."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.errors import L1Error
from gpucal.physics.velocity import velocity_scale
from gpucal.plot.binning import Binned, bin_channels, bin_width
from gpucal.plot.source import F64, ScanView, t_sys_name
from gpucal.plot.style import (
    T_A,
    T_SYS_STAR,
    bandpass_limits,
    curve_limits,
    draw_steps,
    frequency_limits,
    line_width,
    note_in,
    picture,
    receiver_style,
    say_in,
    set_padded,
    show_curves,
    smooth_style,
    what_is_missing,
)

MAX_PIXELS = 6
"""Single pixels shown below the mean over all pixels."""
AIR, AIR_TEXT = "#a6a6a6", "#666666"
"""Grey of the transmission, and of its numbers."""
LOUD_BINS = 8
"""Bins in a row from which loud ones can be noise."""
MAX_COLUMNS = 4
"""Receivers with frequency axes of their own, side by side."""


def plot_spectra(view: ScanView, binned: Binned, path: Path) -> None:
    """Draw T_A* (mean over pixels, and single pixels), exp(-tau A) and T_sys against frequency.

    Receivers on one frequency axis share the panels; otherwise each gets a column. The upper axis
    counts km/s where the rest frequency is known, else channels.
    """
    columns = _columns(binned)
    several = binned.mean.shape[2] > 1
    heights = [3.4, 2.6, 1.6] if several else [3.4, 1.6]
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
            _draw_t_sys(here[-1], view, binned, receivers)
            last = column == len(columns) - 1
            _draw_transmission(here[0], view, binned, receivers, label=last)
            _draw_axes(here, view, binned, receivers)
            if column == 0:
                _label_rows(here, view, several)


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
    shown, drawn = [], []
    for receiver in receivers:
        spectrum = pixel_mean(binned, receiver)
        draw_steps(
            axes,
            _ghz(binned, receiver),
            spectrum,
            linewidth=line_width(spectrum),
            label=f"receiver {receiver}",
            **receiver_style(receiver),
        )
        drawn.append(spectrum)
        shown.append(np.where(quiet(binned, receiver), spectrum, np.nan))
    axes.axhline(0.0, color="#777777", linewidth=0.6)
    top = 0.12 if len(receivers) == binned.mean.shape[1] else 0.4  # narrow panels have long notes
    show_curves(axes, np.stack(drawn, axis=1), curve_limits(np.stack(shown, axis=1)), "K", top=top)
    if not np.isfinite(shown).any():
        say_in(axes, "no valid samples")


def pixel_mean(binned: Binned, receiver: int) -> F64:
    """Mean over pixels with weight 1/T_sys^2, f64 [B] K."""
    spectra, t_sys = binned.mean[:, receiver], binned.t_sys[:, receiver]
    weight = np.where(np.isfinite(t_sys) & (t_sys > 0), t_sys, np.inf) ** -2.0
    if not weight.any():
        weight = np.ones_like(spectra)
    weight = np.where(np.isfinite(spectra), weight, 0.0)
    total = weight.sum(axis=1)
    sums = (np.nan_to_num(spectra) * weight).sum(axis=1)
    return np.where(total > 0, sums / np.where(total > 0, total, 1.0), np.nan)


def quiet(binned: Binned, receiver: int) -> npt.NDArray[np.bool_]:
    """Bins whose noise is not far above the rest: only these set the limits of an axis.

    Noise jumps from channel to channel by more than it is high, and to both sides; a line, however
    strong or narrow, does not.
    """
    from scipy.ndimage import median_filter

    spectrum = np.nan_to_num(pixel_mean(binned, receiver))
    window = max(5, spectrum.size // 40)
    jump = median_filter(np.abs(np.diff(spectrum, prepend=spectrum[:1])), window)
    level = median_filter(np.abs(spectrum), window)
    typical = np.median(jump[jump > 0]) if (jump > 0).any() else 0.0
    calm: npt.NDArray[np.bool_] = (jump <= 8.0 * typical) | (jump < 0.7 * level)
    loud = np.flatnonzero(~calm)
    for run in np.split(loud, np.flatnonzero(np.diff(loud) > 1) + 1):
        if run.size and not _is_noise(spectrum[run] - np.median(spectrum)):
            calm[run] = True
    return calm


def _is_noise(zone: F64) -> bool:
    """Whether loud neighbouring bins are noise: many of them high, on both sides of the baseline."""
    high = zone[np.abs(zone) > 0.35 * np.abs(zone).max()]
    return zone.size >= LOUD_BINS and high.size >= 4 and bool(high.min() < 0.0 < high.max())


def _draw_pixels(axes: Any, binned: Binned, receiver: int) -> None:
    """Draw single pixels, one above the other, each with its own zero line."""
    alive = np.flatnonzero(np.isfinite(binned.mean[:, receiver]).any(axis=0))
    said = f"receiver {receiver}, single pixels"
    if alive.size == 0:
        note_in(axes, said)
        say_in(axes, "no valid samples")
        return
    chosen = alive[np.linspace(0, alive.size - 1, min(MAX_PIXELS, alive.size)).round().astype(int)]
    x = _ghz(binned, receiver)
    calm = quiet(binned, receiver)
    spectra = binned.mean[:, receiver, chosen]
    limits = np.array([curve_limits(np.where(calm, y, np.nan)) for y in spectra.T])
    counted = limits[_tame(spectra)]
    low, high = min(0.0, float(counted[:, 0].min())), max(0.0, float(counted[:, 1].max()))
    step = high - low
    for row, pixel in enumerate(chosen[::-1]):
        axes.axhline(row * step, color="#777777", linewidth=0.5)
        draw_steps(
            axes,
            x,
            np.clip(binned.mean[:, receiver, pixel], low - 0.1 * step, high + 0.1 * step)
            + row * step,
            linewidth=0.8 * line_width(spectra),
            color=receiver_style(receiver)["color"],
        )
        axes.annotate(
            f"pixel {pixel}",
            (1.005, row * step),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8,
        )
    top = (chosen.size - 1) * step + max(high, 0.0)
    narrow = len(_columns(binned)) > 1
    set_padded(axes, min(low, 0.0), top + (1.1 if narrow else 0.45) * step, 0.04)
    words = what_is_missing(spectra, (low - 0.1 * step, high + 0.1 * step), " K")
    note_in(axes, ";  ".join(part for part in (said, words) if part))


def _tame(spectra: F64) -> Any:
    """Which spectra of [B,N] are not far noisier than the rest, bool [N]; one noisy pixel sets no scale."""
    steps = np.abs(np.diff(spectra, axis=0))
    noise = np.array(
        [np.median(s[np.isfinite(s)]) if np.isfinite(s).any() else 0.0 for s in steps.T]
    )
    return noise <= 5.0 * np.median(noise)


def _draw_t_sys(axes: Any, view: ScanView, binned: Binned, receivers: list[int]) -> None:
    """Median T_sys over the pixels of each receiver, with the 16-84 % range behind it."""
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
        style = smooth_style(receiver)
        mark = "." if int(alive.sum()) == 1 else ""
        axes.plot(x, middle, label=f"receiver {receiver}", marker=mark, **style)
        if t_sys.shape[1] > 1:
            axes.fill_between(x, low, high, color=style["color"], alpha=0.2, linewidth=0)
        shown += [low, high]
    if not shown:
        say_in(axes, "T_sys is not known")
        return
    if len(receivers) > 1:
        axes.legend(loc="upper right", ncols=min(4, len(receivers)))
    several, star = binned.t_sys.shape[2] > 1, t_sys_name(view) == T_SYS_STAR
    words = [] if star else ["DSB"]
    note_in(axes, ", ".join([*words, *(["median and 16-84 % of the pixels"] if several else [])]))
    show_curves(
        axes,
        np.stack(shown, axis=1),
        bandpass_limits(np.stack(shown, axis=1)),
        "K",
        top=0.25,
        room=0.2,
    )


def _draw_transmission(
    axes: Any, view: ScanView, binned: Binned, receivers: list[int], *, label: bool
) -> None:
    """Draw exp(-tau A) of both sidebands behind the spectrum, on an axis of its own from 0 to 1."""
    airmass, receiver = mean_airmass(view), receivers[0]
    curves = []
    for name, line, text in (("tau_signal", "-", "signal"), ("tau_image", ":", "image")):
        tau = view.small(name)
        if tau is None or not np.isfinite(tau).any() or not np.isfinite(airmass):
            continue
        tau = tau.reshape(tau.shape[0], -1)
        value = bin_channels(np.exp(-airmass * tau), bin_width(tau.shape[0]))
        curves.append((value[:, min(receiver, value.shape[1] - 1)], line, text))
    if not curves:
        note_in(axes, f"{_over(binned, receivers)}, no opacity was determined")
        if len(receivers) > 1:
            axes.legend(loc="upper right", ncols=4)
        return
    behind = axes.twinx()
    axes.set_zorder(behind.get_zorder() + 1)
    axes.patch.set_visible(False)
    for value, line, text in curves:
        behind.plot(
            _ghz(binned, receiver),
            value,
            line,
            color=AIR,
            linewidth=1.1,
            label=f"transmission, {text}",
            marker="." if value.shape[0] == 1 else "",
        )
    behind.set_ylim(0.0, 1.2)
    behind.set_yticks([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    behind.grid(False)
    behind.tick_params(axis="y", colors=AIR_TEXT, labelright=label)
    if label:
        behind.set_ylabel(r"transmission $\exp(-\tau A)$", color=AIR_TEXT)
    joint = ", " if len(receivers) == binned.mean.shape[1] else "\n"
    said = _over(binned, receivers)
    note_in(axes, f"{said}{joint}airmass {airmass:.2f}{_water(view)}")
    named = [line for line in axes.lines if not line.get_label().startswith("_")]
    columns = 2 if len(named) > 1 else 1
    shown = [*(named if columns > 1 else []), *behind.lines]
    # in a narrow panel below the note, which has two lines there
    corner = (1.0, 1.0) if joint == ", " else (1.0, 0.88)
    axes.legend(handles=shown, loc="upper right", ncols=columns, bbox_to_anchor=corner)


def _over(binned: Binned, receivers: list[int]) -> str:
    """The samples over which a spectrum is averaged, in words."""
    pixels = binned.mean.shape[2]
    text = f"mean over {pixels} pixels" if pixels > 1 else "mean over dumps"
    if len(receivers) == binned.mean.shape[1]:
        return text
    names = ", ".join(str(r) for r in receivers)
    return f"receiver{'s' if len(receivers) > 1 else ''} {names}, {text}"


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
    digits = int(np.clip(1 - np.floor(np.log10(sigma)), 0, 8))
    return f", PWV {value:.{digits}f} ± {sigma:.{digits}f} mm"


def _ghz(binned: Binned, receiver: int) -> F64:
    return np.asarray(binned.frequency[:, receiver] / 1e9)


def _draw_axes(panels: list[Any], view: ScanView, binned: Binned, receivers: list[int]) -> None:
    """Frequency below the lowest panel, velocity or channel above the highest."""
    x = _ghz(binned, receivers[0])
    if not np.isfinite(x).all():
        raise L1Error(f"the frequency axis of receiver {receivers[0]} holds NaN.")
    bottom, top = panels[-1], panels[0]
    bottom.set_xlabel("signal frequency [GHz]")
    bottom.ticklabel_format(axis="x", useOffset=False)
    bottom.set_xlim(*frequency_limits(x))
    add_upper_axis(top, view, binned, receivers[0])


def add_upper_axis(axes: Any, view: ScanView, binned: Binned, receiver: int) -> None:
    """Give a panel with frequencies in GHz an upper axis in km/s, or in channels."""
    x = _ghz(binned, receiver)
    scale = velocity_scale(view.attrs, binned.frequency[:, receiver])
    if scale is not None:
        second = axes.secondary_xaxis(
            "top",
            functions=(lambda f: scale.velocity(f * 1e9), lambda v: scale.frequency(v) / 1e9),
        )
        second.set_xlabel(scale.label)
    elif x.size > 1:
        slope = float((binned.channel[-1] - binned.channel[0]) / (x[-1] - x[0]))
        first, start = float(binned.channel[0]), float(x[0])
        second = axes.secondary_xaxis(
            "top",
            functions=(
                lambda f: first + (f - start) * slope,
                lambda c: start + (c - first) / slope,
            ),
        )
        second.set_xlabel("channel")


def _label_rows(panels: list[Any], view: ScanView, several: bool) -> None:
    panels[0].set_ylabel(f"{T_A} [K]")
    if several:
        panels[1].set_ylabel(f"{T_A} + offset [K]")
    panels[-1].set_ylabel(f"{t_sys_name(view)} [K]")
