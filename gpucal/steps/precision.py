"""Rounding of T_A* to a step well below its noise; physics section 14.

One step for a whole array, a power of two. Where the noise is a few steps or more, the rounding error is noise itself:
evenly spread within half a step, without a mean, the same in every implementation. Nothing here depends on how the
channels are cut into tiles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.axes import BLANKING, UNUSABLE, Flag
from gpucal.backend.protocol import Backend
from gpucal.steps.quality import QualitySums
from gpucal.steps.scale import OutputScale
from gpucal.steps.solution import ScanSolution

Array = Any
F64 = npt.NDArray[np.float64]

MOST_NUMBER = 1 << 24
"""Multiples of a power of two that f32 holds without an error."""

LEAST_NOISE = 2.0
"""Steps that the measured noise must have: the mean error is then below 1e-34 of a step, equation (14.2)."""

OUTSIDE = BLANKING | Flag.TSYS_OUTLIER
"""Channels and pixels that say nothing about the noise of the others."""

ANY_VALUE = UNUSABLE | Flag.TSYS_OUTLIER
"""Spikes and broken pixels: beyond what f32 holds as multiples of the step they keep 24 bits, and the others are
rounded all the same."""

BLOCK_SAMPLES = 1 << 15
"""Samples that the host rounds at once, so that they stay in the cache."""


@dataclass(frozen=True)
class Rounding:
    """T_A* in multiples of ``step``, K: the largest power of two up to sigma_min / per_noise.

    sigma_min: smallest expected rms of one dump, K; per_noise: K of ``noise:K``.
    """

    step: float
    per_noise: int
    sigma_min: float

    @staticmethod
    def of(sigma_min: float, per_noise: int) -> Rounding:
        """The rounding for this noise; sigma_min finite and above 0, K. Physics equation (14.1)."""
        # frexp is exact, where log2 may round up to the next whole number.
        _, exponent = math.frexp(sigma_min / per_noise)
        return Rounding(math.ldexp(1.0, exponent - 1), per_noise, sigma_min)

    @property
    def added_variance(self) -> float:
        """Variance of the rounding error of a sample, K^2."""
        return self.step**2 / 12.0

    @property
    def largest(self) -> float:
        """Largest T_A* that f32 holds as a multiple of the step, K."""
        return self.step * MOST_NUMBER

    def attributes(self) -> dict[str, Any]:
        """What L1 says of it, beside the array of the spectra."""
        return {
            "quantization_method": "round to the nearest multiple of quantization_step",
            "quantization_step": self.step,
            "quantization_steps_per_sigma": self.per_noise,
            "quantization_sigma_min": self.sigma_min,
            "quantization_added_variance": self.added_variance,
        }


@dataclass(frozen=True)
class Precision:
    """How the spectra of a band are kept. reason: why they are not rounded although that was asked for."""

    rounding: Rounding | None = None
    reason: str = ""

    def attributes(self) -> dict[str, Any]:
        """Attributes of the spectra."""
        return {} if self.rounding is None else self.rounding.attributes()


def smallest_noise(solution: ScanSolution, output: int, scale: OutputScale) -> float:
    """Smallest expected rms of one dump in the good channels of a block, K; infinity without any.

    The rms is that of ``rms_expected``, equation (6.4), for the mean of one dump.
    """
    xp = solution.backend.xp
    own, shared = solution.pairing.recipes[output].noise_rates(
        solution.group.exptime, solution.means
    )
    rate = (own + shared) / solution.setup.noise_width
    star = scale.t_sys_star
    good = ((scale.flags & int(OUTSIDE)) == 0) & xp.isfinite(star) & (star > 0)
    if not (math.isfinite(rate) and rate > 0) or star.size == 0:
        return math.inf
    return float(xp.min(xp.where(good, star, xp.inf))) * math.sqrt(rate)


def asked_precision(sigma_min: float, per_noise: int) -> Precision:
    """What ``noise:K`` asks for, before the first tile; sigma_min K, infinite without a good channel."""
    if not (math.isfinite(sigma_min) and sigma_min > 0):
        return Precision(None, "no channel is good, or the integration time is not known")
    return Precision(Rounding.of(sigma_min, per_noise))


def round_tile(
    backend: Backend, rounding: Rounding, spectra: Array, flags: Array, out: Array
) -> bool:
    """Round spectra f64 [c,D,R,A] K into out f32 [c,D,R,A]; NaN stays NaN.

    flags u16 [c,D,R,A]. Returns whether f32 holds all samples as multiples of the step, but those of ``ANY_VALUE``.
    """
    xp = backend.xp
    # Adding 1.5 2^52 steps leaves no bits below a step: the sum is rounded, half to even, by the addition itself.
    shift = 1.5 * 2.0**52 * rounding.step
    per_channel = max(1, math.prod(spectra.shape[1:]))
    block = max(1, BLOCK_SAMPLES // per_channel) if backend.name == "cpu" else spectra.shape[0]
    for c0 in range(0, spectra.shape[0], block):
        here = slice(c0, c0 + block)
        with np.errstate(over="ignore"):
            rounded = xp.astype((spectra[here, ...] + shift) - shift, xp.float32)
        out[here, ...] = rounded
        beyond = xp.abs(rounded) > rounding.largest
        if bool(xp.any(beyond)):
            beyond = beyond & ((flags[here, ...] & int(ANY_VALUE)) == 0)
            if bool(xp.any(beyond)):
                return False
    return True


def measured_noise(sums: QualitySums, rounding: Rounding) -> F64:
    """Noise of one dump in steps, at least, f64 [R,A], from the quality of what was calibrated; NaN: not known."""
    return sums.line_free_ratio() * (rounding.sigma_min / rounding.step)


def without_noise(sums: QualitySums, precision: Precision) -> str:
    """Why the rounding is not harmless for the band as a whole; "" where it is, or where nothing is rounded."""
    rounding = precision.rounding
    if rounding is None:
        return ""
    noise = measured_noise(sums, rounding)
    known = noise[np.isfinite(noise)]
    if not known.size:
        return "its noise cannot be measured"
    middle = float(np.median(known))
    if middle >= LEAST_NOISE:
        return ""
    ratio = middle * rounding.step / rounding.sigma_min
    return f"it is not limited by noise, its rms is {ratio:.2g} of the expected one"


def precision_notes(precision: Precision, sums: QualitySums) -> list[str]:
    """Sentences on what the user may not expect: spectra that are not rounded, pixels too quiet for the rounding."""
    if precision.reason:
        return [f"T_A* is kept as computed, not rounded to its noise: {precision.reason}."]
    if precision.rounding is None:
        return []
    quiet = np.argwhere(measured_noise(sums, precision.rounding) < LEAST_NOISE).tolist()
    if not quiet:
        return []
    some = ", ".join(f"receiver {r} pixel {a}" for r, a in quiet[:3])
    more = f" and {len(quiet) - 3} more" if len(quiet) > 3 else ""
    half = 0.5 * precision.rounding.step
    least = f"less noise than {LEAST_NOISE:g} steps of the rounding"
    return [f"{some}{more}: {least}, averages may be off by up to {half:.3g} K."]


AS_COMPUTED = Precision()
"""Nothing is rounded, and nobody asked for it."""
