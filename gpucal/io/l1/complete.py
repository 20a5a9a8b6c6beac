"""Whether all that was written of a scan is on the disk; sizes are compared, nothing is read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from gpucal.errors import L1Error
from gpucal.io.chunks.array_writer import ArrayWriter
from gpucal.io.files import atomic


class WrittenFiles:
    """The files of one scan: sizes of its zarr.json by key, and the arrays with their chunks.

    Arrays that ``changed`` since (flags, by rules) are looked at for their documents alone.
    """

    def __init__(self, scan: int, documents: Mapping[str, int], arrays: Iterable[ArrayWriter]):
        self._scan = scan
        self._documents = dict(documents)
        self._arrays = list(arrays)

    def check(self, folder: Path, *, flags_changed: bool = False) -> None:
        """Raise L1Error unless every file is in ``folder`` with its size."""
        for key, nbytes in self._documents.items():
            path = folder / key
            try:
                found = path.stat().st_size
            except OSError as error:
                raise self._broken(f"{path}: {error.strerror}") from error
            if found != nbytes:
                raise self._broken(f"{path} has {found} bytes, {nbytes} were written")
        for array in self._arrays:
            if flags_changed and array.key.rpartition("/")[2] == "flags":
                continue
            if wrong := array.incomplete(folder / array.key):
                raise self._broken(wrong)

    def _broken(self, what: str) -> L1Error:
        return L1Error(
            f"what was written is not on the disk: {what}.",
            hint="Did something remove or change it during the run? Run the same command again.",
            scan=self._scan,
        )


def take_back(staged: Path, final: Path, store: Path, *, replaced: bool) -> None:
    """Undo the renaming of a scan that turned out incomplete: the store then is as before."""
    if replaced:
        atomic.exchange(staged, final)
        return
    aside = atomic.new_staged(store, final.name)
    with contextlib.suppress(FileNotFoundError):
        os.rename(final, aside)
    atomic.discard(aside)
