"""One look for all pictures: colour-blind safe, readable in grey, units on every axis."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.errors import ConfigError, GpucalError

OKABE_ITO = ("#0072B2", "#E69F00", "#000000", "#CC79A7", "#009E73", "#56B4E9", "#D55E00")
"""Colours of Okabe and Ito (2008); neighbours also differ in grey (0.34, 0.65, 0, 0.59, 0.41, 0.63, 0.46
of white). F0E442 is too pale for lines."""

LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
COLOUR_MAP = "viridis"
MISSING = "#bdbdbd"
T_A = "$T_A^*$"
T_REC = "$T_\\mathrm{rec}$"
T_SYS = "$T_\\mathrm{sys}$"
T_SYS_STAR = "$T_\\mathrm{sys}^*$"
FORMATS = ("png", "svg")
CHARACTER = 0.092
"""Width of a character of the title, inches."""
EDGE = 0.05
"""Part of a band at either end whose spikes do not set the scale of a picture."""
FEW_BINS = 20
"""Below so many bins a band has no edge."""
NARROW = 3
"""Bins above half maximum from which a peak near the edge is a line and no spike."""
GAP = "gaps: flagged or no data"

_RC = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.0,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#d8d8d8",
    "grid.linewidth": 0.5,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "lines.linewidth": 0.9,
    "image.cmap": COLOUR_MAP,
    "savefig.dpi": 150,
    "svg.hashsalt": "gpucal",
}


def require_matplotlib() -> None:
    """Raise GpucalError, with the way to install it, when matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise GpucalError(
            "pictures need matplotlib, which is not installed.",
            hint="Install it with: pip install 'gpucal[plot]'.",
        ) from error


def check_format(fmt: str) -> str:
    """Return ``fmt`` in lower case; raises ConfigError unless it is png or svg."""
    if fmt.lower() not in FORMATS:
        raise ConfigError(f"the picture format is {fmt!r}, expected {' or '.join(FORMATS)}.")
    return fmt.lower()


@contextmanager
def picture(path: Path, size: tuple[float, float], title: str) -> Iterator[Any]:
    """Yield an empty figure of ``size`` inches in the common style; save it at the end.

    Works without a display and without the global state of pyplot.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever other packages, or a matplotlibrc, have set
        matplotlib.rcParams.update(_RC)
        figure = Figure(figsize=size, layout="constrained")
        figure.suptitle(
            _wrapped(title, size[0]), fontsize=10.0, fontweight="bold", x=0.01, ha="left"
        )
        yield figure
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(path, metadata=metadata)


def _wrapped(title: str, width: float) -> str:
    """Break a title between its parts (three spaces) where the picture is too narrow for it."""
    lines = [""]
    for part in title.split("   "):
        if lines[-1] and len(lines[-1]) + 3 + len(part) > width / CHARACTER:
            lines.append(part)
        else:
            lines[-1] = f"{lines[-1]}   {part}" if lines[-1] else part
    return "\n".join(lines)


def line_width(values: npt.NDArray[np.float64]) -> float:
    """Line width: thinner for a spectrum of many points, so that noise does not become a band."""
    return 0.9 if values.shape[0] <= 1000 else 0.5


def receiver_style(receiver: int) -> dict[str, Any]:
    """Colour and line of a receiver, so that two receivers also differ in grey."""
    return {
        "color": OKABE_ITO[receiver % len(OKABE_ITO)],
        "linestyle": LINES[(receiver // len(OKABE_ITO)) % len(LINES)],
    }


def smooth_style(number: int) -> dict[str, Any]:
    """Colour and line of a curve without noise: every curve has a line style of its own too."""
    return {
        "color": OKABE_ITO[number % len(OKABE_ITO)],
        "linestyle": LINES[number % len(LINES)],
    }


def robust_limits(
    values: npt.NDArray[np.float64], low: float = 1.0, high: float = 99.0
) -> tuple[float, float]:
    """Percentiles of the finite values, never an empty range; (0, 1) when there are none."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return 0.0, 1.0
    lo, hi = (float(x) for x in np.percentile(finite, [low, high]))
    if hi - lo <= 1e-9 * max(abs(lo), abs(hi)):
        half = 0.05 * abs(lo) or 0.5
        return lo - half, hi + half
    return lo, hi


def curve_limits(values: npt.NDArray[np.float64], edge: float = EDGE) -> tuple[float, float]:
    """Lowest and highest value of spectra, [B] or [B,N], that a picture must show.

    What sticks out in the outer ``edge`` of a band (spikes, noise where the gain falls off) does not
    count, unless it is a line: NARROW bins or more wide, and lower again before the band ends.
    """
    curves = values.reshape(values.shape[0], -1)
    kept = np.full(curves.shape, np.nan)
    for number, curve in enumerate(curves.T):
        known = np.flatnonzero(np.isfinite(curve))
        kept[known, number] = np.where(_counts(curve[known], edge), curve[known], np.nan)
    return robust_limits(kept, 0.0, 100.0)


def bandpass_limits(values: npt.NDArray[np.float64], edge: float = EDGE) -> tuple[float, float]:
    """As ``curve_limits``, of curves that are smooth by nature: single channels far off do not count."""
    from scipy.ndimage import median_filter

    smooth = np.full(values.reshape(values.shape[0], -1).shape, np.nan)
    for number, curve in enumerate(values.reshape(values.shape[0], -1).T):
        known = np.flatnonzero(np.isfinite(curve))
        if known.size:
            width = min(int(np.clip(2 * (known.size // 80) + 1, 3, 7)), known.size)
            smooth[known, number] = median_filter(curve[known], width, mode="nearest")
    return curve_limits(smooth, edge)


def odd_channels(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Bins, of [B,...], that differ from their neighbours by more than half: dead, weak or far too warm."""
    from scipy.ndimage import median_filter

    flat = counts.reshape(counts.shape[0], -1)
    odd = np.zeros(flat.shape, dtype=np.bool_)
    for number, curve in enumerate(flat.T):
        known = np.flatnonzero(np.isfinite(curve))
        if known.size >= FEW_BINS:
            smooth = median_filter(curve[known], 7, mode="nearest")
            odd[known, number] = np.abs(curve[known] - smooth) > 0.5 * np.abs(smooth)
    return odd.reshape(counts.shape)


def mark_channels(axes: Any, x: Any, marked: npt.NDArray[np.bool_]) -> None:
    """A tick at the bottom of a panel for each marked bin, bool [B]: unlike a line, it borders nothing."""
    lost = np.compress(marked, x)
    axes.plot(
        lost,
        np.full(lost.size, 0.03),
        "|",
        color=OKABE_ITO[6],
        markersize=5,
        transform=axes.get_xaxis_transform(),
    )


def _counts(curve: npt.NDArray[np.float64], edge: float) -> npt.NDArray[np.bool_]:
    """Which finite values of a spectrum, [B], its limits must include."""
    counts = np.ones(curve.shape, dtype=np.bool_)
    margin = max(1, round(edge * curve.size))
    if curve.size < FEW_BINS:
        return counts
    inner = curve[margin:-margin]
    low, high, middle = float(inner.min()), float(inner.max()), float(np.median(inner))
    span = high - low
    far = np.flatnonzero((curve > high + 0.5 * span) | (curve < low - 0.5 * span))
    for run in np.split(far, np.flatnonzero(np.diff(far) > 1) + 1):
        if run.size and not _is_line(curve - middle, run):
            counts[run] = False
    return counts


def _is_line(curve: npt.NDArray[np.float64], run: npt.NDArray[np.int64]) -> bool:
    """Whether the peak in ``run`` has a width, and calm channels on both sides before the band ends."""
    peak = int(run[np.abs(curve[run]).argmax()])
    height = abs(float(curve[peak]))
    below = np.flatnonzero(curve * np.sign(curve[peak]) <= 0.5 * height)
    left, right = below[below < peak], below[below > peak]
    if not left.size or not right.size:
        return False
    first, last = int(left[-1]) + 1, int(right[0]) - 1
    width = last - first + 1
    # a Gaussian is below 2 % of its peak from 1.2 widths off its middle on
    start, stop = first - width + width // 4, last + width - width // 4
    flanks = [curve[max(0, start - width) : max(0, start)], curve[stop + 1 : stop + 1 + width]]
    calm = all(f.size and np.abs(f).max() < 0.35 * height for f in flanks)
    return width >= NARROW and calm


def show_curves(
    axes: Any,
    values: npt.NDArray[np.float64],
    limits: tuple[float, float],
    unit: str,
    *,
    top: float = 0.12,
    pad: float = 0.08,
    room: float = 0.11,
) -> None:
    """Set the vertical limits and say below the curves what is missing in them or off the scale.

    values: [B] or [B,N], as drawn; limits: of what must be seen; ``top``: room above for notes;
    ``room``: that below for the words, more in a low panel. Both are parts of the span.
    """
    low, high = limits
    span = high - low
    seen = (low - pad * span, high + (top + pad) * span)
    words = what_is_missing(values, seen, f" {unit}".rstrip())
    set_padded(axes, low - (room * span if words else 0.0), high + top * span, pad)
    if words:
        axes.text(
            0.01,
            0.02,
            _broken(axes, words, 7.5),
            transform=axes.transAxes,
            va="bottom",
            fontsize=7.5,
            color="#555555",
        ).set_in_layout(False)


def what_is_missing(values: npt.NDArray[np.float64], limits: tuple[float, float], unit: str) -> str:
    """What a panel with these vertical limits does not show of some curves, in words; "" when nothing."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return ""
    words = [GAP] if finite.size < values.size else []
    count = int(((finite < limits[0]) | (finite > limits[1])).sum())
    if count:
        far = [f"{count} point{'s' if count > 1 else ''} off the scale"]
        if finite.min() < limits[0]:
            far.append(f"down to {_short(float(finite.min()))}{unit}")
        if finite.max() > limits[1]:
            far.append(f"up to {_short(float(finite.max()))}{unit}")
        words.append(", ".join(far))
    return ";  ".join(words)


def _short(value: float) -> str:
    """A number with three digits, without an exponent while it is not long."""
    text = f"{value:.0f}" if 1000.0 <= abs(value) < 1e7 else f"{value:.3g}"
    return text.replace("-", "\u2212")


def _broken(axes: Any, text: str, size: float) -> str:
    """Break a text of ``size`` points where it is wider than its panel."""
    points = axes.get_position().width * axes.figure.get_figwidth() * 72.0
    width = max(20, int(points / (0.55 * size)))
    return "\n".join(textwrap.fill(line, width) for line in text.split("\n"))


def draw_steps(axes: Any, x: Any, values: npt.NDArray[np.float64], **style: Any) -> Any:
    """Draw a spectrum, f64 [B], as steps; a bin between gaps, which steps do not show, as a dot."""
    (line,) = axes.plot(x, values, drawstyle="steps-mid", **style)
    good = np.isfinite(values)
    beside = np.concatenate([[False], good, [False]])
    lone = good & ~beside[:-2] & ~beside[2:]
    if lone.any():
        axes.plot(np.asarray(x)[lone], values[lone], ".", color=line.get_color(), markersize=4.0)
    return line


def power_of_counts(largest: float) -> int:
    """Power of ten, a multiple of three, by which counts up to ``largest`` are divided for an axis."""
    return 3 * int(np.log10(max(largest, 1.0)) // 3)


def counts_label(power: int) -> str:
    """Label of an axis of counts that were divided by 10**power."""
    return f"counts [$10^{{{power}}}$]" if power else "counts"


def frequency_limits(x: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Limits of a frequency axis, GHz, ascending; 2 MHz wide for a single channel, (0, 1) for none."""
    finite = x[np.isfinite(x)]
    if not finite.size:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    return (low, high) if low < high else (low - 1e-3, high + 1e-3)


def say_in(axes: Any, text: str) -> None:
    """Write into an empty panel why it is empty."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="#555555")


def note_in(axes: Any, text: str, *, right: bool = False) -> None:
    """Write what is shown into the upper corner of a panel."""
    x, side = (0.99, "right") if right else (0.01, "left")
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.5}
    axes.text(
        x,
        0.96,
        _broken(axes, text, 8.5),
        transform=axes.transAxes,
        ha=side,
        va="top",
        fontsize=8.5,
        bbox=box,
    ).set_in_layout(False)


def set_padded(axes: Any, low: float, high: float, pad: float = 0.08) -> None:
    """Set the limits of the vertical axis with a margin around ``low`` and ``high``."""
    margin = pad * (high - low)
    axes.set_ylim(low - margin, high + margin)
