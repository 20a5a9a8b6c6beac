"""Read CLASS files (GILDAS), versions 1 and 2: the index at once, headers and values when asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from gpucal.errors import ImportFormatError
from gpucal.io.gildas.spectrum import to_spectrum
from gpucal.io.gildas.words import (
    BYTE_ORDERS,
    ENTRY_CODE,
    FILE,
    GENERAL,
    HEAD,
    INDEX,
    INDEX_WORDS,
    KINDS,
    MAX_EXTENSIONS_V1,
    POSITION,
    RECORD_WORDS_V1,
    SECTION_NAMES,
    SECTIONS,
    SPECTRO,
    SPECTRUM_KIND,
)
from gpucal.spectrum import Spectrum

MAX_SECTIONS = 64
MAX_CHANNELS = 2**28
_AGAIN = "Copy the file again."


def is_class_file(path: str | Path) -> bool:
    """True when the first four bytes are a file code of CLASS, in any version and byte order."""
    try:
        with open(path, "rb") as stream:
            code = stream.read(4)
    except OSError:
        return False
    return len(code) == 4 and code[:1] in KINDS and code[1:2] in b"AB " and code[2:] == b"  "


def open_class(path: str | Path, *, superseded: bool = False) -> ClassFile:
    """Open a CLASS file: only its index is read, values and headers follow when asked for.

    superseded: also the spectra that a later version replaces. Entries of one number that differ in
    source, line, telescope, scan, subscan, date or offset are no versions of each other, whatever CLASS
    made of the number: all are there.
    Raises ImportFormatError when it is missing, no CLASS file, in VAX format, truncated or corrupt.
    """
    path = Path(path)
    try:
        with open(path, "rb") as stream:
            return _read_index(path, stream, superseded)
    except OSError as error:
        raise ImportFormatError(
            f"{path} cannot be read ({error.strerror or error}), expected a CLASS file."
        ) from error


@dataclass(frozen=True, eq=False)
class ClassFile:
    """The spectra of a CLASS file, in the order of its index.

    path, version     the file; 1 or 2
    kind              "single", "multiple" (several versions of one spectrum may be there), "" in version 2
    byte_order        "<" or ">"
    index             structured [N], the index entries of the spectra, latest versions only
    n_other           entries that are no spectra (continuum drifts, skydips, ...), left out
    n_superseded      entries that a later version replaces, left out
    """

    path: Path
    version: int
    kind: str
    byte_order: Literal["<", ">"]
    record_bytes: int
    index: npt.NDArray[np.void] = field(repr=False)
    n_other: int = 0
    n_superseded: int = 0

    def __len__(self) -> int:
        return int(self.index.size)

    def __iter__(self) -> Iterator[Spectrum]:
        for i in range(len(self)):
            yield self[i]

    def __getitem__(self, i: int) -> Spectrum:
        """Spectrum ``i``, from 0; raises ImportFormatError when it is truncated or corrupt."""
        header, data = self._read(self._position(i), with_data=True)
        try:
            return to_spectrum(header, data)
        except ImportFormatError as error:
            raise ImportFormatError(f"{self.path}, spectrum {i}: {error.message}") from error

    def header(self, i: int) -> dict[str, Any]:
        """Index entry and header sections of spectrum ``i``: names as in CLASS, its units.

        MHz, km/s, rad, s, K, hPa, mm, m; ``sections`` lists the codes of all sections, known or not.
        """
        return self._read(self._position(i), with_data=False)[0]

    def _position(self, i: int) -> int:
        """Index from 0 of a spectrum, counted from the end when negative."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"{self.path} has {len(self)} spectra, there is no spectrum {i}")
        return i % len(self)

    def _read(self, i: int, *, with_data: bool) -> tuple[dict[str, Any], npt.NDArray[np.float32]]:
        try:
            with open(self.path, "rb") as stream:
                return self._read_entry(_Entry(stream, self, i), with_data)
        except OSError as error:
            raise ImportFormatError(
                f"{self.path} cannot be read ({error.strerror or error})."
            ) from error

    def _read_entry(
        self, entry: _Entry, with_data: bool
    ) -> tuple[dict[str, Any], npt.NDArray[np.float32]]:
        """Header sections that are known, and values f32 [C], which are empty unless ``with_data``."""
        head, table = entry.head(), entry.sections()
        header = _values(self.index[entry.i])
        for code in (GENERAL, POSITION, SPECTRO):
            if code not in table:
                raise entry.error(f"has no {SECTION_NAMES[code]} section.")
        for code, layouts in SECTIONS.items():
            if code not in table:
                continue
            length, address = table[code]
            if length in layouts:
                header |= entry.fields(address, layouts[length])
            elif code in (GENERAL, POSITION, SPECTRO):
                known = ", ".join(str(n) for n in sorted(layouts))
                raise entry.error(
                    f"has a {SECTION_NAMES[code]} section of {length} words, expected {known}.",
                    "Write the file with CLASS in the old format of observations (version 1).",
                )
        header["sections"] = list(table)
        nchan, ldata = header["nchan"], int(head["ldata"])
        if not 0 < nchan <= min(ldata, MAX_CHANNELS):
            raise entry.error(f"has {nchan} channels by its header and {ldata} values.")
        if not with_data:
            return header, np.empty(0, np.float32)
        return header, entry.words(int(head["adata"]), nchan, "f4")


class _Entry:
    """One observation of a file: every read is checked against the end of the file."""

    def __init__(self, stream: BinaryIO, file: ClassFile, i: int) -> None:
        self.stream, self.file, self.i = stream, file, i
        entry = file.index[i]
        word = int(entry["word"]) if file.version == 2 else 1
        self.start = (int(entry["bloc"]) - 1) * file.record_bytes + (word - 1) * 4
        self.size = os.fstat(stream.fileno()).st_size
        if int(entry["bloc"]) < 1 or word < 1:
            raise self.error(f"is said to be in record {int(entry['bloc'])}, word {word}.", _AGAIN)

    def error(self, text: str, hint: str = "") -> ImportFormatError:
        return ImportFormatError(f"{self.file.path}, spectrum {self.i}: it {text}", hint=hint)

    def words(self, address: int, count: int, kind: str | np.dtype[Any]) -> npt.NDArray[Any]:
        """``count`` items of a type from word ``address`` (from 1) of the observation."""
        dtype = np.dtype(kind).newbyteorder(self.file.byte_order)
        start = self.start + (address - 1) * 4
        end = start + count * dtype.itemsize
        if address < 1 or count < 0 or end > self.size:
            raise self.error(
                f"is truncated or corrupt: it needs the bytes {start} to {end} of a file of "
                f"{self.size}.",
                _AGAIN,
            )
        self.stream.seek(start)
        data = self.stream.read(end - start)
        if len(data) != end - start:
            raise self.error(f"is truncated at byte {start + len(data)}.", _AGAIN)
        return np.frombuffer(data, dtype)

    def head(self) -> Any:
        head = self.words(1, 1, HEAD[self.file.version])[0]
        if bytes(head["code"]) != ENTRY_CODE:
            raise self.error(
                f"starts with {bytes(head['code'])!r}, expected {ENTRY_CODE!r}.", _AGAIN
            )
        return head

    def sections(self) -> dict[int, tuple[int, int]]:
        """Section code -> (length, address) in words."""
        head = self.head()
        n, first = int(head["nsec"]), HEAD[self.file.version].itemsize // 4 + 1
        if not 0 < n <= MAX_SECTIONS:
            raise self.error(f"has {n} header sections, expected 1 to {MAX_SECTIONS}.", _AGAIN)
        wide = "i4" if self.file.version == 1 else "i8"
        codes = self.words(first, n, "i4")
        lengths = self.words(first + n, n, wide)
        addresses = self.words(first + n + n * np.dtype(wide).itemsize // 4, n, wide)
        data, end = int(head["adata"]), int(head["adata"]) + int(head["ldata"])
        table: dict[int, tuple[int, int]] = {}
        for code, length, address in zip(
            codes.tolist(), lengths.tolist(), addresses.tolist(), strict=True
        ):
            overlaps = length > 0 and address < end and address + length > data
            if length < 0 or address < first or overlaps or code in table:
                raise self.error(
                    f"has a wrong section table (section {code}, {length} words from word {address}, "
                    f"values from word {data}).",
                    _AGAIN,
                )
            table[code] = (length, address)
        return table

    def fields(self, address: int, layout: np.dtype[np.void]) -> dict[str, Any]:
        return _values(self.words(address, 1, layout)[0])


def _values(record: Any) -> dict[str, Any]:
    """A structured record as plain Python values."""
    out: dict[str, Any] = {}
    for name in record.dtype.names:
        value = record[name]
        if isinstance(value, bytes):
            out[name] = value.rstrip(b" \0").decode("ascii", "replace")
        elif isinstance(value, np.number):
            out[name] = value.item()
    return out


def _read_index(path: Path, stream: BinaryIO, superseded: bool) -> ClassFile:
    """Read file code, file descriptor and index; raises ImportFormatError for other or damaged files."""
    size = os.fstat(stream.fileno()).st_size
    code = stream.read(4)
    if len(code) < 4 or code[:1] not in KINDS or code[2:] != b"  " or code[1:2] not in b"AB ":
        raise ImportFormatError(
            f"{path} starts with {code!r}, expected the code of a CLASS file such as b'9A  '.",
            hint="Give a binary file of CLASS (.30m, .apex), not FITS or text.",
        )
    if code[1:2] not in BYTE_ORDERS:
        raise ImportFormatError(
            f"{path} holds VAX numbers (code {code!r}), expected IEEE.",
            hint="Copy it with CLASS on a current machine: file in, file out, find, copy.",
        )
    order, (version, kind) = BYTE_ORDERS[code[1:2]], KINDS[code[:1]]
    desc = _from(path, stream, 0, 1, FILE[version].newbyteorder(order), size)[0]
    n = int(desc["xnext"]) - 1
    where = _extensions(path, stream, desc, version, order)
    wanted = INDEX[version].newbyteorder(order)
    parts, left = [], n
    for start, entries, entry_bytes in where:
        take = min(left, entries)
        raw = _from(path, stream, start, take * entry_bytes, np.dtype(np.uint8), size)
        block = raw.reshape(take, entry_bytes)[:, : wanted.itemsize]
        parts.append(np.ascontiguousarray(block).view(wanted)[:, 0])
        left -= take
        if left == 0:
            break
    if n < 0 or left > 0:
        raise _corrupt(path, f"its index has room for {n - left} spectra, it speaks of {n}")
    index = np.concatenate(parts) if parts else np.empty(0, wanted)
    spectra = index["kind"] == SPECTRUM_KIND
    current = superseded | _current(index)
    reclen = RECORD_WORDS_V1 if version == 1 else int(desc["reclen"])
    return ClassFile(
        path=path,
        version=version,
        kind=kind,
        byte_order=order,
        record_bytes=4 * reclen,
        index=index[spectra & current],
        n_other=int((~spectra).sum()),
        n_superseded=int((spectra & ~current).sum()),
    )


_IDENTITY = ("num", "source", "line", "teles", "scan", "subscan", "dobs", "off1", "off2")


def _current(index: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
    """Which entries [N] no later version replaces; a replaced one has a negative version."""
    valid = np.asarray(index["ver"] >= 0)
    if valid.all():
        return valid
    latest = {tuple(row[name] for name in _IDENTITY) for row in index[valid]}
    for i in np.flatnonzero(~valid)[::-1].tolist():
        identity = tuple(index[i][name] for name in _IDENTITY)
        valid[i] = identity not in latest
        latest.add(identity)
    return valid


def _extensions(
    path: Path, stream: BinaryIO, desc: Any, version: int, order: Literal["<", ">"]
) -> list[tuple[int, int, int]]:
    """(first byte, entries, bytes per entry) of each index extension."""
    size = os.fstat(stream.fileno()).st_size
    nex, lex = int(desc["nex"]), int(desc["lex1"])
    if version == 1:
        reclen, lind, growth, most, wide = RECORD_WORDS_V1, INDEX_WORDS, 10, MAX_EXTENSIONS_V1, "i4"
    else:
        reclen, lind, growth = int(desc["reclen"]), int(desc["lind"]), int(desc["gex"])
        most, wide = (reclen - 14) // 2, "i8"
        if reclen < 64 or 4 * lind < INDEX[2].itemsize or int(desc["vind"]) < 2:
            raise _corrupt(path, f"its records have {reclen} words, its index entries {lind}")
    if growth not in (10, 20):
        raise _corrupt(path, f"its index grows by {growth / 10}, expected 1 or 2")
    if not 0 <= nex <= most or (nex > 0 and lex < 1) or (growth == 20 and nex > 40):
        raise _corrupt(path, f"its index has {nex} extensions of {lex} entries, at most {most} fit")
    start = FILE[version].itemsize
    addresses = _from(path, stream, start, nex, np.dtype(wide).newbyteorder(order), size)
    entries = [lex * (growth // 10) ** k for k in range(nex)]
    return [
        ((int(address) - 1) * reclen * 4, count, 4 * lind)
        for address, count in zip(addresses, entries, strict=True)
    ]


def _from(
    path: Path, stream: BinaryIO, start: int, count: int, dtype: np.dtype[Any], size: int
) -> npt.NDArray[Any]:
    """Numbers from a place of the file; raises ImportFormatError when they lie outside it."""
    end = start + count * dtype.itemsize
    if start < 0 or count < 0 or end > size:
        raise _corrupt(path, f"its index needs the bytes {start} to {end}, the file has {size}")
    stream.seek(start)
    data = stream.read(end - start)
    if len(data) != end - start:
        raise _corrupt(path, f"it ends at byte {start + len(data)}")
    return np.frombuffer(data, dtype)


def _corrupt(path: Path, text: str) -> ImportFormatError:
    return ImportFormatError(f"{path} is truncated or corrupt: {text}.", hint=_AGAIN)
