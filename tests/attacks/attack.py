"""What an attack is, and how many are made: a fixed table, and as many seeded ones as are asked for."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from builders.broken.night import Night

REFUSED = "refused"
"""The scan alone fails with one sentence; exit code 2."""
BLANKED = "blanked"
"""What is wrong is NaN; the rest is as from good data."""
FLAGGED = "flagged"
"""What is wrong carries a flag; the rest is as from good data."""
WARNED = "warned"
"""Numbers differ, and a warning or an alarm names the scan."""
UNAFFECTED = "unaffected"
"""T_A*, T_sys, T_rec, PWV and frequencies are those of good data, to rounding."""
PLAUSIBLE = "plausible"
"""Numbers differ, and nobody could know: the attack says why."""
NOTHING_DONE = "nothing done"
"""The command refuses everything with one sentence; nothing is written."""
DONE = "done"
"""The command did what it was asked for."""

ANY = frozenset({REFUSED, BLANKED, FLAGGED, WARNED, UNAFFECTED, PLAUSIBLE})
REFUSED_ONLY = frozenset({REFUSED})
SAME = frozenset({UNAFFECTED})
ANY_OR_NOTHING = ANY | {NOTHING_DONE}

ROUNDING = 1e-5
FEWER_SAMPLES = 1e-3
"""Where some samples are rightly left out of the joint fit of the PWV."""
TRIED = int(os.environ.get("GPUCAL_ATTACKS", "0"))
"""How many attacks in all; 0: the table and a few seeded ones."""
SEED = int(os.environ.get("GPUCAL_ATTACKS_SEED", "20240229"))
SHARES = {"metadata": 0.3, "counts": 0.2, "files": 0.2, "formats": 0.3}
"""How the seeded attacks are shared among their families."""
FEW = {"metadata": 10, "counts": 8, "files": 10, "formats": 14}
"""Seeded attacks of each family in an ordinary run of the tests."""
TABLE_SIZE = 1140
"""About so many attacks are in the tables, and fixed tests."""


@dataclass(frozen=True)
class Attack:
    """One way to break a night, and what may come of it.

    harm       breaks the night; what it returns is of no interest
    may        outcomes that are right; all others are faults
    victims    scans that may be affected; the others must come out byte for byte as from good data
    options    of ``gpucal calibrate``
    cannot_be_seen  why nobody can know that the data are wrong; their results may then differ without a word
    within     of T_A* + T_sys, of T_sys, T_rec and PWV: what counts as unaffected
    rare       left out of an ordinary run of the tests, tried on demand
    always     tried in every run: it got through once
    """

    name: str
    harm: Callable[[Night], Any]
    may: frozenset[str] = ANY
    victims: tuple[int, ...] = (2,)
    options: tuple[str, ...] = ()
    cannot_be_seen: str = ""
    limits: dict[str, int] = field(default_factory=dict)
    within: float = ROUNDING
    rare: bool = False
    always: bool = False

    @property
    def scans(self) -> str:
        """The scans that are calibrated: the victims and neighbours before and after."""
        return ",".join(str(n) for n in sorted({1, *self.victims, 4}))

    @property
    def id(self) -> str:
        return self.name.replace(" ", "-")


def annotated(
    attacks: Iterable[Attack], cannot_be_seen: dict[str, str], got_through: Iterable[str]
) -> Iterator[Attack]:
    """The attacks; those named in ``cannot_be_seen`` say why, those that ``got_through`` once are always tried."""
    names, always = set(), set(got_through)
    for attack in attacks:
        names.add(attack.name)
        why = cannot_be_seen.get(attack.name, "")
        yield replace(attack, cannot_be_seen=why, always=attack.name in always)
    unknown = {*cannot_be_seen, *always} - names
    assert not unknown, f"no attack is called {sorted(unknown)}"


def thinned(attacks: Iterable[Attack], every: int) -> Iterator[Attack]:
    """Only one in ``every`` is tried in an ordinary run of the tests, beside the seeded and those with a remark."""
    for n, attack in enumerate(attacks):
        marked = bool(attack.cannot_be_seen) or attack.always
        kept = n % every == 0 or attack.name.startswith("seeded") or marked
        yield attack if kept else replace(attack, rare=True)


def params(attacks: Iterable[Any]) -> list[Any]:
    """Parameters of a test, one per attack (with ``id`` and ``rare``)."""
    chosen = [a for a in attacks if TRIED or not a.rare]
    # An ordinary run tries two of three that never got through.
    kept = [a for n, a in enumerate(chosen) if TRIED or n % 3 or getattr(a, "always", False)]
    found = [pytest.param(a, id=a.id) for a in kept]
    names = [str(param.id) for param in found]
    assert len(set(names)) == len(names), sorted(n for n in names if names.count(n) > 1)
    return found


def seeds(family: str) -> list[random.Random]:
    """One source of random numbers for each seeded attack of a family."""
    count = FEW[family]
    if TRIED:
        count = max(count, round((TRIED - TABLE_SIZE) * SHARES[family]))
    return [random.Random(f"{SEED} {family} {n}") for n in range(count)]
