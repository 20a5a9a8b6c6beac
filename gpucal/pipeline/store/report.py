"""Report of a run: one summary per scan and band, failures, the exit code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from gpucal import errors
from gpucal.errors import GpucalError
from gpucal.notebook import html_of

NAN = float("nan")


@dataclass(frozen=True)
class ScanSummary:
    """One row of the final table (medians over the good channels and pixels).

    alarms: kind -> sentence, of numbers that cannot be right; ``warnings`` hold these sentences too.
    """

    scan: int
    band: str
    mode: str
    status: Literal["calibrated", "skipped", "failed"]
    pwv: float = NAN
    pwv_error: float = NAN
    t_rec: float = NAN
    t_sys: float = NAN
    rms_ratio: float = NAN
    flagged_fraction: float = NAN
    seconds: float = 0.0
    bytes_read: int = 0
    warnings: tuple[str, ...] = ()
    timing: Mapping[str, float] = field(default_factory=dict)
    error: str = ""
    alarms: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        place = f"scan {self.scan}" + (f" {self.band}" if self.band else "")
        if self.error:
            return f"<{place} {self.status}: {self.error}>"
        water = f"PWV {self.pwv:.4g} ± {self.pwv_error:.2g} mm, " if self.pwv == self.pwv else ""
        receiver = f"T_rec {self.t_rec:.4g} K, " if self.t_rec == self.t_rec else ""
        if self.t_sys != self.t_sys:
            return f"<{' '.join([place, *filter(None, [self.mode]), self.status])}>"
        return (
            f"<{place} {self.mode} {self.status}: {water}{receiver}T_sys {self.t_sys:.4g} K, "
            f"rms/expected {self.rms_ratio:.3g}>"
        )

    def row(self) -> tuple[str, ...]:
        """Cells of a table: scan, mode, PWV, T_rec, T_sys, rms/expected, status."""
        numbers = (self.pwv, self.t_rec, self.t_sys, self.rms_ratio)
        shown = ["" if n != n else f"{n:.4g}" for n in numbers]
        status = f"{self.status}: {self.error}" if self.error else self.status
        said = "; ".join([status, *self.warnings])
        return (f"{self.scan} {self.band}".strip(), self.mode, *shown, said)


@dataclass(frozen=True)
class Failure:
    """One entry of ``failures.json``."""

    scan: int
    stage: str
    error: str
    message: str
    hint: str

    @property
    def sentence(self) -> str:
        """The message of the error and its hint, as text."""
        return f"{self.message} {self.hint}".rstrip()

    def is_a(self, kind: type[GpucalError]) -> bool:
        """Whether the error is a ``kind`` or derived from it; ``error`` holds the name of its class, as in the file."""
        found = getattr(errors, self.error, None)
        return isinstance(found, type) and issubclass(found, kind)

    def as_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)


@dataclass(frozen=True)
class StoreReport:
    """Result of ``calibrate_store``: exit code 0 all, 1 none, 2 some failed, 130 interrupted.

    strict: an alarm makes it 2 as well; atmosphere: in words what the opacities came from.
    """

    summaries: tuple[ScanSummary, ...]
    failures: tuple[Failure, ...]
    interrupted: bool = False
    strict: bool = False
    atmosphere: str = ""

    def __repr__(self) -> str:
        states = [s.status for s in self.summaries]
        counts = ", ".join(f"{states.count(s)} {s}" for s in ("calibrated", "skipped", "failed"))
        end = ", interrupted" if self.interrupted else ""
        lines = [f"<StoreReport: {counts}{end}; exit code {self.exit_code}>"]
        shown = self.summaries if len(self.summaries) <= 20 else self.summaries[:20]
        lines += [f"  {summary!r}" for summary in shown]
        left = len(self.summaries) - len(shown)
        return "\n".join([*lines, *([f"  and {left} more"] if left else [])])

    def _repr_html_(self) -> str:
        columns = ("scan", "mode", "PWV [mm]", "T_rec [K]", "T_sys [K]", "rms/expected", "status")
        rows = [summary.row() for summary in self.summaries]
        end = ", interrupted" if self.interrupted else ""
        return html_of(f"calibration{end}, exit code {self.exit_code}", columns, rows)

    @property
    def exit_code(self) -> int:
        if self.interrupted:
            return 130
        if not self.failures:
            return 2 if self.strict and any(s.alarms for s in self.summaries) else 0
        return 2 if any(s.status != "failed" for s in self.summaries) else 1


class Observer(Protocol):
    """Receives progress; called from several threads."""

    def night_started(self, scans: Sequence[int], total_bytes: int) -> None: ...

    def scan_started(self, scan: int, band: str, total_bytes: int) -> None: ...

    def tile_done(self, scan: int, band: str, nbytes: int) -> None: ...

    def scan_finished(self, summary: ScanSummary) -> None: ...

    def message(self, level: Literal["info", "warning", "error"], text: str) -> None: ...


class SilentObserver:
    """An observer that says nothing."""

    def night_started(self, scans: Sequence[int], total_bytes: int) -> None:
        """Ignore."""

    def scan_started(self, scan: int, band: str, total_bytes: int) -> None:
        """Ignore."""

    def tile_done(self, scan: int, band: str, nbytes: int) -> None:
        """Ignore."""

    def scan_finished(self, summary: ScanSummary) -> None:
        """Ignore."""

    def message(self, level: Literal["info", "warning", "error"], text: str) -> None:
        """Ignore."""
