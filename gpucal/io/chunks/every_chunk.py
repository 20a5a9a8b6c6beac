"""Read every chunk of an array, and tell which are not as they were written."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gpucal.errors import GpucalError, words_of
from gpucal.io.chunks.layout import ChunkFiles, chunk_files, has_checksum

UNREADABLE = "it is not as its metadata say"


@dataclass
class ReadChunks:
    """What reading every chunk of some arrays gave.

    chunks: that were read; unguarded: those of them without a checksum, which a flipped bit would change unnoticed;
    missing: without a file, where none needs to be; faults: sentences, each names array and chunk file.
    """

    chunks: int = 0
    unguarded: int = 0
    missing: int = 0
    faults: list[str] = field(default_factory=list)

    def add(self, name: str, array: Any, *, whole: bool = False) -> None:
        """Read an array of a Zarr store, a chunk (or shard) at a time.

        whole: a chunk with a checksum that has no file is a fault: who writes such arrays writes every chunk.
        """
        guarded = has_checksum(array.metadata.to_dict())
        try:
            files = chunk_files(array) if array.ndim else None
            for key in _keys(array):
                self._read(f"array {name}", array, files, key, guarded, whole)
        except (GpucalError, OSError, ValueError, ZeroDivisionError) as error:
            self.faults.append(f"array {name}: {words_of(error) or UNREADABLE}.")

    def _read(
        self,
        name: str,
        array: Any,
        files: ChunkFiles | None,
        key: tuple[int, ...],
        guarded: bool,
        whole: bool,
    ) -> None:
        path = _path_of(array, key)
        if path is not None and not path.exists():
            if whole and guarded:
                self.faults.append(f"{name}: chunk file {path} is missing.")
            else:
                self.missing += 1
            return
        self.chunks += 1
        self.unguarded += not guarded
        try:
            if files is not None:
                files.decode(key, np.empty(files.chunk, files.stored.newbyteorder("=")))
            else:
                array.get_basic_selection(_region(array, key))
        except Exception as error:  # every codec has error classes of its own
            words = words_of(error) or UNREADABLE
            at_file = f"chunk file {path}: " if path is not None and str(path) not in words else ""
            self.faults.append(f"{name}: {at_file}{words}.")


def _keys(array: Any) -> Iterator[tuple[int, ...]]:
    """Grid index of each chunk, or of each shard where chunks lie in shards."""
    sizes = array.shards or array.chunks
    return itertools.product(
        *(range(-(-n // size)) for n, size in zip(array.shape, sizes, strict=True))
    )


def _path_of(array: Any, key: tuple[int, ...]) -> Path | None:
    """The file of a chunk; None for a store that is not a folder."""
    root = getattr(array.store, "root", None)
    return None if root is None else Path(root) / array.path / array.metadata.encode_chunk_key(key)


def _region(array: Any, key: tuple[int, ...]) -> tuple[slice, ...]:
    axes = zip(key, array.shards or array.chunks, array.shape, strict=True)
    return tuple(slice(k * size, min((k + 1) * size, n)) for k, size, n in axes)
