"""Pointing: position of a source in drifts across it, with width, amplitude and latency.

Physics section 11; the IRAM requirement processPointing. All drifts of one direction in one pixel are fitted
together, each over its own baseline: the same as the fit to their average, without resampling. A reversed
drift cancels the latency between position and data, which is half the difference of the two senses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.procedures.gaussian import FOUR_LN2, BeamFit, BeamModel, Samples, fit_beam
from gpucal.procedures.least_squares import error_scale
from gpucal.procedures.pointing_checks import residual_scatter, why_invalid
from gpucal.procedures.results import (
    Measured,
    PointingFit,
    PointingResult,
    Quality,
    WeightedMean,
    weighted_mean,
)

F64 = npt.NDArray[np.float64]
NAN = float("nan")
MIN_SAMPLES = 8
SAMPLES_PER_WIDTH = 1.5
"""No narrower width is believed: it would be a spike."""


@dataclass(frozen=True, eq=False)
class Drift:
    """One subscan across the source, seen by one pixel.

    axis       "az" or "el": the direction of motion
    positions  f64 [D] in ``unit`` (arcsec or deg), relative to where the source should be
    values     f64 [D] K (or counts); NaN samples are left out
    sigma      f64 [D] or None: their 1-sigma errors; None = from the residual of the fit
    cross      the position in the other direction, same unit
    sense      +1 forward, -1 backward, 0: read from the positions
    speed      ``unit`` per s, to tell the latency as a time; NaN = not known
    """

    axis: str
    positions: F64
    values: F64
    sigma: F64 | None = None
    cross: float = 0.0
    sense: int = 0
    speed: float = NAN
    unit: str = "arcsec"
    value_unit: str = "K"
    receiver: int = 0
    pixel: int = 0
    label: str = ""

    @property
    def direction(self) -> int:
        """+1 or -1: the sense of motion."""
        if self.sense:
            return 1 if self.sense > 0 else -1
        return 1 if np.nanmean(np.diff(self.positions)) >= 0 else -1


@dataclass(frozen=True)
class PointingOptions:
    """Options of the fit of a pointing.

    order     of the baselines: 0 or 1
    throw     beam-switched: the negative beam lies at offset + throw (unit of the drifts); None = one beam
    fit_throw fit the throw instead of holding it
    fwhm      hold the width; None = fit it
    min_snr   a weaker peak is "no source seen". The fit looks for the highest peak anywhere, so 3 sigma are
              found in pure noise
    """

    order: int = 1
    throw: float | None = None
    fit_throw: bool = False
    fwhm: float | None = None
    min_snr: float = 5.0


Key = tuple[str, str, int, int, float]


def reduce_pointing(
    drifts: Sequence[Drift], options: PointingOptions | None = None
) -> PointingResult:
    """Offsets, widths and amplitudes of a pointing scan, with errors; see ``PointingResult``.

    Drifts with the same axis, cross position, label, receiver and pixel are fitted together. Each amplitude
    is corrected for the offset in the other direction, exp(4 ln2 (offset/fwhm)^2) with that direction's
    own fit of the pixel, or its mean. Never raises for bad data: the result says what is wrong.
    """
    options = options or PointingOptions()
    groups: dict[Key, list[Drift]] = {}
    for drift in drifts:
        groups.setdefault(_key(drift), []).append(drift)
    fits = [fit_drifts(group, options) for group in groups.values()]
    means = _means(fits)
    corrected = tuple(_with_correction(fit, fits, means) for fit in fits)
    valid, reason = _verdict(corrected)
    return PointingResult(fits=corrected, means=means, valid=valid, reason=reason)


def _key(drift: Drift) -> Key:
    """Drifts with equal keys are fitted together; ``cross`` counts to six digits."""
    return (drift.axis, drift.label, drift.receiver, drift.pixel, float(f"{drift.cross:.6g}"))


def fit_drifts(drifts: Sequence[Drift], options: PointingOptions | None = None) -> PointingFit:
    """Gaussian fit to all drifts along one axis of one pixel; ``corrected`` is filled in later."""
    # numbers that overflow end as a fit that did not converge
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return _fit_drifts(drifts, options or PointingOptions())


def _fit_drifts(drifts: Sequence[Drift], options: PointingOptions) -> PointingFit:
    """As ``fit_drifts``, with overflow silent."""
    first = drifts[0]
    samples, senses = _samples(drifts)
    blank = PointingFit(
        axis=first.axis,
        receiver=first.receiver,
        pixel=first.pixel,
        label=first.label,
        unit=first.unit,
        value_unit=first.value_unit,
        positions=samples.x,
        values=samples.y,
        sigma=samples.sigma if samples.absolute else np.full(samples.x.size, NAN),
        drift=samples.drift,
        sense=senses,
        cross=first.cross,
        quality=Quality(n=samples.x.size),
    )
    why = _unusable(samples, options)
    if why:
        return replace(blank, reason=why)
    low, high = float(samples.x.min()), float(samples.x.max())
    narrowest = SAMPLES_PER_WIDTH * float(np.median(np.abs(_steps(samples))))
    model = BeamModel(
        order=options.order,
        latency=len(set(senses)) == 2,
        throw=options.throw,
        fit_throw=options.fit_throw,
        fwhm=options.fwhm,
        widths=(min(narrowest, 0.1 * (high - low)), high - low),
    )
    middle = 0.5 * (low + high)
    return _result(blank, fit_beam(samples, model, middle), model, drifts, options)


def _samples(drifts: Sequence[Drift]) -> tuple[Samples, tuple[int, ...]]:
    """The finite samples of all drifts, end to end, and the senses of those that have any."""
    absolute = all(d.sigma is not None for d in drifts)
    columns: list[list[F64]] = [[], [], [], [], []]
    senses: list[int] = []
    for d in drifts:
        x = np.asarray(d.positions, dtype=np.float64)
        y = np.asarray(d.values, dtype=np.float64)
        sigma = np.ones(x.shape) if d.sigma is None or not absolute else np.asarray(d.sigma)
        good = np.isfinite(x) & np.isfinite(y) & np.isfinite(sigma) & (sigma > 0)
        if not good.any():
            continue
        n = int(good.sum())
        parts = (x[good], y[good], sigma[good], np.full(n, len(senses)), np.full(n, d.direction))
        for column, part in zip(columns, parts, strict=True):
            column.append(np.asarray(part, dtype=np.float64))
        senses.append(d.direction)
    x, y, s, number, sense = (np.concatenate(c) if c else np.empty(0) for c in columns)
    return Samples(x, y, s, number.astype(np.int32), sense, absolute), tuple(senses)


def _steps(samples: Samples) -> F64:
    """Signed distances of neighbouring samples, without those between two drifts."""
    steps = np.diff(samples.x)
    return np.asarray(steps[np.diff(samples.drift) == 0])


def _unusable(samples: Samples, options: PointingOptions) -> str:
    """Reason why nothing can be fitted, or ""."""
    drifts = int(samples.drift.max()) + 1 if samples.x.size else 0
    need = max(MIN_SAMPLES, 6 + drifts * (options.order + 1))
    if samples.x.size < need:
        return f"too few samples: {samples.x.size}, need {need}"
    if np.ptp(samples.x) == 0:
        return "all samples are at one position"
    if np.ptp(samples.y) == 0:
        return "all samples have the same value"
    return ""


def _result(
    blank: PointingFit,
    fit: BeamFit,
    model: BeamModel,
    drifts: Sequence[Drift],
    options: PointingOptions,
) -> PointingFit:
    """Errors, quality and validity of a finished fit."""
    s, minimum = fit.samples, fit.minimum
    dof = max(s.x.size - minimum.parameters.size, 1)
    scale = error_scale(minimum.chi2, dof, absolute=s.absolute)
    values = model.read(minimum.parameters)
    residual = s.y - fit.source - fit.baseline
    step = float(np.median(np.abs(_steps(s))))
    scatter = residual_scatter(fit, values["fwhm"], step, blank.value_unit)
    excess = scatter.excess
    errors = np.sqrt(np.diag(minimum.covariance) * scale * excess)
    k = len(model.names)
    found = {
        name: Measured(values[name], float(errors[i]), _unit(name, blank))
        for i, name in enumerate(model.names)
    }
    held = {"fwhm": model.fwhm, "throw": None if model.fit_throw else model.throw}
    found |= {n: Measured(v, 0.0, blank.unit) for n, v in held.items() if v is not None}
    fields: dict[str, Any] = dict(found)
    amplitude = found["amplitude"]
    # what the source takes from chi2, in sigma
    gained = float(np.sum((fit.alone / s.sigma) ** 2)) - minimum.chi2
    detection = math.sqrt(max(gained, 0.0) / (scale * excess))
    seen = detection, scatter.other
    reason = why_invalid(fit, model, found, seen, options.min_snr)
    sigma = s.sigma if s.absolute else np.full(s.x.size, math.sqrt(scale))
    return replace(
        blank,
        **fields,
        delay=_delay(found.get("latency"), drifts),
        positions=s.x,
        values=s.y,
        sigma=sigma,
        model=fit.source + fit.baseline,
        residual=residual,
        baseline=fit.baseline,
        baselines=minimum.parameters[k:].reshape(-1, model.order + 1),
        drift=s.drift,
        quality=Quality(
            snr=amplitude.value / amplitude.error if amplitude.error > 0 else NAN,
            chi2_dof=minimum.chi2 / dof if s.absolute else 1.0,
            n=s.x.size,
            rejected=fit.rejected,
            rms=float(np.sqrt(np.mean(residual**2))),
            correlated=math.sqrt(excess),
        ),
        valid=not reason,
        reason=reason,
    )


def _unit(name: str, blank: PointingFit) -> str:
    return blank.value_unit if name == "amplitude" else blank.unit


def _delay(latency: Measured | None, drifts: Sequence[Drift]) -> Measured:
    """The latency as a time, s; NaN where the drifts differ in speed by more than 1 %."""
    speeds = [d.speed for d in drifts]
    speed = float(np.mean(speeds))
    if latency is None or not speed > 0 or np.ptp(speeds) > 0.01 * speed:
        return Measured(unit="s")
    return Measured(latency.value / speed, latency.error / speed, "s")


def _means(fits: Sequence[PointingFit]) -> tuple[WeightedMean, ...]:
    """Weighted means over receivers and pixels of the valid fits, per axis."""
    means = []
    for axis in dict.fromkeys(f.axis for f in fits):
        mine = [f for f in fits if f.axis == axis]
        good = [f for f in mine if f.valid]
        for name in ("offset", "fwhm", "latency"):
            values = [m for f in good if (m := getattr(f, name)).error > 0]
            if values or name == "offset":
                mean = weighted_mean(axis, name, values, len(mine) - len(values))
                if not mean.valid and mine:
                    mean = replace(mean, reason=mine[0].reason)
                means.append(mean)
    return tuple(means)


def _with_correction(
    fit: PointingFit, fits: Sequence[PointingFit], means: Sequence[WeightedMean]
) -> PointingFit:
    """The fit with its amplitude divided by G(distance of the drift from the source in the other direction)."""
    pixel = (fit.label, fit.receiver, fit.pixel)
    own = [
        f
        for f in fits
        if f.axis != fit.axis and f.valid and (f.label, f.receiver, f.pixel) == pixel
    ]
    by_name = {(m.axis, m.name): m.mean for m in means if m.valid}
    if own:
        offset, fwhm = own[0].offset, own[0].fwhm
    else:
        others = [axis for axis, name in by_name if axis != fit.axis and name == "offset"]
        if not others:
            return fit
        offset = by_name[others[0], "offset"]
        fwhm = by_name.get((others[0], "fwhm"), Measured())
    if not fit.valid or not fwhm.value > 0:
        return fit
    ratio = (offset.value - fit.cross) / fwhm.value
    factor = math.exp(FOUR_LN2 * ratio**2)
    slope = 2.0 * FOUR_LN2 * ratio / fwhm.value  # d ln(factor) / d offset
    relative = math.hypot(
        fit.amplitude.error / fit.amplitude.value,
        slope * offset.error,
        slope * ratio * max(fwhm.error, 0.0),
    )
    value = fit.amplitude.value * factor
    return replace(fit, corrected=Measured(value, abs(value) * relative, fit.amplitude.unit))


def _verdict(fits: Sequence[PointingFit]) -> tuple[bool, str]:
    """Whether every direction with drifts has an offset, and if not, what is missing."""
    if not fits:
        return False, "no drifts"
    notes, valid = [], True
    axes = list(dict.fromkeys(f.axis for f in fits))
    for axis in axes:
        mine = [f for f in fits if f.axis == axis]
        if not any(f.valid for f in mine):
            valid = False
            notes.append(f"{axis}: {mine[0].reason}")
    if set(axes) <= {"az", "el"}:
        notes += [f"{axis}: no drifts" for axis in ("az", "el") if axis not in axes]
    return valid, "; ".join(notes)
