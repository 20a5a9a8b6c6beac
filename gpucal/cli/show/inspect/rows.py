"""The form of what ``gpucal inspect`` finds: a report with a row per scan and band."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]


def empty_row(number: int, problems: Sequence[str], *, band: str = "") -> Row:
    """The row of a scan of which nothing could be read; also the empty form of a row."""
    return {
        "scan": number,
        "band": band,
        "kind": "unreadable",
        "mode": "",
        "subscans": {},
        "source": "",
        "shape": [],
        "dtype": "",
        "rounding_step_k": None,
        "bytes": 0,
        "frequency_ghz": None,
        "mjd": None,
        "elevation_deg": None,
        "load_scan": None,
        "load_rule": "",
        "error_budget": [],
        "warnings": [],
        "assumptions": [],
        "problems": list(problems),
    }


def report(path: str, form: str, attrs: Any, rows: list[Row], problems: list[str]) -> Row:
    """The whole answer; ``problems`` holds those of the rows and those of the store, each once."""
    return {
        "path": path,
        "format": form,
        "telescope": attrs.get("telescope"),
        "instrument": attrs.get("instrument"),
        "bytes": sum(row["bytes"] for row in rows),
        "scans": rows,
        "remarks": [],
        "warnings": [],
        "problems": list(dict.fromkeys([*(p for row in rows for p in row["problems"]), *problems])),
    }
