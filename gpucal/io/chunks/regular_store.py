"""Zarr stores in folders that open regular files only, and for L1 only whole ones."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from zarr.storage import LocalStore

from gpucal.errors import CorruptDataError
from gpucal.io.chunks.layout import check_fits, has_checksum
from gpucal.io.files.regular import (
    MAX_DOCUMENT_BYTES,
    check_depth,
    check_regular,
    read_document,
)

DOCUMENTS = frozenset({"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"})
ABSENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


class RegularFiles(LocalStore):
    """A folder whose FIFOs, devices, deep and oversized documents are errors.

    most: path of an array -> bytes that a file of it has at most.
    """

    most: dict[str, int]

    def __init__(self, root: Path | str, *, read_only: bool = False) -> None:
        super().__init__(root, read_only=read_only)
        self.most = {}

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        """As LocalStore; raises CorruptDataError for what is no regular file or too large."""
        if not self._checked(key):
            return self._missing(key)
        found = await super().get(key, prototype, byte_range)
        if found is None:
            return self._missing(key)
        if byte_range is None:
            self._whole(key, found)
        return found

    async def get_partial_values(
        self, prototype: Any, key_ranges: Iterable[tuple[str, Any]]
    ) -> list[Any]:
        """As LocalStore; raises as ``get``."""
        wanted = list(key_ranges)
        for key, _ in wanted:
            self._checked(key)
        return await super().get_partial_values(prototype, wanted)

    def _checked(self, key: str) -> bool:
        """Whether there is a file for ``key``, found without opening it."""
        folder, _, name = key.rpartition("/")
        most = MAX_DOCUMENT_BYTES if name in DOCUMENTS else self._limit(folder)
        try:
            check_regular(self.root / key, most)
        except ABSENT:
            return False
        except CorruptDataError:
            raise
        except OSError as error:
            raise CorruptDataError(
                f"{self.root / key} cannot be read: {error.strerror}.",
                hint="Restore it from a copy, or leave this scan out with --scans.",
            ) from error
        return True

    def _limit(self, folder: str) -> int | None:
        """The size limit of the array that a chunk belongs to."""
        while folder:
            if folder in self.most:
                return self.most[folder]
            folder = folder.rpartition("/")[0]
        return self.most.get("")

    def _missing(self, key: str) -> None:
        """What an absent file means: nothing, Zarr has a default for it."""

    def _whole(self, key: str, content: Any) -> None:
        """Look at the content of a file that was read whole."""
        if key.rpartition("/")[2] in DOCUMENTS:
            check_depth(self.root / key, content.to_bytes())


class CheckedFiles(RegularFiles):
    """Folder of one L1 scan: a chunk that is missing or not as it was written is an error that names its file.

    This holds for arrays with a crc32c, whose chunks are all written; those of other programs may lack both.
    """

    _documents: dict[str, dict[str, Any]]

    def __init__(self, root: Path | str, *, read_only: bool = False) -> None:
        super().__init__(root, read_only=read_only)
        self._documents = {}

    def _missing(self, key: str) -> None:
        if self._is_chunk(key) and has_checksum(self._metadata(key)):
            raise self._damaged(key, "is missing")

    def _whole(self, key: str, content: Any) -> None:
        super()._whole(key, content)
        if not self._is_chunk(key):
            return
        data = content.as_numpy_array().view(np.uint8)
        if has_checksum(self._metadata(key)):
            if data.size < 4:
                raise self._damaged(key, f"has {data.size} bytes, not even a checksum")
            data, end = data[:-4], data[-4:]
            found, expected = google_crc32c.value(data), int.from_bytes(end.tobytes(), "little")
            if found != expected:
                raise self._damaged(key, f"has the crc32c {found:08x}, written was {expected:08x}")
        try:
            check_fits(self._metadata(key), data)
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(key, f"cannot be decoded: {error}") from error

    def _is_chunk(self, key: str) -> bool:
        return "/c/" in f"/{key}/"

    def _metadata(self, key: str) -> dict[str, Any]:
        """The zarr.json of the array that a chunk belongs to."""
        array = _array_of(key)
        if array not in self._documents:
            self._documents[array] = json.loads(read_document(self.root / array / "zarr.json"))
        return self._documents[array]

    def _damaged(self, key: str, what: str) -> CorruptDataError:
        parts = (*self.root.parts, *_array_of(key).split("/"))
        scan = next((p for p in reversed(parts) if p.startswith("scan_")), "")
        number = int(scan[5:]) if scan[5:].isdigit() else None
        array = "/".join(parts[parts.index(scan) + 1 :] if scan else parts[-1:])
        again = f"--overwrite --scans {number}" if number is not None else "--overwrite"
        return CorruptDataError(
            f"array {array.rstrip('/')}: chunk file {self.root / key} {what}.",
            hint=f"Calibrate the scan again: gpucal calibrate L0 OUT {again}; or restore the file from a copy.",
            scan=number,
        )


def _array_of(key: str) -> str:
    """The array that a chunk belongs to; "" for the root."""
    return key[: f"/{key}/".rindex("/c/")].rstrip("/")
