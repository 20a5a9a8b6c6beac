"""What is wrong with a raw store as a whole: names of its groups, loads, order of its scans."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from gpucal.cli.show.load_scans import serving_load
from gpucal.errors import GpucalError
from gpucal.io.l0.nodes import node_of
from gpucal.io.l0.rules import MJD_RANGE
from gpucal.io.l0.schema import is_bolometer
from gpucal.io.l0.store import L0Store, child_names
from gpucal.pipeline.scan.load_rules import SAME_FREQUENCY, has_hot, same_setup
from gpucal.scan import Scan, SubscanGroup

_SCAN = re.compile(r"scan_(\d+)\Z")
_LIKE_A_SCAN = re.compile(r"scan[\W_]*\d|\d+\Z", re.IGNORECASE)
_GROUPS = ("source", "calibration")


def names_of_scans(store: L0Store) -> list[str]:
    """Groups at the top that the reader does not see."""
    return [
        _not_read(name, [int(n) for n in re.findall(r"\d+", name)])
        for name in sorted(child_names(store.root))
        if not _SCAN.match(name) and (_LIKE_A_SCAN.match(name) or _holds_groups(store.root, name))
    ]


def _not_read(name: str, numbers: list[int]) -> str:
    """The sentence about a group that looks like a scan, with the name that it should have."""
    better = f" Rename it to scan_{numbers[0]:06d}." if len(numbers) == 1 else ""
    return f"the group {name} is not read: the name of a scan is scan_NNNNNN.{better}"


def _holds_groups(root: Any, name: str) -> bool:
    """Whether a group has what a scan has."""
    try:
        node = node_of(root, name)
        return node is not None and not hasattr(node, "shape") and bool(_members(node))
    except (GpucalError, OSError):
        return False


def _members(zgroup: Any) -> list[str]:
    return [name for name in child_names(zgroup) if name.lower().rstrip("s") in _GROUPS]


def names_in_scan(zscan: Any, bands: Sequence[str]) -> list[str]:
    """Groups of a scan that are not read although their names say source or calibration."""
    found = []
    for name in sorted(child_names(zscan)):
        if name in _GROUPS or name in bands:
            continue
        near = name.lower()
        if near.startswith(("cal", "load")):
            found.append(f"the group {name} is not read: loads are in calibration/.")
        elif near.startswith(("source", "src", "sky", "science")):
            found.append(f"the group {name} is not read: the subscans on the sky are in source/.")
        elif near.startswith("band"):
            found.append(
                f"the group {name} is not read: it holds neither source/ nor calibration/."
            )
    return found


def named_loads(
    scan: Scan, scans: Sequence[Scan], numbers: Sequence[int], max_cal_age: float
) -> Iterator[str]:
    """A sentence for each load scan that ``lloadsn`` names and that cannot serve; max_cal_age in s."""
    if scan.source is None:
        return
    for number in sorted({int(n) for n in scan.source.lloadsn if n >= 0}):
        bands = [other for other in scans if other.number == number]
        if number not in numbers:
            why = "which is not in the store"
        elif not bands:
            why = "which cannot be read"
        elif not any(has_hot(band) for band in bands):
            why = "which holds no HOT"
        elif not any(band.band == scan.band and same_setup(band, scan) for band in bands):
            why = f"whose loads were taken with another setup{_unlike(scan, bands)}"
        else:
            continue
        found = serving_load(scan, scans, max_cal_age)
        instead = f" Scan {found.scan.number} is used instead." if found else ""
        yield f"{scan.label}: lloadsn is {number}, {why}.{instead}"


def no_load(scan: Scan, scans: Sequence[Scan]) -> str:
    """The sentence about a scan that no load scan serves, with what the nearest one lacks."""
    loads = [other for other in scans if has_hot(other)]
    if not loads:
        return f"{scan.label}: no load scan serves it, there is none with a HOT in the store."
    return f"{scan.label}: no load scan of the same setup serves it{_unlike(scan, loads)}."


def _unlike(scan: Scan, loads: Sequence[Scan]) -> str:
    """In what the nearest of the load scans differs, "" where nothing is found."""
    group = scan.source or scan.calibration
    assert group is not None
    near = min(loads, key=lambda load: (load.band != scan.band, abs(load.number - scan.number)))
    assert near.calibration is not None or near.source is not None
    other = near.calibration or near.source
    assert other is not None
    difference = _difference(group, other)
    if not difference and near.band != scan.band:
        difference = f"band {near.band!r}, here {scan.band!r}"
    return f" (scan {near.number}: {difference})" if difference else ""


def _difference(here: SubscanGroup, there: SubscanGroup) -> str:
    """What makes two setups unlike, first the shape."""
    for axis, what in ((0, "channels"), (2, "receivers"), (3, "pixels")):
        if here.shape[axis] != there.shape[axis]:
            return f"{there.shape[axis]} {what}, here {here.shape[axis]}"
    for name, tolerance in (("signal_freq", SAME_FREQUENCY), ("freq_res", 1e-4)):
        one, two = getattr(here, name)[:, 0], getattr(there, name)[:, 0]
        unlike = ~np.isclose(two, one, rtol=tolerance, atol=0)
        if unlike.any():
            r = int(np.argmax(unlike))
            return f"{name} {two[r]:g} Hz, here {one[r]:g} Hz"
    return ""


def order_of_scans(scans: Sequence[Scan]) -> list[str]:
    """Remarks on scans whose numbers do not grow with time, and on scans of the same time and band."""
    said = []
    science = [
        scan
        for scan in scans
        if not is_bolometer(scan.attrs) and MJD_RANGE[0] < _start(scan) < MJD_RANGE[1]
    ]
    for earlier, later in pairwise(science):
        one, two = _start(earlier), _start(later)
        if later.number != earlier.number and two < one:
            said.append(
                f"scan {later.number} begins before scan {earlier.number} (mjd {two:.5f} and {one:.5f}): "
                "numbers are taken to grow with time."
            )
    seen: dict[tuple[float, float, str], int] = {}
    for scan in science:
        group = scan.source or scan.calibration
        assert group is not None
        key = (round(_start(scan), 7), float(group.signal_freq[0, 0]), scan.band)
        other = seen.setdefault(key, scan.number)
        if other != scan.number:
            said.append(
                f"scan {scan.number} begins when scan {other} does: are they the same scan?"
            )
    return said


def _start(scan: Scan) -> float:
    """Middle of the first subscan, MJD."""
    group = scan.source or scan.calibration
    assert group is not None
    return float(group.mjd_mid[0])
