"""``gpucal simulate``: write a synthetic night with known truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpucal.cli.options.complete import complete_presets, complete_words
from gpucal.errors import ConfigError

if TYPE_CHECKING:
    from gpucal.simulate.schedule import ScanPlan
    from gpucal.simulate.setup import Kind


def simulate(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="L0 store to write.")],
    preset: Annotated[
        str,
        typer.Option(
            help="Instrument: hera, upgreat, chai, argus or superc.",
            autocompletion=complete_presets,
        ),
    ] = "hera",
    scans: Annotated[int, typer.Option(metavar="N", help="Science scans; loads come on top.")] = 8,
    procedures: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="Scans before the science: pointing, focus, skydip, in the order given.",
        ),
    ] = "",
    seed: Annotated[int, typer.Option(metavar="S", help="Same seed, same night.")] = 1,
    truth: Annotated[
        Path | None, typer.Option(metavar="F", help="Write what must come back to this .npz file.")
    ] = None,
    channels: Annotated[int | None, typer.Option(help="Channels, instead of the preset's.")] = None,
    dumps: Annotated[int | None, typer.Option(help="Dumps per subscan.")] = None,
    subscans: Annotated[int | None, typer.Option(help="ON subscans per scan.")] = None,
    dtype: Annotated[
        str,
        typer.Option(
            help="Counts: i32, f32 or f64.", autocompletion=complete_words("i32", "f32", "f64")
        ),
    ] = "i32",
    sky: Annotated[
        str | None,
        typer.Option(
            help="Air of one temperature (isothermal), or in layers (layered), instead of the preset's.",
            autocompletion=complete_words("isothermal", "layered"),
        ),
    ] = None,
    noise: Annotated[bool, typer.Option(help="With or without radiometer noise.")] = True,
) -> None:
    """Write a synthetic night: raw counts made from the equations that calibrate them.

    The opacities it was made with go to OUT.atm.npz, for gpucal calibrate --atmosphere.
    """
    from gpucal.simulate import presets
    from gpucal.simulate.counts import Recording
    from gpucal.simulate.night import simulate_night
    from gpucal.simulate.procedures import rehearsal

    wanted = _procedures(procedures)
    for name, value in (("scans", scans), ("dumps", dumps), ("subscans", subscans)):
        least = 0 if name == "scans" and wanted else 1
        if value is not None and value < least:
            raise ConfigError(f"{name} is {value}, expected at least {least}.")
    setup = presets.preset(preset, channels=channels, dumps=dumps, n_on=subscans, sky=sky)
    setup = rehearsal(setup, wanted, seed)
    table = out.with_name(out.name + ".atm.npz")
    kinds: dict[int, str] = {}

    def told(plan: ScanPlan) -> None:
        kinds[plan.number] = plan.kind
        typer.echo(f"scan {plan.number}: {plan.kind}")

    numbers = simulate_night(
        out,
        setup,
        scans,
        recording=Recording(dtype=dtype, noise=noise, seed=seed),
        truth=truth,
        table_out=table,
        on_scan=told,
    )
    fixed = f" --pwv {setup.weather.pwv_mm:g}" if setup.loads.vane else ""
    typer.echo(f"{out}: {len(numbers)} scans of {setup.telescope} {setup.name}")
    for number, kind in kinds.items():
        if kind in wanted:
            typer.echo(f"next: gpucal reduce {out} --scan {number} --atmosphere {table}  # {kind}")
    if scans or not setup.loads.vane:
        typer.echo(f"next: gpucal calibrate {out} l1.zarr --atmosphere {table}{fixed}")
    if truth is not None:
        typer.echo(f"then: python -m gpucal.simulate l1.zarr {truth}")


def _procedures(text: str) -> list[Kind]:
    """The procedures of a list such as "skydip,pointing"; every name by which reduce knows them serves."""
    from gpucal.procedures.names import kind_of
    from gpucal.simulate.setup import PROCEDURES

    found: list[Kind] = []
    for name in filter(None, (part.strip() for part in text.split(","))):
        known = [kind for kind in PROCEDURES if kind == kind_of(name)]
        if not known:
            raise ConfigError(
                f"procedures holds {name!r}, expected {', '.join(PROCEDURES)}.",
                hint="Science scans come with --scans.",
            )
        found += known
    return found
