"""Put raw scans from FITS files into an L0 store, the inverse of ``raw_fits.writer``.

Shapes use C channels, D dumps, R receivers, A array pixels, S subscans. Counts are copied slab by
slab of channels: memory does not grow with the scan.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.errors import GpucalError, ImportFormatError
from gpucal.io.incoming.glimpse import Glimpse
from gpucal.io.incoming.landing import Silent, check_target, land
from gpucal.io.incoming.listing import fits_files
from gpucal.io.incoming.protocol import (
    ImportPlan,
    Lost,
    PlannedBand,
    PlannedScan,
    RawFormat,
    Request,
    Tick,
)
from gpucal.io.l0.staging import StagedScan
from gpucal.io.l0.write import existing_root
from gpucal.io.l0.zarr_arrays import channels_per_chunk, compressors
from gpucal.io.raw_fits.layout import FORMAT, DataSum, Node, decode, nodes_digest, read_nodes
from gpucal.io.raw_fits.numbers import told_apart
from gpucal.io.raw_fits.reader import WHAT_IT_IS, RawFits, Table, check_sum, counts_column, read_at


class RawFitsFormat(RawFormat):
    """Raw FITS files that gpucal wrote: a scan each, bit for bit."""

    name = "raw-fits"
    title = "raw FITS files that gpucal export wrote"
    options = ()

    def probe(self, glimpse: Glimpse) -> bool:
        """By the keyword FILEFMT."""
        return glimpse.cards.get("FILEFMT") == FORMAT

    def plan(self, request: Request) -> ImportPlan:
        """No options."""
        return plan_files(request)


RAW_FITS = RawFitsFormat()


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
    given = [files] if isinstance(files, str | os.PathLike) else files
    target = Path(out)
    plan = plan_files(Request(tuple(Path(f) for f in given), scans))
    check_target(target, whole_store=False, overwrite=False)
    report = land(plan, target, whole_store=False, overwrite=False, progress=Silent())
    return RawFitsReport(report.scans, report.present, tuple(lost.error for lost in report.lost))


def plan_files(request: Request) -> ImportPlan:
    """The scans of the files, each once and each with a number of its own."""
    if not request.paths:
        raise ImportFormatError("no file was given, expected at least one.", hint=WHAT_IT_IS)
    lost: list[GpucalError] = []
    opened: list[RawFits] = []
    paths = fits_files(request.paths)
    for path in paths:
        try:
            opened.append(RawFits(path))
        except ImportFormatError as error:
            lost.append(error)
    if request.scans is not None:
        opened = _chosen(opened, request.scans)
    found = told_apart(opened, lost)
    for scan in found:
        _check_root(scan, found[0])
    return ImportPlan(
        root=dict(found[0].root) if found else {},
        scans=[_planned(scan) for scan in found],
        lost=tuple(Lost(error.scan, error.band, error) for error in lost),
        inputs=paths,
    )


def _planned(scan: RawFits) -> PlannedScan:
    """One scan, with what the table of the plan tells of it."""

    def same(group: Any) -> bool:
        return nodes_digest(read_nodes(group)) == scan.digest

    attrs: dict[str, Any] = next((n.about["attributes"] for n in scan.nodes if not n.path), {})
    counts = [n for n in scan.nodes if n.is_counts]
    sizes = [math.prod(n.about["shape"]) * np.dtype(n.about["dtype"]).itemsize for n in counts]
    return PlannedScan(
        scan.number,
        lambda store, tick: _write_scan(store, scan, tick),
        tuple(_planned_band(scan, band) for band in sorted({_band_of(n) for n in counts})),
        kind=str(attrs.get("instmode") or ""),
        source=str(attrs.get("source") or ""),
        origin=str(scan.path),
        nbytes=sum(sizes),
        same_as=same,
    )


def _band_of(counts: Node) -> str:
    """The band of an array of counts: "" in band_1/source/data_5d is that of source/data_5d."""
    return counts.group.rpartition("/")[0]


def _planned_band(scan: RawFits, band: str) -> PlannedBand:
    shapes, modes, loads = {}, {}, -1
    for node in scan.nodes:
        place, _, name = node.path.rpartition("/")
        at, _, group = (place if node.about["kind"] == "array" else node.path).rpartition("/")
        if at != band or group not in ("source", "calibration"):
            continue
        if node.is_counts:
            shapes[group] = tuple(int(n) for n in node.about["shape"][:4])
        elif node.about["kind"] == "group":
            modes[group] = tuple(str(m) for m in node.about["attributes"].get("sobsmode", ()))
        elif name == "lloadsn" and node.values is not None and node.values.size:
            loads = int(node.values.flat[0])
    c, d, r, a = shapes.get("source") or shapes["calibration"]
    return PlannedBand(
        band, modes.get("source", ()), modes.get("calibration", ()), (c, d, r, a), loads
    )


def _chosen(files: Sequence[RawFits], scans: Collection[int]) -> list[RawFits]:
    """The files of these scans; ImportFormatError when none of them is there."""
    chosen = [scan for scan in files if scan.number in scans]
    if not chosen:
        there = ", ".join(str(scan.number) for scan in files)
        raise ImportFormatError(f"none of the scans asked for is in the files, which hold {there}.")
    return chosen


def _check_root(scan: RawFits, other: RawFits) -> None:
    for name in ("telescope", "instrument"):
        if scan.root.get(name) != other.root.get(name):
            raise ImportFormatError(
                f"{scan.path} is of {name} {scan.root.get(name)!r}, {other.path} of "
                f"{other.root.get(name)!r}, expected one {name} in a store.",
                scan=scan.number,
            )


def _write_scan(store: Path, scan: RawFits, tick: Tick) -> None:
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
                _write_array(top, node, scan, tick)
        staged.put_in_place(sync=True)


def _write_array(top: Any, node: Node, scan: RawFits, tick: Tick) -> None:
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
        _copy_counts(made, node, scan, tick)
        return
    assert node.values is not None
    codec = compressors("none", zarr_format)
    chunks = tuple(max(1, n) for n in shape)
    made = top.create_array(
        node.path, shape=shape, dtype=kind, chunks=chunks, compressors=codec, **options
    )
    made[...] = node.values


def _copy_counts(made: Any, node: Node, scan: RawFits, tick: Tick) -> None:
    """Copy the counts a slab of channels at a time, and check the sum of each table at its end."""
    with open(scan.readable, "rb") as stream:
        for s, table in enumerate(scan.counts(node)):
            total = DataSum()
            start = table.column(counts_column(node))
            _add_prefix(table, start, stream.fileno(), total)
            for c0 in range(0, made.shape[0], made.chunks[0]):
                c1 = min(c0 + made.chunks[0], made.shape[0])
                slab = _slab(table, start, (c0, c1), made, stream.fileno(), total)
                made[c0:c1, ..., s] = slab
                tick(int(slab.nbytes))
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
