"""The configuration of a backend: chunks of channels, which of them form a spectrum, and where they lie in a row.

Source: docs/reference/imbfits.md, the backend.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpucal.errors import ImportFormatError
from gpucal.io.imbfits.file import ImbFile
from gpucal.io.incoming.assumptions import Assumptions

CROSS = ("REAL", "IMAG")
"""POLAR of cross products, which are no spectra of the sky."""

_BAND = re.compile(r"^(?:E\d)?([HV])?([UL])([IO]|SB)?$")


@dataclass(frozen=True)
class Chunk:
    """A row of the backend's table.

    row        its number in the table; first: index of its first channel in the spectrum of DATA, from 0
    channels, dropped, used  channels in all, bad ones at the beginning, good ones after them
    reference, spacing  Hz: intermediate frequency of the reference channel, width of a channel with its sign
    """

    row: int
    part: int
    first: int
    channels: int
    dropped: int
    used: int
    receiver: str
    band: str
    polar: str
    pixel: int
    reference: float
    spacing: float
    line: str = ""

    @property
    def side(self) -> int:
        """+1 USB, -1 LSB, 0 where BAND does not tell."""
        match = _BAND.match(self.band.upper())
        return 0 if match is None else {"U": 1, "L": -1}[match[2]]


@dataclass(frozen=True, eq=False)
class BackendLayout:
    """All chunks but those of cross products, and how a row of DATA holds the pixels.

    pixels: numbers of all pixels; by_row: each row of DATA is of one pixel, in that order
    """

    chunks: tuple[Chunk, ...]
    pixels: tuple[int, ...]
    by_row: bool
    channels: int


def layout_of(file: ImbFile, assumed: Assumptions) -> BackendLayout:
    """The configuration; ImportFormatError where its channels do not add up to those of DATA."""
    rows = _rows(file)
    channels = _channels(file)
    pixels = tuple(dict.fromkeys(r.pixel for r in rows))
    total = sum(r.channels for r in rows)
    of_pixel = {p: sum(r.channels for r in rows if r.pixel == p) for p in pixels}
    by_row = False
    if total != channels:
        by_row = len(pixels) > 1 and set(of_pixel.values()) == {channels}
        if not by_row:
            each = ", ".join(f"{n} of pixel {p}" for p, n in of_pixel.items())
            raise ImportFormatError(
                f"{file.path}: a spectrum of DATA has {channels} channels (CHANNELS), but the chunks of the backend "
                f"have {total} in all ({each}); expected that one of both is {channels}.",
                hint="Is the backend's table cut short? Copy the file again.",
            )
    if len(pixels) > 1:
        how = "of one pixel, in the order of the backend's table" if by_row else "of all pixels"
        assumed.note("rows of DATA", how, f"{channels} channels are those of its chunks")
    groups = [[r for r in rows if r.pixel == p] for p in pixels] if by_row else [rows]
    placed = [chunk for group in groups for chunk in _placed(file, group, assumed)]
    good = tuple(c for c in placed if c.polar not in CROSS)
    if not good:
        raise ImportFormatError(f"{file.path} holds cross products alone (POLAR REAL, IMAG).")
    return BackendLayout(good, pixels, by_row, channels)


def _channels(file: ImbFile) -> int:
    """Channels in a row of DATA, the same in all subscans."""
    widths: dict[int, int] = {}
    for tables in file.subscans.values():
        unit = tables.data
        if unit is None:
            continue
        name = unit.has("DATA")
        if name is None:
            raise ImportFormatError(
                f"{unit.place} has no column DATA, but {', '.join(unit.columns) or 'none'}.",
                subscan=tables.number,
            )
        n = unit.columns.index(name) + 1
        if (unit.number(f"TSCAL{n}", 1.0), unit.number(f"TZERO{n}", 0.0)) != (1.0, 0.0):
            raise ImportFormatError(
                f"{unit.place}: DATA is scaled (TSCAL{n}, TZERO{n}), expected counts as they are.",
                subscan=tables.number,
            )
        shape = unit.dtype[name].shape
        width = int(np.prod(shape, dtype=np.int64)) if shape else 1
        told = int(unit.number("CHANNELS", width))
        if told != width:
            raise ImportFormatError(
                f"{unit.place}: CHANNELS is {told}, but a spectrum of DATA has {width}.",
                subscan=tables.number,
            )
        widths[width] = tables.number
    if len(widths) > 1:
        said = ", ".join(f"{w} in subscan {n}" for w, n in widths.items())
        raise ImportFormatError(
            f"{file.path}: the number of channels changes from subscan to subscan: {said}."
        )
    return next(iter(widths))


def _rows(file: ImbFile) -> list[Chunk]:
    unit = file.setup
    n = unit.rows
    if not n:
        raise ImportFormatError(f"{unit.place} has no row, expected the chunks of the backend.")
    part = _parts(file)
    chans = unit.numbers("CHANS")
    table: dict[str, Any] = {
        "channels": chans,
        "dropped": unit.numbers("DROPPED", default=0.0),
        "used": unit.numbers("USED", default=-1.0),
        "pixel": unit.numbers("PIXEL", default=1.0),
        "first": unit.numbers("REFCHAN") - 1.0,
        "reference": unit.decimals("REFFREQ") * 1e6,
        "spacing": unit.decimals("SPACING") * 1e6,
    }
    words = {
        "receiver": _texts(file, "RECEIVER", "REC1"),
        "band": _texts(file, "BAND", "REC2"),
        "polar": _texts(file, "POLAR", "POL"),
        "line": _texts(file, "LINENAME", "LINENAME"),
    }
    whole = ("channels", "dropped", "used", "pixel", "first")
    found = []
    for k in range(n):
        values = {m: float(v[k]) for m, v in table.items()}
        bad = [m for m, v in values.items() if not np.isfinite(v)]
        if bad:
            raise ImportFormatError(f"{unit.place}: row {k + 1} holds NaN ({', '.join(bad)}).")
        numbers: dict[str, Any] = {m: int(v) if m in whole else v for m, v in values.items()}
        if numbers["used"] < 0:
            numbers["used"] = numbers["channels"] - numbers["dropped"]
        texts: dict[str, Any] = {m: v[k] for m, v in words.items()}
        texts["polar"] = texts["polar"].upper()
        found.append(Chunk(row=k, part=part[k], **numbers, **texts))
    for chunk in found:
        _check(file, chunk)
    return found


def _parts(file: ImbFile) -> list[int]:
    """PART of each row, in version 1 also the numbers of a column BAND; words are counted in their order.

    Without either each row is a spectrum of its own.
    """
    unit = file.setup
    name = "PART" if unit.has("PART") else "BAND" if _band_is_a_number(file) else ""
    if not name:
        return list(range(1, unit.rows + 1))
    values = unit.column(name).ravel().tolist()
    if all(isinstance(v, int | float) for v in values):
        return [int(v) for v in values]
    if all(str(v).isdigit() for v in values):
        return [int(v) for v in values]
    order = {word: k + 1 for k, word in enumerate(dict.fromkeys(values))}
    return [order[v] for v in values]


def _band_is_a_number(file: ImbFile) -> bool:
    """Whether the column BAND of version 1 numbers the spectra."""
    unit = file.setup
    return file.version < 2.0 and bool(unit.has("BAND")) and unit.dtype["BAND"].kind in "iuf"


def _texts(file: ImbFile, name: str, old: str) -> list[str]:
    """A column of texts: in version 1 also under its old name; blank where there is none."""
    unit = file.setup
    names = (name, old) if file.version < 2.0 else (name,)
    if name == "BAND" and _band_is_a_number(file):
        names = (old,)
    if unit.has(*names) is None:
        if name == "RECEIVER":
            unit.column(*names)  # says what is there
        return [""] * unit.rows
    return [str(v) for v in unit.column(*names).ravel()]


def _check(file: ImbFile, chunk: Chunk) -> None:
    """Raise ImportFormatError for a chunk that cannot be."""
    where = f"{file.setup.place}: chunk {chunk.row + 1}"
    if chunk.channels < 1:
        raise ImportFormatError(f"{where} has CHANS = {chunk.channels}, expected at least 1.")
    end = chunk.dropped + chunk.used
    if chunk.dropped < 0 or chunk.used < 1 or end > chunk.channels:
        raise ImportFormatError(
            f"{where} drops {chunk.dropped} channels and uses {chunk.used} of {chunk.channels}, expected at least one "
            "and no more than there are (DROPPED, USED, CHANS).",
        )
    if chunk.spacing == 0.0 or abs(chunk.spacing) < 100.0:
        raise ImportFormatError(
            f"{where} has channels of SPACING = {chunk.spacing / 1e6:g}, expected MHz, not 0.",
        )


def _placed(file: ImbFile, rows: Sequence[Chunk], assumed: Assumptions) -> list[Chunk]:
    """The chunks of one spectrum of DATA with their first channels: as REFCHAN says, or one after the other.

    ImportFormatError where REFCHAN neither fills the spectrum nor is 1 everywhere.
    """
    running = np.cumsum([0, *(r.channels for r in rows)])[:-1].tolist()
    told = [r.first for r in rows]
    base = min(told)
    order = np.argsort(told, kind="stable")
    at = base
    fills = True
    for k in order.tolist():
        fills = fills and told[k] == at
        at = told[k] + rows[k].channels
    if fills:
        return [replace(r, first=r.first - base) for r in rows]
    if len(set(told)) == 1:
        why = f"REFCHAN is {told[0] + 1} in all rows"
        assumed.note("places of the chunks", "one after the other", why)
        return [replace(r, first=first) for r, first in zip(rows, running, strict=True)]
    wrong = next(k for k, (a, b) in enumerate(zip(told, running, strict=True)) if a != b)
    raise ImportFormatError(
        f"{file.setup.place}: chunk {rows[wrong].row + 1} begins at channel {told[wrong] + 1} (REFCHAN), expected "
        f"{running[wrong] + 1} after {running[wrong]} channels of the chunks before it.",
    )
