"""Words of CLASS files (GILDAS): file codes, index entries, entry descriptors, header sections.

Source: GILDAS documentation, "Internal CLASS Format" (file index; general, position, spectroscopic
sections with their versions) and the memo on the Classic Data Container; the calibration section as
APEX wrote it in 2010. A word has 4 bytes; addresses count from 1, in records and in words.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from gpucal.spectrum import Frame

RECORD_WORDS_V1 = 128
MAX_EXTENSIONS_V1 = 251
"""Addresses of index extensions that fit in the first two records."""
INDEX_WORDS = 32
CLASS_EPOCH = 60549
"""MJD of day 0 of CLASS dates."""
BAD = -1000.0
"""Blanking value that is written."""
SPECTRUM_KIND = 0
"""Index code of a spectrum; 1 is a continuum drift, others are skydips, on-offs, focus."""

ENTRY_CODE = b"2   "
BYTE_ORDERS: dict[bytes, Literal["<", ">"]] = {b"A": "<", b"B": ">"}
"""Second byte of the file code: A "IEEE" (little endian), B "EEEI" (big endian); blank is VAX."""
KINDS = {b"1": (1, "multiple"), b"9": (1, "single"), b"2": (2, "")}
"""First byte of the file code: version, and whether several versions of a spectrum may be there."""


def _words(text: str, *more: str) -> np.dtype[np.void]:
    """``"name:i4 ..."`` as a packed structured type; a name without type is f4."""
    pairs = (item.partition(":") for item in " ".join((text, *more)).split())
    return np.dtype([(name, kind or "f4") for name, _, kind in pairs])


FILE = {
    1: _words("code:S4 next:i4 lex1:i4 nex:i4 xnext:i4"),
    2: _words(
        "code:S4 reclen:i4 kind:i4 vind:i4 lind:i4 flags:i4 xnext:i8 nextrec:i8 nextword:i4",
        "lex1:i4 nex:i4 gex:i4",
    ),
}
"""File descriptor by version, before the addresses of the extensions: next free record, entries of
the first extension, extensions, next entry number, growth of the extensions in tenths."""
HEAD = {
    1: _words("code:S4 records:i4 words:i4 address:i4 adata:i4 ldata:i4 unused:i4 nsec:i4 xnum:i4"),
    2: _words("code:S4 version:i4 nsec:i4 words:i8 adata:i8 ldata:i8 xnum:i8"),
}
"""Entry descriptor by file version; codes, lengths and addresses of the sections follow."""

_WHAT = "source:S12 line:S12 teles:S12 dobs:i4 dred:i4 off1 off2 typec:i4 kind:i4 qual:i4"
INDEX = {
    1: _words("bloc:i4 num:i4 ver:i4", _WHAT, "scan:i4 posa subscan:i4 unused:V40"),
    2: _words("bloc:i8 word:i4 num:i8 ver:i4", _WHAT, "posa scan:i8 subscan:i4"),
}
"""Index entry by file version; later index versions only add words behind these."""

GENERAL, POSITION, SPECTRO, CALIBRATION = -2, -3, -4, -14
_GENERAL = "ut:f8 st:f8 az el tau tsys time"
_POSITION = "sourc:S12 epoch lam:f8 bet:f8 lamof betof proj:i4"
_SPECTRO = "line:S12 restf:f8 nchan:i4 rchan fres foff vres voff bad image:f8 vtype:i4"
_CALIBRATION = (
    "beeff foeff gaini h2omm pamb tamb tatms tchop tcold taus taui tatmi trec cmode:i4 atfac alti "
    "count_sky count_hot count_cold lcalof bcalof"
)
SECTIONS: dict[int, dict[int, np.dtype[np.void]]] = {
    GENERAL: {9: _words(_GENERAL), 11: _words(_GENERAL, "parang:f8")},
    POSITION: {
        11: _words(_POSITION),
        17: _words(_POSITION, "sl0p:f8 sb0p:f8 sk0p:f8"),
        14: _words("sourc:S12 system:i4 epoch proj:i4 lam:f8 bet:f8 projang:f8 lamof betof"),
    },
    SPECTRO: {
        15: _words(_SPECTRO),
        17: _words(_SPECTRO, "doppler:f8"),
        18: _words(_SPECTRO, "skyfr:f8 vteles"),
    },
    CALIBRATION: {21: _words(_CALIBRATION), 25: _words(_CALIBRATION, "geolong:f8 geolat:f8")},
}
"""Section code -> length in words -> fields. Units: MHz, km/s, rad, s, K, hPa, mm, Np, m, counts."""

SECTION_NAMES = {
    GENERAL: "general",
    POSITION: "position",
    SPECTRO: "spectroscopic",
    CALIBRATION: "calibration",
}

WRITTEN = ((GENERAL, 9), (POSITION, 17), (SPECTRO, 17), (CALIBRATION, 25))
"""Sections of a written spectrum. Calibration stays last: read_class of pyspeckit takes that section
for one word longer and the data for one word earlier than they are, which cancels only then."""
FIRST_SECTION = 55
"""First word of the sections: CLASS leaves room for 15 section addresses."""

FRAMES: dict[int, Frame] = {0: "", 1: "LSRK", 2: "HELIOCEN", 3: "TOPOCENT", 4: "GEOCENTR"}
"""CLASS code of the velocity frame, 4 the Earth; 5 (automatic) says nothing."""
TYPE_UNKNOWN, TYPE_EQUATORIAL = 1, 2
PROJECTION_RADIO = 7


def written_entry() -> np.dtype[np.void]:
    """Everything of a written spectrum before its values, little endian, 122 words.

    Words 1..9 the descriptor, then codes, lengths, addresses of the sections, then the sections.
    """
    n = len(WRITTEN)
    room = FIRST_SECTION - 1 - HEAD[1].itemsize // 4 - 3 * n
    tables = [("codes", "i4", (n,)), ("lengths", "i4", (n,)), ("addresses", "i4", (n,))]
    sections = [(SECTION_NAMES[code], SECTIONS[code][length]) for code, length in WRITTEN]
    entry = np.dtype([("head", HEAD[1]), *tables, ("room", "i4", (room,)), *sections])
    return entry.newbyteorder("<")
