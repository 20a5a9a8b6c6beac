"""Gaussian fit of one beam, or of a positive and a negative one, over a straight baseline in every drift.

    y(x) = A [G(x - x0 - s l) - G(x - x0 - s l - throw)] + b0 + b1 x      G(x) = exp(-4 ln2 (x/w)^2)

x0 offset, w FWHM, A amplitude, s = +-1 the sense of the drift, l the latency as a distance. The second
beam is there when beam-switched only; each drift has its own baseline.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpucal.procedures.least_squares import Minimum, minimise, outliers, step_noise

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]

FOUR_LN2 = 4.0 * np.log(2.0)
SPIKE_SIGMA = 6.0
SPIKE_NEIGHBOUR = 0.25
"""A beam sampled twice per FWHM has neighbours of at least half its peak, a spike has not."""
OUTLIER_SIGMA = 5.0
SEARCH_OFFSETS, SEARCH_WIDTHS = 49, 8


def beam(x: F64, fwhm: float) -> F64:
    """G(x) = exp(-4 ln2 (x/fwhm)^2), f64, shape of x."""
    return np.asarray(np.exp(-FOUR_LN2 * (x / fwhm) ** 2), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Samples:
    """Drifts of one direction laid end to end, in order of drift.

    x, y, sigma f64 [N]; drift i32 [N] 0..n-1; sense f64 [N] +-1; absolute: sigma came with the data
    """

    x: F64
    y: F64
    sigma: F64
    drift: I32
    sense: F64
    absolute: bool

    def keep(self, good: npt.NDArray[np.bool_]) -> Samples:
        """Only the samples that are ``good``."""
        return Samples(
            self.x[good],
            self.y[good],
            self.sigma[good],
            self.drift[good],
            self.sense[good],
            self.absolute,
        )


@dataclass(frozen=True)
class BeamModel:
    """The model. order: of the baselines, 0 or 1; latency: both senses are there; throw: distance of
    the negative beam or None; fit_throw; fwhm: held fixed or None; widths: lowest and highest FWHM."""

    order: int
    latency: bool
    throw: float | None
    fit_throw: bool
    fwhm: float | None
    widths: tuple[float, float]

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters before the baselines, in order."""
        names = ["offset", "amplitude"]
        names += ["fwhm"] if self.fwhm is None else []
        names += ["latency"] if self.latency else []
        names += ["throw"] if self.throw is not None and self.fit_throw else []
        return tuple(names)

    def read(self, p: F64) -> dict[str, float]:
        """All quantities by name, including those held fixed."""
        held = {"latency": 0.0, "fwhm": self.fwhm or 0.0, "throw": self.throw or 0.0}
        return held | dict(zip(self.names, (float(v) for v in p), strict=False))


def baseline_matrix(samples: Samples, order: int, middle: float) -> F64:
    """Design matrix [N, n (order+1)] of the baselines; x is counted from ``middle``."""
    n = int(samples.drift.max()) + 1
    own: F64 = (samples.drift[:, None] == np.arange(n)[None, :]).astype(np.float64)
    if order == 0:
        return own
    both = np.stack([own, own * (samples.x - middle)[:, None]], axis=2)
    return np.asarray(both.reshape(len(samples.x), -1), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class _Problem:
    samples: Samples
    model: BeamModel
    base: F64

    def source(self, p: F64) -> F64:
        q = self.model.read(p)
        x = self.samples.x - q["offset"] - self.samples.sense * q["latency"]
        y = beam(x, q["fwhm"])
        if self.model.throw is not None:
            y = y - beam(x - q["throw"], q["fwhm"])
        return np.asarray(q["amplitude"] * y, dtype=np.float64)

    def residual(self, p: F64) -> F64:
        k = len(self.model.names)
        s = self.samples
        return np.asarray((self.source(p) + self.base @ p[k:] - s.y) / s.sigma, dtype=np.float64)

    def jacobian(self, p: F64) -> F64:
        q = self.model.read(p)
        s, w, a = self.samples, q["fwhm"], q["amplitude"]
        x = s.x - q["offset"] - s.sense * q["latency"]
        one = beam(x, w)
        slope = one * 2.0 * FOUR_LN2 * x / w**2  # dG/dx0
        width = slope * x / w
        shape, turn = one, np.zeros_like(one)
        if self.model.throw is not None:
            far = x - q["throw"]
            two = beam(far, w)
            turn = two * 2.0 * FOUR_LN2 * far / w**2
            shape, slope, width = one - two, slope - turn, width - turn * far / w
        columns = {
            "offset": a * slope,
            "amplitude": shape,
            "fwhm": a * width,
            "latency": a * slope * s.sense,
            "throw": -a * turn,
        }
        first = np.stack([columns[name] for name in self.model.names], axis=1)
        return np.asarray(np.concatenate([first, self.base], axis=1) / s.sigma[:, None])


def spikes(samples: Samples) -> npt.NDArray[np.bool_]:
    """Mask of single samples that stick out with nothing beside them, bool [N]: no beam is that narrow."""
    found = np.zeros(samples.y.size, dtype=bool)
    for number in range(int(samples.drift.max()) + 1):
        own = np.flatnonzero(samples.drift == number)
        y = samples.y[own]
        noise = step_noise(y)
        if y.size < 5 or noise == 0:
            continue
        level = 0.5 * (y[:-4] + y[4:])
        height = y[2:-2] - level
        beside = 0.5 * (y[1:-3] + y[3:-1]) - level
        bad = (np.abs(height) > SPIKE_SIGMA * noise) & (
            np.abs(beside) < SPIKE_NEIGHBOUR * np.abs(height)
        )
        found[own[2:-2]] = bad
    return found


def _search(problem: _Problem) -> tuple[F64, bool]:
    """Start values: the offset and width of a grid that reduce chi2 most.

    Also whether a negative source would take more.
    """
    s, model = problem.samples, problem.model
    low, high = float(s.x.min()), float(s.x.max())
    q, _ = np.linalg.qr(problem.base / s.sigma[:, None])
    y = s.y / s.sigma
    y = y - q @ (q.T @ y)
    widths = (
        np.geomspace(model.widths[0], model.widths[1], SEARCH_WIDTHS + 2)[1:-1]
        if model.fwhm is None
        else np.array([model.fwhm])
    )
    best, negative, start = -np.inf, -np.inf, np.zeros(len(model.names))
    for width in widths:
        for late in (0.0, -0.4 * width, 0.4 * width) if model.latency else (0.0,):
            offsets = np.linspace(low, high, SEARCH_OFFSETS)
            x = s.x[None, :] - offsets[:, None] - late * s.sense[None, :]
            t = beam(x, width)
            if model.throw is not None:
                t = t - beam(x - model.throw, width)
            t = t / s.sigma[None, :]
            t = t - (t @ q) @ q.T
            power = np.sum(t * t, axis=1)
            power = np.where(power > 0, power, np.inf)
            amplitude = (t @ y) / power
            gain = np.where(np.isfinite(power), amplitude**2 * power, -np.inf)
            negative = max(negative, float(np.max(gain, where=amplitude < 0, initial=-np.inf)))
            gain = np.where(amplitude > 0, gain, -np.inf)
            i = int(np.argmax(gain))
            if gain[i] > best:
                best = float(gain[i])
                values = {
                    "offset": offsets[i],
                    "amplitude": amplitude[i],
                    "fwhm": width,
                    "latency": late,
                    "throw": model.throw or 0.0,
                }
                start = np.array([values[name] for name in model.names])
    return _with_baselines(problem, start), negative > best


def _with_baselines(problem: _Problem, start: F64) -> F64:
    """Add the baselines that fit best under the source of ``start``."""
    s = problem.samples
    rest = (s.y - problem.source(start)) / s.sigma
    base, *_ = np.linalg.lstsq(problem.base / s.sigma[:, None], rest, rcond=None)
    return np.concatenate([start, base])


def _bounds(problem: _Problem) -> tuple[F64, F64]:
    """Bounds of the fit: the offset may leave the range, which is then reported; the width is limited."""
    s, model = problem.samples, problem.model
    low, high = float(s.x.min()), float(s.x.max())
    reach = 0.5 * (high - low)
    limits = {
        "offset": (low - reach, high + reach),
        "amplitude": (-np.inf, np.inf),
        "fwhm": model.widths,
        "latency": (-reach, reach),
        "throw": (-2.0 * (high - low), 2.0 * (high - low)),
    }
    free = np.full(problem.base.shape[1], np.inf)
    lower = np.array([limits[name][0] for name in model.names])
    upper = np.array([limits[name][1] for name in model.names])
    return np.concatenate([lower, -free]), np.concatenate([upper, free])


@dataclass(frozen=True, eq=False)
class BeamFit:
    """Result of a fit: minimum, samples in use (outliers removed), source and baseline f64 [N] at the minimum;
    alone f64 [N]: what the best baselines leave without a source; negative: a negative source would fit
    better."""

    minimum: Minimum
    samples: Samples
    source: F64
    baseline: F64
    rejected: int
    alone: F64
    negative: bool


def fit_beam(samples: Samples, model: BeamModel, middle: float) -> BeamFit:
    """Fit ``model`` to the samples: spikes out, grid search, robust fit, outliers out, least squares.

    ``middle``: where the baselines are counted from. Outliers are more than 5 robust sigma from the
    robust fit, so that of 10000 good samples less than one is lost.
    """
    total = samples.x.size
    samples = samples.keep(~spikes(samples))
    problem = _Problem(samples, model, baseline_matrix(samples, model.order, middle))
    start, negative = _search(problem)
    bounds = _bounds(problem)
    # the loss turns linear at 1: residuals are in units of the noise seen, whatever sigma says
    noise = [
        step_noise((samples.y / samples.sigma)[samples.drift == d]) for d in set(samples.drift)
    ]
    level = float(np.median(noise)) or 1.0
    loose = minimise(
        lambda p: problem.residual(p) / level,
        lambda p: problem.jacobian(p) / level,
        start,
        bounds,
        robust=True,
    )
    good = ~outliers(loose.residual, samples.drift, OUTLIER_SIGMA)
    if not good.all():
        samples = samples.keep(good)
        problem = _Problem(samples, model, baseline_matrix(samples, model.order, middle))
    minimum = minimise(problem.residual, problem.jacobian, loose.parameters, bounds)
    k = len(model.names)
    p = minimum.parameters
    weighted = problem.base / samples.sigma[:, None]
    alone, *_ = np.linalg.lstsq(weighted, samples.y / samples.sigma, rcond=None)
    return BeamFit(
        minimum=minimum,
        samples=samples,
        source=problem.source(p),
        baseline=problem.base @ p[k:],
        rejected=total - samples.x.size,
        negative=negative,
        alone=samples.y - problem.base @ alone,
    )
