"""Questions to the tables of results that the page asks."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from gpucal.errors import OnlineError
from gpucal.online.site.results import Results
from gpucal.online.site.tables import TABLES

RESULT_TABLES = ("scans", "calibrations", "pointings", "foci", "skydips", "spectra")
LAST_PWV = 200
MAX_ROWS = 1000

Row = dict[str, Any]
Key = tuple[str, int]
"""Project and scan."""


def newest_scans(results: Results, table: str, limit: int) -> list[Key]:
    """(project, scan) of the newest rows of a table by time, newest first."""
    target = TABLES[table]
    when = sa.func.max(target.c.mjd)
    query = (
        sa.select(target.c.project, target.c.scan)
        .group_by(target.c.project, target.c.scan)
        .order_by(when.desc().nulls_last(), target.c.scan.desc())
        .limit(limit)
    )
    with results.engine.connect() as connection:
        return [(str(p), int(s)) for p, s in connection.execute(query)]


def last_scan(results: Results, table: str, project: str) -> list[int]:
    """The newest scan of a project that has rows in a table, as a list of one; [] when there is none."""
    target = TABLES[table]
    query = (
        sa.select(target.c.scan)
        .where(target.c.project == project)
        .order_by(target.c.mjd.desc().nulls_last(), target.c.scan.desc())
        .limit(1)
    )
    with results.engine.connect() as connection:
        return [int(s) for s in connection.scalars(query)]


def table_rows(
    results: Results, table: str, project: str | None, scan: int | None, limit: int
) -> list[Row]:
    """Rows as they are stored, newest first. Raises OnlineError for a table that is not shown."""
    if table not in RESULT_TABLES:
        raise OnlineError(
            f"there is no table of results {table!r}.", hint=f"Tables: {', '.join(RESULT_TABLES)}."
        )
    target = TABLES[table]
    query = sa.select(target)
    if project is not None:
        query = query.where(target.c.project == project)
    if scan is not None:
        query = query.where(target.c.scan == scan)
    order: list[Any] = [target.c.mjd.desc().nulls_last()] if "mjd" in target.c else []
    order += [target.c.scan.desc(), *(k for k in target.primary_key if k.name != "scan")]
    query = query.order_by(*order).limit(min(limit, MAX_ROWS))
    with results.engine.connect() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def pwv_trend(results: Results) -> list[Row]:
    """PWV of the last calibrations, in the order of time: {project, scan, mjd, pwv, pwv_error, valid}."""
    target = TABLES["calibrations"]
    query = (
        sa.select(
            target.c.project,
            target.c.scan,
            target.c.band,
            sa.func.max(target.c.mjd).label("mjd"),
            sa.func.avg(target.c.pwv).label("pwv"),
            sa.func.avg(target.c.pwv_error).label("pwv_error"),
            sa.func.max(sa.case((target.c.valid.is_(True), 1), else_=0)).label("valid"),
        )
        .where(target.c.pwv.is_not(None), target.c.mjd.is_not(None))
        .group_by(target.c.project, target.c.scan, target.c.band)
        .order_by(sa.desc("mjd"))
        .limit(LAST_PWV)
    )
    with results.engine.connect() as connection:
        found = [dict(row) for row in connection.execute(query).mappings()]
    return [{**row, "valid": bool(row["valid"])} for row in found[::-1]]
