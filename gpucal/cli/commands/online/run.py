"""``gpucal online run``: the supervisor and its workers, until they are told to stop."""

from __future__ import annotations

import os
import signal
from typing import Any

from gpucal.online.site.config import OnlineConfig


def run(settings: OnlineConfig) -> None:
    """Process what comes, until SIGTERM, Ctrl-C or gpucal online stop; the jobs in hand are finished.

    A second Ctrl-C ends at once; those jobs are then done again by the next run.
    """
    import logging

    import sqlalchemy as sa

    from gpucal.online.workers.control import done, pending_requests
    from gpucal.online.workers.supervise import Supervisor

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    supervisor = Supervisor(settings)
    for old in pending_requests(settings.pipe):
        done(old)  # it was meant for a run before this one
    address = sa.make_url(settings.database_url).render_as_string(hide_password=True)
    print(f"pipe      {settings.pipe.absolute()}")
    print(f"data      {settings.data.absolute()}/PROJECT")
    print(f"database  {address}")
    print("page      gpucal online serve, with the same configuration")
    print("stop      Ctrl-C, or gpucal online stop", flush=True)

    def stop(*_: Any) -> None:
        if supervisor.stopping:
            _kill_children()
            raise KeyboardInterrupt
        supervisor.stop()
        os.write(1, b"stopping; the jobs in hand are finished first\n")  # print is not reentrant

    # A shell starts jobs in the background with SIGINT ignored: Ctrl-C there is not meant for them.
    heard = [signal.SIGTERM]
    heard += [signal.SIGINT] if signal.getsignal(signal.SIGINT) != signal.SIG_IGN else []
    before = [(number, signal.signal(number, stop)) for number in heard]
    try:
        supervisor.run()
    finally:
        for number, handler in before:
            signal.signal(number, handler)
    print("stopped")


def _kill_children() -> None:
    """End the workers at once."""
    import multiprocessing

    for child in multiprocessing.active_children():
        child.kill()
