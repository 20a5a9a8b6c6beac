"""Ways to break one array, one attribute or one file of a night."""

from __future__ import annotations

import json
import random
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from builders.broken.night import Night
from zarr.errors import UnstableSpecificationWarning

Harm = Callable[[Night], Any]
Change = Callable[[Any], Any]


def put(night: Night, number: int, path: str, values: Any) -> None:
    """Write an array anew, every chunk of it, with its old attributes and fill value where the type is the old one."""
    values = np.asarray(values)
    old = night.scan(number, path)
    document = json.loads((old / "zarr.json").read_text())
    chunks = [max(1, n) for n in values.shape]
    if path.endswith("data_5d"):
        chunks[-1] = 1
    same = str(values.dtype) == document["data_type"]
    shutil.rmtree(old)
    with warnings.catch_warnings():  # some types, texts among them, have no final specification
        warnings.simplefilter("ignore", UnstableSpecificationWarning)
        zarr.create_array(
            old,
            data=values,
            chunks=tuple(chunks),
            fill_value=document["fill_value"] if same else None,
            attributes=document["attributes"],
            config={"write_empty_chunks": True},
        )


def array(number: int, path: str, change: Change) -> Harm:
    """Replace an array by ``change(array)``; an array changed in place may return None."""

    def harm(night: Night) -> None:
        values = night.read(number, path)
        changed = change(values)
        put(night, number, path, values if changed is None else changed)

    return harm


def at(number: int, path: str, index: Any, value: Any) -> Harm:
    """Set some elements of an array."""

    def change(values: Any) -> None:
        values[index] = value

    return array(number, path, change)


def document(number: int, path: str, change: Callable[[dict[str, Any]], Any]) -> Harm:
    """Edit the zarr.json of an array or a group of a scan (number 0: of the store)."""

    def harm(night: Night) -> None:
        place = (night.scan(number, path) if number else night.l0 / path) / "zarr.json"
        found = json.loads(place.read_text())
        changed = change(found)
        place.write_text(json.dumps(found if changed is None else changed))

    return harm


def attribute(number: int, name: str, value: Any, path: str = "") -> Harm:
    """Set an attribute of a scan or of something in it (number 0: of the store)."""
    return document(number, path, lambda d: d["attributes"].__setitem__(name, value))


def remove(number: int, path: str) -> Harm:
    """Remove an array, a group or a file of a scan."""

    def harm(night: Night) -> None:
        place = night.scan(number, path)
        if place.is_dir():
            shutil.rmtree(place)
        else:
            place.unlink()

    return harm


def file(number: int, path: str, change: Callable[[Path], Any]) -> Harm:
    """Do something to a file of a scan (number 0: of the store)."""
    return lambda night: change((night.scan(number) if number else night.l0) / path)


def flip(path: Path, source: random.Random, bits: int = 1) -> None:
    """Flip random bits of a file."""
    content = bytearray(path.read_bytes())
    for _ in range(bits):
        place = source.randrange(8 * len(content))
        content[place // 8] ^= 1 << place % 8
    path.write_bytes(content)


def with_checksum(content: bytes) -> bytes:
    """A chunk as the codec crc32c leaves it, whatever the content is."""
    checksum: bytes = google_crc32c.value(content).to_bytes(4, "little")
    return content + checksum


def flipped_with_checksum(path: Path, source: random.Random) -> None:
    """A chunk with random bits flipped and a checksum that fits: damage before it was written."""
    content = bytearray(path.read_bytes()[:-4])
    for _ in range(source.randint(1, 8)):
        place = source.randrange(8 * len(content))
        content[place // 8] ^= 1 << place % 8
    path.write_bytes(with_checksum(bytes(content)))


def replaced_by(make: Callable[[Path], Any]) -> Callable[[Path], None]:
    """Remove a file and make something else of its name."""

    def change(path: Path) -> None:
        path.unlink()
        make(path)

    return change
