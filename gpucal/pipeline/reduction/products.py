"""Options and result of a reduction."""

from __future__ import annotations

from dataclasses import dataclass, field

from gpucal.pipeline.reduction.procedure_choice import Procedure
from gpucal.procedures.pointing import PointingOptions
from gpucal.procedures.results import (
    FocusResult,
    PointingResult,
    SkydipResult,
    SwitchedResult,
)
from gpucal.procedures.skydip import SkydipOptions
from gpucal.procedures.switching import LineWindow

Result = PointingResult | FocusResult | SkydipResult | dict[str, SwitchedResult]
"""Of the procedure; on-off: one per band."""


@dataclass(frozen=True)
class ReduceOptions:
    """Options of the procedures. focus_snr: least significance of the curvature; window: where a line is."""

    pointing: PointingOptions = field(default_factory=PointingOptions)
    skydip: SkydipOptions = field(default_factory=SkydipOptions)
    window: LineWindow | None = None
    focus_snr: float = 3.0


@dataclass(frozen=True, eq=False)
class Reduced:
    """The result of one scan.

    result: of the procedure (on-off: one per band); scale: "T_A*", "T" or "counts"; mjd, azimuth, elevation
    (rad): middle of the scan; warnings: what could not be done as it should; atmosphere: in words what the
    opacities came from, "" where none were needed
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
    atmosphere: str = ""

    @property
    def valid(self) -> bool:
        """Whether the result is valid (on-off: in at least one band)."""
        if isinstance(self.result, dict):
            return any(r.valid for r in self.result.values())
        return self.result.valid

    @property
    def reason(self) -> str:
        """Why the result is not valid, or what is missing in it."""
        if isinstance(self.result, dict):
            return "; ".join(r.reason for r in self.result.values() if r.reason)
        return self.result.reason
