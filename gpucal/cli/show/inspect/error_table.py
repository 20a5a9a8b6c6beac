"""``gpucal inspect --errors``: the budget of the errors of every scan, as its ``qa`` holds it; physics section 12."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gpucal.cli.show.inspect.rows import Row
from gpucal.cli.show.summary import make_console
from gpucal.physics.rounding import with_error

SOURCES = {
    "noise": "noise of OFF, HOT, COLD",
    "pwv": "PWV that was given",
    "opacity": "opacity model",
    "t_hot": "T_hot",
    "t_cold": "T_cold",
    "f_eff": "f_eff",
    "g_image": "g_i",
    "t_amb": "T_amb, T_cab",
    "t_cab": "T_cab",
}
"""Names of the sources in the budget, in words."""
FRACTIONS = ("opacity", "pwv")
"""Sources whose error is a fraction of the value."""


def print_errors(report: Row) -> None:
    """Print what limits the PWV and the scale of T_A* of each scan and band, then the problems."""
    console = make_console()
    for row in report["scans"]:
        label = f"scan {row['scan']} {row['band']}".rstrip()
        if row["error_budget"]:
            console.print(escape(f"{label}: {_head(row['qa'])}"), highlight=False, soft_wrap=True)
            console.print(_table(row["error_budget"], row["qa"]))
        elif not row["problems"]:
            console.print(
                f"{label}: no errors are recorded: it was calibrated by an earlier version.",
                highlight=False,
                soft_wrap=True,
            )
    _print_problems(console, report["problems"])


def _print_problems(console: Console, problems: Sequence[str]) -> None:
    for line in problems:
        console.print(escape(f"problem: {line}"), highlight=False, soft_wrap=True)


def _head(qa: Mapping[str, Any]) -> str:
    """The errors together, in one line."""
    pwv, error, noise, systematic, chi2 = (
        _number(qa.get(name))
        for name in (
            "pwv",
            "pwv_error",
            "pwv_error_noise",
            "pwv_error_systematic",
            "chi2_dof_noise",
        )
    )
    said = [f"T_A* ± {_percent(qa.get('t_a_star_error'))} % in scale"]
    if math.isfinite(error):
        said.append(
            f"PWV {with_error(pwv, error)} mm (noise {noise:.2g}, systematic {systematic:.2g})"
        )
        said.append(f"chi2 per degree of freedom by noise alone {chi2:.3g}")
    elif math.isfinite(pwv):
        said.append(f"PWV {pwv:.3g} mm as given")
    return "; ".join(said)


def _table(budget: Sequence[Mapping[str, Any]], qa: Mapping[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, side in (("source", "left"), ("error", "right"), ("PWV [mm]", "right")):
        table.add_column(escape(name), justify="right" if side == "right" else "left", no_wrap=True)
    table.add_column(escape("T_A* [%]"), justify="right", no_wrap=True)
    names = dict(SOURCES)
    if any(line["source"] == "t_cab" for line in budget):
        names["t_amb"] = "T_amb"
    for line in budget:
        name = str(line["source"])
        table.add_row(
            names.get(name, name),
            _sigma(name, _number(line["sigma"]), str(line["unit"])),
            _short(_number(line["pwv_mm"])),
            _percent(line["t_a_star"]),
        )
    table.add_row(
        "together", "", _short(_number(qa.get("pwv_error"))), _percent(qa.get("t_a_star_error"))
    )
    return table


def _sigma(name: str, sigma: float, unit: str) -> str:
    """The error of an input with its unit."""
    return f"{100 * sigma:g} %" if name in FRACTIONS else f"{sigma:.2g} {unit}".rstrip()


def _percent(value: Any) -> str:
    """A fraction in percent, with two digits."""
    return _short(100.0 * _number(value))


def _short(value: float) -> str:
    """Two digits; a dash for what is not known or not there."""
    return f"{value:.2g}" if math.isfinite(value) and value else "-"


def _number(value: Any) -> float:
    """A number of the attributes, where NaN is a text; NaN for what is missing."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
