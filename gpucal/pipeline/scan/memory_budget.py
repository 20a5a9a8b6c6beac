"""How much of a scan is in memory at once, and less of it where the memory does not suffice.

First fewer units are in flight, down to one; then a unit holds fewer outputs. The results do not
depend on it: what is stored and the order of sums are those of the scan.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from gpucal.errors import DeviceMemoryError
from gpucal.pipeline.scan.stream import Cancelled, TileSink, plan_units, stream_scan, unit_bytes
from gpucal.steps.quality import QualitySums
from gpucal.steps.solution import ScanSolution

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Ring:
    """Units in flight and the bytes that they may take together; arguments of ``stream_scan``."""

    workers: int
    nbytes: int

    def in_flight(self, solution: ScanSolution) -> int:
        """Units of this scan that are in memory at once."""
        return max(1, min(self.workers, self.nbytes // self.unit(solution)[0]))

    def unit(self, solution: ScanSolution) -> tuple[int, int]:
        """Bytes and outputs of the largest unit of this scan."""
        units = plan_units(solution, self.nbytes // self.workers)
        return max((unit_bytes(solution, unit.outputs), len(unit.outputs)) for unit in units)

    def smaller(self, solution: ScanSolution) -> Ring | None:
        """The next smaller ring with which less of this scan is in memory; None: there is none."""
        n = self.in_flight(solution) // 2
        if n:
            return Ring(n, n * (self.nbytes // self.workers))
        budget, most = self.unit(solution)
        while most > 1:
            budget //= 2
            ring = Ring(1, budget)
            if ring.unit(solution)[1] < most:
                return ring
        return None


def stream_in_ring(
    solution: ScanSolution,
    sink: TileSink,
    ring: Ring,
    *,
    pool: Executor,
    cancel: threading.Event,
    progress: Callable[[int], None],
    alone: Callable[[], bool],
    tell: Tell,
) -> tuple[QualitySums, Ring]:
    """``stream_scan``, begun anew with a smaller ring while memory is short.

    ``sink`` gets a tile again in that case, with the same values, and ``progress`` hears of no byte
    twice. ``alone`` waits until nothing else takes memory and returns whether something did: the same
    ring is then tried again. ``tell`` gets one sentence if the ring had to shrink. Returns the quality
    sums and the ring that sufficed. Raises DeviceMemoryError when the smallest does not, else what
    ``stream_scan`` raises.
    """
    health = solution.backend.health
    once = _Once(progress)
    first = ""
    tries = 1
    while True:
        try:
            sums = stream_scan(
                solution,
                sink,
                pool=pool,
                workers=ring.workers,
                ring_bytes=ring.nbytes,
                cancel=cancel,
                progress=once,
            )
        except Cancelled:
            raise
        except Exception as error:
            trouble = health.failure(error)
            if not isinstance(trouble, DeviceMemoryError):
                raise
            message, hint = trouble.message, trouble.hint
        else:
            if first:
                tell(f"{first} {_outcome(solution, ring)}")
            return sums, ring
        # Outside of the except block: the error held the buffers of the attempt.
        del trouble
        shared = alone()
        health.release()
        once.begin_anew()
        smaller = ring.smaller(solution)
        if tries == 1 and (shared or smaller is None):
            tries = 2
            continue
        found = health.free_bytes()
        free = "" if found is None else f" {found >> 20} MiB are free."
        first = first or f"{solution.scan.label}: {message}{free}"
        if smaller is None:
            raise DeviceMemoryError(
                f"{message.rstrip('.')}, even with a single output of "
                f"{_mebi(ring.unit(solution)[0])} in flight.{free}",
                hint=hint,
            )
        ring, tries = smaller, 1


def _outcome(solution: ScanSolution, ring: Ring) -> str:
    nbytes, outputs = ring.unit(solution)
    units = ring.in_flight(solution)
    return (
        f"It was streamed again with {units} {'unit' if units == 1 else 'units'} of {outputs} "
        f"{'output' if outputs == 1 else 'outputs'} in flight ({_mebi(units * nbytes)}); the next "
        "scans begin with that."
    )


def _mebi(nbytes: int) -> str:
    return f"{nbytes / 2**20:.3g} MiB"


class _Once:
    """Passes progress on, without what was reported before the work began anew."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell = tell
        self._told = self._done = 0
        self._lock = threading.Lock()

    def begin_anew(self) -> None:
        self._done = 0

    def __call__(self, nbytes: int) -> None:
        with self._lock:
            self._done += nbytes
            new = self._done - self._told
            self._told = max(self._told, self._done)
        if new > 0:
            self._tell(new)
