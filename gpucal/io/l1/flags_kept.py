"""Rules that outlast a calibration: those of the scan that is replaced, and those of a file of rules."""

from __future__ import annotations

import datetime
import getpass
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpucal.errors import L1Error
from gpucal.io.chunks.zarr_metadata import read_group
from gpucal.io.l1.flag_array import extent_of, recorded, set_rules
from gpucal.io.l1.flag_rules import Extent, FlagRule

WAITING = "manual_flags_waiting"
"""Attribute of a scan: the rules of bands that failed, by band, for when they are calibrated again."""


def signed(rule: FlagRule, number: str) -> FlagRule:
    """The rule with its id, the user's name and the time (UTC)."""
    try:
        who = getpass.getuser()
    except (KeyError, OSError):
        who = "unknown"
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
    return replace(rule, id=number, who=who, when=now.replace("+00:00", "Z"))


def fitting_bands(
    rule: FlagRule, number: int, extents: Mapping[str, Extent]
) -> tuple[list[str], L1Error | None]:
    """The bands of a scan in which a rule flags something, and what is wrong where it does not fit the scan.

    Frequencies without a band choose among the bands: one that fits is enough.
    """
    asked = [name for name in extents if rule.band in ("", name)]
    if not asked:
        there = ", ".join(name for name in extents if name) or "none"
        return [], L1Error(f"there is no {rule.band!r}.", hint=f"Its bands: {there}.", scan=number)
    wrong = {name: found for name in asked if (found := rule.misfits(extents[name]))}
    fitting = [name for name in asked if name not in wrong]
    if not wrong or (rule.frequencies and not rule.band and fitting):
        return fitting, None
    name, found = next(iter(wrong.items()))
    return [], L1Error(f"{'; '.join(found)}.", scan=number, band=name)


def add_to_scan(
    store: Path,
    number: int,
    bands: Mapping[str, Path],
    rules: Sequence[FlagRule],
    old: Mapping[str, Sequence[FlagRule]],
) -> list[str]:
    """Give the bands of a scan the rules ``old``, and those of ``rules`` for this scan that they lack.

    Returns what does not fit, in words: an old rule stays on record, a new one is left out. To be called with
    ``rules_locked``. Raises L1Error for a new rule that names this very scan and does not fit; nothing is
    changed then.
    """
    new = [rule for rule in rules if not rule.scans or number in rule.scans]
    if not new and not any(old.values()):
        return []
    extents = {name: extent_of(path) for name, path in bands.items()}
    notes = []
    result = {name: list(old.get(name, ())) for name in bands}
    for name, found in result.items():
        label = f"scan {number}" + (f" {name}" if name else "")
        notes += [
            f"{label}: {_named(rule)}: {'; '.join(wrong)}."
            for rule in found
            if (wrong := rule.misfits(extents[name]))
        ]
    for rule in new:
        fitting, error = fitting_bands(rule, number, extents)
        if error is not None:
            error.message = f"{_named(rule)}: {error.message}"
            if rule.scans:
                raise error
            notes.append(f"{error}")
        for name in fitting:
            if rule.id not in {r.id for r in result[name]}:
                result[name].append(signed(rule.placed(extents[name]), rule.id))
    for name, path in bands.items():
        if [r.id for r in result[name]] != [r.id for r in recorded(path / "flags")]:
            set_rules(store, path, result[name])
    return notes


def _named(rule: FlagRule) -> str:
    return f"flag rule {rule.id} ({rule.reason})"


def keep_rules(
    store: Path, number: int, old: Path, staged: Path, rules: Sequence[FlagRule]
) -> tuple[list[str], dict[str, Any]]:
    """Give a staged scan the rules of the scan ``old`` and those of ``rules``.

    Returns what does not fit, in words, and the attributes to add to the scan: rules of bands that it lacks.
    """
    bands = bands_of(staged)
    there = {**waiting_rules(old)}
    there |= {n: found for n, path in bands_of(old).items() if (found := recorded(path / "flags"))}
    notes = add_to_scan(store, number, bands, rules, there)
    left = {n: [r.record() for r in found] for n, found in there.items() if n not in bands}
    return notes, {WAITING: left} if left else {}


def waiting_rules(scan: Path) -> dict[str, list[FlagRule]]:
    """The rules of bands that a scan does not have because they failed, by band."""
    found: Mapping[str, Any] = (read_group(scan) or {}).get(WAITING) or {}
    return {band: [FlagRule.from_record(r) for r in records] for band, records in found.items()}


def bands_of(scan: Path) -> dict[str, Path]:
    """Folders of the bands of a scan that hold flags, by name: "" where the scan itself does."""
    if (scan / "flags").is_dir():
        return {"": scan}
    if not scan.is_dir():
        return {}
    return {e.name: e for e in sorted(scan.iterdir()) if (e / "flags").is_dir()}
