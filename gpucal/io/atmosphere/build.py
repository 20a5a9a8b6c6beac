"""Compute an atmosphere table from pyrtlib's absorption models and climatology.

Only this module imports pyrtlib, and only when a table is built. Water (MWL24), oxygen (R24) and
nitrogen (MWL24) come from pyrtlib level by level; ozone from its R23 line list with Voigt profiles that are
not cut off; CO and N2O from their rotational constants.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.errors import ConfigError, GpucalError
from gpucal.physics import lines
from gpucal.physics.atm import AtmosphereTable
from gpucal.physics.knots import refine, thin

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

MAX_FREQ_HZ = 1.0e12
"""The water and oxygen models are not valid above."""

TOLERANCE = 1e-3
"""Largest error of the zenith transmission between knots."""

SMOOTH_SHARE, LINE_SHARE, THIN_SHARE = 0.3, 0.25, 0.6
"""Parts of the tolerance for the water and oxygen knots, for the ozone and minor knots, and for
dropping knots in the end."""

TOP_KM = 100.0
AIR_TOP_KM = 60.0
"""Water and oxygen stop here, where Doppler broadening, which their models lack, takes over; above it
lie 2e-4 of the air. Carbon monoxide has much of its line cores higher up."""

FIXED_WATER_KM = 15.0
"""Above it foreign broadening alone counts and water absorption is linear in the amount."""

FIRST_STEP_HZ = 2.0e9
BOLTZMANN = 1.380649e-23
WATER_KG = 18.01528 * lines.AMU
O3_MASS = 48.0
ROTOR_LINES = 45


@dataclass(frozen=True)
class Site:
    """The site and range for which a table is computed; frequencies in Hz, PWV in mm, altitude in m."""

    title: str
    alt_m: float
    profile: str
    range_hz: tuple[float, float]
    pwv_range_mm: tuple[float, float]


SITES = {
    "iram_30m": Site(
        "IRAM 30 m, Pico Veleta, 2850 m", 2850.0, "midlatitude winter", (70e9, 380e9), (0.5, 10.0)
    ),
    "chile_5600m": Site(
        "Cerro Chajnantor (FYST/CCAT), Chile, 5600 m",
        5600.0,
        "tropical",
        (200e9, 960e9),
        (0.1, 3.0),
    ),
}


@dataclass(frozen=True, eq=False)
class Atmosphere:
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


def build_table(
    site: Site, *, tolerance: float = TOLERANCE, progress: Callable[[str], None] | None = None
) -> AtmosphereTable:
    """Compute the table of ``site``; this takes minutes, mostly in pyrtlib.

    The water part is computed at the ends and the geometric middle of the PWV range; b and q are
    the least-squares solution with relative weights, c_dry the opacity without water.
    Raises ConfigError for a site outside the models' range, GpucalError without pyrtlib.
    """
    check_site(site)
    say = progress or (lambda text: None)
    models = _load_models()
    air = site_atmosphere(site)
    lo, hi = site.pwv_range_mm
    pwv = np.array([lo, np.sqrt(lo * hi), hi])

    def smooth(freq_hz: F64) -> F64:
        return np.stack([_water_and_air(models, air, f / 1e9, pwv) for f in freq_hz], axis=-1)

    def transmissions(coefficients: F64) -> F64:
        b, q, c = coefficients[:3]
        tau: F64 = b * pwv[:, None] + q * pwv[:, None] ** 2 + c
        return np.exp(-tau)

    f_smooth = _first_knots(site, np.concatenate([models.h2o_ghz, models.o2_ghz]) * 1e9)
    f_smooth, bqc = refine(
        f_smooth, smooth, transmissions, SMOOTH_SHARE * tolerance, lambda n: say(f"{n} water knots")
    )

    def all_parts(freq_hz: F64) -> F64:
        base = np.stack([np.interp(freq_hz, f_smooth, column) for column in bqc])
        return np.concatenate([base, _narrow(models, air, freq_hz / 1e9)])

    def total(parts: F64) -> F64:
        b, q, dry, ozone, minor = parts
        # without water, and with the ozone doubled, so that either may be scaled later
        columns = [transmissions(np.stack([b, q, dry + ozone + minor]))]
        columns.append(np.exp(-(b * lo + dry + np.stack([2 * ozone + minor, minor]))))
        return np.concatenate(columns)

    minor_ghz = np.concatenate(
        [_rotor_centres(lines.CARBON_MONOXIDE), _rotor_centres(lines.NITROUS_OXIDE)]
    )
    seeds = np.union1d(f_smooth, _first_knots(site, np.append(models.o3.fl, minor_ghz) * 1e9))
    freq, parts = refine(
        seeds, all_parts, total, LINE_SHARE * tolerance, lambda n: say(f"{n} knots with ozone")
    )
    freq, parts = thin(freq, parts, total, THIN_SHARE * tolerance)
    columns = parts.astype(np.float32).astype(np.float64)  # the models are not better than 1e-7
    b, q, dry, ozone, minor = columns
    attrs = _attributes(site, air, pwv, tolerance)
    return AtmosphereTable(freq, b, q, dry, ozone, minor, attrs=attrs)


def check_site(site: Site) -> None:
    """Raise ConfigError when ``site`` is outside what the models and profiles can give."""
    lo, hi = site.range_hz
    if not 1e9 <= lo < hi <= MAX_FREQ_HZ:
        raise ConfigError(
            f"frequencies {lo / 1e9:g} to {hi / 1e9:g} GHz were asked for, the models hold from 1 to "
            f"{MAX_FREQ_HZ / 1e9:g} GHz.",
            hint="Above 1 THz import the output of am with gpucal atm import.",
        )
    if not 0 <= site.alt_m <= 20000:
        raise ConfigError(f"altitude is {site.alt_m:g} m, expected 0 to 20000 m.")
    if not 0 < site.pwv_range_mm[0] < site.pwv_range_mm[1] <= 100:
        raise ConfigError(
            f"PWV range is {site.pwv_range_mm} mm, expected two rising numbers up to 100 mm."
        )
    if site.profile not in PROFILES:
        raise ConfigError(f"profile is {site.profile!r}, expected one of {', '.join(PROFILES)}.")


def site_atmosphere(site: Site) -> Atmosphere:
    """The AFGL profile above ``site``: log p, T and log mixing ratios linear in altitude."""
    atm = _pyrtlib("climatology").AtmosphericProfiles
    z, p, _, t, ppmv = atm.gl_atm(PROFILES.index(site.profile))
    bottom = site.alt_m / 1e3
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
    unscaled_mm = 1e3 * _column(grid, water * density) * WATER_KG  # per km; kg/m^2 is mm
    return Atmosphere(
        grid,
        pressure,
        temperature,
        water * pressure / unscaled_mm,
        logarithmic(ppmv[:, atm.O3]) * 1e-6 * density,
        logarithmic(ppmv[:, atm.CO]) * 1e-6 * density,
        logarithmic(ppmv[:, atm.N2O]) * 1e-6 * density,
    )


@dataclass(frozen=True, eq=False)
class _Models:
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


def _load_models() -> _Models:
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
    return _Models(
        _pyrtlib("rt_equation").RTEquation.clearsky_absorption,
        np.array(package.H2OAbsModel.h2oll.fl, dtype=np.float64),
        np.array(package.O2AbsModel.o2ll.f, dtype=np.float64),
        o3,
        (np.asarray(o3.s1, dtype=np.float64), np.asarray(o3.b, dtype=np.float64)),
    )


def _water_and_air(models: _Models, air: Atmosphere, freq_ghz: float, pwv: F64) -> F64:
    """b, q, c_dry at one frequency, f64 [3], from the opacity without water and at each PWV."""
    f = np.float64(freq_ghz)
    n = np.count_nonzero(air.z_km <= AIR_TOP_KM)
    z, p, t, e = air.z_km[:n], air.p_hpa[:n], air.t_k[:n], air.e_hpa[:n]
    low = z < FIXED_WATER_KM
    unit = np.median(pwv)
    wet, dry = models.clearsky(p, t, e * unit, f)
    _, air_only = models.clearsky(p, t, np.zeros(n), f)
    c_dry = _column(z, air_only)
    rise = []
    for amount in pwv:
        total = np.where(low, dry, air_only) - air_only + wet * amount / unit
        if amount != unit:
            w, d = models.clearsky(p[low], t[low], e[low] * amount, f)
            total[low] = w + d - air_only[low]
        rise.append(_column(z, total + air_only) - c_dry)
    # relative weights: 1/P turns the rows into b + q P = rise / P
    design = np.stack([np.ones(pwv.size), pwv], axis=1)
    (b, q), *_ = np.linalg.lstsq(design, np.array(rise) / pwv, rcond=None)
    return np.array([b, q, c_dry])


def _narrow(models: _Models, air: Atmosphere, freq_ghz: F64) -> F64:
    """Ozone and minor opacity, f64 [2, N]."""
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
    return np.stack([_column(air.z_km, np.array(x)) for x in (ozone, minor)])


def _column(z_km: F64, values: F64) -> Any:
    """Integral over altitude of ``values`` [L, ..], exponential between levels.

    Absorption in Np/km gives Np; number densities in 1/m^3 give 1e-3 of the column in 1/m^2.
    """
    step = np.diff(z_km).reshape((-1,) + (1,) * (values.ndim - 1))
    v0, v1 = np.maximum(values[:-1], 1e-300), np.maximum(values[1:], 1e-300)
    ratio = np.log(v1 / v0)
    same = np.abs(ratio) < 1e-6
    mean = np.where(same, 0.5 * (v0 + v1), (v1 - v0) / np.where(same, 1.0, ratio))
    return np.sum(mean * step, axis=0)


def _rotor_centres(rotor: lines.LinearRotor) -> F64:
    """Frequencies in GHz of the lines of a linear molecule (O3, N2O, ...)."""
    return lines.rotor_lines(rotor, 250.0, 1.0, ROTOR_LINES).freq_ghz


def _first_knots(site: Site, centres_hz: F64) -> F64:
    """Knots in Hz to begin with: a regular grid, and the centre of every line in the range."""
    lo, hi = site.range_hz
    inside = centres_hz[(centres_hz > lo) & (centres_hz < hi)]
    regular = np.linspace(lo, hi, int(np.ceil((hi - lo) / FIRST_STEP_HZ)) + 1)
    return np.union1d(regular, np.round(inside))


def _attributes(site: Site, air: Atmosphere, pwv: F64, tolerance: float) -> dict[str, Any]:
    """What the table records of its origin: models, profile, coverage, credit and limits."""
    version = _pyrtlib("version").__version__
    return {
        "model": f"pyrtlib: H2O {WATER_MODEL}, O2 {OXYGEN_MODEL}, N2 {NITROGEN_MODEL}, O3 {OZONE_MODEL} lines",
        "version": f"pyrtlib {version}",
        "site": site.title,
        "alt_m": site.alt_m,
        "pressure_hpa": float(air.p_hpa[0]),
        "t_ground_k": float(air.t_k[0]),
        "pwv_range_mm": np.array(site.pwv_range_mm),
        "pwv_solved_mm": pwv,
        "ozone_column_du": float(_column(air.z_km, air.ozone) * 1e3 / 2.6867e20),
        "knot_tolerance": tolerance,
        "profile": f"AFGL {site.profile} (Anderson et al. 1986), {air.z_km.size} levels from "
        f"{air.z_km[0]:g} to {air.z_km[-1]:g} km; the whole water profile scaled to the PWV",
        "credit": "Computed with pyrtlib (Larosa et al. 2024, doi:10.5194/gmd-17-2053-2024): absorption "
        "models of P. Rosenkranz and of M. Tretyakov et al.; AFGL profiles (Anderson et al. 1986).",
        "licence": "The numbers may be used like the rest of gpucal (BSD-3-Clause); please keep the credit.",
        "notes": "tau = A (b P + q P^2 + c_dry + s c_o3 + c_minor). Made by gpucal atm build. c_minor is "
        "CO and N2O with one broadening constant each. No isotopologues, no hot bands, no clouds; "
        "water and oxygen lines without Doppler and Zeeman broadening, so their central few MHz are "
        "only rough. Not compared with a measured sky.",
    }
