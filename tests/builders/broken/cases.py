"""What one kind of broken input is: how to damage a night, and what a user must be told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from builders.broken.night import Night

FILL = np.iinfo(np.int32).min
Damage = Callable[[Night], Any]


def steps(*edits: Damage) -> Damage:
    """One damage after the other."""

    def damage(night: Night) -> None:
        for edit in edits:
            edit(night)

    return damage


def each(edit: Callable[[Night, int], object], *scans: int) -> Damage:
    """The same damage to several scans."""

    def damage(night: Night) -> None:
        for scan in scans:
            edit(night, scan)

    return damage


@dataclass(frozen=True)
class Case:
    """One kind of damage.

    damage   edits the night; may return options to add to the command line
    words    what the message must hold; the hint is checked to be there when ``hint``
    failed   scans that fail; the others must come out as from the undamaged night
    unasked  scans that the options leave out
    """

    name: str
    damage: Damage
    words: tuple[str, ...]
    error: str = "L0Error"
    stage: str = "read"
    night: str = "hera"
    options: tuple[str, ...] = ()
    failed: tuple[int, ...] = (2,)
    unasked: tuple[int, ...] = ()
    hint: str = ""


@dataclass(frozen=True)
class StoreCase:
    """Damage that leaves nothing to do: one sentence on stderr, ``code``, and no scan in OUT."""

    name: str
    damage: Damage
    words: tuple[str, ...]
    code: int = 1
    hint: str = ""


@dataclass(frozen=True)
class DoubtfulCase:
    """Damage that a scan survives: exit code 0 and a warning that names the scan.

    same: its result is even that of the undamaged night.
    """

    name: str
    damage: Damage
    words: tuple[str, ...]
    night: str = "hera"
    options: tuple[str, ...] = ()
    scans: tuple[int, ...] = (2,)
    same: bool = False

    @property
    def named(self) -> str:
        """How a line calls the scans: " 2" after "scan", "s 2-4" for several."""
        first, last = self.scans[0], self.scans[-1]
        return f" {first}" if first == last else f"s {first}-{last}"
