"""Rules of flags in a TOML file: one table ``[[flag]]`` per rule."""

from __future__ import annotations

import difflib
import hashlib
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpucal.errors import ConfigError
from gpucal.io.l1.flag_rules import FlagRule, read_channels, read_numbers, read_scans

_RANGES = ("receivers", "pixels", "subscans", "dumps")
KEYS = ("scans", "band", *_RANGES, "channels", "reason")
"""Keys of a rule; ``reason`` is required, a key that is left out means all."""

_EXAMPLE = 'A rule is [[flag]] with, for example, scans = "1,5-9", pixels = 3, reason = "spur".'


def load_rules(path: str | Path) -> list[FlagRule]:
    """The rules of a TOML file; an id is made from what a rule says, so that it is known again.

    Raises ConfigError, naming the rule, for a file that cannot be read, an unknown key or a wrong value.
    """
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"flag rules {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"flag rules {path} are not valid TOML: {error}.", hint=_EXAMPLE
        ) from error
    for key in document:
        if key != "flag":
            raise ConfigError(f"flag rules {path} hold the unknown key {key!r}.", hint=_EXAMPLE)
    entries = document.get("flag")
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        raise ConfigError(f"flag rules {path} hold no table [[flag]].", hint=_EXAMPLE)
    return [_read_rule(entry, f"{path}, rule {n}") for n, entry in enumerate(entries, 1)]


def check_scans(rules: Sequence[FlagRule], there: Collection[int], where: str | Path) -> None:
    """Raise ConfigError when a rule names a scan that is not in the store."""
    for n, rule in enumerate(rules, 1):
        missing = sorted(set(rule.scans) - set(there))
        if missing:
            raise ConfigError(
                f"flag rules {where}, rule {n} ({rule.reason}): there is no scan {missing[0]}.",
                hint="Correct scans in the rule.",
            )


def _read_rule(entry: Mapping[str, Any], where: str) -> FlagRule:
    """One table as a rule."""
    for key in entry:
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, 1)
            hint = f"Did you mean {near[0]}?" if near else f"A rule has {', '.join(KEYS)}."
            raise ConfigError(f"flag rules {where}: there is no key {key!r}.", hint=hint)
    for key in ("reason", "band"):
        if not isinstance(entry.get(key, ""), str):
            raise ConfigError(f"flag rules {where}: {key} is {entry[key]!r}, expected a text.")
    if not entry.get("reason", "").strip():
        raise ConfigError(f"flag rules {where}: the reason is missing.", hint=_EXAMPLE)
    for key in ("scans", *_RANGES, "channels"):
        _check_numbers(entry, key, where)
    try:
        channels, frequencies = read_channels(entry.get("channels"))
        scans = read_scans(entry.get("scans"))
        ranges: dict[str, Any] = {key: read_numbers(key, entry.get(key)) for key in _RANGES}
    except ConfigError as error:
        raise ConfigError(f"flag rules {where}: {error.message}", hint=error.hint) from None
    plain = FlagRule(entry["reason"].strip(), scans, entry.get("band", ""))
    rule = replace(plain, channels=channels, frequencies=frequencies, **ranges)
    if not rule.selects:
        raise ConfigError(
            f"flag rules {where}: nothing is chosen, this would flag every sample.",
            hint="Name scans, band, receivers, pixels, subscans, channels or dumps.",
        )
    return replace(rule, id="f" + hashlib.sha256(rule.digest().encode()).hexdigest()[:6])


def _check_numbers(entry: Mapping[str, Any], key: str, where: str) -> None:
    """Refuse values that are no number, list of numbers or text."""
    value = entry.get(key, "")
    values = value if isinstance(value, list) else [value]
    plain = all(isinstance(v, int) and not isinstance(v, bool) for v in values)
    if not isinstance(value, str) and not (plain and values):
        raise ConfigError(
            f"flag rules {where}: {key} is {value!r}, expected a number, a list of numbers, or a "
            'text such as "1,4-6".'
        )
    if value == "" and key in entry:
        raise ConfigError(f"flag rules {where}: {key} is empty.", hint="Leave it out to mean all.")
