"""Which GBT scans form which L0 scan: nods and position switches, frequency switching, loads.

Source: GBT observer's guide (procedures, OBSMODE, PROCSEQN), GBT Memo 302 (vane and sky, W-band
calibration sequence). OBSMODE is PROCEDURE:SWITCH STATE:SWITCHING SIGNAL; the two halves of a real
position switch differ in the second word (PSWITCHON, PSWITCHOFF).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from gpucal.errors import GpucalWarning, ImportFormatError
from gpucal.io.fits.column_units import COUNT_UNITS
from gpucal.io.fits.sdfits_read import UNIT, SdfitsRows
from gpucal.io.gbt.arrays import I64, W_BAND, PlannedSubscan
from gpucal.io.gbt.observations import SECONDS_PER_DAY, Observation, observations
from gpucal.io.gbt.pairs import PAIR_MODES, procedure_of, second_half, states_fit
from gpucal.io.incoming.protocol import Lost
from gpucal.io.l0.checks import LONGEST_GAP_S

WARM_POSITION = {0: "cold2", 1: "cold1"}
"""W-band: where the calibration wheel shows each feed (FDNUM) its warm load."""


@dataclass(frozen=True, eq=False)
class GbtScan:
    """One scan of the L0 store.

    number    scan number in the store (of the first GBT scan in it; of the vane for loads)
    kind      "NOD", "PSW" (position switch), "FSW" or "LOAD"
    scans     the GBT scans in it
    subscans  in the order of the store
    begin     MJD at which it began
    """

    number: int
    kind: str
    scans: tuple[int, ...]
    subscans: tuple[PlannedSubscan, ...]
    begin: float

    @property
    def rows(self) -> I64:
        """All rows of the scan."""
        return np.concatenate([s.rows for s in self.subscans])


@dataclass(frozen=True, eq=False)
class Plan:
    """The scans to import, in the order of their numbers, and what was lost."""

    scans: list[GbtScan]
    lost: list[Lost] = field(default_factory=list)


def plan_scans(rows: SdfitsRows) -> Plan:
    """Group the rows of a night into L0 scans.

    A scan with rows that cannot be used (noise diode, calibrated spectra, no antenna data, rows that
    are there twice ...) is lost, the others are planned. Scans of other procedures (also a Track without
    frequency switching), half pairs and sky scans without a vane are left out with a GpucalWarning.
    Raises ImportFormatError for a scan number used by two projects, or when nothing is left.
    """
    _check_projects(rows)
    lost: list[Lost] = []
    good: list[Observation] = []
    every = observations(rows, np.arange(len(rows)))
    for seen in every:
        trouble = _trouble(rows, seen)
        if trouble is None:
            good.append(seen)
        else:
            lost.append(Lost(seen.scan, "", trouble.locate(scan=seen.scan)))
    _tell_repeats(good)
    role = {o.number: _role(rows, o.rows) for o in good}
    planned = _vane_scans(rows, every, role)
    paired: set[int] = set()
    gone = {o.scan for o in lost}
    for seen in good:
        kind = role[seen.number]
        if kind == "CALSEQ":
            try:
                planned.append(_calibration_sequence(rows, seen))
            except ImportFormatError as error:
                lost.append(Lost(seen.scan, "", error))
        elif kind == "FSW":
            phases = (("FSW-SIG", "T"), ("FSW-REF", "F"))
            parts = tuple(
                PlannedSubscan(m, seen.rows[rows["SIG"][seen.rows] == v]) for m, v in phases
            )
            planned.append(_planned("FSW", [seen], parts))
        elif kind in PAIR_MODES:
            second = second_half(rows, role, seen, every)
            if second is None:
                _warn(f"{seen.label} is the first half of a {kind} without its second: left out.")
            elif states_fit(rows, kind, (seen, second)):
                parts = tuple(
                    PlannedSubscan(m, o.rows)
                    for m, o in zip(PAIR_MODES[kind], (seen, second), strict=True)
                )
                planned.append(_planned("NOD" if kind == "Nod" else "PSW", [seen, second], parts))
            if second is not None:
                paired.add(second.number)
        elif kind == "second" and seen.number not in paired and seen.scan - 1 not in gone:
            _warn(f"{seen.label} is the second half of a pair without its first: left out.")
        elif kind not in ("VANE", "SKY", "second"):
            _warn(
                f"{seen.label} is a {kind} without a reference of its own that is known here: it is "
                "left out."
            )
    if not planned:
        if lost:
            raise lost[0].error
        raise ImportFormatError(
            "no scan can be imported.",
            hint="Known: Nod, OnOff, OffOn, frequency switching, vane and sky, W-band CALSEQ.",
        )
    return Plan(sorted(planned, key=lambda p: p.number), lost)


def _planned(kind: str, seen: Sequence[Observation], subscans: Sequence[PlannedSubscan]) -> GbtScan:
    scans = tuple(o.scan for o in seen)
    return GbtScan(seen[0].number, kind, scans, tuple(subscans), seen[0].begin)


def _warn(text: str) -> None:
    warnings.warn(text, GpucalWarning, stacklevel=4)


def _tell_repeats(good: Sequence[Observation]) -> None:
    for o in good:
        if o.number != o.scan:
            text = f"scan number {o.scan} comes again later in the session"
            _warn(f"{text}: that scan is {o.number} here.")


def _check_projects(rows: SdfitsRows) -> None:
    """One session of one project: the numbers of two mean different scans."""
    projects: dict[int, str] = {}
    for scan, project in zip(rows["SCAN"].tolist(), rows["PROJID"].tolist(), strict=True):
        if projects.setdefault(scan, project) != project:
            text = f"the scan number is used by the projects {projects[scan]} and {project}."
            raise ImportFormatError(text, hint="Import one project at a time.", scan=scan)


def _trouble(rows: SdfitsRows, seen: Observation) -> ImportFormatError | None:
    """Why the rows of a scan cannot be used; None when they can."""
    checks = (_diode, _not_counts, _not_numbers, _no_antenna, _other_axis, _twice)
    return next((e for check in checks if (e := check(rows, seen.rows)) is not None), None)


Check = Callable[[SdfitsRows, I64], ImportFormatError | None]


def _diode(rows: SdfitsRows, i: I64) -> ImportFormatError | None:
    n = int((rows["CAL"][i] == "T").sum())
    if not n:
        return None
    return ImportFormatError(
        f"{n} rows were taken with the noise diode on (CAL=T), expected CAL=F only.",
        hint="Only data calibrated with a vane or with hot and cold loads can be imported; "
        "calibrate the others with dysh or GBTIDL.",
    )


def _not_counts(rows: SdfitsRows, i: I64) -> ImportFormatError | None:
    units = sorted({u for u in rows[UNIT][i].tolist() if u.lower() not in COUNT_UNITS})
    if not units:
        return None
    return ImportFormatError(
        f"the unit of DATA is {', '.join(units)}, expected counts: these spectra are calibrated "
        "already.",
        hint="Import the raw file (.raw.) of the session.",
    )


def _not_numbers(rows: SdfitsRows, i: I64) -> ImportFormatError | None:
    for name in ("CRVAL1", "CRPIX1", "CDELT1", "EXPOSURE", "ELEVATIO", "AZIMUTH", "MJD"):
        bad = int((~np.isfinite(rows[name][i])).sum())
        if not bad:
            continue
        if name == "MJD":
            text = str(rows["DATE-OBS"][i][~np.isfinite(rows[name][i])][0])
            found = f"DATE-OBS {text!r} cannot be read, expected YYYY-MM-DDThh:mm:ss.ss"
            return ImportFormatError(f"{found} ({bad} rows).")
        return ImportFormatError(
            f"column {name} is not a number in {bad} rows, expected one in each."
        )
    return None


def _no_antenna(rows: SdfitsRows, i: I64) -> ImportFormatError | None:
    """Where the antenna's files were missing, the filler writes zeros."""
    missing = (rows["ELEVATIO"][i] == 0.0) & (rows["AZIMUTH"][i] == 0.0)
    if not missing.any():
        return None
    return ImportFormatError(
        f"the pointing is missing in {int(missing.sum())} of {i.size} rows (ELEVATIO and AZIMUTH are "
        "0): the antenna's data were not there when the file was filled.",
        hint="Fill the session again with the antenna's FITS files in place.",
    )


def _other_axis(rows: SdfitsRows, i: I64) -> ImportFormatError | None:
    other = rows["CTYPE1"][i][rows["CTYPE1"][i] != "FREQ-OBS"]
    if not other.size:
        return None
    return ImportFormatError(f"CTYPE1 is '{other[0]}', expected 'FREQ-OBS' (sky frequency).")


def _twice(rows: SdfitsRows, i: I64) -> ImportFormatError | None:
    seen: set[tuple[object, ...]] = set()
    keys = ("IFNUM", "PLNUM", "FDNUM", "SIG", "DATE-OBS")
    for row in zip(*(rows[k][i].tolist() for k in keys), strict=True):
        if row in seen:
            return ImportFormatError(
                f"the spectrum of IFNUM {row[0]}, PLNUM {row[1]}, FDNUM {row[2]} at {row[4]} is "
                "there twice.",
                hint="Give each file once.",
            )
        seen.add(row)
    return None


def check_load_spectra(rows: SdfitsRows, scan: GbtScan) -> None:
    """Raise ImportFormatError when a load has no number in any channel of any feed.

    Warns (GpucalWarning) about single feeds and polarisations without one. Other scans pass.
    """
    if scan.kind != "LOAD":
        return
    for subscan in scan.subscans:
        i = subscan.rows
        bad = np.array([not np.isfinite(rows.spectrum(int(n))).any() for n in i])
        if bad.all():
            text = (
                f"none of the {i.size} {subscan.mode} spectra holds a number (NaN in all channels)."
            )
            hint = "Leave the files of this scan out, or import with --no-flags if flags did it."
            raise ImportFormatError(text, hint=hint, scan=scan.number)
        dead = sorted({int(n) for n in rows["FDNUM"][i[bad]]})
        if dead:
            _warn(
                f"scan {scan.number}: {int(bad.sum())} of {i.size} {subscan.mode} spectra hold no "
                f"number (FDNUM {', '.join(map(str, dead))}): those cannot be calibrated."
            )


def _role(rows: SdfitsRows, i: I64) -> str:
    """What a GBT scan is: VANE, SKY, CALSEQ, FSW, second (of a pair), or its procedure's name."""
    first = i[0]
    procedure = procedure_of(rows, int(first))
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


def _vane_scans(
    rows: SdfitsRows, every: Sequence[Observation], role: dict[int, str]
) -> list[GbtScan]:
    """Each vane scan with the sky scan of its setup right after it, or else right before it.

    ``every``: all scans in order of time; those that cannot be used have no role. A sky observed hours
    away from the vane does not belong to it.
    """
    free = {o.number for o in every if role.get(o.number) == "SKY"}
    planned = []
    for near, vane in enumerate(every):
        if role.get(vane.number) != "VANE":
            continue
        beside = (*every[near + 1 : near + 2], *every[max(near - 1, 0) : near])
        sky = next(
            (
                o
                for o in beside
                if o.number in free
                and _same_setup(rows, vane, o)
                and abs(o.begin - vane.begin) * SECONDS_PER_DAY < LONGEST_GAP_S
            ),
            None,
        )
        parts = [PlannedSubscan("HOT", _one_phase(rows, vane.rows))]
        if sky is not None:
            free.discard(sky.number)
            parts.append(PlannedSubscan("SKY", _one_phase(rows, sky.rows)))
        planned.append(_planned("LOAD", [vane] if sky is None else [vane, sky], parts))
    for o in every:
        if o.number in free:
            _warn(f"{o.label} looks at the sky, but no vane scan is beside it: it is left out.")
    return planned


def _one_phase(rows: SdfitsRows, i: I64) -> I64:
    """The signal phase of loads that were taken while the frequency was switched; a load has no line."""
    signal = rows["SIG"][i] == "T"
    return i[signal] if signal.any() else i


def _same_setup(rows: SdfitsRows, a: Observation, b: Observation) -> bool:
    """Whether two scans share a band, and all they share has the same channels."""
    setups = []
    for o in (a, b):
        names = zip(rows["FRONTEND"][o.rows].tolist(), rows["IFNUM"][o.rows].tolist(), strict=True)
        setups.append(dict(zip(names, rows.n_channels[o.rows].tolist(), strict=True)))
    shared = setups[0].keys() & setups[1].keys()
    return bool(shared) and all(setups[0][k] == setups[1][k] for k in shared)


def _calibration_sequence(rows: SdfitsRows, seen: Observation) -> GbtScan:
    """W-band CALSEQ: each feed has its own warm and cold positions of the wheel."""
    i, number = seen.rows, seen.scan
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
    return _planned("LOAD", [seen], parts)
