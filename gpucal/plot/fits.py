"""Pictures of pointing, focus and skydip: data, fit, residual, and the result in words.

A fit here is any object with the attributes of ``FitLike``, as the results of gpucal.procedures
have; a result is any object with ``fits``, ``valid`` and ``reason``.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gpucal.plot.source import F64
from gpucal.plot.style import MARKERS, OKABE_ITO, picture, say_in

MAX_FITS = 6
"""Fits in one picture, side by side; more go to further pictures."""
MAX_PAGES = 4
ABREAST = 3
"""Fits side by side; more go below."""
MAX_NAMED = 4
"""Fitted quantities written into a panel."""
INVALID = "#D55E00"
FEW = 50
"""Samples up to which the model is drawn through a spline, which is exact for a parabola."""
NAMES = {
    "fwhm": "FWHM",
    "tau": "τ",
    "f_eff": "$f_\\mathrm{eff}$",
    "t0": "$T_0$",
    "best": "best focus",
}
AXES = {"airmass": "airmass", "az": "azimuth offset", "el": "elevation offset"}


class FitLike(Protocol):
    """One fit: samples f64 [N] in ``positions`` (unit) and ``values`` (value_unit), model, residual."""

    @property
    def axis(self) -> str: ...
    @property
    def receiver(self) -> int: ...
    @property
    def pixel(self) -> int: ...
    @property
    def label(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def value_unit(self) -> str: ...
    @property
    def positions(self) -> F64: ...
    @property
    def values(self) -> F64: ...
    @property
    def sigma(self) -> F64: ...
    @property
    def model(self) -> F64: ...
    @property
    def residual(self) -> F64: ...
    @property
    def valid(self) -> bool: ...
    @property
    def reason(self) -> str: ...
    @property
    def parameters(self) -> Mapping[str, Any]: ...


class ResultLike(Protocol):
    """A pointing, focus or skydip: its fits, and whether the whole is valid."""

    @property
    def fits(self) -> Sequence[FitLike]: ...
    @property
    def valid(self) -> bool: ...
    @property
    def reason(self) -> str: ...


def plot_fits(result: ResultLike, path: Path, title: str) -> list[Path]:
    """Draw every fit of a reduced scan with its residual below; returns the files written.

    result: ``reduce_scan(...).result``; path: a file that ends in .png or .svg. Needs matplotlib; raises
    OSError when the file cannot be written.

    A fit that is not valid says INVALID and why. Above MAX_FITS fits the pictures are numbered; of a
    large array the first MAX_FITS * MAX_PAGES fits are drawn, and the title says of how many.
    """
    shown = result.fits[: MAX_FITS * MAX_PAGES]
    pages = [shown[i : i + MAX_FITS] for i in range(0, len(shown), MAX_FITS)] or [()]
    if len(shown) < len(result.fits):
        title = f"{title}   first {len(shown)} of {len(result.fits)} fits"
    written = []
    for number, page in enumerate(pages, 1):
        target = path if len(pages) == 1 else path.with_name(f"{path.stem}_{number}{path.suffix}")
        _draw_page(result, page, target, title)
        written.append(target)
    return written


def _draw_page(result: ResultLike, fits: Sequence[FitLike], path: Path, title: str) -> None:
    columns = min(ABREAST, max(1, len(fits)))
    rows = max(1, -(-len(fits) // ABREAST))
    heading = title if result.valid else f"{title}   INVALID: {result.reason}"
    with picture(path, (max(5.5, 4.2 * columns), 4.6 * rows), heading) as figure:
        grid = figure.add_gridspec(rows, 1)
        for row in range(rows):
            panels = (
                grid[row]
                .subgridspec(2, columns, height_ratios=[3, 1], hspace=0)
                .subplots(sharex="col", squeeze=False)
            )
            shown = fits[row * ABREAST : (row + 1) * ABREAST]
            if not fits:
                say_in(panels[0, 0], "nothing was fitted")
            for column, fit in enumerate(shown):
                _draw_fit(panels[0, column], fit)
                _draw_residual(panels[1, column], fit)
            for axes in panels[:, max(1, len(shown)) :].ravel():
                axes.remove()
            if shown:
                panels[0, 0].set_ylabel(f"signal [{shown[0].value_unit}]")
                panels[1, 0].set_ylabel(f"residual [{shown[0].value_unit}]")
        figure.align_ylabels()


def _groups(fit: FitLike) -> list[tuple[Any, str]]:
    """Samples that belong together (drifts of a pointing), with their name."""
    drift = np.asarray(getattr(fit, "drift", np.empty(0)))
    if drift.shape != fit.positions.shape or not drift.size:
        return [(np.ones(fit.positions.shape, dtype=bool), "data")]
    senses = tuple(getattr(fit, "sense", ()))
    groups = []
    for i, number in enumerate(np.unique(drift)):
        arrow = {1: " \u2192", -1: " \u2190"}.get(senses[i], "") if i < len(senses) else ""
        groups.append((drift == number, f"drift {number}{arrow}"))
    return groups


def _draw_fit(axes: Any, fit: FitLike) -> None:
    place = f"receiver {fit.receiver}, pixel {fit.pixel}"
    axes.set_title(f"{fit.label + ', ' if fit.label else ''}{place}", loc="left")
    if not fit.positions.size:
        say_in(axes, "no samples")
    for number, (mask, name) in enumerate(_groups(fit)):
        style = _markers(number)
        bars = fit.sigma[mask] if fit.sigma.shape == fit.positions.shape else None
        axes.errorbar(
            fit.positions[mask], fit.values[mask], yerr=bars, label=name, elinewidth=0.6, **style
        )
        if fit.model.shape == fit.positions.shape:
            axes.plot(
                *_curve(fit.positions[mask], fit.model[mask]),
                color=OKABE_ITO[2] if fit.valid else INVALID,
                linestyle="-" if fit.valid else "--",
                linewidth=1.4,
                label="fit" if number == 0 else None,
                zorder=3,
            )
    _say_result(axes, fit)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.45 * (high - low))  # room for the words
    axes.legend(loc="upper right", fontsize=7)


def _curve(positions: F64, model: F64) -> tuple[F64, F64]:
    """The model in order of position; a spline through it where there are few samples."""
    x, first = np.unique(positions, return_index=True)
    y = model[first]
    if not 4 <= x.size <= FEW or not np.isfinite(y).all():
        return x, y
    from scipy.interpolate import CubicSpline

    fine = np.linspace(x[0], x[-1], 20 * x.size)
    return fine, np.asarray(CubicSpline(x, y)(fine), dtype=np.float64)


def _markers(number: int) -> dict[str, Any]:
    return {
        "color": OKABE_ITO[(0, 1, 4, 3)[number % 4]],
        "marker": MARKERS[number % len(MARKERS)],
        "markersize": 3.0,
        "linestyle": "none",
        "markerfacecolor": "none" if number % 2 else None,
    }


def _say_result(axes: Any, fit: FitLike) -> None:
    """Write the parameters, or why the fit is invalid, into the panel."""
    measured = [
        (name, text)
        for name, text in ((n, str(m)) for n, m in fit.parameters.items())
        if not text.startswith("nan")
    ]
    lines = [
        f"{NAMES.get(name, name.replace('_', ' '))} {text}" for name, text in measured[:MAX_NAMED]
    ]
    if not fit.valid:
        lines = [*textwrap.wrap(f"INVALID: {fit.reason or 'no reason given'}", 34), *lines[:2]]
    axes.text(
        0.02,
        0.97,
        "\n".join(lines),
        transform=axes.transAxes,
        va="top",
        fontsize=8,
        color="black" if fit.valid else "#8a3c00",
        fontweight="normal" if fit.valid else "bold",
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.5},
        zorder=4,
    )


def _draw_residual(axes: Any, fit: FitLike) -> None:
    name = AXES.get(fit.axis, f"{fit.axis} position")
    axes.set_xlabel(f"{name} [{fit.unit}]" if fit.unit else name)
    axes.axhline(0.0, color="#777777", linewidth=0.8)
    if fit.residual.shape != fit.positions.shape or not np.isfinite(fit.residual).any():
        say_in(axes, "no residual")
        return
    for number, (mask, _) in enumerate(_groups(fit)):
        bars = fit.sigma[mask] if fit.sigma.shape == fit.positions.shape else None
        axes.errorbar(
            fit.positions[mask], fit.residual[mask], yerr=bars, elinewidth=0.6, **_markers(number)
        )
    limit = 1.25 * float(np.nanmax(np.abs(fit.residual))) or 1.0
    axes.set_ylim(-limit, limit)
