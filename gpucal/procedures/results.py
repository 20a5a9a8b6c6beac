"""Results of the procedures: values with errors, quality, validity, and the data for a plot.

Every fit keeps its data and its model: ``positions``, ``values``, ``sigma``, ``model``, ``residual``, all f64 [N],
N samples that entered the fit. A fit that failed has ``valid`` False and says why in ``reason``; its numbers
are what the fit ended with, NaN where there are none. Physics section 11.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gpucal.procedures.least_squares import error_scale

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]

NAN = float("nan")


def empty() -> F64:
    """An f64 array of no samples."""
    return np.empty(0)


@dataclass(frozen=True)
class Measured:
    """A value with its 1-sigma error and unit; NaN where nothing was measured."""

    value: float = NAN
    error: float = NAN
    unit: str = ""

    @property
    def snr(self) -> float:
        """|value| / error; NaN without an error."""
        return abs(self.value) / self.error if self.error > 0 else NAN

    def __str__(self) -> str:
        """Error with two digits, the value to the same place: ``"-3.42 ± 0.11 arcsec"``."""
        tail = f" {self.unit}" if self.unit else ""
        if not math.isfinite(self.value):
            return f"nan{tail}"
        if not (math.isfinite(self.error) and self.error > 0):
            return f"{self.value:.4g}{tail}"
        digits = max(0, 1 - math.floor(math.log10(self.error)))
        return f"{self.value:.{digits}f} ± {self.error:.{digits}f}{tail}"


@dataclass(frozen=True)
class Quality:
    """Quality of a fit.

    snr       what was looked for over its error: the peak (pointing), the curvature (focus), tau (skydip)
    chi2_dof  chi-squared per degree of freedom; 1 by construction when no errors came with the data
    n         samples in the fit; rejected: samples left out as outliers
    rms       root mean square of the residual, in the unit of the values
    correlated  factor on the errors because neighbouring residuals are alike (pointing); 1 = white noise
    """

    snr: float = NAN
    chi2_dof: float = NAN
    n: int = 0
    rejected: int = 0
    rms: float = NAN
    correlated: float = 1.0


@dataclass(frozen=True, eq=False, kw_only=True)
class Fit:
    """One curve through one set of samples of one pixel.

    axis       "az", "el" (pointing); "x", "y", "z" (focus); "airmass" (skydip)
    label      e.g. "band_1"; "" when there is one band
    """

    axis: str
    receiver: int = 0
    pixel: int = 0
    label: str = ""
    unit: str = ""
    value_unit: str = "K"
    positions: F64 = field(default_factory=empty)
    values: F64 = field(default_factory=empty)
    sigma: F64 = field(default_factory=empty)
    model: F64 = field(default_factory=empty)
    residual: F64 = field(default_factory=empty)
    quality: Quality = field(default_factory=Quality)
    valid: bool = False
    reason: str = ""

    @property
    def parameters(self) -> Mapping[str, Measured]:
        """The fitted quantities by name, in the order a table shows them."""
        return {k: v for k, v in vars(self).items() if isinstance(v, Measured)}


@dataclass(frozen=True, eq=False, kw_only=True)
class PointingFit(Fit):
    """Gaussian through the drifts of one direction in one pixel.

    offset     where the source was seen, in the coordinate of the drifts
    fwhm       width of the beam seen; amplitude: as fitted, K
    corrected  amplitude corrected for the offset in the other direction (NaN until that is known)
    latency    shift between the two senses of motion, half their difference: position recorded late by
               this much in a forward drift; NaN when only one sense was there
    delay      the same as a time, s; NaN when the speed is not known
    throw      distance of the negative beam (beam-switched only)
    drift      i32 [N] number of the drift each sample belongs to; sense +1 or -1 of each of these drifts
    baselines  f64 [n drifts, order + 1], K and K per unit, from the middle of the range
    baseline   f64 [N], K: so that values - baseline is the source alone
    cross      where the drifts lie in the other direction
    """

    offset: Measured = field(default_factory=Measured)
    fwhm: Measured = field(default_factory=Measured)
    amplitude: Measured = field(default_factory=Measured)
    corrected: Measured = field(default_factory=Measured)
    latency: Measured = field(default_factory=Measured)
    delay: Measured = field(default_factory=Measured)
    throw: Measured = field(default_factory=Measured)
    drift: I32 = field(default_factory=lambda: np.empty(0, dtype=np.int32))
    sense: tuple[int, ...] = ()
    baselines: F64 = field(default_factory=empty)
    baseline: F64 = field(default_factory=empty)
    cross: float = 0.0


@dataclass(frozen=True, eq=False, kw_only=True)
class FocusFit(Fit):
    """Parabola through peak against focus position along one axis in one pixel.

    best       focus position of the maximum, z0 = -c1/(2 c2)
    peak       height of the maximum
    curvature  c2, negative for a maximum
    coefficients f64 [3] c0, c1, c2 of c0 + c1 z + c2 z^2; covariance f64 [3,3]
    """

    best: Measured = field(default_factory=Measured)
    peak: Measured = field(default_factory=Measured)
    curvature: Measured = field(default_factory=Measured)
    coefficients: F64 = field(default_factory=empty)
    covariance: F64 = field(default_factory=empty)


@dataclass(frozen=True, eq=False, kw_only=True)
class SkydipFit(Fit):
    """Sky temperature against airmass in one pixel; ``positions`` holds the airmass.

    tau          zenith opacity, Np; f_eff: forward efficiency (as given, without error, when it was fixed)
    t0           constant of the total-power form, K; gain: its free scale (both NaN otherwise)
    t_atm, t_amb as given, K
    covariance   f64 [P,P] of the fitted parameters, ``names`` in that order; correlation: of the first two
    """

    tau: Measured = field(default_factory=Measured)
    f_eff: Measured = field(default_factory=Measured)
    t0: Measured = field(default_factory=Measured)
    gain: Measured = field(default_factory=Measured)
    t_atm: float = NAN
    t_amb: float = NAN
    names: tuple[str, ...] = ()
    covariance: F64 = field(default_factory=empty)
    correlation: float = NAN


@dataclass(frozen=True)
class WeightedMean:
    """Mean of one quantity over receivers and pixels, weights 1/error^2; see ``weighted_mean``.

    axis  as in the fits; name: the quantity; chi2, dof: agreement of the n values; rejected: fits left out
    because they are not valid
    """

    axis: str
    name: str
    mean: Measured = field(default_factory=Measured)
    chi2: float = NAN
    dof: int = 0
    n: int = 0
    rejected: int = 0
    valid: bool = False
    reason: str = ""


@dataclass(frozen=True, eq=False)
class _Result:
    means: tuple[WeightedMean, ...] = ()
    valid: bool = False
    reason: str = ""

    def mean(self, axis: str, name: str) -> WeightedMean:
        """The mean of ``name`` along ``axis``; an invalid one with a reason where there is none."""
        for m in self.means:
            if (m.axis, m.name) == (axis, name):
                return m
        return WeightedMean(axis, name, reason=f"no {name} along {axis} was measured")


@dataclass(frozen=True, eq=False)
class PointingResult(_Result):
    """Offsets of a pointing scan.

    Valid when every direction that was driven gives an offset; ``reason`` also tells what is missing in a
    scan cancelled after the first direction, which is valid with that direction alone. Means:
    ("az" | "el", "offset" | "fwhm" | "latency").
    """

    fits: tuple[PointingFit, ...] = ()


@dataclass(frozen=True, eq=False)
class FocusResult(_Result):
    """Best focus along each axis; means: (axis, "best")."""

    fits: tuple[FocusFit, ...] = ()


@dataclass(frozen=True, eq=False)
class SkydipResult(_Result):
    """Opacity and forward efficiency; means: ("airmass", "tau" | "f_eff")."""

    fits: tuple[SkydipFit, ...] = ()


@dataclass(frozen=True, eq=False)
class LineCheck:
    """Integrated intensity in a window of one pixel: K km/s or K Hz (``area.unit``), significance in snr."""

    receiver: int
    pixel: int
    area: Measured
    peak: Measured
    valid: bool
    reason: str = ""


@dataclass(frozen=True, eq=False)
class SwitchedResult:
    """Calibrated average of a switched scan.

    spectrum  f64 [C,R,A] K, T_A*, NaN where no good sample is
    weight    f64 [C,R,A] sum of t dnu / T_sys*^2, 1/K^2
    frequency f64 [C,F] Hz, F = 1 or R
    rms, expected  f64 [R,A] K per channel, from adjacent channels and from the radiometer equation
    ratio     rms / expected; n: subscans averaged; time f64 [R,A] s on source
    line      one check per pixel, when a window was given
    """

    spectrum: F64
    weight: F64
    frequency: F64
    rms: F64
    expected: F64
    ratio: F64
    time: F64
    n: int = 0
    mode: str = ""
    line: tuple[LineCheck, ...] = ()
    valid: bool = False
    reason: str = ""


def weighted_mean(
    axis: str, name: str, measured: Sequence[Measured], rejected: int = 0
) -> WeightedMean:
    """Mean with weights 1/error^2 of the values with a finite error, its error and chi2.

    Values that disagree by more than their errors allow (see ``error_scale``) widen the error of the mean.
    """
    good = [m for m in measured if math.isfinite(m.value) and m.error > 0]
    rejected += len(measured) - len(good)
    if not good:
        return WeightedMean(axis, name, rejected=rejected, reason="no valid fit")
    values = np.array([m.value for m in good])
    weights = np.array([m.error for m in good]) ** -2.0
    mean = float(np.sum(weights * values) / np.sum(weights))
    chi2 = float(np.sum(weights * (values - mean) ** 2))
    scale = error_scale(chi2, len(good) - 1, absolute=True)
    found = Measured(mean, float(np.sqrt(scale / np.sum(weights))), good[0].unit)
    return WeightedMean(axis, name, found, chi2, len(good) - 1, len(good), rejected, True)
