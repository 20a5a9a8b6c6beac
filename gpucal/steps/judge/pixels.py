"""Pixels are judged before they enter anything joint: one that is broken must not move the others.

A pixel is left out of the common fit of the water, with a warning and the flag TSYS_OUTLIER, when its receiver
temperature, its gain or its sky lies far from those of the other pixels; an OFF that no sky can be is no reference,
either. Physics section 5, "Which pixels". Shapes: C channels, R receivers, A pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.backend.protocol import Backend
from gpucal.config import CalibrationConfig
from gpucal.products import LoadSolution

Array = Any
F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

CHANNELS = 512
"""A median over about this many channels tells a broken pixel as well as one over all."""

PEERS = 3
"""Fewer pixels than this have no majority: they are judged by what is possible alone."""

GAIN_FACTOR = 30.0
"""Digital gains differ by a few dB within an array; a factor of 30 is a broken pixel."""

HOTTER, COLDER = 0.5, 0.1
"""A sky may look hotter than HOT, or colder than 0 K, by these parts of HOT - COLD: loads are not perfect."""

MISFIT, MISFIT_RATIO = 4.0, 25.0
"""chi2 per degree of freedom that is beyond noise and model error, and beyond that of the others."""

MOST_NAMED = 5


@dataclass(frozen=True)
class Complaint:
    """Why one pixel is left out: what was found, and what the others have."""

    receiver: int
    pixel: int
    reason: str

    def __str__(self) -> str:
        return f"receiver {self.receiver} pixel {self.pixel}: {self.reason}"


@dataclass(frozen=True, eq=False)
class Verdict:
    """Pixels that are left out of what is joint, bool [R,A], and why."""

    left_out: Mask
    complaints: tuple[Complaint, ...] = ()

    def also(self, other: Verdict) -> Verdict:
        """Both verdicts; the first complaint about a pixel stands."""
        known = {(c.receiver, c.pixel) for c in self.complaints}
        new = [c for c in other.complaints if (c.receiver, c.pixel) not in known]
        return Verdict(self.left_out | other.left_out, (*self.complaints, *new))

    def warnings(self) -> tuple[str, ...]:
        """One sentence for all pixels; empty when there is none."""
        if not self.complaints:
            return ()
        named = "; ".join(str(c) for c in self.complaints[:MOST_NAMED])
        more = len(self.complaints) - MOST_NAMED
        rest = f"; and {more} more" if more > 0 else ""
        return (
            f"pixels that are left out of the common fit of the water (flag TSYS_OUTLIER): {named}{rest}.",
        )


def nobody(shape: tuple[int, ...]) -> Verdict:
    """No complaint about any pixel [R,A]."""
    return Verdict(np.zeros(shape, dtype=np.bool_))


def judge_loads(loads: LoadSolution, config: CalibrationConfig, backend: Backend) -> Verdict:
    """Receiver temperature and gain of each pixel against the others of its receiver."""
    shape = loads.bad.shape[1:]
    if loads.cold is None or not config.pixel_t_rec:
        return nobody(shape)
    t_rec = _typical(loads.t_rec, backend)
    gain = _typical(loads.span / (loads.j_hot - loads.j_cold), backend)
    found: list[Complaint] = []
    for what, unit, values, factor in (
        ("T_rec", " K", t_rec, config.pixel_t_rec),
        ("gain", " counts/K", gain, GAIN_FACTOR),
    ):
        usual = _usual(values)
        with np.errstate(invalid="ignore", divide="ignore"):
            far = np.abs(np.log(values / usual)) > np.log(factor)
        found += [
            Complaint(
                r,
                a,
                f"{what} is {values[r, a]:.4g}{unit}, the others have {usual[r, a]:.4g}{unit}",
            )
            for r, a in _where(far)
        ]
    return _verdict(shape, found)


def impossible_sky(counts: Array, loads: LoadSolution, backend: Backend) -> Verdict:
    """Pixels whose OFF no sky can be: hotter than HOT, or below 0 K; ``counts`` f64 [C,R,A] means of the OFF."""
    shape = loads.bad.shape[1:]
    if loads.cold is None:
        return nobody(shape)
    level, hot = _sky_level(counts, loads, backend), _hot_level(loads, backend)
    above, below = level > HOTTER, level < -hot - COLDER
    found = [
        Complaint(r, a, f"its OFF is {_kelvin(level, hot, loads, r, a)} hotter than HOT")
        for r, a in _where(above)
    ]
    found += [
        Complaint(r, a, f"its OFF is a sky of {_kelvin(level + hot, hot, loads, r, a)}")
        for r, a in _where(below)
    ]
    return _verdict(shape, found)


def judge_sky(
    skies: Iterable[Array], loads: LoadSolution, config: CalibrationConfig, backend: Backend
) -> Verdict:
    """The sky that each pixel saw, in units of HOT - COLD, against that of the others; means f64 [C,R,A]."""
    shape = loads.bad.shape[1:]
    verdict = nobody(shape)
    if loads.cold is None or not config.pixel_sky:
        return verdict
    hot = _hot_level(loads, backend)
    for counts in skies:
        level = _sky_level(counts, loads, backend)
        usual = _usual(level)
        spread = 1.4826 * _usual(np.abs(level - usual))
        far = np.abs(level - usual) > np.maximum(config.pixel_sky, 10.0 * spread)
        found = [
            Complaint(
                r,
                a,
                f"its OFF shows a sky of {_kelvin(level + hot, hot, loads, r, a)}, the others "
                f"{_kelvin(usual + hot, hot, loads, r, a)}",
            )
            for r, a in _where(far)
        ]
        verdict = verdict.also(_verdict(shape, found))
    return verdict


def judge_misfit(values: F64) -> Verdict:
    """Pixels whose own residual of the common fit is far beyond noise and those of the others.

    values f64 [R,A]: chi2 per degree of freedom, NaN where a pixel did not enter.
    """
    usual = _usual(values)
    with np.errstate(invalid="ignore"):
        far = (values > MISFIT) & (values > MISFIT_RATIO * usual)
    return _verdict(
        values.shape,
        [
            Complaint(
                r,
                a,
                f"its sky does not follow the model: chi2/dof {values[r, a]:.3g}, the others "
                f"{usual[r, a]:.2g}",
            )
            for r, a in _where(far)
        ],
    )


def _typical(values: Array, backend: Backend) -> F64:
    """Median over some channels, without NaN, f64 [R,A]; NaN where there is none."""
    step = max(1, values.shape[0] // CHANNELS)
    here = np.asarray(backend.to_host(values[::step, ...]), dtype=np.float64)
    empty = ~np.isfinite(here).any(axis=0)
    return np.asarray(np.where(empty, np.nan, np.nanmedian(np.where(empty, 0.0, here), axis=0)))


def _sky_level(counts: Array, loads: LoadSolution, backend: Backend) -> F64:
    """(C_OFF - C_hot)/(C_hot - C_cold): the sky below HOT in units of HOT - COLD, median, f64 [R,A]."""
    step = max(1, counts.shape[0] // CHANNELS)
    part = slice(None, None, step)
    xp = backend.xp
    level = (counts[part, ...] - loads.hot[part, ...]) / loads.span[part, ...]
    return _typical(xp.where(loads.bad[part, ...], xp.nan, level), backend)


def _hot_level(loads: LoadSolution, backend: Backend) -> F64:
    """J_hot / (J_hot - J_cold), f64 [R,A]: how far below HOT 0 K lies."""
    xp = backend.xp
    return _typical(loads.j_hot / (loads.j_hot - loads.j_cold) + xp.zeros_like(loads.hot), backend)


def _kelvin(level: F64, hot: F64, loads: LoadSolution, r: int, a: int) -> str:
    """A level in units of HOT - COLD as K, from T_hot of the receiver."""
    t_hot = float(np.mean(np.asarray(loads.t_hot).reshape(-1)))
    return f"{level[r, a] / hot[r, a] * t_hot:.0f} K"


def _usual(values: F64) -> F64:
    """What a pixel is compared with, f64 [R,A]: the median of its receiver, of all where a receiver has too few.

    NaN, which nothing is far from, where there is no majority.
    """
    usual = np.full(values.shape, np.nan)
    everything = values[np.isfinite(values)]
    for r, row in enumerate(values):
        own = row[np.isfinite(row)]
        if len(own) >= PEERS:
            usual[r] = np.median(own)
        elif len(everything) >= PEERS:
            usual[r] = np.median(everything)
    return usual


def _where(mask: Mask) -> Sequence[tuple[int, int]]:
    """The (receiver, pixel) of a mask [R,A]."""
    return [(int(r), int(a)) for r, a in np.argwhere(mask)]


def _verdict(shape: tuple[int, ...], complaints: Sequence[Complaint]) -> Verdict:
    """The verdict of some complaints."""
    left_out = np.zeros(shape, dtype=np.bool_)
    for complaint in complaints:
        left_out[complaint.receiver, complaint.pixel] = True
    return Verdict(left_out, tuple(complaints))
