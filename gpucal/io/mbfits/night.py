"""Which scans there are, their numbers, and which calibration scan serves which.

Source: docs/reference/mbfits.md, scans.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpucal.errors import ImportFormatError
from gpucal.io.fits.units import mjd_of
from gpucal.io.incoming.file_index import FileIndex
from gpucal.io.incoming.protocol import Lost
from gpucal.io.mbfits.dataset import Dataset, Key, known, read_dataset
from gpucal.io.mbfits.roles import leads_of, member_like, members_below

FACTS = "mbfits/1"
SAME_TUNING = 2e-4
CAL_RULES = ("earlier", "nearest")
DAY_STEP = 10_000_000
"""What is added to the number of a scan that another telescope run has used before."""


@dataclass(frozen=True)
class NightScan:
    """A scan: its number in the store and that of the telescope, where it lies, and what the pairing needs.

    mjd: begin, in the time system of the files; bands: FEBE, baseband -> sky frequency, Hz
    """

    number: int
    scan: int
    lead: Path
    mjd: float
    project: str
    telescope: str
    is_load: bool
    bands: dict[Key, float]


def about(lead: Path) -> dict[str, Any]:
    """For the index of files: what NightScan holds, or ``trouble``: why the scan cannot be used."""
    try:
        dataset = read_dataset(lead)
        try:
            return _facts(dataset)
        finally:
            dataset.close()
    except ImportFormatError as error:
        return {"trouble": [error.message, error.hint, error.scan, error.subscan]}


def _facts(dataset: Dataset) -> dict[str, Any]:
    kinds = {kind_of(dataset, n).upper() for n in dataset.subscans}
    bands: list[list[Any]] = []
    for key in dataset.keys:
        unit = next(t.arrays[key] for t in dataset.subscans.values() if key in t.arrays)
        sky = unit.number("1CRVL2S", unit.number("1CRVL2F", -1.0))
        bands.append([*key, sky if known(sky) else -1.0])
    return {
        "scan": dataset.number,
        "mjd": _begin(dataset),
        "project": dataset.text("PROJID"),
        "telescope": dataset.telescope,
        "is_load": bool({"HOT"} & kinds),
        "bands": bands,
    }


def _begin(dataset: Dataset) -> float:
    mjd = dataset.scan.number("MJD", dataset.primary.number("MJD-OBS", -1.0))
    if known(mjd) and 40000.0 < mjd < 80000.0:
        return float(mjd)
    text = dataset.text("DATE-OBS")
    return mjd_of(text, dataset.scan, "DATE-OBS") if text else -1.0


def kind_of(dataset: Dataset, number: int) -> str:
    """What a subscan is: SUBSTYPE, before version 1.63 OBSTYPE; "" where neither is told."""
    for pars in dataset.subscans[number].datapars.values():
        word = pars.text("SUBSTYPE") or pars.text("OBSTYPE")
        if word:
            return word
    return ""


def scans_of(files: Sequence[Path], index: FileIndex, lost: list[Lost]) -> list[NightScan]:
    """All scans, in order of time; what cannot be used, or is there twice, is added to ``lost``."""
    found = leads_of(files, index)
    for orphan in found.orphans:
        error = ImportFormatError(
            f"{orphan} is a part of a scan in a folder, in which there is neither GROUPING.fits nor SCAN.fits.",
            hint="Give the folder of the scan, and copy it again if it is not whole.",
        )
        lost.append(Lost(None, "", error))
    known_scans: list[NightScan] = []
    for lead in found.leads:
        facts = index.facts(lead, FACTS + _state_of_members(lead), about)
        if "trouble" in facts:
            message, hint, scan, subscan = facts["trouble"]
            error = ImportFormatError(message, hint=hint, scan=scan, subscan=subscan)
            lost.append(Lost(scan, "", error))
            continue
        values = {**facts, "bands": {(f, b): nu for f, b, nu in facts["bands"]}}
        known_scans.append(NightScan(number=values["scan"], lead=lead, **values))
    return _each_once(known_scans, lost)


def _state_of_members(lead: Path) -> str:
    """Digest of the sizes and times of the files of a folder, of which the index sees the first alone."""
    if not member_like(lead.name):
        return ""
    states = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in members_below(lead.parent)]
    return " " + hashlib.sha256(repr(states).encode()).hexdigest()[:16]


def _each_once(scans: Sequence[NightScan], lost: list[Lost]) -> list[NightScan]:
    """Scans in order of time; of two of one number and telescope that began at once the second is lost.

    One number at two times (the telescope began to count again): the later ones get DAY_STEP added for each before.
    """
    kept: list[NightScan] = []
    by_number: dict[int, list[NightScan]] = {}
    for scan in sorted(scans, key=lambda s: (s.mjd, s.scan, str(s.lead))):
        before = by_number.setdefault(scan.scan, [])
        twin = next((b for b in before if abs(b.mjd - scan.mjd) < 1e-6), None)
        if twin is not None:
            error = ImportFormatError(
                f"{scan.lead} is the scan of {twin.lead} once more.",
                hint="Import one of them.",
                scan=scan.scan,
            )
            lost.append(Lost(scan.scan, "", error))
            continue
        number = scan.scan + DAY_STEP * len(before)
        made = NightScan(**{**scan.__dict__, "number": number})
        before.append(made)
        kept.append(made)
    return kept


def calibrations_for(
    scan: NightScan, key: Key, sky_hz: float, loads: Sequence[NightScan], rule: str
) -> list[NightScan]:
    """The calibration scans that may serve a band of a scan, best first: of its project, FEBE, baseband and tuning.

    rule "earlier": the nearest earlier ones, then the nearest later ones; "nearest": in the order of distance in time.
    """
    good = [
        c
        for c in loads
        if c.number != scan.number
        and (c.project, c.telescope) == (scan.project, scan.telescope)
        and abs(c.bands.get(key, np.inf) / sky_hz - 1.0) <= SAME_TUNING
    ]
    if rule == "nearest":
        return sorted(good, key=lambda c: (abs(c.mjd - scan.mjd), c.mjd))
    return sorted(good, key=lambda c: (c.mjd > scan.mjd, abs(c.mjd - scan.mjd)))
