"""Reading and writing of the files in the directory of a task."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from gpucal.errors import OnlineError

ACTIVE, FAILED, INCOMING = ".active", ".failed", ".incoming"
"""Folders: a folder per worker with the jobs it holds; jobs that were given up; jobs being written."""
DONE = "done.jsonl"
"""A line per job that was done."""
REASON = ".reason"
"""Ending of the file beside a failed job that says why."""
HEARTBEAT = ".heartbeat"
"""File in the folder of a worker, touched while it lives."""

MAX_JOB = 1 << 20
"""Bytes; a job is a few hundred."""


def is_job(name: str) -> bool:
    """Whether a file of this name is a job."""
    return name.endswith(".json") and not name.startswith(".")


def entries_of(path: Path) -> Iterator[os.DirEntry[str]]:
    """The entries of a folder; none when it is not there."""
    try:
        with os.scandir(path) as entries:
            yield from entries
    except (FileNotFoundError, NotADirectoryError):
        return


def names_in(path: Path) -> list[str]:
    """The names of the entries of a folder, sorted."""
    return sorted(entry.name for entry in entries_of(path))


def read_job(path: Path) -> bytes:
    """The bytes of a job; nothing else is read, whatever lies there.

    Raises OnlineError for a FIFO, a folder, a device, a link that leads nowhere, and a file too long to be a job;
    FileNotFoundError when nothing is there.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not path.is_symlink():
            raise
        raise OnlineError(f"the job cannot be read: {error.strerror}.") from error
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise OnlineError("the job is not a file (a folder, a FIFO, or a device).")
        if facts.st_size > MAX_JOB:
            raise OnlineError(f"the job has {facts.st_size} bytes, expected at most {MAX_JOB}.")
        return os.read(descriptor, MAX_JOB)
    finally:
        os.close(descriptor)


def write_synced(path: Path, text: str) -> None:
    """Write a file; returns when it is on stable storage."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def append_line(path: Path, text: str) -> None:
    """Append a line by one write to a file opened for appending: lines of several workers do not mix."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o666)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def count_lines(path: Path) -> int:
    """Number of lines of a file; 0 when it is not there, or is no file."""
    if not path.is_file():
        return 0
    try:
        with open(path, "rb") as file:
            return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    except FileNotFoundError:
        return 0
