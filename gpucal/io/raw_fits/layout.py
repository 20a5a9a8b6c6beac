"""The layout of a raw scan as FITS: its nodes as JSON, arrays as columns, checksums of tables.

Shapes use C channels, D dumps, R receivers, A array pixels, S subscans. Source: the FITS standard
4.0, section 7.3 (binary tables, unsigned integers by TZERO) and appendix J (DATASUM).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.errors import L0Error
from gpucal.io.conventions.attributes import decoded_attributes
from gpucal.io.l0.nodes import counts_coding, decoded_node, node_of, stored_array, values_of
from gpucal.io.l0.schema import ARRAYS as L0_ARRAYS
from gpucal.io.l0.schema import COUNTS, TRACK_ARRAYS, fill_value

FORMAT, VERSION = "gpucal-raw-fits", 1
BLOCK = 2880
NODES, ARRAYS, TRACK, SUBSCAN = "NODES", "ARRAYS", "TRACK", "SUBSCAN"
"""Keyword ROLE of a table: what it holds."""
COUNTS_COLUMN = "COUNTS"

_CODES = {
    "text": ("A", 0),
    "bool": ("L", 0),
    "uint8": ("B", 0),
    "int8": ("B", -(1 << 7)),
    "int16": ("I", 0),
    "uint16": ("I", 1 << 15),
    "int32": ("J", 0),
    "uint32": ("J", 1 << 31),
    "int64": ("K", 0),
    "uint64": ("K", 1 << 63),
    "float32": ("E", 0),
    "float64": ("D", 0),
}
"""dtype -> FITS format letter and TZERO."""


@dataclass(frozen=True, eq=False)
class Node:
    """One group or array of a scan.

    path    "" for the scan itself, else e.g. "band_1/source/mjd"
    about   what JSON holds: kind ("group" or "array"), attributes; of an array also dtype, shape,
            dimensions (names, or null), fill (bytes of the fill value as hex) and, when it
            holds text, ``values``
    values  the numbers, None for a group, for text and for the counts
    """

    path: str
    about: Mapping[str, Any]
    values: npt.NDArray[Any] | None = field(default=None)

    @property
    def group(self) -> str:
        """Path of the group that holds it."""
        return self.path.rpartition("/")[0]

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def is_counts(self) -> bool:
        """Whether it is an array of counts [C, D, R, A, S]."""
        return self.about["kind"] == "array" and self.name == COUNTS

    @property
    def is_track(self) -> bool:
        """Whether it belongs in the table of the telescope's track."""
        return self.values is not None and self.name in TRACK_ARRAYS and self.values.ndim == 1

    def text(self) -> str:
        """Path and ``about`` as JSON: plain ASCII, the same text for the same content."""
        return json.dumps({"path": self.path, **self.about}, sort_keys=True, separators=(",", ":"))


def read_nodes(zgroup: Any, path: str = "") -> list[Node]:
    """All groups and arrays of a Zarr group, the counts without their values.

    Raises L0Error for an array that FITS cannot hold, CorruptDataError for one that cannot be read.
    """
    nodes = [Node(path, {"kind": "group", "attributes": dict(zgroup.attrs)})]
    for name in sorted(_members(zgroup)):
        node = node_of(zgroup, name)
        place = f"{path}/{name}".lstrip("/")
        if node is None:
            continue
        nodes += [_array_node(place, node)] if hasattr(node, "shape") else read_nodes(node, place)
    return nodes


def _members(zgroup: Any) -> list[str]:
    """Names of all that is below a Zarr group."""
    import warnings

    with warnings.catch_warnings():  # Zarr warns about files that are no Zarr objects
        warnings.simplefilter("ignore")
        return list(zgroup.keys())


def _array_node(path: str, node: Any) -> Node:
    """The description of an array, without values; texts are kept in it, as they are short."""
    about: dict[str, Any] = {
        "kind": "array",
        "shape": list(node.shape),
        "dimensions": _dimensions(node),
        "attributes": dict(node.attrs),
    }
    dtype = np.dtype(node.dtype)
    folder, _, name = path.rpartition("/")
    known = folder.rpartition("/")[2] in ("source", "calibration")
    if known and name != COUNTS and (name in L0_ARRAYS or name in TRACK_ARRAYS):
        return _small_node(path, node, about)
    if dtype.kind in "OTUS":
        values = values_of(name, node)
        texts = [
            v.decode("ascii", "replace") if isinstance(v, bytes) else str(v) for v in values.flat
        ]
        about["dtype"] = dtype.str if dtype.kind in "US" else "text"
        return Node(path, about | {"values": texts})
    kept = dtype.newbyteorder("=")
    if kept.name not in _CODES:
        raise L0Error(f"array {path} has dtype {dtype}, which raw FITS files cannot hold.")
    about["dtype"] = kept.name
    fill = 0 if node.fill_value is None else node.fill_value  # Zarr v2 may leave it open
    about["fill"] = np.asarray(fill, dtype=kept.newbyteorder("<")).tobytes().hex()
    if name == COUNTS:
        return Node(path, _decoded_counts(about, node) if known else about)
    return Node(path, about, np.asarray(values_of(name, node), dtype=kept))


def _small_node(path: str, node: Any, about: dict[str, Any]) -> Node:
    """A small array of the L0 layout: decoded, so that a reader of the file needs no attributes."""
    values, attributes = decoded_node(path.rpartition("/")[2], node)
    kept = values.dtype.newbyteorder("=")
    if kept.name not in _CODES:
        raise L0Error(f"array {path} has dtype {node.dtype}, which raw FITS files cannot hold.")
    fill = node.fill_value if kept == np.dtype(node.dtype).newbyteorder("=") else 0
    word = np.asarray(0 if fill is None else fill, dtype=kept.newbyteorder("<"))
    about |= {"attributes": attributes, "dtype": kept.name, "fill": word.tobytes().hex()}
    return Node(path, about, np.asarray(values, dtype=kept))


def _decoded_counts(about: dict[str, Any], node: Any) -> dict[str, Any]:
    """The description of counts as they are read: packed ones are written unpacked."""
    coding = counts_coding(node)
    if coding.plain:
        return about
    kept = coding.count_dtype(np.dtype(node.dtype))
    fill = np.asarray(fill_value(kept), dtype=kept.newbyteorder("<"))
    attributes = decoded_attributes(stored_array(COUNTS, node))
    return about | {
        "attributes": attributes,
        "dtype": kept.name,
        "fill": fill.tobytes().hex(),
    }


def _dimensions(node: Any) -> list[str] | None:
    """Names of the axes, from Zarr v3 or from xarray's attribute in v2; None when not named."""
    names = getattr(node.metadata, "dimension_names", None) or node.attrs.get("_ARRAY_DIMENSIONS")
    return list(names) if names else None


def nodes_digest(nodes: Sequence[Node]) -> str:
    """SHA-256 of everything that describes a scan except its counts; independent of the order of nodes."""
    digest = hashlib.sha256()
    for node in sorted(nodes, key=lambda n: n.path):
        digest.update(f"{node.text()}\n".encode())
        if node.values is not None:
            digest.update(encode(node.values).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Column:
    """One column of a binary table: name, dtype name, shape of a cell (NumPy order) and unit."""

    name: str
    dtype: str
    shape: tuple[int, ...] = ()
    unit: str = ""

    @property
    def count(self) -> int:
        """Numbers in a cell."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of a cell."""
        return self.count * (1 if self.dtype in ("bool", "text") else np.dtype(self.dtype).itemsize)

    @property
    def form(self) -> str:
        """Value of TFORM."""
        return f"{self.count}{_CODES[self.dtype][0]}"

    @property
    def dim(self) -> str:
        """Value of TDIM: the axes from the fastest on; "" where a cell has one axis or none."""
        return f"({','.join(str(n) for n in reversed(self.shape))})" if len(self.shape) > 1 else ""

    @property
    def zero(self) -> int:
        """Value of TZERO; 0 when there is none."""
        return _CODES[self.dtype][1]


def table_cards(columns: Sequence[Column], n_rows: int) -> list[tuple[str, Any, str]]:
    """Cards (keyword, value, comment) that describe a binary table."""
    cards: list[tuple[str, Any, str]] = [
        ("XTENSION", "BINTABLE", ""),
        ("BITPIX", 8, ""),
        ("NAXIS", 2, ""),
        ("NAXIS1", sum(c.nbytes for c in columns), "bytes in a row"),
        ("NAXIS2", n_rows, "rows"),
        ("PCOUNT", 0, ""),
        ("GCOUNT", 1, ""),
        ("TFIELDS", len(columns), ""),
    ]
    for n, column in enumerate(columns, 1):
        cards += [(f"TTYPE{n}", column.name, ""), (f"TFORM{n}", column.form, "")]
        if column.dim:
            cards.append((f"TDIM{n}", column.dim, ""))
        if column.zero:
            cards += [(f"TSCAL{n}", 1, ""), (f"TZERO{n}", column.zero, "unsigned by offset")]
        if column.unit:
            cards.append((f"TUNIT{n}", column.unit, ""))
    return cards


def encode(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Numbers as FITS stores them: big endian, other signedness by flipping the top bit; bit exact."""
    native = np.ascontiguousarray(values, np.dtype(values.dtype).newbyteorder("="))
    if native.dtype.kind == "b":
        return np.where(native, np.uint8(ord("T")), np.uint8(ord("F")))
    size = native.dtype.itemsize
    words: npt.NDArray[Any] = native.view(f"u{size}")
    return np.asarray((words ^ _flip(native.dtype)).astype(f">u{size}"))


def decode(raw: npt.NDArray[np.uint8], dtype: str, shape: Sequence[int]) -> npt.NDArray[Any]:
    """The numbers in the bytes of a cell, as they were given to ``encode``."""
    if dtype == "bool":
        return np.asarray(raw == ord("T")).reshape(shape)
    kind = np.dtype(dtype)
    words = raw.view(f">u{kind.itemsize}").astype(f"u{kind.itemsize}")
    return np.asarray((words ^ _flip(kind)).view(kind).reshape(shape))


def _flip(kind: np.dtype[Any]) -> Any:
    """Sign bit by which FITS stores unsigned numbers as signed ones (TZERO); 0 for others."""
    letter, zero = _CODES[kind.name]
    word = np.dtype(f"u{kind.itemsize}").type
    return word(1 << (8 * kind.itemsize - 1)) if zero and letter else word(0)


class DataSum:
    """The FITS sum over the 32-bit words of a data unit; pieces in any order.

    Each piece is a multiple of 4 bytes long and begins at one. Source: FITS standard 4.0, J.1.
    """

    def __init__(self) -> None:
        self._total = 0

    def add(self, piece: npt.NDArray[Any] | bytes) -> None:
        """Add the bytes of one piece."""
        flat = np.frombuffer(piece, np.uint8) if isinstance(piece, bytes) else _bytes_of(piece)
        if flat.size % 4:
            flat = np.concatenate([flat, np.zeros(-flat.size % 4, np.uint8)])
        self._total += int(flat.view(">u4").sum(dtype=np.uint64))

    @property
    def value(self) -> int:
        """The 32-bit ones' complement sum."""
        total = self._total
        while total >> 32:
            total = (total & 0xFFFFFFFF) + (total >> 32)
        return total


def _bytes_of(piece: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """The bytes of an array in C order, without a copy when it is contiguous."""
    return np.ascontiguousarray(piece).reshape(-1).view(np.uint8)


def extension_name(group: str, role: str) -> str:
    """EXTNAME of a table, e.g. "SOURCE" (counts) or "BAND_1_SOURCE_TRACK"."""
    stem = group.replace("/", "_").upper() or "SCAN"
    return stem if role == SUBSCAN else f"{stem}_{role}"


def array_columns(nodes: Sequence[Node]) -> list[Column]:
    """Columns of the table that holds small arrays in one row."""
    columns = []
    for node in nodes:
        assert node.values is not None
        unit = str(node.about["attributes"].get("units", ""))
        columns.append(Column(node.name, node.about["dtype"], node.values.shape, unit))
    return columns


def split_text(text: str, most: int) -> Iterator[str]:
    """Pieces of at most ``most`` characters."""
    yield from (text[i : i + most] for i in range(0, max(len(text), 1), most))
