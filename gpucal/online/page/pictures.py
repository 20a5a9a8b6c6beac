"""Pictures of the projects as the page lists and finds them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from gpucal.online.page.result_queries import MAX_ROWS, Row
from gpucal.online.queue.events import safe_name
from gpucal.online.site.config import OnlineConfig
from gpucal.online.site.results import Results
from gpucal.online.site.tables import PLOTS

MAX_PICTURES = 120


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
    """The picture ``path`` below the plots of a project; None for any other path.

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
