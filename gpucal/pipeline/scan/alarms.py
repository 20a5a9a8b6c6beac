"""Alarms: numbers of a calibrated band that cannot be right, judged by the thresholds of the configuration.

An alarm changes no number. It is judged from the ``qa`` attribute alone, so a scan that is finished can be judged
again with other thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.config import CalibrationConfig
from gpucal.io.atmosphere.choice import table_title
from gpucal.physics.atm import AtmosphereTable
from gpucal.physics.radiometry import h_over_k
from gpucal.steps.sky_model import ambient_pressure
from gpucal.steps.solution import ScanSolution

F64 = npt.NDArray[np.float64]

NO_NOISE = 1e-6
"""Below this ratio there is no noise at all: counts that were made up, not a wrong unit."""

SCALE_HEIGHT_M = 7000.0
"""Of the pressure of the air, between the ground and 15 km within 1 km."""

WEATHER = 0.08
"""Fraction of an altitude by which the pressure of a standard atmosphere may mislead."""

SKY_BELOW_ZERO = 0.05
"""Fraction of T_rec by which the sky may seem colder than 0 K: averages over a sloping band differ."""

SKY_ABOVE_HOT = 1.1

T_SYS_APART = 1.5
"""Factor between T_sys with the opacity in use and T_sys by the counts alone; a fitted PWV makes them equal."""


def with_alarms(
    quality: Mapping[str, Any], solution: ScanSolution, table: AtmosphereTable | None
) -> dict[str, Any]:
    """``qa`` with what is known of the site and of the table, and with its ``alarms`` (kind -> sentence)."""
    site = solution.scan.store_attrs.get("site")
    attrs = table.attrs if table is not None else {}
    span, pwv = table.pwv_range_mm if table is not None else None, _number(quality.get("pwv"))
    found = {
        **quality,
        "pwv_range_mm": span,
        "pwv_outside_table": span is not None and (pwv < span[0] or pwv > span[1]),
        "site_altitude_m": _number(site.get("alt_m")) if isinstance(site, Mapping) else math.nan,
        "pressure_hpa": ambient_pressure(solution.group),
        "table_name": table_title(table),
        "table_site": str(attrs.get("site", "")),
        "table_altitude_m": _number(attrs.get("alt_m")),
        "table_pressure_hpa": _number(attrs.get("pressure_hpa")),
        "noise_free": solution.scan.store_attrs.get("noise_free") is True,
    }
    return {**found, "alarms": alarms_of(found, solution.config)}


def alarms_of(quality: Mapping[str, Any], config: CalibrationConfig) -> dict[str, str]:
    """The alarms of one band by kind: rms, t_hot, t_cold, t_rec, t_sys, sky, tau, pwv, chi2, site, flagged.

    quality: the ``qa`` attribute, also as read from L1, where NaN is a text; keys that it lacks raise no alarm.
    """
    judges = (_noise, _loads, _temperatures, _water, _site, _flagged)
    return dict(alarm for judge in judges for alarm in judge(quality, config))


def _noise(quality: Mapping[str, Any], config: CalibrationConfig) -> Iterator[tuple[str, str]]:
    """Scatter of adjacent channels against the radiometer equation; lines do not count."""
    ratio, quiet = (_array(quality.get(k)) for k in ("rms_ratio", "rms_ratio_line_free"))
    if ratio.shape != quiet.shape:  # an L1 of an earlier version
        quiet = ratio
    low, high = config.alarm_rms_low, config.alarm_rms_high
    below = (ratio < low) & (quiet < low) & (ratio > NO_NOISE)
    if quality.get("noise_free") is True:
        below[...] = False
    absurd = below | ((ratio > high) & (quiet > high))
    if not absurd.any():
        return
    away = np.where(absurd, np.abs(np.log(np.where(absurd, ratio, 1.0))), -1.0)
    worst = np.unravel_index(int(np.argmax(away)), away.shape)
    yield (
        "rms",
        f"rms/expected is {ratio[worst]:.3g} {_pixels(absurd, worst)}, believable is {low:g} to {high:g}: "
        "are exptime (s) and freq_res (Hz) right?",
    )


def _loads(quality: Mapping[str, Any], config: CalibrationConfig) -> Iterator[tuple[str, str]]:
    """Temperatures of the loads."""
    low, high = config.alarm_t_hot_low, config.alarm_t_hot_high
    for value in _array(quality.get("t_hot_range_k")):
        if not low <= value <= high and math.isfinite(value):
            yield (
                "t_hot",
                f"the HOT load is at {value:.1f} K, believable is {low:g} to {high:g} K: every T_A* scales "
                "with it; give the true one with --t-hot.",
            )
    limit = config.alarm_t_cold_high
    if (coldest := np.max(_array(quality.get("t_cold_range_k")), initial=0.0)) > limit:
        yield (
            "t_cold",
            f"the COLD load is at {coldest:.1f} K, believable is up to {limit:g} K: are the temperatures of "
            "HOT and COLD exchanged? Give the true one with --t-cold.",
        )


def _temperatures(
    quality: Mapping[str, Any], config: CalibrationConfig
) -> Iterator[tuple[str, str]]:
    """T_rec against its limit and that of quantum noise, T_sys, and the sky that the counts of the OFF tell."""
    t_rec = _array(quality.get("t_rec_of_pixel"))
    nu = _number(quality.get("highest_frequency_hz"))
    quantum = 0.5 * h_over_k("exact") * nu if math.isfinite(nu) else 0.0
    absurd = (t_rec > config.alarm_t_rec) | (t_rec < quantum)
    if absurd.any():
        worst = np.unravel_index(int(np.argmax(absurd * np.abs(t_rec - quantum))), t_rec.shape)
        yield (
            "t_rec",
            f"T_rec is {t_rec[worst]:.4g} K {_pixels(absurd, worst)}, believable is {quantum:.3g} (quantum noise) "
            f"to {config.alarm_t_rec:g} K: look at the counts and temperatures of the loads.",
        )
    t_sys = _number(quality.get("t_sys_median"))
    if t_sys <= 0 or t_sys > config.alarm_t_sys:
        yield (
            "t_sys",
            f"T_sys is {t_sys:.4g} K, believable is 0 to {config.alarm_t_sys:g} K: look at the counts of "
            "the loads and of the OFF, and at the opacity.",
        )
    yield from _sky(quality, t_rec)
    by_counts = _array(quality.get("t_sys_from_counts"))
    by_counts = by_counts[np.isfinite(by_counts) & (by_counts > 0)]
    if by_counts.size and t_sys > 0:
        seen = float(np.median(by_counts))
        if not 1 / T_SYS_APART <= t_sys / seen <= T_SYS_APART:
            yield (
                "tau",
                f"T_sys is {t_sys:.4g} K with this opacity, but {seen:.4g} K by the counts of the OFF: do --tau "
                "or --pwv, and the atmosphere table, fit this sky?",
            )


def _sky(quality: Mapping[str, Any], t_rec: F64) -> Iterator[tuple[str, str]]:
    """The sky as the loads see it is neither below 0 K nor warmer than the HOT load."""
    total, hot = _array(quality.get("t_sys_from_counts")), _array(quality.get("t_hot_range_k"))
    if total.shape != t_rec.shape or not hot.size:
        return
    sky = total - t_rec
    absurd = (sky < -SKY_BELOW_ZERO * t_rec) | (sky > SKY_ABOVE_HOT * hot.max())
    if absurd.any():
        worst = np.unravel_index(int(np.argmax(absurd * np.abs(sky))), sky.shape)
        yield (
            "sky",
            f"by its counts the OFF sees {sky[worst]:.4g} K {_pixels(absurd, worst)}, between 0 K and the HOT "
            "load is believable: were loads and OFF taken with the same gain?",
        )


def _water(quality: Mapping[str, Any], config: CalibrationConfig) -> Iterator[tuple[str, str]]:
    """The PWV and how well its fit describes the sky."""
    pwv = _number(quality.get("pwv"))
    error = _number(quality.get("pwv_error_noise", quality.get("pwv_error")))
    if quality.get("pwv_outside_table") is True:
        span = quality.get("pwv_range_mm")
        limits = f" of {span[0]:.3g} to {span[1]:.3g} mm" if isinstance(span, (list, tuple)) else ""
        yield "pwv", f"PWV is {pwv:.3g} mm, outside the range{limits} of the atmosphere table."
    elif quality.get("atmosphere_poor") is True:
        yield (
            "pwv",
            "the PWV could not be fitted everywhere: it lies at the edge of the trial range, or too few "
            "channels are good; a wider mean stands in there.",
        )
    elif error >= pwv:
        yield (
            "pwv",
            f"PWV is {pwv:.3g} mm with an error of {error:.3g} mm: the data do not tell it.",
        )
    chi2 = _number(quality.get("chi2_dof"))
    if chi2 > config.alarm_chi2:
        name = quality.get("table_name") or "that was used"
        yield (
            "chi2",
            f"chi2 of the PWV fit is {chi2:.3g} per degree of freedom, believable is up to "
            f"{config.alarm_chi2:g}: the atmosphere table {name} does not describe this sky; choose that "
            "of the site with --atmosphere.",
        )


def _site(quality: Mapping[str, Any], config: CalibrationConfig) -> Iterator[tuple[str, str]]:
    """Altitude of the atmosphere table against that of the site, and against the recorded pressure."""
    table, limit = _number(quality.get("table_altitude_m")), config.alarm_altitude
    name = str(quality.get("table_name"))
    if place := str(quality.get("table_site") or ""):
        name = f"{place} ({name})"
    site, pressure = (_number(quality.get(k)) for k in ("site_altitude_m", "pressure_hpa"))
    said = []
    if abs(site - table) > limit:
        said.append(f"the site at {site:.0f} m")
    above, slack = _above_table(pressure, quality), limit
    if not math.isfinite(_number(quality.get("table_pressure_hpa"))):
        slack = limit + WEATHER * table
    if abs(above) > slack:
        said.append(f"a recorded pressure of {pressure:.0f} hPa")
    if said:
        height = f" at {table:.0f} m" if math.isfinite(table) else ""
        yield (
            "site",
            f"the atmosphere table is for {name}{height}, which does not fit {' and '.join(said)}: "
            "choose another table with --atmosphere, or correct the site and pamb of the raw store.",
        )


def _above_table(pressure: float, quality: Mapping[str, Any]) -> float:
    """How far the recorded pressure, hPa, lies above the altitude of the table, m; NaN where not known."""
    own = _number(quality.get("table_pressure_hpa"))
    if not math.isfinite(own):  # of the standard atmosphere (ISO 2533)
        altitude = _number(quality.get("table_altitude_m"))
        own = 1013.25 * max(1.0 - 2.25577e-5 * altitude, 0.05) ** 5.25588
    return SCALE_HEIGHT_M * math.log(own / pressure) if pressure > 0 else math.nan


def _flagged(quality: Mapping[str, Any], config: CalibrationConfig) -> Iterator[tuple[str, str]]:
    """How much of the scan is blank; flags that are remarks (an OFF on one side only) do not count."""
    blank = _number(quality.get("nan_fraction"))
    if blank > config.alarm_flagged:
        yield (
            "flagged",
            f"{100 * blank:.0f} % of the samples are flagged and blank, believable is up to "
            f"{100 * config.alarm_flagged:g} %.",
        )


def _pixels(absurd: npt.NDArray[np.bool_], worst: tuple[Any, ...]) -> str:
    """Where the worst of the pixels [R,A] is, in words."""
    n = int(np.count_nonzero(absurd))
    if absurd.size == 1:
        return ""
    place = f"in receiver {int(worst[0])}, pixel {int(worst[1])}"
    return f"{place} ({n} of {absurd.size} pixels)"


def _array(values: Any) -> F64:
    """Numbers of an attribute, where NaN may be a text; empty where there is none."""
    if values is None:
        return np.empty(0)
    return np.asarray(np.array(values, dtype=object).astype(np.float64), dtype=np.float64)


def _number(value: Any) -> float:
    """A number of an attribute; NaN where there is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
