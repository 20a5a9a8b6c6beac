"""Memory budget of a scan: how much of it may be in memory at once, and the next smaller amount."""

from __future__ import annotations

from dataclasses import dataclass

from gpucal.backend.cpu import usable_cores
from gpucal.config import CalibrationConfig
from gpucal.pipeline.scan.work_units import Unit, UnitSize, largest_unit, plan_units
from gpucal.steps.solution import ScanSolution


@dataclass(frozen=True)
class MemoryBudget:
    """Workers of a scan, and the bytes that the units in flight may take together."""

    workers: int
    nbytes: int

    @classmethod
    def of_config(cls, config: CalibrationConfig) -> MemoryBudget:
        """The budget that the options ``workers`` (0: one per usable core) and ``ring`` (MiB in flight) allow."""
        return cls(config.workers or usable_cores(), config.ring << 20)

    def units(self, solution: ScanSolution) -> list[Unit]:
        """The units of this scan, each within the share of one worker where its outputs can be parted."""
        return plan_units(solution, self.nbytes // self.workers)

    def unit(self, solution: ScanSolution) -> UnitSize:
        """The largest unit of this scan."""
        return largest_unit(solution, self.units(solution))

    def in_flight(self, solution: ScanSolution) -> int:
        """Units of this scan that are in work at once."""
        return max(1, min(self.workers, self.nbytes // self.unit(solution).nbytes))

    def submitted(self, solution: ScanSolution) -> int:
        """Units on the pool at once: one more than workers, so that none waits for the next."""
        return max(1, min(self.workers + 1, self.nbytes // self.unit(solution).nbytes))

    def smaller(self, solution: ScanSolution) -> MemoryBudget | None:
        """The next smaller budget that keeps less of this scan in memory; None when there is none.

        First fewer units are in flight, down to one; then a unit holds fewer outputs.
        """
        n = self.in_flight(solution) // 2
        if n:
            return MemoryBudget(n, n * (self.nbytes // self.workers))
        nbytes, most = self.unit(solution)
        while most > 1:
            nbytes //= 2
            budget = MemoryBudget(1, nbytes)
            if budget.unit(solution).outputs < most:
                return budget
        return None

    def describe(self, solution: ScanSolution) -> str:
        """How much of this scan is in flight, as text for a message."""
        unit, n = self.unit(solution), self.in_flight(solution)
        return (
            f"{n} {'unit' if n == 1 else 'units'} of {unit.outputs} "
            f"{'output' if unit.outputs == 1 else 'outputs'} in flight ({mebibytes(n * unit.nbytes)})"
        )


def mebibytes(nbytes: int) -> str:
    """A size as text, in MiB."""
    return f"{nbytes / 2**20:.3g} MiB"
