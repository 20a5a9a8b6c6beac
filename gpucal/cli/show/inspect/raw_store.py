"""What ``gpucal inspect`` tells of a raw store: a row per scan and band, and all that is wrong."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from gpucal.cli.show.inspect import night
from gpucal.cli.show.inspect.faults import Examined, examine
from gpucal.cli.show.inspect.rows import Row, empty_row, report
from gpucal.cli.show.inspect.values import (
    doubts,
    unknown_attributes,
    unknown_names,
    unlikely_values,
)
from gpucal.cli.show.load_scans import serving_load
from gpucal.config import load_config
from gpucal.errors import GpucalError
from gpucal.io.l0.nodes import node_of
from gpucal.io.l0.schema import is_bolometer
from gpucal.io.l0.store import L0Store
from gpucal.scan import Scan, SubscanGroup
from gpucal.steps.pairing import detect_mode, pair_subscans


def describe_l0(store: L0Store, chosen: Collection[int] | None = None) -> Row:
    """One row per scan and band (of the ``chosen`` scans); metadata and small arrays are read, counts are not.

    All scans are read: which load scan serves which depends on them.
    """
    rows: list[Row] = []
    loaded: list[tuple[Row, Scan]] = []
    numbers = store.numbers()
    for number in numbers:
        for found in examine(store, number):
            row = _row_of(store, number, found)
            rows.append(row)
            if found.scan is not None:
                loaded.append((row, found.scan))
    scans = [scan for _, scan in loaded]
    age = load_config().max_cal_age
    for row, scan in loaded:
        if row["kind"] == "science":
            row["problems"] += night.named_loads(scan, scans, numbers, age)
            _add_load_scan(row, scan, scans, age)
    problems = night.names_of_scans(store) if chosen is None else []
    shown = [row for row in rows if chosen is None or row["scan"] in chosen]
    made = report(store.path, "gpucal-l0", store.attrs, shown, problems)
    made["warnings"] = night.order_of_scans(scans) if chosen is None else []
    return made


def _row_of(store: L0Store, number: int, found: Examined) -> Row:
    """The row of a band, with its problems and warnings."""
    if found.scan is None:
        return empty_row(number, found.problems(number), band=found.band)
    scan = found.scan
    known = {fault.message.split(" ")[0] for fault in found.faults}
    found.faults += [e for e in unlikely_values(scan) if e.message.split(" ")[0] not in known]
    row = _l0_row(scan, found.problems(number))
    row["warnings"] += [*doubts(scan), *unknown_attributes(scan), *_names(store, scan)]
    return row


def _names(store: L0Store, scan: Scan) -> list[str]:
    """Remarks on groups and arrays of a scan that are not read because of their names."""
    try:
        zscan = store.scan_group(scan.number)
        zband = node_of(zscan, scan.band) if scan.band else zscan
        bands = [scan.band] if scan.band else []
        said = night.names_in_scan(zband, bands)
        for name in ("source", "calibration"):
            if getattr(scan, name) is not None:
                said += unknown_names(node_of(zband, name), name)
    except (GpucalError, OSError, ValueError):
        return []  # what cannot be listed is told of elsewhere
    return said


def _l0_row(scan: Scan, problems: Sequence[str]) -> Row:
    """What one band holds; adds to the problems what pairing would refuse."""
    group = scan.source or scan.calibration
    assert group is not None
    kind = "science" if scan.source is not None else "load"
    kind = "bolometer" if is_bolometer(scan.attrs) else kind
    row = empty_row(scan.number, problems, band=scan.band)
    row |= {
        "kind": kind,
        "mode": detect_mode(group.sobsmode) if kind == "science" else "",
        "subscans": {mode: group.sobsmode.count(mode) for mode in dict.fromkeys(group.sobsmode)},
        "source": str(scan.attrs.get("source") or ""),
        "shape": list(group.shape),
        "dtype": group.counts.dtype.name,
        "bytes": _counts_bytes(scan),
        "frequency_ghz": None if kind == "bolometer" else _frequency_range(group),
        "mjd": _mean(group.mjd),
        "elevation_deg": _mean(np.degrees(group.elevation)),
        "warnings": list(scan.warnings),
        "assumptions": scan.attrs.get("assumptions") or [],
    }
    if kind == "science":
        try:
            row["mode"] = pair_subscans(scan, load_config()).mode
        except GpucalError as error:
            if not problems:  # else it is what was found already
                row["problems"].append(str(error.locate(scan=scan.number, band=scan.band)))
    return row


def _mean(values: Any) -> float | None:
    """The mean of what is known, None where nothing is."""
    known = values[np.isfinite(values)]
    return float(np.mean(known)) if known.size else None


def _counts_bytes(scan: Scan) -> int:
    groups = [group for group in (scan.source, scan.calibration) if group is not None]
    return sum(int(np.prod(g.shape)) * g.counts.dtype.itemsize for g in groups)


def _frequency_range(group: SubscanGroup) -> list[float]:
    """Lowest and highest signal frequency of all receivers and subscans, GHz."""
    last = group.shape[0] - 1
    edges = [group.signal_freq + (c - group.ref_channel) * group.freq_res for c in (0, last)]
    return [float(np.nanmin(edges)) / 1e9, float(np.nanmax(edges)) / 1e9]


def _add_load_scan(row: Row, scan: Scan, scans: Sequence[Scan], max_cal_age: float) -> None:
    """Add to a row the load scan that serves the scan, or the problem that none does."""
    found = serving_load(scan, scans, max_cal_age)
    if found is None:
        row["problems"].append(night.no_load(scan, scans))
    else:
        row["load_scan"], row["load_rule"] = found.scan.number, found.rule
