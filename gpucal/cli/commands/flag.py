"""``gpucal flag``: leave out samples of a calibrated store by hand, and take it back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gpucal.errors import ConfigError


def flag(
    l1: Annotated[Path, typer.Argument(metavar="L1", help="Calibrated store.")],
    scans: Annotated[
        str | None,
        typer.Option(
            "--scans", "--scan", metavar="LIST", help="Scans such as 1,5-9; default: all."
        ),
    ] = None,
    band: Annotated[str, typer.Option(metavar="NAME", help="Band such as band_1.")] = "",
    receiver: Annotated[
        str | None, typer.Option(metavar="LIST", help="Receivers such as 0 or 0-1.")
    ] = None,
    pixel: Annotated[
        str | None, typer.Option(metavar="LIST", help="Pixels such as 3 or 1,4-6.")
    ] = None,
    subscan: Annotated[
        str | None, typer.Option(metavar="LIST", help="Subscans, as L1 counts them from 0.")
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(
            metavar="RANGES",
            help="Channels such as 100:120 (both ends included), or sky frequencies with their "
            "unit such as 230.5:230.6GHz.",
        ),
    ] = None,
    dumps: Annotated[
        str | None, typer.Option(metavar="LIST", help="Dumps of each subscan, from 0.")
    ] = None,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; needed to flag.")] = "",
    rules: Annotated[
        Path | None, typer.Option(metavar="F", help="TOML file of flag rules, instead of options.")
    ] = None,
    undo: Annotated[
        str | None, typer.Option(metavar="last|ID", help="Take back the newest rule, or this one.")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the rules of the store.")] = False,
) -> None:
    """Flag samples of a calibrated store as unusable (bit MANUAL), with a reason.

    Spectra stay as they are; exports, averages, pictures and reduce leave the samples out. A scan that is
    calibrated again keeps its rules.
    """
    chosen: dict[str, Any] = {
        "scans": scans,
        "band": band,
        "receivers": receiver,
        "pixels": pixel,
        "subscans": subscan,
        "channels": channels,
        "dumps": dumps,
        "reason": reason,
    }
    given = sum([any(chosen.values()), rules is not None, undo is not None, listed])
    if given != 1:
        raise ConfigError(
            "nothing is asked for."
            if not given
            else "--list, --undo, --rules and a rule exclude each other.",
            hint="Give samples and --reason, or --list, or --undo last, or --rules FILE.",
        )
    if listed:
        _list(l1)
    elif undo is not None:
        _undo(l1, undo)
    elif rules is not None:
        _apply(l1, rules)
    else:
        _add(l1, chosen)


def _add(l1: Path, chosen: dict[str, Any]) -> None:
    """Record one rule and say what it did."""
    from gpucal.io.l1.manual_flags import add_rule, rule_of

    done = add_rule(l1, rule_of(**chosen))
    rule = done.rule
    typer.echo(
        f"rule {rule.id}: {_scans(rule.scans)}, {rule.text()}: {done.samples} samples flagged "
        f"({rule.reason})"
    )
    typer.echo(f"undo: gpucal flag {l1} --undo {rule.id}")


def _undo(l1: Path, wanted: str) -> None:
    """Take back a rule."""
    from gpucal.io.l1.manual_flags import unflag

    rule = unflag(l1, wanted)
    typer.echo(f"rule {rule.id} taken back: {_scans(rule.scans)}, {rule.text()} ({rule.reason})")


def _apply(l1: Path, path: Path) -> None:
    """Give the scans of a store the rules of a file."""
    from gpucal.io.l1.flag_file import check_scans, load_rules
    from gpucal.io.l1.manual_flags import apply_rules
    from gpucal.io.l1.reader import open_l1

    found = load_rules(path)
    check_scans(found, open_l1(l1).scans(), path)
    for note in apply_rules(l1, found):
        typer.echo(f"gpucal: warning: {note}", err=True)
    typer.echo(f"{len(found)} rules of {path}; gpucal flag {l1} --list shows them")


def _list(l1: Path) -> None:
    """One row per rule."""
    from rich.console import Console
    from rich.table import Table

    from gpucal.io.l1.manual_flags import flag_rules

    found = flag_rules(l1)
    if not found:
        typer.echo(f"{l1}: nothing is flagged by hand")
        return
    table = Table(box=None, pad_edge=False)
    for name in ("id", "when (UTC)", "who", "scan", "samples", "reason"):
        table.add_column(name, no_wrap=name in ("id", "when (UTC)"))
    for rule in found:
        when = rule.when[:19].replace("T", " ")
        table.add_row(rule.id, when, rule.who, _numbers(rule.scans), rule.text(), rule.reason)
    Console(highlight=False, markup=False, width=160 if not Console().is_terminal else None).print(
        table
    )


def _scans(numbers: tuple[int, ...]) -> str:
    return f"scan {_numbers(numbers)}"


def _numbers(numbers: tuple[int, ...]) -> str:
    from gpucal.io.l1.flag_rules import ranges_text

    return ranges_text(tuple((n, n) for n in numbers))
