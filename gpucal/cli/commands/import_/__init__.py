"""``gpucal import``: raw data of telescopes into an L0 store, a command for each format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpucal.cli.commands.import_ import run
from gpucal.cli.commands.import_.run import (
    Bands,
    CalRule,
    DryRun,
    Overwrite,
    Paths,
    ProfileFile,
    Quiet,
    Scans,
)

app = typer.Typer(
    help="Turn the raw data of a telescope into an L0 store.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def group() -> None:
    """Turn the raw data of a telescope into an L0 store."""


@app.command("auto")
def auto(
    paths: Paths,
    scans: Scans = "",
    profile: ProfileFile = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> None:
    """Look at the files, and import them by the format that they are of."""
    run.run_import("auto", paths, run.Asked(scans, "", profile, overwrite, dry_run, quiet))


@app.command("imbfits")
def imbfits(
    paths: Paths,
    antenna_shift: Annotated[
        float | None,
        typer.Option(
            "--antenna-shift",
            metavar="S",
            help="Seconds to add to the times of the antenna's trace.",
        ),
    ] = None,
    cal: CalRule = "earlier",
    scans: Scans = "",
    profile: ProfileFile = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> None:
    """Import IMBFITS files of the IRAM 30m telescope (HERA, EMIR)."""
    options = {"antenna_shift": antenna_shift, "cal": cal}
    asked = run.Asked(scans, "", profile, overwrite, dry_run, quiet, options)
    run.run_import("imbfits", paths, asked)


@app.command("mbfits")
def mbfits(
    paths: Paths,
    cal: CalRule = "earlier",
    scans: Scans = "",
    profile: ProfileFile = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> None:
    """Import MBFITS of APEX, Effelsberg and others: files, or folders with GROUPING.fits."""
    asked = run.Asked(scans, "", profile, overwrite, dry_run, quiet, {"cal": cal})
    run.run_import("mbfits", paths, asked)


@app.command("sam45")
def sam45(
    paths: Paths,
    antenna_log: Annotated[
        list[Path] | None,
        typer.Option(
            "--antenna-log",
            metavar="FILE",
            help="Where the telescope pointed, as text, or a folder of such files; may be repeated. "
            "Found by itself beside the logs.",
        ),
    ] = None,
    antenna_shift: Annotated[
        float | None,
        typer.Option("--antenna-shift", metavar="S", help="Seconds to add to its times."),
    ] = None,
    elevation: Annotated[
        float | None,
        typer.Option("--elevation", metavar="DEG", help="Without an antenna log: the elevation."),
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Take logs that are cut short as far as they go.")
    ] = False,
    scans: Scans = "",
    profile: ProfileFile = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> None:
    """Import SAM45 logs of the Nobeyama 45 m telescope (FOREST and others)."""
    options = {
        "antenna_log": antenna_log,
        "antenna_shift": antenna_shift,
        "elevation": elevation,
        "partial": partial,
    }
    asked = run.Asked(scans, "", profile, overwrite, dry_run, quiet, options)
    run.run_import("sam45", paths, asked)


@app.command("sdfits")
def sdfits(
    paths: Paths,
    overwrite: Overwrite = False,
    flags: Annotated[
        bool,
        typer.Option(
            "--flags/--no-flags",
            help="Heed .flag files beside the SDFITS files, and a column FLAGS.",
        ),
    ] = True,
    scans: Scans = "",
    bands: Bands = "",
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> None:
    """Import GBT SDFITS files (vane, W-band loads, nods, position and frequency switching)."""
    asked = run.Asked(scans, bands, None, overwrite, dry_run, quiet, {"flags": flags})
    run.run_import("sdfits", paths, asked)


@app.command("raw-fits")
def raw_fits(
    paths: Paths,
    scans: Scans = "",
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> None:
    """Make an L0 store from raw FITS files; scans that are there already are kept."""
    run.run_import("raw-fits", paths, run.Asked(scans, "", None, overwrite, dry_run, quiet))
