"""The printed form of ``gpucal compare class``: a row per scan, band, receiver and pixel, and the verdict."""

from __future__ import annotations

import math

from rich import box
from rich.markup import escape
from rich.table import Table

from gpucal.cli.show.summary import make_console
from gpucal.compare.class_file import ClassComparison

HEADINGS = (
    "scan",
    "receiver,\npixel",
    "telescope",
    "spectra",
    "axis\n[chan.]",
    "T_A*\nratio",
    "offset\n[K]",
    "T_sys*\nratio",
    "apart\n[arcsec]",
    "apart\n[s]",
    "alike",
    "differs",
)


def print_class_comparison(found: ClassComparison, rtol: float) -> None:
    """Print the table, what one of them lacks, and the verdict last. Ratios: store over file."""
    console = make_console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in HEADINGS:
        left = name in ("scan", "telescope", "differs")
        table.add_column(
            escape(name), justify="left" if left else "right", no_wrap=name != "differs"
        )
    for row in found.rows:
        wrong = row.wrong(rtol)
        table.add_row(
            f"{row.scan} {escape(row.band)}".rstrip(),
            f"{row.receiver}, {row.pixel}",
            escape(row.telescope),
            str(row.count),
            *(
                format(value, form) if math.isfinite(value) else "-"
                for value, form in (
                    (row.axis, ".2g"),
                    (row.ratio, ".4f"),
                    (row.offset_k, ".2g"),
                    (row.t_sys, ".4f"),
                    (row.apart_arcsec, ".2g"),
                    (row.apart_s, ".2g"),
                    (row.alike, ".3f"),
                )
            ),
            "; ".join(wrong) or "-",
            style="yellow" if wrong else "",
        )
    console.print(table)
    for number, count in found.missing.items():
        print(f"in the file alone: {count} spectra of scan {number}")
    if found.only_here:
        print(f"in the store alone: scan {', '.join(map(str, found.only_here))}")
    print(found.verdict(rtol))
