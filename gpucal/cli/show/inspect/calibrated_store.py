"""What ``gpucal inspect`` tells of a calibrated store: a row per scan and band, and what is wrong."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.cli.show.inspect.rows import Row, empty_row, report
from gpucal.cli.show.progress import without_label
from gpucal.errors import GpucalError
from gpucal.export.blocks import BUDGET_BYTES, pixel_medians
from gpucal.io.files.regular import read_document
from gpucal.io.l1.reader import L1, L1Scan
from gpucal.io.l1.rounded import rounding_step
from gpucal.io.l1.stored_t_sys import STAR, StoredTSys

F64 = npt.NDArray[np.float64]

L1_ARRAYS = ("spectra", "flags", "t_sys", "t_rec", "gamma", "frequency", "mjd", "exptime")
"""Arrays without which nobody can use a calibrated scan."""
_READ_ERRORS = (GpucalError, OSError, ValueError, KeyError)


def describe_l1(store: L1, chosen: Collection[int] | None = None, *, night: bool = False) -> Row:
    """One row per scan and band, and the failures that the last run left.

    night: with what the summary of a night holds (T_sys*, tau, ...), for which t_sys is read.
    """
    rows: list[Row] = []
    for number in store.scans():
        if chosen is not None and number not in chosen:
            continue
        try:
            scan = store.scan(number)
            rows += [_l1_row(scan.band_scan(b) if b else scan, night) for b in scan.bands or [""]]
        except _READ_ERRORS as error:
            rows.append(empty_row(number, [f"scan {number}: {error}"]))
    failures = _recorded_failures(store.path, chosen)
    return report(str(store.path), "gpucal-l1", store.attrs, rows, failures)


def _l1_row(scan: L1Scan, night: bool) -> Row:
    """What one calibrated band holds, with missing or misshapen arrays as problems."""
    label = f"scan {scan.number}" + (f" {scan.band}" if scan.band else "")
    missing = [name for name in L1_ARRAYS if name not in scan]
    row = empty_row(scan.number, [])
    qa = scan.attrs.get("qa") or {}
    row |= {
        "band": scan.band,
        "kind": "calibrated",
        "mode": str(scan.attrs.get("mode", "")),
        "source": str(scan.attrs.get("source") or ""),
        "qa": {key: value for key, value in qa.items() if not isinstance(value, list)},
        "error_budget": list(qa.get("error_budget") or []),
        "groups": scan.groups,
    }
    if missing:
        row["problems"].append(f"{label}: {', '.join(missing)} missing.")
    if "spectra" in scan:
        spectra = scan["spectra"]
        row |= {"shape": list(spectra.shape), "dtype": spectra.dtype.name}
        row["rounding_step_k"] = rounding_step(spectra.attrs)
        row["bytes"] = sum(int(scan[name].nbytes) for name in scan)
        row["problems"] += _wrong_shapes(scan, label)
    if "frequency" in scan:
        frequency = np.asarray(scan["frequency"][...], dtype=np.float64)
        row["frequency_ghz"] = [float(f) / 1e9 for f in (frequency.min(), frequency.max())]
    row["mjd"] = _mean_of(scan, "mjd")
    elevation = _mean_of(scan, "elevation")
    row["elevation_deg"] = None if elevation is None else float(np.degrees(elevation))
    loads = scan.attrs.get("load_scans") or (scan.attrs.get("provenance") or {}).get("load_scans")
    row["load_scan"] = loads[0] if isinstance(loads, list) and loads else loads
    if night and not row["problems"]:
        row["night"] = _night_row(scan)
    return row


def _mean_of(scan: L1Scan, name: str) -> float | None:
    """The mean of what is known of a small array, None where nothing is."""
    if name not in scan:
        return None
    values = np.asarray(scan[name][...], dtype=np.float64)
    known = values[np.isfinite(values)]
    return float(np.mean(known)) if known.size else None


def _median(values: Any) -> float | None:
    """The median of the numbers among (nested lists of) values, which may be "NaN"; None without one."""
    array = np.array(values if values is not None else [], dtype=object).ravel()
    known = np.array([float(v) for v in array if v is not None], dtype=np.float64)
    known = known[np.isfinite(known)]
    return float(np.median(known)) if known.size else None


def _night_row(scan: L1Scan) -> Row:
    """What is measured, as medians over channels and pixels: K, mm, Np, %; None where it is not known."""
    qa, attrs = scan.attrs.get("qa") or {}, scan.attrs
    tau = np.asarray(scan["tau_signal"][...], dtype=np.float64) if "tau_signal" in scan else None
    flagged = _median(qa.get("flagged_fraction"))
    words = [
        *(["CAL_STALE"] if attrs.get("cal_stale") is True else []),
        *(["ATMOSPHERE_POOR"] if qa.get("atmosphere_poor") is True else []),
        *(["PWV_OUTSIDE_TABLE"] if qa.get("pwv_outside_table") is True else []),
    ]
    t_sys = StoredTSys(scan)
    return {
        "t_rec": _median(qa.get("t_rec_median")),
        "t_sys": None if t_sys.sidebands == STAR else _median(qa.get("t_sys_median")),
        "sidebands": "" if t_sys.sidebands == STAR else t_sys.sidebands,
        "t_sys_star": _t_sys_star(scan),
        "pwv": _median(qa.get("pwv")),
        "pwv_error": _median(qa.get("pwv_error")),
        "pwv_error_noise": _median(qa.get("pwv_error_noise")),
        "t_a_star_error": _percent(_median(qa.get("t_a_star_error"))),
        "tau": None if tau is None else _median(tau),
        "rms_ratio": _median(qa.get("rms_ratio")),
        "flagged": _percent(flagged),
        "flags": " ".join(words),
    }


def _t_sys_star(scan: L1Scan) -> float | None:
    """T_sys* of the middle subscan, median over channels and pixels, K."""
    middle = scan["spectra"].shape[4] // 2
    array, factor = StoredTSys(scan).star_source(middle)
    return _median(pixel_medians(array, middle, factor, BUDGET_BYTES))


def _percent(value: float | None) -> float | None:
    return None if value is None else 100.0 * value


def _wrong_shapes(scan: L1Scan, label: str) -> list[str]:
    """Sentences about arrays whose shape does not match the spectra."""
    shape = scan["spectra"].shape
    if len(shape) != 5:
        return [f"{label}: spectra has {len(shape)} axes, expected five."]
    c, _, r, a, s = shape
    wanted = {"flags": shape, "t_rec": (c, r, a), "gamma": (c, r, a)}
    wanted |= dict.fromkeys(("t_sys", "t_sys_star"), (c, r, a, s))
    return [
        f"{label}: {name} has shape {scan[name].shape}, expected {size}."
        for name, size in wanted.items()
        if name in scan and scan[name].shape != size
    ]


def _recorded_failures(path: Path, chosen: Collection[int] | None) -> list[str]:
    """The failures that the last run wrote beside the scans."""
    try:
        entries = json.loads(read_document(path / "failures.json"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        return [f"failures.json cannot be read: {error}."]
    return [
        f"scan {e['scan']} failed in {e['stage']}: "
        f"{without_label(e['message'], e['scan'])} {e['hint']}".rstrip()
        for e in entries
        if chosen is None or e["scan"] in chosen
    ]
