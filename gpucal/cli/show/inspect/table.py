"""``gpucal inspect --table``: the night as a table for other programs, CSV, ECSV or JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from gpucal.cli.show.inspect.rows import Row
from gpucal.io.files.json_text import dumps

TableFormat = Literal["csv", "ecsv", "json"]
FORMATS: tuple[TableFormat, ...] = ("csv", "ecsv", "json")
_MJD_ZERO = datetime(1858, 11, 17)


@dataclass(frozen=True)
class Column:
    """A column of the table. kind: the type as ECSV names it; value: its cell from a row, None = not known."""

    name: str
    kind: Literal["int64", "float64", "string"]
    unit: str
    about: str
    value: Callable[[Row], Any]
    digits: str = ""


def _of(key: str) -> Callable[[Row], Any]:
    return lambda row: row.get(key)


def _night(key: str) -> Callable[[Row], Any]:
    return lambda row: (row.get("night") or {}).get(key)


def _size(axis: int) -> Callable[[Row], Any]:
    return lambda row: row["shape"][axis] if len(row["shape"]) == 5 else None


def ut_of(mjd: float | None) -> str | None:
    """MJD (UTC) as ``2026-01-02T03:04:05``."""
    if mjd is None or not 0 <= mjd < 2e6:
        return None
    when = _MJD_ZERO + timedelta(days=mjd) + timedelta(milliseconds=500)
    return when.isoformat(timespec="seconds")


_HEAD = (
    Column("scan", "int64", "", "scan number", _of("scan")),
    Column("band", "string", "", "band, where a scan has several", _of("band")),
    Column("kind", "string", "", "science, load, bolometer, calibrated or unreadable", _of("kind")),
    Column("source", "string", "", "name of the source", _of("source")),
    Column("mode", "string", "", "observing mode", _of("mode")),
    Column("ut", "string", "", "UTC of the middle of the scan", lambda row: ut_of(row["mjd"])),
    Column("mjd", "float64", "d", "MJD, UTC, of the middle of the scan", _of("mjd"), ".6f"),
    Column("elevation", "float64", "deg", "mean elevation", _of("elevation_deg"), ".3f"),
)
_TAIL = (
    Column("load_scan", "int64", "", "scan of the loads that serve", _of("load_scan")),
    Column("problems", "int64", "", "number of problems", lambda row: len(row["problems"])),
)
RAW = (
    *_HEAD,
    *(
        Column(name, "int64", "", f"number of {name}", _size(axis))
        for axis, name in enumerate(("channels", "dumps", "receivers", "pixels", "subscans"))
    ),
    *_TAIL,
)
CALIBRATED = (
    *_HEAD,
    Column("t_rec", "float64", "K", "T_rec, median", _night("t_rec"), ".3f"),
    Column(
        "t_sys", "float64", "K", "T_sys at the receiver's input, median", _night("t_sys"), ".3f"
    ),
    Column("sidebands", "string", "", "what t_sys holds: DSB or SSB", _night("sidebands")),
    Column(
        "t_sys_star", "float64", "K", "T_sys* above the air, median", _night("t_sys_star"), ".3f"
    ),
    Column("pwv", "float64", "mm", "precipitable water vapour", _night("pwv"), ".5f"),
    Column("pwv_error", "float64", "mm", "its error, all together", _night("pwv_error"), ".6f"),
    Column("pwv_error_noise", "float64", "mm", "by noise", _night("pwv_error_noise"), ".6f"),
    Column(
        "t_a_star_error",
        "float64",
        "%",
        "error of the scale of T_A*",
        _night("t_a_star_error"),
        ".3f",
    ),
    Column("tau", "float64", "", "zenith opacity of the signal band, median", _night("tau"), ".5f"),
    Column("rms_ratio", "float64", "", "rms over expected rms, median", _night("rms_ratio"), ".4f"),
    Column(
        "rounding_step", "float64", "K", "step of rounded spectra", _of("rounding_step_k"), ".9g"
    ),
    Column("flagged", "float64", "%", "flagged samples", _night("flagged"), ".3f"),
    Column("flags", "string", "", "remarks that hold for the whole scan", _night("flags")),
    *_TAIL,
)
CLASS = (
    Column("number", "int64", "", "number of the spectrum", _of("number")),
    Column("scan", "int64", "", "scan number", _of("scan")),
    Column("subscan", "int64", "", "subscan", _of("subscan")),
    Column("source", "string", "", "name of the source", _of("source")),
    Column("line", "string", "", "name of the line", _of("line")),
    Column("telescope", "string", "", "telescope", _of("telescope")),
    Column("rest_frequency", "float64", "GHz", "rest frequency", _of("rest_frequency_ghz"), ".9f"),
    Column("channels", "int64", "", "number of channels", _of("channels")),
    Column(
        "t_sys", "float64", "K", "TSYS of the file: by convention T_sys*", _of("t_sys_k"), ".3f"
    ),
    Column("time", "float64", "s", "integration time", _of("time_s"), ".3f"),
    Column("problems", "int64", "", "number of problems", lambda row: len(row["problems"])),
)


def table_text(report: Row, form: TableFormat) -> str:
    """The rows of a report as text that ends with a newline.

    CSV is for pandas and spreadsheets (empty: not known), ECSV for ``astropy.table.Table.read`` with units and
    descriptions, JSON a list with an object per row (null: not known).
    """
    columns = {"gpucal-l0": RAW, "gpucal-l1": CALIBRATED}.get(report["format"], CLASS)
    rows = report["scans"]
    if form == "json":
        listed = [{c.name: _plain(c, c.value(row)) for c in columns} for row in rows]
        return dumps(listed, indent=1) + "\n"
    head = _ecsv_head(columns, report) if form == "ecsv" else ""
    return head + _delimited(columns, rows)


def _plain(column: Column, value: Any) -> Any:
    """A number rounded as in the text, a string never None."""
    if column.kind == "string":
        return value or ""
    if value is None or (column.kind == "float64" and not float("-inf") < value < float("inf")):
        return None
    return float(format(value, column.digits)) if column.kind == "float64" else int(value)


def _delimited(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(column.name for column in columns)
    for row in rows:
        writer.writerow(_cell(column, column.value(row)) for column in columns)
    return text.getvalue()


def _cell(column: Column, value: Any) -> str:
    """A cell as text, "" where it is not known."""
    plain = _plain(column, value)
    if plain is None:
        return ""
    return format(plain, column.digits) if column.kind == "float64" else str(plain)


def _ecsv_head(columns: Sequence[Column], report: Row) -> str:
    """The comment lines of an ECSV 1.0 file; JSON is YAML too, so it quotes what needs quotes."""
    lines = ["%ECSV 1.0", "---", "delimiter: ','", "datatype:"]
    for column in columns:
        unit = f"unit: {json.dumps(column.unit)}, " if column.unit else ""
        words = json.dumps(column.about)
        lines.append(
            f"- {{name: {column.name}, {unit}datatype: {column.kind}, description: {words}}}"
        )
    lines.append("meta: !!omap")
    about = {key: report.get(key) for key in ("path", "format", "telescope", "instrument")}
    lines += [f"- {{{key}: {json.dumps(str(value))}}}" for key, value in about.items() if value]
    lines.append("schema: astropy-2.0")
    return "".join(f"# {line}\n" for line in lines)
