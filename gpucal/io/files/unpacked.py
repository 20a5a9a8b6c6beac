"""Files that may be compressed with gzip, opened so that they can be mapped."""

from __future__ import annotations

import gzip
import mmap
import os
import shutil
import tempfile
from pathlib import Path
from typing import IO, Any

import numpy.typing as npt

_BLOCK_BYTES = 16 << 20


def open_unpacked(path: Path) -> IO[bytes]:
    """A file opened to be mapped; one that is compressed with gzip is unpacked into a nameless one."""
    stream = open(path, "rb")  # noqa: SIM115 - the caller closes it
    magic = stream.read(2)
    stream.seek(0)
    if magic != b"\x1f\x8b":
        return stream
    with stream, tempfile.TemporaryFile(prefix="gpucal-") as unpacked:
        with gzip.GzipFile(fileobj=stream) as packed:
            shutil.copyfileobj(packed, unpacked, _BLOCK_BYTES)
        unpacked.flush()
        unpacked.seek(0)
        return os.fdopen(os.dup(unpacked.fileno()), "rb")


def let_go(data: npt.NDArray[Any]) -> None:
    """Give the pages of a mapped file back; they are read again where they are needed."""
    base: Any = data
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    if base is not None:
        base.madvise(mmap.MADV_DONTNEED)
