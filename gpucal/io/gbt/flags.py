"""Flag files of the GBT (``.flag`` beside an SDFITS file): which channels of which rows are bad.

Format: GBTIDL and sdfits, also read by dysh. After a line ``[flags]`` one rule per line, columns
separated by ``|``: RECNUM, SCAN, INTNUM, PLNUM, IFNUM, FDNUM, BCHAN, ECHAN, IDSTRING, or in the
order that a comment names. All numbers
count from 0. ``*`` is all; else a list such as ``3,7:9``, ranges with both ends, ``7:`` and ``:9``
open. BCHAN and ECHAN are lists of the first and last channels of ranges, ``*`` is the end of the
spectrum.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gpucal.errors import ImportFormatError

I64 = npt.NDArray[np.int64]

COLUMNS = ("RECNUM", "SCAN", "INTNUM", "PLNUM", "IFNUM", "FDNUM", "BCHAN", "ECHAN", "IDSTRING")
_SELECTING = COLUMNS[:6]
_LAST = 1 << 40
"""More than any number in these columns."""

Spans = tuple[tuple[int, int], ...]
"""Ranges of numbers, both ends included."""


@dataclass(frozen=True)
class FlagRule:
    """One line of a flag file.

    select    column -> ranges of numbers it may have; columns that may have any are left out
    channels  ranges of channels that are bad
    reason    IDSTRING
    """

    select: Mapping[str, Spans]
    channels: Spans
    reason: str

    def rows(self, numbers: Mapping[str, I64]) -> npt.NDArray[np.bool_]:
        """Which rows [N] the rule means; numbers: column -> i64 [N]."""
        chosen = np.ones(len(next(iter(numbers.values()))), dtype=bool)
        for name, spans in self.select.items():
            values = numbers[name]
            chosen &= np.logical_or.reduce([(values >= a) & (values <= b) for a, b in spans])
        return chosen


def read_flags(path: Path) -> list[FlagRule]:
    """The rules of a flag file; ImportFormatError names the line that cannot be understood."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise ImportFormatError(f"{path} cannot be read: {error.strerror or error}.") from error
    if "[flags]" not in (line.strip() for line in lines):
        raise ImportFormatError(
            f"{path} has no line [flags], expected a GBTIDL flag file.",
            hint="Use --no-flags to import without it.",
        )
    rules = []
    begun = False
    columns: tuple[str, ...] = COLUMNS
    for number, line in enumerate((x.strip() for x in lines), 1):
        if line == "[flags]":
            begun = True
        elif begun and line.startswith("#"):
            columns = _columns(line[1:], f"{path}, line {number}") or columns
        elif begun and line:
            rules.append(_rule(line, columns, f"{path}, line {number}"))
    return rules


def _columns(text: str, place: str) -> tuple[str, ...] | None:
    """The order of the columns that a comment names; None for another comment, a rule switched off."""
    names = tuple(name.strip().upper() for name in re.split(r"[,|]", text))
    if not set(names) & set(COLUMNS):
        return None
    if sorted(names) != sorted(COLUMNS):
        raise ImportFormatError(
            f"{place}: the columns are {', '.join(names)}, expected {', '.join(COLUMNS)}.",
            hint="Use --no-flags to import without it.",
        )
    return names


def _rule(line: str, columns: Sequence[str], place: str) -> FlagRule:
    """One line of a flag file; ``columns``: their names in its order."""
    cells = [cell.strip() for cell in line.split("|", len(COLUMNS) - 1)]
    if len(cells) != len(COLUMNS):
        raise ImportFormatError(
            f"{place} has {len(cells)} columns, expected {len(COLUMNS)} separated by |.",
            hint="Use --no-flags to import without it.",
        )
    named = dict(zip(columns, cells, strict=True))
    cells = [named[name] for name in COLUMNS]
    try:
        given = zip(_SELECTING, cells, strict=False)
        select = {name: _spans(cell) for name, cell in given if cell != "*"}
        return FlagRule(select, _channels(cells[6], cells[7]), cells[8])
    except ValueError as error:
        raise ImportFormatError(
            f"{place} cannot be understood ({error}), expected numbers, lists or ranges such as "
            "3,7:9, or *.",
            hint="Use --no-flags to import without it.",
        ) from error


def _spans(cell: str) -> Spans:
    """Ranges of one cell, "1:3,7" -> ((1, 3), (7, 7)); an open end reaches as far as it goes."""
    spans = []
    for part in cell.split(","):
        first, colon, last = part.partition(":")
        low = _number(first) if first.strip() or not colon else 0
        high = low if not colon else (_number(last) if last.strip() else _LAST)
        spans.append((low, high))
    return tuple(spans)


def _number(text: str) -> int:
    value = float(text)
    if value != int(value) or value < 0:
        raise ValueError(f"{text.strip()!r} is no number from 0 on")
    return int(value)


def _channels(first: str, last: str) -> Spans:
    begin = None if first == "*" else [_number(x) for x in first.split(",")]
    end = None if last == "*" else [_number(x) for x in last.split(",")]
    begin = begin or [0] * len(end or [0])
    end = end or [_LAST] * len(begin)
    if len(begin) != len(end):
        raise ValueError(f"{len(begin)} first and {len(end)} last channels")
    return tuple(zip(begin, end, strict=True))


def flag_file(path: Path) -> Path:
    """Where the flags of an SDFITS file are: the same name that ends in .flag (x.fits.gz: x.flag)."""
    plain = path.with_suffix("") if path.suffix.lower() in (".gz", ".bz2", ".xz") else path
    return plain.with_suffix(".flag")


def integration_numbers(columns: Mapping[str, npt.NDArray[np.generic]]) -> I64:
    """INTNUM [N]: the rank in time among the rows of the same spectrometer output in a scan.

    columns: SCAN, IFNUM, PLNUM, FDNUM, SIG, CAL and MJD, each [N].
    """
    n_rows = len(columns["SCAN"])
    keys = [np.unique(columns[k], return_inverse=True)[1] for k in _SAME_OUTPUT]
    order = np.lexsort((columns["MJD"], *keys))
    same = np.ones(n_rows, dtype=bool)
    for key in keys:
        same[1:] &= np.diff(key[order]) == 0
    same[:1] = False
    position = np.arange(n_rows)
    start = np.maximum.accumulate(np.where(same, 0, position))
    numbers = np.empty(n_rows, dtype=np.int64)
    numbers[order] = position - start
    return numbers


_SAME_OUTPUT = ("CAL", "SIG", "FDNUM", "PLNUM", "IFNUM", "SCAN")


def flagged_channels(
    files: Sequence[tuple[Path, I64]], columns: Mapping[str, npt.NDArray[np.generic]]
) -> tuple[dict[int, list[tuple[int, int]]], list[Path]]:
    """Bad channel ranges of the rows of a night, from the flag files that are there.

    files: each SDFITS file with the indices of its rows, in its order; columns: as
    ``integration_numbers``, each [N]. Returns row -> ranges (both ends included), and the flag
    files used.
    """
    intnum = integration_numbers(columns)
    found: dict[int, list[tuple[int, int]]] = {}
    used = []
    for path, index in files:
        beside = flag_file(path)
        if not beside.is_file():
            continue
        used.append(beside)
        numbers = {k: np.asarray(columns[k][index], dtype=np.int64) for k in _SELECTING[3:]}
        numbers |= {
            "RECNUM": np.arange(index.size),
            "SCAN": np.asarray(columns["SCAN"][index], dtype=np.int64),
            "INTNUM": intnum[index],
        }
        for rule in read_flags(beside):
            for row in index[rule.rows(numbers)].tolist():
                found.setdefault(row, []).extend(rule.channels)
    return found, used
