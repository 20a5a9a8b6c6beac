"""Whether the device or the host reads and writes, and the message when the host takes over."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

from gpucal.backend.io_choice import Duty, IoChoice, too_few_frames
from gpucal.scan import CountsSource, EncodedBlock

Message = Callable[[Any, str], None]
"""Gets a level ("info" or "warning") and a sentence."""

SUBJECTS: dict[Duty, str] = {
    "reads": "counts are read by the host",
    "writes": "spectra are encoded by the host",
}


class DeviceDuties:
    """Duties that the device still has for the lanes of a run; only the first reason against it is reported.

    reads, writes: whether the device is asked to read counts, and to encode spectra. choice: who does
    what the device could do; None: the device, as it was asked for.
    """

    def __init__(self, level: str, message: Message, choice: IoChoice | None = None) -> None:
        self.reads = self.writes = True
        self.choice = choice
        self._level, self._message = level, message
        self._reasons: dict[Duty, str] = {}
        self._layouts: weakref.WeakKeyDictionary[CountsSource, tuple[int, int] | str] = (
            weakref.WeakKeyDictionary()
        )
        self._lock = threading.Lock()

    def to_host(self, duty: Duty, reason: str, *, forever: bool = True) -> None:
        """Let the host do it for this reason; ``forever``: the device is not asked again in this run."""
        with self._lock:
            if forever:
                setattr(self, duty, False)
            if duty in self._reasons:
                return
            self._reasons[duty] = reason.rstrip(".")
        self._message(self._level, f"{SUBJECTS[duty]}: {self._reasons[duty]}.")

    def files_of(self, counts: CountsSource, c0: int, c1: int, subscan: int) -> EncodedBlock | None:
        """The files of these counts; None where the host must read them, with the reason reported."""
        if not self.reads:
            return None
        encoded = getattr(counts, "encoded", None)
        reason = "the raw counts are not files"
        if encoded is not None:
            found = encoded(c0, c1, subscan)
            if not isinstance(found, EncodedBlock):
                reason = found
            elif isinstance(layout := self.layout_of(counts, found), str):
                reason = layout
            else:
                return found
        self.to_host("reads", reason, forever=False)
        return None

    def layout_of(self, counts: CountsSource, block: EncodedBlock) -> tuple[int, int] | str:
        """(frames of one read, decoded bytes of the largest), or why they are nothing for the device.

        (0, 0) where there is nothing to choose: the device was asked for, or nothing is compressed. The
        first file of an array speaks for all. Raises ValueError and OSError as its frames do.
        """
        paths = [path for path in block.paths if path is not None]
        if self.choice is None or not block.compressed or not paths:
            return 0, 0
        with self._lock:
            known = self._layouts.get(counts)
        if known is None:
            frames = block.frames_on_disk(paths[0])
            reason = too_few_frames(frames, len(paths))
            known = reason or (len(paths) * len(frames), max(f.nbytes for f in frames))
            with self._lock:
                self._layouts[counts] = known
        return known

    def as_dict(self) -> dict[str, Any]:
        """Who reads and who writes, and why, for the provenance."""
        found: dict[str, Any] = {}
        duty: Duty
        for duty in ("reads", "writes"):
            trials = self.choice.trials(duty) if self.choice else []
            with self._lock:
                reason = self._reasons.get(duty, "")
            by = {trial.by for trial in trials if getattr(self, duty)}
            by |= {"host"} if reason else set() if trials else {"device"}
            found[duty] = {"by": " and ".join(sorted(by))}
            if reason:
                found[duty]["host_because"] = reason
            if trials:
                found[duty]["trials"] = [trial.as_dict() for trial in trials]
        return found
