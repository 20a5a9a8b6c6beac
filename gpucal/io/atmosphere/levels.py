"""The air above a site level by level, and what pyrtlib's models say it absorbs there.

Only this module imports pyrtlib, and only when a table is built. Water (MWL24), oxygen (R24) and
nitrogen (MWL24) come from pyrtlib level by level; ozone from its R23 line list with Voigt profiles that are
not cut off; CO and N2O from their rotational constants.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.errors import GpucalError
from gpucal.physics import lines

F64 = npt.NDArray[np.float64]

WATER_MODEL, OXYGEN_MODEL, OZONE_MODEL, NITROGEN_MODEL = "MWL24", "R24", "R23", "MWL24"
PROFILES = (
    "tropical",
    "midlatitude summer",
    "midlatitude winter",
    "subarctic summer",
    "subarctic winter",
    "us standard",
)
"""AFGL profiles (Anderson et al. 1986) in pyrtlib's order."""

TOP_KM = 100.0
AIR_TOP_KM = 60.0
"""Water and oxygen stop here, where Doppler broadening, which their models lack, takes over; above it
lie 2e-4 of the air. Carbon monoxide has much of its line cores higher up."""

FIXED_WATER_KM = 15.0
"""Above it foreign broadening alone counts and water absorption is linear in the amount."""

BOLTZMANN = 1.380649e-23
GRAVITY_K_KM = 34.163
"""g m_air / k, K/km."""

WATER_KG = 18.01528 * lines.AMU
O3_MASS = 48.0
ROTOR_LINES = 45


@dataclass(frozen=True, eq=False)
class Air:
    """Profile of the air at L levels from the site upwards, all f64 [L].

    z_km; p_hpa total pressure; t_k; e_hpa water vapour pressure for a PWV of 1 mm; and the number
    densities ozone, co, n2o in molecules/m^3.
    """

    z_km: F64
    p_hpa: F64
    t_k: F64
    e_hpa: F64
    ozone: F64
    co: F64
    n2o: F64

    @property
    def dense(self) -> int:
        """Number of levels in which water and oxygen absorb."""
        return int(np.count_nonzero(self.z_km <= AIR_TOP_KM))


def air_above(alt_m: float, profile: str) -> Air:
    """The AFGL profile above a site: log p, T and log mixing ratios linear in altitude."""
    atm = _pyrtlib("climatology").AtmosphericProfiles
    z, p, _, t, ppmv = atm.gl_atm(PROFILES.index(profile))
    bottom = alt_m / 1e3
    grid = np.concatenate(
        [
            np.arange(bottom, 12, 0.5),
            np.arange(max(12.0, bottom), 25, 1.0),
            np.arange(25, 60, 2.5),
            np.arange(60, TOP_KM + 1, 5),
        ]
    )
    if grid[0] > bottom:
        grid = np.insert(grid, 0, bottom)

    def logarithmic(values: F64) -> F64:
        return np.asarray(np.exp(np.interp(grid, z, np.log(values))), dtype=np.float64)

    pressure, temperature = logarithmic(p), np.interp(grid, z, t)
    density = pressure * 100 / (BOLTZMANN * temperature)
    water = logarithmic(ppmv[:, atm.H2O]) * 1e-6
    unscaled_mm = 1e3 * column(grid, water * density) * WATER_KG  # per km; kg/m^2 is mm
    return Air(
        grid,
        pressure,
        temperature,
        water * pressure / unscaled_mm,
        logarithmic(ppmv[:, atm.O3]) * 1e-6 * density,
        logarithmic(ppmv[:, atm.CO]) * 1e-6 * density,
        logarithmic(ppmv[:, atm.N2O]) * 1e-6 * density,
    )


def warmer(air: Air, kelvin: float) -> Air:
    """The same air ``kelvin`` warmer up to 15 km, not at all above 20 km, with the same pressure at the ground.

    Pressure is hydrostatic, mixing ratios of water and columns of the other gases stay, and the water is again 1 mm.
    """
    t = air.t_k + kelvin * np.interp(air.z_km, [15.0, 20.0], [1.0, 0.0])
    less = 1.0 / air.t_k - 1.0 / t
    lift = np.concatenate([[0.0], np.cumsum(0.5 * (less[1:] + less[:-1]) * np.diff(air.z_km))])
    p = air.p_hpa * np.exp(GRAVITY_K_KM * lift)
    vapour = air.e_hpa / air.p_hpa * p
    unscaled_mm = 1e3 * column(air.z_km, vapour * 100 / (BOLTZMANN * t)) * WATER_KG
    return replace(air, p_hpa=p, t_k=t, e_hpa=vapour / unscaled_mm)


@dataclass(frozen=True, eq=False)
class Models:
    """What is needed of pyrtlib: its absorption of clear air, and its line lists."""

    clearsky: Callable[..., tuple[F64, F64]]
    h2o_ghz: F64
    o2_ghz: F64
    o3: Any
    o3_lines: tuple[F64, F64]


def _pyrtlib(module: str) -> Any:
    """A module of pyrtlib, imported only here because it is optional and slow to load."""
    import importlib

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pyrtlib's own dependencies warn at import
            return importlib.import_module(f"pyrtlib.{module}")
    except ImportError as error:
        raise GpucalError(
            "building an atmosphere table needs pyrtlib, which is not installed.",
            hint="Install it with: pip install 'gpucal[atm-build]'.",
        ) from error


def pyrtlib_version() -> str:
    """The version of pyrtlib."""
    return str(_pyrtlib("version").__version__)


def load_models() -> Models:
    """Choose pyrtlib's models (it keeps them in class attributes) and take its line lists."""
    package = _pyrtlib("absorption_model")
    known = package.AbsModel.implemented_models()
    for gas, model in (
        ("WaterVapour", WATER_MODEL),
        ("Oxygen", OXYGEN_MODEL),
        ("Ozone", OZONE_MODEL),
    ):
        if model not in known[gas]:
            raise GpucalError(
                f"this pyrtlib has no {gas} model {model}.",
                hint="Install pyrtlib 1.2 or newer: pip install -U pyrtlib.",
            )
    for kind, model in (
        (package.H2OAbsModel, WATER_MODEL),
        (package.O2AbsModel, OXYGEN_MODEL),
        (package.O3AbsModel, OZONE_MODEL),
    ):
        kind.model = model
        kind.set_ll()
    package.N2AbsModel.model = NITROGEN_MODEL
    o3 = package.O3AbsModel.o3ll
    return Models(
        _pyrtlib("rt_equation").RTEquation.clearsky_absorption,
        np.array(package.H2OAbsModel.h2oll.fl, dtype=np.float64),
        np.array(package.O2AbsModel.o2ll.f, dtype=np.float64),
        o3,
        (np.asarray(o3.s1, dtype=np.float64), np.asarray(o3.b, dtype=np.float64)),
    )


def air_absorption(models: Models, air: Air, freq_ghz: float, pwv: F64) -> F64:
    """Absorption at one frequency by the dense levels, Np/km, f64 [1 + K, L']: dry, then at each PWV (mm)."""
    f = np.float64(freq_ghz)
    n = air.dense
    z, p, t, e = air.z_km[:n], air.p_hpa[:n], air.t_k[:n], air.e_hpa[:n]
    low = z < FIXED_WATER_KM
    unit = np.median(pwv)
    wet, dry = models.clearsky(p, t, e * unit, f)
    _, air_only = models.clearsky(p, t, np.zeros(n), f)
    found = [air_only]
    for amount in pwv:
        total = np.where(low, dry, air_only) - air_only + wet * amount / unit
        if amount != unit:
            w, d = models.clearsky(p[low], t[low], e[low] * amount, f)
            total[low] = w + d - air_only[low]
        found.append(total + air_only)
    return np.stack(found)


def water_and_dry(z_km: F64, absorption: F64, pwv: F64) -> F64:
    """b, q, c_dry, f64 [3], of the absorption ``air_absorption`` of the levels at ``z_km``."""
    c_dry = column(z_km, absorption[0])
    rise = column(z_km, absorption[1:].T) - c_dry
    # relative weights: 1/P turns the rows into b + q P = rise / P
    design = np.stack([np.ones(pwv.size), pwv], axis=1)
    (b, q), *_ = np.linalg.lstsq(design, rise / pwv, rcond=None)
    return np.array([b, q, c_dry])


def narrow_absorption(models: Models, air: Air, freq_ghz: F64) -> F64:
    """Absorption by ozone and by minor gases at every level, Np/km, f64 [2, L, N]."""
    ozone, minor = [], []
    s1, slope = models.o3_lines
    for p, t, n_o3, n_co, n_n2o in zip(air.p_hpa, air.t_k, air.ozone, air.co, air.n2o, strict=True):
        ratio = models.o3.reftline / t
        # rotational and, for the 1008 K bending mode, vibrational partition sums; s1 is in cm^2 Hz
        strength = 1e-4 * s1 * np.exp(slope * (1 - ratio)) * ratio**2.5 * -np.expm1(-1008.0 / t)
        width = models.o3.w * p * ratio**models.o3.x
        listed = lines.LineList(models.o3.fl, strength, width)
        ozone.append(lines.absorption(freq_ghz, listed, n_o3, t, O3_MASS))
        level = np.zeros(freq_ghz.shape)
        for rotor, density in ((lines.CARBON_MONOXIDE, n_co), (lines.NITROUS_OXIDE, n_n2o)):
            listed = lines.rotor_lines(rotor, t, p, ROTOR_LINES)
            level += lines.absorption(freq_ghz, listed, density, t, rotor.mass_amu)
        minor.append(level)
    return np.stack([np.array(ozone), np.array(minor)])


def ozone_and_minor(models: Models, air: Air, freq_ghz: F64) -> F64:
    """Ozone and minor opacity, f64 [2, N]."""
    return np.stack([column(air.z_km, x) for x in narrow_absorption(models, air, freq_ghz)])


def column(z_km: F64, values: F64) -> Any:
    """Integral over altitude of ``values`` [L, ..], exponential between levels.

    Absorption in Np/km gives Np; number densities in 1/m^3 give 1e-3 of the column in 1/m^2.
    """
    step = np.diff(z_km).reshape((-1,) + (1,) * (values.ndim - 1))
    return np.sum(layer_means(values) * step, axis=0)


def layer_means(values: F64) -> F64:
    """Means f64 [L-1, ..] of ``values`` [L, ..] between levels, exponential there."""
    v0, v1 = np.maximum(values[:-1], 1e-300), np.maximum(values[1:], 1e-300)
    ratio = np.log(v1 / v0)
    same = np.abs(ratio) < 1e-6
    mean = np.where(same, 0.5 * (v0 + v1), (v1 - v0) / np.where(same, 1.0, ratio))
    return np.asarray(mean, dtype=np.float64)


def minor_centres_ghz() -> F64:
    """Frequencies of the lines of CO and N2O."""
    rotors = (lines.CARBON_MONOXIDE, lines.NITROUS_OXIDE)
    return np.concatenate([lines.rotor_lines(r, 250.0, 1.0, ROTOR_LINES).freq_ghz for r in rotors])
