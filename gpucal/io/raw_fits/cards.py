"""Header cards of raw scans as FITS, and the small tables: attributes, arrays, track.

Shapes use R receivers, S subscans. The layout is described in docs/reference/raw_fits.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpucal.errors import L0Error
from gpucal.io.l0.schema import is_bolometer
from gpucal.io.raw_fits.layout import (
    ARRAYS,
    FORMAT,
    NODES,
    TRACK,
    VERSION,
    Column,
    Node,
    array_columns,
    encode,
    extension_name,
    split_text,
    table_cards,
)
from gpucal.scan import SubscanGroup
from gpucal.version import __version__

Cards = list[tuple[str, Any, str]]
"""(keyword, value, comment) of each card."""

JSON_WIDTH = 2000
MOST_RECEIVERS = 99

_PRIMARY = (
    ("OBJECT", "source", "source"),
    ("LINE", "line", "line"),
    ("RESTFRQ", "rest_freq_hz", "Hz, rest frequency"),
    ("DATE-OBS", "date_obs", "UTC"),
    ("PROJID", "project", "project"),
    ("OBSPROC", "obs_procedure", "observing procedure"),
    ("INSTMODE", "instmode", "mode of the instrument"),
    ("F_EFF", "f_eff", "forward efficiency"),
)
"""Keyword, attribute of the scan, comment; all attributes are in the NODES table as well."""


def header_bytes(cards: Cards) -> bytes:
    """A FITS header of these cards, padded; long texts go on in CONTINUE cards."""
    from astropy.io import fits

    # A comment has room beside a short text only.
    header = fits.Header(
        [
            fits.Card(
                key, _plain(value), "" if isinstance(value, str) and len(value) > 20 else text
            )
            for key, value, text in cards
        ]
    )
    return str(header.tostring(sep="", endcard=True, padding=True)).encode("ascii")


def _plain(value: Any) -> Any:
    """A header value: text without what FITS does not know."""
    if isinstance(value, str):
        return "".join(c if " " <= c <= "~" else "?" for c in value)
    return value


def primary_cards(
    store_attrs: Mapping[str, Any], number: int, nodes: Sequence[Node], digest: str, n_tables: int
) -> Cards:
    """Cards of the primary header; digest: of the nodes; n_tables: how many tables follow."""
    attrs = next(n.about["attributes"] for n in nodes if not n.path)
    site = store_attrs.get("site") or {}
    cards: Cards = [
        ("SIMPLE", True, ""),
        ("BITPIX", 8, ""),
        ("NAXIS", 0, ""),
        ("EXTEND", True, ""),
        ("FILEFMT", FORMAT, "kind of file"),
        ("FMTVERS", VERSION, "version of its layout"),
        ("CREATOR", f"gpucal {__version__}", ""),
        ("NTABLES", n_tables, "tables that follow"),
        ("SCAN", number, "scan number"),
        ("OBSCLASS", "bolometer" if is_bolometer(attrs) else "heterodyne", ""),
    ]
    values = [
        ("TELESCOP", store_attrs.get("telescope"), ""),
        ("INSTRUME", store_attrs.get("instrument"), ""),
        ("SITELAT", site.get("lat_deg"), "deg"),
        ("SITELONG", site.get("lon_deg"), "deg"),
        ("SITEELEV", site.get("alt_m"), "m"),
        *((key, attrs.get(name), comment) for key, name, comment in _PRIMARY),
    ]
    cards += [card for card in values if _fits_card(card[1])]
    return [*cards, ("L0SHA256", digest, "of the metadata")]


def _fits_card(value: Any) -> bool:
    """Whether FITS can hold the value in a card: FITS has no NaN and no lists."""
    if isinstance(value, float):
        return bool(np.isfinite(value))
    return isinstance(value, bool | int | str)


def role_cards(group: str, role: str, version: int = 1) -> Cards:
    """Cards that say what a table holds and of which group."""
    return [
        ("EXTNAME", extension_name(group, role), ""),
        ("EXTVER", version, ""),
        ("ROLE", role, "what the table holds"),
        ("GROUP", group, "group of the L0 scan"),
    ]


def nodes_table(store_attrs: Mapping[str, Any], nodes: Sequence[Node]) -> tuple[Cards, bytes]:
    """Attributes and the description of every array; the node "/" holds those of the store."""
    root = Node("/", {"kind": "group", "attributes": dict(store_attrs)})
    texts = [(n.path, piece) for n in (root, *nodes) for piece in split_text(n.text(), JSON_WIDTH)]
    names = [_plain(path).encode("ascii") for path, _ in texts]
    first = [i == 0 or texts[i][0] != texts[i - 1][0] for i in range(len(texts))]
    widths = [max(4, -(-max(map(len, x)) // 4) * 4) for x in (names, [t for _, t in texts])]
    columns = [
        Column("PATH", "text", (widths[0],)),
        Column("FIRST", "int32"),
        Column("JSON", "text", (widths[1],)),
    ]
    rows = zip(names, first, texts, strict=True)
    data = b"".join(
        name.ljust(widths[0], b"\0")
        + int(begins).to_bytes(4, "big")
        + text.encode("ascii").ljust(widths[1], b"\0")
        for name, begins, (_, text) in rows
    )
    return [*table_cards(columns, len(texts)), *role_cards("", NODES)], data


def arrays_table(group: str, nodes: Sequence[Node]) -> tuple[Cards, bytes]:
    """All small arrays of a group, whole, in one row."""
    columns = array_columns(nodes)
    data = b"".join(encode(n.values).tobytes() for n in nodes if n.values is not None)
    return [*table_cards(columns, 1), *role_cards(group, ARRAYS)], data


def track_table(group: str, nodes: Sequence[Node]) -> tuple[Cards, bytes]:
    """One row per sample of the telescope's track."""
    columns = [Column(c.name, c.dtype, (), c.unit) for c in array_columns(nodes)]
    size = {n.values.size for n in nodes if n.values is not None}
    if len(size) > 1:
        raise L0Error(f"the track arrays have {sorted(size)} samples, expected as many in each.")
    parts = [
        encode(n.values).view(np.uint8).reshape(n.values.size, -1)
        for n in nodes
        if n.values is not None
    ]
    n_rows = size.pop()
    data = np.concatenate(parts, axis=1).tobytes()
    return [*table_cards(columns, n_rows), *role_cards(group, TRACK)], data


def subscan_cards(group: SubscanGroup, s: int, n: int, names: frozenset[str]) -> Cards:
    """Keywords of one subscan, for people and other programs; the number in a name counts receivers.

    n: the column of the counts, from 1; names: the arrays that the group holds.
    """
    cards: Cards = [
        ("SUBSCAN", s, "index in the L0 scan, from 0"),
        ("SOBSMODE", group.sobsmode[s], "observing mode"),
        ("TAMBIENT", group.tamb[s], "K"),
        ("PRESSURE", group.pamb[s], "Torr"),
        ("LOADSCAN", int(group.lloadsn[s]), "scan number of the loads, -1 none"),
        (f"1CTYP{n}", "PIXEL", ""),
        (f"2CTYP{n}", "RECEIVER", ""),
        (f"3CTYP{n}", "FREQ", "signal sideband of the first receiver"),
        (f"3CUNI{n}", "Hz", ""),
        (f"3CRVL{n}", group.signal_freq[0, s], ""),
        (f"3CDLT{n}", group.freq_res[0, s], ""),
        (f"3CRPX{n}", group.ref_channel[0, s] + 1.0, "channels counted from 1"),
    ]
    if group.counts.dtype == np.int32:
        cards.append((f"TNULL{n}", -(1 << 31), "no data"))
    for r in range(min(group.shape[2], MOST_RECEIVERS)):
        per_receiver = [
            ("SIGFRQ", "signal_freq", "Hz at the reference channel"),
            ("IMGFRQ", "image_freq", "Hz at the reference channel"),
            ("FRQRES", "freq_res", "Hz per channel"),
            ("REFCHN", "ref_channel", "reference channel, from 0"),
            ("THOT", "thot", "K, hot load"),
            ("TCOLD", "tcold", "K, cold load"),
        ]
        cards += [
            (f"{k}{r + 1}", getattr(group, name)[r, s], text)
            for k, name, text in per_receiver
            if name in names
        ]
    if not np.isfinite(group.signal_freq[0, s]):
        cards = [card for card in cards if not card[0].startswith("3C")]
    plain = [(k, v.item() if isinstance(v, np.generic) else v, t) for k, v, t in cards]
    return [card for card in plain if _fits_card(card[1])]
