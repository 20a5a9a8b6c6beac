"""Judge a run over a broken night against the run over the good one."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from builders.broken.night import spectra

from attacks.attack import (
    BLANKED,
    FLAGGED,
    NOTHING_DONE,
    PLAUSIBLE,
    REFUSED,
    ROUNDING,
    UNAFFECTED,
    WARNED,
    Attack,
)
from attacks.runner import Ended
from gpucal import open_l1

CHANNEL_SHIFT = 0.01
"""Of a channel: a frequency to float32 is as good."""
FOREIGN = re.compile(
    r"Traceback|NoneType|object at 0x|unexpected|\.\.$|"
    r"\b(Value|Type|Key|Index|Attribute|OS|Recursion|Overflow|ZeroDivision|Memory|Unicode|Assertion)Error\b"
)
"""What no sentence may hold: it tells of the program, not of the data."""
COMPARED = ("spectra", "t_sys", "t_rec", "pwv", "frequency", "image_frequency")
SILENT = "silently wrong"
CODES = frozenset({0, 1, 2, 64, 130})
MEMORY_FACTOR, MEMORY_MIB = 1.5, 64.0


@dataclass(frozen=True)
class Verdict:
    """outcome: one of those of attacks.attack, or the name of a fault; why: what was seen."""

    outcome: str
    why: str = ""


@dataclass(frozen=True)
class Clean:
    """The good night's run: its store, its exit code and words, its memory."""

    store: Path
    ended: Ended


def judge(attack: Attack, out: Path, ended: Ended, clean: Clean) -> Verdict:
    """The worst that happened: first how the run ended, then the good scans, then the victims."""
    fault = how_it_ended(ended, clean)
    if fault is not None:
        return fault
    asked = {int(n) for n in attack.scans.split(",")}
    good = sorted(asked - set(attack.victims))
    if ended.code in (1, 64) and not list(out.glob("scan_*")):
        lines = [x for x in ended.err.splitlines() if x.startswith("gpucal: error:")]
        if len(lines) == 1 and not FOREIGN.search(lines[0]):
            return Verdict(NOTHING_DONE, lines[0])
    for number in good:
        if not (out / f"scan_{number:06d}").is_dir():
            return Verdict("neighbour lost", f"scan {number}; {ended.said[-1500:]}")
        if spectra(out, number) != spectra(clean.store, number):
            return Verdict("neighbour changed", f"scan {number}; {ended.said[-1500:]}")
    if out.with_name(out.name + ".staging").exists():
        return Verdict("staging left")
    found = [_of_scan(number, out, ended, clean, attack.within) for number in attack.victims]
    if attack.cannot_be_seen:
        found = [replace(v, outcome=PLAUSIBLE) if v.outcome == SILENT else v for v in found]
    order = (UNAFFECTED, FLAGGED, BLANKED, PLAUSIBLE, WARNED, REFUSED)
    return max(found, key=lambda v: order.index(v.outcome) if v.outcome in order else len(order))


def how_it_ended(
    ended: Ended, clean: Clean | None = None, codes: frozenset[int] = CODES
) -> Verdict | None:
    """A fault of the process itself; None when there is none. codes: those that it may end with."""
    tail = ended.said[-3000:]
    if ended.hung:
        return Verdict("hung", f"after {ended.seconds:.0f} s: {tail}")
    if "Traceback" in ended.said:
        return Verdict("traceback", tail)
    if ended.code not in codes | CODES:
        return Verdict("died", f"exit code {ended.code}: {tail}")
    if clean is not None and ended.peak_mib > (MEMORY_FACTOR * clean.ended.peak_mib + MEMORY_MIB):
        return Verdict("memory", f"{ended.peak_mib:.0f} MiB, good: {clean.ended.peak_mib:.0f} MiB")
    for line in ended.err.splitlines():
        if FOREIGN.search(line):
            return Verdict("foreign sentence", line)
    if ended.code in (1, 2) and not ended.said.strip():
        return Verdict("no sentence", f"exit code {ended.code}")
    return None


def failures(out: Path) -> dict[int, dict[str, Any]]:
    """The entries of ``failures.json`` by scan."""
    path = out / "failures.json"
    entries = json.loads(path.read_text()) if path.exists() else []
    return {entry["scan"]: entry for entry in entries}


def warnings_of(said: str, number: int) -> set[str]:
    """Warnings and alarms of the final lines that name a scan."""
    found = set()
    for kind, scans, text in re.findall(r"^(warning|alarm) \(scans? ([^)]*)\): (.*)$", said, re.M):
        for part in scans.split(", "):
            first, _, last = part.partition("-")
            if int(first) <= number <= int(last or first):
                found.add(f"{kind}: {text}")
    return found


def _of_scan(number: int, out: Path, ended: Ended, clean: Clean, within: float) -> Verdict:
    failed = failures(out).get(number)
    there = (out / f"scan_{number:06d}").is_dir()
    if failed is not None:
        sentence = f"{failed['message']} {failed['hint']}"
        if FOREIGN.search(sentence):
            return Verdict("foreign sentence", sentence)
        if there:
            return Verdict("half refused", sentence)
        if ended.code not in (1, 2):
            return Verdict("wrong exit code", f"{ended.code}: {sentence}")
        return Verdict(REFUSED, sentence)
    if not there:
        return Verdict("lost", ended.said[-1500:])
    try:
        kind, how = _difference(_arrays(out, number), _arrays(clean.store, number), within)
    except Exception as error:  # whatever makes L1 unreadable is a fault of the run
        return Verdict("unreadable", f"{type(error).__name__}: {error}")
    said = warnings_of(ended.out, number) - warnings_of(clean.ended.out, number)
    foreign = [text for text in said if FOREIGN.search(text)]
    if foreign:
        return Verdict("foreign sentence", foreign[0])
    if kind == "differs":
        return Verdict(WARNED if said else SILENT, f"{how}; {sorted(said)}")
    return Verdict(kind, f"{how}; {sorted(said)}")


def _arrays(store: Path, number: int) -> dict[str, Any]:
    scan = open_l1(store).scan(number)
    names = (*COMPARED, "flags", "pwv_error")
    return {name: np.asarray(scan[name][...]) for name in names if name in scan}


def _difference(found: dict[str, Any], good: dict[str, Any], within: float) -> tuple[str, str]:
    """What kind of difference there is, and in words where and how large."""
    if found.keys() != good.keys():
        return "differs", f"arrays {sorted(found.keys() ^ good.keys())}"
    for name in COMPARED:
        if name in good and found[name].shape != good[name].shape:
            return "differs", f"{name} has shape {found[name].shape}, not {good[name].shape}"
    scale = float(np.nanmedian(good["t_sys"]))
    kind = UNAFFECTED
    for name in COMPARED:
        if name not in good:
            continue
        a, b = found[name].astype(float), good[name].astype(float)
        size = np.abs(b) + (scale if name == "spectra" else 0.0)
        rounding = within * size
        if name == "pwv" and within > ROUNDING:
            rounding = np.fmax(rounding, good["pwv_error"])
        if "freq" in name:
            rounding = CHANNEL_SHIFT * np.abs(b.reshape(-1)[1] - b.reshape(-1)[0]) + 0.0 * b
        with np.errstate(invalid="ignore"):
            apart = ~(np.abs(a - b) <= rounding) & ~np.isnan(a)
            lost = np.isnan(a) & ~np.isnan(b)
        if name == "spectra":
            marked = (found["flags"] != 0) & (found["flags"] != good["flags"])
            if (apart & marked).any():
                kind = FLAGGED
            apart &= ~marked
            if lost.any():
                kind = BLANKED
        if apart.any():
            worst = np.nanmax(np.abs(a - b)[apart]) if np.isfinite(b[apart]).any() else np.nan
            return "differs", f"{name}: {int(apart.sum())} of {apart.size}, up to {worst:.4g}"
        if lost.any():
            kind = BLANKED
    return kind, ""
