"""One process of ``calibrate --devices``: scan numbers come on stdin, events go to stdout.

Both are lines of JSON. The first line is the job, the others are ``{"scan": n}`` or ``{"end": true}``;
an end of file without that means that the parent is gone, and stops the work. Started by
``spread.device_process``, which sets CUDA_VISIBLE_DEVICES before anything can import CuPy.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any, Literal, TextIO

from gpucal.backend.protocol import Backend
from gpucal.config import CalibrationConfig
from gpucal.errors import GpucalError
from gpucal.pipeline.store.report import ScanSummary, StoreReport
from gpucal.pipeline.store.run import Run


class Sender:
    """Writer of events, safe from several threads; also an Observer of the scans."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def send(self, event: str, **values: Any) -> None:
        """Write one event as a line; a parent that is gone is noticed on stdin, not here."""
        line = json.dumps({"event": event, **values})
        with self._lock:
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except OSError:
                return

    def night_started(self, scans: Any, total_bytes: int) -> None:
        """Send nothing: the parent knows."""

    def scan_started(self, scan: int, band: str, total_bytes: int) -> None:
        """See ``report.Observer``."""
        self.send("scan_started", scan=scan, band=band, total_bytes=total_bytes)

    def tile_done(self, scan: int, band: str, nbytes: int) -> None:
        """See ``report.Observer``."""
        self.send("tile_done", scan=scan, band=band, nbytes=nbytes)

    def scan_finished(self, summary: ScanSummary) -> None:
        """Send nothing: the summary goes with ``scan_done``, when all bands are there."""

    def message(self, level: Literal["info", "warning", "error"], text: str) -> None:
        """See ``report.Observer``."""
        self.send("message", level=level, text=text)


class _Numbers:
    """Iterator of scan numbers as they come; None where none has come and a scan is still to be finished.

    An end of ``lines`` without notice sets ``cancel``: the parent is gone.
    """

    def __init__(self, lines: Iterable[str], cancel: threading.Event) -> None:
        self._come: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(lines, cancel), daemon=True).start()

    def end(self) -> None:
        """End the iteration, whatever still comes."""
        self._come.put(None)

    def _read(self, lines: Iterable[str], cancel: threading.Event) -> None:
        """Thread on stdin: a line without a number ends the work, a closed stdin (the parent is gone) cancels it."""
        for line in lines:
            number = json.loads(line).get("scan")
            if number is None:
                break
            self._come.put(int(number))
        else:
            cancel.set()
        self.end()

    def __iter__(self) -> Iterator[int | None]:
        unfinished = False
        while True:
            try:
                number = self._come.get(block=not unfinished)
            except queue.Empty:
                unfinished = False
                yield None
                continue
            if number is None:
                return
            unfinished = True
            yield number


def serve(lines: Iterator[str], sender: Sender, backend: Backend | None = None) -> None:
    """Calibrate the scans that ``lines`` name, until they end; ``backend`` replaces that of the job.

    Events: ``refused`` (nothing can be done at all), ``ready``, those of the observer, ``scan_done``
    with summaries and failures, and last ``lost`` when the device is.
    """
    job = json.loads(next(lines))
    cancel = threading.Event()

    def scan_done(number: int, known: StoreReport) -> None:
        sender.send(
            "scan_done",
            scan=number,
            summaries=[asdict(s) for s in known.summaries],
            failures=[f.as_dict() for f in known.failures],
        )
        # The parent starts a new process for a lost device: this one takes no more scans.
        if run.lost is not None:
            numbers.end()

    # Open: the stores, the table and the device of the job.
    try:
        run = Run(
            job["l0"],
            job["out"],
            CalibrationConfig(**job["config"]),
            backend=backend,
            observer=sender,
            command_line=job["command_line"],
            cancel=cancel,
            scan_done=scan_done,
        )
    except GpucalError as error:
        kind = type(error).__name__
        sender.send("refused", error=kind, message=error.message, hint=error.hint)
        return
    chosen = run.solver.backend
    sender.send("ready", pid=os.getpid(), backend=chosen.name, name=chosen.device)
    # Calibrate scans as their numbers come.
    numbers = _Numbers(lines, cancel)
    run.calibrate(numbers)
    if run.lost is not None:
        sender.send("lost", message=run.lost.message)


def main() -> None:
    """Serve the process that started this one."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not get between the events
    serve(iter(sys.stdin), Sender(events))
    events.close()
    sys.stderr.flush()
    # Python would wait for the thread that reads stdin, and CuPy tidy up on a device that may be lost.
    os._exit(0)


if __name__ == "__main__":
    main()
