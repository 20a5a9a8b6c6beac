"""Scans of raw FITS files that have one number: the same scan twice, or two that time tells apart."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from gpucal.errors import GpucalError, GpucalWarning, ImportFormatError
from gpucal.io.gbt.observations import REPEAT_STEP
from gpucal.io.raw_fits.layout import Node, nodes_digest
from gpucal.io.raw_fits.reader import RawFits

Repeats = dict[int, list[RawFits]]
"""Number -> its scans, where there are several, in order of time."""


def told_apart(scans: Sequence[RawFits], lost: list[GpucalError]) -> list[RawFits]:
    """The scans, each once and each with a number of its own.

    The later one of two scans of a number gets 100000 more; the entries of lloadsn that name the number
    become those of the nearest earlier scan of it, else of the first. Scans of a number that their
    times do not tell apart are added to ``lost``.
    """
    groups: Repeats = {}
    for scan in scans:
        mine = groups.setdefault(scan.number, [])
        if all(scan.digest != other.digest for other in mine):
            mine.append(scan)
        else:
            _warn(f"scan {scan.number}: {scan.path} holds it once more: it is taken once.")
    repeated: Repeats = {}
    for number, mine in groups.items():
        if len(mine) == 1:
            continue
        begin = [begin_of(scan) for scan in mine]
        if len(set(begin)) < len(mine) or not np.isfinite(begin).all():
            names = " and ".join(str(scan.path) for scan in mine)
            error = ImportFormatError(
                f"{names} hold different scans of this number, and their times do not tell them apart.",
                hint="Import them into two stores.",
                scan=number,
            )
            lost.append(error)
            mine.clear()
            continue
        repeated[number] = sorted(mine, key=begin_of)
    kept = [scan for mine in groups.values() for scan in mine]
    for scan in kept:
        _follow(scan, repeated)
    for number, mine in repeated.items():
        for k, scan in enumerate(mine[1:], 1):
            _renumber(scan, number + k * REPEAT_STEP)
            _warn(
                f"scan number {number} comes again in {scan.path}: that scan is {scan.number} here."
            )
    return sorted(kept, key=lambda scan: scan.number)


def begin_of(scan: RawFits) -> float:
    """MJD of the first subscan; NaN when no time is known."""
    times = [n.values for n in scan.nodes if n.name == "mjd" and n.values is not None]
    finite = [t[np.isfinite(t)] for t in times]
    return min((float(t.min()) for t in finite if t.size), default=float("nan"))


def _follow(scan: RawFits, repeated: Repeats) -> None:
    """Let lloadsn name the right one of the scans of a repeated number."""
    mine = begin_of(scan)
    changed = False
    for i, node in enumerate(scan.nodes):
        if node.name != "lloadsn" or node.values is None:
            continue
        values = node.values.copy()
        for number, several in repeated.items():
            earlier = sum(1 for s in several if s is scan or begin_of(s) <= mine)
            values[node.values == number] = number + max(0, earlier - 1) * REPEAT_STEP
        if (values != node.values).any():
            scan.nodes[i] = Node(node.path, node.about, values)
            changed = True
    if changed:
        scan.digest = nodes_digest(scan.nodes)


def _renumber(scan: RawFits, number: int) -> None:
    """Give a scan another number, also in its attributes."""
    for i, node in enumerate(scan.nodes):
        attributes = node.about["attributes"]
        if node.about["kind"] == "group" and attributes.get("scan_number") == scan.number:
            about = {**node.about, "attributes": {**attributes, "scan_number": number}}
            scan.nodes[i] = Node(node.path, about)
    scan.number = number
    scan.digest = nodes_digest(scan.nodes)


def _warn(text: str) -> None:
    warnings.warn(text, GpucalWarning, stacklevel=4)
