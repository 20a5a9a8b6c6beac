"""Which of host and device decodes and encodes faster, found on the first chunks of the data themselves.

nvCOMP works on many frames side by side, so a read of a few large frames is left to the host without
a trial.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from gpucal.scan import Frame

Duty = Literal["reads", "writes"]

LEAST_FRAMES = 64
"""Frames of one read that keep a device busy, whatever their size."""

LARGEST_FRAME = 1 << 20
"""Bytes, decoded; frames up to this size are worth a trial however few they are."""

MOST_TRIALS = 4
"""Layouts of a duty that are tried in one run; the others follow the last one."""

WORK: dict[Duty, str] = {"reads": "counts are decoded", "writes": "spectra are encoded"}

clock = time.perf_counter


class Trial(NamedTuple):
    """Speed of host and device with one layout: MB of decoded data per second.

    host: all threads together; device: one batch, alone on the device. frames: of a read; what is written
    counts as one, the chunk.
    """

    frames: int
    frame_bytes: int
    host: float
    device: float
    threads: int

    @property
    def by(self) -> str:
        """Who was faster."""
        return "device" if self.device > self.host else "host"

    def sentence(self, duty: Duty) -> str:
        """Both numbers in one sentence."""
        what = f"chunks of {size_text(self.frame_bytes)}"
        if duty == "reads":
            what = f"reads of {self.frames} frames of {size_text(self.frame_bytes)}"
        return (
            f"{WORK[duty]} by the {self.by}: device {self.device:.0f} MB/s, host {self.host:.0f} MB/s with "
            f"{self.threads} threads, {what}."
        )

    def as_dict(self) -> dict[str, Any]:
        """The trial for the provenance; MB/s."""
        return {
            "by": self.by,
            "frames": self.frames,
            "frame_bytes": self.frame_bytes,
            "device_mb_per_s": round(self.device, 1),
            "host_mb_per_s": round(self.host, 1),
            "host_threads": self.threads,
        }


class IoChoice:
    """The trials of a run; each layout is tried once, by whichever thread meets it first.

    threads: of the host, which decode or encode side by side; tell gets the sentence of each trial.
    """

    def __init__(self, threads: int, tell: Callable[[str], None]) -> None:
        self._threads, self._tell = threads, tell
        self._trials: dict[Duty, dict[tuple[int, int], Trial]] = {"reads": {}, "writes": {}}
        self._lock = threading.Lock()

    def device_wins(
        self,
        duty: Duty,
        layout: tuple[int, int],
        host: Callable[[], object],
        device: Callable[[], object],
    ) -> bool:
        """Whether the device does work of this layout (frames, bytes of each) faster.

        Both are called where it is not known yet, ``device`` twice: the first call reads the file into
        the page cache and loads the library. Raises what they raise; nothing is then known.
        """
        with self._lock:
            done = self._trials[duty]
            if layout not in done and len(done) < MOST_TRIALS:
                frames, nbytes = layout
                device()
                rates = [frames * nbytes / 1e6 / _seconds(work) for work in (host, device)]
                done[layout] = Trial(
                    frames, nbytes, rates[0] * self._threads, rates[1], self._threads
                )
                self._tell(done[layout].sentence(duty))
            known = done.get(layout) or next(reversed(done.values()))
        return known.by == "device"

    def trials(self, duty: Duty) -> list[Trial]:
        """The trials so far."""
        with self._lock:
            return list(self._trials[duty].values())


def _seconds(work: Callable[[], object]) -> float:
    """The time that one call takes."""
    start = clock()
    work()
    return max(clock() - start, 1e-9)


def too_few_frames(frames: Sequence[Frame], files: int) -> str:
    """Why so many files of these zstd frames are nothing for a device; "" where they may be."""
    number, largest = files * len(frames), max((f.nbytes for f in frames), default=0)
    if number >= LEAST_FRAMES or largest <= LARGEST_FRAME:
        return ""
    return (
        f"a read has {number} zstd frame{'s' * (number != 1)} of up to {size_text(largest)}, a device wants "
        f"{LEAST_FRAMES} or more, or frames of at most {size_text(LARGEST_FRAME)}"
    )


def size_text(nbytes: int) -> str:
    """A size in MiB or KiB."""
    return f"{nbytes / 2**20:.3g} MiB" if nbytes >= 1 << 20 else f"{nbytes / 2**10:.3g} KiB"
