"""What each subscan of a scan is for gpucal: load, ON, OFF, phases of a switch; ON and OFF are told by their offsets.

Source: docs/reference/imbfits.md, subscans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpucal.errors import ImportFormatError
from gpucal.io.imbfits.dumps import Dumps, cycles
from gpucal.io.imbfits.file import ImbFile, SubscanTables
from gpucal.io.imbfits.pointing import Trace
from gpucal.io.incoming.assumptions import Assumptions

F64 = npt.NDArray[np.float64]
LOADS = {"calambient": "HOT", "calcold": "COLD", "calsky": "SKY"}
ON_THE_FLY = ("onthefly", "otf")
SKIPPED = ("calpaddle", "calgrid", "slewelevation", "slew", "tune")
PROCEDURES = {
    "calibrate": "calibration",
    "calibration": "calibration",
    "onoff": "on-off",
    "track": "on-off",
    "ontheflymap": "otf",
    "onthefly": "otf",
    "pointing": "pointing",
    "focus": "focus",
    "tip": "skydip",
    "tiptau": "skydip",
}
"""OBSTYPE, in lower case -> obs_procedure."""
SWITCHES = {
    "totalpower": "total",
    "wobblerswitching": "wobbler",
    "frequencyswitching": "frequency",
    "beamswitching": "beam",
}
SAME_PLACE_BEAMS = 0.1
SAME_DISTANCE = 0.1
"""Two places whose distances from the source differ by less than this share of it are as far as each other."""
ARCSEC = 3600.0


@dataclass(frozen=True, eq=False)
class Subscan:
    """A subscan that can be used: its tables, its trace, its good dumps."""

    tables: SubscanTables
    trace: Trace
    dumps: Dumps

    @property
    def number(self) -> int:
        """OBSNUM."""
        return self.tables.number

    @property
    def kind(self) -> str:
        """SUBSTYPE in lower case."""
        return self.trace.kind.lower()

    def place(self) -> F64:
        """Median offset (lon, lat), deg."""
        at = self.trace.at(self.dumps.mjd)
        return np.array([np.median(at["lon"]), np.median(at["lat"])])


@dataclass(frozen=True, eq=False)
class Observed:
    """A subscan of L0: its sobsmode and dumps.

    chop   phase of each dump, 0 on the source in WSW-ON, or None; phase 1, 2 of a frequency switch, 0 for none
    origin offset of a nod, deg, which is taken off
    """

    subscan: Subscan
    mode: str
    dumps: Dumps
    chop: npt.NDArray[np.uint8] | None = None
    phase: int = 0
    origin: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, eq=False)
class Sorted:
    """The subscans of a scan: those of ``source/`` and ``calibration/``, and sentences about what was left out."""

    procedure: str
    switch: str
    source: list[Observed]
    loads: list[Observed]
    remarks: list[str]


def sorted_out(
    file: ImbFile, subscans: Sequence[Subscan], beam_deg: float, assumed: Assumptions
) -> Sorted:
    """The mode of each subscan; ImportFormatError where it cannot be told."""
    procedure = procedure_of(file)
    switch = _switch(file, subscans)
    loads = [Observed(s, LOADS[s.kind], s.dumps) for s in subscans if s.kind in LOADS]
    remarks: list[str] = []
    science = []
    for s in subscans:
        if s.kind in LOADS:
            continue
        if s.kind in SKIPPED:
            remarks.append(f"subscan {s.number} ({s.trace.kind}) is left out")
        elif procedure == "skydip" and s.kind == "airmass":
            loads.append(Observed(s, "SKY", s.dumps))
        elif s.kind in (*ON_THE_FLY, "track", "onfocus"):
            science.append(s)
        else:
            raise ImportFormatError(
                f"subscan {s.number} is of the kind {s.trace.kind!r}, expected one of {', '.join(LOADS)}, track, "
                "onTheFly, onFocus, airmass (SUBSTYPE).",
                subscan=s.number,
            )
    if procedure in ("calibration", "skydip") and science:
        remarks.append(f"{len(science)} subscans of a {procedure} that are none are left out")
        science = []
    makers = {"total": _total, "wobbler": _wobbler, "frequency": _frequency}
    source = makers[switch](science, procedure, beam_deg, assumed, remarks) if science else []
    return Sorted(procedure, switch, source, sorted(loads, key=_when), remarks)


def procedure_of(file: ImbFile) -> str:
    """The procedure of a scan; ImportFormatError for an OBSTYPE that is not known."""
    word = file.obstype
    known = PROCEDURES.get(word.lower().replace("_", ""))
    if known is None:
        raise ImportFormatError(
            f"{file.path} is of the kind {word!r} (OBSTYPE), expected calibrate, onOff, onTheFlyMap, track, pointing, "
            "focus or tip."
        )
    return known


def _when(observed: Observed) -> float:
    return float(observed.dumps.mjd.mean())


def _switch(file: ImbFile, subscans: Sequence[Subscan]) -> str:
    """ "total", "wobbler" or "frequency", as SWTCHMOD says; without it there may be one phase only."""
    units = [file.scan, file.primary, file.frontend, *(s.tables.data for s in subscans[:1])]
    words = [u.text("SWTCHMOD") for u in units if u is not None and u.text("SWTCHMOD")]
    phases = max((int(s.dumps.phase.max()) for s in subscans if s.kind not in LOADS), default=1)
    if not words:
        if phases > 1:
            raise ImportFormatError(
                f"{file.path} has dumps of {phases} phases (ISWITCH), but no SWTCHMOD."
            )
        return "total"
    known = SWITCHES.get(words[0].lower())
    if known is None or (known == "beam" and phases > 1):
        raise ImportFormatError(
            f"{file.path} was observed with the switching mode {words[0]!r} (SWTCHMOD), expected totalPower, "
            "wobblerSwitching or frequencySwitching."
        )
    if known in ("total", "beam"):
        if phases > 1:
            raise ImportFormatError(
                f"{file.path} has dumps of {phases} phases (ISWITCH), but its SWTCHMOD is {words[0]!r}."
            )
        return "total"
    return known


def _total(
    science: Sequence[Subscan],
    procedure: str,
    beam_deg: float,
    assumed: Assumptions,
    remarks: list[str],
) -> list[Observed]:
    """Without a switch: rows of a map with their references, or places told apart by their offsets."""
    moving = [s for s in science if s.kind in ON_THE_FLY]
    if moving:
        modes = {s.number: "OTF-ON" if s in moving else "OTF-OFF" for s in science}
        assumed.note("track subscans", "the reference", "the scan has onTheFly subscans")
    elif procedure == "focus":
        modes = {s.number: "OFF" if s.kind == "track" else "ON" for s in science}
    else:
        modes = _by_place(science, beam_deg, assumed)
    return [Observed(s, modes[s.number], s.dumps) for s in science]


def _by_place(science: Sequence[Subscan], beam_deg: float, assumed: Assumptions) -> dict[int, str]:
    """ON where the telescope was nearest to the source, OFF where it was farther; ImportFormatError in doubt."""
    places = _clusters(science, SAME_PLACE_BEAMS * beam_deg)
    distance = [float(np.hypot(*place)) for place, _ in places]
    order = np.argsort(distance)
    said = ", ".join(f"({p[0] * ARCSEC:.1f}, {p[1] * ARCSEC:.1f})" for p, _ in places)
    if len(places) == 1:
        raise ImportFormatError(
            f"all its {len(science)} track subscans are at the offset {said} arcsec: there is no OFF among them.",
        )
    far, next_far = int(order[-1]), int(order[-2])
    margin = (1 + SAME_DISTANCE) * distance[next_far] + SAME_PLACE_BEAMS * beam_deg
    if distance[far] <= margin:
        raise ImportFormatError(
            f"which of its track subscans are ON and which OFF cannot be told: the offsets are {said} arcsec, and two "
            "of them are equally far from the source.",
        )
    assumed.note(
        "ON and OFF",
        f"OFF at {places[far][0][0] * ARCSEC:.1f}, {places[far][0][1] * ARCSEC:.1f} arcsec",
        f"the farthest of the offsets {said} arcsec",
    )
    off = set(places[far][1])
    return {s.number: "OFF" if s.number in off else "ON" for s in science}


def _clusters(science: Sequence[Subscan], near_deg: float) -> list[tuple[F64, list[int]]]:
    """Places with the numbers of the subscans there; two are one place when they are within ``near_deg``."""
    found: list[tuple[F64, list[int]]] = []
    for s in science:
        here = s.place()
        for place, numbers in found:
            if np.hypot(*(here - place)) <= near_deg:
                numbers.append(s.number)
                break
        else:
            found.append((here, [s.number]))
    return found


def _wobbler(
    science: Sequence[Subscan],
    procedure: str,
    beam_deg: float,
    assumed: Assumptions,
    remarks: list[str],
) -> list[Observed]:
    """Phases of a wobbler: PHASEONE says which is on the source; the side of the nod is told by the offset."""
    sides = _clusters(science, SAME_PLACE_BEAMS * beam_deg)
    nod = len(sides) == 2 and _mirrored(sides[0][0], sides[1][0], beam_deg)
    second = set(sides[1][1]) if nod else set[int]()
    found = []
    for s in science:
        whole, lost = cycles(s.dumps)
        if not whole.n:
            raise ImportFormatError(
                f"subscan {s.number} holds no whole cycle of the wobbler's two phases (ISWITCH).",
                subscan=s.number,
            )
        if lost:
            remarks.append(f"{lost} dumps of subscan {s.number} are of no whole cycle")
        on_source = _phase_on_source(s, assumed)
        off = (whole.phase != on_source).astype(np.uint8)
        place = s.place() if nod else np.zeros(2)
        mode, chop = ("WSW-OFF", 1 - off) if s.number in second else ("WSW-ON", off)
        found.append(Observed(s, mode, whole, chop.astype(np.uint8), 0, (place[0], place[1])))
    return found


def _mirrored(one: F64, two: F64, beam_deg: float) -> bool:
    """Whether two places lie opposite each other about the source."""
    near = SAME_PLACE_BEAMS * beam_deg
    return bool(np.hypot(*(one + two)) <= 2 * near < np.hypot(*one))


def _phase_on_source(s: Subscan, assumed: Assumptions) -> int:
    """1 or 2: the phase that looks at the source."""
    unit = s.tables.data
    word = "" if unit is None else unit.text("PHASEONE").upper()
    why = f"PHASEONE is {word or 'missing'}; what it means was inferred"
    return int(assumed.take("phase_on_source", 2 if word == "OFF" else 1, why))


def _frequency(
    science: Sequence[Subscan],
    procedure: str,
    beam_deg: float,
    assumed: Assumptions,
    remarks: list[str],
) -> list[Observed]:
    """Phases of a frequency switch: each subscan becomes two, of one phase each."""
    found: list[Observed] = []
    for s in science:
        if s.kind == "track" and any(x.kind in ON_THE_FLY for x in science):
            remarks.append(
                f"subscan {s.number}, a reference, is left out: the phases have their own"
            )
            continue
        whole, lost = cycles(s.dumps)
        if not whole.n:
            raise ImportFormatError(
                f"subscan {s.number} holds no whole cycle of the two phases (ISWITCH).",
                subscan=s.number,
            )
        if lost:
            remarks.append(f"{lost} dumps of subscan {s.number} are of no whole cycle")
        both = [
            Observed(s, mode, whole.only(whole.phase == phase), None, phase)
            for mode, phase in (("FSW-SIG", 1), ("FSW-REF", 2))
        ]
        found += sorted(both, key=_when)
    return found
