"""Results of the night in a database, and their plain-text views.

SQLite by default, PostgreSQL for several hosts: any SQLAlchemy URL of those two.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from gpucal.errors import OnlineError
from gpucal.online.site.tables import METADATA, TABLES

BUSY_S = 30.0
"""How long SQLite waits for another writer."""

_INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


class Results:
    """The database of results; safe to use from several threads and processes."""

    def __init__(self, url: str) -> None:
        """Open the database and make missing tables. Raises OnlineError when that is not possible."""
        try:
            address = sa.make_url(url)
        except sa.exc.ArgumentError as error:
            raise OnlineError(
                f"{url!r} is not a database address.",
                hint="Expected sqlite:///PATH or postgresql+psycopg://USER@HOST/NAME.",
            ) from error
        name = address.get_backend_name()
        if name not in _INSERTS:
            raise OnlineError(f"the database is {name}, expected sqlite or postgresql.")
        self.url = url
        self._insert = _INSERTS[name]
        arguments = {"timeout": BUSY_S} if name == "sqlite" else {}
        try:
            if name == "sqlite" and address.database:
                Path(address.database).parent.mkdir(parents=True, exist_ok=True)
            # A connection to a file costs little; one that lies about holds files open in every thread.
            pool = sa.NullPool if name == "sqlite" else None
            self.engine = sa.create_engine(
                address, connect_args=arguments, pool_pre_ping=True, poolclass=pool
            )
            if name == "sqlite":
                sa.event.listen(self.engine, "connect", _many_readers)
            self._create()
        except (sa.exc.SQLAlchemyError, ModuleNotFoundError, OSError) as error:
            where = address.render_as_string(hide_password=True)
            text = " ".join(str(getattr(error, "orig", None) or error).split()).rstrip(".")
            raise OnlineError(f"the database {where} cannot be opened: {text}.") from error

    def _create(self) -> None:
        """Make the tables; another process may be doing the same at this moment."""
        for last in (False, True):
            try:
                METADATA.create_all(self.engine)
                self._add_columns()
            except (sa.exc.OperationalError, sa.exc.ProgrammingError, sa.exc.IntegrityError):
                if last:
                    raise
                time.sleep(0.2)

    def _add_columns(self) -> None:
        """Add the columns that the tables of an earlier release do not have yet; what is in them stays."""
        inspector = sa.inspect(self.engine)
        for name, table in TABLES.items():
            there = {column["name"] for column in inspector.get_columns(name)}
            for column in table.columns:
                if column.name not in there:
                    kind = column.type.compile(self.engine.dialect)
                    with self.engine.begin() as connection:
                        connection.execute(
                            sa.text(f"ALTER TABLE {name} ADD COLUMN {column.name} {kind}")
                        )

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def save(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows, or update those with the same key; all of them or none.

        Columns that a row does not name keep their value. NaN is stored as NULL.
        """
        target = TABLES[table]
        keys = [column.name for column in target.primary_key]
        with self.engine.begin() as connection:
            for row in rows:
                values = {name: _storable(value) for name, value in row.items()}
                statement = self._insert(target).values(values)
                changed = {name: statement.excluded[name] for name in values if name not in keys}
                if changed:
                    statement = statement.on_conflict_do_update(index_elements=keys, set_=changed)
                else:
                    statement = statement.on_conflict_do_nothing(index_elements=keys)
                connection.execute(statement)

    def rows(
        self, table: str, *, newest: int | None = None, after: int | None = None, **where: Any
    ) -> list[dict[str, Any]]:
        """Rows in the order of their keys; ``newest``: only that many, from the end.

        ``after``: only messages with a greater id.
        """
        target = TABLES[table]
        query = sa.select(target)
        for name, value in where.items():
            query = query.where(target.c[name] == value)
        if after is not None:
            query = query.where(target.c.id > after)
        keys = list(target.primary_key)
        order = keys if newest is None else [key.desc() for key in keys]
        query = query.order_by(*order).limit(newest)
        with self.engine.connect() as connection:
            found = [dict(row) for row in connection.execute(query).mappings()]
        return found if newest is None else found[::-1]

    def count(self, table: str, **where: Any) -> int:
        """The number of rows."""
        target = TABLES[table]
        query = sa.select(sa.func.count()).select_from(target)
        for name, value in where.items():
            query = query.where(target.c[name] == value)
        with self.engine.connect() as connection:
            return int(connection.execute(query).scalar_one())

    def message(
        self,
        text: str,
        *,
        level: str = "info",
        task: str = "",
        project: str = "",
        scan: int = -1,
        once: str = "",
    ) -> None:
        """Tell observer and operator. What is said about a scan is said once, however often done.

        ``once``: what makes it the same message, by default its text, task, project and scan; for
        messages about the pipeline itself pass something that differs from time to time.
        """
        same = "\x00".join((once or text, level, task, project, str(scan)))
        row = {
            "mark": hashlib.sha256(same.encode()).hexdigest(),
            "time": time.time(),
            "level": level,
            "task": task,
            "project": project,
            "scan": scan,
            "text": text,
        }
        statement = self._insert(TABLES["messages"]).values(row)
        with self.engine.begin() as connection:
            connection.execute(statement.on_conflict_do_nothing(index_elements=["mark"]))


def append_once(path: Path, line: str, *, tail: int = 0) -> bool:
    """Append a line to a text log unless the log holds it; returns whether it was new.

    tail: bytes at its end that are looked at, 0 = all. Several processes may do so at once. A line that a crash cut
    off is completed by a newline.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(max(0, file.seek(0, os.SEEK_END) - tail) if tail else 0)
        text = file.read()
        data = line.encode()
        if data in text.split(b"\n"):
            return False
        gap = b"" if not text or text.endswith(b"\n") else b"\n"
        os.write(file.fileno(), gap + data + b"\n")
    return True


def _storable(value: Any) -> Any:
    """Plain Python values; NaN becomes None, which both databases order and compare alike."""
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and value != value else value


def _many_readers(connection: Any, _record: Any) -> None:
    """Switch SQLite to a mode in which readers continue during a write."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()
