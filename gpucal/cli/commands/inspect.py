"""``gpucal inspect``: what a raw or a calibrated store holds, and what is wrong with it."""

from __future__ import annotations

import json as json_module
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gpucal.cli.show.class_report import describe_class, print_class
from gpucal.cli.show.load_scans import serving_load
from gpucal.cli.show.progress import without_label
from gpucal.cli.show.summary import make_console
from gpucal.config import load_config
from gpucal.errors import GpucalError
from gpucal.io.chunks.zarr_metadata import read_group
from gpucal.io.files.json_text import dumps
from gpucal.io.files.verify import sidecar_of
from gpucal.io.gildas.reader import is_class_file
from gpucal.io.l0.schema import is_bolometer
from gpucal.io.l0.store import L0Store, open_l0
from gpucal.io.l1.reader import L1, L1Scan, open_l1
from gpucal.scan import Scan, SubscanGroup
from gpucal.steps.pairing import detect_mode, pair_subscans

L1_ARRAYS = ("spectra", "flags", "t_sys", "t_rec", "gamma", "frequency", "mjd", "exptime")
"""Arrays without which nobody can use a calibrated scan."""

EXIT_UNUSABLE = 1
EXIT_PROBLEMS = 2
Row = dict[str, Any]


def inspect_store(
    store: Annotated[
        Path,
        typer.Argument(metavar="STORE", help="Raw (L0), calibrated (L1), or a CLASS file."),
    ],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show the scans of a store: modes, shapes, sizes, which load scan serves which, problems.

    Exit codes: 0 no problems, 1 nothing usable, 2 some scans have problems.
    """
    report = describe_store(store)
    if json:
        print(dumps(report, indent=2))
    elif report["format"] == "class":
        print_class(report)
    else:
        _print(report)
    raise typer.Exit(exit_code(report))


def exit_code(report: Row) -> int:
    """0 without problems, 2 when some scans have one, 1 when no scan is free of them."""
    rows = report["scans"]
    if rows and not any(row["problems"] for row in rows):
        return EXIT_PROBLEMS if report["problems"] else 0
    return EXIT_PROBLEMS if any(not row["problems"] for row in rows) else EXIT_UNUSABLE


def describe_store(path: Path) -> Row:
    """Return what ``gpucal inspect`` shows; only metadata and small arrays are read.

    Raises L0Error, L1Error or, for a CLASS file, ImportFormatError when it is unusable as a whole.
    """
    if is_class_file(path):
        return describe_class(path)
    document = read_group(path)
    if document is not None and str(document.get("format", "")).startswith("gpucal-l1"):
        return _describe_l1(open_l1(path))
    return _describe_l0(open_l0(path))


def _describe_l0(store: L0Store) -> Row:
    """One row per scan and band; the load scan is looked for when all scans are known."""
    rows: list[Row] = []
    loaded: list[tuple[Row, Scan]] = []
    for number in store.numbers():
        problems: list[str] = []
        for scan in _load(store, number, problems):
            row = _l0_row(scan, problems)
            rows.append(row)
            loaded.append((row, scan))
        if problems and not any(row["scan"] == number for row in rows):
            rows.append(_unreadable_row(number, problems))
    scans = [scan for _, scan in loaded]
    for row, scan in loaded:
        if row["kind"] == "science":
            _add_load_scan(row, scan, scans)
    return _report(store.path, "gpucal-l0", store.attrs, rows, [])


def _load(store: L0Store, number: int, problems: list[str]) -> list[Scan]:
    """Load a scan; when it is faulty, note why, and return the part that can be read."""
    try:
        return store.load(number)
    except GpucalError as error:
        problems.append(str(error))
    try:
        return store.load(number, partial=True)
    except GpucalError:
        return []


def _l0_row(scan: Scan, problems: Sequence[str]) -> Row:
    """What one band holds; adds to ``problems`` what pairing or reading would refuse."""
    group = scan.source or scan.calibration
    assert group is not None
    kind = "science" if scan.source is not None else "load"
    kind = "bolometer" if is_bolometer(scan.attrs) else kind
    row: Row = {
        "scan": scan.number,
        "band": scan.band,
        "kind": kind,
        "mode": detect_mode(group.sobsmode) if kind == "science" else "",
        "subscans": {mode: group.sobsmode.count(mode) for mode in dict.fromkeys(group.sobsmode)},
        "source": str(scan.attrs.get("source") or ""),
        "shape": list(group.shape),
        "dtype": group.counts.dtype.name,
        "bytes": _counts_bytes(scan),
        "frequency_ghz": None if kind == "bolometer" else _frequency_range(group),
        "mjd": float(np.nanmean(group.mjd)),
        "load_scan": None,
        "load_rule": "",
        "warnings": [*scan.warnings, *_unguarded(scan)],
        "problems": list(problems),
    }
    if kind == "science":
        try:
            row["mode"] = pair_subscans(scan, load_config()).mode
        except GpucalError as error:
            if not problems:  # else it is what was found already
                row["problems"].append(str(error.locate(scan=scan.number, band=scan.band)))
    return row


def _unguarded(scan: Scan) -> list[str]:
    """A remark where no checksum guards the counts."""
    counts = [group.counts for group in (scan.source, scan.calibration) if group is not None]
    if all(getattr(c, "checksum", True) for c in counts) or sidecar_of(scan.path).exists():
        return []
    return [
        "the counts have no checksum, a flipped bit is not noticed: gpucal verify --write-checksums makes "
        "a list of them."
    ]


def _unreadable_row(number: int, problems: Sequence[str]) -> Row:
    """The row of a scan of which nothing could be read; also the empty form of a row."""
    return {
        "scan": number,
        "band": "",
        "kind": "unreadable",
        "mode": "",
        "subscans": {},
        "source": "",
        "shape": [],
        "dtype": "",
        "bytes": 0,
        "frequency_ghz": None,
        "mjd": None,
        "load_scan": None,
        "load_rule": "",
        "warnings": [],
        "problems": list(problems),
    }


def _counts_bytes(scan: Scan) -> int:
    groups = [group for group in (scan.source, scan.calibration) if group is not None]
    return sum(int(np.prod(g.shape)) * g.counts.dtype.itemsize for g in groups)


def _frequency_range(group: SubscanGroup) -> list[float]:
    """Lowest and highest signal frequency of all receivers and subscans, GHz."""
    last = group.shape[0] - 1
    edges = [group.signal_freq + (c - group.ref_channel) * group.freq_res for c in (0, last)]
    return [float(np.nanmin(edges)) / 1e9, float(np.nanmax(edges)) / 1e9]


def _add_load_scan(row: Row, scan: Scan, scans: Sequence[Scan]) -> None:
    """Add to a row the load scan that serves the scan, or the problem that none does."""
    found = serving_load(scan, scans, load_config().max_cal_age)
    if found is None:
        row["problems"].append(f"{scan.label}: no load scan of the same setup serves it.")
    else:
        row["load_scan"], row["load_rule"] = found.scan.number, found.rule


def _describe_l1(store: L1) -> Row:
    """One row per scan and band, and the failures that the last run left."""
    rows: list[Row] = []
    for number in store.scans():
        try:
            scan = store.scan(number)
            rows += [_l1_row(scan.band_scan(b) if b else scan) for b in scan.bands or [""]]
        except (GpucalError, OSError, ValueError, KeyError) as error:
            rows.append(_unreadable_row(number, [f"scan {number}: {error}"]))
    return _report(str(store.path), "gpucal-l1", store.attrs, rows, _recorded_failures(store.path))


def _l1_row(scan: L1Scan) -> Row:
    """What one calibrated band holds, with missing or misshapen arrays as problems."""
    label = f"scan {scan.number}" + (f" {scan.band}" if scan.band else "")
    missing = [name for name in L1_ARRAYS if name not in scan]
    row = _unreadable_row(scan.number, [])
    qa = scan.attrs.get("qa") or {}
    row |= {
        "band": scan.band,
        "kind": "calibrated",
        "mode": str(scan.attrs.get("mode", "")),
        "source": str(scan.attrs.get("source") or ""),
        "qa": {key: value for key, value in qa.items() if not isinstance(value, list)},
        "groups": scan.groups,
    }
    if missing:
        row["problems"].append(f"{label}: {', '.join(missing)} missing.")
    if "spectra" in scan:
        spectra = scan["spectra"]
        row |= {"shape": list(spectra.shape), "dtype": spectra.dtype.name}
        row["bytes"] = sum(int(scan[name].nbytes) for name in scan)
        row["problems"] += _wrong_shapes(scan, label)
    if "frequency" in scan:
        frequency = np.asarray(scan["frequency"][...], dtype=np.float64)
        row["frequency_ghz"] = [float(f) / 1e9 for f in (frequency.min(), frequency.max())]
    if "mjd" in scan:
        row["mjd"] = float(np.nanmean(np.asarray(scan["mjd"][...], dtype=np.float64)))
    loads = scan.attrs.get("load_scans") or (scan.attrs.get("provenance") or {}).get("load_scans")
    row["load_scan"] = loads[0] if isinstance(loads, list) and loads else loads
    return row


def _wrong_shapes(scan: L1Scan, label: str) -> list[str]:
    """Sentences about arrays whose shape does not match the spectra."""
    shape = scan["spectra"].shape
    if len(shape) != 5:
        return [f"{label}: spectra has {len(shape)} axes, expected five."]
    c, _, r, a, s = shape
    wanted = {"flags": shape, "t_sys": (c, r, a, s), "t_rec": (c, r, a), "gamma": (c, r, a)}
    return [
        f"{label}: {name} has shape {scan[name].shape}, expected {size}."
        for name, size in wanted.items()
        if name in scan and scan[name].shape != size
    ]


def _recorded_failures(path: Path) -> list[str]:
    """The failures that the last run wrote beside the scans."""
    try:
        entries = json_module.loads((path / "failures.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        return [f"failures.json cannot be read: {error}."]
    return [
        f"scan {e['scan']} failed in {e['stage']}: "
        f"{without_label(e['message'], e['scan'])} {e['hint']}".rstrip()
        for e in entries
    ]


def _report(path: str, form: str, attrs: Any, rows: list[Row], problems: list[str]) -> Row:
    return {
        "path": path,
        "format": form,
        "telescope": attrs.get("telescope"),
        "instrument": attrs.get("instrument"),
        "bytes": sum(row["bytes"] for row in rows),
        "scans": rows,
        "problems": list(dict.fromkeys([*(p for row in rows for p in row["problems"]), *problems])),
    }


def _print(report: Row) -> None:
    console = make_console()
    rows = report["scans"]
    kinds = [row["kind"] for row in {row["scan"]: row for row in rows}.values()]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)) or "no scan"
    names = [str(report[key]) for key in ("telescope", "instrument") if report[key]]
    head = [f"{report['path']}: {report['format']}", *names, counts, _size(report["bytes"])]
    console.print(escape(", ".join(head)), highlight=False, soft_wrap=True)
    if rows:
        console.print(_table(rows))
    warnings = [
        f"scan {row['scan']} {row['band']}".rstrip() + f": {w}"
        for row in rows
        for w in row["warnings"]
    ]
    _print_lines(console, "warning", warnings)
    _print_lines(console, "problem", report["problems"])


def _print_lines(console: Console, name: str, lines: Sequence[str]) -> None:
    """Print each different line once."""
    for line in dict.fromkeys(lines):
        console.print(escape(f"{name}: {line}"), highlight=False, soft_wrap=True)


def _table(rows: Sequence[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("scan", "kind", "mode", "source", "C,D,R,A,S", "dtype", "size", "GHz", "loads"):
        table.add_column(name, no_wrap=True, justify="right" if name == "size" else "left")
    for row in rows:
        span = row["frequency_ghz"]
        cells = (
            f"{row['scan']} {row['band']}".rstrip(),
            row["kind"],
            row["mode"] or " ".join(f"{n}x{mode}" for mode, n in row["subscans"].items()) or "-",
            row["source"] or "-",
            ",".join(str(n) for n in row["shape"]) or "-",
            row["dtype"] or "-",
            _size(row["bytes"]),
            f"{span[0]:.3f}-{span[1]:.3f}" if span else "-",
            f"{row['load_scan']} {row['load_rule']}".rstrip()
            if row["load_scan"] is not None
            else "-",
        )
        table.add_row(*(escape(cell) for cell in cells), style="red" if row["problems"] else "")
    return table


def _size(nbytes: float) -> str:
    """Bytes in words."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:.3g} TB"
