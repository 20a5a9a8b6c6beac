"""Which GBT scans form which L0 scan: nods and position switches, frequency switching, loads.

Source: GBT observer's guide (procedures, OBSMODE, PROCSEQN), GBT Memo 302 (vane and sky, W-band
calibration sequence).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from gpucal.errors import GpucalWarning, ImportFormatError
from gpucal.io.fits.sdfits_read import SdfitsRows
from gpucal.io.gbt.arrays import I64, W_BAND, PlannedSubscan

PAIR_MODES = {"Nod": ("NOD-1", "NOD-2"), "OnOff": ("ON", "OFF"), "OffOn": ("OFF", "ON")}
WARM_POSITION = {0: "cold2", 1: "cold1"}
"""W-band: where the calibration wheel shows each feed (FDNUM) its warm load."""


@dataclass(frozen=True, eq=False)
class PlannedScan:
    """One scan of the L0 store.

    number    scan number in the store (of the first GBT scan in it; of the vane for loads)
    kind      "NOD", "PSW" (position switch), "FSW" or "LOAD"
    scans     the GBT scans in it
    subscans  in the order of the store
    """

    number: int
    kind: str
    scans: tuple[int, ...]
    subscans: tuple[PlannedSubscan, ...]

    @property
    def rows(self) -> I64:
        """All rows of the scan."""
        return np.concatenate([s.rows for s in self.subscans])


def plan_scans(rows: SdfitsRows) -> list[PlannedScan]:
    """Group the rows of a night into L0 scans, in the order of their numbers.

    Scans of other procedures (also a Track without frequency switching), half pairs and sky scans
    without a vane are left out with a GpucalWarning. Raises
    ImportFormatError for noise-diode rows (CAL=T), rows that are there twice, a scan number used by
    two projects, or when nothing is left.
    """
    _check_rows(rows)
    numbers = np.unique(rows["SCAN"])
    index = {int(n): np.nonzero(rows["SCAN"] == n)[0] for n in numbers}
    role = {n: _role(rows, i) for n, i in index.items()}
    planned = _vane_scans(index, role)
    order = sorted(index)
    for position, n in enumerate(order):
        i = index[n]
        if role[n] == "CALSEQ":
            planned.append(_calibration_sequence(rows, n, i))
        elif role[n] == "FSW":
            phases = (("FSW-SIG", "T"), ("FSW-REF", "F"))
            parts = tuple(PlannedSubscan(m, i[rows["SIG"][i] == v]) for m, v in phases)
            planned.append(PlannedScan(n, "FSW", (n,), parts))
        elif role[n] in PAIR_MODES:
            pair = _pair(rows, index, role, order[position : position + 2])
            if pair is not None:
                planned.append(pair)
        elif role[n] not in ("VANE", "SKY", "second"):
            _warn(
                f"scan {n} is a {role[n]} without a reference of its own that is known here: it is "
                "left out."
            )
    if not planned:
        raise ImportFormatError(
            "no scan can be imported.",
            hint="Known: Nod, OnOff, OffOn, frequency switching, vane and sky, W-band CALSEQ.",
        )
    return sorted(planned, key=lambda p: p.number)


def _warn(text: str) -> None:
    warnings.warn(text, GpucalWarning, stacklevel=4)


def _check_rows(rows: SdfitsRows) -> None:
    diode = np.nonzero(rows["CAL"] == "T")[0]
    if diode.size:
        raise ImportFormatError(
            f"{diode.size} rows were taken with the noise diode on (CAL=T), expected CAL=F only.",
            hint="Only data calibrated with a vane or with hot and cold loads can be imported; "
            "calibrate the others with dysh or GBTIDL.",
            scan=int(rows["SCAN"][diode[0]]),
        )
    for name in ("CRVAL1", "CRPIX1", "CDELT1", "EXPOSURE", "ELEVATIO", "AZIMUTH", "MJD"):
        bad = np.nonzero(~np.isfinite(rows[name]))[0]
        if bad.size:
            raise ImportFormatError(
                f"column {name} is not a number in {bad.size} rows, expected one in each.",
                scan=int(rows["SCAN"][bad[0]]),
            )
    other = np.nonzero(rows["CTYPE1"] != "FREQ-OBS")[0]
    if other.size:
        raise ImportFormatError(
            f"CTYPE1 is '{rows['CTYPE1'][other[0]]}', expected 'FREQ-OBS' (sky frequency).",
            scan=int(rows["SCAN"][other[0]]),
        )
    seen: set[tuple[object, ...]] = set()
    projects: dict[int, str] = {}
    keys = ("SCAN", "IFNUM", "PLNUM", "FDNUM", "SIG", "DATE-OBS", "PROJID")
    for row in zip(*(rows[k].tolist() for k in keys), strict=True):
        scan, project = int(row[0]), str(row[-1])
        if projects.setdefault(scan, project) != project:
            raise ImportFormatError(
                f"the scan number is used by the projects {projects[scan]} and {project}.",
                hint="Import one project at a time.",
                scan=scan,
            )
        if row in seen:
            raise ImportFormatError(
                f"the spectrum of IFNUM {row[1]}, PLNUM {row[2]}, FDNUM {row[3]} at {row[5]} is "
                "there twice.",
                hint="Give each file once.",
                scan=scan,
            )
        seen.add(row)


def check_load_spectra(rows: SdfitsRows, scan: PlannedScan) -> None:
    """Raise ImportFormatError when a load has no number in any channel of any feed.

    Warns (GpucalWarning) about single feeds and polarisations without one. Other scans pass.
    """
    if scan.kind != "LOAD":
        return
    for subscan in scan.subscans:
        i = subscan.rows
        bad = np.array([not np.isfinite(rows.spectrum(int(n))).any() for n in i])
        if bad.all():
            raise ImportFormatError(
                f"none of the {i.size} {subscan.mode} spectra holds a number (NaN in all channels).",
                hint="Leave the files of this scan out, or import with --no-flags if flags did it.",
                scan=scan.number,
            )
        dead = sorted({int(n) for n in rows["FDNUM"][i[bad]]})
        if dead:
            _warn(
                f"scan {scan.number}: {int(bad.sum())} of {i.size} {subscan.mode} spectra hold no "
                f"number (FDNUM {', '.join(map(str, dead))}): those cannot be calibrated."
            )


def _role(rows: SdfitsRows, i: I64) -> str:
    """What a GBT scan is: VANE, SKY, CALSEQ, FSW, second (of a pair), or its procedure's name."""
    first = i[0]
    procedure = str(rows["OBSMODE"][first]).partition(":")[0]
    target = str(rows["OBJECT"][first]).upper()
    if procedure.upper() == "CALSEQ" and rows["FRONTEND"][first] == W_BAND:
        return "CALSEQ"
    if target == "VANE" or np.any(np.char.lower(rows["CALPOSITION"][i]) == "vane"):
        return "VANE"
    if target == "SKY":
        return "SKY"
    if set(rows["SIG"][i].tolist()) == {"T", "F"}:
        return "FSW"
    if procedure in PAIR_MODES and rows["PROCSIZE"][first] == 2:
        return procedure if rows["PROCSEQN"][first] == 1 else "second"
    return procedure or "scan without OBSMODE"


def _vane_scans(index: dict[int, I64], role: dict[int, str]) -> list[PlannedScan]:
    """Each vane scan with the sky scan right after it, or else right before it."""
    order = sorted(index)
    vanes = [n for n in order if role[n] == "VANE"]
    free = {n for n in order if role[n] == "SKY"}
    planned = []
    for vane in vanes:
        near = order.index(vane)
        beside = (*order[near + 1 : near + 2], *order[max(near - 1, 0) : near])
        sky = next((n for n in beside if n in free), None)
        parts = [PlannedSubscan("HOT", index[vane])]
        if sky is not None:
            free.discard(sky)
            parts.append(PlannedSubscan("SKY", index[sky]))
        scans = (vane,) if sky is None else (vane, sky)
        planned.append(PlannedScan(vane, "LOAD", scans, tuple(parts)))
    for n in sorted(free):
        _warn(f"scan {n} looks at the sky, but no vane scan is beside it: it is left out.")
    return planned


def _calibration_sequence(rows: SdfitsRows, number: int, i: I64) -> PlannedScan:
    """W-band CALSEQ: each feed has its own warm and cold positions of the wheel."""
    position = np.char.lower(rows["CALPOSITION"][i])
    feed = rows["FDNUM"][i]
    strange = sorted(set(feed.tolist()) - set(WARM_POSITION))
    if strange:
        raise ImportFormatError(
            f"W-band has the feeds 0 and 1, but FDNUM {strange[0]} is there.", scan=number
        )
    warm = np.array([WARM_POSITION[f] for f in feed.tolist()])
    on_load = np.isin(position, ["cold1", "cold2"])
    choice = {
        "HOT": on_load & (position == warm),
        "COLD": on_load & (position != warm),
        "SKY": position == "observing",
    }
    for mode, mask in choice.items():
        if not mask.any():
            raise ImportFormatError(
                f"the calibration sequence has no {mode} rows, expected CALPOSITION Cold1, Cold2 "
                "and Observing.",
                scan=number,
            )
    parts = tuple(PlannedSubscan(mode, i[mask]) for mode, mask in choice.items())
    return PlannedScan(number, "LOAD", (number,), parts)


def _pair(
    rows: SdfitsRows, index: dict[int, I64], role: dict[int, str], numbers: list[int]
) -> PlannedScan | None:
    """The two GBT scans of a switched pair as one scan; None, with a warning, when one is missing."""
    first = numbers[0]
    procedure = role[first]
    same = len(numbers) == 2 and role[numbers[1]] == "second"
    if same:
        a, b = (index[n][0] for n in numbers)
        same = rows["OBSMODE"][a] == rows["OBSMODE"][b] and rows["OBJECT"][a] == rows["OBJECT"][b]
    if not same:
        _warn(f"scan {first} is the first half of a {procedure} without its second: left out.")
        return None
    parts = tuple(
        PlannedSubscan(mode, index[n])
        for mode, n in zip(PAIR_MODES[procedure], numbers, strict=True)
    )
    return PlannedScan(first, "NOD" if procedure == "Nod" else "PSW", tuple(numbers), parts)
