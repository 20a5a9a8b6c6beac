"""The live state of the pipeline for all listeners of the page: one look a second, sent when it changes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import sqlalchemy as sa
from starlette.concurrency import run_in_threadpool

from gpucal.errors import OnlineError
from gpucal.online.page.footprints import Footprints
from gpucal.online.page.latest_results import latest_results
from gpucal.online.page.trends import Trends
from gpucal.online.site.config import OnlineConfig
from gpucal.online.site.results import Results
from gpucal.online.site.tables import MESSAGES, PLOTS
from gpucal.online.workers.status import snapshot

PERIOD_S = 1.0
SHARE = 0.2
"""Part of the time that looking may take: with very many jobs a look is slow, and is rarer then."""
AGAIN_S = 15.0
"""After so long the state is told again: ages and rates change without news."""

State = dict[str, Any]

log = logging.getLogger(__name__)


class Site:
    """Pipe and database as the page sees them; every method may be called from any thread."""

    def __init__(self, config: OnlineConfig) -> None:
        self.config = config
        self._footprints = Footprints(config)
        self._trends = Trends()
        self._results: Results | None = None
        self._watching: sa.Connection | None = None
        self._lock = threading.RLock()
        self._overview: tuple[Any, State] | None = None

    def results(self) -> Results:
        """The database, opened when first needed. Raises OnlineError when that cannot be."""
        with self._lock:
            if self._results is None:
                self._results = Results(self.config.database_url)
            return self._results

    def tell(self, text: str, task: str) -> None:
        """Write an action of the operator into the messages."""
        self.results().message(text, task=task, once=f"{text}{time.time_ns()}")

    def state(self) -> State:
        """Status of the pipeline and ``revision``: what differs when the database holds news."""
        try:
            results = self.results()
            revision = self._revision()
        except (OnlineError, sa.exc.SQLAlchemyError):
            results, revision = None, {}
        return {**snapshot(self.config, results).as_dict(), "revision": revision}

    def _revision(self) -> State:
        """A value that differs when messages, pictures or results are new."""
        with self.results().engine.connect() as connection:
            messages = connection.execute(sa.select(sa.func.max(MESSAGES.c.id))).scalar()
            plots = connection.execute(sa.select(sa.func.count(), sa.func.max(PLOTS.c.made))).one()
        return {"messages": messages or 0, "plots": list(plots), "data": self._data_version()}

    def _data_version(self) -> int:
        """A number that changes with every write by another connection, without reading the tables.

        PostgreSQL tells of a write up to 10 s late, when whoever wrote does nothing more.
        """
        with self._lock:
            try:
                if self._watching is None:
                    connection = self.results().engine.connect()
                    self._watching = connection.execution_options(isolation_level="AUTOCOMMIT")
                if self.results().engine.dialect.name == "sqlite":
                    query = "PRAGMA data_version"
                else:
                    query = "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables"
                return int(self._watching.execute(sa.text(query)).scalar() or 0)
            except sa.exc.SQLAlchemyError:
                self._watching = None
                raise

    def overview(self) -> State:
        """Last results, footprints and trends; computed once for all until the database changes."""
        try:
            version = self._data_version()
            with self._lock:
                if self._overview is None or self._overview[0] != version:
                    results = self.results()
                    fresh = {
                        "results": latest_results(results),
                        "footprints": self._footprints.latest(results),
                        "trends": self._trends.latest(results),
                    }
                    self._overview = (version, fresh)
                return self._overview[1]
        except sa.exc.SQLAlchemyError as error:
            raise OnlineError("the database cannot be read at this moment.") from error


class Feed:
    """Observes the pipeline while there are listeners; each gets the newest state and no backlog."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._listeners: set[asyncio.Queue[State | None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._last: State | None = None

    @contextlib.asynccontextmanager
    async def listen(self) -> AsyncIterator[asyncio.Queue[State | None]]:
        """A queue that holds at most one item, the newest state not yet taken; None means the end."""
        queue: asyncio.Queue[State | None] = asyncio.Queue(maxsize=1)
        self._listeners.add(queue)
        if self._last is not None:
            queue.put_nowait(self._last)
        if self._task is None:
            self._task = asyncio.create_task(self._look())
        try:
            yield queue
        finally:
            self._listeners.discard(queue)
            if not self._listeners and self._task is not None:
                self._task.cancel()
                self._task, self._last = None, None

    async def _look(self) -> None:
        """Look at the pipeline until cancelled; a slow look is followed by a longer pause."""
        before: Any = None
        told = 0.0
        while True:
            begin = time.monotonic()
            try:
                state = await run_in_threadpool(self.site.state)
            except Exception as error:  # whatever it is, it may be over at the next look
                log.warning("no look at the pipeline: %s", error)
            else:
                now = news(state)
                if now != before or begin - told > AGAIN_S:
                    before, told = now, begin
                    self._tell(state)
            spent = time.monotonic() - begin
            await asyncio.sleep(max(PERIOD_S, spent / SHARE))

    def close(self) -> None:
        """End the streams of all listeners."""
        self._tell(None)

    def _tell(self, state: State | None) -> None:
        """Put the state into every queue in place of the old one, so that no listener lags behind."""
        self._last = state
        for queue in self._listeners:
            while not queue.empty():
                queue.get_nowait()
            queue.put_nowait(state)


def news(state: State) -> Any:
    """The part of a state whose change is worth an event; times are left out."""
    tasks = [
        {k: v for k, v in task.items() if k not in ("oldest", "rate")} for task in state["tasks"]
    ]
    problems = [
        (p["level"], p["task"], re.sub(r"[0-9.]+", "", p["text"])) for p in state["problems"]
    ]
    workers = [(w["worker"], w["task"], w["state"], w["jobs"]) for w in state["workers"]]
    rest = (state["revision"], state["scans"], len(state["failed"]), state["messages"])
    return tasks, problems, workers, rest
