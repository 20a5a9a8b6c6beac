"""Spectra of a CLASS file against velocity and frequency."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.errors import GpucalError, GpucalWarning, ImportFormatError
from gpucal.io.gildas.reader import ClassFile, open_class
from gpucal.plot.style import (
    T_A,
    T_SYS_STAR,
    check_format,
    curve_limits,
    draw_steps,
    note_in,
    picture,
    receiver_style,
    require_matplotlib,
    say_in,
    show_curves,
)

F64 = npt.NDArray[np.float64]
LIGHT_KMS = 299792.458
MAX_PANELS = 4
"""Setups (line and telescope) per picture, one panel each."""
MAX_POINTS = 4000
SCALES = {"ta": f"{T_A} [K]", "tmb": r"$T_\mathrm{mb}$ [K]", "": "T [K]"}
Setup = tuple[str, str, str, int, float, float]


@dataclass(eq=False)
class _Mean:
    """Running mean of the spectra of one setup, weights time/T_sys^2 where all have both."""

    header: dict[str, Any]
    total: F64
    weight: F64
    scale: str
    count: int = 0
    time: float = 0.0

    def add(self, values: F64, header: dict[str, Any]) -> None:
        weight = header["time"] / header["tsys"] ** 2 if header["tsys"] > 0 else 0.0
        weight = weight if weight > 0 else 1e-9
        good = np.isfinite(values)
        self.total += np.where(good, values, 0.0) * weight
        self.weight += np.where(good, weight, 0.0)
        self.count += 1
        self.time += header["time"]

    def mean(self) -> F64:
        """f64 [C], K, NaN where no spectrum has a value."""
        out: F64 = np.full(self.total.shape, np.nan)
        np.divide(self.total, self.weight, out=out, where=self.weight > 0)
        return out


def plot_class(
    path: str | Path,
    out_dir: str | Path,
    scan: int | Collection[int] | None = None,
    fmt: str = "png",
) -> list[Path]:
    """Draw the spectra of a CLASS file, K against km/s and GHz; return the files written.

    One panel per source, line, telescope and setup of a scan: the mean of its spectra, weights
    time/T_sys^2. One setup after the other is in memory. Unreadable spectra are left out with a
    GpucalWarning. Raises ImportFormatError for a file that is no CLASS file or has no spectrum (of
    ``scan``), ConfigError for an unknown format, GpucalError without matplotlib.
    """
    ending = check_format(fmt)
    file = open_class(path)
    wanted = {scan} if isinstance(scan, int) else scan
    found = dict.fromkeys(int(n) for n in file.index["scan"])
    scans = [n for n in found if wanted is None or n in wanted]
    missing = sorted(set(wanted or ()) - set(found))
    if not scans or missing:
        lacking = ", ".join(str(n) for n in missing)
        what = f"no spectrum of scan {lacking}" if missing else "no spectrum"
        raise ImportFormatError(f"{path} holds {what}.", hint="gpucal inspect lists what it holds.")
    require_matplotlib()
    folder = Path(out_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GpucalError(f"the folder {folder} cannot be made: {error.strerror}.") from error
    written: list[Path] = []
    for number in scans:
        setups = list(_setups(file, number).values())
        pages = -(-len(setups) // MAX_PANELS)
        for page in range(pages):
            part = setups[page * MAX_PANELS : (page + 1) * MAX_PANELS]
            name = f"scan_{number:06d}_class" + (f"_{page + 1}" if pages > 1 else "")
            written.append(folder / f"{name}.{ending}")
            _draw(file, number, [_average(file, members) for members in part], written[-1])
    if not written:
        raise ImportFormatError(f"{path} holds no spectrum that can be read.")
    return written


def _setups(file: ClassFile, scan: int) -> dict[Setup, list[int]]:
    """Spectra of a scan that share source, line, telescope and frequency axis."""
    found: dict[Setup, list[int]] = {}
    for i in np.flatnonzero(file.index["scan"] == scan).tolist():
        try:
            h = file.header(i)
        except GpucalError as error:
            warnings.warn(f"left out: {error}", GpucalWarning, stacklevel=3)
            continue
        restf, channel = round(h["restf"], 3), round(h["rchan"], 1)
        key = (h["source"], h["line"], h["teles"], h["nchan"], restf, channel)
        found.setdefault(key, []).append(i)
    return found


def _average(file: ClassFile, members: Iterator[int] | list[int]) -> _Mean | None:
    """Mean of some spectra; damaged ones are left out with a warning; None when all are."""
    mean: _Mean | None = None
    for i in members:
        try:
            header, spectrum = file.header(i), file[i]
        except GpucalError as error:
            warnings.warn(f"left out: {error}", GpucalWarning, stacklevel=3)
            continue
        if mean is None:
            shape = spectrum.values.shape
            mean = _Mean(header, np.zeros(shape), np.zeros(shape), spectrum.scale)
        mean.add(spectrum.values, header)
    return mean


def _draw(file: ClassFile, scan: int, means: list[_Mean | None], path: Path) -> None:
    sources = list(dict.fromkeys(m.header["source"] for m in means if m is not None))
    title = f"{file.path.name}   scan {scan}   {', '.join(sources)}"
    with picture(path, (8.0, 1.2 + 2.7 * len(means)), title) as figure:
        panels = figure.subplots(len(means), 1, squeeze=False)[:, 0]
        for axes, mean in zip(panels, means, strict=True):
            if mean is None:
                say_in(axes, "cannot be read")
            else:
                _draw_panel(axes, mean)


def _draw_panel(axes: Any, mean: _Mean) -> None:
    h, values = mean.header, mean.mean()
    offset = np.arange(values.size) + 1 - h["rchan"]
    velocity, values = _binned(h["voff"] + offset * h["vres"], values)
    style = receiver_style(0)
    draw_steps(axes, velocity, values, **style)
    axes.axhline(0.0, color="#777777", linewidth=0.6)
    axes.set_ylabel(SCALES[mean.scale])
    frame = {1: "LSR", 2: "heliocentric", 3: "topocentric"}.get(h["vtype"], "frame not known")
    axes.set_xlabel(f"velocity [km/s], {frame}, {h['line'] or 'line'} {h['restf'] / 1e3:.6f} GHz")
    low, high = float(velocity.min()), float(velocity.max())
    # frequency grows to the right, as in all pictures
    axes.set_xlim(*((high, low) if high > low else (high + 1.0, low - 1.0)))
    slope = -h["restf"] / 1e3 / (LIGHT_KMS - h["voff"])
    top = axes.secondary_xaxis(
        "top",
        functions=(
            lambda v: h["restf"] / 1e3 + (v - h["voff"]) * slope,
            lambda f: h["voff"] + (f - h["restf"] / 1e3) / slope,
        ),
    )
    top.set_xlabel("frequency in the rest frame of the source [GHz]")
    top.ticklabel_format(axis="x", useOffset=False)
    show_curves(axes, values, curve_limits(values), "K")
    if not np.isfinite(values).any():
        say_in(axes, "no valid channel")
    text = [h["teles"], f"{mean.count} spectra" if mean.count > 1 else ""]
    text += [f"{T_SYS_STAR} {h['tsys']:.0f} K" if h["tsys"] > 0 else ""]
    text += [f"{mean.time:.3g} s" if mean.time > 0 else ""]
    note_in(axes, ", ".join(x for x in text if x))


def _binned(velocity: F64, values: F64) -> tuple[F64, F64]:
    """Means of equal groups of channels where there are more than a picture can show."""
    width = -(-values.size // MAX_POINTS)
    if width == 1:
        return velocity, values
    edges = np.arange(0, values.size, width)
    good = np.isfinite(values)
    count = np.add.reduceat(good.astype(np.float64), edges)
    total = np.add.reduceat(np.where(good, values, 0.0), edges)
    members = np.diff(np.append(edges, values.size))
    mean = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return np.add.reduceat(velocity, edges) / members, mean
