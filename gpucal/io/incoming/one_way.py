"""Raw data of any telescope into an L0 store: recognise, plan, write."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpucal.errors import ConfigError, ImportFormatError, did_you_mean
from gpucal.io.incoming.file_index import FileIndex, cache_folder
from gpucal.io.incoming.formats import NAMES, format_named, probes, profile_keys
from gpucal.io.incoming.glimpse import glimpse
from gpucal.io.incoming.landing import Progress, Silent, check_target, land
from gpucal.io.incoming.listing import sorted_out
from gpucal.io.incoming.profile import Profile, load_profile
from gpucal.io.incoming.protocol import ImportPlan, ImportReport, RawFormat, Request

AUTO = "auto"
_SHOWN = 3


@dataclass(frozen=True)
class Recognised:
    """Which format the files are of, the files, and a remark about those of no format ("" for none)."""

    format: RawFormat
    paths: tuple[Path, ...]
    remark: str = ""


def import_raw(
    files: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    format: str = AUTO,
    overwrite: bool = False,
    scans: Collection[int] | None = None,
    bands: Collection[int] | None = None,
    profile: str | Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> ImportReport:
    """Import raw data into the L0 store ``out``; a folder stands for the files of the format in it and below.

    format: a name of ``gpucal import``, or "auto". scans, bands: only these numbers of the telescope. profile: a
    TOML file with what the files do not say. options: those of the format (``flags`` of sdfits ...). Each scan,
    or for some formats the whole store, appears at once or not at all; the same call continues an interrupted
    import. What is lost is in the report. Raises ImportFormatError when nothing is left, L0Error when ``out`` is
    in the way, ConfigError for a wrong profile or option.
    """
    target = Path(out)
    given = [files] if isinstance(files, str | os.PathLike) else files
    found = recognise([Path(f) for f in given], format)
    check_target(target, whole_store=found.format.whole_store, overwrite=overwrite)
    plan = planned(
        found, request_of(found, scans=scans, bands=bands, profile=profile, options=options)
    )
    return landed(found.format, plan, target, overwrite=overwrite, progress=progress)


def request_of(
    found: Recognised,
    *,
    scans: Collection[int] | None = None,
    bands: Collection[int] | None = None,
    profile: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> Request:
    """What was asked for, with the profile read; raises ConfigError for a wrong one, and for an unknown option."""
    name, known = found.format.name, found.format.options
    for option in options or {}:
        if known is not None and option not in known:
            raise ConfigError(
                f"the option {option!r} is none of {name}, expected {', '.join(known) or 'none'}.",
                hint=did_you_mean(option, known),
            )
    values = Profile()
    if profile is not None:
        values = load_profile(Path(profile), name, profile_keys())
    return Request(found.paths, scans, bands, values, options or {}, FileIndex(cache_folder()))


def recognise(paths: Sequence[Path], name: str = AUTO) -> Recognised:
    """The format of the name, or the one that the files are of.

    Raises ImportFormatError for files of several formats, or of none, and says what they are.
    """
    if not paths:
        raise ImportFormatError("no file was given, expected at least one.")
    if name != AUTO:
        return Recognised(format_named(name), tuple(paths))
    index = FileIndex(cache_folder())
    mine, others = sorted_out(paths, probes(), index)
    index.save()
    if len(mine) > 1:
        counts = ", ".join(f"{len(files)} of {kind} ({files[0]})" for kind, files in mine.items())
        raise ImportFormatError(
            f"the files are of several formats: {counts}.",
            hint=f"Import each into a store of its own: gpucal import {next(iter(mine))} ...",
        )
    if not mine:
        raise ImportFormatError(
            f"no file is of a format that can be imported ({', '.join(NAMES)}): {_seen(others)}.",
            hint="If one of them should be, name its format: gpucal import FORMAT ...",
        )
    (kind, files), *_ = mine.items()
    named = {p for p in paths if not p.is_dir()}
    strange = [p for p in others if p in named]
    if strange:
        raise ImportFormatError(
            f"the files are of the format {kind}, but for {len(strange)}: {_seen(strange)}.",
            hint="Leave them out.",
        )
    remark = ""
    if others:
        remark = f"{len(others)} other files are there, which are no raw data: {_seen(others)}"
    return Recognised(format_named(kind), tuple(files), remark)


def _seen(files: Sequence[Path]) -> str:
    """What the first files look like, and how many more there are."""
    said = [f"{p} is {glimpse(p).words()}" for p in files[:_SHOWN]]
    if len(files) > _SHOWN:
        endings = Counter(p.suffix.lower() or "no ending" for p in files[_SHOWN:])
        rest = ", ".join(f"{n} {ending}" for ending, n in endings.most_common(4))
        said.append(f"and {len(files) - _SHOWN} more ({rest})")
    return ", ".join(said) or "there is no file"


def planned(found: Recognised, request: Request) -> ImportPlan:
    """The plan of an import; what the index has learned is kept also when planning fails."""
    try:
        return found.format.plan(request)
    finally:
        request.index.save()


def landed(
    format: RawFormat,
    plan: ImportPlan,
    out: Path,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Write the plan's scans into ``out``, as the format wants it."""
    return land(
        plan,
        out,
        whole_store=format.whole_store,
        overwrite=overwrite,
        progress=progress or Silent(),
    )
