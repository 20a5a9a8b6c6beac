"""Products that one step hands to the next: frozen values, arrays of the backend.

Shapes use C channels, D dumps, R receivers, A pixels. F is 1 where all receivers share one
frequency axis, else R.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from array_api_compat import array_namespace

Array = Any


class MeanKey(NamedTuple):
    """Key of one dump mean: a subscan, and the chop phase it is restricted to (None = all dumps)."""

    subscan: int
    phase: int | None = None


class SubscanMean(NamedTuple):
    """Dump mean f64 [C,R,A] counts, and the integration time that went into it, s."""

    mean: Array
    time: float


class Coupling(NamedTuple):
    """Part of the beam that a load fills, and the temperature that the rest of it sees, K (NaN where there is none)."""

    share: float = 1.0
    stray: float = float("nan")


FULL = Coupling()
"""A load that fills the beam."""


@dataclass(frozen=True, eq=False)
class LoadMeans:
    """Dump means of one load scan, before any physics.

    hot f64 [C,R,A] counts; cold the same or None (chopper wheel); *_mjd the mid-times, days; *_time
    the integration times, s; temperatures f64 [R] K or per channel and sideband [2,C,R] K;
    sky [C,R,A] counts of SKY subscans at sky_elevation, rad, or None; sky_spread rad between the highest and the lowest
    of them; others: load scans that some pixels came from.
    """

    scan: int
    hot: Array
    cold: Array | None
    hot_mjd: float
    cold_mjd: float
    hot_time: float
    t_hot: Array
    t_cold: Array | None
    sky: Array | None = None
    sky_elevation: float = float("nan")
    sky_spread: float = 0.0
    sky_mjd: float = float("nan")
    sky_time: float = float("nan")
    cold_time: float = float("nan")
    warnings: tuple[str, ...] = ()
    others: tuple[int, ...] = ()
    hot_coupling: Coupling = FULL
    cold_coupling: Coupling = FULL

    @property
    def mjd(self) -> float:
        """Mid-time of the load scan, MJD."""
        return self.hot_mjd if self.cold is None else 0.5 * (self.hot_mjd + self.cold_mjd)


@dataclass(frozen=True, eq=False)
class SpectralSetup:
    """Frequency axes and sideband gains of one scan and band.

    nu_sig, nu_img f64 [C,F] Hz; channel_width Hz; g_sig, g_img f64 broadcastable to [C,R,A];
    noise_bandwidth: that of a channel over its width; unit_borders: first channels of the units of a spectrometer, but
    for the first unit.
    """

    nu_sig: Array
    nu_img: Array
    channel_width: float
    g_sig: Array
    g_img: Array
    f_eff: float
    hk: float
    ssb: bool
    noise_bandwidth: float = 1.0
    unit_borders: tuple[int, ...] = ()

    @property
    def noise_width(self) -> float:
        """dnu of the radiometer equation, Hz; physics equation (6.4)."""
        return self.channel_width * self.noise_bandwidth

    @property
    def sidebands(self) -> str:
        """What reaches the receiver: "DSB", or "SSB" where nothing of the image does (gain_image 0)."""
        return "DSB" if bool(array_namespace(self.g_img).any(self.g_img > 0)) else "SSB"

    def line_gain(self, channels: slice = slice(None)) -> Array:
        """g_s f_eff, or f_eff for the DSB line scale; of some channels, broadcastable to [c,R,A]."""
        g_sig = self.g_sig if self.g_sig.shape[0] == 1 else self.g_sig[channels, ...]
        return g_sig * self.f_eff if self.ssb else g_sig * 0.0 + self.f_eff


@dataclass(frozen=True, eq=False)
class LoadSolution:
    """Receiver temperature and gain; physics section 4, equations (4.3) and (4.4).

    hot, cold f64 [C,R,A] counts (cold None for the vane schemes); j_hot, j_cold f64 broadcastable to
    [C,R,A] K; t_rec, gamma f64 [C,R,A] K; bad bool [C,R,A]; span = C_hot - C_cold (vane: C_hot -
    C_sky) f64 [C,R,A] counts, NaN in bad channels; *_time the integration times, s.
    """

    scheme: str
    scans: tuple[int, ...]
    hot: Array
    cold: Array | None
    span: Array
    j_hot: Array
    j_cold: Array | None
    t_hot: Array
    t_rec: Array
    gamma: Array
    bad: Array
    hot_time: float
    stale: bool
    warnings: tuple[str, ...] = ()
    t_cold: Array | None = None
    cold_time: float = float("nan")
    hot_coupling: Coupling = FULL
    cold_coupling: Coupling = FULL


@dataclass(frozen=True, eq=False)
class GainDrift:
    """Lines through two load scans, physics equation (8.1); all times MJD, arrays f64 [C,R,A].

    The counts at time t become K1 + (C - K(t)) (H1-K1)/(H(t)-K(t)). bends: (MJD, change of the rate of K, None for 0,
    change of the rate of H - K) at the loads between the first and the last, where there are more than two.
    """

    mjd_1: float
    mjd_2: float
    cold_1: Array
    cold_rate: Array
    span_1: Array
    span_rate: Array
    correct_off: bool
    bends: tuple[tuple[float, Array | None, Array], ...] = ()

    def span_2(self) -> Array:
        """H - K at the end, f64 [C,R,A]."""
        span = self.span_1 + self.span_rate * (self.mjd_2 - self.mjd_1)
        for mjd, _, bend in self.bends:
            span = span + bend * (self.mjd_2 - mjd)
        return span


@dataclass(frozen=True, eq=False)
class SkyModel:
    """Model of the sky as a function of the water; physics section 5, equation (5.4).

    opacity f64 [3,2,J,C,F] (b, q, c of signal and image); amplitude f64 [2,C,R|1,A|1] and constant
    (J_sky = constant + sum amplitude t - sum ground E) broadcastable to [C,R,A], K. emission f64 [5,2,J,C,F]
    (``physics.emission.COLUMNS``) and ground f64 [2,C,R|1,A|1], g f_eff J(T_g), K: None where the sky is isothermal.
    """

    opacity: Array
    amplitude: Array
    constant: Array
    emission: Array | None = None
    ground: Array | None = None

    def transmission(
        self, sideband: int, pwv: Array, airmass: float | Array, c0: int, c1: int
    ) -> Array:
        """Transmission t, equation (5.3), of one sideband and channels: f64 [c, R|1, A|1].

        ``pwv`` [R|1, A|1] mm; ``airmass`` a number, or [R, A] where the pixels look at different elevations.
        """
        xp = array_namespace(self.opacity)
        b, q, c = (self.opacity[i, sideband, :, c0:c1, :, None] for i in range(3))
        p = pwv[None, None, :, :]
        mass = airmass if isinstance(airmass, float) else airmass[None, None, :, :]
        return xp.mean(xp.exp(-mass * (b * p + q * (p * p) + c)), axis=0)


@dataclass(frozen=True, eq=False)
class Atmosphere:
    """Water and transmission of one scan and band.

    pwv f64 [R|1, A|1, S_on|1] mm (NaN when the opacity was given); error, chi2 the same shape, by the weights
    of the fit, equations (5.8) and (5.15) (``ErrorBudget`` has the honest ones); poor bool, same shape; airmass
    f64 [S_on] of each ON; scope as reported.
    """

    scope: str
    model: SkyModel
    pwv: npt.NDArray[np.float64]
    error: npt.NDArray[np.float64]
    chi2: npt.NDArray[np.float64]
    n_channels: int
    converged: bool
    poor: npt.NDArray[np.bool_]
    airmass: npt.NDArray[np.float64]
    warnings: tuple[str, ...] = ()

    def pwv_of(self, output: int) -> npt.NDArray[np.float64]:
        """PWV for one output subscan, f64 [R|1, A|1]; 0 where the opacity does not depend on it."""
        p = self.pwv[:, :, output if self.pwv.shape[2] > 1 else 0]
        return np.where(np.isfinite(p), p, 0.0)


class WaterSeen(NamedTuple):
    """The PWV of a scan as a part of it alone has it: by whom, mm, and its error by the noise, mm."""

    by: str
    pwv: float
    error: float


class OzoneFit(NamedTuple):
    """Scale of the ozone column of the table, its error (NaN: it was not fitted), and why it was not."""

    scale: float
    error: float
    why: str = ""


class ErrorSource(NamedTuple):
    """One row of the budget: a source of error, its 1 sigma and unit, and what it does.

    pwv mm, by which it moves the fitted PWV (NaN without a fit); t_a_star fraction of T_A*; both medians.
    """

    name: str
    sigma: float
    unit: str
    pwv: float
    t_a_star: float


@dataclass(frozen=True, eq=False)
class ErrorBudget:
    """Errors of the PWV and of the scale of T_A*; physics section 12.

    pwv_noise, pwv_systematic mm and chi2_noise (per degree of freedom), f64 like ``Atmosphere.pwv``, NaN without a
    fit; t_a_star f64 [R,A,S_on], fraction of T_A*, 1 sigma, the same for all channels and lines.
    """

    sources: tuple[ErrorSource, ...]
    pwv_noise: npt.NDArray[np.float64]
    pwv_systematic: npt.NDArray[np.float64]
    chi2_noise: npt.NDArray[np.float64]
    t_a_star: npt.NDArray[np.float64]
    receivers: tuple[WaterSeen, ...] = ()

    @property
    def pwv(self) -> npt.NDArray[np.float64]:
        """Error of the PWV, mm: noise and systematic together."""
        return np.hypot(self.pwv_noise, self.pwv_systematic)
