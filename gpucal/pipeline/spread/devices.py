"""Spread the scans of a store over the devices of one host: a process for each, one queue of scans."""

from __future__ import annotations

import math
import os
import queue
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gpucal import errors
from gpucal.backend.cpu import usable_cores
from gpucal.config import CalibrationConfig
from gpucal.errors import BackendError, ConfigError, GpucalError
from gpucal.io.l0.store import open_l0
from gpucal.io.l1.writer import L1Store, write_failures
from gpucal.pipeline.spread.device_process import DeviceProcess, Event
from gpucal.pipeline.spread.gathered import Gathered
from gpucal.pipeline.store.interrupt import ctrl_c_sets
from gpucal.pipeline.store.l1_arrays import root_attributes
from gpucal.pipeline.store.outcome import failure_of
from gpucal.pipeline.store.report import Failure, Observer, ScanSummary, StoreReport
from gpucal.pipeline.store.selection import select_scans

AHEAD = 3
"""Scans that a process has at most: one is calibrated, one solved, one synced to disk."""

LOSSES = 2
"""A device that was lost or failed to start this often is not tried again."""

POLL_SECONDS = 0.2
STOP_SECONDS = 60.0


def device_list(config: CalibrationConfig) -> list[str]:
    """What CUDA_VISIBLE_DEVICES must be for each process; [] where "all" finds no device.

    Numbers count within the CUDA_VISIBLE_DEVICES of this process if it is set. Raises ConfigError for
    one that is not visible.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    visible = [name.strip() for name in given.split(",") if name.strip()]
    if config.devices == "all":
        if config.backend == "cpu":
            return []
        from gpucal.backend.cuda import device_count

        n = device_count()
        return visible[:n] if visible else [str(i) for i in range(n)]
    names = config.devices.split(",")
    if config.backend == "cpu" or not visible:
        return names
    for name in names:
        if name.isdigit() and int(name) >= len(visible):
            raise ConfigError(
                f"devices is {config.devices}, but CUDA_VISIBLE_DEVICES is {given}: there is no "
                f"device {name}.",
                hint="Numbers count from 0 within CUDA_VISIBLE_DEVICES.",
            )
    return [visible[int(name)] if name.isdigit() else name for name in names]


def calibrate_on_devices(
    l0: str | Path,
    out: str | Path,
    config: CalibrationConfig,
    devices: Sequence[str],
    observer: Observer,
    command_line: Sequence[str],
) -> StoreReport:
    """One process per device, each takes the next scan when it has room; all write into one L1 store.

    A process that dies fails the scan that it was at; another one takes its place. Raises GpucalError
    only when nothing can be done at all.
    """
    here, there = Path(l0).resolve(), Path(out).resolve()
    raw = open_l0(here)
    selection = select_scans(raw, config)
    l1 = L1Store(there, codec=config.codec, dtype=config.dtype)
    l1.set_root_attrs(root_attributes(raw.attrs))
    observer.night_started(selection.numbers, 0)
    for note in selection.notes:
        observer.message("info", note)
    gathered = Gathered(observer)
    for failure in selection.failures:
        gathered.fail(failure)
    workers = config.workers or max(1, usable_cores() // len(devices))
    own = config.model_copy(update={"devices": "", "scans": "", "workers": workers})
    job = {
        "l0": str(here),
        "out": str(there),
        "config": own.model_dump(),
        "command_line": list(command_line),
    }
    whole = Fleet(devices, job, gathered).run(selection.numbers)
    report = gathered.report(not whole)
    write_failures(l1, [f.as_dict() for f in report.failures])
    return report


class Fleet:
    """The processes of all devices, and who has which scan; used by one thread."""

    def __init__(self, devices: Sequence[str], job: dict[str, Any], gathered: Gathered) -> None:
        self.processes: dict[str, DeviceProcess] = {}
        self.stop = threading.Event()
        self._usable = list(devices)
        self._job = job
        self._gathered = gathered
        self._events: queue.SimpleQueue[tuple[DeviceProcess, Event | None]] = queue.SimpleQueue()
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
                while self._left and not self.stop.is_set():
                    self._start_processes()
                    self._hand_out()
                    self._next_event(POLL_SECONDS)
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
        """The next scans to those that have the fewest; near the end nobody takes more than his share."""
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
        process.ready = True
        self._worked.add(process.device)
        text = "device {}: process {pid}, backend {backend} ({name})"
        self._gathered.observer.message("info", text.format(process.device, **event))

    def _refused(self, process: DeviceProcess, event: Event) -> None:
        """It cannot work at all: the same for every scan, unless the device did work before."""
        process.lost = True
        if process.device in self._worked and process.device not in self._on_cpu:
            self._to_cpu(process.device, str(event["message"]))
            return
        kind = getattr(errors, event["error"], GpucalError)
        raise kind(event["message"], hint=event["hint"])

    def _scan_started(self, process: DeviceProcess, event: Event) -> None:
        process.streaming = event["scan"]
        self._gathered.observer.scan_started(**event)

    def _scan_done(self, process: DeviceProcess, event: Event) -> None:
        process.scans.remove(event["scan"])
        self._left.discard(event["scan"])
        self._gathered.add(
            [ScanSummary(**{**s, "warnings": tuple(s["warnings"])}) for s in event["summaries"]],
            [Failure(**f) for f in event["failures"]],
        )

    def _lost(self, process: DeviceProcess, event: Event) -> None:
        process.lost = True
        self._troubles[process.device] += 1
        if self._troubles[process.device] >= LOSSES:
            self._to_cpu(process.device, str(event["message"]))

    def _to_cpu(self, device: str, why: str) -> None:
        if device not in self._on_cpu:
            self._on_cpu.add(device)
            text = f"device {device} is given up: {why} Its process goes on with the CPU."
            self._gathered.observer.message("error", text)

    def _ended(self, process: DeviceProcess) -> None:
        """Its scans go back to the others, but for the one that it died of."""
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
