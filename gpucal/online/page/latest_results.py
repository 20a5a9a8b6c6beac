"""The last results as the page lists them: one line per mean, or per receiver."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpucal.online.page.result_queries import SOURCES, Key, Row, newest_scans, rows_of_scan
from gpucal.online.site.results import Results
from gpucal.online.site.tables import MEAN

LAST_SCANS = 4

VALUES: dict[str, tuple[tuple[str, str], ...]] = {
    "pointings": (("offset", "arcsec"), ("width", "arcsec"), ("amplitude", "K")),
    "foci": (("position", "mm"), ("peak", "K")),
    "skydips": (("tau", "Np"), ("f_eff", "")),
    "calibrations": (
        ("t_rec", "K"),
        ("t_sys", "K"),
        ("t_sys_star", "K"),
        ("pwv", "mm"),
        ("tau", "Np"),
    ),
    "spectra": (("rms", "K"), ("rms_expected", "K"), ("exptime", "s")),
}
"""What is shown of each table, with units."""
MEDIANS = ("calibrations", "spectra")
"""Tables shown as medians over the pixels of a receiver."""


def latest_results(results: Results) -> dict[str, list[Row]]:
    """Table -> the last few results, each {project, scan, source, place, mjd, values, valid, reason}."""
    found = {}
    for table in VALUES:
        lines: list[Row] = []
        for project, scan in newest_scans(results, SOURCES.get(table, (table,)), LAST_SCANS):
            rows = rows_of_scan(results, table, project, scan)
            lines += _medians(table, rows) if table in MEDIANS else _means(table, rows)
        sources = _sources(results, {(line["project"], line["scan"]) for line in lines})
        for line in lines:
            line["source"] = sources.get((line["project"], line["scan"]), "")
        found[table] = lines
    return found


def _sources(results: Results, keys: set[Key]) -> dict[Key, str]:
    """The sources of these scans."""
    found = {}
    for project, scan in keys:
        for row in results.rows("scans", project=project, scan=scan):
            found[project, scan] = str(row["source"])
    return found


def _line(row: Row, place: str, values: list[Row], valid: bool, reason: str) -> Row:
    """One line; ``source`` is added later."""
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
                "value": median([m[name] for m in good or members]),
                "error": median([m.get(f"{name}_error") for m in good or members]),
            }
            for name, unit in VALUES[table]
        ]
        reasons = sorted({str(m["reason"]) for m in members if not m["valid"] and m["reason"]})
        if good and reasons:
            reasons.insert(0, f"{len(members) - len(good)} of {len(members)} pixels")
        place = f"{band} r{receiver}".strip()
        lines.append(_line(members[0], place, values, bool(good), ": ".join(reasons)))
    return lines


def median(values: Sequence[Any]) -> float | None:
    """The median of what is known; None when nothing is."""
    known = [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]
    return float(np.median(known)) if known else None
