"""Stream a scan through memory: read, calibrate and hand on one tile after another.

A bounded number of tiles is in flight, so memory does not grow with the scan. Where even that is too much for the
device, the scan is streamed again with less; the results do not depend on it, as what is stored and the order of
sums are those of the scan.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass
from itertools import chain

from gpucal.errors import DeviceMemoryError
from gpucal.pipeline.scan.memory_budget import MemoryBudget, mebibytes
from gpucal.pipeline.scan.ordered_pool import Cancelled, in_order
from gpucal.pipeline.scan.tiles import (
    BeyondRoundingError,
    StoredSink,
    TileResults,
    TileSink,
    TileWork,
)
from gpucal.steps.precision import Precision, asked_precision, without_noise
from gpucal.steps.quality import QualitySums
from gpucal.steps.solution import ScanSolution


def stream_scan(
    solution: ScanSolution,
    sink: TileSink,
    budget: MemoryBudget,
    *,
    pool: Executor,
    cancel: threading.Event | None = None,
    progress: Callable[[int], None] | None = None,
) -> QualitySums:
    """Calibrate every tile of a scan and hand it to ``sink``; returns the quality sums.

    At most ``budget.workers`` units run at once, fewer where their raw windows, spectra and flags would
    take more than ``budget.nbytes`` together; one always runs. A sink that stores gets them as
    ``config.precision`` says; where that turns out to lose more than noise, it gets all of them again, as
    computed. Raises Cancelled when ``cancel`` is set, and the first error of a worker.
    """
    stop = cancel or threading.Event()
    once = None if progress is None else _Once(progress)
    lanes = solution.backend.lanes(budget.workers)
    work = TileWork(solution, sink, lanes, stop, once)
    most = budget.submitted(solution)
    asked = solution.config.noise_steps if isinstance(sink, StoredSink) else None
    try:
        # T_sys comes last where the form of the spectra does not depend on it: no worker then waits for it.
        if asked is None or not isinstance(sink, StoredSink):
            tasks = chain(work.tasks(budget.units(solution)), work.t_sys_tasks())
            return _sums(solution, tasks, pool, most, stop)
        with closing(in_order(work.noise_tasks(), pool, most, stop)) as noises:
            precision = asked_precision(min(noises), asked)
        while True:
            sink.begin(precision)
            work.rounding = precision.rounding
            try:
                sums = _sums(solution, work.tasks(budget.units(solution)), pool, most, stop)
            except BeyondRoundingError as error:
                reason = str(error)
            else:
                reason = without_noise(sums, precision)
                if not reason:
                    return sums
            # All again, as computed.
            precision = Precision(None, reason)
            if once is not None:
                once.begin_anew()
    except KeyboardInterrupt:
        stop.set()
        raise
    finally:
        lanes.close()


def _sums(
    solution: ScanSolution,
    tasks: Iterator[Callable[[], TileResults]],
    pool: Executor,
    most: int,
    stop: threading.Event,
) -> QualitySums:
    """Run the tasks and add up their statistics; the order makes sums of floats independent of the workers."""
    c, _, r, a, _ = solution.output_shape
    sums = QualitySums(c, r, a)
    # Closing waits for the running tiles: nothing may write once this function is left.
    with closing(in_order(tasks, pool, most, stop)) as finished:
        for results in finished:
            for channels, tile in results:
                sums.add(channels, tile)
    return sums


@dataclass(frozen=True)
class Streamed:
    """The quality sums of a streamed scan, and the memory budget that sufficed for it."""

    sums: QualitySums
    budget: MemoryBudget


def stream_within_memory(
    solution: ScanSolution,
    sink: TileSink,
    budget: MemoryBudget,
    *,
    pool: Executor,
    cancel: threading.Event,
    progress: Callable[[int], None],
    alone: Callable[[], bool],
    tell: Callable[[str], None],
) -> Streamed:
    """Run ``stream_scan``; begin again with a smaller budget while memory is short.

    ``sink`` gets a tile again in that case, with the same values, and ``progress`` hears of no byte
    twice. ``alone`` waits until nothing else takes memory and returns whether something did: the same
    budget is then tried again. ``tell`` gets one sentence if the budget had to shrink. Raises
    DeviceMemoryError when the smallest does not suffice, else what ``stream_scan`` raises.
    """
    health = solution.backend.health
    once = _Once(progress)
    first = ""
    tries = 1
    while True:
        try:
            sums = stream_scan(solution, sink, budget, pool=pool, cancel=cancel, progress=once)
        except Cancelled:
            raise
        except Exception as error:
            trouble = health.failure(error)
            if not isinstance(trouble, DeviceMemoryError):
                raise
            message, hint = trouble.message, trouble.hint
        else:
            if first:
                tell(
                    f"{first} It was streamed again with {budget.describe(solution)}; the next scans "
                    "begin with that."
                )
            return Streamed(sums, budget)
        # Outside of the except block: the error held the buffers of the attempt.
        del trouble
        shared = alone()
        health.release()
        once.begin_anew()
        smaller = budget.smaller(solution)
        # The same once more, now that nothing else takes memory.
        if tries == 1 and (shared or smaller is None):
            tries = 2
            continue
        found = health.free_bytes()
        free = "" if found is None else f" {found >> 20} MiB are free."
        first = first or f"{solution.scan.label}: {message}{free}"
        if smaller is None:
            raise DeviceMemoryError(
                f"{message.rstrip('.')}, even with a single output of "
                f"{mebibytes(budget.unit(solution).nbytes)} in flight.{free}",
                hint=hint,
            )
        budget, tries = smaller, 1


class _Once:
    """Progress without what was reported already, before the work began again."""

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
