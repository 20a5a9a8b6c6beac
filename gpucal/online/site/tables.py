"""The tables of results. Every row has a natural key, so that doing a job again changes nothing."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Boolean, Column, Float, Integer, MetaData, String, Table, Text

METADATA = MetaData()
"""All tables; ``METADATA.create_all(engine)`` makes them."""

MEAN = -1
"""Receiver and pixel of a mean over all of them."""


def _text(name: str) -> Column[Any]:
    """A column of text that is never NULL."""
    return Column(name, Text, nullable=False, default="")


def _key(name: str, kind: type = String) -> Column[Any]:
    """A column of the primary key; a text in it has at most 200 characters."""
    column_type = String(200) if kind is String else kind
    return Column(name, column_type, primary_key=True, autoincrement=False)


def _number(name: str) -> Column[Any]:
    """A column for a f64; NULL when not known."""
    return Column(name, Float(53))


def _of_scan(*more: Column[Any]) -> list[Column[Any]]:
    """Columns of a table with rows per scan."""
    return [_key("project"), _key("scan", Integer), *more]


def _of_pixel(*more: Column[Any]) -> list[Column[Any]]:
    """Columns of a table with rows per scan, band, receiver and pixel."""
    return _of_scan(_key("band"), _key("receiver", Integer), _key("pixel", Integer), *more)


def _verdict() -> list[Column[Any]]:
    """Columns that say whether a row is valid, why not, and when it was measured."""
    return [Column("valid", Boolean), _text("reason"), _number("mjd")]


SCANS = Table(
    "scans",
    METADATA,
    *_of_scan(),
    *(_text(n) for n in ("store", "source", "procedure", "obs_class", "setup", "date_obs")),
    Column("state", String(20), nullable=False, default="open"),
    Column("subscans", Integer, nullable=False, default=0),
    Column("planned", Integer, nullable=False, default=0),
    _number("seen"),
    _text("message"),
    _text("made_from"),
)
"""state: open, ended, calibrated, failed, waiting (for a calibration). seen: s since the epoch. made_from: JSON, see
``tasks.made_from``."""

JOBS = Table(
    "jobs",
    METADATA,
    _key("task"),
    _key("name"),
    Column("project", String(200), nullable=False, default=""),
    Column("scan", Integer, nullable=False, default=-1),
    Column("state", String(20), nullable=False, default="done"),
    *(_number(n) for n in ("finished", "seconds")),
    _text("worker"),
    _text("message"),
)

_SKY = ("t_sys", "t_sys_star", "pwv", "pwv_error", "tau")

CALIBRATIONS = Table(
    "calibrations",
    METADATA,
    *_of_pixel(),
    Column("setup", Text, nullable=False, default=""),
    *(_number(n) for n in ("t_rec", *_SKY, "bad_fraction")),
    *_verdict(),
)
"""Of the loads alone: K, K, K, mm, mm, Np at the zenith, fraction of the channels. A SKY beside the loads gives
what is not of the receiver."""

POINTINGS = Table(
    "pointings",
    METADATA,
    *_of_pixel(_key("direction")),
    *(_number(f"{n}{e}") for n in ("offset", "width", "amplitude") for e in ("", "_error")),
    *_verdict(),
)
"""direction az or el; offset and width (FWHM) arcsec, amplitude K. pixel -1: weighted mean."""

FOCI = Table(
    "foci",
    METADATA,
    *_of_pixel(_key("axis")),
    *(_number(n) for n in ("position", "position_error", "peak", "peak_error")),
    *_verdict(),
)
"""position mm, peak K."""

SKYDIPS = Table(
    "skydips",
    METADATA,
    *_of_pixel(),
    *(_number(f"{n}{e}") for n in ("tau", "f_eff") for e in ("", "_error")),
    *_verdict(),
)

SPECTRA = Table(
    "spectra",
    METADATA,
    *_of_pixel(),
    *(_number(n) for n in ("t_rec", *_SKY, "rms", "rms_expected", "exptime")),
    *_verdict(),
)
"""Calibrated scans as L1 has them: K, K, K, mm, mm, Np at the zenith; noise of their averages: K, K, s. t_sys is NULL
where a vane gave T_sys* alone."""

PLOTS = Table(
    "plots",
    METADATA,
    *_of_scan(_key("file")),
    Column("subscan", Integer, nullable=False, default=-1),
    Column("kind", String(40), nullable=False, default=""),
    _text("title"),
    _number("made"),
    _number("mjd"),
)
"""file: path below the project's folder; made: s since the epoch; mjd: UTC at the end of what is shown."""

FEEDBACK = Table(
    "feedback",
    METADATA,
    *_of_scan(_key("kind")),
    Column("payload", Text, nullable=False, default=""),
    Column("state", String(20), nullable=False, default="waiting"),
    Column("attempts", Integer, nullable=False, default=0),
    _number("delivered"),
    _text("message"),
)

MESSAGES = Table(
    "messages",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("mark", String(64), nullable=False, unique=True),
    _number("time"),
    Column("level", String(10), nullable=False, default="info"),
    Column("task", String(40), nullable=False, default=""),
    Column("project", String(200), nullable=False, default=""),
    Column("scan", Integer, nullable=False, default=-1),
    Column("text", Text, nullable=False, default=""),
)
"""mark: checksum of what was said about what, so that it is said once."""

TABLES: dict[str, Table] = {table.name: table for table in METADATA.sorted_tables}
