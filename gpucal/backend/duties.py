"""Whether the device or the host reads and writes, and the message when the host takes over."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Literal

from gpucal.scan import CountsSource, EncodedBlock

Message = Callable[[Any, str], None]
"""Gets a level ("info" or "warning") and a sentence."""

Duty = Literal["reads", "writes"]

SUBJECTS: dict[Duty, str] = {
    "reads": "counts are read by the host",
    "writes": "spectra are encoded by the host",
}


class DeviceDuties:
    """Duties that the device still has for the lanes of a run; only the first reason against it is reported.

    reads, writes: whether the device is asked to read counts, and to encode spectra.
    """

    def __init__(self, level: str, message: Message) -> None:
        self.reads = self.writes = True
        self._level, self._message = level, message
        self._said: set[Duty] = set()
        self._lock = threading.Lock()

    def to_host(self, duty: Duty, reason: str, *, forever: bool = True) -> None:
        """Let the host do it for this reason; ``forever``: the device is not asked again in this run."""
        with self._lock:
            if forever:
                setattr(self, duty, False)
            if duty in self._said:
                return
            self._said.add(duty)
        self._message(self._level, f"{SUBJECTS[duty]}: {reason.rstrip('.')}.")

    def files_of(self, counts: CountsSource, c0: int, c1: int, subscan: int) -> EncodedBlock | None:
        """The files of these counts; None where the host must read them, with the reason reported."""
        if not self.reads:
            return None
        encoded = getattr(counts, "encoded", None)
        reason = "the raw counts are not files"
        if encoded is not None:
            found = encoded(c0, c1, subscan)
            if isinstance(found, EncodedBlock):
                return found
            reason = found
        self.to_host("reads", reason, forever=False)
        return None
