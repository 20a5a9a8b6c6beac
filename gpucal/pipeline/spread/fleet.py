"""The processes of all devices at work on one queue of scans, and what happens when one of them dies."""

from __future__ import annotations

import math
import queue
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

from gpucal import errors
from gpucal.errors import BackendError, GpucalError
from gpucal.pipeline.spread.device_process import DeviceProcess, Event, Events
from gpucal.pipeline.spread.gathered import Gathered
from gpucal.pipeline.store.interrupt import ctrl_c_sets
from gpucal.pipeline.store.outcome import failure_of
from gpucal.pipeline.store.report import Failure, ScanSummary

AHEAD = 3
"""Scans that a process has at most: one is calibrated, one solved, one synced to disk."""

LOSSES = 2
"""A device that was lost or failed to start this often is not tried again."""

POLL_SECONDS = 0.2
STOP_SECONDS = 60.0


class Fleet:
    """The processes of all devices, and which scans each of them has; used by one thread."""

    def __init__(self, devices: Sequence[str], job: dict[str, Any], gathered: Gathered) -> None:
        self.processes: dict[str, DeviceProcess] = {}
        self.stop = threading.Event()
        self._usable = list(devices)
        self._job = job
        self._gathered = gathered
        self._events: Events = queue.SimpleQueue()
        self._waiting: deque[int] = deque()
        self._left: set[int] = set()
        self._worked: set[str] = set()
        self._troubles: Counter[str] = Counter()
        self._on_cpu: set[str] = set()
        self._told: set[str] = set()
        self._handlers: dict[str, Callable[[DeviceProcess, Event], None]] = {
            "ready": self._ready,
            "scan_started": self._scan_started,
            "refused": self._refused,
            "scan_done": self._scan_done,
            "lost": self._lost,
        }

    def run(self, numbers: Sequence[int]) -> bool:
        """Calibrate scans; True at the end, False when it was interrupted."""
        self._waiting.extend(numbers)
        self._left.update(numbers)
        try:
            with ctrl_c_sets(self.stop):
                # Work, until every scan is done or has failed.
                while self._left and not self.stop.is_set():
                    self._start_processes()
                    self._hand_out()
                    self._next_event(POLL_SECONDS)
                # End: let the processes finish what they have, or drop it after Ctrl-C.
                for process in self.processes.values():
                    process.stop() if self.stop.is_set() else process.end()
                while self.processes and self._next_event(STOP_SECONDS):
                    pass
        except KeyboardInterrupt:
            self.stop.set()
        finally:
            for process in self.processes.values():
                process.close()
        return not self._left

    def _start_processes(self) -> None:
        """Start a process for every usable device without one, as long as there are scans for it."""
        if not self._usable:
            error = BackendError("no process for it could be started on any device.")
            for number in sorted(self._left):
                self._gathered.fail(failure_of(number, "calibrate", error))
            self._left.clear()
        busy = sum(not p.ready for p in self.processes.values())
        for device in self._usable:
            if device not in self.processes and busy < len(self._waiting):
                job = self._job
                if device in self._on_cpu:
                    job = {**job, "config": {**job["config"], "backend": "cpu"}}
                self.processes[device] = DeviceProcess(device, job, self._events)
                busy += 1

    def _hand_out(self) -> None:
        """Give the next scans to the processes that have the fewest; near the end none gets more than its share."""
        share = min(AHEAD, math.ceil(len(self._left) / max(1, len(self._usable))))
        while self._waiting:
            ready = [p for p in self.processes.values() if p.ready and not p.lost]
            process = min(ready, key=lambda p: len(p.scans), default=None)
            if process is None or len(process.scans) >= share:
                return
            process.give(self._waiting.popleft())

    def _next_event(self, seconds: float) -> bool:
        """Wait for an event and act on it; False when none came."""
        try:
            process, event = self._events.get(timeout=seconds)
        except queue.Empty:
            return False
        if event is None:
            self._ended(process)
            return True
        name = event.pop("event")
        if name in self._handlers:
            self._handlers[name](process, event)
        elif name != "message":
            getattr(self._gathered.observer, name)(**event)
        elif event["text"] not in self._told:  # what holds for every process is said once
            self._told.add(event["text"])
            self._gathered.observer.message(**event)
        return True

    def _ready(self, process: DeviceProcess, event: Event) -> None:
        """Event: the process has opened the stores and its device, and takes scans."""
        process.ready = True
        self._worked.add(process.device)
        text = "device {}: process {pid}, backend {backend} ({name})"
        self._gathered.observer.message("info", text.format(process.device, **event))

    def _refused(self, process: DeviceProcess, event: Event) -> None:
        """Event: the process cannot work at all, which holds for every scan unless the device worked before."""
        process.lost = True
        if process.device in self._worked and process.device not in self._on_cpu:
            self._to_cpu(process.device, str(event["message"]))
            return
        kind = getattr(errors, event["error"], GpucalError)
        raise kind(event["message"], hint=event["hint"])

    def _scan_started(self, process: DeviceProcess, event: Event) -> None:
        """Event: the process streams a band of this scan, which is to blame should the process die now."""
        process.streaming = event["scan"]
        self._gathered.observer.scan_started(**event)

    def _scan_done(self, process: DeviceProcess, event: Event) -> None:
        """Event: a scan is finished, with its summaries and failures."""
        process.scans.remove(event["scan"])
        self._left.discard(event["scan"])
        self._gathered.add(
            [ScanSummary(**{**s, "warnings": tuple(s["warnings"])}) for s in event["summaries"]],
            [Failure(**f) for f in event["failures"]],
        )

    def _lost(self, process: DeviceProcess, event: Event) -> None:
        """Event: the process lost its device and ends; a new process may try the device again."""
        process.lost = True
        self._troubles[process.device] += 1
        if self._troubles[process.device] >= LOSSES:
            self._to_cpu(process.device, str(event["message"]))

    def _to_cpu(self, device: str, why: str) -> None:
        """Let the next process of this device compute on the CPU."""
        if device not in self._on_cpu:
            self._on_cpu.add(device)
            text = f"device {device} is given up: {why} Its process goes on with the CPU."
            self._gathered.observer.message("error", text)

    def _ended(self, process: DeviceProcess) -> None:
        """Event: a process is gone; its scans go back to the queue, except the one that it died of."""
        del self.processes[process.device]
        death = process.death()
        process.close()
        if self.stop.is_set() or not self._left:
            return
        if process.ready and process.scans and not process.lost:
            number = process.culprit()
            process.scans.remove(number)
            self._left.discard(number)
            self._gathered.fail(failure_of(number, "calibrate", death))
        elif not process.lost:
            self._troubles[process.device] += 1
            if self._troubles[process.device] >= LOSSES:
                self._usable.remove(process.device)
                self._gathered.observer.message("error", f"{death.message} It is given up.")
        self._waiting.extendleft(reversed(process.scans))
