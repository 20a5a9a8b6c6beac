"""Identity of the counts of a raw scan, from how they lie on disk: no chunk is decoded."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gpucal.errors import GpucalError
from gpucal.io.files.regular import open_regular
from gpucal.io.l0.store import L0Store

SAMPLE_BYTES = 1 << 16
"""Of the first, the middle and the last chunk, at both ends: chunks that are not compressed have equal sizes."""
AXES_OF_COUNTS = 5
_CHUNK = re.compile(r"c|(?:c[./])?\d+(?:\.\d+)*")


class CountsIdentity(NamedTuple):
    """Digest over names, sizes and samples of the chunk files, and when the newest was written (s since 1970).

    sha256 is "" for a store that is not a folder.
    """

    sha256: str
    newest: float


def counts_identity(store: L0Store, number: int) -> CountsIdentity:
    """The identity of the counts of one scan, all its bands and loads together."""
    folder = Path(store.path)
    try:
        scan = folder / store.scan_group(number).path
    except GpucalError:
        return CountsIdentity("", 0.0)
    if not scan.is_dir():
        return CountsIdentity("", 0.0)
    files = sorted(path for path in _chunk_files(scan) if path.is_file())
    digest, newest = hashlib.sha256(), 0.0
    for path in files:
        found = path.stat()
        newest = max(newest, found.st_mtime)
        digest.update(f"{path.relative_to(scan).as_posix()} {found.st_size}\n".encode())
    for path in (files[0], files[len(files) // 2], files[-1]) if files else ():
        digest.update(_ends(path))
    return CountsIdentity(digest.hexdigest(), newest)


def _chunk_files(scan: Path) -> Iterator[Path]:
    """The files below every ``data_5d`` that have the name of a chunk.

    Where links lead is followed only as far as names are those of chunks: never through a disk, never in a circle.
    """
    for band in (scan, *(Path(folder) for folder in _inside(scan)[0])):
        for group in ("source", "calibration"):
            yield from _named_as_chunks(band / group / "data_5d", AXES_OF_COUNTS + 1)


def _named_as_chunks(folder: str | Path, levels: int) -> Iterator[Path]:
    """Files as ``c/0/1`` or ``0.1`` below a folder, at most so many levels down."""
    folders, files = _inside(folder)
    yield from (Path(path) for path in files if _CHUNK.fullmatch(os.path.basename(path)))
    for path in folders if levels > 1 else ():
        if _CHUNK.fullmatch(os.path.basename(path)):
            yield from _named_as_chunks(path, levels - 1)


def _inside(folder: str | Path) -> tuple[list[str], list[str]]:
    """Paths of the folders and of the files in a folder, links to them included; none where it cannot be listed."""
    folders: list[str] = []
    files: list[str] = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # a link to itself
                (folders if entry.is_dir() else files).append(entry.path)
    return folders, files


def _ends(path: Path) -> bytes:
    """The first and the last bytes of a file."""
    with open_regular(path) as stream:
        head = stream.read(SAMPLE_BYTES)
        stream.seek(max(0, path.stat().st_size - SAMPLE_BYTES))
        return bytes(head + stream.read(SAMPLE_BYTES))
