"""Write raw scans as FITS, one file per scan and one binary table per subscan.

Shapes use C channels, D dumps, R receivers, A array pixels, S subscans. The layout is described in
docs/reference/raw_fits.md. A table is written slab by slab of channels: memory does not grow with the scan.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.errors import GpucalWarning, ImportFormatError, L0Error
from gpucal.io.chunks.counts import ZarrCounts
from gpucal.io.files.atomic import as_write_error, clean_stale, discard, new_staged
from gpucal.io.l0.group import GroupContext, read_group
from gpucal.io.l0.nodes import counts_coding
from gpucal.io.l0.schema import is_bolometer, parse_scan_attrs
from gpucal.io.l0.store import L0Store, open_l0
from gpucal.io.l0.track import outside_track
from gpucal.io.raw_fits.cards import (
    Cards,
    arrays_table,
    header_bytes,
    nodes_table,
    primary_cards,
    role_cards,
    subscan_cards,
    track_table,
)
from gpucal.io.raw_fits.layout import (
    BLOCK,
    COUNTS_COLUMN,
    SUBSCAN,
    Column,
    DataSum,
    Node,
    encode,
    nodes_digest,
    read_nodes,
    table_cards,
)
from gpucal.scan import SubscanGroup

SLAB_BYTES = 64 << 20


def export_raw_fits(
    store: str | Path,
    out: str | Path,
    *,
    scans: Iterable[int] | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write scans of an L0 store as ``scan_NNNNNN.fits`` in the folder ``out``; returns the files.

    scans: numbers, default all. A file that is there and holds the same scan is kept; another one
    is replaced only with ``overwrite``. Each file appears whole or not at all. Raises L0Error for a
    scan that is not in the store or does not follow its layout, or when a file is in the way.
    """
    opened = open_l0(store)
    numbers = opened.numbers()
    wanted = numbers if scans is None else sorted(set(scans))
    missing = [n for n in wanted if n not in numbers]
    if missing:
        raise L0Error(
            f"it is not in {store}.", hint="gpucal inspect lists the scans.", scan=missing[0]
        )
    folder = Path(out)
    with as_write_error(folder):
        folder.mkdir(exist_ok=True)
    clean_stale(folder)
    paths = []
    for number in wanted:
        path = folder / f"scan_{number:06d}.fits"
        write_raw_fits(opened, number, path, overwrite=overwrite)
        paths.append(path)
    return paths


def write_raw_fits(store: L0Store, number: int, path: Path, *, overwrite: bool = False) -> bool:
    """Write one scan as the file ``path``; False when it holds that scan already.

    The file is written beside its place, synced and renamed. Raises as ``export_raw_fits``; warns
    (GpucalWarning) of samples of a bolometer scan that lie outside the telescope's track.
    """
    try:
        nodes = read_nodes(store.scan_group(number))
        digest = nodes_digest(nodes)
        if path.exists() and not overwrite:
            if _holds(path, digest):
                return False
            raise L0Error(
                f"{path} is already there and does not hold this scan as it is now.",
                hint="Use --overwrite, or another folder.",
            )
        tables = _group_tables(store, number, nodes)
    except L0Error as error:
        raise error.locate(scan=number) from None
    with as_write_error(path, number):
        staged = new_staged(path.parent, path.name)
        try:
            draft = staged / path.name
            with open(draft, "xb", buffering=0) as stream:
                _write_file(_Output(stream.fileno()), store, number, nodes, tables)
                os.fsync(stream.fileno())
            os.replace(draft, path)
        finally:
            discard(staged)
    return True


def _holds(path: Path, digest: str) -> bool:
    """Whether a file is a raw scan with the metadata of this digest."""
    from gpucal.io.raw_fits.reader import RawFits

    try:
        return RawFits(path).digest == digest
    except ImportFormatError:
        return False


def _group_tables(
    store: L0Store, number: int, nodes: Sequence[Node]
) -> dict[str, SubscanGroup | None]:
    """Group path -> its subscans; None where a group holds arrays but no counts."""
    zscan = store.scan_group(number)
    found: dict[str, SubscanGroup | None] = {}
    scan_attrs = next(dict(n.about["attributes"]) for n in nodes if not n.path)
    for node in nodes:
        if node.about["kind"] == "group":
            continue
        found.setdefault(node.group, None)
        if not node.is_counts:
            continue
        band = node.group.rpartition("/")[0]
        over: Mapping[str, Any] = next(
            (n.about["attributes"] for n in nodes if band and n.path == band), {}
        )
        attrs = {**scan_attrs, **over}
        context = GroupContext(
            scan=number,
            band=band,
            calibration=node.group.endswith("calibration"),
            ref_channel_base=parse_scan_attrs(attrs).ref_channel_base,
            gain_zero=True,  # an image sideband is not needed for writing
            partial=False,
            bolometer=is_bolometer(attrs),
        )
        try:
            group = read_group(zscan[node.group], context, _NoDigest())
            coding = counts_coding(zscan[node.path])
            # plain counts as they are stored, whatever a reader makes of them; packed ones as they are
            # described: unpacked
            raw = ZarrCounts(
                zscan[node.path],
                scan=number,
                band=band,
                coding=None if coding.plain else coding,
                zeros_lost=False,
            )
            found[node.group] = replace(group, counts=raw)
        except L0Error as error:
            raise error.locate(scan=number, band=band) from None
    if not any(found.values()):
        raise L0Error("there are no counts in it, nothing can be exported.")
    return found


class _NoDigest:
    """A digest that does nothing, for readers that want one."""

    def update(self, data: bytes) -> None:
        """Ignore the data."""


class _Output:
    """A FITS file being written: tables one after the other, pieces of a table in any order."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._end = 0
        self._start = 0
        self.sum = DataSum()

    def header(self, cards: Cards) -> None:
        """Write a header without data (the primary one)."""
        self._end += self._put(self._end, header_bytes(cards))

    def begin(self, cards: Cards) -> None:
        """Begin a table."""
        self.sum = DataSum()
        self._start = self._end + len(header_bytes([*cards, ("DATASUM", "0", "")]))

    def write(self, offset: int, data: npt.NDArray[Any] | bytes) -> None:
        """Write a piece of the table's data at a byte offset; whole 32-bit words, the end apart."""
        self.sum.add(data)
        self._put(self._start + offset, data)

    def end(self, cards: Cards, nbytes: int) -> None:
        """Finish a table of ``nbytes`` bytes: its header, now with the sum, and the padding."""
        full = [*cards, ("DATASUM", str(self.sum.value), "sum of the 32-bit words of the data")]
        self._put(self._end, header_bytes(full))
        self._end = self._start + -(-nbytes // BLOCK) * BLOCK
        os.ftruncate(self._descriptor, self._end)

    def table(self, cards: Cards, data: bytes) -> None:
        """Write a small table at once."""
        self.begin(cards)
        self.write(0, data)
        self.end(cards, len(data))

    def _put(self, offset: int, data: npt.NDArray[Any] | bytes) -> int:
        """Write all bytes at an offset, at most 1 GiB per call; returns how many."""
        flat: Any = data if isinstance(data, bytes) else data.reshape(-1).view(np.uint8)
        view = memoryview(flat)
        done = 0
        while done < len(view):
            done += os.pwrite(self._descriptor, view[done : done + (1 << 30)], offset + done)
        return done


def _write_file(
    out: _Output,
    store: L0Store,
    number: int,
    nodes: Sequence[Node],
    groups: Mapping[str, SubscanGroup | None],
) -> None:
    tables: list[tuple[Cards, bytes] | tuple[str, SubscanGroup]] = [nodes_table(store.attrs, nodes)]
    for path, group in groups.items():
        inside = [n for n in nodes if n.group == path and n.values is not None]
        track = [n for n in inside if n.is_track]
        small = [n for n in inside if not n.is_track]
        if small:
            tables.append(arrays_table(path, small))
        if track:
            tables.append(track_table(path, track))
        if group is not None:
            tables.append((path, group))
            _warn_outside(number, track, group)
    count = sum(t[1].shape[4] if isinstance(t[1], SubscanGroup) else 1 for t in tables)
    out.header(primary_cards(store.attrs, number, nodes, nodes_digest(nodes), count))
    for first, second in tables:
        if isinstance(second, SubscanGroup):
            for s in range(second.shape[4]):
                _write_subscan(out, str(first), second, s, nodes)
        else:
            assert not isinstance(first, str)
            out.table(first, second)


def _warn_outside(number: int, track: Sequence[Node], group: SubscanGroup) -> None:
    """Warn of samples for which the track gives no position."""
    arrays = {n.name: n.values for n in track if n.values is not None}
    missing = outside_track(arrays, group.mjd) if arrays else 0
    if missing:
        warnings.warn(
            f"scan {number}: {missing} of {group.mjd.size} samples lie outside the time range of the "
            "telescope's track: their position is NaN.",
            GpucalWarning,
            stacklevel=4,
        )


def _write_subscan(
    out: _Output, path: str, group: SubscanGroup, s: int, nodes: Sequence[Node]
) -> None:
    """Write one table: a row per dump, small columns first, then counts [C,R,A], a slab of channels at a time."""
    n_chan, n_dump, n_rec, n_pix, _ = group.shape
    names = frozenset(n.name for n in nodes if n.group == path)
    dump, prefix = _dump_columns(group, s, names)
    columns = [
        *dump,
        Column(COUNTS_COLUMN, group.counts.dtype.name, (n_chan, n_rec, n_pix), "count"),
    ]
    cards = table_cards(columns, n_dump) + role_cards(path, SUBSCAN, s + 1)
    cards += subscan_cards(group, s, len(columns), names)
    row, lead = sum(c.nbytes for c in columns), sum(c.nbytes for c in dump)
    out.begin(cards)
    each = n_rec * n_pix * group.counts.dtype.itemsize
    for c0, c1 in _slabs(group, each * n_dump):
        block = encode(np.moveaxis(group.counts.read(c0, c1, s), 1, 0))
        if c1 - c0 == n_chan:
            cells = block.reshape(n_dump, -1).view(np.uint8)
            out.write(0, np.concatenate([prefix, cells], axis=1).reshape(-1))
            break
        for d in range(n_dump):
            if c0 == 0:
                out.write(d * row, prefix[d])
            out.write(d * row + lead + c0 * each, block[d].reshape(-1))
    out.end(cards, row * n_dump)


def _slabs(group: SubscanGroup, per_channel: int) -> Iterable[tuple[int, int]]:
    """Channel ranges of about SLAB_BYTES, cut where chunks end when they are smaller."""
    n_chan, chunk = group.shape[0], group.counts.chunks[0]
    step = min(n_chan, max(1, SLAB_BYTES // per_channel))
    if chunk < step:
        step -= step % chunk
    return [(c0, min(c0 + step, n_chan)) for c0 in range(0, n_chan, step)]


def _dump_columns(
    group: SubscanGroup, s: int, names: frozenset[str]
) -> tuple[list[Column], npt.NDArray[np.uint8]]:
    """Columns with one value per dump, and their bytes [D, n]."""
    chosen = [("MJD", group.mjd, "d"), ("EXPTIME", group.exptime, "s")]
    chosen += [("AZIMUTH", group.azimuth, "rad"), ("ELEVATION", group.elevation, "rad")]
    if names & {"otf_lon", "otf_lat", "track_lon", "track_lat"}:
        chosen += [("LON", group.otf_lon, "deg"), ("LAT", group.otf_lat, "deg")]
    columns = [Column(name, "float64", (), unit) for name, _, unit in chosen]
    parts = [encode(values[:, s]) for _, values, _ in chosen]
    if group.chop_phase is not None:
        columns.append(Column("PHASE", "int32"))
        parts.append(encode(group.chop_phase[:, s].astype(np.int32)))
    n_dump = group.shape[1]
    return columns, np.concatenate([p.view(np.uint8).reshape(n_dump, -1) for p in parts], axis=1)
