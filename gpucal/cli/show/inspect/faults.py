"""Everything that is wrong with a raw scan, not only what its reader refuses first.

Shapes use C channels, D dumps, R receivers, A array pixels, S subscans.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gpucal.cli.show.inspect.shapes import Shapes, sizes_of
from gpucal.errors import GpucalError, L0Error
from gpucal.io.l0.checks import (
    check_complete,
    check_same_layout,
    gain_image,
    violations,
)
from gpucal.io.l0.group import (
    GroupContext,
    Raw,
    build_group,
    group_context,
    read_group,
    read_modes,
)
from gpucal.io.l0.nodes import node_of, values_of
from gpucal.io.l0.schema import (
    ARRAYS,
    COUNTS,
    GroupName,
    check_modes,
    faulty_attrs,
    is_bolometer,
    parse_scan_attrs,
)
from gpucal.io.l0.store import L0Store, bands_in, may_lack_references
from gpucal.scan import ArrayCounts, Scan, SubscanGroup

_READ_ERRORS = (GpucalError, OSError, ValueError, KeyError, TypeError, RuntimeError)

STAND_INS: Mapping[str, float] = {
    "mjd": 60000.0,
    "exptime": 1.0,
    "elevation": 1.0,
    "azimuth": 0.0,
    "signal_freq": 3e11,
    "image_freq": 3e11,
    "freq_res": 1e6,
    "ref_channel": 0.0,
}
"""Values for arrays that cannot be used, so that the others can still be judged."""


@dataclass
class Examined:
    """One band of a scan: what can be shown of it, and all that is wrong.

    scan: None where nothing can be shown. faults: each with its place.
    """

    band: str
    scan: Scan | None
    faults: list[GpucalError] = field(default_factory=list)

    def problems(self, number: int) -> list[str]:
        """The faults as sentences, each once."""
        said = [str(fault.locate(scan=number, band=self.band)) for fault in self.faults]
        return list(dict.fromkeys(said))


def examine(store: L0Store, number: int) -> list[Examined]:
    """Read a scan as ``L0Store.load`` does; of a band that it refuses, find all the reasons."""
    refused: dict[str, GpucalError] = {}
    try:
        loaded = {scan.band: scan for scan in store.load(number, broken=refused)}
    except GpucalError as error:
        loaded = {}
        refused = refused or {"": error}
    if not refused:
        return [Examined(band, scan) for band, scan in loaded.items()]
    try:
        zscan = store.scan_group(number)
        scan_attrs = dict(zscan.attrs)
        bands = bands_in(zscan, number)
    except _READ_ERRORS:
        return [Examined("", None, list(refused.values()))]
    found = []
    for band, names in bands.items():
        if band in loaded:
            found.append(Examined(band, loaded[band]))
            continue
        first = refused.get(band) or next(iter(refused.values()))
        try:
            zband = node_of(zscan, band) if band else zscan
            attrs = {**scan_attrs, **(dict(zband.attrs) if band else {})}
            scan = Scan(number, band, attrs, store.attrs, None, None, path=store.path)
            zgroups = {name: node_of(zband, name) for name in names}
            found.append(_examine_band(scan, zgroups, first))
        except _READ_ERRORS:
            found.append(Examined(band, None, [first]))
    return found


def _examine_band(scan: Scan, zgroups: Mapping[GroupName, Any], first: GpucalError) -> Examined:
    """All faults of a band; ``first`` is the one for which the reader refuses it."""
    wrong = faulty_attrs(scan.attrs)
    faults: list[GpucalError] = [L0Error(sentence) for sentence in wrong.values()]
    scan = replace(scan, attrs={k: v for k, v in scan.attrs.items() if k not in wrong})
    attrs = parse_scan_attrs(scan.attrs)
    groups: dict[GroupName, SubscanGroup] = {}
    stand_ins: dict[GroupName, frozenset[str]] = {}
    for name, zgroup in zgroups.items():
        context = group_context(scan.number, scan.band, name, scan.attrs, partial=False)
        growing = attrs.complete is False or attrs.n_subscans_planned is not None
        group, reasons, unusable = _read_all(zgroup, context, growing=growing)
        faults += reasons
        if group is not None:
            groups[name], stand_ins[name] = group, unusable
    between = list(_between_groups(groups, attrs))
    lenient = any("incomplete" in fault.message for fault in between)
    lenient = lenient or may_lack_references(attrs)
    for name, group in groups.items():
        if error := _error_of(gain_image, scan.attrs.get("gain_image"), group.shape):
            faults.append(error)
        if is_bolometer(scan.attrs):
            continue
        if name == "source" or "HOT" in group.sobsmode or not lenient:
            loads = name == "calibration"
            left_out = stand_ins[name]
            faults += violations(group, calibration=loads, growing=lenient, leave_out=left_out)
    faults += between
    if not any(_same(first, fault) for fault in faults):
        faults.insert(0, first)
    faults = [first if _same(first, fault) else fault for fault in faults]
    if not groups:
        return Examined(scan.band, None, faults)
    shown = replace(scan, source=groups.get("source"), calibration=groups.get("calibration"))
    return Examined(scan.band, shown, faults)


def _same(one: GpucalError, other: GpucalError) -> bool:
    return one.message == other.message and one.subscan == other.subscan


def _error_of(function: Any, *args: Any, **options: Any) -> GpucalError | None:
    """The error that a check raises, None when it raises none."""
    try:
        function(*args, **options)
    except GpucalError as error:
        return error
    return None


def _between_groups(groups: Mapping[GroupName, SubscanGroup], attrs: Any) -> Iterator[GpucalError]:
    """Faults of a band as a whole: not complete, source/ and calibration/ unlike."""
    if groups:
        main = groups.get("source") or groups["calibration"]
        if error := _error_of(check_complete, attrs, main.shape[4], partial=False):
            yield error
    if len(groups) == 2 and (
        error := _error_of(check_same_layout, groups["source"], groups["calibration"])
    ):
        yield error


def _read_all(
    zgroup: Any, context: GroupContext, *, growing: bool
) -> tuple[SubscanGroup | None, list[GpucalError], frozenset[str]]:
    """A group as far as it can be read, what is wrong with its arrays, and which of them stand for others."""
    for partial in (False, True) if growing else (False,):
        try:
            group = read_group(zgroup, replace(context, partial=partial), hashlib.sha256())
        except _READ_ERRORS:
            continue
        return group, [], frozenset()
    if context.bolometer:
        return None, [], frozenset()
    faults: list[GpucalError] = []
    modes = _modes(zgroup, context, faults)
    nodes = _nodes(zgroup, faults)
    shapes = sizes_of({name: tuple(node.shape) for name, node in nodes.items()}, len(modes))
    faults += shapes.faults
    if not all(shapes.sizes.values()):
        return None, faults, frozenset()
    raw, unusable = _arrays(nodes, shapes, context, faults)
    size = tuple(shapes.sizes[axis] for axis in "CDRAS")
    if len(modes) != size[4]:
        if modes:
            text = f"sobsmode has {len(modes)} entries, expected {size[4]}, one per subscan."
            faults.append(L0Error(text))
        modes, unusable = ["?"] * size[4], unusable | {"sobsmode"}
    elif any(_error_of(check_modes, [m], calibration=context.calibration) for m in modes):
        unusable |= {"sobsmode"}
    else:
        modes = list(check_modes(modes, calibration=context.calibration))
    dtype = np.dtype(nodes[COUNTS].dtype) if COUNTS in nodes else np.dtype("i4")
    counts = ArrayCounts(np.broadcast_to(np.zeros((), dtype), size))  # never read
    try:
        return build_group(counts, tuple(modes), raw, context), faults, unusable
    except _READ_ERRORS:
        return None, faults, unusable


def _modes(zgroup: Any, context: GroupContext, faults: list[GpucalError]) -> list[str]:
    """The observing modes as stored; each unknown one is a fault."""
    try:
        modes = read_modes(zgroup, dict(zgroup.attrs))
    except GpucalError as error:
        faults.append(error)
        return []
    for mode in dict.fromkeys(modes):
        if fault := _error_of(check_modes, [mode], calibration=context.calibration):
            fault.subscan = modes.index(mode)
            faults.append(fault)
    return modes


def _nodes(zgroup: Any, faults: list[GpucalError]) -> dict[str, Any]:
    """The known arrays that are there."""
    nodes = {}
    for name in ARRAYS:
        try:
            node = node_of(zgroup, name)
        except GpucalError as error:
            faults.append(error)
            continue
        if hasattr(node, "shape"):
            nodes[name] = node
    return nodes


def _arrays(
    nodes: Mapping[str, Any], shapes: Shapes, context: GroupContext, faults: list[GpucalError]
) -> tuple[Raw, frozenset[str]]:
    """The small arrays that can be used, stand-ins for the others, and the names of those."""
    raw: Raw = {}
    unusable: set[str] = set()
    for name, rule in ARRAYS.items():
        if name == COUNTS:
            continue
        node = nodes.get(name)
        needed = rule.required or (name == "image_freq" and not context.gain_zero)
        fault: GpucalError | None = None
        if node is None and needed:
            fault = L0Error(
                f"array {name} is missing, expected shape {shapes.wanted(name)}, {rule.unit}."
            )
        elif node is not None:
            fault = shapes.fault_of(name, node)
            try:
                values = None if fault else values_of(name, node)
            except GpucalError as error:
                values, fault = None, error
            if values is not None:
                raw[name] = values
        if fault is not None:
            faults.append(fault)
            unusable.add(name)
            if name in STAND_INS:
                raw[name] = np.full(shapes.sizes["S"], STAND_INS[name])
    return raw, frozenset(unusable)
