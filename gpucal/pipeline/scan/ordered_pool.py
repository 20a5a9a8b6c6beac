"""Run tasks on a pool of threads and take their results in the order of the tasks."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from typing import Any


class Cancelled(Exception):
    """The user interrupted the work."""


class Threads(ThreadPoolExecutor):
    """A pool that makes do with the threads that the system lets it start (``ulimit -u``, limits of a container).

    Work waits for those that there are; without any it is done by the thread that submits it.
    """

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As the base class; never raises "can't start new thread"."""
        future = super().submit(fn, *args, **kwargs)
        if not self._threads:
            self._work_queue.get_nowait().run()
        return future

    def _adjust_thread_count(self) -> None:
        with contextlib.suppress(RuntimeError):
            super()._adjust_thread_count()


def in_order(
    tasks: Iterable[Callable[[], Any]], pool: Executor, most: int, stop: threading.Event
) -> Generator[Any, None, None]:
    """Run tasks on the pool, at most ``most`` at once, and yield their results in order.

    The order makes sums of floats independent of the number of workers. On an error the running
    tasks are waited for, then it is raised. Raises Cancelled when ``stop`` is set.
    """
    waiting: dict[int, Future[Any]] = {}
    done: dict[int, Any] = {}
    ahead = 2 * most
    submitted = emitted = 0
    source = iter(tasks)
    exhausted = False
    try:
        while True:
            # Submit, but not far beyond a slow task whose result all others wait for.
            while not exhausted and len(waiting) < most and submitted - emitted < ahead:
                task = next(source, None)
                if task is None:
                    exhausted = True
                    break
                waiting[submitted] = pool.submit(task)
                submitted += 1
            if not waiting and emitted == submitted:
                return
            wait(waiting.values(), return_when=FIRST_COMPLETED)
            for index in [i for i, f in waiting.items() if f.done()]:
                done[index] = waiting.pop(index).result()
            # Hand on what is next in order.
            while emitted in done:
                yield done.pop(emitted)
                emitted += 1
            if stop.is_set():
                raise Cancelled
    except KeyboardInterrupt:
        stop.set()
        raise
    finally:
        for future in waiting.values():
            future.cancel()
        wait(waiting.values())
