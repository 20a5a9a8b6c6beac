"""What ``gpucal inspect`` shows of a CLASS file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from gpucal.cli.show.summary import make_console
from gpucal.errors import GpucalError
from gpucal.io.gildas.reader import ClassFile, open_class

MAX_ROWS = 60
"""Spectra shown in the table; --json lists them all."""
Row = dict[str, Any]


def describe_class(path: Path) -> Row:
    """Return the spectra of a CLASS file as rows; headers are read, values are not.

    Raises ImportFormatError when the index cannot be read; a spectrum that cannot be read becomes a
    row with its problem.
    """
    file = open_class(path)
    rows = [_row(file, i) for i in range(len(file))]
    telescopes = list(dict.fromkeys(row["telescope"] for row in rows if row["telescope"]))
    return {
        "path": str(path),
        "format": "class",
        "version": file.version,
        "byte_order": "little endian" if file.byte_order == "<" else "big endian",
        "telescope": ", ".join(telescopes[:4]) + (", ..." if len(telescopes) > 4 else "") or None,
        "instrument": None,
        "bytes": path.stat().st_size,
        "scans": rows,
        "n_other": file.n_other,
        "n_superseded": file.n_superseded,
        "problems": [problem for row in rows for problem in row["problems"]],
    }


def _row(file: ClassFile, i: int) -> Row:
    """Header values of spectrum ``i`` in GHz, MHz, km/s, K, s; of a damaged one the problem alone."""
    try:
        header = file.header(i)
    except GpucalError as error:
        return {
            "number": i + 1,
            "index": i,
            "scan": None,
            "telescope": "",
            "problems": [str(error)],
        }
    return {
        "number": header["num"],
        "index": i,
        "scan": header["scan"],
        "subscan": header["subscan"],
        "source": header["source"],
        "line": header["line"],
        "telescope": header["teles"],
        "rest_frequency_ghz": header["restf"] / 1e3,
        "channels": header["nchan"],
        "channel_mhz": header["fres"],
        "velocity_kms": header["voff"],
        "t_sys_k": header["tsys"],
        "time_s": header["time"],
        "problems": [],
    }


def print_class(report: Row) -> None:
    """Print a report of ``describe_class`` as a table."""
    console = make_console()
    rows: Sequence[Row] = report["scans"]
    head = [
        f"{report['path']}: CLASS version {report['version']}, {report['byte_order']}",
        report["telescope"] or "no telescope",
        f"{len(rows)} spectra",
    ]
    for key, what in (("n_other", "no spectra"), ("n_superseded", "replaced by later versions")):
        if report[key]:
            head.append(f"{report[key]} entries left out ({what})")
    console.print(escape(", ".join(head)), highlight=False, soft_wrap=True)
    if rows:
        console.print(_table(rows[:MAX_ROWS]))
    if len(rows) > MAX_ROWS:
        more = f"{len(rows) - MAX_ROWS} more spectra: --json lists them all"
        console.print(more, highlight=False)
    for problem in report["problems"]:
        console.print(escape(f"problem: {problem}"), highlight=False, soft_wrap=True)


def _table(rows: Sequence[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    # where several spectra have one number, only the place in the file tells them apart
    unique = len({row["number"] for row in rows}) == len(rows)
    key = "number" if unique else "index"
    names = ("no" if unique else "index", "scan", "source", "line", "telescope")
    numbers = ("rest GHz", "channels", "MHz", "km/s", "T_sys* K", "time s")
    for name in (*names, *numbers):
        table.add_column(name, no_wrap=True, justify="right" if name in numbers else "left")
    for row in rows:
        cells = [str(row[key]), "unreadable"]
        if not row["problems"]:
            cells = [
                str(row[key]),
                f"{row['scan']}.{row['subscan']}",
                *(row[name] or "-" for name in ("source", "line", "telescope")),
                f"{row['rest_frequency_ghz']:.6f}",
                str(row["channels"]),
                f"{row['channel_mhz']:.6g}",
                f"{row['velocity_kms']:.6g}",
                f"{row['t_sys_k']:.1f}" if row["t_sys_k"] else "-",
                f"{row['time_s']:.4g}" if row["time_s"] else "-",
            ]
        table.add_row(*(escape(cell) for cell in cells), style="red" if row["problems"] else "")
    return table
