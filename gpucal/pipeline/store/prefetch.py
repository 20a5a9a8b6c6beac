"""Solve the next scan while the current one streams."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, wait

from gpucal.errors import DeviceMemoryError
from gpucal.pipeline.scan.ordered_pool import Cancelled
from gpucal.pipeline.store.solver import Solved, Solver

POLL_SECONDS = 0.2
"""How long a wish to stop may go unnoticed while a scan is being solved."""


class Prefetch:
    """Scans solved one ahead of the caller; ``solver`` returns the solver in use now."""

    def __init__(
        self,
        solver: Callable[[], Solver],
        ahead: Executor,
        pool: Executor,
        cancel: threading.Event,
    ) -> None:
        self._solver = solver
        self._ahead = ahead
        self._pool = pool
        self._cancel = cancel
        self._following: Future[Solved] | None = None

    def solved(self, numbers: Iterable[int | None]) -> Iterator[Solved]:
        """The solved scans in the order of ``numbers``; a None among them stands for a number that comes later.

        Then what was begun is finished first. Raises Cancelled when the work is to stop.
        """
        pending: Future[Solved] | None = None
        for n in numbers:
            following = self._following = None if n is None else self._submit(n, self._pool)
            if pending is not None:
                yield self._result(pending)
            pending = following
        if pending is not None:
            yield self._result(pending)

    def alone(self) -> bool:
        """Wait until no scan is being solved; returns whether one was."""
        following = self._following
        if following is None or following.done():
            return False
        self._wait(following)
        return True

    def _submit(self, number: int, pool: Executor | None) -> Future[Solved]:
        """Start solving a scan with the solver in use now."""
        return self._ahead.submit(self._solver().solve, number, pool)

    def _result(self, pending: Future[Solved]) -> Solved:
        """Wait for a solved scan; solve it again where the device was short of memory or has been lost since."""
        solved = self._wait(pending)
        if isinstance(solved.trouble, DeviceMemoryError):
            # Once more, block by block and behind the one being solved: nothing else is at work then.
            self.alone()
            solved.backend.health.release()
            return self._wait(self._submit(solved.number, None))
        if solved.backend is not self._solver().backend:  # that one was lost
            return self._wait(self._submit(solved.number, self._pool))
        return solved

    def _wait(self, pending: Future[Solved]) -> Solved:
        """Wait for a scan; raises Cancelled when the work is to stop."""
        while not wait([pending], timeout=POLL_SECONDS).done:
            if self._cancel.is_set():
                raise Cancelled
        return pending.result()
