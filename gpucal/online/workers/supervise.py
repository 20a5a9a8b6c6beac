"""The supervisor of the workers of a host: starts them, kills what hangs, restarts with growing pauses."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import time
from dataclasses import dataclass
from typing import Any

from gpucal.errors import OnlineError
from gpucal.online.queue.pipe import TASKS, Pipe
from gpucal.online.site.config import OnlineConfig
from gpucal.online.site.feedback import Delivery
from gpucal.online.site.results import Results
from gpucal.online.workers.control import done, pending_requests
from gpucal.online.workers.silent_scans import SilentScans
from gpucal.online.workers.worker import worker_main

TICK_S = 0.2
FIRST_BACK_OFF_S, LONGEST_BACK_OFF_S = 0.5, 60.0
HEALTHY_S = 60.0
"""A worker that lived so long starts again at once when it dies."""
RECOVERED_S = 5.0
"""A worker that lives so long after a crash has recovered, and the operator is told."""

log = logging.getLogger(__name__)


@dataclass
class _Slot:
    """One place for a worker process."""

    task: str
    busy_since: Any
    process: Any = None
    started: float = 0.0
    back_off: float = FIRST_BACK_OFF_S
    not_before: float = 0.0
    restarts: int = 0
    crashed: bool = False


class Supervisor:
    """Runs the workers of all tasks of one configuration on this host."""

    def __init__(self, config: OnlineConfig) -> None:
        """Raises OnlineError when pipe or database cannot be used, or a task is unknown."""
        unknown = sorted(set(config.workers) - set(TASKS))
        if unknown:
            raise OnlineError(
                f"workers names the task {unknown[0]!r}, which does not exist.",
                hint=f"Tasks: {', '.join(TASKS)}.",
            )
        self.config = config
        self.pipe = Pipe(config.pipe)
        self.pipe.create()
        self.results = Results(config.database_url)
        self._delivery = Delivery(config, self.results)
        self._context = multiprocessing.get_context("spawn")
        self._slots = [
            _Slot(task, self._context.Value("d", 0.0))
            for task in TASKS
            for _ in range(config.workers.get(task, 1))
        ]
        self._silent_scans = SilentScans(config.end_timeout, self.pipe, self.results)
        self.stopping = False
        self._next_house_keeping = 0.0

    def run(self) -> None:
        """Supervise until ``stop`` is called or requested; then let the jobs in hand finish."""
        try:
            while not self.stopping:
                self.tick()
                time.sleep(TICK_S)
        finally:
            self._end()

    def stop(self) -> None:
        """End ``run`` soon."""
        self.stopping = True

    def tick(self) -> None:
        """Do one round: workers, timeouts, requests, ends of scans, feedback."""
        now = time.monotonic()
        for slot in self._slots:
            self._watch(slot, now)
        self._delivery.start()
        try:
            self._requests()
            if now >= self._next_house_keeping:
                self._next_house_keeping = now + self.config.poll
                self._silent_scans.end(now)
        except Exception as error:  # the database may be away for a while; the workers go on
            log.warning("supervisor: %s", error)

    def _watch(self, slot: _Slot, now: float) -> None:
        """Start, leave alone, or end the process of a slot."""
        process = slot.process
        if process is None:
            if now >= slot.not_before:
                self._start(slot, now)
            return
        if process.is_alive():
            since = slot.busy_since.value
            if since and now - since > self.config.timeout:
                self._time_out(slot)
            elif now - slot.started > HEALTHY_S:
                slot.back_off = FIRST_BACK_OFF_S
            if slot.crashed and now - slot.started > RECOVERED_S:
                slot.crashed = False
                self._tell(f"a worker of {slot.task} runs again", "info", slot.task)
            return
        self._died(slot, now)

    def _start(self, slot: _Slot, now: float) -> None:
        """Start a process for the slot; it gets the configuration as JSON, since it is spawned."""
        slot.busy_since.value = 0.0
        arguments = (slot.task, self.config.model_dump_json(), slot.busy_since)
        slot.process = self._context.Process(target=worker_main, args=arguments, daemon=True)
        slot.process.start()
        slot.started = now

    def _died(self, slot: _Slot, now: float) -> None:
        """Plan the restart of a worker that has ended, and say how it ended."""
        code = slot.process.exitcode
        slot.process = None
        slot.not_before = now + slot.back_off
        slot.restarts += 1
        wait = slot.back_off
        slot.back_off = min(2 * slot.back_off, LONGEST_BACK_OFF_S)
        if code == 0:
            slot.not_before, slot.back_off = now, FIRST_BACK_OFF_S
            return
        slot.crashed = True
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        self._tell(
            f"a worker of {slot.task} {how}; it is started again in {wait:.1f} s",
            "error",
            slot.task,
        )

    def _time_out(self, slot: _Slot) -> None:
        """Kill a worker whose job takes too long; the job counts as failed."""
        directory = self.pipe.task(slot.task)
        slot.process.kill()
        slot.process.join()
        pid = f"~{slot.process.pid}~"
        for claim in directory.claims(lambda worker: pid in worker):
            text = f"it took longer than the timeout of {self.config.timeout:.0f} s"
            final = directory.fail(claim, text, attempts=self.config.attempts)
            verb = "gave up" if final else "will try again"
            self._tell(f"{slot.task} {verb} {claim.name}: {text}", "error", slot.task)

    def _requests(self) -> None:
        """Carry out what the operator has asked for."""
        for request in pending_requests(self.config.pipe):
            if request.action == "stop":
                self.stopping = True
            else:
                for slot in self._slots:
                    if request.task in ("", slot.task):
                        self._restart(slot)
                self._tell(
                    f"{request.task or 'all tasks'}: restarted by the operator",
                    "info",
                    request.task,
                )
            done(request)

    def _restart(self, slot: _Slot) -> None:
        """Let the worker finish the job in hand and end; the next round starts it again."""
        if slot.process is not None:
            slot.process.terminate()
        slot.not_before, slot.back_off = 0.0, FIRST_BACK_OFF_S

    def _tell(self, text: str, level: str, task: str) -> None:
        """Tell the operator; every time, however often it happens."""
        log.log(logging.INFO if level == "info" else logging.WARNING, "%s", text)
        with contextlib.suppress(Exception):  # telling must not stop the work
            self.results.message(
                text, level=level, task=task, once=f"{text}{time.time()}{os.getpid()}"
            )

    def _end(self) -> None:
        """Let the workers finish what they hold, then end them."""
        for slot in self._slots:
            if slot.process is not None:
                slot.process.terminate()
        deadline = time.monotonic() + self.config.timeout
        for slot in self._slots:
            if slot.process is not None:
                slot.process.join(max(0.1, deadline - time.monotonic()))
                slot.process.kill()
        self._delivery.stop()
        self.results.close()
