"""Read every chunk file of a store, L0 or L1, and compare it with its checksums.

A chunk may end with a crc32c (Zarr v3 core codecs); the sidecar ``<store>.crc32c.json`` holds that of whole files, for
stores whose chunks have none. Source: RFC 3720, section 12.1 (crc32c).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gpucal.errors import GpucalError, L0Error, words_of
from gpucal.io.chunks.every_chunk import UNREADABLE
from gpucal.io.chunks.layout import ChunkFiles, chunk_files
from gpucal.version import __version__

SIDECAR_FORMAT = "gpucal-crc32c"
PIECE = 8 << 20
Progress = Callable[[str], None]


@dataclass(frozen=True)
class ChunkFault:
    """One chunk file that is not as it was written: path below the store, and what is wrong with it."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}."


@dataclass(frozen=True)
class VerifyReport:
    """What ``verify_store`` found.

    files: chunk files read; with_checksum: those that end with a crc32c or are in the sidecar;
    decoded_only: those without any, of which only is known that they can be decoded. missing: chunk
    files that are not there although their array has a place for them (no data in counts). sums:
    crc32c of each whole file, path below the store -> number.
    """

    path: str
    files: int = 0
    with_checksum: int = 0
    decoded_only: int = 0
    faults: tuple[ChunkFault, ...] = ()
    missing: tuple[str, ...] = ()
    sums: dict[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether no chunk file is at fault."""
        return not self.faults


def sidecar_of(store: str | Path) -> Path:
    """Where the checksums of a store's chunk files lie: beside it."""
    path = Path(store).resolve()
    return path.with_name(path.name + ".crc32c.json")


def verify_store(path: str | Path, progress: Progress | None = None) -> VerifyReport:
    """Read all chunk files of a store in a folder, check each checksum there is, decode each chunk.

    ``progress`` is called with the path of each array, below the store. Nothing is written. A fault
    is reported, not raised. Raises L0Error when the store is no folder, or its sidecar cannot be read.
    """
    root = Path(path)
    if not root.is_dir():
        raise L0Error(
            f"{root} is not a folder, only stores in folders are verified.",
            hint="A zip file has checksums of its own: unzip -t tests them.",
        )
    known = read_sidecar(root)
    seen: set[str] = set()
    files = checked = plain = 0
    faults: list[ChunkFault] = []
    missing: list[str] = []
    sums: dict[str, int] = {}
    for folder in arrays_below(root):
        name = _below(root, folder)
        if progress is not None:
            progress(name)
        try:
            array = _open_array(folder)
        except Exception as error:  # zarr-python raises whatever its parsers raise
            faults.append(
                ChunkFault(name, f"its metadata cannot be read: {words_of(error) or UNREADABLE}")
            )
            continue
        layout = chunk_files(array)
        for file, key in _chunks_of(array, folder):
            where = _below(root, file)
            seen.add(where)
            if not file.exists():
                missing.append(where)
                if where in known:
                    faults.append(
                        ChunkFault(where, "it is not there, the list of checksums has it")
                    )
                continue
            files += 1
            text, total = _judge(array, layout, file, key, known.get(where))
            if total is not None:
                sums[where] = total
            has = where in known or (layout is not None and layout.checksum)
            checked, plain = checked + has, plain + (not has)
            if text:
                faults.append(ChunkFault(where, text))
    faults += [
        ChunkFault(where, "it is not there, the list of checksums has it")
        for where in sorted(known.keys() - seen)
    ]
    return VerifyReport(str(root), files, checked, plain, tuple(faults), tuple(missing), sums)


def write_sidecar(report: VerifyReport) -> Path:
    """Write the checksums of a report beside its store, whole or not at all; returns the file.

    Raises L0Error when chunk files are at fault: their checksums would call them right.
    """
    if not report.ok:
        raise L0Error(
            f"{len(report.faults)} chunk files are at fault, no checksums are written.",
            hint="Restore the files that are named from a copy.",
        )
    target = sidecar_of(report.path)
    document = {
        "format": SIDECAR_FORMAT,
        "gpucal": __version__,
        "files": {name: f"{total:08x}" for name, total in sorted(report.sums.items())},
    }
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with open(part, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=0)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    return target


def read_sidecar(store: str | Path) -> dict[str, int]:
    """Path below the store -> crc32c of the whole file; empty without a sidecar. L0Error when it is broken."""
    path = sidecar_of(store)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != SIDECAR_FORMAT:
            raise ValueError(f"format {document['format']!r}")
        return {str(name): int(total, 16) for name, total in document["files"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise L0Error(
            f"the list of checksums {path} cannot be read: {words_of(error) or UNREADABLE}.",
            hint="Remove it, and write it again with: gpucal verify STORE --write-checksums",
        ) from error


def arrays_below(root: Path) -> Iterator[Path]:
    """Folders of all Zarr arrays below a folder, in order; links to folders are followed once."""
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        about = os.stat(folder)
        if (about.st_dev, about.st_ino) in seen:
            folders.clear()
            continue
        seen.add((about.st_dev, about.st_ino))
        if ".zarray" in files or ("zarr.json" in files and _is_array(Path(folder, "zarr.json"))):
            folders.clear()
            yield Path(folder)
        folders.sort()


def _is_array(document: Path) -> bool:
    """Whether a zarr.json is that of an array; a broken one is, so that it is told of."""
    try:
        found = json.loads(document.read_bytes())
    except (OSError, ValueError):
        return True
    return not isinstance(found, dict) or found.get("node_type") != "group"


def _open_array(folder: Path) -> Any:
    import zarr

    return zarr.open_array(str(folder), mode="r")


def _chunks_of(array: Any, folder: Path) -> Iterator[tuple[Path, tuple[int, ...]]]:
    """File and grid index of each chunk (of each shard, where chunks lie in shards)."""
    sizes = array.shards or array.chunks
    grid = (range(-(-n // size)) for n, size in zip(array.shape, sizes, strict=True))
    for key in itertools.product(*grid):
        yield folder / array.metadata.encode_chunk_key(key), key


def _judge(
    array: Any, layout: ChunkFiles | None, file: Path, key: tuple[int, ...], known: int | None
) -> tuple[str, int | None]:
    """What is wrong with a chunk file, "" for nothing, and the crc32c of all its bytes."""
    try:
        if not stat.S_ISREG(os.stat(file).st_mode):
            return "it is no regular file", None
        total = _sum_of(file)
        if known is not None and total != known:
            return f"its crc32c is {total:08x}, the list of checksums has {known:08x}", total
        if layout is not None:
            layout.decode(key, np.empty(layout.chunk, layout.stored.newbyteorder("=")))
        else:
            _decode_by_zarr(array, key)
    except GpucalError as error:
        return words_of(error) or UNREADABLE, None
    except Exception as error:  # every codec has error classes of its own
        return f"it cannot be decoded: {words_of(error) or UNREADABLE}", None
    return "", total


def _decode_by_zarr(array: Any, key: tuple[int, ...]) -> None:
    """Decode a chunk or shard that only zarr-python can read; it checks a crc32c where there is one."""
    sizes = array.shards or array.chunks
    region = tuple(
        slice(k * n, min((k + 1) * n, end))
        for k, n, end in zip(key, sizes, array.shape, strict=True)
    )
    array.get_basic_selection(region)


def _sum_of(file: Path) -> int:
    """crc32c of a file, read piece by piece."""
    import google_crc32c

    total = 0
    with open(file, "rb", buffering=0) as stream:
        while piece := stream.read(PIECE):
            total = google_crc32c.extend(total, piece)
    return int(total)


def _below(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()
