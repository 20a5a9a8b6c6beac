"""Which procedure a scan was taken for, what it may be told, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from gpucal.errors import ConfigError
from gpucal.procedures.names import kind_of
from gpucal.procedures.pointing import PointingOptions
from gpucal.procedures.results import (
    FocusResult,
    PointingResult,
    SkydipResult,
    SwitchedResult,
)
from gpucal.procedures.skydip import SkydipOptions
from gpucal.procedures.switching import LineWindow
from gpucal.steps.pairing import detect_mode

Procedure = Literal["pointing", "focus", "skydip", "on-off"]
Result = PointingResult | FocusResult | SkydipResult | dict[str, SwitchedResult]
PROCEDURES: tuple[Procedure, ...] = ("pointing", "focus", "skydip", "on-off")

_SERVED_BY: Mapping[str, Procedure] = {
    "pointing": "pointing",
    "focus": "focus",
    "skydip": "skydip",
    "on-off": "on-off",
    "frequency-switch": "on-off",
}


@dataclass(frozen=True)
class ReduceOptions:
    """What the procedures may be told. focus_snr: significance of the curvature; window: where a line is."""

    pointing: PointingOptions = field(default_factory=PointingOptions)
    skydip: SkydipOptions = field(default_factory=SkydipOptions)
    window: LineWindow | None = None
    focus_snr: float = 3.0


@dataclass(frozen=True, eq=False)
class Reduced:
    """The result of one scan.

    result: of the procedure (on-off: one per band); scale: "T_A*", "T" or "counts"; mjd, azimuth, elevation
    (rad): middle of the scan; warnings: what could not be done as it should
    """

    scan: int
    procedure: Procedure
    result: Result
    scale: str
    source: str = ""
    mjd: float = float("nan")
    azimuth: float = float("nan")
    elevation: float = float("nan")
    warnings: tuple[str, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether the procedure gave what it is for (on-off: in any band)."""
        if isinstance(self.result, dict):
            return any(r.valid for r in self.result.values())
        return self.result.valid

    @property
    def reason(self) -> str:
        """Why not, or what is missing."""
        if isinstance(self.result, dict):
            return "; ".join(r.reason for r in self.result.values() if r.reason)
        return self.result.reason


def procedure_of(attrs: Mapping[str, Any], modes: Sequence[str] = ()) -> Procedure:
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
