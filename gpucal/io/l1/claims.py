"""Claims of runs: which scans of an L1 store a run is about to write, so that no other run writes them too.

A claim is a file ``run-N.json`` in the staging directory, made by a hard link, which on NFS too succeeds for one
process only. Of two claims that exclude each other the one with the lower number holds. The claim of a process of this
host is void when the process is gone, that of another host when its file was not touched for ``DEAD_AFTER_S``.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import socket
import threading
import uuid
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from gpucal.errors import ConfigError, GpucalError, L1Error, OtherSettingsError
from gpucal.io.files import atomic
from gpucal.io.files.regular import read_document

HEARTBEAT_S = 15.0
DEAD_AFTER_S = 600.0
"""A run of another host that did not touch its claim for so long has ended; clocks are those of the file server."""

_NAME = re.compile(r"run-(\d+)\.json")
_TRIES = 100
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


class RunClaim:
    """The claim of a run on scans of the store ``out``; a context manager that gives it back.

    settings: what must not differ between runs that write one store at a time, unless ``overwrite``. Entering raises
    ConfigError when another run is about to write one of the scans, OtherSettingsError when it has other settings.
    """

    def __init__(
        self,
        out: str | Path,
        scans: Collection[int],
        settings: Mapping[str, Any],
        *,
        overwrite: bool = False,
    ) -> None:
        self._out = Path(out).resolve()
        self._folder = atomic.staging_dir(self._out)
        self._scans = frozenset(scans)
        self._settings: dict[str, Any] = json.loads(json.dumps(dict(settings), default=str))
        self._overwrite = overwrite
        self._token = uuid.uuid4().hex
        self._path: Path | None = None
        self._gone: L1Error | None = None
        self._end = threading.Event()
        self._beating: threading.Thread | None = None

    def __enter__(self) -> RunClaim:
        if not self._scans:
            return self
        try:
            self._out.parent.mkdir(parents=True, exist_ok=True)
            self._enter()
        except OSError as error:
            if isinstance(error, GpucalError):
                raise
            # Where nothing can be written there is nothing to exclude: what is there may be looked at.
            if error.errno not in _READ_ONLY:
                with atomic.as_write_error(self._folder):
                    raise
            return self
        beating = threading.Thread(target=self._beat, name="claim", daemon=True)
        with contextlib.suppress(RuntimeError):  # no thread to be had: each commit touches the file
            beating.start()
            self._beating = beating
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        if self._beating is not None:
            self._beating.join(1.0)  # a file server may hang
        self._leave()

    def check(self) -> None:
        """Raise L1Error when the claim is lost to another run: its file was removed, or this run was suspended."""
        if self._gone is not None:
            raise L1Error(self._gone.message, hint=self._gone.hint)  # each scan gets its own
        if self._path is None:
            return
        try:
            with atomic.as_write_error(self._folder):
                self._touch()
                self._refuse_if_excluded()
        except L1Error as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            self._path = None
            with self._as_lost():
                self._enter()
        except ConfigError as error:
            raise self._lost(error) from error

    def _touch(self) -> None:
        """Touch the claim file; raises FileNotFoundError when it is gone, or that of another run by now."""
        path = self._path
        if path is not None:
            if (_read(path) or {}).get("token") != self._token:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
            os.utime(path)

    @contextlib.contextmanager
    def _as_lost(self) -> Iterator[None]:
        try:
            with atomic.as_write_error(self._folder):
                yield
        except ConfigError as error:
            raise self._lost(error) from error

    def _lost(self, error: GpucalError) -> L1Error:
        """The error of this and every later check."""
        self._gone = L1Error(
            f"this run lost its claim on {self._out}: {error.message}",
            hint="Was the staging folder removed, or the process stopped for long? " + error.hint,
        )
        return self._gone

    def _enter(self) -> None:
        """Make the claim file under the next free number; raises ConfigError when another one excludes it."""
        claim = {**_owner(), "token": self._token, "scans": sorted(self._scans)}
        content = json.dumps({**claim, "settings": self._settings})
        for _ in range(_TRIES):
            number = max((n for n, _ in self._others()), default=0) + 1
            path = self._folder / f"run-{number:06d}.json"
            with contextlib.suppress(FileNotFoundError):  # the folder was removed meanwhile
                if atomic.write_file(path, content.encode(), self._out, replace=False):
                    self._path = path
                    break
        else:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._folder))
        try:
            self._refuse_if_excluded()
        except BaseException:
            self._leave()
            raise

    def _leave(self) -> None:
        """Remove the claim file, and the folder once it is empty."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._touch()
                self._path.unlink()
            self._path = None
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def _beat(self) -> None:
        while not self._end.wait(HEARTBEAT_S):
            with contextlib.suppress(OSError):  # the next commit looks what is the matter
                self._touch()

    def _others(self) -> Iterator[tuple[int, Path]]:
        """Number and file of every claim but the own one."""
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return
        for name in names:
            path = self._folder / name
            if (match := _NAME.fullmatch(name)) and path != self._path:
                yield int(match[1]), path

    def _refuse_if_excluded(self) -> None:
        """Raise ConfigError when a claim with a lower number excludes this one; remove those of dead processes."""
        if self._path is None:
            return
        now = self._path.stat().st_mtime
        for number, path in sorted(self._others()):
            other = _read(path)
            if other is None:
                continue
            if not _lives(other, path, now):
                with contextlib.suppress(OSError):
                    path.unlink()
            elif number < int(self._path.stem.removeprefix("run-")):
                self._refuse(other)

    def _refuse(self, other: Mapping[str, Any]) -> None:
        who = f"process {other['pid']} on {other['machine']}, since {other['begun']}"
        common = sorted(self._scans & set(other["scans"]))
        if common:
            some = ", ".join(map(str, common[:5])) + (", ..." if len(common) > 5 else "")
            raise ConfigError(
                f"another run ({who}) is writing {self._out}, also scan {some}; nothing was changed.",
                hint="Wait until it has ended, then run the same command again; or choose another OUT.",
            )
        theirs = other["settings"]
        keys = sorted(self._settings.keys() | theirs.keys())
        differ = [k for k in keys if self._settings.get(k) != theirs.get(k)]
        if differ and not self._overwrite:
            named = ", ".join(key.replace("_", "-") for key in differ)
            raise OtherSettingsError(
                f"another run ({who}) is writing {self._out} with other settings ({named}); nothing was changed.",
                hint="Choose another OUT, or give --overwrite if one store shall hold both.",
            )


def _owner() -> dict[str, Any]:
    """This process, and the time."""
    host, pid, start = atomic.owner()
    begun = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return {
        "host": host,
        "pid": pid,
        "start": start,
        "machine": socket.gethostname(),
        "begun": begun,
    }


def _read(path: Path) -> dict[str, Any] | None:
    """A claim; None for a file that is gone or is none."""
    try:
        found = json.loads(read_document(path))
        whole = (
            isinstance(found["scans"], list)
            and isinstance(found["settings"], dict)
            and all(isinstance(found[key], int) for key in ("pid", "start"))
            and all(isinstance(found[key], str) for key in ("host", "machine", "begun"))
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if whole else None


def _lives(claim: Mapping[str, Any], path: Path, now: float) -> bool:
    """Whether the run that made a claim goes on; ``now`` by the clock that stamped the file."""
    if claim["host"] == atomic.owner()[0]:
        return atomic.alive(claim["pid"], claim["start"])
    try:
        return now - path.stat().st_mtime < DEAD_AFTER_S
    except OSError:
        return False
