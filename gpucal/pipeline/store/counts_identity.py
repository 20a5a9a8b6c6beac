"""Identity of the counts of a raw scan, from how they lie on disk: no chunk is decoded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gpucal.errors import GpucalError
from gpucal.io.l0.store import L0Store

SAMPLE_BYTES = 1 << 16
"""Of the first, the middle and the last chunk, at both ends: chunks that are not compressed have equal sizes."""


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
    """The files below every ``data_5d`` that are not metadata."""
    for folder, _, names in os.walk(scan, followlinks=True):
        if "data_5d" in Path(folder).relative_to(scan).parts:
            yield from (
                Path(folder) / n for n in names if n != "zarr.json" and not n.startswith(".")
            )


def _ends(path: Path) -> bytes:
    """The first and the last bytes of a file."""
    with path.open("rb") as stream:
        head = stream.read(SAMPLE_BYTES)
        stream.seek(max(0, path.stat().st_size - SAMPLE_BYTES))
        return head + stream.read(SAMPLE_BYTES)
