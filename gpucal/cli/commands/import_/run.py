"""What the commands of ``gpucal import`` share: their options, the plan, the writing, what is said at the end."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpucal.cli.options.scans import chosen_scans

if TYPE_CHECKING:
    from gpucal.io.incoming.landing import Progress
    from gpucal.io.incoming.one_way import Recognised
    from gpucal.io.incoming.protocol import ImportPlan, ImportReport, Lost

EXIT_LOST = 2

Paths = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE_OR_FOLDER.. OUT",
        help="Raw files, or folders of them, then the L0 store to make or to add to.",
    ),
]
Scans = Annotated[
    str, typer.Option("--scans", metavar="1,5-9", help="Only these scans; all by default.")
]
Bands = Annotated[str, typer.Option("--bands", help="Only these IFNUM, e.g. 0,2.")]
ProfileFile = Annotated[
    Path | None,
    typer.Option(
        "--profile", metavar="SITE.toml", help="What the files do not say, as TOML; see the docs."
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite", help="Replace the L0 store, or the scans in it, if they are there."
    ),
]
CalRule = Annotated[
    str,
    typer.Option(
        "--cal",
        metavar="earlier|nearest",
        help="Which calibration scan serves: the nearest earlier one, or the nearest of all.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print what would be imported; write nothing.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but warnings.")]


@dataclass(frozen=True)
class Asked:
    """The options of a command; options: those of its format alone."""

    scans: str = ""
    bands: str = ""
    profile: Path | None = None
    overwrite: bool = False
    dry_run: bool = False
    quiet: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


def run_import(name: str, paths: Sequence[Path], asked: Asked) -> None:
    """Import the files ``paths`` into the store that is the last of them, or show the plan.

    name: a format, or "auto". Raises typer.Exit with code 2 when something was lost.
    """
    scans, bands = chosen_scans(asked.scans), _numbers(asked.bands, "--bands")
    files, out = _files_and_store(paths, asked.dry_run)
    from gpucal.cli.commands.import_.plan_table import print_plan
    from gpucal.io.incoming import one_way
    from gpucal.io.incoming.landing import check_target

    with _looking(asked.quiet):
        found = one_way.recognise(files, name)
    if out is not None and not asked.dry_run:
        check_target(out, whole_store=found.format.whole_store, overwrite=asked.overwrite)
    if not asked.quiet:
        _say_what_was_seen(found, name)
    request = one_way.request_of(
        found, scans=scans, bands=bands, profile=asked.profile, options=asked.options
    )
    with _looking(asked.quiet):
        plan = one_way.planned(found, request)
    if asked.dry_run or out is None:
        print_plan(plan, out)
        print(f"{_count(len(plan.scans))} to import; nothing was written.")
        _leave(plan.lost)
        return
    with _progress(plan, asked.quiet) as progress:
        report = one_way.landed(
            found.format, plan, out, overwrite=asked.overwrite, progress=progress
        )
    if not asked.quiet:
        print_plan(plan, None, only=report.scans)
        _print_result(report, out, found.format.whole_store)
    _leave(report.lost)


def _files_and_store(paths: Sequence[Path], dry_run: bool) -> tuple[list[Path], Path | None]:
    """The last path is the store; a dry run needs none, and takes a last path that holds raw data for one of them."""
    *files, out = paths
    if (
        dry_run
        and out.exists()
        and not ((out / "zarr.json").exists() or (out / ".zgroup").exists())
    ):
        return [*files, out], None
    if not files:
        raise typer.BadParameter("expected at least one file and the store to make")
    return files, out


def _numbers(text: str, option: str) -> frozenset[int] | None:
    from gpucal.scan_numbers import parse_scans

    try:
        return parse_scans(text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}", param_hint=option) from None


def _say_what_was_seen(found: Recognised, name: str) -> None:
    if name == "auto":
        n = len(found.paths)
        files = f"{n} file{'' if n == 1 else 's'}"
        print(f"{files} of {found.format.name} ({found.format.title})", file=sys.stderr)
    if found.remark:
        print(found.remark, file=sys.stderr)


def _print_result(report: ImportReport, out: Path, whole_store: bool) -> None:
    if whole_store:
        print(f"{_count(len(report.scans))} in {out}")
        return
    kept = f", {len(report.present)} were there already" if report.present else ""
    print(f"{_count(len(report.scans))} written to {out}{kept}")


def _count(n: int) -> str:
    return f"{n} scans"


def _leave(lost: Sequence[Lost]) -> None:
    """Say what was lost; exit code 2 when something was."""
    for sentence in lost_sentences(lost):
        print(f"not imported: {sentence}", file=sys.stderr)
    if lost:
        raise typer.Exit(EXIT_LOST)


def lost_sentences(lost: Sequence[Lost]) -> list[str]:
    """One sentence for each reason, with all the scans and bands that it cost."""
    places: dict[str, list[str]] = {}
    for one in lost:
        place = "" if one.scan is None else f"{one.scan} {one.band}".strip()
        places.setdefault(one.reason, []).append(place)
    sentences = []
    for reason, where in places.items():
        named = [place for place in where if place]
        scans = f"scan{'s' if len(named) > 1 else ''} {', '.join(named)}: " if named else ""
        sentences.append(f"{scans}{reason}")
    return sentences


def _looking(quiet: bool) -> AbstractContextManager[Any]:
    """A sign of life on a terminal while files are looked at."""
    from contextlib import nullcontext

    if quiet or not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console

    return Console(stderr=True).status("looking at the files")


def _progress(plan: ImportPlan, quiet: bool) -> AbstractContextManager[Progress]:
    """Bars on a terminal, nothing elsewhere."""
    from contextlib import nullcontext

    from gpucal.io.incoming.landing import Silent

    if quiet or not sys.stderr.isatty():
        return nullcontext(Silent())
    from gpucal.cli.show.import_progress import ImportBars

    return ImportBars(plan)
