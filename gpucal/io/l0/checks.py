"""Values of an L0 group that cannot be right: each with its own sentence.

Shapes use C channels, D dumps, R receivers, A array pixels, S subscans.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.axes import OFF_MODES, ON_MODES
from gpucal.errors import L0Error
from gpucal.io.l0.schema import ScanAttrs
from gpucal.scan import F64, SubscanGroup

MJD_RANGE = (30000.0, 90000.0)
FREQ_RANGE_HZ = (1e9, 2e13)
T_HOT_POSSIBLE_K = (100.0, 400.0)
T_HOT_LIKELY_K = (200.0, 350.0)
_POINTING_LIMITS = (("elevation", np.pi / 2 + 0.01), ("azimuth", 4 * np.pi))
_REFERENCE_OF = {
    "ON": ("OFF", "OTF-OFF"),
    "OTF-ON": ("OTF-OFF", "OFF"),
    "OTFSWA-ON": ("OTFSWA-OFF",),
    "OTFSWB-ON": ("OTFSWB-OFF",),
    "FSW-SIG": ("FSW-REF",),
    "WSW-ON": ("WSW-OFF",),
    "NOD-1": ("NOD-2",),
}


def check_group(
    group: SubscanGroup, *, calibration: bool, t_hot_given: bool = False, growing: bool = False
) -> list[str]:
    """Raise L0Error for the first impossible value; return warnings about doubtful ones.

    growing: what is missing, loads or references, may still come.
    """
    _check_times(group)
    _check_pointing(group, calibration=calibration)
    warnings = _check_frequencies(group)
    _check_offsets(group)
    if calibration:
        if growing and "HOT" not in group.sobsmode:
            return warnings
        return warnings + _check_loads(group, t_hot_given)
    if not growing:
        _check_references(group)
    return warnings + _doubtful_positions(group)


def check_bolometer(group: SubscanGroup) -> list[str]:
    """As ``check_group`` for a bolometer scan: times, pointing and offsets.

    Positions outside the telescope's track are not known (NaN): a warning says how many. Raises
    L0Error for the first impossible value.
    """
    _check_times(group)
    for name, limit in _POINTING_LIMITS:
        _check_radians(group, name, limit)
    _check_offsets(group)
    known = np.isfinite(group.azimuth) & np.isfinite(group.elevation)
    missing = int((~known).sum())
    if not missing:
        return []
    return [
        f"azimuth and elevation are not known for {missing} of {known.size} samples: they lie "
        "outside the telescope's track, or were not recorded."
    ]


def _first(bad: npt.NDArray[np.bool_]) -> tuple[int, ...] | None:
    """Index of the first True along the last axis first (subscan by subscan)."""
    if not bad.any():
        return None
    index = np.argwhere(np.moveaxis(bad, -1, 0))[0]
    return (*(int(i) for i in index[1:]), int(index[0]))


def _check_times(group: SubscanGroup) -> None:
    lo, hi = MJD_RANGE
    at = _first(~(group.exptime > 0) | ~np.isfinite(group.exptime))
    if at is not None:
        raise L0Error(
            f"exptime of dump {at[0]} is {group.exptime[at]:g} s, expected more than 0.",
            subscan=at[1],
        )
    at = _first(~((group.mjd >= lo) & (group.mjd <= hi)))
    if at is not None:
        value = float(group.mjd[at])
        unit = _time_unit(value)
        raise L0Error(
            f"mjd of dump {at[0]} is {value:.10g}, expected {lo:g}..{hi:g} days{unit}.",
            subscan=at[1],
        )
    at = _first(np.diff(group.mjd, axis=0) < 0)
    if at is not None:
        raise L0Error(
            f"mjd runs backwards from dump {at[0]} to dump {at[0] + 1}, "
            f"{group.mjd[at]:.8f} to {group.mjd[at[0] + 1, at[1]]:.8f}.",
            hint="Dumps must be stored in the order of time.",
            subscan=at[1],
        )
    steps = np.diff(group.mjd_mid)
    if (steps < 0).any():
        s = int(np.argmax(steps < 0))
        raise L0Error(
            f"mjd runs backwards: {group.mjd_mid[s + 1]:.8f} after {group.mjd_mid[s]:.8f} in the "
            "subscan before.",
            hint="Subscans must be stored in the order of time.",
            subscan=s + 1,
        )


def _time_unit(value: float) -> str:
    for lo, hi, text in (
        (2.4e6, 2.5e6, "; it looks like a Julian date, subtract 2400000.5"),
        (2.5e9, 8e9, "; it looks like MJD in seconds, divide by 86400"),
        (1e8, 2.5e9, "; it looks like Unix seconds, divide by 86400 and add 40587"),
    ):
        if lo <= value <= hi:
            return text
    return ""


def _check_pointing(group: SubscanGroup, *, calibration: bool) -> None:
    for name, limit in _POINTING_LIMITS:
        _check_radians(group, name, limit)
    # loads fill the beam: where the telescope points then does not matter
    on_sky = np.array([mode not in ("HOT", "COLD", "ZERO") for mode in group.sobsmode])
    at = _first(~(group.elevation > 0) & on_sky)
    if at is not None:
        raise L0Error(
            f"elevation of dump {at[0]} is {group.elevation[at]:g} rad, expected more than 0 for "
            f"{group.sobsmode[at[1]]}.",
            subscan=at[1],
        )


def _check_radians(group: SubscanGroup, name: str, limit: float) -> None:
    values: F64 = getattr(group, name)
    at = _first(np.abs(values) > limit)
    if at is not None:
        raise L0Error(
            f"{name} of dump {at[0]} is {values[at]:g}, expected radians of at most {limit:.4g}; "
            "it looks like degrees.",
            subscan=at[1],
        )


def _check_frequencies(group: SubscanGroup) -> list[str]:
    lo, hi = FREQ_RANGE_HZ
    for name in ("signal_freq", "image_freq"):
        values: F64 = getattr(group, name)
        at = _first(~((values >= lo) & (values <= hi)))
        if at is not None:
            raise L0Error(
                f"{name} is {values[at]:g}, expected {lo:g}..{hi:g} Hz{_freq_unit(values[at])}.",
                receiver=at[0],
                subscan=at[1],
            )
    at = _first(~np.isfinite(group.freq_res) | (group.freq_res == 0))
    if at is not None:
        raise L0Error(
            f"freq_res is {group.freq_res[at]:g} Hz, expected a channel width other than 0.",
            receiver=at[0],
            subscan=at[1],
        )
    at = _first(~np.isfinite(group.ref_channel))
    if at is not None:
        raise L0Error(
            f"ref_channel is {group.ref_channel[at]:g}, expected a channel number.",
            receiver=at[0],
            subscan=at[1],
        )
    _check_axis(group)
    if group.freq_throw is not None:
        at = _first(~np.isfinite(group.freq_throw))
        if at is not None:
            raise L0Error(
                f"freq_throw is {group.freq_throw[at]:g}, expected Hz.",
                receiver=at[0],
                subscan=at[1],
            )
    smallest = float(np.abs(group.freq_res).min())
    if smallest < 10:
        return [f"freq_res is {smallest:g} Hz: it looks like MHz or kHz, expected Hz."]
    return []


def _check_axis(group: SubscanGroup) -> None:
    ends = np.array([0.0, group.shape[0] - 1.0])[:, None, None]
    shift = (ends - group.ref_channel) * group.freq_res
    for name, axis in (("signal", group.signal_freq + shift), ("image", group.image_freq - shift)):
        at = _first(axis <= 0)
        if at is not None:
            raise L0Error(
                f"the {name} frequency of channel {int(ends[at[0], 0, 0])} would be "
                f"{axis[at]:g} Hz; ref_channel {group.ref_channel[at[1:]]:g} or freq_res "
                f"{group.freq_res[at[1:]]:g} Hz cannot be right.",
                receiver=at[1],
                subscan=at[2],
            )


def _freq_unit(value: float) -> str:
    if 1 <= value < 2e4:
        return "; it looks like GHz"
    if 2e4 <= value < 2e7:
        return "; it looks like MHz"
    if 2e7 <= value < 1e9:
        return "; it looks like kHz"
    return ""


def _check_offsets(group: SubscanGroup) -> None:
    for name in ("pixel_offset_lon", "pixel_offset_lat"):
        values: F64 = getattr(group, name)
        at = _first(~np.isfinite(values))
        if at is not None:
            raise L0Error(
                f"{name} is {values[at]:g}, expected degrees.",
                receiver=at[0],
                pixel=at[1],
                subscan=at[2],
            )


def _doubtful_positions(group: SubscanGroup) -> list[str]:
    on = np.array([mode in ON_MODES for mode in group.sobsmode])
    bad = ~np.isfinite(group.otf_lon) | ~np.isfinite(group.otf_lat)
    subscans = np.flatnonzero(bad.any(axis=0) & on)
    if not subscans.size:
        return []
    return [
        f"otf_lon or otf_lat is not finite in {subscans.size} ON subscans "
        f"(first: subscan {subscans[0]})."
    ]


def _check_references(group: SubscanGroup) -> None:
    present = set(group.sobsmode)
    found = ", ".join(sorted(present))
    on = sorted(present & ON_MODES)
    if not on:
        raise L0Error(f"there is no ON subscan, only {found}.")
    for mode in on:
        if present.intersection(_REFERENCE_OF[mode]):
            continue
        if mode == "WSW-ON" and group.chop_phase is not None and np.ptp(group.chop_phase) > 0:
            continue  # both phases lie in the dumps of one subscan
        wanted = " or ".join(_REFERENCE_OF[mode])
        other = sorted(present & OFF_MODES)
        raise L0Error(
            f"there is no OFF subscan for {mode}: found {found}, expected {wanted}"
            + (f" beside {', '.join(other)}." if other else "."),
        )


def _check_loads(group: SubscanGroup, t_hot_given: bool) -> list[str]:
    modes = np.array(group.sobsmode)
    if "HOT" not in group.sobsmode:
        raise L0Error(
            f"there is no HOT subscan in calibration/, only {', '.join(sorted(set(modes)))}."
        )
    assert group.thot is not None and group.tcold is not None  # noqa: PT018
    for name in ("load_temp_sig", "load_temp_img"):
        values = getattr(group, name)
        at = None if values is None else _first(values <= 0)
        if at is not None:
            raise L0Error(
                f"{name} of channel {at[0]} is {values[at]:g}, expected K.", subscan=at[1]
            )
    hot = np.where(modes == "HOT", group.thot, np.nan)
    cold = np.where(modes == "COLD", group.tcold, np.nan)
    at = _first(cold <= 0)
    if at is not None:
        raise L0Error(f"tcold is {cold[at]:g}, expected K above 0.", receiver=at[0], subscan=at[1])
    if t_hot_given:
        return []
    warnings = _check_hot(hot, cold)
    for r in range(hot.shape[0]):
        hottest, coldest = hot[r][np.isfinite(hot[r])], cold[r][np.isfinite(cold[r])]
        if hottest.size and coldest.size and hottest.min() <= coldest.max():
            raise L0Error(
                f"thot is {hottest.min():g} K, not above tcold, {coldest.max():g} K.",
                hint="Are the two loads swapped?",
                receiver=r,
                subscan=int(np.nanargmin(hot[r])),
            )
    return warnings


def _check_hot(hot: F64, cold: F64) -> list[str]:
    """hot, cold [R,S] K, NaN where unknown or another subscan."""
    lo, hi = T_HOT_POSSIBLE_K
    at = _first((hot < lo) | (hot > hi))
    if at is not None:
        unit = "; it looks like deg C, add 273.15" if -60 <= hot[at] < lo else ""
        likely = (cold[at[0]] >= T_HOT_LIKELY_K[0]) & (cold[at[0]] <= T_HOT_LIKELY_K[1])
        if likely.any():
            unit = f", and tcold is {cold[at[0]][likely][0]:g} K"
        raise L0Error(
            f"thot is {hot[at]:g} K, expected {T_HOT_LIKELY_K[0]:g}..{T_HOT_LIKELY_K[1]:g} K"
            f"{unit}.",
            hint="Are the two loads swapped?"
            if likely.any()
            else "Correct it in the raw store, or use --t-hot.",
            receiver=at[0],
            subscan=at[1],
        )
    lo, hi = T_HOT_LIKELY_K
    doubtful = hot[(hot < lo) | (hot > hi)]
    if not doubtful.size:
        return []
    worst = doubtful[np.argmax(np.abs(doubtful - 295.0))]
    return [
        f"load temperature {worst:.1f} K cannot be right, expected {lo:g}..{hi:g} K; use --t-hot."
    ]


def gain_image(value: Any, shape: tuple[int, ...]) -> F64 | None:
    """Attribute gain_image as array: scalar, [R,A] or [C,R,A]; None when not given.

    shape: (C, D, R, A, S). Raises L0Error when misshapen, negative or not finite.
    """
    if value is None:
        return None
    c, _, r, a, _ = shape
    try:
        gain = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise L0Error(
            "attribute gain_image is not a number or a regular list of numbers.",
            hint=f"Give a scalar, [R,A] = ({r}, {a}) or [C,R,A] = ({c}, {r}, {a}).",
        ) from None
    if gain.shape not in ((), (r, a), (c, r, a)):
        raise L0Error(
            f"attribute gain_image has shape {gain.shape}, expected a scalar, ({r}, {a}) = [R,A] "
            f"or ({c}, {r}, {a}) = [C,R,A]."
        )
    bad = ~np.isfinite(gain) | (gain < 0)
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        raise L0Error(
            f"attribute gain_image is {gain[at]:g}, expected a finite ratio of at least 0.",
            receiver=at[-2] if at else None,
            pixel=at[-1] if at else None,
        )
    return gain


def check_complete(attrs: ScanAttrs, n_subscans: int, *, partial: bool) -> None:
    """Raise L0Error when the scan is not whole, unless ``partial``."""
    if partial or attrs.complete:
        return
    planned = attrs.n_subscans_planned
    if planned is not None and n_subscans >= planned:
        return
    if planned is None and attrs.complete is None:
        return
    wanted = f"{planned} planned" if planned is not None else "attribute complete = true"
    raise L0Error(
        f"the scan is incomplete: {n_subscans} subscans are there, expected {wanted}.",
        hint="Use --partial to process it as far as it goes.",
    )


def check_same_layout(source: SubscanGroup, calibration: SubscanGroup) -> None:
    """Raise L0Error unless both groups have the same channels, receivers and pixels."""
    (c1, _, r1, a1, _), (c2, _, r2, a2, _) = source.shape, calibration.shape
    if (c1, r1, a1) != (c2, r2, a2):
        raise L0Error(
            f"source/ has (channels, receivers, pixels) = {(c1, r1, a1)}, calibration/ has "
            f"{(c2, r2, a2)}, expected the same."
        )


def number_mismatch(attrs: Mapping[str, Any], number: int) -> list[str]:
    """Warning when the attribute scan_number is not that of the group's name."""
    stated = attrs.get("scan_number")
    if stated is None or stated == number:
        return []
    return [f"attribute scan_number is {stated}, the group is scan {number}; the latter is used."]
