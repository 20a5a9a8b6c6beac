"""Files that may be compressed with gzip, opened so that they can be mapped."""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
from pathlib import Path
from typing import IO

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
