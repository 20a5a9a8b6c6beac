"""Check an L0 group against its rules, and the groups and attributes of a scan against each other.

Shapes use C channels, D dumps, R receivers, A array pixels, S subscans.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from gpucal.errors import L0Error
from gpucal.io.l0 import rules
from gpucal.io.l0.rules import Index, Rule
from gpucal.io.l0.schema import ScanAttrs
from gpucal.scan import F64, SubscanGroup

LONGEST_GAP_S = 3600.0
"""Subscans further apart are hardly of one scan: its number was used again."""

_PLACES = {"R": "receiver", "A": "pixel", "S": "subscan"}
"""Axes that an error names beside its sentence."""


def check_group(
    group: SubscanGroup, *, calibration: bool, t_hot_given: bool = False, growing: bool = False
) -> list[str]:
    """Raise L0Error for the first impossible value; return warnings about doubtful ones.

    growing: what is missing, loads or references, may still come. t_hot_given: the recorded
    temperature of the hot load may be anything.
    """
    _hold(group, rules.TIMES, rules.ANGLES, rules.ABOVE_THE_HORIZON, rules.FREQUENCIES)
    _hold(group, rules.OFFSETS)
    doubts = [rules.narrow_channels(group)]
    if not calibration:
        _hold(group, () if growing else rules.REFERENCES)
        doubts += [rules.unknown_positions(group), _apart(group, group.sobsmode)]
    elif "HOT" in group.sobsmode or not growing:
        _hold(group, rules.HOT_IS_THERE, rules.LOADS)
        if apart := _apart(group, ("HOT", "COLD")):
            raise L0Error(
                f"{apart[:-1]}, and their mean would be that of neither.",
                hint="Write them as two scans, with the loads of each.",
            )
        if not t_hot_given:
            _hold(group, rules.HOT_TEMPERATURE)
            doubts.append(rules.doubtful_hot_load(group))
    return [doubt for doubt in doubts if doubt]


def check_bolometer(group: SubscanGroup) -> list[str]:
    """As ``check_group`` for a bolometer scan: times, pointing and offsets.

    Positions outside the telescope's track are not known (NaN): a warning says how many. Raises
    L0Error for the first impossible value.
    """
    _hold(group, rules.TIMES, rules.ANGLES, rules.OFFSETS)
    doubt = rules.outside_the_track(group)
    return [doubt] if doubt else []


def _apart(group: SubscanGroup, modes: Iterable[str]) -> str:
    """A sentence, or "": subscans of these modes between which hours passed."""
    places = np.flatnonzero(np.isin(np.array(group.sobsmode), sorted(set(modes))))
    gaps = np.diff(group.mjd_mid[places]) * 86400.0
    if not gaps.size or not gaps.max() > LONGEST_GAP_S:
        return ""
    at = int(np.argmax(gaps))
    first, second = (f"{group.sobsmode[s]} (subscan {s})" for s in places[at : at + 2])
    return (
        f"{first} and {second} lie {gaps[at] / 3600:.1f} h apart: they look like two scans under one "
        "number."
    )


def violations(
    group: SubscanGroup,
    *,
    calibration: bool,
    growing: bool = False,
    leave_out: frozenset[str] = frozenset(),
) -> list[L0Error]:
    """What ``check_group`` would raise, all of it: an error for each rule that does not hold.

    leave_out: arrays that are not judged. Of an array other than mjd only the first broken rule counts:
    the others follow from it.
    """
    tables = [rules.TIMES, rules.ANGLES, rules.ABOVE_THE_HORIZON, rules.FREQUENCIES, rules.OFFSETS]
    if calibration:
        tables += [rules.HOT_IS_THERE, rules.LOADS, rules.HOT_TEMPERATURE]
    elif not growing:
        tables.append(rules.REFERENCES)
    found: dict[tuple[str, int], L0Error] = {}
    for rule, error in _broken(group, *tables):
        if rule.looks_at not in leave_out:
            found.setdefault((rule.looks_at, len(found) if rule.looks_at == "mjd" else 0), error)
    return list(found.values())


def _hold(group: SubscanGroup, *tables: Iterable[Rule]) -> None:
    """Raise L0Error for the first rule that does not hold, naming the first place."""
    for _, error in _broken(group, *tables):
        raise error


def _broken(group: SubscanGroup, *tables: Iterable[Rule]) -> Iterator[tuple[Rule, L0Error]]:
    """Each rule that does not hold, with an error that names the first place."""
    for rule in (rule for table in tables for rule in table):
        if getattr(group, rule.looks_at) is None:
            continue
        at = _first_false(rule.holds(group))
        if at is not None:
            named = zip(rule.axes, at, strict=True)
            place: Any = {_PLACES[axis]: index for axis, index in named if axis in _PLACES}
            yield rule, L0Error(rule.says(group, at), hint=rule.hint, **place)


def _first_false(holds: Any) -> Index | None:
    """Index of the first False, subscan by subscan (the last axis); () for a single value."""
    good = np.asarray(holds)
    if good.all():
        return None
    if not good.ndim:
        return ()
    index = np.argwhere(~np.moveaxis(good, -1, 0))[0]
    return (*(int(i) for i in index[1:]), int(index[0]))


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
