"""The flags array of one band with the rules of a user on top of what the calibration found.

``flags/manual_flags.json`` holds the rules; ``flags/calibrated`` the chunks that rules change, as they were
before, itself a Zarr array: from it an undo restores the bytes. A new folder ``flags`` is made beside the store and
swapped in, so rules and flags change together, whole or not at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from gpucal.axes import Flag
from gpucal.errors import L1Error
from gpucal.io.files import atomic
from gpucal.io.l1.flag_rules import Extent, FlagRule, Marks

RULES_FILE = "manual_flags.json"
CALIBRATED = "calibrated"
Index = tuple[int, ...]


@contextlib.contextmanager
def rules_locked(store: str | Path) -> Iterator[None]:
    """Keep other processes and threads from changing rules of the store at the same time."""
    path = atomic.staging_dir(store) / "flags.lock"
    while True:
        with contextlib.suppress(FileExistsError):
            path.parent.mkdir()
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            continue  # the last one out removed the folder
        fcntl.flock(lock, fcntl.LOCK_EX)
        # The one before may have removed the file that was waited for.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), os.stat(path)):
                break
        os.close(lock)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(lock)
        with contextlib.suppress(OSError):
            path.parent.rmdir()


def recorded(flags: Path) -> list[FlagRule]:
    """The rules of a flags array, in the order in which they came.

    Raises L1Error when the file that holds them cannot be read.
    """
    path = flags / RULES_FILE
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["rules"]
        return [FlagRule.from_record(entry) for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise L1Error(
            f"{path} cannot be read: {error}.",
            hint="Calibrate the scan again with --overwrite after removing this file.",
        ) from error


def extent_of(band: Path) -> Extent:
    """The size of a band of L1; ``band`` is the folder that holds its arrays.

    Raises L1Error when it has no flags array, or one that cannot be read.
    """
    try:
        shape = zarr.open_array(band / "flags", mode="r").shape
        frequency = np.asarray(zarr.open_array(band / "frequency", mode="r")[...])
        on_index = np.arange(shape[4], dtype=np.int32)
        if (band / "on_index").is_dir():
            on_index = np.asarray(zarr.open_array(band / "on_index", mode="r")[...])
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise L1Error(
            f"{band} has no flags and frequency that can be read.",
            hint="Calibrate the scan again with --overwrite.",
        ) from error
    return Extent(
        shape,  # type: ignore[arg-type]
        frequency.reshape(frequency.shape[0], -1).astype(np.float64),
        on_index,
    )


def set_rules(store: Path, band: Path, rules: Sequence[FlagRule]) -> None:
    """Make ``rules`` those of a band, and its flags what the calibration found with their MANUAL bits.

    To be called with ``rules_locked``. The array is replaced at once. Raises L1Error when a chunk cannot be
    read, OSError when the disk refuses; the band then is as before.
    """
    flags = band / "flags"
    atomic.clean_stale(band)  # a swap that was interrupted, where the file system cannot swap
    extent = extent_of(band)
    staged = atomic.new_staged(store, "flags")
    try:
        _build(flags, staged, rules, extent)
        atomic.sync_tree(staged)
        atomic.exchange(staged, flags)
    finally:
        atomic.discard(staged)


def _build(flags: Path, staged: Path, rules: Sequence[FlagRule], extent: Extent) -> None:
    """A flags array with these rules: new chunks are written, all others are the same files."""
    array = zarr.open_array(flags, mode="r")
    places = _Places(array, extent)
    old = recorded(flags)
    marks = [rule.marks(extent) for rule in rules]
    before, after = places.touched(old), places.touched(rules)
    digests = [{rule.digest() + str(rule.raw_subscans) for rule in side} for side in (old, rules)]
    changed = places.touched(
        rule
        for rule in (*old, *rules)
        if rule.digest() + str(rule.raw_subscans) in digests[0] ^ digests[1]
    )
    shutil.copyfile(flags / "zarr.json", staged / "zarr.json")
    if rules:
        document = json.dumps({"rules": [rule.record() for rule in rules]}, indent=2) + "\n"
        (staged / RULES_FILE).write_text(document, encoding="utf-8")
    if after:
        (staged / CALIBRATED).mkdir()
        shutil.copyfile(flags / "zarr.json", staged / CALIBRATED / "zarr.json")
    for index in places.indices:
        key = places.key(index)
        original = flags / CALIBRATED / key if index in before else flags / key
        if index not in after:
            _same_file(original, staged / key)
            continue
        _same_file(original, staged / CALIBRATED / key)
        if index in before and index not in changed:
            _same_file(flags / key, staged / key)
    new = [i for i in places.indices if i in after and (i in changed or i not in before)]
    _write_marked(staged, [places.region(index) for index in new], marks)


def _write_marked(
    staged: Path, regions: Sequence[tuple[slice, ...]], marks: Sequence[Marks]
) -> None:
    """Write these chunks: as the calibration made them, with the bit MANUAL."""
    if not regions:
        return
    original = zarr.open_array(staged / CALIBRATED, mode="r")
    target = zarr.open_array(staged, mode="r+")
    for region in regions:
        try:
            values = np.array(original[region])
        except (ValueError, RuntimeError) as error:
            raise L1Error(
                f"a chunk of flags is damaged: {error}.",
                hint="Calibrate the scan again with --overwrite.",
            ) from error
        for mark in marks:
            values[mark.within(region)] |= values.dtype.type(int(Flag.MANUAL))
        target[region] = values


class _Places:
    """Chunk files of a flags array: their indices, names and regions."""

    def __init__(self, array: Any, extent: Extent) -> None:
        self._shape = array.shape
        self._blocks = array.shards or array.chunks
        self._extent = extent
        self._encode = array.metadata.encode_chunk_key
        counts = [-(-n // b) for n, b in zip(self._shape, self._blocks, strict=True)]
        self.indices: list[Index] = list(itertools.product(*map(range, counts)))

    def key(self, index: Index) -> str:
        """Name of a chunk file, relative to the array."""
        return str(self._encode(index))

    def region(self, index: Index) -> tuple[slice, ...]:
        """The part of the array that a chunk holds."""
        axes = zip(index, self._blocks, self._shape, strict=True)
        return tuple(slice(i * b, min((i + 1) * b, n)) for i, b, n in axes)

    def touched(self, rules: Iterable[FlagRule]) -> set[Index]:
        """The chunks in which any of the rules flags a sample."""
        marks = [rule.marks(self._extent) for rule in rules]
        if not marks:
            return set()
        return {
            index for index in self.indices if any(mark.hits(self.region(index)) for mark in marks)
        }


def _same_file(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where that is not possible; a missing one stays missing."""
    if not source.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
