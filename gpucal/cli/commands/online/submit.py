"""``gpucal online submit``: announce a subscan, or replay a stored night."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from gpucal.cli.options.complete import complete_scans
from gpucal.cli.options.scans import chosen_scans
from gpucal.errors import ConfigError, OnlineError
from gpucal.online.queue.events import END, Group
from gpucal.online.queue.pipe import ENTRY_TASKS, Pipe
from gpucal.online.site.config import OnlineConfig

EXIT_SOME = 2
GROUPS: Mapping[str, Group] = {"source": "source", "calibration": "calibration"}


@dataclass(frozen=True)
class _Announcement:
    """An announcement as a telescope makes it. subscan: None = the scan is over, whatever was there."""

    store: Path
    scan: int
    subscan: int | None
    group: str
    end: bool
    cancelled: bool
    project: str


@dataclass(frozen=True)
class _StoredNight:
    """A night to replay into the store ``out``. scans: the option as given, None = all."""

    night: Path
    out: Path
    speed: float
    scans: str | None
    project: str


def submit(
    settings: OnlineConfig,
    store: Annotated[
        Path | None, typer.Option(metavar="L0", help="Store that holds the subscan.")
    ] = None,
    scan: Annotated[int | None, typer.Option(metavar="N", help="Scan number.")] = None,
    subscan: Annotated[
        int | None, typer.Option(metavar="S", help="Counted from 0; the one that is there now.")
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="Where it lies: source (default) or calibration.")
    ] = None,
    end: Annotated[
        bool, typer.Option("--end", help="It is the last one; without --subscan: the scan is over.")
    ] = False,
    cancelled: Annotated[
        bool, typer.Option("--cancelled", help="The observer stopped the scan here.")
    ] = False,
    project: Annotated[
        str, typer.Option(metavar="P", help="Instead of the scan's attribute project.")
    ] = "",
    replay: Annotated[
        Path | None, typer.Option(metavar="NIGHT", help="Feed this stored night, as if observed.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="GROWING", help="Store that --replay lets grow.")
    ] = None,
    speed: Annotated[
        float | None, typer.Option(metavar="X", help="Times faster than it was; inf: no waiting.")
    ] = None,
    scans: Annotated[
        str | None,
        typer.Option(
            metavar="1,5-9",
            help="Only these scans of --replay; all by default.",
            autocompletion=complete_scans,
        ),
    ] = None,
) -> None:
    """Announce a subscan, or replay a stored night: the way to try it without a telescope."""
    announced = {"store": store, "scan": scan, "subscan": subscan, "group": group}
    flags = {"end": end or None, "cancelled": cancelled or None}
    replayed = {"replay": replay, "out": out, "speed": speed, "scans": scans}
    if replay is not None:
        _only(announced | flags, "--store")
        if out is None:
            raise ConfigError("--replay needs --out, the store that grows.")
        faster = 1.0 if speed is None else speed
        _replay(settings, _StoredNight(replay, out, faster, scans, project))
        return
    _only(replayed, "--replay")
    if store is None or scan is None or (subscan is None and not (end or cancelled)):
        raise ConfigError(
            "expected --store, --scan and --subscan (or --end, when the scan is over), or --replay."
        )
    where = group or "source"
    _announce(settings, _Announcement(store, scan, subscan, where, end, cancelled, project))


def _only(options: dict[str, Any], owner: str) -> None:
    """Raise ConfigError for an option that was given, but belongs to ``owner``."""
    for name, value in options.items():
        if value is not None:
            raise ConfigError(f"--{name} belongs to {owner}.")


def _announce(settings: OnlineConfig, what: _Announcement) -> None:
    """Submit the job; raises ConfigError or OnlineError when that is not possible."""
    from gpucal.io.l0.store import open_l0
    from gpucal.online.queue.announcing import job_of

    if what.group not in GROUPS:
        raise ConfigError(f"--group is {what.group!r}, expected source or calibration.")
    if what.subscan is not None and what.subscan < 0:
        raise ConfigError(f"--subscan is {what.subscan}, expected 0 or more.")
    opened = open_l0(what.store)
    if what.scan not in opened.numbers():
        raise OnlineError(f"{what.store} holds no scan {what.scan}.", hint="See gpucal inspect.")
    job = job_of(
        what.store,
        what.scan,
        END if what.subscan is None else what.subscan,
        GROUPS[what.group],
        dict(opened.scan_group(what.scan).attrs),
        project=what.project,
        end_of_scan=what.end,
        cancelled=what.cancelled,
    )
    pipe = Pipe(settings.pipe)
    pipe.create()
    pipe.submit(job)
    print(f"{job.name}: submitted to {', '.join(ENTRY_TASKS[job.obs_class])}")


def _replay(settings: OnlineConfig, stored: _StoredNight) -> None:
    """Feed the night to the pipe, a line per subscan; exit code 2 when a scan had to be left out."""
    from gpucal.online.replay.replay import Replay

    if not stored.speed > 0:
        raise ConfigError(f"--speed is {stored.speed:g}, expected more than 0, or inf.")
    chosen = chosen_scans(stored.scans)
    pipe = Pipe(settings.pipe)
    pipe.create()
    lines = 0

    def said(text: str) -> None:
        nonlocal lines
        lines += 1
        print(text, flush=True)

    replay = Replay(stored.night, stored.out, pipe, project=stored.project)
    count = replay.run(speed=stored.speed, scans=chosen, said=said)
    if not lines:
        raise OnlineError(f"{stored.night} holds none of these scans.", hint="See gpucal inspect.")
    print(f"{count} subscan{'' if count == 1 else 's'} submitted")
    if lines > count:  # a line that is no subscan is a scan that was left out
        raise typer.Exit(EXIT_SOME)
