"""What a reader had to assume: collected while it plans, kept in the store, settable by a profile."""

from __future__ import annotations

from typing import Any

from gpucal.io.incoming.profile import Profile

ATTRIBUTE = "assumptions"
"""Attribute of an L0 scan: a list of {"what", "value", "why", "from": "default" or "profile"}."""


class Assumptions:
    """The assumptions of one scan; each thing is entered once."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._entries: dict[str, dict[str, Any]] = {}

    def take(self, key: str, default: Any, why: str, *, receiver: str = "") -> Any:
        """What the profile sets for ``key``, else ``default``; either is noted with ``why``.

        why: a few words on why the files do not decide it: "the file has no forward efficiency".
        """
        given = self._profile.get(key, receiver)
        value = default if given is None else given
        what = f"{key} of {receiver}" if receiver else key
        self._enter(what, value, why, "default" if given is None else "profile")
        return value

    def set_or_noted(self, key: str, otherwise: str, why: str, *, receiver: str = "") -> Any:
        """What the profile sets for ``key``; None, with ``otherwise`` noted, where it sets nothing."""
        given = self._profile.get(key, receiver)
        value, origin = (otherwise, "default") if given is None else (given, "profile")
        self._enter(f"{key} of {receiver}" if receiver else key, value, why, origin)
        return given

    def note(self, what: str, value: Any, why: str) -> None:
        """Note what was taken for true although no key can change it."""
        self._enter(what, value, why, "default")

    def _enter(self, what: str, value: Any, why: str, origin: str) -> None:
        self._entries[what] = {"what": what, "value": value, "why": why, "from": origin}

    def attribute(self) -> list[dict[str, Any]]:
        """The value of the attribute ``assumptions``, in the order in which they were made."""
        return list(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)
