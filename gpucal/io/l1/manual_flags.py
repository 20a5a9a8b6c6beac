"""Flag samples of a calibrated store by hand, take it back, and list what was flagged."""

from __future__ import annotations

import contextlib
import errno
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpucal.errors import ConfigError, GpucalWarning, L1Error
from gpucal.io.files import atomic
from gpucal.io.l1.flag_array import extent_of, recorded, rules_locked, set_rules
from gpucal.io.l1.flag_rules import FlagRule, Numbers, read_channels, read_numbers, read_scans
from gpucal.io.l1.flags_kept import add_to_scan, bands_of, fitting_bands, signed
from gpucal.io.l1.reader import L1, open_l1


@dataclass(frozen=True)
class Flagged:
    """What a rule did: the rule as recorded, with the scans it is in, and the number of samples that it names."""

    rule: FlagRule
    samples: int


def flag(
    store: str | Path,
    *,
    scans: Numbers = None,
    band: str = "",
    receivers: Numbers = None,
    pixels: Numbers = None,
    subscans: Numbers = None,
    channels: Numbers = None,
    dumps: Numbers = None,
    reason: str,
) -> FlagRule:
    """Set the bit MANUAL of samples of a calibrated store; spectra stay as they are.

    What is not given means all. Numbers: "1,4-6", "100:120" (both ends included), 3 or [1, 4]; subscans count
    along the axis of L1. channels also as sky frequencies with their unit, "230.5:230.6GHz". band: "band_1".
    All that reads L1 leaves these samples out: exports, averages, pictures, ``reduce_scan``, ``to_xarray``.
    A scan that is calibrated again keeps its rules.

    Returns the rule as recorded; its ``id`` serves ``unflag``. Raises ConfigError for numbers that cannot be read,
    L1Error for a scan, band, pixel, channel ... that is not there (nothing is changed then) and when the store
    cannot be written.
    """
    rule = rule_of(
        scans=scans,
        band=band,
        receivers=receivers,
        pixels=pixels,
        subscans=subscans,
        channels=channels,
        dumps=dumps,
        reason=reason,
    )
    return add_rule(store, rule).rule


def rule_of(
    *,
    scans: Numbers = None,
    channels: Numbers = None,
    band: str = "",
    reason: str,
    **given: Numbers,
) -> FlagRule:
    """The rule of what a user gave, see ``flag``; raises ConfigError for numbers that cannot be read."""
    narrow, frequencies = read_channels(channels)
    plain = FlagRule(reason.strip(), read_scans(scans), band)
    ranges: dict[str, Any] = {name: read_numbers(name, value) for name, value in given.items()}
    return replace(plain, channels=narrow, frequencies=frequencies, **ranges)


def add_rule(store: str | Path, rule: FlagRule) -> Flagged:
    """Record a rule and set its flags; see ``flag``."""
    if not rule.reason.strip():
        raise ConfigError("a flag needs a reason.", hint="Give --reason TEXT.")
    if not rule.selects:
        raise ConfigError(
            "nothing is chosen: this would flag the whole store.",
            hint="Name at least one of scans, band, receivers, pixels, subscans, channels or dumps.",
        )
    opened = open_l1(store)
    with _changing(opened.path):
        bands = _fitting(opened, rule)
        numbers = [int(r.id) for r in flag_rules(store) if r.id.isdigit()]
        made = signed(rule, str(max(numbers, default=0) + 1))
        done: list[Path] = []
        samples = 0
        try:
            for band in bands.values():
                extent = extent_of(band)
                samples += rule.marks(extent).count
                rules = [*recorded(band / "flags"), made.placed(extent)]
                set_rules(opened.path.resolve(), band, rules)
                done.append(band)
        except BaseException:
            for band in done:  # all scans or none
                _without(opened.path, band, made.id)
            raise
    return Flagged(replace(made, scans=tuple(sorted({scan for scan, _ in bands}))), samples)


def unflag(store: str | Path, rule: str | int = "last") -> FlagRule:
    """Take back a rule of ``flag``, by its id; "last": the newest. The flags get back the bytes they had.

    Returns the rule. Raises L1Error when there is no such rule, or the store cannot be written.
    """
    opened = open_l1(store)
    with _changing(opened.path):
        rules = flag_rules(store)
        wanted = rules[-1].id if rules and str(rule) == "last" else str(rule)
        found = next((r for r in rules if r.id == wanted), None)
        if found is None:
            there = f"It has the rules {', '.join(r.id for r in rules)}." if rules else ""
            said = "no flag rule" if str(rule) == "last" else f"no flag rule {rule}"
            raise L1Error(
                f"{opened.path} has {said}.", hint=there or "Nothing was flagged by hand in it."
            )
        for number in found.scans:
            for band in bands_of(opened.scan(number).path).values():
                _without(opened.path, band, wanted)
    return found


def flag_rules(store: str | Path) -> list[FlagRule]:
    """The rules of a calibrated store, oldest first; ``scans`` are those in which a rule is recorded."""
    opened = open_l1(store)
    found: dict[str, FlagRule] = {}
    scans: dict[str, set[int]] = {}
    for number in opened.scans():
        for band in bands_of(opened.scan(number).path).values():
            for rule in recorded(band / "flags"):
                found.setdefault(rule.id, rule)
                scans.setdefault(rule.id, set()).add(number)
    merged = [replace(rule, scans=tuple(sorted(scans[rule.id]))) for rule in found.values()]
    return sorted(merged, key=lambda rule: (rule.when, rule.id))


def apply_rules(
    store: str | Path, rules: Sequence[FlagRule], numbers: Sequence[int] | None = None
) -> list[str]:
    """Give scans that are there the rules of a file that they do not have yet; all scans by default.

    Returns what does not fit, in words. Raises L1Error for a rule that names a scan and does not fit it.
    """
    opened = open_l1(store)
    notes = []
    with _changing(opened.path):
        for number in opened.scans() if numbers is None else numbers:
            bands = bands_of(opened.scan(number).path)
            old = {name: recorded(path / "flags") for name, path in bands.items()}
            notes += add_to_scan(opened.path.resolve(), number, bands, rules, old)
    return notes


@contextlib.contextmanager
def _changing(store: Path) -> Iterator[None]:
    """The store locked for a change of rules; an OSError becomes a sentence."""
    path = store.resolve()
    try:
        with rules_locked(path):
            yield
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise L1Error(
                f"{store} cannot be written: {error.strerror}.",
                hint="Flags are kept in the store: make it writable, and the folder that holds "
                "it, or flag a copy.",
            ) from error
        with atomic.as_write_error(store):
            raise


def _without(store: Path, band: Path, rule_id: str) -> None:
    """Take one rule out of a band, if it is there."""
    rules = recorded(band / "flags")
    left = [rule for rule in rules if rule.id != rule_id]
    if len(left) < len(rules):
        set_rules(store.resolve(), band, left)


def _fitting(store: L1, rule: FlagRule) -> dict[tuple[int, str], Path]:
    """The bands in which a rule flags something, by scan and name; raises L1Error where it does not fit.

    Without scan numbers, a scan that it does not fit is passed over with a warning, unless it fits none.
    """
    chosen: dict[tuple[int, str], Path] = {}
    wrong: list[L1Error] = []
    for number in rule.scans or store.scans():
        bands = bands_of(store.scan(number).path)
        if not bands:
            raise L1Error("it has no flags array.", scan=number)
        extents = {name: extent_of(path) for name, path in bands.items()}
        fitting, error = fitting_bands(rule, number, extents)
        if error is not None and rule.scans:
            raise error
        wrong += [error] if error is not None else []
        chosen |= {(number, name): bands[name] for name in fitting}
    if not chosen:
        raise wrong[0] if wrong else L1Error(f"{store.path} holds no scan.")
    for error in wrong:
        warnings.warn(f"passed over: {error}", GpucalWarning, stacklevel=4)
    return chosen
