"""Lists of scan numbers as people write them."""

from __future__ import annotations

from collections.abc import Iterable

LONGEST_RANGE = 1_000_000
"""Numbers in one range of scans; a mistyped one must not fill the memory."""


def parse_scans(text: str) -> frozenset[int] | None:
    """Read ``"1,5-9"``; None means all scans."""
    if not text.strip():
        return None
    numbers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise ValueError(f"scans is {text!r}, expected numbers and ranges such as 1,5-9")
        lo, hi = int(first), int(last) if dash else int(first)
        if hi < lo:
            raise ValueError(f"scans holds the range {part.strip()!r}, which runs backwards")
        if hi - lo >= LONGEST_RANGE:
            raise ValueError(
                f"scans holds the range {part.strip()!r}, expected at most {LONGEST_RANGE} scans"
            )
        numbers.update(range(lo, hi + 1))
    return frozenset(numbers)


def runs_of(scans: Iterable[int]) -> list[str]:
    """The numbers, each once and in order, as ranges: ``["1-4", "7"]``."""
    runs: list[list[int]] = []
    for number in sorted(set(scans)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    return [f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs]


def scan_ranges(scans: Iterable[int]) -> str:
    """``"scan 3"`` or ``"scans 1-4, 7"``."""
    numbers = set(scans)
    return f"scan{'s' if len(numbers) > 1 else ''} {', '.join(runs_of(numbers))}"


def counted_scans(numbers: Iterable[int]) -> str:
    """How many, and the ranges, shortened in the middle: "3 scans: 1, 5-6"."""
    known = set(numbers)
    if not known:
        return "no scans"
    shown = runs_of(known)
    if len(shown) > 12:
        shown = [*shown[:6], "...", *shown[-5:]]
    return f"{len(known)} scan{'s' if len(known) > 1 else ''}: {', '.join(shown)}"
