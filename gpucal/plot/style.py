"""One look for all pictures: colour-blind safe, readable in grey, units on every axis."""

from __future__ import annotations

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


def say_in(axes: Any, text: str) -> None:
    """Write into an empty panel why it is empty."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="#555555")


def note_in(axes: Any, text: str, *, right: bool = False) -> None:
    """Write what is shown into the upper corner of a panel."""
    x, side = (0.99, "right") if right else (0.01, "left")
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.5}
    axes.text(x, 0.96, text, transform=axes.transAxes, ha=side, va="top", fontsize=8.5, bbox=box)


def set_padded(axes: Any, low: float, high: float, pad: float = 0.08) -> None:
    """Set the limits of the vertical axis with a margin around ``low`` and ``high``."""
    margin = pad * (high - low)
    axes.set_ylim(low - margin, high + margin)
