"""Picture of the loads: counts on HOT and COLD (or SKY) and T_rec, channel by channel.

Shapes: C channels, B display bins, D dumps, R receivers, A pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gpucal.errors import GpucalError
from gpucal.io.l0.store import L0Store
from gpucal.io.l1.stored_t_sys import StoredTSys
from gpucal.plot.binning import BLOCK_BYTES, Binned, bin_channels, bin_width
from gpucal.plot.source import F64, ScanView
from gpucal.plot.spectra import MAX_PIXELS, add_upper_axis
from gpucal.plot.style import (
    OKABE_ITO,
    T_REC,
    bandpass_limits,
    counts_label,
    draw_steps,
    frequency_limits,
    line_width,
    mark_channels,
    note_in,
    odd_channels,
    picture,
    power_of_counts,
    say_in,
    set_padded,
    show_curves,
)
from gpucal.scan import Scan, SubscanGroup

LOOKS = {
    "HOT": {"color": OKABE_ITO[6], "linestyle": "-"},
    "COLD": {"color": OKABE_ITO[0], "linestyle": "--"},
    "SKY": {"color": OKABE_ITO[4], "linestyle": ":"},
}


def load_scan_of(store: L0Store, view: ScanView) -> Scan | None:
    """The raw load scan that calibrated ``view``: the first of its attribute ``load_scans``.

    None when the attribute names none, or the raw store does not have it with loads in it.
    """
    for number in view.attrs.get("load_scans") or []:
        try:
            bands = {scan.band: scan for scan in store.load(int(number), partial=True)}
        except GpucalError:
            continue
        scan = bands.get(view.band)
        if scan is not None and scan.calibration is not None:
            return scan
    return None


def load_age(view: ScanView, load: Scan) -> float:
    """Minutes from the middle of the load subscans to the middle of the scan, negative before them."""
    assert load.calibration is not None
    times = view.per_subscan("mjd")
    if not np.isfinite(times).any():
        return float("nan")
    return float(np.nanmean(times) - np.nanmean(load.calibration.mjd_mid)) * 1440.0


def mean_counts(group: SubscanGroup, mode: str, pixels: list[tuple[int, int]]) -> F64 | None:
    """Mean over the dumps of all ``mode`` subscans, f64 [B, len(pixels)] counts; None without any.

    Read block by block; samples without data (INT32_MIN, NaN) are left out.
    """
    chosen = group.select(mode)
    if not chosen:
        return None
    n_channels, dumps, receivers, array, _ = group.shape
    width = bin_width(n_channels)
    step = max(1, BLOCK_BYTES // (8 * max(1, dumps * receivers * array)))
    step = max(width, step - step % width)
    r, a = (np.array(index) for index in zip(*pixels, strict=True))
    parts = []
    for c0 in range(0, n_channels, step):
        c1 = min(n_channels, c0 + step)
        total, count = np.zeros((2, c1 - c0, len(pixels)))
        for subscan in chosen:
            block = group.counts.read(c0, c1, subscan)[:, :, r, a]
            good = np.isfinite(block)
            if block.dtype.kind == "i":
                good &= block != np.iinfo(block.dtype).min
            total += np.where(good, block, 0.0).sum(axis=1)
            count += good.sum(axis=1)
        mean = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
        parts.append(bin_channels(mean, width))
    return np.concatenate(parts)


def plot_loads(view: ScanView, binned: Binned, load: Scan, path: Path) -> None:
    """Draw counts (left) and T_rec, without it HOT/SKY (right), against frequency, a row per pixel."""
    assert load.calibration is not None
    chosen = _pixels(view)
    counts = {
        mode: values
        for mode in LOOKS
        if (values := mean_counts(load.calibration, mode, chosen)) is not None
    }
    t_rec = view.small("t_rec")
    if t_rec is not None and not np.isfinite(t_rec).any():
        t_rec = None
    power = power_of_counts(max((bandpass_limits(v)[1] for v in counts.values()), default=1.0))
    title = view.title if load.number == view.number else f"{view.title}   loads of {load.label}"
    with picture(path, (9.5, 1.7 + 1.25 * len(chosen)), title) as figure:
        rows = len(chosen)
        panels = figure.subplots(rows, 2, sharex="col", squeeze=False)
        for row, (receiver, pixel) in enumerate(chosen):
            left, right = panels[row]
            x = binned.frequency[:, receiver] / 1e9
            odd = np.zeros(x.shape, dtype=np.bool_)
            for mode, values in counts.items():
                far = odd_channels(values[:, row])
                shown = np.where(far, np.nan, values[:, row] / 10**power)
                draw_steps(left, x, shown, label=mode, **LOOKS[mode])
                odd |= far
            mark_channels(left, x, odd)
            if counts:
                spread = np.stack([v[:, row] for v in counts.values()], axis=1) / 10**power
                left.set_ylim(0.0, 1.15 * max(bandpass_limits(spread)[1], 1e-9))
            told = f"receiver {receiver}, pixel {pixel}"
            if odd.any():
                told += f"; {int(odd.sum())} dead, weak or too warm (ticks)"
            left.set_title(told, loc="left", fontsize=8.5, pad=3)
            if t_rec is not None:
                _draw_t_rec(right, x, t_rec[:, receiver, pixel])
            else:
                _draw_ratio(right, x, {mode: v[:, row] for mode, v in counts.items()})
        _finish(panels, view, binned, chosen)
        other = "SKY" if "SKY" in counts or "COLD" not in counts else "COLD"
        panels[rows // 2, 0].set_ylabel(counts_label(power))
        name = f"{T_REC} {StoredTSys(view.arrays).sidebands}".rstrip()
        panels[rows // 2, 1].set_ylabel(f"HOT / {other}" if t_rec is None else f"{name} [K]")
        _share_limits(panels[:, 1], t_rec, chosen)


def _pixels(view: ScanView) -> list[tuple[int, int]]:
    """Up to MAX_PIXELS of the pixels with a T_rec (of all, when none has), evenly spread."""
    _, _, receivers, pixels, _ = view.shape
    everything = [(r, a) for r in range(receivers) for a in range(pixels)]
    t_rec = view.small("t_rec")
    if t_rec is not None and np.isfinite(t_rec).any():
        alive = np.asarray(np.isfinite(t_rec).any(axis=0))
        everything = [(r, a) for r, a in everything if bool(alive[r, a])]
    take = np.linspace(0, len(everything) - 1, min(MAX_PIXELS, len(everything)))
    return [everything[i] for i in take.round().astype(int)]


def _draw_t_rec(axes: Any, x: F64, t_rec: F64) -> None:
    """Draw T_rec, with a tick at the bottom for each bin without a good channel."""
    values = bin_channels(t_rec, bin_width(t_rec.shape[0]))
    draw_steps(axes, x, values, color=OKABE_ITO[2], linewidth=line_width(values))
    mark_channels(axes, x, np.isnan(values))
    good = t_rec[np.isfinite(t_rec)]
    bad = t_rec.size - good.size
    middle = f"median {np.median(good):.0f} K" if good.size else "no good channel"
    note_in(axes, middle + (f", {bad} bad channels (ticks)" if bad else ""), right=True)


def _draw_ratio(axes: Any, x: F64, counts: dict[str, F64]) -> None:
    """Draw HOT divided by the other load, for scans without a T_rec (a vane)."""
    other = counts.get("SKY", counts.get("COLD"))
    if "HOT" not in counts or other is None:
        say_in(axes, "one load only")
        return
    ratio = np.divide(counts["HOT"], other, out=np.full(x.shape, np.nan), where=other > 0)
    draw_steps(axes, x, ratio, color=OKABE_ITO[2], linewidth=line_width(ratio))
    axes.ticklabel_format(axis="y", useOffset=False)
    # at the ends of a band there are few counts, and their ratio says little
    low, high = bandpass_limits(ratio, 0.1)
    least = 0.01 * abs(high + low) / 2.0
    half = max(high - low, least) / 2.0
    show_curves(
        axes, ratio, ((low + high) / 2.0 - half, (low + high) / 2.0 + half), "", top=0.1, room=0.35
    )


def _share_limits(panels: Any, t_rec: F64 | None, chosen: list[tuple[int, int]]) -> None:
    """Give all panels of T_rec the same limits, with room for the legend."""
    if t_rec is None:
        return
    low, high = bandpass_limits(np.stack([t_rec[:, r, a] for r, a in chosen], axis=1))
    for axes in panels:
        set_padded(axes, low, high + 0.25 * (high - low), 0.2)


def _finish(panels: Any, view: ScanView, binned: Binned, chosen: list[tuple[int, int]]) -> None:
    """Labels, limits and legend, when all rows are drawn."""
    for column in panels.T:
        column[-1].set_xlabel("signal frequency [GHz]")
        column[-1].locator_params(axis="x", nbins=6)
        column[-1].ticklabel_format(axis="x", useOffset=False)
        x = binned.frequency[:, chosen[0][0]] / 1e9
        if len({round(float(v), 9) for v in binned.frequency[0]}) == 1:
            column[-1].set_xlim(*frequency_limits(x))
    panels[0, 0].legend(loc="lower center", ncols=3)
    add_upper_axis(panels[0, 1], view, binned, chosen[0][0])
