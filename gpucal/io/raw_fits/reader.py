"""Read raw scans from FITS files that ``raw_fits.writer`` wrote: checks, attributes, small arrays.

Shapes use C channels, D dumps, R receivers, A array pixels, S subscans. The layout is described in
docs/reference/raw_fits.md. The counts stay on disk.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.axes import FILL_INT32
from gpucal.errors import ImportFormatError
from gpucal.io.files.unpacked import DAMAGED, open_unpacked
from gpucal.io.fits.column_units import COUNT_UNITS
from gpucal.io.fits.sdfits_read import astropy_fits
from gpucal.io.l0.schema import check_counts, parse_root_attrs
from gpucal.io.raw_fits.layout import (
    ARRAYS,
    BLOCK,
    COUNTS_COLUMN,
    FORMAT,
    NODES,
    SUBSCAN,
    TRACK,
    VERSION,
    Column,
    DataSum,
    Node,
    decode,
    nodes_digest,
)

WHAT_IT_IS = "Give files that gpucal export raw-fits wrote."


@dataclass(frozen=True)
class Table:
    """One table: header, where its data begin in the file, and its place for messages."""

    header: Mapping[str, Any]
    start: int
    place: str

    @property
    def row(self) -> int:
        """Bytes in a row."""
        return int(self.header["NAXIS1"])

    @property
    def nbytes(self) -> int:
        """Bytes of the data."""
        return self.row * int(self.header["NAXIS2"])

    def need(self, keyword: str, what: str) -> Any:
        """Value of a keyword; ImportFormatError without it."""
        if keyword not in self.header:
            raise ImportFormatError(f"{self.place} has no keyword {keyword}, expected {what}.")
        return self.header[keyword]

    def column(self, wanted: Column) -> int:
        """Where a column begins in a row; ImportFormatError unless it is as expected."""
        start = 0
        for n in range(1, int(self.header["TFIELDS"]) + 1):
            name = str(self.need(f"TTYPE{n}", f"the name of column {n}"))
            form = str(self.need(f"TFORM{n}", f"the format of column {n}"))
            if name == wanted.name:
                self._check_form(n, wanted)
                return start
            start += _form_bytes(form, self.place)
        raise ImportFormatError(f"{self.place} has no column {wanted.name}.", hint=WHAT_IT_IS)

    def _check_form(self, n: int, wanted: Column) -> None:
        """Raise ImportFormatError unless column ``n`` has the format, axes and zero that are expected."""
        h = self.header
        self._check_numbers(n, wanted)
        form, zero = str(h[f"TFORM{n}"]).strip(), int(h.get(f"TZERO{n}", 0))
        dim = str(h.get(f"TDIM{n}", "")).replace(" ", "")
        if (form, dim, zero) == (wanted.form, wanted.dim, wanted.zero):
            return
        raise ImportFormatError(
            f"{self.place} has the column {wanted.name} of format {form} {dim} with zero {zero}, "
            f"expected {wanted.form} {wanted.dim} with zero {wanted.zero}."
        )

    def _check_numbers(self, n: int, wanted: Column) -> None:
        """Raise ImportFormatError when another program says that the numbers of a column are no counts."""
        h = self.header
        scale, unit = h.get(f"TSCAL{n}", 1), str(h.get(f"TUNIT{n}", "")).strip()
        null = h.get(f"TNULL{n}")
        found = ""
        if scale != 1:
            found = f"is scaled by {scale:g} (TSCAL{n})"
        elif wanted.name == COUNTS_COLUMN and unit.lower() not in COUNT_UNITS:
            found = f"has the unit {unit}, which is no count"
        elif null is not None and (wanted.dtype != "int32" or null != FILL_INT32):
            found = f"marks no data by {null} (TNULL{n})"
        if found:
            raise ImportFormatError(
                f"{self.place}: the column {wanted.name} {found}, expected the numbers as they were "
                "written.",
                hint="Another program has changed the file: take the original.",
            )


def _form_bytes(form: str, place: str) -> int:
    """Bytes of a column of this TFORM."""
    sizes = {"L": 1, "B": 1, "A": 1, "I": 2, "J": 4, "K": 8, "E": 4, "D": 8}
    count, letter = form.strip()[:-1], form.strip()[-1:]
    if letter not in sizes or not (count.isdigit() or not count):
        raise ImportFormatError(f"{place} has a column of format {form!r}.", hint=WHAT_IT_IS)
    return (int(count) if count else 1) * sizes[letter]


class RawFits:
    """One raw scan in a FITS file: its description in memory, the counts on disk.

    number  scan number; digest: of its metadata, as ``nodes_digest``; root: attributes of the store
    nodes   groups and arrays of the scan
    path, readable  the file, and the one to read: unpacked when it is gzipped
    Raises ImportFormatError, naming the file, for a file that is none, is truncated or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        unpacked = _unpacked(path)
        self.readable = unpacked or path
        if unpacked is not None:
            weakref.finalize(self, unpacked.unlink)
        primary, tables = _headers(path, self.readable)
        head = Table(primary, 0, f"the primary header of {path}")
        if head.need("FILEFMT", f"the value {FORMAT!r}") != FORMAT:
            raise ImportFormatError(
                f"{path} has FILEFMT {primary['FILEFMT']!r}, expected {FORMAT!r}.", hint=WHAT_IT_IS
            )
        if int(head.need("FMTVERS", "the version of the layout")) > VERSION:
            raise ImportFormatError(
                f"{path} has layout version {primary['FMTVERS']}, this program reads up to "
                f"{VERSION}.",
                hint="Update gpucal.",
            )
        self.number = int(head.need("SCAN", "the scan number"))
        self.digest = str(head.need("L0SHA256", "the checksum of the metadata"))
        count = int(head.need("NTABLES", "the number of tables"))
        if count != len(tables):
            raise ImportFormatError(
                f"{path} is truncated: it holds {len(tables)} tables, expected {count}.",
                hint="Copy the file again.",
            )
        self._tables = tables
        with open(self.readable, "rb") as stream:
            self._read_small(stream.fileno())
        if nodes_digest(self.nodes) != self.digest:
            raise ImportFormatError(
                f"{path}: attributes and arrays are not those that were written (L0SHA256).",
                hint="Copy the file again.",
                scan=self.number,
            )

    def counts(self, node: Node) -> list[Table]:
        """The tables of a group's subscans, in order; ImportFormatError unless all are there."""
        shape = node.about["shape"]
        found = {
            int(t.need("SUBSCAN", "the index of the subscan")): t
            for t in self._tables
            if t.need("ROLE", "what the table holds") == SUBSCAN
            and t.need("GROUP", "the group of the table") == node.group
        }
        missing = [s for s in range(shape[4]) if s not in found]
        if missing or len(found) != shape[4]:
            raise ImportFormatError(
                f"{self.path} has counts of the subscans {sorted(found)} of {node.group}, expected "
                f"0..{shape[4] - 1}.",
                scan=self.number,
            )
        column = counts_column(node)
        for s in range(shape[4]):
            _check_subscan(found[s], column, shape[1])
        return [found[s] for s in range(shape[4])]

    def _read_small(self, descriptor: int) -> None:
        """Read attributes and small arrays, and check that the tables of counts are all there."""
        by_role: dict[tuple[str, str], Table] = {}
        for table in self._tables:
            role = str(table.need("ROLE", "what the table holds"))
            if role != SUBSCAN:
                by_role[role, str(table.need("GROUP", "the group of the table"))] = table
        if (NODES, "") not in by_role:
            raise ImportFormatError(f"{self.path} has no table {NODES}.", hint=WHAT_IT_IS)
        documents = _documents(by_role[NODES, ""], descriptor)
        self.root: dict[str, Any] = documents.pop("/", {}).get("attributes", {})
        parse_root_attrs(self.root)
        self.nodes = [Node(path, about) for path, about in documents.items()]
        numbers = [
            n
            for n in self.nodes
            if n.about["kind"] == "array" and "values" not in n.about and not n.is_counts
        ]
        self.nodes = [n for n in self.nodes if n not in numbers]
        for node in self.nodes:
            if node.is_counts:
                self.counts(node)
        for group in dict.fromkeys(n.group for n in numbers):
            mine = [n for n in numbers if n.group == group]
            self.nodes += _values(mine, group, by_role, descriptor)


def counts_column(node: Node) -> Column:
    """The column of counts of one dump, [C, R, A]."""
    c, _, r, a, _ = node.about["shape"]
    check_counts(node.about["shape"], np.dtype(node.about["dtype"]))
    return Column(COUNTS_COLUMN, node.about["dtype"], (c, r, a))


def _check_subscan(table: Table, column: Column, n_dumps: int) -> None:
    """Raise ImportFormatError unless a table has D rows that end with the counts, aligned to 4 bytes."""
    start = table.column(column)
    if int(table.header["NAXIS2"]) != n_dumps or start + column.nbytes != table.row or start % 4:
        raise ImportFormatError(
            f"{table.place} has {table.header['NAXIS2']} rows of {table.row} bytes with the counts "
            f"at byte {start}, expected {n_dumps} rows that end with {column.nbytes} bytes of counts."
        )
    table.need("DATASUM", "the checksum of the data")


def _values(
    nodes: Sequence[Node], group: str, tables: Mapping[tuple[str, str], Table], descriptor: int
) -> list[Node]:
    """The arrays of one group with their values, from its tables ARRAYS and TRACK."""
    filled = []
    held = {role: tables[role, group] for role in (ARRAYS, TRACK) if (role, group) in tables}
    data = {role: _checked(table, descriptor) for role, table in held.items()}
    for node in nodes:
        shape, dtype = tuple(node.about["shape"]), str(node.about["dtype"])
        tracked = TRACK in held and node.name in _names(held[TRACK])
        role = TRACK if tracked else ARRAYS
        if role not in held:
            raise ImportFormatError(f"a table {ARRAYS} with {node.path} is missing.")
        table = held[role]
        column = Column(node.name, dtype, () if tracked else shape)
        start = table.column(column)
        n_rows = shape[0] if tracked else 1
        if int(table.header["NAXIS2"]) != n_rows:
            raise ImportFormatError(
                f"{table.place} has {table.header['NAXIS2']} rows, expected {n_rows}."
            )
        cells = data[role].reshape(n_rows, -1)[:, start : start + column.nbytes]
        filled.append(Node(node.path, node.about, decode(cells.reshape(-1).copy(), dtype, shape)))
    return filled


def _names(table: Table) -> list[str]:
    """Names of the columns of a table."""
    return [str(table.header.get(f"TTYPE{n + 1}")) for n in range(int(table.header["TFIELDS"]))]


def _documents(table: Table, descriptor: int) -> dict[str, dict[str, Any]]:
    """Path -> JSON document of the NODES table."""
    widths = {}
    for n, name in enumerate(_names(table), 1):
        widths[name] = _form_bytes(
            str(table.need(f"TFORM{n}", f"the format of column {n}")), table.place
        )
    json_at = table.column(Column("JSON", "text", (widths.get("JSON", 0),)))
    first_at = table.column(Column("FIRST", "int32"))
    texts: list[bytes] = []
    data = _checked(table, descriptor)
    for row in data.reshape(-1, table.row):
        piece = row[json_at : json_at + widths["JSON"]].tobytes().rstrip(b"\0")
        if row[first_at + 3] or not texts:
            texts.append(piece)
        else:
            texts[-1] += piece
    try:
        documents = [json.loads(text) for text in texts]
        return {str(d.pop("path")): d for d in documents}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ImportFormatError(f"{table.place} is not valid: {error}.", hint=WHAT_IT_IS) from error


def _checked(table: Table, descriptor: int) -> npt.NDArray[np.uint8]:
    """The data of a small table, u8 [n]; ImportFormatError when its checksum does not match."""
    data = np.frombuffer(read_at(descriptor, table.nbytes, table.start), np.uint8)
    total = DataSum()
    total.add(data)
    check_sum(table, total)
    return data


def check_sum(table: Table, total: DataSum) -> None:
    """Raise ImportFormatError unless the sum is that in the header."""
    stated = str(table.need("DATASUM", "the checksum of the data"))
    if stated != str(total.value):
        raise ImportFormatError(
            f"the data of {table.place} are damaged: their checksum is {total.value}, expected "
            f"{stated}.",
            hint="Copy the file again.",
        )


def read_at(descriptor: int, nbytes: int, offset: int) -> bytearray:
    """Bytes of an open file from an offset on; ImportFormatError when it ends before."""
    data = bytearray(nbytes)
    view = memoryview(data)
    done = 0
    while done < nbytes:
        got = os.preadv(descriptor, [view[done : done + (1 << 30)]], offset + done)
        if not got:
            raise ImportFormatError("the file became shorter while it was read.")
        done += got
    return data


def _unpacked(path: Path) -> Path | None:
    """A temporary copy of a gzipped file; None for another file."""
    try:
        with open(path, "rb") as packed:
            if packed.read(2) != b"\x1f\x8b":
                return None
        with open_unpacked(path) as stream:
            descriptor, name = tempfile.mkstemp(prefix="gpucal-", suffix=".fits")
            with open(descriptor, "wb") as copy:
                shutil.copyfileobj(stream, copy, 16 << 20)
        return Path(name)
    except FileNotFoundError as error:
        raise ImportFormatError(f"{path} does not exist, expected a FITS file.") from error
    except DAMAGED as error:
        raise ImportFormatError(
            f"{path} is compressed, and its end or a part is damaged ({error}).",
            hint="Copy the file again.",
        ) from error
    except OSError as error:
        raise ImportFormatError(
            f"{path} cannot be read as FITS ({error.strerror or error}), expected a raw scan.",
            hint=WHAT_IT_IS,
        ) from error


def _headers(path: Path, readable: Path) -> tuple[Mapping[str, Any], list[Table]]:
    """Header of the primary unit, and all tables; ImportFormatError for a damaged or foreign file."""
    fits = astropy_fits()
    tables: list[Table] = []
    try:
        size = os.path.getsize(readable)
        with open(readable, "rb") as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            primary = fits.Header.fromfile(stream)
            if primary.get("SIMPLE") is not True:
                raise ValueError("no SIMPLE = T")
            while stream.tell() < size:
                header = fits.Header.fromfile(stream)
                place = f"table {len(tables) + 1} ({header.get('EXTNAME', 'unnamed')}) of {path}"
                table = Table(header, stream.tell(), place)
                for keyword in ("NAXIS1", "NAXIS2", "TFIELDS"):
                    table.need(keyword, "that of a binary table")
                if size < table.start + table.nbytes:
                    raise ImportFormatError(
                        f"{path} is truncated: {place} ends at byte {table.start + table.nbytes}, "
                        f"the file at byte {size}.",
                        hint="Copy the file again.",
                    )
                tables.append(table)
                stream.seek(table.start + -(-table.nbytes // BLOCK) * BLOCK)
    except FileNotFoundError as error:
        raise ImportFormatError(f"{path} does not exist, expected a FITS file.") from error
    except (OSError, EOFError, ValueError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise ImportFormatError(
            f"{path} cannot be read as FITS ({reason}), expected a raw scan.", hint=WHAT_IT_IS
        ) from error
    return primary, tables
