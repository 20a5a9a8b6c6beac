"""Put raw scans from FITS files into an L0 store, the inverse of ``raw_fits.writer``.

Shapes use C channels, D dumps, R receivers, A array pixels, S subscans. Counts are copied slab by
slab of channels: memory does not grow with the scan.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.errors import GpucalError, ImportFormatError, L0Error
from gpucal.io.files.atomic import as_write_error
from gpucal.io.gbt.session import named_files
from gpucal.io.l0.staging import StagedScan
from gpucal.io.l0.store import open_l0
from gpucal.io.l0.write import existing_root
from gpucal.io.l0.zarr_arrays import channels_per_chunk, compressors
from gpucal.io.raw_fits.layout import DataSum, Node, decode, nodes_digest, read_nodes
from gpucal.io.raw_fits.numbers import told_apart
from gpucal.io.raw_fits.reader import WHAT_IT_IS, RawFits, Table, check_sum, counts_column, read_at


@dataclass(frozen=True)
class RawFitsReport:
    """What an import did: numbers of the scans written, of those there already, and what was lost."""

    scans: tuple[int, ...]
    present: tuple[int, ...] = ()
    lost: tuple[GpucalError, ...] = ()

    @property
    def exit_code(self) -> int:
        """0: all that could be expected is there; 2: something was lost."""
        return 2 if self.lost else 0


def import_raw_fits(
    files: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    scans: Collection[int] | None = None,
) -> RawFitsReport:
    """Put the scans of raw FITS files into the L0 store ``out``, made when it is not there.

    ``files`` may be folders and gzipped files; ``scans``: only these numbers, None = all. A scan of which the
    store holds the same metadata is present. A file that is not such a file or is damaged, and a scan of whose
    number the store holds another one, is lost: the others are imported. Two scans of one number are told apart
    by their times: the later one gets 100000 more, and lloadsn of the scans that name that number follows
    (GpucalWarning). Each scan appears whole or not at all, so that the same call continues one that was interrupted.
    Raises the first error when nothing is left; ImportFormatError for files of several instruments,
    L0Error when ``out`` is something else.
    """
    files = [files] if isinstance(files, str | os.PathLike) else files
    if not files:
        raise ImportFormatError("no file was given, expected at least one.", hint=WHAT_IT_IS)
    lost: list[GpucalError] = []
    opened: list[RawFits] = []
    for path in named_files(files):
        try:
            opened.append(RawFits(path))
        except ImportFormatError as error:
            lost.append(error)
    if scans is not None:
        opened = _chosen(opened, scans)
    found = told_apart(opened, lost)
    for scan in found:
        _check_root(scan, found[0].root, str(found[0].path))
    store = Path(out)
    present = _present(store, found, lost)
    waiting = [scan for scan in found if scan not in present]
    if waiting and not store.exists():
        import zarr

        with as_write_error(store):
            zarr.create_group(str(store), zarr_format=3, attributes=dict(found[0].root))
    written = []
    for scan in waiting:
        try:
            with as_write_error(store, scan.number):
                _write_scan(store, scan)
        except ImportFormatError as error:
            lost.append(error)
            continue
        written.append(scan.number)
    there = [scan.number for scan, same in present.items() if same]
    if lost and not (written or there):
        raise lost[0]
    return RawFitsReport(tuple(written), tuple(sorted(there)), tuple(lost))


def _chosen(files: Sequence[RawFits], scans: Collection[int]) -> list[RawFits]:
    """The files of these scans; ImportFormatError when none of them is there."""
    chosen = [scan for scan in files if scan.number in scans]
    if not chosen:
        there = ", ".join(str(scan.number) for scan in files)
        raise ImportFormatError(f"none of the scans asked for is in the files, which hold {there}.")
    return chosen


def _check_root(scan: RawFits, other: Mapping[str, Any], where: str) -> None:
    for name in ("telescope", "instrument"):
        if scan.root.get(name) != other.get(name):
            raise ImportFormatError(
                f"{scan.path} is of {name} {scan.root.get(name)!r}, {where} of "
                f"{other.get(name)!r}, expected one {name} in a store.",
                scan=scan.number,
            )


def _present(store: Path, scans: Sequence[RawFits], lost: list[GpucalError]) -> dict[RawFits, bool]:
    """Scans whose number the store holds already: whether they are as in the files; else they are lost."""
    if not store.exists():
        if not store.parent.is_dir():
            raise L0Error(f"the folder {store.parent} does not exist.", hint="Make it first.")
        return {}
    existing_root(store)
    there = open_l0(store)
    for scan in scans:
        _check_root(scan, there.attrs, str(store))
    found = {}
    for scan in scans:
        if scan.number not in there.numbers():
            continue
        found[scan] = nodes_digest(read_nodes(there.scan_group(scan.number))) == scan.digest
        if not found[scan]:
            error = L0Error(
                f"{store} holds another scan of this number than {scan.path}.",
                hint="Raw data are never overwritten: import into another store.",
                scan=scan.number,
            )
            lost.append(error)
    return found


def _write_scan(store: Path, scan: RawFits) -> None:
    """Write one scan beside its place in the store and rename it in."""
    import zarr

    zarr_format = existing_root(store)[1]
    with StagedScan(store, scan.number) as staged:
        by_depth = sorted(scan.nodes, key=lambda n: (n.about["kind"] != "group", n.path))
        top = None
        for node in by_depth:
            attributes = node.about["attributes"]
            if not node.path:
                top = zarr.create_group(
                    str(staged.path), zarr_format=zarr_format, attributes=attributes
                )
            elif top is None:
                raise ImportFormatError(f"{scan.path} does not describe the scan itself.")
            elif node.about["kind"] == "group":
                top.create_group(node.path, attributes=attributes)
            else:
                _write_array(top, node, scan)
        staged.put_in_place(sync=True)


def _write_array(top: Any, node: Node, scan: RawFits) -> None:
    """Make one array of the scan as it was described, with its small values or, for counts, chunk by chunk."""
    about = node.about
    zarr_format = top.metadata.zarr_format
    shape = tuple(about["shape"])
    options: dict[str, Any] = {"attributes": about["attributes"]}
    if zarr_format == 3 and about["dimensions"]:
        options["dimension_names"] = about["dimensions"]
    if "values" in about:
        dtype: Any = str if about["dtype"] == "text" else np.dtype(about["dtype"])
        made = top.create_array(node.path, shape=shape, dtype=dtype, **options)
        made[...] = np.array(about["values"], dtype=object).reshape(shape).astype(dtype)
        return
    kind = np.dtype(about["dtype"])
    options["fill_value"] = np.frombuffer(bytes.fromhex(about["fill"]), kind.newbyteorder("<"))[0]
    if node.is_counts:
        chunks = (channels_per_chunk(shape, kind), *shape[1:4], 1)
        codec = compressors("zstd:1", zarr_format)
        made = top.create_array(
            node.path, shape=shape, dtype=kind, chunks=chunks, compressors=codec, **options
        )
        _copy_counts(made, node, scan)
        return
    assert node.values is not None
    codec = compressors("none", zarr_format)
    chunks = tuple(max(1, n) for n in shape)
    made = top.create_array(
        node.path, shape=shape, dtype=kind, chunks=chunks, compressors=codec, **options
    )
    made[...] = node.values


def _copy_counts(made: Any, node: Node, scan: RawFits) -> None:
    """Copy the counts a slab of channels at a time, and check the sum of each table at its end."""
    with open(scan.readable, "rb") as stream:
        for s, table in enumerate(scan.counts(node)):
            total = DataSum()
            start = table.column(counts_column(node))
            _add_prefix(table, start, stream.fileno(), total)
            for c0 in range(0, made.shape[0], made.chunks[0]):
                c1 = min(c0 + made.chunks[0], made.shape[0])
                made[c0:c1, ..., s] = _slab(table, start, (c0, c1), made, stream.fileno(), total)
            check_sum(table, total)


def _add_prefix(table: Table, start: int, descriptor: int, total: DataSum) -> None:
    """Add the bytes before the counts of each row to the checksum."""
    for d in range(int(table.header["NAXIS2"])):
        total.add(bytes(read_at(descriptor, start, table.start + d * table.row)))


def _slab(
    table: Table, start: int, span: tuple[int, int], made: Any, descriptor: int, total: DataSum
) -> npt.NDArray[Any]:
    """Counts [c, D, R, A] of a range of channels."""
    _, n_dump, n_rec, n_pix, _ = made.shape
    (c0, c1), dtype = span, np.dtype(made.dtype)
    each = n_rec * n_pix * dtype.itemsize
    raw = np.empty((n_dump, (c1 - c0) * each), np.uint8)
    for d in range(n_dump):
        piece = read_at(
            descriptor, (c1 - c0) * each, table.start + d * table.row + start + c0 * each
        )
        raw[d] = np.frombuffer(piece, np.uint8)
    total.add(raw)
    block = decode(raw.reshape(-1), dtype.name, (n_dump, c1 - c0, n_rec, n_pix))
    return np.ascontiguousarray(np.moveaxis(block, 0, 1))
