"""Files that may be compressed (gzip, bzip2, xz), opened so that they can be mapped."""

from __future__ import annotations

import bz2
import gzip
import lzma
import mmap
import os
import shutil
import tempfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy.typing as npt

from gpucal.errors import ImportFormatError

_BLOCK_BYTES = 16 << 20


DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError)
"""What reading a compressed file raises when a part of it is missing or wrong."""

_READERS: dict[bytes, Any] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
_ARCHIVES = {
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x9d": "a file of compress (.Z)",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"7z\xbc\xaf": "a 7z archive",
}


def open_unpacked(path: Path) -> IO[bytes]:
    """A file opened to be mapped; one that is compressed is unpacked into a nameless one.

    gzip, bzip2 and xz are read, whatever the name is. Raises ImportFormatError for other archives,
    one of ``DAMAGED`` when the file is not whole.
    """
    stream = open(path, "rb")  # noqa: SIM115 - the caller closes it
    magic = stream.read(8)
    stream.seek(0)
    for word, what in _ARCHIVES.items():
        if magic.startswith(word):
            stream.close()
            raise ImportFormatError(f"{path} is {what}, expected a FITS file.", hint="Unpack it.")
    reader = next((r for word, r in _READERS.items() if magic.startswith(word)), None)
    if reader is None:
        return stream
    with stream, tempfile.TemporaryFile(prefix="gpucal-") as unpacked:
        with reader(stream, "rb") as packed:
            try:
                shutil.copyfileobj(packed, unpacked, _BLOCK_BYTES)
            except OSError as error:
                if reader is bz2.open and not isinstance(error, gzip.BadGzipFile):
                    raise EOFError(str(error)) from error  # bz2 has no error of its own
                raise
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
