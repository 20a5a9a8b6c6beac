"""Feedback to the control system: a file always, a command or an HTTP POST where configured.

Delivery is retried until it succeeds, in a thread of its own, so that a slow or absent receiver holds up
nothing. The receiver may get the same message twice after a crash; project, scan and procedure name it.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import logging
import os
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from gpucal.online.queue.events import safe_name
from gpucal.online.site.config import OnlineConfig
from gpucal.online.site.results import Results
from gpucal.online.site.tables import FEEDBACK
from gpucal.online.site.whole_files import write_whole

TIMEOUT_S = 5.0
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0
"""Pause of a message after its first failure; it doubles up to the longest."""
LOCK = ".feedback.lock"

Row = dict[str, Any]
log = logging.getLogger(__name__)


def publish(
    config: OnlineConfig, results: Results, place: Mapping[str, Any], payload: Mapping[str, Any]
) -> None:
    """Write the file and leave the message for delivery.

    ``place``: project, scan, kind. The same result again is not delivered again, another one is.
    """
    key = {k: place[k] for k in ("project", "scan", "kind")}
    text = json.dumps(payload, allow_nan=False)
    _write(config, {**key, "payload": text})
    known = results.rows("feedback", **key)
    if not known or known[0]["payload"] != text:
        results.save("feedback", [{**key, "payload": text, "state": "waiting", "attempts": 0}])


def deliver_waiting(config: OnlineConfig, results: Results) -> int:
    """Try once to deliver all that waits; returns how much was delivered."""
    delivery = Delivery(config, results)
    return sum(delivery.one() for _ in range(results.count("feedback", state="waiting")))


@dataclass
class _Tried:
    """The attempts of this process to deliver one message."""

    payload: str
    failures: int = 0
    not_before: float = 0.0
    command_done: bool = False


class Delivery:
    """Delivers what waits, message by message; one process of a site at a time does so."""

    def __init__(self, config: OnlineConfig, results: Results) -> None:
        self._config = config
        self._results = results
        self._tried: dict[tuple[str, int, str], _Tried] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Deliver from now on, in a thread of its own; calling it again does nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop, name="feedback", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread; a message that is being sent is waited for as long as it may take."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(2 * TIMEOUT_S)

    def _loop(self) -> None:
        """Deliver all that is due, look again after ``poll`` seconds, until told to stop."""
        said = ""
        while not self._stop.is_set():
            text = ""
            try:
                with _alone(self._config) as alone:
                    while alone and not self._stop.is_set() and self.next() is not None:
                        self.one()
            except Exception as error:  # the database may be away for a while
                text = " ".join(str(error).split())
            if text and text != said:  # once, not at every look
                log.warning("feedback: %s", text)
            said = text
            self._stop.wait(self._config.poll)

    def next(self) -> Row | None:
        """The next message to send: those with the fewest failures first, then the oldest scan."""
        now = time.monotonic()
        rows = self._results.rows("feedback", state="waiting")
        due = [row for row in rows if self._of(row).not_before <= now]
        return min(due, key=lambda row: self._of(row).failures, default=None)

    def one(self) -> bool:
        """Try to deliver one message; returns whether it arrived."""
        row = self.next()
        if row is None:
            return False
        tried = self._of(row)
        try:
            _write(self._config, row)
            self._send(row["payload"], tried)
        except (
            OSError,
            http.client.HTTPException,
            subprocess.SubprocessError,
            ValueError,
        ) as error:
            self._failed(row, tried, " ".join(str(error).split()) or type(error).__name__)
            return False
        # Only if it is still this message: a new result may have come meanwhile.
        same = [FEEDBACK.c[k] == row[k] for k in ("project", "scan", "kind", "payload")]
        done = sa.update(FEEDBACK).where(*same)
        with self._results.engine.begin() as connection:
            connection.execute(done.values(state="delivered", delivered=time.time(), message=""))
        self._tried.pop(_key(row), None)
        return True

    def _of(self, row: Row) -> _Tried:
        """The attempts for this message; a new result for the same scan starts from zero."""
        known = self._tried.get(_key(row))
        if known is None or known.payload != row["payload"]:
            known = self._tried[_key(row)] = _Tried(row["payload"])
        return known

    def _failed(self, row: Row, tried: _Tried, text: str) -> None:
        """Note a failure, and how long the message has to wait now."""
        wait = min(FIRST_WAIT_S * 2 ** min(tried.failures, 10), LONGEST_WAIT_S)
        tried.failures += 1
        tried.not_before = time.monotonic() + wait
        key = {k: row[k] for k in ("project", "scan", "kind")}
        attempts = int(row["attempts"]) + 1
        self._results.save("feedback", [{**key, "attempts": attempts, "message": text}])
        self._results.message(
            f"{row['kind']} of scan {row['scan']} could not be delivered, it is tried again: {text}",
            level="warning",
            project=row["project"],
            scan=row["scan"],
        )

    def _send(self, payload: str, tried: _Tried) -> None:
        """Command, then POST; a command that has succeeded is not run again for the sake of the POST."""
        if self._config.feedback_command and not tried.command_done:
            _run(self._config.feedback_command, payload)
            tried.command_done = True
        if self._config.feedback_url:
            _post(self._config.feedback_url, payload)


def feedback_path(config: OnlineConfig, row: Mapping[str, Any]) -> Path:
    """The file of one result."""
    name = f"{row['scan']:06d}.{safe_name(row['kind'])}.json"
    return config.project(row["project"]) / "feedback" / name


def _key(row: Row) -> tuple[str, int, str]:
    """What a message is about; a newer one with the same key replaces it."""
    return row["project"], row["scan"], row["kind"]


def _write(config: OnlineConfig, row: Row) -> None:
    """Write the file of a result, unless it is there with this content."""
    path = feedback_path(config, row)
    data = (row["payload"] + "\n").encode()
    if not path.is_file() or path.read_bytes() != data:
        write_whole(path, data)


def _run(command: list[str], payload: str) -> None:
    """Run the command in a session of its own, so that a timeout also ends its child processes."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=subprocess.DEVNULL, stderr=pipe, start_new_session=True
    ) as process:
        try:
            _, said = process.communicate(payload.encode(), timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise OSError(f"{command[0]} took longer than {TIMEOUT_S:.0f} s") from None
    if process.returncode:
        last = said.decode("utf-8", "replace").strip().splitlines()[-1:]
        words = "".join(f": {line[:200]}" for line in last)
        raise OSError(f"{command[0]} ended with code {process.returncode}{words}")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: a redirected POST would arrive as a GET without its message."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _post(url: str, payload: str) -> None:
    """POST JSON; raises OSError when it does not arrive, and does not follow redirects."""
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"feedback_url is {url!r}, expected http://... or https://...")
    request = urllib.request.Request(
        url,
        data=payload.encode(),
        headers={"Content-Type": "application/json"},
        method="POST",
    )
    # The control system is in the house: no proxy.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
    with opener.open(request, timeout=TIMEOUT_S):
        pass  # other answers than 2xx are errors


@contextlib.contextmanager
def _alone(config: OnlineConfig) -> Iterator[bool]:
    """Hold the delivery lock of the site; False when another process, on any host, has it."""
    config.data.mkdir(parents=True, exist_ok=True)
    with open(config.data / LOCK, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError as error:
            log.debug("no locks on this file system: %s", error)
        yield True
