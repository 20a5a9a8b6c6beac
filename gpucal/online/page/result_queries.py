"""Questions to the tables of results that the page asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from gpucal.errors import OnlineError
from gpucal.online.site.results import Results
from gpucal.online.site.tables import TABLES

RESULT_TABLES = ("scans", "calibrations", "pointings", "foci", "skydips", "spectra")
SOURCES = {"calibrations": ("calibrations", "spectra")}
"""What is shown under one heading -> the tables it is in, the later ones win; others are in their own."""
TEMPERATURES = ("t_rec", "t_sys", "t_sys_star")
SKY = ("pwv", "pwv_error", "tau")
MAX_ROWS = 1000

Row = dict[str, Any]
Key = tuple[str, int]
"""Project and scan."""


def newest_scans(results: Results, tables: Sequence[str], limit: int) -> list[Key]:
    """(project, scan) of the newest rows of some tables by time, newest first."""
    parts = [
        sa.select(t.c.project, t.c.scan, sa.func.max(t.c.mjd).label("mjd")).group_by(
            t.c.project, t.c.scan
        )
        for t in (TABLES[name] for name in tables)
    ]
    both = sa.union_all(*parts).subquery()
    when = sa.func.max(both.c.mjd)
    query = (
        sa.select(both.c.project, both.c.scan)
        .group_by(both.c.project, both.c.scan)
        .order_by(when.desc().nulls_last(), both.c.scan.desc())
        .limit(limit)
    )
    with results.engine.connect() as connection:
        return [(str(p), int(s)) for p, s in connection.execute(query)]


def rows_of_scan(results: Results, table: str, project: str, scan: int) -> list[Row]:
    """Rows of a scan; those of calibrations hold also what its spectra tell of receiver, system and sky."""
    rows = results.rows(table, project=project, scan=scan)
    if table != "calibrations":
        return rows
    merged = {_place(row): row for row in rows}
    for row in results.rows("spectra", project=project, scan=scan):
        if row["t_rec"] is None and _place(row) not in merged:
            continue
        known = {n: row[n] for n in ("mjd", *TEMPERATURES, *SKY) if row[n] is not None}
        if not row["valid"]:
            known |= {"valid": row["valid"], "reason": row["reason"]}
        before = merged.get(_place(row), row)
        merged[_place(row)] = {**before, **known}
    return [merged[place] for place in sorted(merged)]


def _place(row: Row) -> tuple[str, int, int]:
    """Band, receiver and pixel of a row."""
    return str(row["band"]), int(row["receiver"]), int(row["pixel"])


def last_scan(results: Results, table: str, project: str) -> tuple[float, int] | None:
    """MJD and number of the newest scan of a project that has rows in a table; None when there is none."""
    target = TABLES[table]
    query = (
        sa.select(target.c.mjd, target.c.scan)
        .where(target.c.project == project)
        .order_by(target.c.mjd.desc().nulls_last(), target.c.scan.desc())
        .limit(1)
    )
    with results.engine.connect() as connection:
        found = connection.execute(query).one_or_none()
    return (float(found[0] or 0.0), int(found[1])) if found is not None else None


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
