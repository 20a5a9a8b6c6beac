"""CLASS files that the writer does not make: big endian, version 2, other kinds of entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpucal import Spectrum
from gpucal.io.gildas import words
from gpucal.io.gildas.spectrum import blanked, index_fields, section_fields


def fill(dtype: np.dtype[Any], fields: Mapping[str, Any]) -> Any:
    record = np.zeros((), dtype.newbyteorder("<"))
    for key, value in fields.items():
        record[key] = value
    return record


def swapped(raw: bytes, dtype: np.dtype[Any]) -> bytes:
    """The same numbers in big endian; characters stay as they are."""
    little = np.frombuffer(raw, dtype.newbyteorder("<"))
    return little.astype(dtype.newbyteorder(">")).tobytes()


def big_endian(raw: bytes, code: bytes) -> bytes:
    """A file of ``write_class`` with the other byte order."""
    out = bytearray(raw)
    head = np.frombuffer(raw, words.FILE[1].newbyteorder("<"), 1)[0]
    n, nex, lex = int(head["xnext"]) - 1, int(head["nex"]), int(head["lex1"])
    size = words.FILE[1].itemsize
    addresses = np.frombuffer(raw, "<i4", nex, size)
    out[:size] = code + swapped(raw[:size], words.FILE[1])[4:]
    out[size : size + 4 * nex] = addresses.astype(">i4").tobytes()
    entry_type = words.written_entry()
    for k, address in enumerate(addresses):
        start, count = (int(address) - 1) * 512, min(lex, n - k * lex)
        stop = start + count * words.INDEX[1].itemsize
        index = np.frombuffer(raw[start:stop], words.INDEX[1].newbyteorder("<"))
        out[start:stop] = swapped(raw[start:stop], words.INDEX[1])
        for record in index["bloc"].tolist():
            first = (record - 1) * 512
            middle = first + entry_type.itemsize
            nchan = int(np.frombuffer(raw[first:middle], entry_type)[0]["spectroscopic"]["nchan"])
            out[first:middle] = swapped(raw[first:middle], entry_type)
            last = middle + 4 * nchan
            out[middle:last] = swapped(raw[middle:last], np.dtype("f4"))
    return bytes(out)


def write_v2(
    path: Path, spectra: Sequence[Spectrum], *, growth: int = 20, first: int = 2, reclen: int = 1024
) -> None:
    """A version 2 file: entries packed into the records, index extensions that grow."""
    entries, starts = bytearray(), []
    lengths = [length for _, length in words.WRITTEN]
    sections = words.HEAD[2].itemsize // 4 + 5 * len(lengths) + 1
    data = sections + sum(lengths)
    for number, s in enumerate(spectra, 1):
        starts.append(reclen + len(entries) // 4)
        fields, values = section_fields(s), blanked(s.values)
        head = {"code": words.ENTRY_CODE, "version": 1, "nsec": len(lengths), "xnum": number}
        head |= {"words": data - 1 + values.size, "adata": data, "ldata": values.size}
        entries += fill(words.HEAD[2], head).tobytes()
        entries += np.array([code for code, _ in words.WRITTEN], "<i4").tobytes()
        entries += np.array(lengths, "<i8").tobytes()
        entries += (sections + np.cumsum([0, *lengths[:-1]])).astype("<i8").tobytes()
        for code, length in words.WRITTEN:
            entries += fill(
                words.SECTIONS[code][length], fields[words.SECTION_NAMES[code]]
            ).tobytes()
        entries += values.tobytes()
    entries += bytes(-len(entries) % (4 * reclen))
    lind, room, nex = 32, 0, 0
    addresses, index, record = [], bytearray(), 2 + len(entries) // (4 * reclen)
    while room < len(starts):
        count = first * (growth // 10) ** nex
        part = bytearray()
        for i in range(room, min(room + count, len(starts))):
            place = {"bloc": starts[i] // reclen + 1, "word": starts[i] % reclen + 1}
            row = fill(words.INDEX[2], index_fields(spectra[i], i + 1, 0) | place)
            part += row.tobytes().ljust(4 * lind, b"\0")
        part = part.ljust(-(-4 * lind * count // (4 * reclen)) * 4 * reclen, b"\0")
        addresses.append(record)
        record += len(part) // (4 * reclen)
        index, room, nex = index + part, room + count, nex + 1
    desc = {"code": b"2A  ", "reclen": reclen, "kind": 1, "vind": 2, "lind": lind, "flags": 1}
    desc |= {"xnext": len(starts) + 1, "nextrec": record, "nextword": 1, "lex1": first}
    top = fill(words.FILE[2], desc | {"nex": nex, "gex": growth}).tobytes()
    top += np.array(addresses, "<i8").tobytes()
    path.write_bytes(top.ljust(4 * reclen, b"\0") + entries + index)
