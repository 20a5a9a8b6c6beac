"""Put directories in place whole or not at all, on Linux with one system call each.

New content is built in ``<store>.staging/`` beside the store. The name of every staged directory
records its owner (host, process, start time of the process), so leftovers of a killed process
can be told from the work of a live one.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import hashlib
import itertools
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpucal.errors import GpucalError, L1Error

STALE_DAYS = 7.0
"""Age in days after which a leftover of another host counts as abandoned."""

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_ASIDE = ".replaced"
_STAGED = re.compile(
    r"(?P<name>.+)\.(?P<host>[A-Za-z0-9_-]+)\.(?P<pid>\d+)\.(?P<start>\d+)\.(?P<count>\d+)"
)
_counter = itertools.count()

WRITING = threading.Event()
"""Set once this process has begun to write anything; before, it can end at any moment and leaves nothing."""
_HINTS = {
    errno.ENOSPC: "Free some space and run again; finished scans are kept.",
    errno.EDQUOT: "Free some of your quota and run again; finished scans are kept.",
    errno.EFBIG: "Raise the limit of the size of files (ulimit -f); finished scans are kept.",
    errno.EACCES: "Choose an output directory that you may write, its parent included.",
    errno.EPERM: "Choose an output directory that you may write, its parent included.",
    errno.EROFS: "Choose an output directory that you may write, its parent included.",
    errno.EXDEV: "Choose an output directory that is not itself a mount point.",
    errno.ENOENT: "Was a folder removed during the run? Run the same command again.",
    errno.ESTALE: "Run the same command again when it is back; finished scans are kept.",
    errno.EIO: "Check the disk; finished scans are kept.",
    errno.EMFILE: "Raise the limit of open files (ulimit -n).",
}


def staging_dir(store: str | Path) -> Path:
    """Return ``<store>.staging``, beside the store and so on the same file system."""
    path = Path(store).resolve()
    return path.with_name(path.name + ".staging")


def new_staged(store: str | Path, name: str) -> Path:
    """Create and return an empty directory in the staging directory, owned by this process."""
    WRITING.set()
    folder = staging_dir(store)
    staged = folder / f"{name}.{_host()}.{os.getpid()}.{_start_time(os.getpid())}.{next(_counter)}"
    for _ in range(100):
        # Another process may make the staging directory, or remove it when empty, at any moment.
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
        with contextlib.suppress(FileNotFoundError):
            staged.mkdir()
            return staged
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))


def discard(staged: Path) -> None:
    """Remove a staged directory, and the staging directory once it is empty; never raises."""
    shutil.rmtree(staged, ignore_errors=True)
    with contextlib.suppress(OSError):
        staged.parent.rmdir()


def sync_tree(path: str | Path) -> None:
    """Return when everything under ``path`` is on stable storage.

    Linux: one ``syncfs`` for the file system. Elsewhere: ``fsync`` of every file and directory.
    """
    libc = _libc()
    if hasattr(libc, "syncfs"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            if libc.syncfs(descriptor) != 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code), str(path))
        finally:
            os.close(descriptor)
        return
    for folder, _, files in os.walk(path):
        for name in files:
            _fsync(os.path.join(folder, name))
        _fsync(folder)


def rename_into_place(staged: Path, final: Path) -> None:
    """Rename the synced directory ``staged`` to ``final``, which must not be there.

    Raises FileExistsError when something is there, OSError when the rename fails.
    """
    try:
        os.rename(staged, final)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final)) from error
        raise
    _fsync(final.parent)
    with contextlib.suppress(FileNotFoundError):  # the last one out removes the staging directory
        _fsync(staged.parent)


def exchange(staged: Path, final: Path) -> None:
    """Swap ``staged`` and ``final``: at every moment ``final`` is the old or the new, whole.

    Afterwards ``staged`` holds the old content. Where the system cannot swap, the old is renamed
    aside and the new renamed in; ``clean_stale`` puts the old back if that was interrupted.
    """
    libc = _libc()
    code = errno.ENOSYS
    if hasattr(libc, "renameat2"):
        names = os.fsencode(staged), os.fsencode(final)
        if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
            code = 0
        else:
            code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        _rename_aside(staged, final)
    elif code:
        raise OSError(code, os.strerror(code), str(final))
    _fsync(final.parent)
    _fsync(staged.parent)


def _rename_aside(staged: Path, final: Path) -> None:
    """Swap by two renames, where the system has no atomic swap; for a moment neither is in place."""
    aside = new_staged(final.parent, final.name + _ASIDE)
    os.rename(final, aside)
    try:
        os.rename(staged, final)
    except OSError:
        os.rename(aside, final)
        raise
    os.rename(aside, staged)


def write_file(path: Path, content: bytes, staging_for: str | Path, *, replace: bool) -> bool:
    """Write a small file atomically through the staging directory of ``staging_for``.

    Returns False, with the old file untouched, when it is there already and ``replace`` is False.
    """
    staged = new_staged(staging_for, path.name)
    try:
        draft = staged / path.name
        with open(draft, "xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if replace:
            os.replace(draft, path)
        else:
            try:
                os.link(draft, path)
            except FileExistsError:
                # NFS may carry out a link twice and answer only the second time.
                if os.stat(draft).st_nlink < 2:
                    return False
            except OSError:  # a file system without hard links
                if path.exists():
                    return False
                os.rename(draft, path)
        _fsync(path.parent)
    finally:
        discard(staged)
    return True


def clean_stale(store: str | Path, *, max_age_days: float = STALE_DAYS) -> list[Path]:
    """Remove what killed processes left in the staging directory; return what was removed.

    A leftover of this host goes when its process is gone; one of another host when nothing in it
    changed for ``max_age_days``. A lock file goes when nobody holds it. Other entries without an owner in their name
    are left alone.
    """
    store = Path(store).resolve()
    folder = staging_dir(store)
    removed: list[Path] = []
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return removed
    for entry in entries:
        if entry.suffix == ".lock" and _drop_lock(entry):
            removed.append(entry)
        match = _STAGED.fullmatch(entry.name)
        if match is None or _in_use(entry, match, max_age_days):
            continue
        final = store / match["name"].removesuffix(_ASIDE)
        if match["name"].endswith(_ASIDE) and not final.exists():
            # An interrupted replacement: the old scan is whole, so it goes back.
            with contextlib.suppress(OSError):
                os.rename(entry, final)
            continue
        shutil.rmtree(entry, ignore_errors=True)
        removed.append(entry)
    with contextlib.suppress(OSError):
        folder.rmdir()
    return removed


def _drop_lock(path: Path) -> bool:
    """Remove a lock file that nobody holds; who waits for it looks whether it is still there."""
    try:
        lock = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


def owner() -> tuple[str, int, int]:
    """This process: host with its boot and process namespace, process number, start time of the process."""
    return _host(), os.getpid(), _start_time(os.getpid())


def _in_use(entry: Path, match: re.Match[str], max_age_days: float) -> bool:
    """Whether the process that owns a staged directory may still write it."""
    if match["host"] == _host():
        return alive(int(match["pid"]), int(match["start"]))
    newest = 0.0
    for folder, _, _ in os.walk(entry):
        with contextlib.suppress(OSError):
            newest = max(newest, os.stat(folder).st_mtime)
    return time.time() - newest < max_age_days * 86400.0


def alive(pid: int, start: int) -> bool:
    """True while the process that recorded ``start`` runs (its number may be in use again)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        # It runs as another user, whose /proc entry may be hidden.
        return _start_time(pid) in (start, 0, -1)
    return _start_time(pid) in (start, 0)


def _start_time(pid: int) -> int:
    """Clock ticks from boot to the start of a process; 0 unknown, -1 ended (see proc(5))."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return -1 if Path("/proc/self/stat").exists() else 0
    except OSError:
        return 0
    fields = text.rpartition(")")[2].split()
    return -1 if fields[0] in "ZX" else int(fields[19])


@contextlib.contextmanager
def as_write_error(
    path: Path, scan: int | None = None, *, kind: type[GpucalError] = L1Error
) -> Iterator[None]:
    """Turn an OSError into one sentence, an error of ``kind``: which path, why, what to do."""
    try:
        yield
    except GpucalError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.ENOENT) and error.filename:
            reason += f" ({error.filename})"
        raise kind(
            f"{path} cannot be written: {reason}.",
            hint=_HINTS.get(error.errno or 0, ""),
            scan=scan,
        ) from error


@functools.cache
def _host() -> str:
    """Host name plus a digest of boot and process namespace: process numbers mean nothing else."""
    namespace = ""
    with contextlib.suppress(OSError):
        namespace += Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        namespace += os.readlink("/proc/self/ns/pid")
    name = re.sub(r"[^A-Za-z0-9]", "-", socket.gethostname())[:40]
    return f"{name}_{hashlib.sha256(namespace.encode()).hexdigest()[:8]}"


@functools.cache
def _libc() -> Any:
    """The C library, for ``renameat2``, which Python does not offer."""
    return ctypes.CDLL(None, use_errno=True)


def _fsync(path: str | Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
