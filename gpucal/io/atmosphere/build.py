"""Compute an atmosphere table from pyrtlib's absorption models and climatology (``levels``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpucal.errors import ConfigError
from gpucal.io.atmosphere.emission import LevelAbsorption, emission_columns
from gpucal.io.atmosphere.levels import (
    NITROGEN_MODEL,
    OXYGEN_MODEL,
    OZONE_MODEL,
    PROFILES,
    WATER_MODEL,
    Air,
    Models,
    air_above,
    air_absorption,
    column,
    load_models,
    minor_centres_ghz,
    narrow_absorption,
    ozone_and_minor,
    pyrtlib_version,
    warmer,
    water_and_dry,
)
from gpucal.physics.atm import AtmosphereTable
from gpucal.physics.knots import refine, thin

F64 = npt.NDArray[np.float64]

MAX_FREQ_HZ = 1.0e12
"""The water and oxygen models are not valid above."""

TOLERANCE = 1e-3
"""Largest error of the zenith transmission between knots."""

SMOOTH_SHARE, LINE_SHARE, THIN_SHARE = 0.3, 0.25, 0.6
"""Parts of the tolerance for the water and oxygen knots, for the ozone and minor knots, and for
dropping knots in the end."""

FIRST_STEP_HZ = 2.0e9
EMISSION_CHUNK = 512
SLOPE_POINTS = 160
WARMER_K = 10.0
STEEPEST = 20.0
"""Largest exponent of temperature: beyond it a column is near zero, and does not matter."""

DRY_AIRMASS = 24.0
"""Opacity of dry air is kept to the tolerance at this airmass: beside an oxygen line it must not pass for water
(2e-4 Np between knots were 1.3 % of 1 mm at 110 GHz)."""


@dataclass(frozen=True)
class Site:
    """The site and range for which a table is computed; frequencies in Hz, PWV in mm, altitude in m. dry_airmass: as
    DRY_AIRMASS."""

    title: str
    alt_m: float
    profile: str
    range_hz: tuple[float, float]
    pwv_range_mm: tuple[float, float]
    dry_airmass: float = DRY_AIRMASS


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
        dry_airmass=8.0,  # water is always more than the dry air there
    ),
}


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
    models = load_models()
    air = air_above(site.alt_m, site.profile)
    lo, hi = site.pwv_range_mm
    pwv = np.array([lo, np.sqrt(lo * hi), hi])
    kept = _Kept(pwv, site.dry_airmass)
    absorbed: dict[float, F64] = {}

    def smooth(freq_hz: F64) -> F64:
        new = {float(f): air_absorption(models, air, f / 1e9, pwv) for f in freq_hz}
        absorbed.update(new)
        z = air.z_km[: air.dense]
        return np.stack([water_and_dry(z, levels, pwv) for levels in new.values()], axis=-1)

    f_smooth = _first_knots(site, np.concatenate([models.h2o_ghz, models.o2_ghz]) * 1e9)
    f_smooth, bqc = refine(
        f_smooth,
        smooth,
        kept.smooth_part,
        SMOOTH_SHARE * tolerance,
        lambda n: say(f"{n} water knots"),
    )

    def all_parts(freq_hz: F64) -> F64:
        base = np.stack([np.interp(freq_hz, f_smooth, column) for column in bqc])
        return np.concatenate([base, ozone_and_minor(models, air, freq_hz / 1e9)])

    narrow_ghz = np.append(models.o3.fl, minor_centres_ghz())
    seeds = np.union1d(f_smooth, _first_knots(site, narrow_ghz * 1e9))
    freq, parts = refine(
        seeds, all_parts, kept.total, LINE_SHARE * tolerance, lambda n: say(f"{n} knots with ozone")
    )
    freq, parts = thin(freq, parts, kept.total, THIN_SHARE * tolerance)
    say("emission")
    emission = _emission(models, air, freq, pwv, f_smooth, [absorbed[float(f)] for f in f_smooth])
    columns = np.concatenate([parts, emission])
    # the models are not better than 1e-7
    b, q, dry, ozone, minor, e_b, e_q, e_c, e_o3 = columns.astype(np.float32).astype(np.float64)
    say("slopes with temperature")
    f_slopes = f_smooth[:: max(1, f_smooth.size // SLOPE_POINTS)]
    emitted = {"e_b": e_b, "e_q": e_q, "e_c": e_c, "e_o3": e_o3}
    return AtmosphereTable(
        *(freq, b, q, dry, ozone, minor),
        attrs=_attributes(site, air, pwv, tolerance),
        slope_freq_hz=f_slopes,
        slopes=_slopes(models, air, f_slopes, pwv).astype(np.float32).astype(np.float64),
        **emitted,
    )


class _Kept(NamedTuple):
    """What has to be right between the knots: transmissions at the zenith with each of ``pwv`` mm, and more."""

    pwv: F64
    dry_airmass: float

    def transmissions(self, coefficients: F64) -> F64:
        """With b, q, c of ``coefficients`` [3,N]: f64 [K,N]."""
        b, q, c = coefficients[:3]
        tau: F64 = b * self.pwv[:, None] + q * self.pwv[:, None] ** 2 + c
        return np.exp(-tau)

    def smooth_part(self, coefficients: F64) -> F64:
        """Of water and dry air, and of dry air low in the sky."""
        dry = np.exp(-self.dry_airmass * coefficients[2])
        return np.concatenate([self.transmissions(coefficients), dry[None]])

    def total(self, parts: F64) -> F64:
        """Of all; without water, and with the ozone doubled, so that either may be scaled later."""
        b, q, dry, ozone, minor = parts
        columns = [self.transmissions(np.stack([b, q, dry + ozone + minor]))]
        driest = b * self.pwv[0] + dry
        columns.append(np.exp(-(driest + np.stack([2 * ozone + minor, minor]))))
        columns.append(np.exp(-self.dry_airmass * dry)[None])
        return np.concatenate(columns)


def _slopes(models: Models, air: Air, freq: F64, pwv: F64) -> F64:
    """Exponents of SLOPED in the temperature of the ground at ``freq`` [K]: f64 [7,K]; from 10 K colder to warmer.

    0 where a column changes its sign between the two.
    """
    columns = []
    for kelvin in (-WARMER_K, WARMER_K):
        other = warmer(air, kelvin)
        absorbed = [air_absorption(models, other, f / 1e9, pwv) for f in freq]
        z = other.z_km[: other.dense]
        opacity = np.stack([water_and_dry(z, levels, pwv) for levels in absorbed], axis=-1)
        emitted = _emission(models, other, freq, pwv, freq, absorbed)
        columns.append((np.concatenate([opacity, emitted]), float(other.t_k[0])))
    (cold, cold_k), (warm, warm_k) = columns
    same = cold * warm > 0
    ratio = np.where(same, warm, 1.0) / np.where(same, cold, 1.0)
    slopes = np.log(ratio) / np.log(warm_k / cold_k)
    return np.asarray(np.clip(slopes, -STEEPEST, STEEPEST), dtype=np.float64)


def _emission(
    models: Models, air: Air, freq: F64, pwv: F64, f_smooth: F64, absorbed: Sequence[F64]
) -> F64:
    """Emission columns f64 [4,N] at ``freq``; ``absorbed``: water and air at ``f_smooth``, linear between."""
    smooth = np.stack(absorbed, axis=1)
    left = np.clip(np.searchsorted(f_smooth, freq, side="right") - 1, 0, f_smooth.size - 2)
    part = ((freq - f_smooth[left]) / (f_smooth[left + 1] - f_smooth[left]))[:, None]
    found = []
    for i in range(0, freq.size, EMISSION_CHUNK):
        at = slice(i, i + EMISSION_CHUNK)
        between = smooth[:, left[at]] * (1 - part[at]) + smooth[:, left[at] + 1] * part[at]
        levels = np.zeros((*between.shape[:2], air.z_km.size))
        levels[..., : air.dense] = between
        ozone, minor = (x.T for x in narrow_absorption(models, air, freq[at] / 1e9))
        absorption = LevelAbsorption(levels[0], levels[1:], ozone, minor)
        found.append(emission_columns(freq[at], air.z_km, air.t_k, absorption, pwv))
    return np.concatenate(found, axis=1)


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


def _first_knots(site: Site, centres_hz: F64) -> F64:
    """Knots in Hz to begin with: a regular grid, and the centre of every line in the range."""
    lo, hi = site.range_hz
    inside = centres_hz[(centres_hz > lo) & (centres_hz < hi)]
    regular = np.linspace(lo, hi, int(np.ceil((hi - lo) / FIRST_STEP_HZ)) + 1)
    return np.union1d(regular, np.round(inside))


def _attributes(site: Site, air: Air, pwv: F64, tolerance: float) -> dict[str, Any]:
    """What the table records of its origin: models, profile, coverage, credit and limits."""
    return {
        "model": f"pyrtlib: H2O {WATER_MODEL}, O2 {OXYGEN_MODEL}, N2 {NITROGEN_MODEL}, O3 {OZONE_MODEL} lines",
        "version": f"pyrtlib {pyrtlib_version()}",
        "site": site.title,
        "alt_m": site.alt_m,
        "pressure_hpa": float(air.p_hpa[0]),
        "t_ground_k": float(air.t_k[0]),
        "pwv_range_mm": np.array(site.pwv_range_mm),
        "pwv_solved_mm": pwv,
        "ozone_column_du": float(column(air.z_km, air.ozone) * 1e3 / 2.6867e20),
        "knot_tolerance": tolerance,
        "profile": f"AFGL {site.profile} (Anderson et al. 1986), {air.z_km.size} levels from "
        f"{air.z_km[0]:g} to {air.z_km[-1]:g} km; the whole water profile scaled to the PWV",
        "credit": "Computed with pyrtlib (Larosa et al. 2024, doi:10.5194/gmd-17-2053-2024): absorption "
        "models of P. Rosenkranz and of M. Tretyakov et al.; AFGL profiles (Anderson et al. 1986).",
        "licence": "The numbers may be used like the rest of gpucal (BSD-3-Clause); please keep the credit.",
        "notes": "tau = A (b P + q P^2 + c_dry + s c_o3 + c_minor); e_b, e_q, e_c, e_o3: emission of the layers, "
        "as fractions of J(T_ground). Made by gpucal atm build. c_minor is "
        "CO and N2O with one broadening constant each. No isotopologues, no hot bands, no clouds; "
        "water and oxygen lines without Doppler and Zeeman broadening, so their central few MHz are "
        "only rough. Not compared with a measured sky.",
    }
