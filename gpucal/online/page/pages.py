"""What the page shows, as plain values for JSON: results, array footprint, PWV, pictures, messages."""

from __future__ import annotations

import math
import threading
import zipfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import numpy as np
import sqlalchemy as sa

from gpucal.errors import OnlineError
from gpucal.online.looks.look import Look, load_look
from gpucal.online.queue.events import safe_name
from gpucal.online.site.config import OnlineConfig
from gpucal.online.site.results import Results
from gpucal.online.site.tables import MEAN, PLOTS, TABLES

ARCSEC = 3600.0
RESULT_TABLES = ("scans", "calibrations", "pointings", "foci", "skydips", "spectra")
LAST_SCANS = 4
LAST_PWV = 200
MAX_ROWS = 1000
MAX_PICTURES = 120

Row = dict[str, Any]
Key = tuple[str, int]

VALUES: dict[str, tuple[tuple[str, str], ...]] = {
    "pointings": (("offset", "arcsec"), ("width", "arcsec"), ("amplitude", "K")),
    "foci": (("position", "mm"), ("peak", "K")),
    "skydips": (("tau", "Np"), ("f_eff", "")),
    "calibrations": (("t_rec", "K"), ("t_sys", "K"), ("pwv", "mm")),
    "spectra": (("rms", "K"), ("rms_expected", "K"), ("exptime", "s")),
}
"""What is shown of each table, with units."""
MEDIANS = ("calibrations", "spectra")
"""Tables shown as medians over the pixels of a receiver."""


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


def latest_results(results: Results) -> dict[str, list[Row]]:
    """Table -> the last few results, each {project, scan, source, place, mjd, values, valid, reason}."""
    found = {}
    for table in VALUES:
        lines: list[Row] = []
        for project, scan in newest_scans(results, table, LAST_SCANS):
            rows = results.rows(table, project=project, scan=scan)
            lines += _medians(table, rows) if table in MEDIANS else _means(table, rows)
        sources = _sources(results, {(line["project"], line["scan"]) for line in lines})
        for line in lines:
            line["source"] = sources.get((line["project"], line["scan"]), "")
        found[table] = lines
    return found


def _sources(results: Results, keys: set[Key]) -> dict[Key, str]:
    found = {}
    for project, scan in keys:
        for row in results.rows("scans", project=project, scan=scan):
            found[project, scan] = str(row["source"])
    return found


def _line(row: Row, place: str, values: list[Row], valid: bool, reason: str) -> Row:
    keys = ("project", "scan", "mjd")
    known = {k: row[k] for k in keys}
    return {**known, "place": place, "values": values, "valid": valid, "reason": reason}


def _means(table: str, rows: Sequence[Row]) -> list[Row]:
    """The means over pixels where there are any, else every pixel."""
    chosen = [r for r in rows if r["pixel"] == MEAN] or list(rows)
    lines = []
    for row in chosen:
        direction = str(row.get("direction") or row.get("axis") or "")
        pixel = (
            "mean"
            if row["pixel"] == MEAN
            else f"{row['band']} r{row['receiver']} p{row['pixel']}".strip()
        )
        values = [
            {"name": n, "unit": u, "value": row[n], "error": row[f"{n}_error"]}
            for n, u in VALUES[table]
        ]
        place = " ".join(part for part in (direction, pixel) if part)
        lines.append(_line(row, place, values, bool(row["valid"]), str(row["reason"])))
    return lines


def _medians(table: str, rows: Sequence[Row]) -> list[Row]:
    """One line per band and receiver: medians over the valid pixels."""
    groups: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in rows:
        groups[str(row["band"]), int(row["receiver"])].append(row)
    lines = []
    for (band, receiver), members in groups.items():
        good = [m for m in members if m["valid"]]
        values = [
            {
                "name": name,
                "unit": unit,
                "value": _median([m[name] for m in good or members]),
                "error": _median([m.get(f"{name}_error") for m in good or members]),
            }
            for name, unit in VALUES[table]
        ]
        reasons = sorted({str(m["reason"]) for m in members if not m["valid"] and m["reason"]})
        if good and reasons:
            reasons.insert(0, f"{len(members) - len(good)} of {len(members)} pixels")
        place = f"{band} r{receiver}".strip()
        lines.append(_line(members[0], place, values, bool(good), ": ".join(reasons)))
    return lines


def _median(values: Sequence[Any]) -> float | None:
    known = [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]
    return float(np.median(known)) if known else None


class Footprints:
    """T_rec, T_sys and rms of the newest calibration and spectra, at the places of the pixels."""

    def __init__(self, config: OnlineConfig) -> None:
        self.config = config
        self._lock = threading.Lock()
        self._known: tuple[tuple[str, int], Look] | None = None

    def latest(self, results: Results) -> list[Row]:
        """One entry per band and receiver: {project, band, receiver, placed, look, pixels, scans}.

        pixels: {pixel, x, y, t_rec, t_sys, rms, rms_expected, valid, reason}; x and y in arcsec, or
        the columns and rows of a square grid where placed is False; K.
        """
        newest = newest_scans(results, "calibrations", 1) or newest_scans(results, "spectra", 1)
        if not newest:
            return []
        project = newest[0][0]
        merged: dict[tuple[str, int], dict[int, Row]] = defaultdict(dict)
        scans: dict[str, int] = {}
        for table in MEDIANS:
            for scan in _last_scan(results, table, project):
                scans[table] = scan
                for row in results.rows(table, project=project, scan=scan):
                    _merge(merged[str(row["band"]), int(row["receiver"])], row)
        look = self._newest_look(project)
        entries = []
        for (band, receiver), pixels in sorted(merged.items()):
            x, y, placed = _places(look, band, receiver, sorted(pixels))
            listed = [{**pixels[p], "x": x[i], "y": y[i]} for i, p in enumerate(sorted(pixels))]
            name = f"scan {look.scan}" if look is not None and placed else ""
            head = {"project": project, "band": band, "receiver": receiver, "scans": scans}
            entries.append({**head, "placed": placed, "look": name, "pixels": listed})
        return entries

    def _newest_look(self, project: str) -> Look | None:
        """The look that was written last; one that cannot be read is passed over."""
        dated = []
        for path in self.config.work_of("calibration", project).glob("*.npz"):
            try:
                dated.append((path.stat().st_mtime_ns, path))
            except OSError:
                continue
        for when, path in sorted(dated, reverse=True)[:5]:
            with self._lock:
                if self._known is not None and self._known[0] == (str(path), when):
                    return self._known[1]
            if not zipfile.is_zipfile(path):
                continue
            try:
                look = load_look(path)
            except (OnlineError, zipfile.BadZipFile, TypeError):
                continue
            if not look.bands:
                continue
            with self._lock:
                self._known = ((str(path), when), look)
            return look
        return None


def _last_scan(results: Results, table: str, project: str) -> list[int]:
    target = TABLES[table]
    query = (
        sa.select(target.c.scan)
        .where(target.c.project == project)
        .order_by(target.c.mjd.desc().nulls_last(), target.c.scan.desc())
        .limit(1)
    )
    with results.engine.connect() as connection:
        return [int(s) for s in connection.scalars(query)]


def _merge(pixels: dict[int, Row], row: Mapping[str, Any]) -> None:
    pixel = int(row["pixel"])
    if pixel < 0:
        return
    names = ("t_rec", "t_sys", "rms", "rms_expected")
    known = pixels.setdefault(
        pixel, {"pixel": pixel, **dict.fromkeys(names), "valid": True, "reason": ""}
    )
    known.update({n: row[n] for n in names if row.get(n) is not None})
    if not row["valid"]:
        known["valid"] = False
        known["reason"] = str(row["reason"])


def _places(
    look: Look | None, band: str, receiver: int, pixels: Sequence[int]
) -> tuple[list[float], list[float], bool]:
    """Offsets in arcsec from a look, else a square grid in the order of the pixels."""
    for found in look.bands if look is not None else ():
        receivers, count = found.pixel_lon.shape
        if found.band != band or receiver >= receivers or not pixels or max(pixels) >= count:
            continue
        together = ARCSEC * np.stack(
            [found.pixel_lon[receiver, pixels], found.pixel_lat[receiver, pixels]], axis=1
        )
        distinct = len(np.unique(together.round(4), axis=0)) == len(pixels)
        if np.isfinite(together).all() and distinct:
            return together[:, 0].tolist(), together[:, 1].tolist(), True
    side = max(1, math.ceil(math.sqrt(len(pixels))))
    columns = [float(i % side) for i in range(len(pixels))]
    return columns, [-float(i // side) for i in range(len(pixels))], False


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


def picture_address(row: Mapping[str, Any]) -> str:
    """Where the page finds a picture; "" for a file that does not lie below ``plots/``."""
    head, _, rest = str(row["file"]).partition("/")
    if head != "plots" or not rest:
        return ""
    made = int(1e3 * float(row["made"] or 0.0))
    project, path = safe_name(str(row["project"])), quote(rest)
    return f"/picture/{project}/{path}?v={made}"


def plot_list(results: Results, chosen: Mapping[str, Any], limit: int, offset: int) -> Row:
    """Pictures, newest first, and what there is to choose from.

    ``chosen``: project, scan and kind, each missing = any. The choices of a level hold for what was
    chosen above it: scans of the project, kinds of the scan.
    """
    levels = ("project", "scan", "kind")
    conditions: list[Any] = []
    choices: dict[str, list[Any]] = {}
    with results.engine.connect() as connection:
        for name in levels:
            column = PLOTS.c[name]
            order = column.desc() if name == "scan" else column
            query = sa.select(column).where(*conditions).distinct().order_by(order).limit(MAX_ROWS)
            choices[f"{name}s"] = list(connection.scalars(query))
            if chosen.get(name) is not None:
                conditions.append(column == chosen[name])
        count = sa.select(sa.func.count()).select_from(PLOTS).where(*conditions)
        total = int(connection.execute(count).scalar_one())
        query = sa.select(PLOTS).where(*conditions)
        newest = PLOTS.c.made.desc().nulls_last(), PLOTS.c.scan.desc(), PLOTS.c.file
        query = query.order_by(*newest).limit(min(limit, MAX_PICTURES)).offset(offset)
        rows = [dict(row) for row in connection.execute(query).mappings()]
    plots = [{**row, "url": url} for row in rows if (url := picture_address(row))]
    return {**choices, "total": total, "plots": plots}


def picture_file(config: OnlineConfig, project: str, path: str) -> Path | None:
    """The picture ``path`` below the plots of a project; None for everything that is not one.

    The place is checked after links are followed, so that none leads out of the folder.
    """
    parts = path.split("/")
    if "\0" in path or "\\" in path or any(p in ("", ".", "..") or p[0] == "." for p in parts):
        return None
    if PurePosixPath(path).suffix.lower() not in (".png", ".svg"):
        return None
    try:
        root = (config.project(project) / "plots").resolve(strict=True)
        found = root.joinpath(*parts).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):
        return None
    inside = found.is_relative_to(root) and found.is_relative_to(config.data.resolve())
    picture = found.suffix.lower() in (".png", ".svg")
    return found if inside and picture and found.is_file() else None
