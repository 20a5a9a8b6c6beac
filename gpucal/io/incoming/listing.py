"""Which files are meant: those that were named, and those in folders that a format knows as its own."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from gpucal.errors import ImportFormatError
from gpucal.io.incoming.file_index import FileIndex
from gpucal.io.incoming.glimpse import Glimpse, glimpse
from gpucal.version import __version__

_PACKED = re.compile(r"\.(gz|bz2|xz)$")

Probe = Callable[[Glimpse], bool]


def walked(
    paths: Sequence[Path], name: str, title: str, probe: Probe, index: FileIndex
) -> list[Path]:
    """The files named, whatever they are, and those below the folders named that ``probe`` knows.

    Raises ImportFormatError for a path that does not exist and for a folder without such a file.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = [f for f in files_below(path) if known(f, name, probe, index)]
            if not inside:
                raise ImportFormatError(
                    f"the folder {path} holds none of the {title}.",
                    hint="gpucal import auto says what is in it.",
                )
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise ImportFormatError(f"{path} does not exist.", hint="Check the path.")
    return list(dict.fromkeys(found))


def fits_files(files: Sequence[str | Path]) -> list[Path]:
    """The files themselves; a folder stands for the FITS files right in it, by their names."""
    found: list[Path] = []
    for path in (Path(f) for f in files):
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(
            p
            for p in path.iterdir()
            if _PACKED.sub("", p.name.lower()).endswith((".fits", ".fit", ".sdfits"))
            and not p.name.startswith(".")
        )
        if not inside:
            raise ImportFormatError(
                f"the folder {path} holds no file that ends in .fits or .fits.gz.",
                hint="Name the files, or the folder they lie in.",
            )
        found += inside
    return found


def known(path: Path, name: str, probe: Probe, index: FileIndex) -> bool:
    """Whether ``probe`` of the format ``name`` takes a file for its own; asked once as long as it is unchanged."""
    answer = index.facts(path, f"is {name} {__version__}", lambda p: probe(glimpse(p)))
    return bool(answer)


def files_below(folder: Path, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """All files in a folder and below, in the order of their names; hidden ones and L0 stores are left out.

    above: real paths of the folders on the way, so that a link back to one of them is not followed.
    """
    real = os.path.realpath(folder)
    try:
        entries = sorted(os.scandir(folder), key=lambda e: e.name)
    except OSError:
        return
    if real in above or any(e.name in ("zarr.json", ".zgroup") for e in entries):
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from files_below(Path(entry.path), above | {real})
        elif entry.is_file():
            yield Path(entry.path)


def sorted_out(
    paths: Sequence[Path], probes: Mapping[str, Probe], index: FileIndex
) -> tuple[dict[str, list[Path]], list[Path]]:
    """Files by the name of the first format that takes each for its own, and those that none does.

    Raises ImportFormatError for a path that does not exist.
    """
    mine: dict[str, list[Path]] = {}
    others: list[Path] = []
    for path in paths:
        if not path.exists():
            raise ImportFormatError(f"{path} does not exist.", hint="Check the path.")
        for file in files_below(path) if path.is_dir() else [path]:
            kind = index.facts(file, f"format {__version__}", lambda p: _first(p, probes))
            if kind:
                mine.setdefault(kind, []).append(file)
            else:
                others.append(file)
    return mine, others


def _first(path: Path, probes: Mapping[str, Probe]) -> str:
    seen = glimpse(path)
    return next((name for name, probe in probes.items() if probe(seen)), "")
