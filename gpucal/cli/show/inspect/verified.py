"""``gpucal inspect --verify``: every chunk of the scans is read, what is damaged becomes a problem of its row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import zarr

from gpucal.cli.show.inspect.rows import Row
from gpucal.errors import GpucalError
from gpucal.io.chunks.every_chunk import ReadChunks
from gpucal.io.chunks.regular_store import RegularFiles
from gpucal.io.l0.nodes import child_names, node_of
from gpucal.io.l0.store import L0Store
from gpucal.io.l1.flag_array import CALIBRATED
from gpucal.io.l1.reader import L1, L1Scan

_READ_ERRORS = (GpucalError, OSError, ValueError, KeyError)


def add_verified(report: Row, store: L0Store | L1) -> None:
    """Read all chunks of the rows of a report; adds ``verified`` to it, and problems to the rows and to it."""
    found = ReadChunks()
    for row in report["scans"]:
        label = " ".join(filter(None, (f"scan {row['scan']}", row["band"])))
        before = len(found.faults)
        try:
            _read(found, store, row["scan"], row["band"])
        except _READ_ERRORS as error:
            if row["problems"]:
                continue  # it cannot be read at all, which is told already
            found.faults.append(str(error))
        said = [f"{label}: {fault}" for fault in found.faults[before:]]
        row["problems"] = list(dict.fromkeys([*row["problems"], *said]))
    report["problems"] = list(
        dict.fromkeys([*(p for r in report["scans"] for p in r["problems"]), *report["problems"]])
    )
    report["verified"] = {
        "chunks": found.chunks,
        "without_checksum": found.unguarded,
        "damaged": len(found.faults),
    }


def verified_line(verified: Row) -> str:
    """The result in words."""
    said = f"verified: {verified['chunks']} chunks read, {verified['damaged'] or 'none'} damaged"
    if bare := verified["without_checksum"]:
        said += f"; {bare} have no checksum: they can be decoded, a flipped bit in them would not be noticed"
    return said + "."


def _read(found: ReadChunks, store: L0Store | L1, number: int, band: str) -> None:
    if isinstance(store, L1):
        scan = store.scan(number)
        for name, array in _l1_arrays(scan.band_scan(band) if band else scan):
            found.add(name, array, whole=True)
        return
    zscan = store.scan_group(number)
    zband = node_of(zscan, band) if band else zscan
    for group in ("source", "calibration"):
        zgroup = node_of(zband, group)
        if zgroup is None:
            continue
        for name in sorted(child_names(zgroup)):
            node = node_of(zgroup, name)
            if isinstance(node, zarr.Array):
                found.add(f"{group}/{name}", node)


def _l1_arrays(scan: L1Scan) -> Iterator[tuple[str, Any]]:
    """All arrays of a band: its own, those of groups below, and the flags before rules of a user."""
    for name in scan:
        yield name, scan[name]
    for group in scan.groups:
        if group.startswith("band_"):
            continue
        inside = zarr.open_group(
            RegularFiles(scan.path / group, read_only=True), mode="r", use_consolidated=False
        )
        for name, array in sorted(inside.arrays()):
            yield f"{group}/{name}", array
    kept = scan.path / "flags" / CALIBRATED
    if (kept / "zarr.json").exists():
        yield f"flags/{CALIBRATED}", zarr.open_array(RegularFiles(kept, read_only=True), mode="r")
