"""Write one Zarr array chunk by chunk, from any number of threads, without zarr-python."""

from __future__ import annotations

import contextlib
import errno
import itertools
import math
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gpucal.errors import L1Error
from gpucal.io.chunks.codecs import ChunkEncoder, Payload


class OpenScan(Protocol):
    """What an array needs of the scan it belongs to."""

    number: int

    def check_open(self) -> None: ...

    def errors(self) -> contextlib.AbstractContextManager[None]: ...


class ArrayWriter:
    """An array of a scan being written; every method is thread-safe."""

    def __init__(
        self,
        scan: OpenScan,
        path: Path,
        key: str,
        layout: tuple[tuple[int, ...], tuple[int, ...]],
        encoder: ChunkEncoder,
        fill_value: Any,
    ) -> None:
        """``layout`` is the shape of the array and that of its chunks."""
        self.key = key
        self.shape, self.chunks = layout
        self.dtype = encoder.dtype
        self.grid = tuple(-(-n // c) for n, c in zip(*layout, strict=True))
        self.path = path
        self._scan = scan
        self._encoder = encoder
        self._fill = np.asarray(fill_value).astype(encoder.dtype)
        self._written: dict[tuple[int, ...], int] = {}

    def indices(self) -> Iterator[tuple[int, ...]]:
        """All chunk indices, the last axis fastest."""
        return itertools.product(*(range(n) for n in self.grid))

    def region(self, index: Sequence[int]) -> tuple[slice, ...]:
        """The part of the array that one chunk holds, cut at the array's edge."""
        axes = zip(index, self.chunks, self.shape, strict=True)
        return tuple(slice(i * c, min((i + 1) * c, n)) for i, c, n in axes)

    def missing(self) -> int:
        """How many chunks were not written yet."""
        return math.prod(self.grid) - len(self._written)

    def incomplete(self, folder: Path) -> str:
        """The first chunk file below ``folder`` that is not what was written, and why; "" when all are."""
        for place, nbytes in self._written.items():
            path = os.path.join(folder, "c", *map(str, place))
            try:
                found = os.stat(path)
            except OSError as error:
                return f"{path}: {error.strerror}"
            if found.st_size != nbytes or not stat.S_ISREG(found.st_mode):
                return f"{path} has {found.st_size} bytes, {nbytes} were written"
        return ""

    def encode(self, block: npt.NDArray[Any]) -> Payload:
        """Encode one block for ``write_chunk``; it does not change when ``block`` is edited."""
        payload = self._payload(block)
        if isinstance(payload.data, memoryview):
            payload = payload._replace(data=bytes(payload.data))
        return payload

    def write_chunk(
        self,
        index: Sequence[int],
        block: npt.NDArray[Any] | None,
        encoded: Payload | bytes | None = None,
    ) -> Payload | bytes:
        """Write the chunk at ``index`` and return its payload, to be written elsewhere too.

        ``block`` must have the shape of ``region(index)``; with ``encoded``, made by ``encode``,
        it may be None. With codec "none" the returned payload borrows the memory of ``block``.
        Raises L1Error for a wrong index or shape, or when the disk refuses.
        """
        self._scan.check_open()
        place = tuple(int(i) for i in index)
        if len(place) != len(self.grid) or any(
            not 0 <= i < n for i, n in zip(place, self.grid, strict=True)
        ):
            raise L1Error(
                f"{self.key} has no chunk {place}, its grid is {self.grid}.", scan=self._scan.number
            )
        if encoded is None:
            expected = tuple(s.stop - s.start for s in self.region(place))
            if block is None or block.shape != expected:
                found = None if block is None else block.shape
                raise L1Error(
                    f"chunk {place} of {self.key} has shape {expected}, got {found}.",
                    scan=self._scan.number,
                )
            encoded = self._payload(block)
        path = os.path.join(self.path, "c", *map(str, place))
        parts = encoded if isinstance(encoded, Payload) else (encoded,)
        with self._scan.errors():
            _write_chunk_file(path, parts, self.path)
        self._written[place] = sum(
            memoryview(part).nbytes for part in parts
        )  # one atomic operation
        return encoded

    def _payload(self, block: npt.NDArray[Any]) -> Payload:
        """Encode a block; one cut at the array's edge is padded with the fill value to a whole chunk."""
        if not np.can_cast(block.dtype, self.dtype, casting="same_kind"):
            raise L1Error(
                f"{self.key} has dtype {self.dtype}, a block of {block.dtype} does not fit.",
                scan=self._scan.number,
            )
        if block.shape != self.chunks:
            if block.ndim != len(self.chunks) or any(
                n > c for n, c in zip(block.shape, self.chunks, strict=True)
            ):
                raise L1Error(
                    f"{self.key} has chunks {self.chunks}, a block {block.shape} does not fit.",
                    scan=self._scan.number,
                )
            padded = np.full(self.chunks, self._fill, dtype=self.dtype)
            padded[tuple(slice(n) for n in block.shape)] = block
            block = padded
        return self._encoder.payload(block)


def _write_chunk_file(path: str, parts: Sequence[bytes | memoryview], array: Path) -> None:
    """Write the parts by one ``writev`` where the system takes them all; makes folders on demand.

    But not that of the array: if it is gone, so is what was written into it before.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0)
    try:
        descriptor = os.open(path, flags, 0o666)
    except FileNotFoundError:
        if not array.is_dir():
            raise
        os.makedirs(os.path.dirname(path), exist_ok=True)
        descriptor = os.open(path, flags, 0o666)
    try:
        left = [memoryview(part) for part in parts]
        while left:
            written = os.writev(descriptor, left)
            if not written and any(len(part) for part in left):
                raise OSError(errno.EIO, "the disk takes no more bytes", path)
            while left and written >= len(left[0]):
                written -= len(left.pop(0))
            if left:
                left[0] = left[0][written:]
    finally:
        os.close(descriptor)
