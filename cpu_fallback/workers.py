"""Threads that share the blocks of one kernel call, and their reusable scratch memory."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

Block = TypeVar("Block")
Result = TypeVar("Result")


class Workers:
    """Runs a function over blocks with ``threads`` threads, the caller's own among them.

    The pool lives as long as this object. Blocks must be independent of each other and write to
    separate places; their results come back in the order of the blocks, so sums over them do not
    depend on the number of threads.
    """

    def __init__(self, threads: int = 1) -> None:
        if threads < 1:
            raise ValueError(f"threads is {threads}, expected 1 or more.")
        self.threads = threads
        self._local = threading.local()
        self._pool = (
            ThreadPoolExecutor(threads - 1, thread_name_prefix="gpucal-kernel")
            if threads > 1
            else None
        )

    def run(self, work: Callable[[Block], Result], blocks: Sequence[Block]) -> list[Result]:
        """Return ``[work(block) for block in blocks]``, with NumPy's warnings off.

        NaN and infinity are ordinary values of the data here, so their arithmetic is no news.
        """
        results: list[Any] = [None] * len(blocks)
        # One iterator for all threads: whoever is free takes the next block.
        todo = iter(range(len(blocks)))

        def take(indices: Iterator[int]) -> None:
            with np.errstate(all="ignore"):
                for index in indices:
                    results[index] = work(blocks[index])

        others = min(self.threads, len(blocks)) - 1
        if self._pool is None or others < 1:
            take(todo)
            return results
        futures: list[Future[None]] = []
        try:
            futures += (self._pool.submit(take, todo) for _ in range(others))
        except RuntimeError:  # no more threads to be had: those that there are share the work
            if not futures:
                self._pool = None
        try:
            take(todo)
        finally:
            # Every thread must have left the caller's arrays, also after an error.
            errors = [future.exception() for future in futures]
        for error in errors:
            if error is not None:
                raise error
        return results

    def scratch(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return uninitialised memory of this thread, kept from call to call under ``name``."""
        wanted = np.dtype(dtype)
        size = math.prod(shape) * wanted.itemsize
        kept: dict[str, NDArray[np.uint8]] | None = getattr(self._local, "kept", None)
        if kept is None:
            kept = self._local.kept = {}
        memory = kept.get(name)
        if memory is None or memory.size < size:
            memory = kept[name] = np.empty(size, np.uint8)
        return memory[:size].view(wanted).reshape(shape)
