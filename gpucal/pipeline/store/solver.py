"""Solve scans on one backend, and keep their loads for the next ones."""

from __future__ import annotations

from collections.abc import Container
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import NamedTuple

from gpucal.backend.protocol import Backend
from gpucal.config import CalibrationConfig
from gpucal.errors import BackendError
from gpucal.io.l0.store import L0Store
from gpucal.physics.atm import AtmosphereTable
from gpucal.pipeline.scan.load_library import LoadLibrary
from gpucal.pipeline.scan.solve import StageTimer, solve_scan
from gpucal.pipeline.store.counts_identity import counts_identity
from gpucal.pipeline.store.finished import metadata_checksums
from gpucal.pipeline.store.outcome import failure_of
from gpucal.pipeline.store.provenance import now
from gpucal.pipeline.store.report import Failure
from gpucal.scan import Scan
from gpucal.steps.skies.joint import with_other_bands
from gpucal.steps.solution import ScanSolution


class BandSolution(NamedTuple):
    """One band ready to stream, and the time spent on it so far."""

    solution: ScanSolution
    timer: StageTimer


@dataclass
class Solved:
    """A scan ready to stream: one solution per band that could be solved.

    trouble: the device failed, nothing is said about the scan. done: it is in L1 already. started: when, UTC.
    """

    number: int
    backend: Backend
    solutions: list[BandSolution] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    failed_bands: list[str] = field(default_factory=list)
    trouble: BackendError | None = None
    done: bool = False
    started: str = ""


class Solver:
    """Solver of one scan after another; all that it keeps lies on its backend. ``done``: scans that are in L1."""

    def __init__(
        self,
        l0: L0Store,
        config: CalibrationConfig,
        table: AtmosphereTable | None,
        backend: Backend,
        done: Container[int] = (),
    ) -> None:
        self.backend = backend
        self.library = LoadLibrary(l0, config, backend)
        self._l0 = l0
        self._done = done
        self._counts: dict[int, str] = {}
        self._config = config
        self._table = table

    def solve(self, number: int, pool: Executor | None) -> Solved:
        """Solve all bands of a scan, on ``pool`` if there is one; errors of bands are part of the result."""
        solved = Solved(number, self.backend, started=now())
        timer = StageTimer()
        # Read it.
        try:
            bands = timer.run("load", lambda: self.library.scan(number))
        except Exception as error:
            solved.failures.append(failure_of(number, "read", error))
            return solved
        solved.done = number in self._done
        # Bands that cannot be read are failures; the others go on.
        for band, broken in self.library.broken_bands(number).items():
            solved.failures.append(failure_of(number, "read", broken))
            solved.failed_bands.append(band)
        # A scan that is there is solved only for its sky, which the next one is compared with.
        if solved.done and not self._config.skydiff:
            return solved
        for scan in bands:
            if scan.source is None:
                continue
            own = StageTimer()
            own.milliseconds = dict(timer.milliseconds)
            try:
                solved.solutions.append(BandSolution(self._band(scan, pool, own), own))
            except Exception as error:
                solved.trouble = self.backend.health.failure(error)
                if solved.trouble is not None:
                    solved.solutions.clear()
                    return solved
                solved.failures.append(failure_of(number, "solve", error))
                solved.failed_bands.append(scan.band)
        # What only all bands together tell.
        joint = with_other_bands([band.solution for band in solved.solutions])
        solved.solutions = [
            band._replace(solution=one) for band, one in zip(solved.solutions, joint, strict=True)
        ]
        return solved

    def checksums(self, solved: Solved) -> dict[str, str]:
        """SHA-256 of the metadata of a scan and of its load scans."""
        return metadata_checksums(self.library.scan, self._used(solved))

    def counts(self, solved: Solved) -> dict[str, str]:
        """Digests of the counts of a scan and of its load scans by scan number; none for a store that is no folder."""
        numbers = self._used(solved)
        for n in numbers:
            if n == solved.number or n not in self._counts:
                self._counts[n] = counts_identity(self._l0, n).sha256
        return {str(n): self._counts[n] for n in numbers if self._counts[n]}

    def _used(self, solved: Solved) -> list[int]:
        """The numbers of a scan and of its load scans."""
        loads = {n for band in solved.solutions for n in band.solution.loads.scans}
        return sorted({solved.number, *loads})

    def _band(self, scan: Scan, pool: Executor | None, timer: StageTimer) -> ScanSolution:
        """Choose the loads of one band, and solve it."""
        choice = timer.run("load", lambda: self.library.choose(scan, pool))
        return solve_scan(
            scan, choice, self._table, self._config, self.backend, pool=pool, timer=timer
        )
