"""Choice of the procedure that a scan was taken for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from gpucal.errors import ConfigError
from gpucal.procedures.names import kind_of
from gpucal.steps.pairing import detect_mode

Procedure = Literal["pointing", "focus", "skydip", "on-off"]
PROCEDURES: tuple[Procedure, ...] = ("pointing", "focus", "skydip", "on-off")

_SERVED_BY: Mapping[str, Procedure] = {
    "pointing": "pointing",
    "focus": "focus",
    "skydip": "skydip",
    "on-off": "on-off",
    "frequency-switch": "on-off",
}
"""Kind of scan -> the procedure that serves it."""


def reduction_of(attrs: Mapping[str, Any], modes: Sequence[str] = ()) -> Procedure:
    """The procedure a scan was taken for: attribute ``obs_procedure``, else its observing mode.

    Raises ConfigError when neither says.
    """
    said = str(attrs.get("obs_procedure") or "")
    kind = kind_of(said)
    if kind is not None and kind in _SERVED_BY:
        return _SERVED_BY[kind]
    mode = detect_mode(modes) if modes else str(attrs.get("mode") or "")
    if not said and mode in ("tp", "nod", "fsw", "wsw"):
        return "on-off"
    raise ConfigError(
        f"the scan's obs_procedure is {said!r}, which no procedure serves.",
        hint=f"Use --procedure {' | '.join(PROCEDURES)}.",
    )


def known_procedure(procedure: str) -> Procedure:
    """The procedure of this name; raises ConfigError when there is none."""
    for name in PROCEDURES:
        if procedure == name:
            return name
    raise ConfigError(
        f"procedure is {procedure!r}, expected auto, {', '.join(PROCEDURES)}.",
        hint="See gpucal reduce --help.",
    )
