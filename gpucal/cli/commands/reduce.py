"""``gpucal reduce``: pointing, focus, skydip or switched average of one scan, as a table or JSON."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from gpucal.cli.options.complete import complete_scans, complete_tables, complete_words
from gpucal.cli.options.scans import chosen_scans
from gpucal.errors import ConfigError, GpucalError

EXIT_INVALID = 1
EXIT_SOME = 2
ROWS_SHOWN = 24
"""Fits in the table; an array has many pixels that did not see the source."""

Row = dict[str, Any]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A setting of the fit: order, throw, fit_throw, fwhm, min_snr (pointing); f_eff, form, "
        "free_gain (skydip); focus_snr; line_ghz=LOW:HIGH (on-off). May be repeated.",
    ),
]


def reduce(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="Raw (L0) or calibrated (L1).")],
    scans: Annotated[
        str,
        typer.Option(
            "--scans",
            "--scan",
            metavar="1,5-9",
            help="Scan number, or several.",
            autocompletion=complete_scans,
        ),
    ],
    procedure: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="auto, pointing, focus, skydip or on-off.",
            autocompletion=complete_words("auto", "pointing", "focus", "skydip", "on-off"),
        ),
    ] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    given: Settings = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="F", help="TOML file of gpucal calibrate.")
    ] = None,
    atmosphere: Annotated[
        str | None,
        typer.Option(
            metavar="TABLE", help="As in gpucal calibrate.", autocompletion=complete_tables
        ),
    ] = None,
    tau: Annotated[float | None, typer.Option(metavar="NP", help="Zenith opacity.")] = None,
) -> None:
    """Reduce a scan, or several: offsets, best focus, opacity or average, with errors and what is wrong.

    Exit codes: 0 the result is valid, 1 it is not (the table says why), 2 some of several are not, 64 usage error.
    With --json several scans are a list of objects.
    """
    from gpucal.cli.commands.reduce_settings import reduce_options
    from gpucal.config import load_config
    from gpucal.io.files.json_text import dumps
    from gpucal.pipeline.reduction.procedure_choice import known_procedure

    numbers = sorted(chosen_scans(scans) or ())
    if not numbers:
        raise ConfigError(
            "--scans names no scan.", hint="Give a number, or several: --scans 3,5-9."
        )
    options = reduce_options(given or [])
    settings = load_config(config, atmosphere=atmosphere, tau=tau)
    chosen: Any = "auto" if procedure == "auto" else known_procedure(procedure)
    how = {"procedure": chosen, "config": settings, "options": options}
    reports = list(_reduced(store, numbers, how, shown=not json))
    if json:
        print(dumps(reports[0] if len(numbers) == 1 else reports, indent=2))
    raise typer.Exit(_exit_code([report["valid"] for report in reports], len(numbers)))


def _exit_code(valid: list[bool], asked: int) -> int:
    """0 when all the scans that were asked for are valid, 1 when none is, else 2."""
    return 0 if sum(valid) == asked else EXIT_SOME if any(valid) else EXIT_INVALID


def _reduced(store: Path, numbers: list[int], how: dict[str, Any], *, shown: bool) -> Iterator[Row]:
    """The reports of the scans, printed as they come; of several one that fails is told of and left out."""
    from gpucal.pipeline.reduction.reduce import reduce_scan

    for number in numbers:
        try:
            report = describe(reduce_scan(store, number, **how))
        except GpucalError as error:
            if len(numbers) == 1 or isinstance(error, ConfigError):
                raise
            print(f"gpucal: error: {error}", file=sys.stderr)
            continue
        if shown:
            _print(report)
        yield report


def describe(found: Any) -> Row:
    """The printed content of a ``Reduced`` as plain values; arrays are left out."""
    return {
        "scan": found.scan,
        "procedure": found.procedure,
        "source": found.source,
        "scale": found.scale,
        "mjd": found.mjd,
        "azimuth_deg": math.degrees(found.azimuth),
        "elevation_deg": math.degrees(found.elevation),
        "valid": found.valid,
        "reason": found.reason,
        "atmosphere": found.atmosphere,
        "warnings": list(found.warnings),
        "results": list(_means(found.result)),
        "fits": list(_fits(found.result)),
    }


def _measured(value: Any) -> Row:
    """A ``Measured`` as plain values, with the text that a table shows."""
    return {"value": value.value, "error": value.error, "unit": value.unit, "text": str(value)}


def _means(result: Any) -> Iterator[Row]:
    """The means over pixels, one row each."""
    if isinstance(result, dict):
        return
    for m in result.means:
        yield {
            "axis": m.axis,
            "name": m.name,
            **_measured(m.mean),
            "n": m.n,
            "rejected": m.rejected,
            "chi2_dof": m.chi2 / m.dof if m.dof else None,
            "valid": m.valid,
            "reason": m.reason,
        }


def _fits(result: Any) -> Iterator[Row]:
    """One row per fit (on-off: per pixel)."""
    if isinstance(result, dict):
        for band, switched in result.items():
            yield from _pixels(band, switched)
        return
    for fit in result.fits:
        yield {
            "axis": fit.axis,
            "band": fit.label,
            "receiver": fit.receiver,
            "pixel": fit.pixel,
            "parameters": {
                k: _measured(v) for k, v in fit.parameters.items() if math.isfinite(v.value)
            },
            "quality": asdict(fit.quality),
            "valid": fit.valid,
            "reason": fit.reason,
        }


def _pixels(band: str, switched: Any) -> Iterator[Row]:
    """One row per pixel of a switched average: rms, expected rms, time, and the line if one was asked for."""
    import numpy as np

    lines = {(check.receiver, check.pixel): check for check in switched.line}
    for r, a in np.ndindex(*switched.rms.shape):
        line = lines.get((r, a))
        seen = math.isfinite(switched.rms[r, a])
        parameters = {
            "rms": {"value": float(switched.rms[r, a]), "unit": "K"},
            "expected": {"value": float(switched.expected[r, a]), "unit": "K"},
            "time": {"value": float(switched.time[r, a]), "unit": "s"},
        }
        for item in parameters.values():
            item["text"] = f"{item['value']:.4g} {item['unit']}"
        if line is not None:
            parameters |= {"line": _measured(line.area), "peak": _measured(line.peak)}
        yield {
            "axis": switched.mode,
            "band": band,
            "receiver": r,
            "pixel": a,
            "parameters": parameters,
            "quality": {"n": switched.n, "rms_ratio": float(switched.ratio[r, a])},
            "valid": seen,
            "reason": line.reason if line is not None else "" if seen else "no good sample",
        }


def _print(report: Row) -> None:
    from gpucal.cli.show.summary import make_console

    console = make_console()
    where = f"az {report['azimuth_deg']:.2f}, el {report['elevation_deg']:.2f} deg"
    console.print(
        f"scan {report['scan']} {report['procedure']} {escape(report['source'])} "
        f"({report['scale']}), MJD {report['mjd']:.5f}, {where}",
        highlight=False,
    )
    if report["atmosphere"]:
        console.print(
            escape(f"atmosphere: {report['atmosphere']}"), highlight=False, soft_wrap=True
        )
    if report["results"]:
        console.print(_means_table(report["results"]))
    rows = sorted(report["fits"], key=lambda row: not row["valid"])
    console.print(_fits_table(rows[:ROWS_SHOWN]))
    if len(rows) > ROWS_SHOWN:
        hidden = rows[ROWS_SHOWN:]
        bad = sum(not row["valid"] for row in hidden)
        console.print(f"{len(hidden)} more, {bad} of them not valid: --json shows all")
    for warning in report["warnings"]:
        console.print(f"warning: {escape(warning)}", highlight=False, soft_wrap=True)
    word = "valid" if report["valid"] else "not valid"
    console.print(f"{word}: {escape(report['reason'])}" if report["reason"] else word)


def _means_table(rows: list[Row]) -> Table:
    table = Table(box=box.SIMPLE)
    for name in ("", "mean", "pixels", "chi2/dof", ""):
        table.add_column(name)
    for row in rows:
        chi2 = "" if row["chi2_dof"] is None else f"{row['chi2_dof']:.2f}"
        pixels = f"{row['n']} of {row['n'] + row['rejected']}"
        name = f"{row['axis']} {row['name']}"
        table.add_row(name, row["text"] if row["valid"] else "-", pixels, chi2, row["reason"])
    return table


def _fits_table(rows: list[Row]) -> Table:
    table = Table(box=box.SIMPLE)
    names = list(dict.fromkeys(name for row in rows for name in row["parameters"]))
    quality, title = "chi2_dof", "chi2/dof"
    if rows and "rms_ratio" in rows[0]["quality"]:
        quality, title = "rms_ratio", "rms/expected"
    for name in ("", "R", "A", *names, "n", title, ""):
        table.add_column(name)
    for row in rows:
        found = [row["parameters"].get(name, {}).get("text", "") for name in names]
        number = row["quality"].get(quality)
        table.add_row(
            f"{row['band']} {row['axis']}".strip(),
            str(row["receiver"]),
            str(row["pixel"]),
            *found,
            str(row["quality"].get("n", "")),
            f"{number:.2f}" if number is not None and math.isfinite(number) else "",
            escape(row["reason"]),
        )
    return table
