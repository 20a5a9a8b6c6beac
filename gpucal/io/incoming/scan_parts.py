"""What a scan of several bands becomes, and how it is read again when it is written.

Planning reads headers and times alone and forgets them: a folder of a year fits into memory.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from gpucal.errors import GpucalWarning, ImportFormatError
from gpucal.io.incoming.assumptions import Assumptions
from gpucal.io.incoming.landing import is_same, writer_of
from gpucal.io.incoming.protocol import (
    Lost,
    PlannedBand,
    PlannedScan,
    ScanContent,
    nbytes_of,
    planned_band,
)
from gpucal.io.l0.write import GroupArrays

Groups = dict[str, dict[str, GroupArrays]]


@dataclass(eq=False)
class ScanParts:
    """All that a scan becomes: groups and attributes of its bands, what was lost and remarked."""

    groups: Groups = field(default_factory=dict)
    band_attrs: dict[str, dict[str, Any]] = field(default_factory=dict)
    attrs: dict[str, Any] = field(default_factory=dict)
    backends: dict[str, str] = field(default_factory=dict)
    kind: str = ""
    problems: list[str] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)

    def close(self) -> None:
        """Let go of the files."""

    def bands(self) -> tuple[PlannedBand, ...]:
        """The bands as a plan shows them."""
        return tuple(
            replace(planned_band(name, members), backend=self.backends[name])
            for name, members in self.groups.items()
        )

    def shapes(self) -> dict[str, list[tuple[int, ...]]]:
        """Of the groups of each band, by which a file that changed is known."""
        return {name: [g.shape for g in m.values()] for name, m in self.groups.items()}

    def content(self, attrs: Mapping[str, Any]) -> ScanContent:
        """What is written: ``attrs``, what all bands have in common, and the bands."""
        first, *others = self.band_attrs.values()
        common = {k: v for k, v in first.items() if all(o.get(k) == v for o in others)}
        return ScanContent({**attrs, **common}, self.groups, self.band_attrs)


Reader = Callable[[], ScanParts]


class Numbered(Protocol):
    """A scan with the telescope's number, and its number in the store."""

    @property
    def scan(self) -> int: ...

    @property
    def number(self) -> int: ...


S = TypeVar("S", bound=Numbered)


def chosen_scans(
    night: Sequence[S], wanted: Collection[int] | None, lost: Sequence[Lost]
) -> Sequence[S]:
    """The scans asked for, by the telescope's number or by the one in the store.

    Raises ImportFormatError where none of them is there, nor among those ``lost``.
    """
    if wanted is None:
        return night
    chosen = [s for s in night if s.scan in wanted or s.number in wanted]
    if not chosen and not any(one.scan in wanted for one in lost):
        there = ", ".join(str(s.number) for s in night[:8]) or "none"
        raise ImportFormatError(f"none of the scans asked for is in the files, which hold {there}.")
    return chosen


def read_quietly(read: Reader) -> ScanParts:
    """The parts of a scan, without the warnings that planning gave before."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GpucalWarning)
        return read()


def planned_scan(
    number: int, origin: str, parts: ScanParts, read: Reader, assumed: Assumptions, identity: str
) -> PlannedScan:
    """The plan of a scan from its ``parts``, which are not kept: ``read`` makes them again to write it."""
    return PlannedScan(
        number,
        _writer(number, origin, parts, read, assumed, identity),
        parts.bands(),
        kind=parts.kind,
        source=str(parts.attrs.get("source", "")),
        origin=origin,
        nbytes=sum(nbytes_of(g) for m in parts.groups.values() for g in m.values()),
        problems=tuple(parts.problems),
        same_as=is_same(identity),
    )


def _writer(
    number: int, origin: str, planned: ScanParts, read: Reader, assumed: Assumptions, identity: str
) -> Any:
    """The ``write`` of a scan; ImportFormatError where its files are no longer those that were planned."""
    attrs, expected = dict(planned.attrs), planned.shapes()
    again: list[ScanParts] = []

    def content() -> ScanContent:
        parts = read_quietly(read)
        again.append(parts)
        if parts.shapes() != expected:
            raise ImportFormatError(
                f"{origin} has changed since the import began.", hint="Import again."
            )
        return parts.content(attrs)

    def done() -> None:
        for parts in again:
            parts.close()
        again.clear()

    return writer_of(number, content, identity=identity, assumptions=assumed, done=done)
