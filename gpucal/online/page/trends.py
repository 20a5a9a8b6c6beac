"""Receiver, system and sky of the last scans against time, as medians over the pixels of a receiver."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import sqlalchemy as sa

from gpucal.online.page.latest_results import median
from gpucal.online.page.result_queries import (
    SKY,
    SOURCES,
    TEMPERATURES,
    Key,
    Row,
    newest_scans,
    rows_of_scan,
)
from gpucal.online.site.results import Results
from gpucal.online.site.tables import TABLES

LAST_SCANS = 200
SHOWN = (*TEMPERATURES, *SKY)


class Trends:
    """The points of the last scans; a scan is read again only when its rows have changed."""

    def __init__(self) -> None:
        self._known: dict[Key, tuple[Any, list[Row]]] = {}

    def latest(self, results: Results) -> list[Row]:
        """Points in the order of time, one per scan, band and receiver, of scans of which anything is known.

        {project, scan, band, receiver, mjd, t_rec, t_sys, t_sys_star, pwv, pwv_error, tau, valid}: K, mm, Np at
        the zenith, medians over the valid pixels, null where not known; what L1 tells wins over the loads alone.
        """
        marks = _marks(results)
        newest = newest_scans(results, SOURCES["calibrations"], LAST_SCANS)
        before, self._known = self._known, {}
        for key in newest:
            known = before.get(key)
            if known is None or known[0] != marks.get(key):
                known = (marks.get(key), _points(rows_of_scan(results, "calibrations", *key)))
            self._known[key] = known
        points = [point for _, of_scan in self._known.values() for point in of_scan]
        return sorted(points, key=lambda p: (p["mjd"], p["scan"], p["band"], p["receiver"]))


def _points(rows: list[Row]) -> list[Row]:
    """The points of one scan, from the rows of its pixels."""
    groups: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in rows:
        if row["mjd"] is not None:
            groups[str(row["band"]), int(row["receiver"])].append(row)
    points = []
    for (band, receiver), members in groups.items():
        good = [m for m in members if m["valid"]]
        head = {"project": members[0]["project"], "scan": members[0]["scan"]}
        values = {name: median([m[name] for m in good or members]) for name in SHOWN}
        mjd = max(float(m["mjd"]) for m in members)
        place = {"band": band, "receiver": receiver, "mjd": mjd, "valid": bool(good)}
        if any(value is not None for value in values.values()):
            points.append({**head, **place, **values})
    return points


def _marks(results: Results) -> dict[Key, tuple[Any, ...]]:
    """(project, scan) -> what differs when any row of it has changed: counts and sums, table by table."""
    found: dict[Key, tuple[Any, ...]] = {}
    for table in SOURCES["calibrations"]:
        target = TABLES[table]
        numbers = [sa.func.sum(target.c[name]) for name in ("mjd", *SHOWN)]
        valid = sa.func.sum(sa.case((target.c.valid.is_(True), 1), else_=0))
        query = sa.select(
            target.c.project, target.c.scan, sa.func.count(), valid, *numbers
        ).group_by(target.c.project, target.c.scan)
        with results.engine.connect() as connection:
            for project, scan, *values in connection.execute(query):
                key = (str(project), int(scan))
                found[key] = (*found.get(key, ()), table, *values)
    return found
