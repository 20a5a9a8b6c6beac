"""Ctrl-C in the first moments: an import or a thread at its start that it breaks hangs, or ends in a traceback.

As long as nothing was written nothing can stay half done: the process ends at once. Later the exception waits until no
import is in work. SIGTERM is left as it is: it ends the process, and the next run removes what it left.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_INTERRUPTED = 130
INTERRUPTED = "interrupted; what is finished stays, run the same command again for the rest."

RETRY_S = 0.02
_IMPORTING = ("<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>")


def end_at_once() -> None:
    """Let Ctrl-C end this process from now on: one sentence, no clean up; as long as nothing was written.

    Does nothing where Ctrl-C is ignored, as in a background job, or heard by another handler.
    """
    if _is_plain(signal.getsignal(signal.SIGINT)):
        signal.signal(signal.SIGINT, _end)


@contextmanager
def between_imports() -> Iterator[None]:
    """Context in which Ctrl-C is a KeyboardInterrupt, raised only when no import is in work in the main thread.

    After ``end_at_once`` it goes on to end the process until something is written.

    Does nothing outside the main thread, or where the program has a handler of its own.
    """
    before = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if not main or not (_is_plain(before) or before is _end):
        yield
        return
    signal.signal(signal.SIGINT, end_or_interrupt if before is _end else interrupt)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGINT, before)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Handler of a signal: raise KeyboardInterrupt, or come again soon if an import is in work."""
    if _importing(frame):
        signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, RETRY_S)
        return
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    raise KeyboardInterrupt


def end_or_interrupt(number: int, frame: FrameType | None) -> None:
    """Handler of a signal: end the process while nothing was written, else as ``interrupt``."""
    atomic = sys.modules.get("gpucal.io.files.atomic")  # without it nothing can have been written
    if atomic is None or not hasattr(atomic, "WRITING") or not atomic.WRITING.is_set():
        _end(number, frame)
    interrupt(number, frame)


for _handler in (interrupt, end_or_interrupt):
    setattr(_handler, "raises_keyboard_interrupt", True)  # noqa: B010 - for pipeline.store.interrupt


def _is_plain(handler: object) -> bool:
    return handler is signal.default_int_handler


def _importing(frame: FrameType | None) -> bool:
    """Whether one of the frames is that of an import."""
    while frame is not None:
        if frame.f_code.co_filename in _IMPORTING:
            return True
        frame = frame.f_back
    return False


def _end(number: int, frame: FrameType | None) -> None:
    try:
        show_cursor = "\x1b[?25h" if os.isatty(2) else ""  # a progress bar may have hidden it
        os.write(2, f"{show_cursor}gpucal: {INTERRUPTED}\n".encode("ascii"))
    finally:
        os._exit(EXIT_INTERRUPTED)
