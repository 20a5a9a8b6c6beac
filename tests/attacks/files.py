"""Attacks on the files of a raw store: cut, emptied, exchanged, and replaced by what is no file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from builders.broken.night import Night

from attacks.attack import (
    ANY,
    ANY_OR_NOTHING,
    REFUSED_ONLY,
    SAME,
    Attack,
    seeds,
    thinned,
)
from attacks.edits import (
    document,
    file,
    flip,
    flipped_with_checksum,
    remove,
    replaced_by,
    with_checksum,
)
from attacks.night import VICTIM

COUNTS = "source/data_5d/c/0/0/0/0/1"
TIMES = "source/mjd/c/0"
DOCUMENTS = ("zarr.json", "source/zarr.json", "source/mjd/zarr.json", "source/data_5d/zarr.json")
CHUNKS = (COUNTS, TIMES, "calibration/data_5d/c/0/0/0/0/0", "source/tamb/c/0")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + bytes(4096))


def _text(path: Path) -> None:
    path.write_bytes(b"<html>503 Service Unavailable</html>")


def _closed(path: Path) -> None:
    path.chmod(0)


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _dangling(path: Path) -> None:
    path.symlink_to(path.with_name("gone"))


def _sparse(path: Path) -> None:
    with open(path, "wb") as stream:
        stream.truncate(8 << 30)


def _aside(path: Path) -> None:
    """A link to a whole copy elsewhere: as good as the file."""
    other = path.with_name(path.name + ".elsewhere")
    shutil.copy(path, other)
    path.unlink()
    path.symlink_to(other)


CHANGES: dict[str, Callable[[Path], Any]] = {
    "cut": _cut,
    "empty": _empty,
    "zeros": _zeros,
    "longer": _longer,
    "text": _text,
    "gone": lambda p: p.unlink(),
    "directory": replaced_by(lambda p: p.mkdir()),
    "FIFO": replaced_by(os.mkfifo),
    "link to itself": replaced_by(_loop),
    "link to nothing": replaced_by(_dangling),
    "link to zeros": replaced_by(lambda p: p.symlink_to("/dev/zero")),
    "link to random": replaced_by(lambda p: p.symlink_to("/dev/urandom")),
    "link to null": replaced_by(lambda p: p.symlink_to("/dev/null")),
    "8 GB of nothing": _sparse,
}


def replaced() -> Iterator[Attack]:
    """Each kind of file in each way."""
    for path in (*DOCUMENTS, *CHUNKS):
        for name, change in CHANGES.items():
            rare = path == "source/tamb/c/0" or (path == "source/zarr.json" and name != "FIFO")
            harm = file(VICTIM, path, change)
            yield Attack(f"{path.replace('/', '.')} {name}", harm, rare=rare)
        yield Attack(f"{path.replace('/', '.')} linked", file(VICTIM, path, _aside), SAME)
    for name in ("cut", "empty", "text", "FIFO", "link to itself", "link to zeros", "directory"):
        harm = file(0, "zarr.json", CHANGES[name])
        yield Attack(f"root {name}", harm, ANY_OR_NOTHING, victims=(1, 2, 3, 4))
    for name in ("cut", "empty", "text", "FIFO", "link to itself", "link to zeros", "directory"):
        yield Attack(f"table {name}", _of_table(CHANGES[name]), ANY_OR_NOTHING, (1, 2, 3, 4))


def _of_table(change: Callable[[Path], Any]) -> Callable[[Night], Any]:
    return lambda night: change(night.table)


def _swapped(night: Night) -> None:
    a, b = (night.scan(VICTIM, COUNTS), night.scan(1, COUNTS))
    content = a.read_bytes()
    a.write_bytes(b.read_bytes())
    night.scan(VICTIM, "source/data_5d/c/0/0/0/0/2").write_bytes(content)


def _bomb(path: Path) -> None:
    """A small chunk that says it is 4 GB long."""
    import numcodecs

    packed = numcodecs.Zstd(level=19).encode(bytes(64 << 20))
    path.write_bytes(with_checksum(packed))


def _shape(axis: int, size: Any) -> Callable[[dict[str, Any]], None]:
    def change(d: dict[str, Any]) -> None:
        d["shape"][axis] = size

    return change


def _chunk(axis: int, size: Any) -> Callable[[dict[str, Any]], None]:
    def change(d: dict[str, Any]) -> None:
        d["chunk_grid"]["configuration"]["chunk_shape"][axis] = size

    return change


def documents() -> Iterator[Attack]:
    """zarr.json that promises what is not there."""
    counts = "source/data_5d"
    for n, (axis, size) in enumerate(
        [(1, 10**9), (1, 2**63), (0, -1), (4, 10**9), (2, 0), (0, 1.5), (3, "3"), (0, None), (1, 5)]
    ):
        yield Attack(f"shape {n}", document(VICTIM, counts, _shape(axis, size)), REFUSED_ONLY)
        harm = document(VICTIM, counts, _chunk(axis, size))
        yield Attack(f"chunk shape {n}", harm, REFUSED_ONLY)
    yield Attack("chunk of nothing", document(VICTIM, counts, _chunk(0, 0)), REFUSED_ONLY)
    codecs: tuple[Any, ...] = ("gzip", 5, [], None, [{"name": "bytes"}, {"name": "python"}])
    for n, value in enumerate(codecs):
        harm = document(VICTIM, counts, lambda d, v=value: d.__setitem__("codecs", v))  # type: ignore[misc]
        yield Attack(f"codecs {n}", harm, ANY)
    for n, kind in enumerate(("float16", "object", 5, None, "int31", ["i4"])):
        harm = document(VICTIM, "source/mjd", lambda d, v=kind: d.__setitem__("data_type", v))  # type: ignore[misc]
        yield Attack(f"type of mjd {n}", harm, REFUSED_ONLY)
    fills: tuple[Any, ...] = (99, 0, "NaN", None, [1], 1e400)
    for n, value in enumerate(fills):
        harm = document(VICTIM, counts, lambda d, v=value: d.__setitem__("fill_value", v))  # type: ignore[misc]
        yield Attack(f"fill value {n}", harm)
    for key in ("shape", "chunk_grid", "data_type", "node_type", "zarr_format", "codecs"):
        harm = document(VICTIM, "source/mjd", lambda d, k=key: d.pop(k) and None)  # type: ignore[misc]
        yield Attack(f"document without {key}", harm, REFUSED_ONLY)
    harm = file(VICTIM, "source/mjd/zarr.json", lambda p: p.write_text("[" * 100_000))
    yield Attack("document of brackets", harm, REFUSED_ONLY)
    harm = file(VICTIM, "zarr.json", lambda p: p.write_text(_nested(3000)))
    yield Attack("attributes 3000 deep", harm)
    harm = file(VICTIM, "zarr.json", lambda p: p.write_bytes(b"\xff\xfe" + p.read_bytes()))
    yield Attack("document of UTF-16", harm, REFUSED_ONLY)
    harm = file(VICTIM, "zarr.json", lambda p: p.write_text(p.read_text() + "\n" * 10**7))
    yield Attack("document of 10 MB", harm)


def _nested(levels: int) -> str:
    deep = '{"a":' * levels + "1" + "}" * levels
    return '{"zarr_format":3,"node_type":"group","attributes":{"deep":' + deep + "}}"


def chunks() -> Iterator[Attack]:
    """Chunks that are missing, exchanged or lies."""
    for subscan in (0, 1):
        path = f"source/data_5d/c/0/0/0/0/{subscan}"
        for fill in (0, 99, -(2**31)):
            harm = _missing(path, fill)
            yield Attack(f"chunk {subscan} missing, fill {fill}", harm)
    for name in ("mjd", "elevation", "tamb", "signal_freq", "exptime"):
        yield Attack(f"chunk of {name} missing", remove(VICTIM, f"source/{name}/c"))
    yield Attack("loads missing", remove(VICTIM, "calibration/data_5d/c/0/0/0/0/0"))
    yield Attack("all chunks missing", remove(VICTIM, "source/data_5d/c"))
    yield Attack("decompression bomb", file(VICTIM, COUNTS, _bomb), REFUSED_ONLY)


def _missing(path: str, fill: int) -> Callable[[Night], Any]:
    def harm(night: Night) -> None:
        document(VICTIM, "source/data_5d", lambda d: d.__setitem__("fill_value", fill))(night)
        night.scan(VICTIM, path).unlink()

    return harm


def folders() -> Iterator[Attack]:
    """Names and folders that have no place in a store."""
    yield Attack("file among scans", file(0, "scan_000009", lambda p: p.write_text("x")), ANY)
    yield Attack("FIFO among scans", file(0, "scan_000009", os.mkfifo), ANY)
    yield Attack("empty scan", file(0, "scan_000009", lambda p: p.mkdir()), ANY)
    yield Attack("foreign files", file(VICTIM, ".nfs0001", lambda p: p.write_text("x")), SAME)
    yield Attack("scan is a loop", _scan_loop, REFUSED_ONLY)
    yield Attack("scan is a link to nothing", _scan_gone, REFUSED_ONLY)
    yield Attack("scan is a link", _scan_elsewhere, SAME)
    yield Attack("group is a loop", _group_loop, REFUSED_ONLY)
    yield Attack("band of nothing", file(VICTIM, "band_1", lambda p: p.mkdir()), ANY)
    harm = file(0, "scan_99999999999999999999", lambda p: p.mkdir())
    yield Attack("number too long", harm, ANY)
    yield Attack("odd name", file(0, "scan_\udcff\n2", lambda p: p.mkdir()), ANY)


def _scan_loop(night: Night) -> None:
    shutil.rmtree(night.scan(VICTIM))
    night.scan(VICTIM).symlink_to(night.scan(VICTIM).name)


def _scan_gone(night: Night) -> None:
    shutil.rmtree(night.scan(VICTIM))
    night.scan(VICTIM).symlink_to("elsewhere")


def _scan_elsewhere(night: Night) -> None:
    night.scan(VICTIM).rename(night.folder / "elsewhere")
    night.scan(VICTIM).symlink_to(night.folder / "elsewhere")


def _group_loop(night: Night) -> None:
    shutil.rmtree(night.scan(VICTIM, "source"))
    night.scan(VICTIM, "source").symlink_to("../" + night.scan(VICTIM).name)


def seeded() -> Iterator[Attack]:
    """Random bits of random files."""
    for n, source in enumerate(seeds("files")):
        path = source.choice((*DOCUMENTS, "source/elevation/zarr.json", *CHUNKS))
        if path.endswith("json"):
            harm = file(VICTIM, path, lambda p, s=source: flip(p, s, s.choice((1, 1, 3))))  # type: ignore[misc]
        elif path.startswith("source/data_5d") and source.random() < 0.5:
            harm = file(VICTIM, path, lambda p, s=source: flipped_with_checksum(p, s))  # type: ignore[misc]
        else:
            harm = file(VICTIM, path, lambda p, s=source: flip(p, s))  # type: ignore[misc]
        yield Attack(f"seeded flip {n} {path.replace('/', '.')}", harm)


def file_attacks() -> list[Attack]:
    """The whole table."""
    everything = [*replaced(), *documents(), *chunks(), *folders(), *seeded()]
    return list(thinned(everything, 6))
