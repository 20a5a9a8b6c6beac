"""Write the L1 store: each scan is staged, synced and renamed into place, whole or not at all.

Chunks are encoded and written outside zarr-python, from as many threads as the caller has: the
bytes depend on the values alone, not on threads or order. Source: the L1 layout (formats).
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.errors import L1Error, check_interpreter
from gpucal.io.chunks.array_writer import ArrayWriter
from gpucal.io.chunks.codecs import ChunkEncoder
from gpucal.io.chunks.zarr_metadata import (
    array_document,
    group_document,
    json_safe,
    read_group,
    scan_name,
)
from gpucal.io.files import atomic
from gpucal.io.l1.complete import WrittenFiles, take_back
from gpucal.io.l1.flag_array import rules_locked
from gpucal.io.l1.flag_rules import FlagRule
from gpucal.io.l1.flags_kept import keep_rules

FORMAT = "gpucal-l1"
FORMAT_VERSION = 1
PUT_CHUNK_BYTES = 32 * 2**20
"""``ScanWriter.put`` splits larger arrays along their first axis."""

_DTYPES: dict[str, np.dtype[Any]] = {"f64": np.dtype(np.float64), "f32": np.dtype(np.float32)}


class L1Store:
    """A calibrated store open for writing; several processes may write different scans."""

    def __init__(self, path: str | Path, *, codec: str = "zstd:1", dtype: str = "f64") -> None:
        """Create the store, or open the one that is there; remove leftovers of dead processes.

        ``dtype`` ("f64" or "f32") is that of the spectra, see ``self.dtype``. Raises L1Error
        when the path holds something else or cannot be written, ConfigError for an unknown codec.
        """
        check_interpreter()
        if dtype not in _DTYPES:
            raise L1Error(f"dtype is {dtype!r}, expected f64 or f32.")
        self.dtype = _DTYPES[dtype]
        self.codec = ChunkEncoder(codec, self.dtype).codec
        self.path = Path(path).resolve()
        self.created = False
        with atomic.as_write_error(self.path):
            self._open_root()
            self._identity = _identity(self.path)
            atomic.clean_stale(self.path)

    def _open_root(self) -> None:
        """Make the store, or check that the folder is one; a folder with other files is never written into."""
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.mkdir(exist_ok=True)
        if not self.path.is_dir():
            raise L1Error(f"{self.path} is a file, expected a directory.", hint=_OTHER_PLACE)
        document = self.path / "zarr.json"
        if not document.exists():
            if any(self.path.iterdir()) and not document.exists():
                raise L1Error(
                    f"{self.path} holds other files and is not an L1 store.", hint=_OTHER_PLACE
                )
            content = group_document({"format": FORMAT, "format_version": FORMAT_VERSION})
            self.created = atomic.write_file(document, content, self.path, replace=False)
        found = self.attrs
        if found.get("format") != FORMAT:
            raise L1Error(
                f"{self.path} has the format {found.get('format')!r}, expected {FORMAT!r}.",
                hint=_OTHER_PLACE,
            )
        if found.get("format_version") != FORMAT_VERSION:
            raise L1Error(
                f"{self.path} has format_version {found.get('format_version')!r}, this version "
                f"writes {FORMAT_VERSION}.",
                hint=_OTHER_PLACE,
            )

    @property
    def attrs(self) -> dict[str, Any]:
        """The attributes of the store's root group."""
        attributes = read_group(self.path)
        if attributes is None:
            raise L1Error(f"{self.path} has no readable zarr.json.", hint=_OTHER_PLACE)
        return attributes

    def check_same(self) -> None:
        """Raise OSError when the folder at the path is not the one that was opened: removed, replaced, remounted."""
        if _identity(self.path) != self._identity:
            raise OSError(errno.ESTALE, _ANOTHER_FOLDER, str(self.path))
        os.stat(self.path / "zarr.json")

    def set_root_attrs(self, attrs: Mapping[str, Any]) -> None:
        """Add those attributes (telescope, site, ...) that the root does not have yet."""
        found = self.attrs
        merged = {**json_safe(attrs), **found}
        if merged.keys() == found.keys():
            return
        ordered = {key: merged[key] for key in (*found, *(k for k in merged if k not in found))}
        with atomic.as_write_error(self.path):
            content = group_document(ordered)
            atomic.write_file(self.path / "zarr.json", content, self.path, replace=True)

    def scan_path(self, number: int) -> Path:
        """Where the scan is, or will be."""
        return self.path / scan_name(number)

    def finished(self, number: int) -> dict[str, Any] | None:
        """Return the attributes of a scan that is there (then it is whole), else None."""
        return read_group(self.scan_path(number))

    def begin(self, number: int) -> ScanWriter:
        """Start a scan; nothing is visible in the store until ``commit``."""
        with atomic.as_write_error(atomic.staging_dir(self.path), number):
            staged = atomic.new_staged(self.path, scan_name(number))
        return ScanWriter(self, number, staged)


def _identity(folder: Path) -> tuple[int, int]:
    """Device and inode of a folder: another folder of the same name is another store."""
    found = os.stat(folder)
    return found.st_dev, found.st_ino


_OTHER_PLACE = "Choose another output directory, or remove this one."
_ANOTHER_FOLDER = "this folder was removed, replaced or mounted anew during the run"


class ScanWriter:
    """One scan being written; a context manager that aborts when the block raises."""

    def __init__(self, store: L1Store, number: int, staged: Path) -> None:
        self.store = store
        self.number = number
        self._staged = staged
        self._groups: dict[str, dict[str, Any]] = {"": {}}
        self._arrays: dict[str, ArrayWriter] = {}
        self._documents: dict[str, int] = {}
        self._lock = threading.Lock()
        self._open = True

    def group(self, name: str, attrs: Mapping[str, Any] | None = None) -> None:
        """Create the group ``name`` ("" the scan, "band_1", "band_1/skydiff") and those above it.

        ``attrs`` are merged into its attributes.
        """
        self.check_open()
        safe = json_safe(attrs or {})
        with self._lock:
            parts = [part for part in name.split("/") if part]
            above = ["/".join(parts[:n]) for n in range(len(parts) + 1)]
            if taken := [key for key in above if key in self._arrays]:
                raise L1Error(f"{taken[0]} is an array, not a group.", scan=self.number)
            for key in above:
                self._groups.setdefault(key, {})
            self._groups["/".join(parts)].update(safe)

    def set_attrs(self, group: str, attrs: Mapping[str, Any]) -> None:
        """Merge ``attrs`` into the attributes of ``group``; NaN becomes the string "NaN"."""
        self.group(group, attrs)

    def array(
        self,
        group: str,
        name: str,
        shape: Sequence[int],
        chunks: Sequence[int],
        dtype: npt.DTypeLike,
        dims: Sequence[str],
        *,
        fill_value: Any = 0,
        attrs: Mapping[str, Any] | None = None,
    ) -> ArrayWriter:
        """Declare an array written chunk by chunk; all its chunks must come before ``commit``.

        ``dims`` names the axes, ``fill_value`` pads the chunks at the edges. Raises L1Error when
        the numbers do not fit together or the array is already declared.
        """
        self.group(group)
        key = f"{group.strip('/')}/{name}".lstrip("/")
        sizes, blocks = _check_shape(key, shape, chunks, dims)
        encoder = ChunkEncoder(self.store.codec, dtype)
        document = array_document(
            sizes,
            blocks,
            encoder.dtype,
            dims,
            fill_value=fill_value,
            codecs=encoder.metadata(),
            attributes=attrs or {},
        )
        writer = ArrayWriter(self, self._staged / key, key, (sizes, blocks), encoder, fill_value)
        with self._lock:
            if key in self._arrays or key in self._groups:
                raise L1Error(f"{key} is written twice.", scan=self.number)
            self._arrays[key] = writer
        with self.errors():
            os.stat(self._staged)  # it is not made anew: what was in it would be missing
            writer.path.mkdir(parents=True)
            self._write_document(f"{key}/zarr.json", document)
        return writer

    def put(
        self,
        group: str,
        name: str,
        array: npt.ArrayLike,
        dims: Sequence[str],
        *,
        units: str = "",
        attrs: Mapping[str, Any] | None = None,
        coordinates: str | Sequence[str] | None = None,
    ) -> None:
        """Write a whole array at once, any shape, 0-d too.

        ``units`` and ``coordinates`` (names of arrays of the same group) become attributes that
        xarray understands. Floats are padded with NaN, others with 0.
        """
        values = np.asarray(array)
        attributes = dict(attrs or {})
        if units:
            attributes["units"] = units
        if coordinates:
            names = coordinates if isinstance(coordinates, str) else " ".join(coordinates)
            attributes["coordinates"] = names
        chunks = [max(1, n) for n in values.shape]
        if chunks:
            rows = PUT_CHUNK_BYTES // max(1, values.nbytes // chunks[0])
            chunks[0] = min(chunks[0], max(1, rows))
        fill = np.nan if values.dtype.kind == "f" else 0
        writer = self.array(
            group, name, values.shape, chunks, values.dtype, dims, fill_value=fill, attrs=attributes
        )
        for index in writer.indices():
            writer.write_chunk(index, values[writer.region(index)])

    def drop(self, group: str) -> None:
        """Forget a group or an array below the scan, with all that was written into it; no writer may be at work."""
        name = group.strip("/")
        with self._lock:
            for known in (self._groups, self._arrays):
                for key in [k for k in known if k == name or k.startswith(f"{name}/")]:
                    del known[key]
            for key in [k for k in self._documents if k.startswith(f"{name}/")]:
                del self._documents[key]
        # Not the folder of the scan, even if it is empty now: what comes next goes there.
        shutil.rmtree(self._staged / name, ignore_errors=True)

    def commit(self, overwrite: bool = False, rules: Sequence[FlagRule] = ()) -> list[str]:
        """Sync the scan and put it in place; with ``overwrite`` it replaces the one there.

        The flag rules of the one there, and those of ``rules`` for this scan, are applied before; returns what
        does not fit, in words. Raises L1Error when chunks are missing, when the scan is there and not to be
        overwritten, when a rule names this scan and does not fit, or when the disk refuses; the store then is
        as before.
        """
        self.check_open()
        missing = [f"{k} ({n} chunks)" for k, w in self._arrays.items() if (n := w.missing())]
        if missing:
            self.abort()
            raise L1Error(
                f"the scan is not complete: nothing was written to {', '.join(missing)}.",
                scan=self.number,
            )
        final = self.store.scan_path(self.number)
        try:
            with self.errors(), contextlib.ExitStack() as locks:
                replaced = overwrite and final.exists()
                notes: list[str] = []
                if ruled := replaced or bool(rules):
                    locks.enter_context(rules_locked(self.store.path))
                    old = final if replaced else self._staged
                    notes, kept = keep_rules(self.store.path, self.number, old, self._staged, rules)
                    self._groups[""].update(kept)
                self._write_groups()
                atomic.sync_tree(self._staged)
                written = WrittenFiles(self.number, self._documents, self._arrays.values())
                written.check(self._staged, flags_changed=ruled)
                self.store.check_same()
                if replaced:
                    atomic.exchange(self._staged, final)
                else:
                    atomic.rename_into_place(self._staged, final)
                # Look once more: what deletes files may have gone on during the renaming.
                try:
                    written.check(final, flags_changed=ruled)
                except L1Error:
                    take_back(self._staged, final, self.store.path, replaced=replaced)
                    raise
                return notes
        except L1Error as error:
            if isinstance(error.__cause__, FileExistsError):
                raise L1Error(
                    f"{final} is already there.",
                    hint="Use --overwrite to replace it.",
                    scan=self.number,
                ) from error
            raise
        finally:
            self.abort()

    def _write_groups(self) -> None:
        """The metadata of all groups; their folders are made only below that of the scan."""
        os.stat(self._staged)
        for name, attributes in self._groups.items():
            folder = self._staged / name
            folder.mkdir(parents=True, exist_ok=True)
            self._write_document(f"{name}/zarr.json".lstrip("/"), group_document(attributes))

    def _write_document(self, key: str, content: bytes) -> None:
        """Write one zarr.json, and remember its size."""
        (self._staged / key).write_bytes(content)
        self._documents[key] = len(content)

    def abort(self) -> None:
        """Discard what was written; does nothing after ``commit``."""
        if self._open:
            self._open = False
            atomic.discard(self._staged)

    def __enter__(self) -> ScanWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.abort()

    def check_open(self) -> None:
        """Raise L1Error after ``commit`` or ``abort``."""
        if not self._open:
            raise L1Error("the scan is already committed or aborted.", scan=self.number)

    def errors(self) -> contextlib.AbstractContextManager[None]:
        """Turn an OSError inside the block into an L1Error that names this scan."""
        return atomic.as_write_error(self.store.scan_path(self.number), self.number)


def _check_shape(
    key: str, shape: Sequence[int], chunks: Sequence[int], dims: Sequence[str]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape and chunks as integers; raises L1Error unless they fit the axes and chunks are positive."""
    sizes, blocks = tuple(map(int, shape)), tuple(map(int, chunks))
    if not len(sizes) == len(blocks) == len(dims):
        raise L1Error(f"{key} has shape {sizes}, chunks {blocks} and dims {tuple(dims)}.")
    if any(n < 0 for n in sizes) or any(n < 1 for n in blocks):
        raise L1Error(f"{key} has shape {sizes} and chunks {blocks}, expected positive chunks.")
    return sizes, blocks
