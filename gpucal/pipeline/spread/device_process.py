"""A child process of ``calibrate --devices`` as its parent sees it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from typing import Any

from gpucal.backend.health import LOST_HINT
from gpucal.errors import DeviceLostError

COMMAND = (sys.executable, "-m", "gpucal.pipeline.spread.device_worker")

KILLED_HINT = (
    "The system may have been short of memory (see dmesg): use a smaller --ring or fewer devices. "
    "Run the same command again for this scan."
)

Event = dict[str, Any]
Events = queue.SimpleQueue[tuple["DeviceProcess", Event | None]]


class DeviceProcess:
    """A process that sees one device, with the scans it was given and the end of its stderr.

    Its events come out of ``events`` as (process, event); (process, None) is the last one. scans: what it was
    given and has not reported; streaming: the scan begun last; ready: it takes scans; lost: its device is lost,
    and it ends.
    """

    def __init__(self, device: str, job: dict[str, Any], events: Events) -> None:
        self.device = device
        self.scans: list[int] = []
        self.streaming: int | None = None
        self.ready = False
        self.lost = False
        self._stderr = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": device}
        environment.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # as nvidia-smi counts
        self._process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the parent
        )
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read, args=(events,), daemon=True)
        self._reader.start()
        self._write(job)

    def give(self, scan: int) -> None:
        """Give it one more scan to calibrate, after those that it has."""
        self.scans.append(scan)
        self._write({"scan": scan})

    def culprit(self) -> int:
        """The scan that it was working on: the last one begun, not those before it that wait for the disk."""
        return self.streaming if self.streaming in self.scans else self.scans[0]

    def end(self) -> None:
        """Let it finish what it has, and end."""
        self._write({"end": True})

    def stop(self) -> None:
        """Let it end soon: what is calibrated is kept, what is in work is dropped."""
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()

    def close(self) -> None:
        """Kill it if it still runs, and close its pipes."""
        self._process.kill()
        self._process.wait()
        self.stop()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._stderr.close()

    def death(self) -> DeviceLostError:
        """How it ended, as an error of the scan that it was working on."""
        code = self._process.wait()
        self._stderr.seek(0)
        words = [line for line in self._stderr.read().splitlines() if line.strip()]
        last = f": {words[-1].strip().rstrip('.')}" if words else ""
        how = f"ended with exit code {code}{last}"
        if code < 0:
            with contextlib.suppress(ValueError):
                how = f"was killed by {signal.Signals(-code).name}{last}"
        return DeviceLostError(
            f"the process of device {self.device} {how}.",
            hint=LOST_HINT if code != -signal.SIGKILL else KILLED_HINT,
        )

    def _write(self, message: dict[str, Any]) -> None:
        """Write one line to its stdin."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # its end shows on stdout
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def _read(self, events: Events) -> None:
        """Pass its events on, until its stdout ends."""
        assert self._process.stdout is not None
        with contextlib.suppress(ValueError):  # half a line, of a process that was killed
            for line in self._process.stdout:
                events.put((self, json.loads(line)))
        events.put((self, None))
