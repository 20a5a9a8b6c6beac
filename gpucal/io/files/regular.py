"""Open regular files only: a FIFO would hang, a device never end, a file of the wrong size fill the memory."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import IO, Any

from gpucal.errors import CorruptDataError

MAX_DOCUMENT_BYTES = 64 << 20
OVERHEAD_BYTES = 1 << 20
MAX_DEPTH = 100
"""Levels of lists and dictionaries in a metadata document."""

_HINT = "Restore it from a copy, or leave this scan out with --scans."
_KINDS = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)


def largest_file(nbytes: int) -> int:
    """Size that no file of a chunk of ``nbytes`` decoded bytes exceeds, whatever codec and notes are in it."""
    return 2 * nbytes + OVERHEAD_BYTES


def check_regular(path: str | Path, most: int | None = None) -> int:
    """The size of a regular file (or a link to one) in bytes, found without opening it.

    Raises CorruptDataError for a FIFO, device or socket, and for more than ``most`` bytes; IsADirectoryError for a
    folder, other kinds of OSError as ``os.stat``.
    """
    return _size(path, os.stat(path), most)


def open_regular(path: str | Path, most: int | None = None) -> IO[Any]:
    """A regular file opened for reading, unbuffered; raises as ``check_regular``, and never waits for a writer."""
    check_regular(path, most)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _size(path, os.fstat(descriptor), most)  # it may be another by now
    except BaseException:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb", buffering=0)


def read_document(path: str | Path) -> bytes:
    """A metadata document, of bounded size and depth; raises as ``check_regular``."""
    with open_regular(path, MAX_DOCUMENT_BYTES) as stream:
        content = bytes(stream.read())
    check_depth(path, content)
    return content


def check_depth(path: str | Path, content: bytes) -> None:
    """Raise CorruptDataError when a JSON text is nested deeper than programs can follow."""
    if content.count(b"[") + content.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    for token in _TOKEN.finditer(content):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(token[0], 0)
        if depth > MAX_DEPTH:
            raise CorruptDataError(
                f"{path} is nested more than {MAX_DEPTH} levels deep.", hint=_HINT
            )


def _size(path: str | Path, found: os.stat_result, most: int | None) -> int:
    for is_kind, name in _KINDS:
        if is_kind(found.st_mode):
            raise CorruptDataError(f"{path} is {name}, expected a regular file.", hint=_HINT)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(21, os.strerror(21), str(path))
    if most is not None and found.st_size > most:
        raise CorruptDataError(
            f"{path} has {found.st_size} bytes, at most {most} are possible there.", hint=_HINT
        )
    return found.st_size
