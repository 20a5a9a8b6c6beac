"""Switched observations: the calibrated average of a scan, its noise, and whether a line is there.

Position, wobbler and frequency switching, nodding: whatever the calibration made of them, L1 holds T_A* per
subscan. They are averaged with weights t dnu / T_sys*^2 (physics equation (11.4)), block of channels by
block, so that a scan never has to be in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpucal.procedures.least_squares import covariance_of
from gpucal.procedures.results import LineCheck, Measured, SwitchedResult

F64 = npt.NDArray[np.float64]
NAN = float("nan")
C_KMS = 299792.458
MEDIAN_OF_SQUARE = 0.454936423119572
"""Median of the square of a Gaussian of unit variance."""

MIN_OUTSIDE = 8
"""Channels that the baseline under a line needs."""


@dataclass(frozen=True, eq=False)
class NoiseModel:
    """Terms of the variance of the mean over the dumps of each output subscan, in 1/s.

    rms^2 = T_sys*^2 (rate + sum_k reference^2) / dnu

    seconds    f64 [S]    integration time of a subscan when all of its dumps are good
    rate       f64 [S]    of the dumps themselves, all of them good
    reference  f64 [S,K]  s^-1/2: share of each of K references (OFF means); outputs that use the same one
               have its noise in common
    """

    seconds: F64
    rate: F64
    reference: F64

    @property
    def excess(self) -> F64:
        """Variance with references over that of the dumps alone, f64 [S]."""
        return np.asarray(1.0 + np.sum(self.reference**2, axis=1) / self.rate)


@dataclass(frozen=True, eq=False)
class SwitchedBlock:
    """A block of channels averaged over subscans and dumps: all f64 [c,R,A].

    spectrum K; weight sum of t dnu/T_sys*^2, 1/K^2; variance expected, K^2; time s of good samples
    """

    spectrum: F64
    weight: F64
    variance: F64
    time: F64


def dump_mean(spectra: F64, exptime: F64) -> tuple[F64, F64]:
    """Mean over the dumps of one subscan by integration time, and the time that went into it.

    spectra f64 [c,D,R,A] K, NaN = bad; exptime f64 [D] s. Returns two f64 [c,R,A]: K (NaN where no dump
    is good), s.
    """
    good = np.isfinite(spectra)
    seconds = good * np.where(np.isfinite(exptime), exptime, 0.0)[None, :, None, None]
    time = np.asarray(seconds.sum(axis=1), dtype=np.float64)
    total = np.sum(np.where(good, spectra, 0.0) * seconds, axis=1)
    return np.where(time > 0, total / np.where(time > 0, time, 1.0), NAN), time


def average_block(
    mean: F64, time: F64, t_sys_star: F64, width_hz: float, noise: NoiseModel
) -> SwitchedBlock:
    """Average the subscans' dump means with weights t dnu / T_sys*^2.

    mean f64 [c,R,A,S] K, NaN = bad; time f64 [c,R,A,S] s; t_sys_star f64 [c,R,A,S] K; width_hz of a
    channel. The expected variance follows from the weights, with the references' noise added up
    coherently.
    """
    usable = np.isfinite(mean) & np.isfinite(t_sys_star) & (t_sys_star > 0) & (time > 0)
    scale = np.where(usable, t_sys_star, 1.0)
    seconds = np.where(usable, time, 0.0)
    weights = seconds * width_hz / scale**2
    weight = weights.sum(axis=-1)
    some = weight > 0
    safe = np.where(some, weight, 1.0)
    share = weights / safe[..., None]
    # fewer good dumps, more noise
    lost = noise.seconds / np.where(usable, time, noise.seconds)
    own = np.sum(share**2 * scale**2 * noise.rate * lost, axis=-1)
    common = np.sum(((share * scale) @ noise.reference) ** 2, axis=-1)
    total = np.sum(np.where(usable, mean, 0.0) * share, axis=-1)
    return SwitchedBlock(
        spectrum=np.where(some, total, NAN),
        weight=weight,
        variance=np.where(some, (own + common) / width_hz, NAN),
        time=seconds.sum(axis=-1),
    )


@dataclass(frozen=True)
class LineWindow:
    """Window in which a line is expected, Hz, and the order of the baseline around it (0 or 1).

    rest_hz: rest frequency, to integrate in K km/s; None = in K MHz
    """

    low_hz: float
    high_hz: float
    rest_hz: float | None = None
    order: int = 1
    min_snr: float = 5.0


def switched_result(
    blocks: Sequence[SwitchedBlock],
    frequency: F64,
    *,
    n_subscans: int,
    mode: str = "",
    window: LineWindow | None = None,
) -> SwitchedResult:
    """Result of a scan from its blocks, joined in order of channel; ``frequency`` f64 [C,F] Hz, F = 1 or R.

    rms: scatter of adjacent channels over that of the radiometer equation, from the median square so that
    lines do not count (as in L1's ``qa``), times the expected rms. Valid when any pixel has a good channel.
    """
    spectrum, weight, variance, time = (
        np.concatenate([getattr(b, name) for b in blocks])
        for name in ("spectrum", "weight", "variance", "time")
    )
    step = np.diff(spectrum, axis=0) ** 2 / (variance[1:] + variance[:-1])
    ratio = np.sqrt(_nan(np.nanmedian, step) / MEDIAN_OF_SQUARE)
    expected = np.sqrt(_nan(np.nanmean, variance))
    seen = np.isfinite(spectrum).any(axis=0)
    lines: tuple[LineCheck, ...] = ()
    if window is not None:
        n_rec, n_pix = spectrum.shape[1:]
        lines = tuple(
            check_line(
                spectrum[:, r, a],
                np.sqrt(variance[:, r, a]) * ratio[r, a],
                frequency[:, r if frequency.shape[1] > 1 else 0],
                window,
                (r, a),
            )
            for r in range(n_rec)
            for a in range(n_pix)
        )
    reason = "" if seen.any() else "no sample of any pixel is good"
    return SwitchedResult(
        spectrum=spectrum,
        weight=weight,
        frequency=frequency,
        rms=ratio * expected,
        expected=expected,
        ratio=ratio,
        time=_nan(np.nanmean, np.where(weight > 0, time, NAN)),
        n=n_subscans,
        mode=mode,
        line=lines,
        valid=not reason,
        reason=reason,
    )


def _nan(reduce: object, values: F64) -> F64:
    """nanmean or nanmedian over channels, NaN without a warning where a pixel has none."""
    assert callable(reduce)
    dead = ~np.isfinite(values).any(axis=0)
    return np.where(dead, NAN, reduce(np.where(dead, 0.0, values), axis=0))


def check_line(
    spectrum: F64, sigma: F64, frequency: F64, window: LineWindow, place: tuple[int, int]
) -> LineCheck:
    """Integrated intensity inside the window over a baseline fitted outside it, with its error.

    spectrum, sigma (noise per channel), frequency f64 [C]. The error holds the noise of the channels and
    that of the baseline; it is valid when the line is seen at ``window.min_snr``.
    """
    low, high = sorted((window.low_hz, window.high_hz))
    good = np.isfinite(spectrum) & np.isfinite(sigma) & (sigma > 0)
    inside = good & (frequency >= low) & (frequency <= high)
    outside = good & ~inside
    width = abs(float(np.median(np.diff(frequency))))
    step, unit = width / 1e6, "K MHz"
    if window.rest_hz is not None:
        step, unit = C_KMS * width / window.rest_hz, "K km/s"
    nothing = Measured(unit=unit), Measured(unit="K")
    if not good.any():
        return LineCheck(*place, *nothing, False, "no good channel")
    if not inside.any():
        return LineCheck(*place, *nothing, False, "the window holds no good channel")
    if np.count_nonzero(outside) < MIN_OUTSIDE:
        return LineCheck(*place, *nothing, False, "too few channels outside the window")
    x = (frequency - frequency[outside].mean()) / np.ptp(frequency)
    design = np.stack([x**k for k in range(window.order + 1)], axis=1)
    weighted = design[outside] / sigma[outside, None]
    c, *_ = np.linalg.lstsq(weighted, spectrum[outside] / sigma[outside], rcond=None)
    line = spectrum[inside] - design[inside] @ c
    lever = design[inside].sum(axis=0)
    variance = np.sum(sigma[inside] ** 2) + lever @ covariance_of(weighted) @ lever
    area = Measured(float(line.sum() * step), float(np.sqrt(variance) * step), unit)
    top = int(np.argmax(np.abs(line)))
    peak = Measured(float(line[top]), float(sigma[inside][top]), "K")
    reason = "" if area.snr >= window.min_snr else f"no line seen: {area.snr:.1f} sigma"
    return LineCheck(*place, area, peak, not reason, reason)
