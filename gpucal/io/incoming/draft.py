"""An import that can be interrupted: what is written waits beside its place for the next run."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from gpucal.errors import L0Error
from gpucal.io.files.atomic import as_write_error, sync_tree
from gpucal.version import __version__


class Draft:
    """A store being written in ``<out>.importing/``, and the scans in it that are on disk."""

    def __init__(self, folder: Path, name: str) -> None:
        self.store = folder / name
        self._done = folder / "done"
        self._inputs = folder / "inputs"

    def finished(self) -> set[int]:
        """Numbers of the scans that are whole and synced."""
        if not self._done.exists():
            return set()
        return {int(line) for line in self._done.read_text().split("\n")[:-1]}

    def add(self, number: int) -> None:
        """Note that a scan is written, once it is on stable storage."""
        sync_tree(self.store)
        with open(self._done, "a", encoding="ascii") as stream:
            stream.write(f"{number}\n")
            stream.flush()
            os.fsync(stream.fileno())

    def retire(self) -> None:
        """Let the next run begin anew: the store is about to leave, so nothing of it must count as done."""
        self._inputs.unlink(missing_ok=True)

    def clear_unfinished(self) -> None:
        """Remove what an interrupted run left half written."""
        keep = {f"scan_{n:06d}" for n in self.finished()}
        if self.store.is_dir():
            for entry in self.store.iterdir():
                if entry.is_dir() and entry.name not in keep:
                    shutil.rmtree(entry)


@contextlib.contextmanager
def resumable(target: Path, inputs: Sequence[Path], options: str = "") -> Iterator[Draft]:
    """A draft for the store ``target``, kept when the run is interrupted or killed.

    The next run with the same input files (name, size, time of change), the same options and the same
    version of this program finds it as it was; another one begins anew. An error removes it. Raises L0Error
    when another process is at it.
    """
    folder = target.with_name(target.name + ".importing")
    with as_write_error(folder):
        folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise L0Error(
                f"another import into {target} is running.", hint="Wait for its end."
            ) from None
        except OSError:
            pass  # a file system without locks
        try:
            draft = Draft(folder, target.name)
            _begin(draft, folder, _fingerprint(inputs, options))
            yield draft
        except Exception:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)


def _begin(draft: Draft, folder: Path, fingerprint: str) -> None:
    """Empty the folder unless it belongs to the same inputs."""
    record = folder / "inputs"
    if not record.exists() or record.read_text() != fingerprint:
        # first of all: a run killed here must not leave scans counted as done without their data
        record.unlink(missing_ok=True)
        for entry in folder.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != "lock":
                entry.unlink()
        record.write_text(fingerprint)
    draft.clear_unfinished()


def _fingerprint(inputs: Sequence[Path], options: str) -> str:
    """Digest of the input files (name, size, time of change), the options and the version of this program."""
    facts = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in inputs]
    return hashlib.sha256(json.dumps([__version__, options, sorted(facts)]).encode()).hexdigest()
