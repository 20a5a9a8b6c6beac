"""Raw counts of a Zarr array, read chunk by chunk and each chunk decoded once."""

from __future__ import annotations

import itertools
import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.axes import FILL_INT32
from gpucal.errors import CorruptDataError
from gpucal.io.chunks.device import encoded_block
from gpucal.io.chunks.layout import SCRATCH, ChunkFiles, MissingChunkError, chunk_files, with_fill
from gpucal.io.conventions.coding import Coding
from gpucal.scan import EncodedBlock

UNLIKELY = 0xFFFFFFFF
"""u32 that a chunk which is not there is read as, to tell it from counts of 0."""

Shape5 = tuple[int, int, int, int, int]
Counts = npt.NDArray[Any]
Key = tuple[int, ...]


class ZarrCounts:
    """Lazy raw counts [C, D, R, A, S] of a Zarr array; a ``gpucal.scan.CountsSource``.

    Safe to read from several threads, which decode at the same time. ``scan`` and ``band`` are
    named in errors. ``n_subscans`` hides the subscans from there on (a scan that is still growing).
    A chunk that also serves other requests (it holds several subscans, or more channels than were
    asked for) is kept in an LRU of at most ``cache_bytes`` decoded bytes, and always at least one.
    A chunk that is not there is no data (INT32_MIN, NaN), whatever the array's fill value says; where
    the dtype has no such value (u32), CorruptDataError. With ``coding`` the numbers are raw counts:
    they are decoded by it, and what can only be no data becomes so; ``zeros_lost`` as in
    ``Coding.counts``. ``calibrated``: an array of L1, not counts. With a crc32c all its chunks were
    written, and one that is not there is an error; without one (other writers) it is the fill value.
    """

    def __init__(
        self,
        array: Any,
        *,
        scan: int | None = None,
        band: str = "",
        n_subscans: int | None = None,
        cache_bytes: int = 256 << 20,
        coding: Coding | None = None,
        zeros_lost: bool = True,
        calibrated: bool = False,
    ) -> None:
        self._array = array
        self._scan, self._band = scan, band
        self._stored_shape: Shape5 = tuple(array.shape)
        self._shape: Shape5 = (*self._stored_shape[:4], n_subscans or self._stored_shape[4])
        self._stored: np.dtype[Any] = np.dtype(array.dtype).newbyteorder("=")
        self._coding, self._zeros_lost = coding, zeros_lost
        self._dtype = coding.count_dtype(self._stored) if coding else self._stored
        self._files = chunk_files(array)
        self._calibrated = calibrated
        if calibrated:
            self._blank = None if self.checksum else array.fill_value
        else:
            self._blank = _no_data(self._stored, coding)
        if self._files is not None:
            self._files = replace(self._files, fill_value=self._blank)
        elif not calibrated:
            self._array = with_fill(array, UNLIKELY if self._blank is None else self._blank)
        c, *_, s = array.chunks
        # where Zarr reads, D, R and A are never split: it joins their chunks itself
        self._grid: tuple[int, ...] = (
            self._files.chunk if self._files else (c, *self._stored_shape[1:4], s)
        )
        self._chunks: Shape5 = tuple(
            min(a, b) for a, b in zip(array.chunks, self._shape, strict=True)
        )
        self._cache_bytes = cache_bytes
        self._cache = _DecodedChunks(cache_bytes)
        self._lock = threading.Lock()
        self.decoded_chunks = 0

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs; decoded chunks stay here."""
        here = ("_cache", "_lock")
        return {name: value for name, value in self.__dict__.items() if name not in here}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._cache = _DecodedChunks(self._cache_bytes)
        self._lock = threading.Lock()

    @property
    def shape(self) -> Shape5:
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._dtype

    @property
    def chunks(self) -> Shape5:
        return self._chunks

    @property
    def direct(self) -> bool:
        """Whether chunk files are decoded directly rather than by Zarr's own pipeline."""
        return self._files is not None

    @property
    def checksum(self) -> bool:
        """Whether each chunk file ends with a crc32c, or chunks in shards do: a flipped bit is an error."""
        if self._files is not None:
            return self._files.checksum
        return "crc32c" in json.dumps(self._array.metadata.to_dict(), default=str).lower()

    def forget(self) -> None:
        """Release all decoded chunks; reads in other threads are not disturbed."""
        self._cache = _DecodedChunks(self._cache_bytes)

    def read(self, c0: int, c1: int, subscan: int, out: Counts | None = None) -> Counts:
        """Return counts [c1-c0, D, R, A] of one subscan, C-contiguous, native byte order.

        out: C-contiguous array of that shape and dtype to fill, which saves fresh memory. Raises
        IndexError outside the array, CorruptDataError for a chunk that cannot be decoded.
        """
        n_channels, *inner, n_subscans = self._shape
        if not (0 <= c0 < c1 <= n_channels and 0 <= subscan < n_subscans):
            raise IndexError(
                f"channels {c0}..{c1} of subscan {subscan} do not lie in counts of shape "
                f"{self._shape}"
            )
        shape = (c1 - c0, *inner)
        if out is None:
            out = np.empty(shape, self._dtype)
        elif out.shape != shape or out.dtype != self._dtype or not out.flags.c_contiguous:
            raise ValueError(
                f"out is {out.dtype} {out.shape}, expected C-contiguous {self._dtype} {shape}"
            )
        step = self._grid[0]
        inner_grid = [range(-(-n // g)) for n, g in zip(inner, self._grid[1:4], strict=True)]
        for channel in range(c0 // step, -(-c1 // step)):
            for rest in itertools.product(*inner_grid):
                key = (channel, *rest, subscan // self._grid[4])
                self._copy_chunk(key, c0, c1, subscan, out)
        return out

    def encoded(self, c0: int, c1: int, subscan: int) -> EncodedBlock | str:
        """See ``gpucal.scan.EncodedCounts``; raises OSError when a file cannot be looked up."""
        if self._coding is not None and not self._coding.plain:
            named = ", ".join(self._coding.names)
            return f"the raw counts have {named}, which only the host applies"
        try:
            block = encoded_block(self._files, self._stored_shape, c0, c1, subscan)
        except CorruptDataError as error:  # no regular file, or too large a one
            error.subscan = subscan
            error.locate(scan=self._scan, band=self._band, stage="read")
            raise
        if self._coding is None or isinstance(block, str):
            return block
        return replace(block, guarded=True, zeros_lost=self._zeros_lost)

    def missing_subscans(self) -> list[int]:
        """Subscans of which no chunk file is there, in a local store of plain chunks; no file is opened."""
        if self._files is None:
            return []
        grid = [-(-n // g) for n, g in zip(self._stored_shape, self._grid, strict=True)]
        return [
            s
            for s in range(self._shape[4])
            if not any(
                self._files.path((*key, s // self._grid[4])).exists()
                for key in itertools.product(*map(range, grid[:4]))
            )
        ]

    def _copy_chunk(self, key: Key, c0: int, c1: int, subscan: int, out: Counts) -> None:
        """Copy what one chunk holds of the channels c0..c1 of a subscan to its place in ``out``."""
        start = [k * g for k, g in zip(key, self._grid, strict=True)]
        stop = [
            min(a + g, n) for a, g, n in zip(start, self._grid, self._stored_shape, strict=True)
        ]
        lo, hi = max(c0, start[0]), min(c1, stop[0])
        inner = [slice(a, b) for a, b in zip(start[1:4], stop[1:4], strict=True)]
        target = out[(slice(lo - c0, hi - c0), *inner)]
        alone = stop[4] - start[4] == 1 and (lo, hi) == (start[0], stop[0])
        if not alone:
            chunk = self._cache.get(key, lambda: self._decode(key, start, stop, subscan))
        elif self._fits(target) and self._files:
            whole = target.reshape(self._grid)
            self._decode_file(self._files, key, whole, subscan)
            self._as_counts(whole)
            return
        else:
            chunk = self._decode(key, start, stop, subscan, scratch=True)
        valid = [slice(0, part.stop - part.start) for part in inner]
        part: Any = (slice(lo - start[0], hi - start[0]), *valid, subscan - start[4])
        target[...] = chunk[part]

    def _fits(self, target: Counts) -> bool:
        """Whether a chunk can be decoded where it is wanted."""
        whole = target.flags.c_contiguous and (*target.shape, 1) == self._grid
        return whole and self._dtype == self._stored

    def _as_counts(self, chunk: Counts) -> Counts:
        """The counts of a decoded chunk, without its padding; in its memory where the dtype stays."""
        if self._coding is None:
            return chunk
        return self._coding.counts(chunk, zeros_lost=self._zeros_lost)

    def _decode(
        self, key: Key, start: list[int], stop: list[int], subscan: int, scratch: bool = False
    ) -> Counts:
        """One decoded chunk; with ``scratch`` it is valid until this thread's next read."""
        if self._files is None:
            return self._as_counts(self._decode_by_zarr(start, stop, subscan))
        if scratch:
            nbytes = int(np.prod(self._grid)) * self._stored.itemsize
            chunk: Counts = SCRATCH.take("chunk", nbytes).view(self._stored).reshape(self._grid)
        else:
            chunk = np.empty(self._grid, self._stored)
        self._decode_file(self._files, key, chunk, subscan)
        # Beyond the last channel a chunk is padded with anything.
        return self._as_counts(chunk[: stop[0] - start[0]])

    def _decode_file(self, files: ChunkFiles, key: Key, out: Counts, subscan: int) -> None:
        """Decode one chunk file into ``out``; an error names file, scan, band and subscan."""
        try:
            files.decode(key, out)
        except CorruptDataError as error:  # no regular file, or too large a one
            error.subscan = subscan
            error.locate(scan=self._scan, band=self._band, stage="read")
            raise
        except (ValueError, OSError) as error:
            text = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
            if isinstance(error, MissingChunkError) and not self._calibrated:
                text += f", and {self._stored} counts have no value for no data"
            raise self._corrupt(f"chunk file {files.path(key)}", text, subscan) from error
        self._count()

    def _decode_by_zarr(self, start: list[int], stop: list[int], subscan: int) -> Counts:
        """The slow way, for chunks that only zarr-python can read."""
        region = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        try:
            block = self._array.get_basic_selection(region)
            if self._blank is None and self._stored.kind == "u" and (block == UNLIKELY).any():
                other = with_fill(self._array, 0).get_basic_selection(region)
                if (other != block).any():
                    raise MissingChunkError(
                        f"a chunk is not there, and {self._stored} counts have no value for no data"
                    )
        except Exception as error:  # every codec and store has error classes of its own
            place = f"{self._array.store_path}, channels {start[0]}..{stop[0]}"
            raise self._corrupt(place, str(error), subscan) from error
        self._count()
        return np.ascontiguousarray(block, dtype=self._stored)

    def _count(self) -> None:
        with self._lock:
            self.decoded_chunks += 1

    def _corrupt(self, place: str, text: str, subscan: int) -> CorruptDataError:
        again = "Calibrate the scan again with --overwrite, or restore the file from a copy."
        return CorruptDataError(
            f"{place} cannot be decoded: {text}.",
            hint=again if self._calibrated else "Restore it from a copy, or leave this scan out.",
            scan=self._scan,
            band=self._band,
            subscan=subscan,
            stage="read",
        )


def _no_data(stored: np.dtype[Any], coding: Coding | None) -> Any:
    """The stored number that means no data, None where there is none (u32 without attributes)."""
    if stored.kind == "f":
        return np.nan
    if stored == np.dtype(np.int32):
        return FILL_INT32
    return coding.blanks[0] if coding is not None and coding.blanks else None


class _DecodedChunks:
    """Least recently used decoded chunks; a chunk wanted by several threads is decoded by one."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[Key, Future[Counts]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key, decode: Callable[[], Counts]) -> Counts:
        with self._lock:
            future = self._entries.get(key)
            mine = future is None
            if future is None:
                future = self._entries[key] = Future()
            self._entries.move_to_end(key)
        if not mine:
            return future.result()
        try:
            chunk = decode()
        except BaseException as error:
            with self._lock:
                del self._entries[key]
            future.set_exception(error)
            raise
        future.set_result(chunk)
        with self._lock:
            self._bytes += chunk.nbytes
            self._evict()
        return chunk

    def _evict(self) -> None:
        """Release the oldest decoded chunks until the rest fits; the newest always stays."""
        done = [key for key, future in self._entries.items() if future.done()]
        for key in done[:-1]:
            if self._bytes <= self._max_bytes:
                return
            self._bytes -= self._entries.pop(key).result().nbytes
