"""Weather, pointing, frequency axis, offsets and loads of a group: each record against the others of its scan.

A record that is no member of its series is left out where the others tell what is right, with a warning that
names it; the scan is refused where they do not. Shapes use C channels, D dumps, R receivers, A array
pixels, S subscans.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from gpucal.errors import L0Error
from gpucal.io.l0.plausible.axis import FAR_OFF, check_axis, check_throws
from gpucal.io.l0.plausible.chop import check_chop
from gpucal.io.l0.plausible.outliers import SIGMAS, jumps, outliers, smooth, two_differ
from gpucal.io.l0.plausible.times import check_times
from gpucal.scan import F64, SubscanGroup

LOADS = ("HOT", "COLD", "ZERO")
WEATHER = {"tamb": (150.0, 350.0, 3.0, "K"), "pamb": (0.5, 900.0, 15.0, "Torr")}
"""Array -> lowest and highest possible value, a change within a scan that still may be, unit."""

SKY_TURN = 2 * np.pi
"""No elevation changes faster with the sky, rad/day."""

MOST_OFFSET_DEG = 10.0
COLDEST_LOAD, HOTTEST_LOAD, LOADS_DIFFER = 2.0, 400.0, 10.0
"""K: what may be a load, and the difference of two records of one load of which one must be wrong."""

SHOWN = 3
"""Records of one kind that are named; of more only the number is told."""


def judged(
    group: SubscanGroup,
    *,
    calibration: bool,
    has_image: bool = True,
    t_hot_given: bool = False,
    tips: bool = False,
) -> tuple[SubscanGroup, list[str]]:
    """The group without the records that cannot be, and a warning about each.

    has_image: the receiver has an image sideband, so image_freq counts. t_hot_given: the recorded
    temperature of the hot load is not used. tips: subscans differ in elevation by intention. Raises
    L0Error, naming subscan and receiver, where the records of a scan contradict each other and none
    is known to be right.
    """
    notes = check_times(group)
    changes: dict[str, F64] = {}
    for name in WEATHER:
        _weather(group, name, changes, notes)
    _elevation(group, changes, notes, tips=calibration or tips)
    _positions(group, notes)
    check_axis(group, notes, has_image=has_image)
    check_throws(group)
    check_chop(group, notes)
    if calibration:
        _load_spectra(group)
        for name, mode in (("thot", "HOT"), ("tcold", "COLD")):
            if not (name == "thot" and t_hot_given):
                _loads(group, name, mode, changes, notes)
    for values in changes.values():
        values.setflags(write=False)
    fields: dict[str, Any] = dict(changes)
    return (replace(group, **fields) if fields else group), notes


def judged_times(group: SubscanGroup) -> list[str]:
    """As ``judged`` for a bolometer scan, of which only times and exposures are judged."""
    return check_times(group)


def _weather(group: SubscanGroup, name: str, changes: dict[str, F64], notes: list[str]) -> None:
    """Leave out values [S] that cannot be; 0, and what no unit makes possible (-999), mean not recorded.

    Where all are wrong they are left as they are: the calibration refuses such a tamb unless an option replaces it,
    and no temperature depends on pamb.
    """
    low, high, change, unit = WEATHER[name]
    stored = getattr(group, name)
    unknown = np.isnan(stored) | (stored == 0) | (stored < (-273.15 if unit == "K" else 0.0))
    wrong = ~unknown & ~((stored >= low) & (stored <= high))
    if not (~unknown & ~wrong).any():
        if wrong.any() and unit != "K":
            s = int(np.argmax(wrong))
            notes.append(
                f"{name} of subscan {s} is {stored[s]:g}, expected {low:g}..{high:g} {unit}: it is no "
                "such pressure."
            )
        return
    rest = np.where(wrong | unknown, np.nan, stored)
    if two_differ(rest, 3 * change) and unit == "K":
        first, second = np.flatnonzero(np.isfinite(rest))
        raise L0Error(
            f"{name} is {rest[first]:g} {unit} in subscan {first} and {rest[second]:g} {unit} in subscan "
            f"{second}: which is right is not known.",
            hint="Correct it in the raw store.",
        )
    wrong |= outliers(rest, change)
    if wrong.any():
        middle = float(np.nanmedian(np.where(wrong, np.nan, rest)))
        odd = np.flatnonzero(wrong)
        notes += [
            f"{name} of subscan {s} ({group.sobsmode[s]}) is {stored[s]:g} {unit}, that of the "
            f"others {middle:g} {unit}: it is left out."
            for s in odd[:SHOWN]
        ]
        if odd.size > SHOWN:
            notes.append(f"{name} of {odd.size - SHOWN} more subscans is left out.")
        changes[name] = np.where(wrong, np.nan, stored)


def _elevation(
    group: SubscanGroup, changes: dict[str, F64], notes: list[str], *, tips: bool
) -> None:
    """Replace single dumps that jump by the median about them; refuse subscans that point elsewhere."""
    on_sky = [s for s, mode in enumerate(group.sobsmode) if mode not in LOADS]
    step = _usual_step(group, group.elevation, on_sky)
    values = np.array(group.elevation)
    for s in on_sky:
        column = group.recorded_of(values, s)
        if column.size == 2 and abs(column[1] - column[0]) > max(0.1, 15 * step):
            raise L0Error(
                f"elevation is {column[0]:g} rad in dump 0 and {column[1]:g} rad in dump 1: which is "
                "right is not known.",
                subscan=s,
            )
        if column.size < 3:
            continue
        odd = np.flatnonzero(jumps(column, 0.02, step))
        if odd.size:
            notes.append(
                f"elevation of dump {odd[0]} of subscan {s} ({group.sobsmode[s]}) is "
                f"{column[odd[0]]:g} rad, about it {smooth(column)[odd[0]]:g} rad: "
                f"{odd.size} such dumps are taken from their neighbours."
            )
            good = np.setdiff1d(np.arange(column.size), odd)
            values[odd, s] = np.interp(odd, good, column[good])
            changes["elevation"] = values
    if not tips:
        _subscans_elsewhere(group, values, on_sky, notes)


def _subscans_elsewhere(
    group: SubscanGroup, elevation: F64, subscans: list[int], notes: list[str]
) -> None:
    """Refuse a subscan whose elevation neither the sky's turn nor its offset explains; warn of a smaller step."""
    means = np.array([np.mean(group.recorded_of(elevation, s)) for s in subscans])
    if means.size < 2:
        return
    lon, lat, days = (
        np.array([np.mean(group.recorded_of(x, s)) for s in subscans])
        for x in (group.otf_lon, group.otf_lat, group.mjd)
    )
    middle = int(np.argsort(means, kind="stable")[(means.size - 1) // 2])
    offset = np.radians(np.hypot(lon - lon[middle], lat - lat[middle]))
    allowed = SKY_TURN * np.abs(days - days[middle]) + np.nan_to_num(offset)
    apart = np.abs(means - means[middle])
    spread = SIGMAS * 1.4826 * float(np.median(apart)) if means.size > 2 else 0.0
    beyond = apart - allowed
    odd = np.flatnonzero(beyond > max(FAR_OFF, spread))
    if odd.size:
        at = int(odd[0])
        others = np.median(np.delete(means, at))
        raise L0Error(
            f"elevation of {group.sobsmode[subscans[at]]} is {means[at]:.4g} rad, that of the other subscans "
            f"{others:.4g} rad.",
            hint="Correct it in the raw store: the airmass follows it.",
            subscan=subscans[at],
        )
    modes = np.array([group.sobsmode[s] for s in subscans])
    for mode in dict.fromkeys(modes):
        places = np.flatnonzero(modes == mode)
        odd = places[outliers(means[places], 0.05) & (beyond[places] > 0.05)]
        if odd.size:
            notes.append(
                f"elevation of subscan {subscans[odd[0]]} ({mode}) is {means[odd[0]]:.4g} rad, that of the "
                f"others {np.median(means[places]):.4g} rad: its airmass follows it."
            )


def _usual_step(group: SubscanGroup, values: F64, subscans: list[int]) -> float:
    """Median change from dump to dump of all subscans."""
    steps = [np.abs(np.diff(group.recorded_of(values, s))) for s in subscans]
    every = np.concatenate(steps) if steps else np.zeros(0)
    every = every[np.isfinite(every)]
    return float(np.median(every)) if every.size else 0.0


def _positions(group: SubscanGroup, notes: list[str]) -> None:
    """Offsets of dumps and pixels: refuse what cannot be degrees, warn of jumps; no temperature depends on them."""
    limits = {"otf_lon": 360.0, "otf_lat": 90.0}
    limits |= {"pixel_offset_lon": MOST_OFFSET_DEG, "pixel_offset_lat": MOST_OFFSET_DEG}
    for name, limit in limits.items():
        values = getattr(group, name)
        wrong = np.abs(values) > limit
        if wrong.any():
            at = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise L0Error(
                f"{name} is {values[at]:g} deg, expected at most {limit:g} deg; it looks like arcsec, divide by 3600.",
                subscan=at[-1],
                receiver=at[0] if len(at) == 3 else None,
                pixel=at[1] if len(at) == 3 else None,
            )
    on_sky = [s for s, mode in enumerate(group.sobsmode) if mode not in LOADS]
    for name, floor in (("azimuth", 0.1), ("otf_lon", 0.05), ("otf_lat", 0.05)):
        values = getattr(group, name)
        turned = np.unwrap(values, axis=0) if name == "azimuth" else values
        step = _usual_step(group, turned, on_sky)
        for s in on_sky:
            column = group.recorded_of(turned, s)
            if column.size < 3 or not np.isfinite(column).all():
                continue
            odd = np.flatnonzero(jumps(column, floor, step))
            if odd.size:
                notes.append(
                    f"{name} of dump {odd[0]} of subscan {s} ({group.sobsmode[s]}) jumps to "
                    f"{column[odd[0]]:g}, about it {smooth(column)[odd[0]]:g}: its position is doubtful."
                )
                break
    for name in ("pixel_offset_lon", "pixel_offset_lat"):
        _pixel_jumps(group, name, notes)


def _pixel_jumps(group: SubscanGroup, name: str, notes: list[str]) -> None:
    """A warning about a pixel [R,A] whose offset in one subscan lies outside the whole array."""
    values = getattr(group, name)
    usual = np.median(values, axis=2)
    extent = float(np.abs(usual - np.median(usual)).max())
    apart = np.abs(values - usual[:, :, None])
    usually = float(np.median(apart))
    far = apart > max(4 * extent + 1e-3, 15 * usually)
    lone = np.abs(usual - np.median(usual)) > 20 * np.median(np.abs(usual - np.median(usual))) + 1.0
    far |= lone[:, :, None] & (usual.size >= 5)
    if far.any():
        r, a, s = (int(i) for i in np.argwhere(far)[0])
        notes.append(
            f"{name} of receiver {r}, pixel {a} is {values[r, a, s]:g} deg in subscan {s}, outside the array: "
            "its position is doubtful."
        )


def _loads(
    group: SubscanGroup, name: str, mode: str, changes: dict[str, F64], notes: list[str]
) -> None:
    """Temperatures [R,S] of one load: one that stands out among three or more is replaced by their median."""
    places = np.array(group.select(mode), dtype=np.intp)
    stored = getattr(group, name)
    if stored is None or not places.size:
        return
    _beside_the_load(group, name, mode, notes)
    if places.size < 2:
        return
    values = np.array(stored)
    for rec in range(values.shape[0]):
        column = values[rec, places]
        if two_differ(column, LOADS_DIFFER):
            raise L0Error(
                f"{name} is {column[0]:g} K in subscan {places[0]} and {column[-1]:g} K in subscan "
                f"{places[-1]}: which is right is not known.",
                hint=f"Correct it in the raw store, or use --t-{mode.lower()}.",
                receiver=rec,
            )
        for s in places[outliers(column, 3.0)]:
            middle = float(np.nanmedian(column))
            notes.append(
                f"{name} of subscan {s} ({mode}), receiver {rec} is {values[rec, s]:g} K, that of the others "
                f"{middle:g} K, which is used."
            )
            values[rec, s] = middle
            changes[name] = values


def _beside_the_load(group: SubscanGroup, name: str, mode: str, notes: list[str]) -> None:
    """A warning where the temperature [R,S] of a load is another in subscans of other loads, where it is not used."""
    values = getattr(group, name)
    own = np.array([m == mode for m in group.sobsmode])
    if not (own & np.isfinite(values)).any(axis=1).all():
        return
    used = np.nanmedian(np.where(own, values, np.nan), axis=1)
    apart = np.abs(values - used[:, None])
    odd = ~own & (values >= COLDEST_LOAD) & (values <= HOTTEST_LOAD) & (apart > LOADS_DIFFER)
    if odd.any():
        rec, s = (int(i) for i in np.argwhere(odd)[0])
        notes.append(
            f"{name} of receiver {rec} is {used[rec]:g} K in {mode} and {values[rec, s]:g} K in subscan {s} "
            f"({group.sobsmode[s]}): the former is used; give the true one with --t-{mode.lower()}."
        )


def _load_spectra(group: SubscanGroup) -> None:
    """Refuse load temperatures per channel [C,S] with a channel that stands out."""
    for name in ("load_temp_sig", "load_temp_img"):
        values = getattr(group, name)
        if values is None:
            continue
        for s in range(values.shape[1]):
            column = values[:, s]
            known = column[np.isfinite(column)]
            if known.size < 3:
                continue
            middle = float(np.median(known))
            odd = np.abs(column - middle) > max(10.0, 0.3 * middle)
            if odd.any():
                c = int(np.argmax(odd))
                raise L0Error(
                    f"{name} of channel {c} is {column[c]:g} K, that of the others about {middle:g} K.",
                    subscan=s,
                )
