"""A first look at a file: name, size, the first bytes, and the FITS cards in them."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

HEAD_BYTES = 32 << 10
"""Enough for the primary header of a FITS file and that of the first extension, a table of a hundred columns."""

_CARD, _BLOCK = 80, 2880
_PACKED = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open))
_KNOWN = (
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x9d", "a file of compress (.Z)"),
    (b"\x28\xb5\x2f\xfd", "a file compressed with zstd"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"\x89HDF", "an HDF5 file"),
    (b"CDF", "a netCDF file"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a picture"),
    *((f"{n}{letter}  ".encode(), "a CLASS file") for n in "129" for letter in "AB"),
)


@dataclass(frozen=True)
class Glimpse:
    """The first bytes of a file, unpacked where it is compressed; ``trouble``: why it cannot be read."""

    path: Path
    size: int = 0
    head: bytes = field(default=b"", repr=False)
    trouble: str = ""

    @cached_property
    def units(self) -> tuple[dict[str, str], ...]:
        """Keyword -> value as text of the header of the primary unit, and of the next as far as it is in sight.

        Quotes and comments are gone; () when it is no FITS file.
        """
        if not self.head.startswith(b"SIMPLE  ="):
            return ()
        primary, end = _cards(self.head, 0)
        found = [primary]
        empty = primary.get("NAXIS", "0").strip() == "0"
        if end is not None and empty and self.head[end : end + 8] == b"XTENSION":
            found.append(_cards(self.head, end)[0])
        return tuple(found)

    @property
    def cards(self) -> dict[str, str]:
        """Those of the primary header; {} when it is no FITS file."""
        return self.units[0] if self.units else {}

    @property
    def extension(self) -> dict[str, str]:
        """Those of the first extension; {} when there is none in sight."""
        return self.units[1] if len(self.units) > 1 else {}

    def words(self) -> str:
        """What the file looks like, for a message: "a FITS file of INSTRUME = 'X', first table Y"."""
        if self.trouble:
            return f"unreadable ({self.trouble})"
        if not self.size:
            return "empty"
        for magic, what in _KNOWN:
            if self.head.startswith(magic):
                return what
        if self.units:
            said = [f"{k} = {v!r}" for k in ("TELESCOP", "INSTRUME") if (v := self.cards.get(k))]
            first = self.extension.get("EXTNAME")
            said += [f"first table {first}"] if first else []
            return "a FITS file" + (f" ({', '.join(said)})" if said else "")
        if b"\0" not in self.head:
            with contextlib.suppress(UnicodeDecodeError):
                line = self.head[:60].decode("utf-8").splitlines()
                return f"a text that begins {line[0]!r}" if line else "a text"
        return f"of unknown kind (it begins {self.head[:8]!r})"


def glimpse(path: Path) -> Glimpse:
    """Look at the first bytes of a file; never raises."""
    try:
        size = path.stat().st_size
        with open(path, "rb") as stream:
            head = stream.read(HEAD_BYTES)
    except OSError as error:
        return Glimpse(path, trouble=error.strerror or str(error))
    for magic, opened in _PACKED:
        if head.startswith(magic):
            try:
                with opened(path, "rb") as packed:
                    return Glimpse(path, size, packed.read(HEAD_BYTES))
            except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
                return Glimpse(path, size, head, f"its compression is damaged: {error}")
    return Glimpse(path, size, head)


def _cards(head: bytes, start: int) -> tuple[dict[str, str], int | None]:
    """The cards of a header, and where its data begin; None when its end is out of sight."""
    found: dict[str, str] = {}
    for at in range(start, len(head) - _CARD + 1, _CARD):
        card = head[at : at + _CARD].decode("latin-1")
        if card.rstrip() == "END":
            return found, start + -(-(at + _CARD - start) // _BLOCK) * _BLOCK
        if card[8:10] == "= ":
            value = card[10:].strip()
            if value.startswith("'"):
                value = value[1:].replace("''", "\0").partition("'")[0].replace("\0", "'")
            else:
                value = value.partition("/")[0]
            found[card[:8].strip()] = value.strip()
    return found, None
