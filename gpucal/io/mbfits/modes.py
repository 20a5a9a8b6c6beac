"""What each subscan of a scan is for gpucal: load, ON, OFF, phases of a switch.

Source: docs/reference/mbfits.md, subscans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpucal.errors import ImportFormatError
from gpucal.io.fits.units import Unit
from gpucal.io.incoming.assumptions import Assumptions
from gpucal.io.incoming.phase_cycles import whole_cycles
from gpucal.io.mbfits.dataset import Dataset, is_true, known
from gpucal.io.mbfits.dumps import Dumps

F64 = npt.NDArray[np.float64]
LOADS = ("HOT", "COLD", "SKY")
REFERENCES = ("REF", "OFF")
KINDS = "HOT, COLD, SKY, REF, ON"
PROCEDURES = {
    "CAL": "calibration",
    "ONOFF": "on-off",
    "ON": "on-off",
    "TRACK": "on-off",
    "RASTER": "on-off",
    "MAP": "otf",
    "OTF": "otf",
    "POINT": "pointing",
    "POINTING": "pointing",
    "SKYDIP": "skydip",
    "TIP": "skydip",
}
"""SCANTYPE -> obs_procedure; FOCUS and what begins with it is a focus scan."""
SAME_PLACE_BEAMS = 0.1
MOVING_BEAMS = 0.5
ARCSEC = 3600.0


@dataclass(frozen=True, eq=False)
class Subscan:
    """A subscan of one band: its number, kind (SUBSTYPE), SCANMODE, words of its phases, dumps, and its DATAPAR."""

    number: int
    kind: str
    scan_mode: str
    words: dict[int, str]
    dumps: Dumps
    pars: Unit

    def place(self) -> F64:
        """Median offset (lon, lat), deg; NaN where it is not known."""
        both = (self.dumps.values[n] for n in ("lon", "lat"))
        return np.array([_median(v) for v in both])

    def length(self) -> float:
        """How far the offsets reach, deg."""
        reach = 0.0
        for name in ("lon", "lat"):
            good = self.dumps.values[name][np.isfinite(self.dumps.values[name])]
            reach = max(reach, float(np.ptp(good)) if good.size else 0.0)
        return reach


@dataclass(frozen=True, eq=False)
class Observed:
    """A subscan of L0: its sobsmode and dumps.

    chop   phase of each dump, 0 on the source in WSW-ON, 1 in WSW-OFF, or None
    phase  "sig" or "ref" of a frequency switch, "" for none; origin: offset of a nod, deg, which is taken off
    """

    subscan: Subscan
    mode: str
    dumps: Dumps
    chop: npt.NDArray[np.uint8] | None = None
    phase: str = ""
    origin: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, eq=False)
class Sorted:
    """The subscans of a scan: those of ``source/`` and ``calibration/``, and sentences about what was left out.

    throws: frequency throw of the phases "sig" and "ref", Hz
    """

    procedure: str
    switch: str
    source: list[Observed]
    loads: list[Observed]
    remarks: list[str]
    throws: dict[str, float]


def _median(values: F64) -> float:
    good = values[np.isfinite(values)]
    return float(np.median(good)) if good.size else float("nan")


def procedure_of(dataset: Dataset, subscans: Sequence[Subscan]) -> str:
    """The procedure of a scan, by SCANTYPE, else by what its subscans are."""
    word = dataset.scan.text("SCANTYPE").upper()
    if word.startswith("FOCUS"):
        return "focus"
    if word in PROCEDURES:
        return PROCEDURES[word]
    return "calibration" if all(s.kind in LOADS for s in subscans) else "on-off"


def sorted_out(
    dataset: Dataset,
    febe: Unit,
    subscans: Sequence[Subscan],
    beam_deg: float,
    assumed: Assumptions,
) -> Sorted:
    """The mode of each subscan; ImportFormatError where it cannot be told."""
    procedure = procedure_of(dataset, subscans)
    remarks: list[str] = []
    science = [s for s in subscans if s.kind not in LOADS]
    switch, taken = _switch(dataset, febe, science or subscans, assumed)
    if taken:
        subscans = [_one_phase(s, taken) for s in subscans]
        science = [s for s in subscans if s.kind not in LOADS]
        remarks.append(f"phase {taken} alone is taken (phase_taken)")
    loads = [Observed(s, s.kind, s.dumps) for s in subscans if s.kind in LOADS]
    if procedure == "skydip":
        loads += [Observed(s, "SKY", s.dumps) for s in science if s.kind == "ON"]
        science = []
    elif procedure == "calibration" and science:
        remarks.append(f"{len(science)} subscans of a calibration that are no loads are left out")
        science = []
    throws: dict[str, float] = {}
    source: list[Observed] = []
    if science and switch == "frequency":
        phases, throws = _throws(dataset, febe, science, assumed)
        source = _frequency(science, phases, remarks)
    elif science and switch == "wobbler":
        source = _wobbler(science, beam_deg, assumed, remarks)
    elif science:
        source = _total(science, procedure, beam_deg, assumed)
    return Sorted(procedure, switch, source, sorted(loads, key=_when), remarks, throws)


def _when(observed: Observed) -> float:
    return float(observed.dumps.mjd.mean())


def _one_phase(s: Subscan, phase: int) -> Subscan:
    mine = s.dumps.phase == phase
    if not mine.any():
        raise ImportFormatError(
            f"subscan {s.number} has no dump of phase {phase}, which the profile takes (phase_taken).",
            subscan=s.number,
        )
    return Subscan(s.number, s.kind, s.scan_mode, s.words, s.dumps.only(mine), s.pars)


def _switch(
    dataset: Dataset, febe: Unit, subscans: Sequence[Subscan], assumed: Assumptions
) -> tuple[str, int]:
    """ "total", "wobbler" or "frequency", and the phase that alone is taken (0: all)."""
    numbers = sorted({int(p) for s in subscans for p in np.unique(s.dumps.phase)})
    taken = assumed.set_or_noted("phase_taken", "all", "PHASE") if len(numbers) > 1 else None
    if taken is not None:
        return "total", int(taken)
    words = {w for s in subscans for w in s.words.values()}
    wobbler = is_true(dataset.scan, "WOBUSED") or {"WON", "WOFF"} <= words
    low, high = (febe.number(k, 0.0) for k in ("FRTHRWLO", "FRTHRWHI"))
    thrown = any(known(x) and x != 0.0 for x in (low, high))
    frequency = thrown or any(_side(w) for w in words)
    said = ", ".join(sorted(w for w in words if w)) or "no word"
    if len(numbers) == 1:
        if wobbler and any(s.kind == "ON" for s in subscans):
            raise ImportFormatError(
                f"{dataset.lead} was observed with the wobbler (WOBUSED), but all its dumps are of phase {numbers[0]} "
                "(PHASE).",
                hint="Set phase_taken = 1 in a --profile to take it as observed without the wobbler.",
            )
        return "total", 0
    if len(numbers) > 2 or (wobbler and frequency):
        raise ImportFormatError(
            f"{dataset.lead} has dumps of {len(numbers)} phases (PHASE: {said}), expected 2, of the wobbler or of the "
            "frequency.",
            hint="Set phase_taken in a --profile to take one of them alone.",
        )
    if wobbler:
        return "wobbler", 0
    if frequency:
        return "frequency", 0
    raise ImportFormatError(
        f"{dataset.lead} has dumps of 2 phases (PHASE: {said}), but neither the wobbler (WOBUSED) nor a frequency "
        "throw (FRTHRWLO, FRTHRWHI): is it a noise diode?",
        hint="Set phase_taken in a --profile to the phase without it, which alone is then taken.",
    )


def _side(word: str) -> str:
    """ "low" or "high" of a word of a phase of the frequency, "" for another one."""
    plain = word.upper()
    if plain in ("FLO", "FLOW", "LO", "LOW", "FRTHRWLO"):
        return "low"
    return "high" if plain in ("FHI", "FHIGH", "HI", "HIGH", "FRTHRWHI") else ""


def _throws(
    dataset: Dataset, febe: Unit, science: Sequence[Subscan], assumed: Assumptions
) -> tuple[dict[int, str], dict[str, float]]:
    """Phase -> "sig" (1) or "ref" (2), and the throw of both, Hz; ImportFormatError where they are 0."""
    low, high = (febe.number(k, 0.0) for k in ("FRTHRWLO", "FRTHRWHI"))
    low, high = (x if known(x) else 0.0 for x in (low, high))
    if low == high != 0.0:
        assumed.note("FRTHRWLO", -abs(low), "both throws have the same number")
        low, high = -abs(low), abs(high)
    if low == high:
        raise ImportFormatError(
            f"{dataset.lead} was observed with frequency switching, but FRTHRWLO and FRTHRWHI of "
            f"{febe.text('FEBE')} are 0 or missing (FEBEPAR-MBFITS)."
        )
    sides = {n: _side(w) for s in science for n, w in s.words.items() if _side(w)}
    first = {"low": 1, "high": 2}[sides[1]] if 1 in sides else 0
    if not first and 2 in sides:
        first = 2 if sides[2] == "low" else 1
    why = f"PHASE1 is {science[0].words.get(1, '') or 'missing'}"
    phase_low = int(assumed.take("phase_low", first or 1, why))
    sign = int(
        assumed.take("throw_sign", 1, "the sign of FRTHRWLO, FRTHRWHI on the sky is not said")
    )
    by_phase = {phase_low: sign * low, 3 - phase_low: sign * high}
    return {1: "sig", 2: "ref"}, {"sig": by_phase[1], "ref": by_phase[2]}


def _cycles(s: Subscan, what: str, remarks: list[str]) -> Dumps:
    whole = s.dumps.only(whole_cycles(s.dumps.phase, s.dumps.order))
    if not whole.n:
        raise ImportFormatError(
            f"subscan {s.number} holds no whole cycle of the two phases of the {what} (PHASE).",
            subscan=s.number,
        )
    if lost := s.dumps.n - whole.n:
        remarks.append(f"{lost} dumps of subscan {s.number} are of no whole cycle")
    return whole


def _frequency(
    science: Sequence[Subscan], phases: dict[int, str], remarks: list[str]
) -> list[Observed]:
    """Each subscan becomes two, of one phase each."""
    found: list[Observed] = []
    for s in science:
        if s.kind in REFERENCES:
            remarks.append(
                f"subscan {s.number}, a reference, is left out: the phases have their own"
            )
            continue
        whole = _cycles(s, "frequency", remarks)
        both = [
            Observed(s, f"FSW-{word.upper()}", whole.only(whole.phase == number), None, word)
            for number, word in phases.items()
        ]
        found += sorted(both, key=_when)
    return found


def _wobbler(
    science: Sequence[Subscan], beam_deg: float, assumed: Assumptions, remarks: list[str]
) -> list[Observed]:
    """The phase called WON looks at the source; nods are told apart by which one that is."""
    given = assumed.set_or_noted(
        "phase_on_source", "PHASE1, PHASE2", "WON is the phase on the source"
    )
    ons = [s for s in science if s.kind not in REFERENCES]
    remarks += [
        f"subscan {s.number}, a reference, is left out: the phases have their own"
        for s in science
        if s.kind in REFERENCES
    ]
    sides = clusters(ons, SAME_PLACE_BEAMS * beam_deg)
    near = SAME_PLACE_BEAMS * beam_deg
    nod = len(sides) == 2 and bool(
        np.hypot(*(sides[0][0] + sides[1][0])) <= 2 * near < np.hypot(*sides[0][0])
    )
    found = []
    first = 0
    for s in ons:
        on = int(given) if given is not None else _phase_on_source(s)
        first = first or on
        whole = _cycles(s, "wobbler", remarks)
        away = (whole.phase != on).astype(np.uint8)
        mode, chop = ("WSW-ON", away) if on == first else ("WSW-OFF", 1 - away)
        place = s.place() if nod else np.zeros(2)
        found.append(Observed(s, mode, whole, chop.astype(np.uint8), "", (place[0], place[1])))
    return found


def _phase_on_source(s: Subscan) -> int:
    """1 or 2: the phase that is called WON, or is not called WOFF."""
    for word, other in (("WON", 0), ("WOFF", 3)):
        for number, told in s.words.items():
            if told == word and number in (1, 2):
                return abs(other - number)
    said = ", ".join(w for w in s.words.values() if w) or "missing"
    raise ImportFormatError(
        f"subscan {s.number}: PHASE1 and PHASE2 are {said}, expected WON for the phase on the source and WOFF.",
        hint="Set phase_on_source in a --profile.",
        subscan=s.number,
    )


def _total(
    science: Sequence[Subscan], procedure: str, beam_deg: float, assumed: Assumptions
) -> list[Observed]:
    """Without a switch: ON and REF as they are called; where none is called REF, told apart by their offsets."""
    moving = any(
        s.kind == "ON" and ("OTF" in s.scan_mode or s.length() > MOVING_BEAMS * beam_deg)
        for s in science
    )
    prefix = "OTF-" if moving and procedure != "focus" else ""
    modes = {s.number: "OFF" if s.kind in REFERENCES else "ON" for s in science}
    if "OFF" not in modes.values() and not moving and procedure not in ("pointing", "focus"):
        modes = _by_place(science, beam_deg, assumed)
    return [Observed(s, prefix + modes[s.number], s.dumps) for s in science]


def _by_place(science: Sequence[Subscan], beam_deg: float, assumed: Assumptions) -> dict[int, str]:
    """OFF where the telescope was farthest from the source; ImportFormatError where that is not clear."""
    places = clusters(science, SAME_PLACE_BEAMS * beam_deg)
    distance = [float(np.hypot(*place)) for place, _ in places]
    said = ", ".join(f"({p[0] * ARCSEC:.1f}, {p[1] * ARCSEC:.1f})" for p, _ in places)
    order = np.argsort(distance)
    if len(places) < 2 or distance[order[-1]] - distance[order[-2]] < beam_deg:
        raise ImportFormatError(
            f"none of its {len(science)} subscans is called REF (SUBSTYPE), and their offsets, {said} arcsec, do not "
            "tell which of them is one.",
        )
    far = places[int(order[-1])]
    assumed.note(
        "ON and REF",
        f"REF at {far[0][0] * ARCSEC:.1f}, {far[0][1] * ARCSEC:.1f} arcsec",
        "no subscan is called REF: the farthest of the offsets " + said + " arcsec",
    )
    return {s.number: "OFF" if s.number in far[1] else "ON" for s in science}


def clusters(subscans: Sequence[Subscan], near_deg: float) -> list[tuple[F64, list[int]]]:
    """Places with the numbers of the subscans there; two are one place when they are within ``near_deg``."""
    found: list[tuple[F64, list[int]]] = []
    for s in subscans:
        here = np.nan_to_num(s.place())
        for place, numbers in found:
            if np.hypot(*(here - place)) <= near_deg:
                numbers.append(s.number)
                break
        else:
            found.append((here, [s.number]))
    return found
