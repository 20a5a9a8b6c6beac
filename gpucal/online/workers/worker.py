"""One worker: takes jobs of one task, one after the other, until it is told to stop."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.sharedctypes import Synchronized
from typing import Any

from gpucal.errors import GpucalError, OnlineError
from gpucal.online.queue.arrival import NotThereYetError
from gpucal.online.queue.pipe import TASKS, Pipe
from gpucal.online.queue.processes import worker_id
from gpucal.online.queue.recovery import Recovery
from gpucal.online.queue.task_directory import Claim, TaskDirectory
from gpucal.online.site.config import OnlineConfig
from gpucal.online.site.context import Context
from gpucal.online.site.reasons import reason_of
from gpucal.online.site.results import Results
from gpucal.online.tasks.made_from import later_inputs
from gpucal.online.tasks.table import TASK_FUNCTIONS

BEAT_S = 2.0
PAUSE_S = 1.0
"""Rest after a failure that is the disk's or the database's, not the job's."""
LONGEST_REST_S = 10.0
"""Rest of a job whose data have been late for long."""
TELL_AFTER_S = 20.0
"""A job that has waited for its data for so long is told of."""
LOOK_BACK_S = 30.0
"""Between looks at the scans that have ended, whether more of them has come, while nothing is to be done."""

log = logging.getLogger(__name__)


class Worker:
    """The loop of one worker process. ``busy_since``: monotonic time of the claim, 0 when idle."""

    def __init__(
        self, task: str, config: OnlineConfig, busy_since: Synchronized[float] | None = None
    ) -> None:
        self.task = task
        self.config = config
        self.pipe = Pipe(config.pipe)
        self.directory = self.pipe.task(task, worker_id(task))
        self._recovery = Recovery(self.directory)
        self.results = Results(config.database_url)
        self.context = Context(config, self.results, task)
        self.stop = threading.Event()
        self._busy_since = busy_since
        self._news = threading.Event()
        self._awaiting: dict[str, float] = {}
        self._next_look = time.monotonic() + LOOK_BACK_S

    def run(self) -> None:
        """Work until ``stop`` is set; the job in hand is finished first."""
        self.pipe.create()
        for name, loop in (("beat", self._beat), ("watch", self._watch)):
            threading.Thread(target=loop, name=name, daemon=True).start()
        while not self.stop.is_set():
            self._recover()
            if not self.step():
                self._look_back()
                self._news.wait(self.config.poll)
                self._news.clear()

    def step(self) -> bool:
        """Do one job; False when there is none."""
        try:
            claim = self.directory.claim()
        except OSError as error:
            return self._trouble(error)
        if claim is None:
            return False
        self._mark(time.monotonic())
        try:
            self._work(claim)
        finally:
            self._mark(0.0)
        return True

    def _work(self, claim: Claim) -> None:
        """Do a job and hand it on; a full disk or a lost database puts it back instead of failing it."""
        begin = time.monotonic()
        context = replace(self.context, waited=begin - self._awaiting.get(claim.name, begin))
        try:
            following = TASK_FUNCTIONS[self.task](claim.job, context)
            spent = time.monotonic() - begin
            forward = [self.pipe.task(name) for name in following]
            self._enter(claim, "done", spent, "")
            self.directory.finish(claim, spent, forward)
            self._awaiting.pop(claim.name, None)
        except NotThereYetError as error:
            self._await(claim, error, context.waited)
        except (OSError, _database_errors()) as error:
            # A full disk or a lost database is no fault of the job.
            if isinstance(error, GpucalError):
                self._failed(claim, error, time.monotonic() - begin)
                return
            self.directory.release(claim)
            self._trouble(error)
        except Exception as error:
            self._failed(claim, error, time.monotonic() - begin)

    def _await(self, claim: Claim, error: NotThereYetError, waited: float) -> None:
        """Put back a job whose data may still come, for ``end_timeout`` seconds; then give it up."""
        self._awaiting.setdefault(claim.name, time.monotonic())
        if waited < self.config.end_timeout:
            pause = min(max(PAUSE_S, 0.1 * waited), LONGEST_REST_S, self.config.end_timeout)
            try:
                self.directory.rest(claim, pause)
                if waited > TELL_AFTER_S:
                    self._tell_waiting(claim, error)
            except (OSError, _database_errors()) as trouble:
                self._trouble(trouble)
            return
        del self._awaiting[claim.name]
        error.message += f" It did not come within {self.config.end_timeout:.0f} s."
        self._failed(claim, error, 0.0, attempts=1)

    def _tell_waiting(self, claim: Claim, error: NotThereYetError) -> None:
        """Tell operator and observer, once, that a job has come long before its data."""
        job = claim.job
        self.results.message(
            f"{claim.name} waits for its data: {reason_of(error)}",
            level="warning",
            task=self.task,
            project=job.project,
            scan=job.scan,
        )

    def _failed(
        self, claim: Claim, error: BaseException, spent: float, *, attempts: int = 0
    ) -> None:
        """Count a failure of the job; say so when it is given up, after ``attempts`` (0: those of the site)."""
        text = reason_of(error)
        try:
            final = self.directory.fail(
                claim, text, traceback.format_exc(), attempts=attempts or self.config.attempts
            )
            if final:
                self._enter(claim, "failed", spent, text)
                job = claim.job
                self.results.message(
                    f"{self.task} gave up {claim.name}: {text}",
                    level="error",
                    task=self.task,
                    project=job.project,
                    scan=job.scan,
                )
            else:
                # what is missing may come: a subscan that is still being written, most of all
                self.stop.wait(min(PAUSE_S, self.config.poll))
        except (OSError, _database_errors()) as trouble:
            self._trouble(trouble)

    def _enter(self, claim: Claim, state: str, seconds: float, message: str) -> None:
        """Write the outcome of a job into the database."""
        row = {
            "task": self.task,
            "name": claim.name,
            "project": claim.job.project,
            "scan": claim.job.scan,
            "state": state,
            "finished": time.time(),
            "seconds": seconds,
            "worker": self.directory.worker,
            "message": message,
        }
        self.results.save("jobs", [row])

    def _trouble(self, error: BaseException) -> bool:
        """Report that the disk or the database is not available, and pause; returns False: no job was done."""
        text = f"{self.task} cannot go on and tries again: {reason_of(error)}"
        log.warning("%s", text)
        with contextlib.suppress(Exception):  # the database may be what is missing
            self.results.message(
                text, level="error", task=self.task, once=f"{text}{time.time() // 600}"
            )
        self.stop.wait(PAUSE_S)
        return False

    def _recover(self) -> None:
        """Put back the jobs of dead workers of this task, and report them."""
        try:
            found = self._recovery.recover(self.config.stale_after, crashes=self.config.crashes)
            for name in found:
                text = f"{name} of {self.task} was left by a worker that is gone, and is done again"
                self.results.message(
                    text, level="warning", task=self.task, once=f"{text}{time.time()}"
                )
        except (OSError, _database_errors()) as error:
            self._trouble(error)

    def _look_back(self) -> None:
        """Now and then, in the calibration: end the scans again of which more came than was announced."""
        now = time.monotonic()
        if self.task != "calibration" or now < self._next_look:
            return
        self._next_look = now + LOOK_BACK_S
        try:
            later_inputs(self.context)
        except (GpucalError, OSError, _database_errors()) as error:
            self._trouble(error)

    def _mark(self, value: float) -> None:
        """Tell the supervisor when the job in hand was begun."""
        if self._busy_since is not None:
            self._busy_since.value = value

    def _beat(self) -> None:
        """Write heartbeats until the worker is told to stop."""
        own = TaskDirectory(self.directory.path, self.task, self.directory.worker)
        while not self.stop.wait(BEAT_S):
            try:
                own.beat()
            except OSError as error:
                log.debug("no heartbeat: %s", error)

    def _watch(self) -> None:
        """Watch for new jobs: file-system events report them at once, the slow poll finds what events miss."""
        watch = _watcher()
        while not self.stop.is_set():
            try:
                for _ in watch(self.directory.path, self.stop):
                    self._news.set()
            except Exception as error:  # a network file system without events, a removed folder
                log.debug("no file-system events: %s", error)
                self.stop.wait(5 * self.config.poll)


def _watcher() -> Callable[[Any, threading.Event], Any]:
    """The function that watches a folder for new files; its package is imported only when needed."""
    import watchfiles

    def watch(path: Any, stop: threading.Event) -> Any:
        return watchfiles.watch(
            path, stop_event=stop, debounce=50, step=20, recursive=False, rust_timeout=2000
        )

    return watch


def _database_errors() -> type[BaseException]:
    """The exceptions that the database raises when it is not available."""
    import sqlalchemy.exc

    return sqlalchemy.exc.DBAPIError


def worker_main(
    task: str, config_json: str, busy_since: Synchronized[float], quiet: bool = True
) -> None:
    """Entry of a worker process. SIGTERM: finish the job in hand and end."""
    if task not in TASKS:
        raise OnlineError(f"there is no task {task!r}.")
    logging.basicConfig(level=logging.WARNING if quiet else logging.INFO)
    # Several processes share the cores: each computes with one thread.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    worker = Worker(task, OnlineConfig.model_validate_json(config_json), busy_since)
    signal.signal(signal.SIGTERM, lambda *_: worker.stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()
    threading.Thread(target=_end_with, args=(parent, worker), daemon=True).start()
    worker.run()


def _end_with(parent: int, worker: Worker) -> None:
    """End this worker when its supervisor has died, so that a new supervisor starts without old workers."""
    while not worker.stop.wait(1.0):
        if os.getppid() != parent:
            worker.stop.set()
