"""Ctrl-C as a request to stop at the next safe point, not as an exception."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

RAISES = "raises_keyboard_interrupt"
"""Attribute of such a handler."""


def raises(handler: object) -> bool:
    """Whether a handler does no more than raise KeyboardInterrupt: that of Python, or one that says so."""
    said: bool = getattr(handler, RAISES, False)
    return said or handler is signal.default_int_handler


@contextmanager
def ctrl_c_sets(stop: threading.Event) -> Iterator[None]:
    """Context in which the first Ctrl-C sets ``stop``; the next one raises KeyboardInterrupt.

    An exception that may come between any two statements cannot be cleaned up after reliably. Does
    nothing outside the main thread, or where the program has a handler of its own.
    """
    plain = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if not main or not callable(plain) or not raises(plain):
        yield
        return

    def wish(number: int, frame: Any) -> None:
        if stop.is_set():
            plain(number, frame)
        stop.set()

    signal.signal(signal.SIGINT, wish)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, plain)
