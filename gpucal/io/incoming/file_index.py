"""What is known of files from looking at them once, kept between runs.

One JSON file for each folder of raw data, in ``$GPUCAL_CACHE_DIR`` or the user's cache; raw data folders
are never written to. An entry holds while size and time of change of its file are the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpucal.version import __version__


def cache_folder() -> Path:
    """Where the indices lie: ``$GPUCAL_CACHE_DIR``, else ``gpucal`` in the user's cache."""
    own = os.environ.get("GPUCAL_CACHE_DIR")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(own or f"{base}/gpucal").expanduser()


class FileIndex:
    """Facts about files, read from them at most once as long as they do not change.

    place: folder of the index files; None keeps nothing between runs.
    """

    def __init__(self, place: Path | None = None) -> None:
        self._place = place
        self._folders: dict[str, dict[str, Any]] = {}
        self._resolved: dict[Path, str] = {}
        self._changed: set[str] = set()
        self.looked = 0
        """How many times a file was looked at."""

    def facts(self, path: Path, kind: str, look: Callable[[Path], Any]) -> Any:
        """``look(path)``, a value that JSON can hold, from the index where the file is as it was.

        kind: what the facts are, with a number to raise when they change: "imbfits/1". What ``look`` raises
        is passed on and not kept.
        """
        folder = self._folder_of(path)
        try:
            stat = path.stat()
        except OSError:
            return look(path)
        state = [stat.st_size, stat.st_mtime_ns]
        entries = self._entries(folder)
        entry = entries.get(path.name)
        if entry is None or entry.get("state") != state:
            entry = entries[path.name] = {"state": state}
        if kind not in entry:
            entry[kind] = look(path)
            self.looked += 1
            self._changed.add(folder)
        return entry[kind]

    def save(self) -> None:
        """Write what is new; a cache that cannot be written is done without."""
        if self._place is None:
            return
        for folder in self._changed:
            with contextlib.suppress(OSError):
                self._write(folder)
        self._changed.clear()

    def _folder_of(self, path: Path) -> str:
        parent = path.parent
        if parent not in self._resolved:
            self._resolved[parent] = str(parent.resolve())
        return self._resolved[parent]

    def _file(self, folder: str) -> Path:
        assert self._place is not None
        return self._place / f"index-{hashlib.sha256(folder.encode()).hexdigest()[:24]}.json"

    def _entries(self, folder: str) -> dict[str, Any]:
        if folder not in self._folders:
            self._folders[folder] = {}
            if self._place is not None:
                with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                    kept = json.loads(self._file(folder).read_text(encoding="utf-8"))
                    if kept["version"] == __version__ and kept["folder"] == folder:
                        self._folders[folder] = kept["files"]
        return self._folders[folder]

    def _write(self, folder: str) -> None:
        target = self._file(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        there = {e.name for e in os.scandir(folder)}
        files = {name: entry for name, entry in self._folders[folder].items() if name in there}
        text = json.dumps({"version": __version__, "folder": folder, "files": files})
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=target.parent, delete=False
        ) as draft:
            draft.write(text)
        os.replace(draft.name, target)
