"""``gpucal atm``: build, import and describe atmosphere tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gpucal.cli.options.complete import complete_table_names
from gpucal.errors import ConfigError

if TYPE_CHECKING:
    from gpucal.physics.atm import AtmosphereTable

app = typer.Typer(
    help="Atmosphere tables: from pyrtlib, from am output; range and provenance.",
    no_args_is_help=True,
    add_completion=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def build(
    site: Annotated[str, typer.Option(help="iram_30m, chile_5600m, or the name of your own site.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Table to write: .npz or .zarr.")],
    alt_m: Annotated[float | None, typer.Option("--alt-m", help="Altitude, m.")] = None,
    profile: Annotated[
        str | None, typer.Option(help="AFGL profile: tropical, midlatitude winter, ...")
    ] = None,
    freq_ghz: Annotated[
        tuple[float, float] | None, typer.Option("--freq-ghz", help="Lowest and highest GHz.")
    ] = None,
    pwv_mm: Annotated[
        tuple[float, float] | None, typer.Option("--pwv-mm", help="Range of PWV, mm.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    json: Json = False,
) -> None:
    """Compute a table from pyrtlib (needs the extra atm-build; takes minutes)."""
    from dataclasses import replace

    from gpucal.io.atmosphere.build import SITES, Site, build_table
    from gpucal.io.atmosphere.tables import load_table, save_table

    given: dict[str, Any] = {
        "alt_m": alt_m,
        "profile": profile,
        "range_hz": freq_ghz and (freq_ghz[0] * 1e9, freq_ghz[1] * 1e9),
        "pwv_range_mm": pwv_mm,
    }
    changed = {key: value for key, value in given.items() if value is not None}
    if site in SITES:
        title = (
            f"{SITES[site].title} (changed: {', '.join(changed)})" if changed else SITES[site].title
        )
        chosen = replace(SITES[site], title=title, **changed)
    elif len(changed) == len(given):
        chosen = Site(site, **changed)
    else:
        raise ConfigError(
            f"site {site!r} is not one of {', '.join(SITES)}.",
            hint="For a site of your own give --alt-m, --profile, --freq-ghz and --pwv-mm.",
        )
    _check_ending(out)
    console = Console(stderr=True)
    with console.status("building") as status:
        table = build_table(chosen, progress=None if quiet else status.update)
    save_table(out, table)
    _show(load_table(out), json)


@app.command("import")
def import_runs(
    files: Annotated[list[Path], typer.Argument(help="Two or three am outputs, text or .gz.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Table to write: .npz or .zarr.")],
    pwv: Annotated[
        list[float] | None,
        typer.Option("--pwv", help="PWV of each run, mm, in the order of the files (repeat)."),
    ] = None,
    json: Json = False,
) -> None:
    """Make a table of am outputs that differ in water."""
    from gpucal.io.atmosphere.am import import_am
    from gpucal.io.atmosphere.tables import load_table

    _check_ending(out)
    import_am(files, out, pwv_mm=pwv or None)
    _show(load_table(out), json)


@app.command()
def info(
    table: Annotated[
        str,
        typer.Argument(
            help="Name of a packaged table, or a path.", autocompletion=complete_table_names
        ),
    ] = "",
    json: Json = False,
) -> None:
    """Show what a table holds; without a name, list the packaged tables."""
    from gpucal.cli.show.summary import make_console
    from gpucal.io.atmosphere.tables import load_table, packaged_tables
    from gpucal.io.files.json_text import dumps

    if table:
        _show(load_table(table), json)
        return
    tables = {name: load_table(path) for name, path in packaged_tables().items()}
    if json:
        typer.echo(dumps({name: describe(item) for name, item in tables.items()}))
        return
    grid = Table(title="Packaged atmosphere tables")
    for heading in ("name", "site", "GHz", "PWV, mm", "knots"):
        grid.add_column(heading)
    for name, item in tables.items():
        facts = describe(item)
        bands = ", ".join(f"{a:g}-{b:g}" for a, b in facts["bands_ghz"])
        pwv = facts["pwv_range_mm"]
        span = f"{pwv[0]:g}-{pwv[1]:g}" if pwv else "unknown"
        grid.add_row(name, escape(str(facts.get("site", ""))), bands, span, str(facts["knots"]))
    make_console().print(grid, highlight=False)


def describe(table: AtmosphereTable) -> dict[str, Any]:
    """What ``gpucal atm info`` shows of a table: coverage, size, provenance."""
    import numpy as np

    facts: dict[str, Any] = {
        "path": table.path,
        "sha256": table.sha256,
        "range_ghz": [f / 1e9 for f in table.range_hz],
        "bands_ghz": (table.bands_hz / 1e9).tolist(),
        "knots": int(table.freq_hz.size),
        "pwv_range_mm": table.pwv_range_mm,
        "water_terms": "b, q" if bool(np.any(table.q)) else "b",
        "ozone_scalable": bool(np.any(table.c_o3)),
        "sky": "layered" if table.layered else "isothermal (no emission columns)",
    }
    return facts | {key: value for key, value in table.attrs.items() if key not in facts}


def _show(table: AtmosphereTable, json: bool) -> None:
    import numpy as np

    from gpucal.cli.show.summary import make_console
    from gpucal.io.files.json_text import dumps

    facts = describe(table)
    if json:
        typer.echo(dumps(facts))
        return
    grid = Table(show_header=False)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for key, value in facts.items():
        if isinstance(value, (list, tuple, np.ndarray)):
            value = "; ".join(" to ".join(f"{x:g}" for x in np.ravel(row)) for row in _rows(value))
        elif isinstance(value, float):
            value = f"{value:g}"
        grid.add_row(escape(key), escape(str(value)))
    make_console().print(grid, highlight=False)


def _rows(value: Any) -> list[Any]:
    """The rows of a 2-D value; any other value as one row."""
    import numpy as np

    array = np.asarray(value)
    return list(array) if array.ndim == 2 else [array]


def _check_ending(out: Path) -> None:
    """Refuse a wrong file ending before minutes of computing, not after."""
    if out.suffix not in (".npz", ".zarr"):
        raise ConfigError(f"{out} ends neither in .npz nor in .zarr.")
    if not out.resolve().parent.is_dir():
        raise ConfigError(f"there is no directory {out.resolve().parent}.")
