"""A layered sky for tests: radiative transfer through levels of air, apart from table builder and simulator.

Absorption is pyrtlib's, level by level (water MWL24, oxygen R24, nitrogen MWL24, as in the packaged tables), with
ozone from its R23 list and CO and N2O as linear rotors, all in plain Lorentz shapes: right outside the line cores.
The transfer, the levels and their columns are this module's own.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

F64 = npt.NDArray[np.float64]

HK, BOLTZMANN = 6.62607015e-34 / 1.380649e-23, 1.380649e-23
WATER_MOLECULE_KG = 18.01528 / 6.02214076e26
T_CMB = 2.725
PROFILES = {"tropical": 0, "midlatitude winter": 2}
"""Number of an AFGL profile in pyrtlib."""

MODELS = {
    "H2OAbsModel": ("MWL24", "h2oll"),
    "O2AbsModel": ("R24", "o2ll"),
    "O3AbsModel": ("R23", "o3ll"),
}
"""Absorption models of pyrtlib, and where they keep their lines."""

# (2B, 4D) in GHz, dipole in debye, half width in GHz/hPa at 296 K, for CO and N2O (Pickett et al. 1998; HITRAN)
ROTORS = {
    "co": (115.271936, 7.3402e-4, 0.11011, 2.1e-3),
    "n2o": (25.1232678, 2.11172e-5, 0.16083, 2.3e-3),
}


def planck(nu_hz: Any, kelvin: Any) -> Any:
    """Rayleigh-Jeans equivalent temperature, K."""
    return HK * nu_hz / np.expm1(HK * nu_hz / kelvin)


def _log(grid: F64, z: F64, values: F64) -> F64:
    return np.asarray(np.exp(np.interp(grid, z, np.log(values))))


@dataclass(frozen=True, eq=False)
class Levels:
    """Air at L levels from the ground up, f64 [L]: km, hPa, K, water in hPa for 1 mm, other gases in 1/m^3."""

    z_km: F64
    p_hpa: F64
    t_k: F64
    e_hpa: F64
    gases: dict[str, F64]

    @property
    def t_ground(self) -> float:
        return float(self.t_k[0])


def afgl_levels(profile: str, alt_m: float, count: int = 70, warmer: float = 0.0) -> Levels:
    """The AFGL ``profile`` from ``alt_m`` to 80 km, levels closest at the ground; skips without pyrtlib.

    ``warmer``: K that are added at every level.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        climate = pytest.importorskip("pyrtlib.climatology").AtmosphericProfiles
    z, p, _, t, ppmv = climate.gl_atm(PROFILES[profile])
    x = np.linspace(0.0, 1.0, count)
    grid = alt_m / 1e3 + (80.0 - alt_m / 1e3) * (0.15 * x + 0.85 * x**3)
    pressure, kelvin = _log(grid, z, p), np.interp(grid, z, t) + warmer
    density = 100.0 * pressure / (BOLTZMANN * kelvin)
    share = {
        name: 1e-6 * _log(grid, z, ppmv[:, getattr(climate, name)])
        for name in ("H2O", "O3", "CO", "N2O")
    }
    layer_mm = 1e3 * WATER_MOLECULE_KG * _layers(grid, share["H2O"] * density)
    vapour = share["H2O"] * pressure / np.sum(layer_mm)
    gases = {name.lower(): share[name] * density for name in ("O3", "CO", "N2O")}
    return Levels(grid, pressure, kelvin, vapour, gases)


def _layers(z_km: F64, values: F64) -> F64:
    """Integral of ``values`` [L, ..] over each of the L-1 layers; they change exponentially inside one."""
    one, two = (np.maximum(v, 1e-290) for v in (values[:-1], values[1:]))
    step = np.diff(z_km).reshape((-1,) + (1,) * (values.ndim - 1))
    ratio = two / one
    curved = np.abs(ratio - 1.0) > 1e-5
    mean = np.where(curved, (two - one) / np.where(curved, np.log(ratio), 1.0), np.sqrt(one * two))
    return np.asarray(step * mean)


@cache
def _line_lists() -> dict[str, Any]:
    """pyrtlib's lists of lines, which it takes a third of a second to read."""
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = pytest.importorskip("pyrtlib.absorption_model")
        for name, (model, lines) in MODELS.items():
            kind = getattr(package, name)
            kind.model = model
            kind.set_ll()
            found[name] = getattr(kind, lines)
    return found


def _pyrtlib() -> Any:
    """Its absorption models, set to ``MODELS`` whatever another test has left there."""
    lists = _line_lists()
    package = pytest.importorskip("pyrtlib.absorption_model")
    for name, (model, lines) in MODELS.items():
        getattr(package, name).model = model
        setattr(getattr(package, name), lines, lists[name])
    package.N2AbsModel.model = "MWL24"
    return package


def smooth_absorption(air: Levels, freq_hz: F64, pwv_mm: float) -> F64:
    """Water, oxygen and nitrogen, f64 [L,F], Np/km."""
    _pyrtlib()
    transfer = pytest.importorskip("pyrtlib.rt_equation").RTEquation
    thick = air.z_km < 60.0
    found = np.zeros((air.z_km.size, freq_hz.size))
    p, t, e = (x[thick] for x in (air.p_hpa, air.t_k, air.e_hpa * pwv_mm))
    for i, nu in enumerate(freq_hz):
        wet, dry = transfer.clearsky_absorption(p, t, e, np.float64(nu / 1e9))
        found[thick, i] = wet + dry
    return found


def line_absorption(air: Levels, freq_hz: F64) -> tuple[F64, F64]:
    """Ozone; CO with N2O: two f64 [L,F], Np/km."""
    listed = _pyrtlib().O3AbsModel.o3ll
    o3, others = np.zeros((2, air.z_km.size, freq_hz.size))
    ghz = freq_hz / 1e9
    for level, (p, t) in enumerate(zip(air.p_hpa, air.t_k, strict=True)):
        inverse = listed.reftline / t
        strength = listed.s1 * np.exp(listed.b * (1.0 - inverse)) * inverse**2.5
        strength = 1e-4 * strength * (1.0 - np.exp(-1008.0 / t))  # m^2 Hz; the bending mode
        width = listed.w * p * inverse**listed.x
        o3[level] = air.gases["o3"][level] * 1e-6 * (strength @ _lorentz(ghz, listed.fl, width))
        for name, rotor in ROTORS.items():
            centre, area, half = _rotor(*rotor, t, p)
            others[level] += air.gases[name][level] * 1e-6 * (area @ _lorentz(ghz, centre, half))
    return o3, others


def _lorentz(ghz: F64, centre: F64, half: F64) -> F64:
    """Van Vleck-Weisskopf profiles, f64 [lines, F], 1/GHz."""
    nu, mid, w = ghz[None, :], centre[:, None], half[:, None]
    pair = w / ((nu - mid) ** 2 + w**2) + w / ((nu + mid) ** 2 + w**2)
    return np.asarray((nu / mid) ** 2 * pair / np.pi)


def _rotor(
    two_b: float, four_d: float, debye: float, gamma: float, t: float, p: float
) -> tuple[F64, F64, F64]:
    """Centre (GHz), area (m^2 Hz) and half width (GHz) of the first lines of a linear molecule."""
    upper = np.arange(1.0, 46.0)
    centre = two_b * upper - four_d * upper**3
    kt = t / (HK * 1e9)  # in GHz
    lower = 0.5 * two_b * upper * (upper - 1.0)
    population = upper * np.exp(-lower / kt) / (2.0 * kt / two_b + 1.0 / 3.0)
    mu2 = debye**2 * 1e-49  # J m^3
    area = 8.0 * np.pi**3 / (3.0 * 6.62607015e-34 * 299792458.0) * mu2 * centre * 1e9
    area = area * population * -np.expm1(-centre / kt)
    return centre, np.asarray(area), np.full(centre.shape, gamma * p * (296.0 / t) ** 0.75)


@dataclass(frozen=True, eq=False)
class LayeredAir:
    """Layers over the channels of one axis: ``tau`` f64 [L-1,C] Np at the zenith, ``t_k`` [L] K, ``nu`` [C] Hz.

    ``ozone`` f64 [C]: its part of the opacity at the zenith, Np.
    """

    nu: F64
    t_k: F64
    tau: F64
    ozone: F64

    @cached_property
    def zenith(self) -> F64:
        """Opacity at the zenith, f64 [C], Np."""
        return np.asarray(self.tau.sum(axis=0))

    @property
    def quiet(self) -> npt.NDArray[np.bool_]:
        """Channels in whose opacity no ozone line stands out, bool [C]."""
        return np.asarray(self.ozone < 1.5 * self.ozone.min() + 2e-4)

    def transmission(self, airmass: float) -> F64:
        return np.asarray(np.exp(-airmass * self.zenith))

    def emission(self, airmass: float) -> F64:
        """J of the air alone at the ground, f64 [C], K.

        In each layer the source function is linear in optical depth d: with u = exp(-d) it gives
        J_near (1 - (1-u)/d) + J_far ((1-u)/d - u), from Kirchhoff's law without approximation.
        """
        d = airmass * self.tau
        source = planck(self.nu[None, :], self.t_k[:, None])
        small = d < 1e-4
        safe = np.where(small, 1.0, d)
        mean = np.where(small, 1.0 - d / 2 + d * d / 6, -np.expm1(-safe) / safe)
        own = source[:-1] * (1.0 - mean) + source[1:] * (mean - np.exp(-d))
        below = np.concatenate([np.zeros((1, d.shape[1])), np.cumsum(d, axis=0)[:-1]])
        return np.asarray(np.sum(own * np.exp(-below), axis=0))


def air_over(air: Levels, nu_hz: F64, pwv_mm: float, *, ozone: float = 1.0) -> LayeredAir:
    """The layers over channels at ``nu_hz`` f64 [C]; water and oxygen by a cubic through four of the frequencies."""
    middle, half = 0.5 * (nu_hz[0] + nu_hz[-1]), 0.5 * abs(nu_hz[-1] - nu_hz[0])
    at = np.cos(np.pi * (np.arange(4) + 0.5) / 4)
    smooth = _layers(air.z_km, smooth_absorption(air, middle + half * at, pwv_mm))
    cubic = np.polynomial.polynomial.polyfit(at, smooth.T, 3)
    broad = np.polynomial.polynomial.polyval((nu_hz - middle) / half, cubic)
    o3, others = (_layers(air.z_km, part) for part in line_absorption(air, nu_hz))
    return LayeredAir(nu_hz, air.t_k, broad + others + ozone * o3, ozone * o3.sum(axis=0))
