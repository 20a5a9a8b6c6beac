"""Read a Zarr array whole, within memory that its shape allows: the arrays beside the counts."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.errors import CorruptDataError, L0Error, words_of
from gpucal.io.chunks.layout import ChunkFiles, chunk_files

MAX_BYTES = 256 << 20
"""Of one array: 32 million dumps in f8, more than any scan has."""
MAX_CHUNKS = 1_000_000
MAX_COUNTS_CHUNK = 1 << 32


def check_extent(name: str, node: Any, most: int = MAX_BYTES) -> None:
    """Raise L0Error, before anything is allocated, for chunks of no extent and for more than ``most`` bytes."""
    size = np.dtype(node.dtype).itemsize
    if any(n < 1 for n in node.chunks):
        raise L0Error(f"array {name} has chunks {tuple(node.chunks)}, expected positive numbers.")
    chunk = math.prod(node.chunks) * size
    whole = chunk if most == MAX_COUNTS_CHUNK else max(chunk, math.prod(node.shape) * size)
    if whole > most:
        raise L0Error(
            f"array {name} has shape {tuple(node.shape)} and chunks {tuple(node.chunks)}: that would take "
            f"{whole / 2**30:.3g} GiB of memory at once, at most {most / 2**30:.3g} GiB are read.",
        )
    n = math.prod(-(-s // c) for s, c in zip(node.shape, node.chunks, strict=True))
    if most == MAX_BYTES and n > MAX_CHUNKS:
        raise L0Error(f"array {name} has {n} chunks, at most {MAX_CHUNKS} are read.")


def read_whole(name: str, node: Any) -> npt.NDArray[Any]:
    """All values of an array; raises L0Error as ``check_extent``, CorruptDataError for a chunk that is broken."""
    check_extent(name, node)
    files = chunk_files(node) if node.ndim else None
    if files is None or files.stored != np.dtype(node.dtype).newbyteorder(files.stored.byteorder):
        return _by_zarr(name, node)
    return _from_files(name, node, files)


def _from_files(name: str, node: Any, files: ChunkFiles) -> npt.NDArray[Any]:
    """Chunk by chunk, each decoded into memory of its size and no more."""
    values = np.full(node.shape, node.fill_value, files.stored.newbyteorder("="))
    chunk = np.empty(files.chunk, values.dtype)
    grid = [range(-(-n // c)) for n, c in zip(node.shape, files.chunk, strict=True)]
    for key in itertools.product(*grid):
        path = files.path(key)
        if not path.exists():
            continue
        try:
            files.decode(key, chunk)
        except CorruptDataError:
            raise
        except (ValueError, OSError) as error:
            text = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
            raise _broken(name, f"chunk file {path}: {text}") from error
        part = tuple(
            slice(k * c, min((k + 1) * c, n))
            for k, c, n in zip(key, files.chunk, node.shape, strict=True)
        )
        values[part] = chunk[tuple(slice(0, s.stop - s.start) for s in part)]
    return values


def _by_zarr(name: str, node: Any) -> npt.NDArray[Any]:
    try:
        return np.asarray(node[...])
    except CorruptDataError:
        raise
    except Exception as error:  # every codec has error classes of its own
        raise _broken(name, words_of(error) or "its codecs do not fit its chunks") from error


def _broken(name: str, reason: str) -> CorruptDataError:
    return CorruptDataError(
        f"array {name} cannot be decoded: {reason}.",
        hint="Restore it from a copy, or leave this scan out with --scans.",
    )
