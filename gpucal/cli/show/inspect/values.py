"""Values of a raw scan that the reader accepts and that can hardly be right: most are in another unit.

Shapes use C channels, D dumps, R receivers, A array pixels, S subscans.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from gpucal.errors import GpucalError, L0Error
from gpucal.io.l0.schema import ARRAYS, TRACK_ARRAYS, ScanAttrs, is_bolometer
from gpucal.procedures.names import kind_of
from gpucal.scan import F64, Scan, SubscanGroup
from gpucal.steps.sky_model import T_AMB_POSSIBLE_K

DAY_S = 86400.0
SKY_OFFSET_DEG = 10.0
"""A map and its OFF lie within this distance of the source."""
PIXEL_OFFSET_DEG = 2.0
"""No array is larger."""
P_AMB_POSSIBLE_TORR = (50.0, 830.0)
MBAR_PER_TORR = 1.333224
_ARCSEC = "; it looks like arcsec, divide by 3600."
KNOWN_PROCEDURES = ("pointing", "focus", "skydip", "on-off")


def unlikely_values(scan: Scan) -> list[GpucalError]:
    """What cannot be right in a scan, each with its place; an array is judged once per group."""
    found: list[GpucalError] = []
    bolometer = is_bolometer(scan.attrs)
    for group in (scan.source, scan.calibration):
        if group is None:
            continue
        found += _weather(group)
        found += _pixel_offsets(group)
        if bolometer:
            continue
        if not positions_are_absolute(scan.attrs):
            found += _sky_offsets(group)
        found += _channel_widths(group)
        found += _exposures(group)
    if not bolometer:
        found += _widths_of_both(scan)
    return found


def doubts(scan: Scan) -> list[str]:
    """What may be right but is worth a look."""
    if is_bolometer(scan.attrs):
        return []
    group = scan.source or scan.calibration
    assert group is not None
    said = [*_reference_channel(group), *_few_channels(group), *_procedure(scan)]
    said += _pressure_for_altitude(group, scan)
    return said


def unknown_names(zgroup: Any, where: str) -> list[str]:
    """Arrays beside the known ones whose name is nearly one that is missing."""
    names = set(zgroup.array_keys())
    known = [*ARRAYS, *TRACK_ARRAYS, "sobsmode"]
    near = _nearly(names, [name for name in known if name not in names])
    return [f"array {name} in {where}/ is not read: did you mean {meant}?" for name, meant in near]


def unknown_attributes(scan: Scan) -> list[str]:
    """Attributes of a scan whose name is nearly one that is missing."""
    fields = [*ScanAttrs.model_fields, "obs_class", "focus_mm", "focus_axis", "nod_beams"]
    near = _nearly(set(scan.attrs), [name for name in fields if name not in scan.attrs])
    return [f"attribute {name} is not used: did you mean {meant}?" for name, meant in near]


def _nearly(names: set[str], missing: list[str]) -> Iterator[tuple[str, str]]:
    """(name, the missing one that it resembles); only names that are none of ours."""
    plain = {name.replace("_", ""): name for name in missing}
    ours = {*ARRAYS, *TRACK_ARRAYS, "sobsmode", *ScanAttrs.model_fields}
    for name in sorted(names - ours):
        text = name.lower().replace("_", "").replace("-", "").strip()
        found = difflib.get_close_matches(text, plain, n=1, cutoff=0.85)
        if found:
            yield name, plain[found[0]]


def _first(bad: Any) -> tuple[int, ...] | None:
    """Index of the first True, None without one."""
    where = np.argwhere(bad)
    return tuple(int(i) for i in where[0]) if where.size else None


def _weather(group: SubscanGroup) -> Iterator[GpucalError]:
    """Ambient temperature in deg C, pressure in mbar or Pa; 0 and values like -999 mean that none was recorded."""
    lo, hi = T_AMB_POSSIBLE_K
    known = (group.tamb > -273.15) & (group.tamb != 0)
    if at := _first(known & ((group.tamb < lo) | (group.tamb > hi))):
        value = float(group.tamb[at])
        unit = "; it looks like deg C, add 273.15" if -100 < value < 60 else ""
        yield L0Error(f"tamb is {value:g}, expected {lo:g}..{hi:g} K{unit}.", subscan=at[0])
    lo, hi = P_AMB_POSSIBLE_TORR
    if at := _first((group.pamb > 0) & ((group.pamb < lo) | (group.pamb > hi))):
        value = float(group.pamb[at])
        yield L0Error(
            f"pamb is {value:g}, expected {lo:g}..{hi:g} Torr{_pressure_unit(value)}.",
            subscan=at[0],
        )


def _pressure_unit(value: float) -> str:
    """The unit in which an impossible pressure seems to be given."""
    if 830 < value < 1100:
        return "; it looks like mbar (hPa), multiply by 0.750062"
    if 5e3 < value < 1.1e5:
        return "; it looks like Pa, multiply by 0.00750062"
    if 5 < value < 50:
        return "; it looks like kPa, multiply by 7.50062"
    return ""


def _pressure_for_altitude(group: SubscanGroup, scan: Scan) -> Iterator[str]:
    """A pressure that would be that of the site if it were in mbar."""
    altitude = (scan.store_attrs.get("site") or {}).get("alt_m")
    known = group.pamb[(group.pamb >= P_AMB_POSSIBLE_TORR[0]) & (group.pamb <= 830)]
    if not isinstance(altitude, int | float) or not -500 <= altitude < 2e4 or not known.size:
        return
    standard = 760.0 * (1.0 - 2.25577e-5 * altitude) ** 5.25588  # Torr, standard atmosphere
    found = float(np.median(known))
    if abs(found / standard / MBAR_PER_TORR - 1.0) < 0.08:
        yield (
            f"pamb is {found:.4g} Torr, expected about {standard:.3g} Torr at {altitude:g} m; "
            "it looks like mbar (hPa), multiply by 0.750062."
        )


def positions_are_absolute(attrs: Mapping[str, Any]) -> bool:
    """Whether otf_lon, otf_lat are coordinates on the sky: those of imported files are, and CTYPE2 names them."""
    metadata = attrs.get("scan_metadata")
    return isinstance(metadata, Mapping) and metadata.get("CTYPE2") is not None


def _sky_offsets(group: SubscanGroup) -> Iterator[GpucalError]:
    """Offsets of the dumps, deg [D,S]."""
    for name in ("otf_lon", "otf_lat"):
        if at := _largest(getattr(group, name), SKY_OFFSET_DEG):
            value = getattr(group, name)[at]
            text = f"{name} of dump {at[0]} is {value:g} deg, expected at most {SKY_OFFSET_DEG:g}"
            yield L0Error(f"{text} deg from the source{_ARCSEC}", subscan=at[1])


def _pixel_offsets(group: SubscanGroup) -> Iterator[GpucalError]:
    """Offsets of the pixels, deg [R,A,S]."""
    for name in ("pixel_offset_lon", "pixel_offset_lat"):
        if at := _largest(getattr(group, name), PIXEL_OFFSET_DEG):
            value = getattr(group, name)[at]
            text = f"{name} is {value:g} deg, expected at most {PIXEL_OFFSET_DEG:g} deg{_ARCSEC}"
            yield L0Error(text, receiver=at[0], pixel=at[1], subscan=at[2])


def _largest(values: F64, limit: float) -> tuple[int, ...] | None:
    """Index of the largest absolute value, None when it is within the limit."""
    size = np.where(np.isfinite(values), np.abs(values), 0.0)
    at = np.unravel_index(int(np.argmax(size)), size.shape)
    return tuple(int(i) for i in at) if size[at] > limit else None


def _channel_widths(group: SubscanGroup) -> Iterator[GpucalError]:
    """freq_res that changes its sign from subscan to subscan."""
    signs = np.sign(group.freq_res)
    if at := _first(signs != signs[:, :1]):
        r, s = at
        yield L0Error(
            f"freq_res is {group.freq_res[at]:g} Hz, in subscan 0 {group.freq_res[r, 0]:g} Hz, expected "
            "the same sign in all subscans.",
            hint="A negative width means that channels run from high to low frequency.",
            receiver=r,
            subscan=s,
        )


def _widths_of_both(scan: Scan) -> Iterator[GpucalError]:
    """freq_res of opposite sign in source/ and calibration/."""
    if scan.source is None or scan.calibration is None:
        return
    one, two = scan.source.freq_res[:, 0], scan.calibration.freq_res[:, 0]
    if one.shape != two.shape:
        return
    if at := _first(np.sign(one) != np.sign(two)):
        yield L0Error(
            f"freq_res is {one[at]:g} Hz in source/ and {two[at]:g} Hz in calibration/, expected the same "
            "sign.",
            hint="Is one of the two axes reversed?",
            receiver=at[0],
        )


def _exposures(group: SubscanGroup) -> Iterator[GpucalError]:
    """Dumps, or subscans, that last longer than the time until the next one: exptime is most likely in ms."""
    if group.mjd.shape[0] > 1:
        with np.errstate(invalid="ignore"):
            steps = np.diff(group.mjd, axis=0) * DAY_S
            longest = 0.5 * (group.exptime[1:] + group.exptime[:-1])
            bad = (steps > 0) & (longest > 10.0 * steps + 0.1)
        if at := _first(bad):
            d, s = at
            value, step = float(group.exptime[at]), float(steps[at])
            unit = "; it looks like ms, divide by 1000" if 300 < value / step < 3000 else ""
            yield L0Error(
                f"exptime of dump {d} is {value:g} s, but the next dump comes {step:.3g} s later{unit}.",
                subscan=s,
            )
            return
    # a subscan may hold much padding, which cannot be told from dumps here
    if group.mjd.shape[1] > 1:
        steps = np.diff(group.mjd_mid) * DAY_S
        length = np.sum(group.exptime, axis=0)
        if at := _first((steps > 0) & (np.minimum(length[1:], length[:-1]) > 100.0 * steps)):
            (s,) = at
            value, step = float(group.exptime[0, s]), float(steps[s])
            n, total = group.exptime.shape[0], float(length[s])
            unit = "; it looks like ms, divide by 1000" if 100 < total / step < 3000 else ""
            yield L0Error(
                f"{n} dump{'s' if n > 1 else ''} of exptime {value:g} s last {total:g} s, but the next "
                f"subscan comes {step:.3g} s later{unit}.",
                subscan=s,
            )


def _reference_channel(group: SubscanGroup) -> Iterator[str]:
    """A reference channel outside the band."""
    n = group.shape[0]
    if at := _first((group.ref_channel < -1) | (group.ref_channel > n)):
        yield (
            f"ref_channel is {group.ref_channel[at]:g}, outside of the {n} channels: are the axes of "
            "data_5d [C, D, R, A, S]?"
        )


def _few_channels(group: SubscanGroup) -> Iterator[str]:
    """More dumps than channels by far."""
    c, d = group.shape[:2]
    if d >= 128 and d >= 8 * c:
        yield f"there are {c} channels and {d} dumps: are the first two axes of data_5d swapped?"


def _procedure(scan: Scan) -> Iterator[str]:
    """A word in obs_procedure that is nearly a known one: the scan is then not reduced as such."""
    word = str(scan.attrs.get("obs_procedure") or "").lower()
    if word and word not in KNOWN_PROCEDURES and kind_of(word) is None:
        near = difflib.get_close_matches(word, KNOWN_PROCEDURES, n=1, cutoff=0.75)
        if near:
            yield f"obs_procedure is {word!r}: did you mean {near[0]}?"
