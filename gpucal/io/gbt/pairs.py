"""Which two scans make a nod or a position switch.

Source: GBT observer's guide (procedures, OBSMODE, PROCSEQN). The halves of a real position switch differ
in the second word of OBSMODE (PSWITCHON, PSWITCHOFF).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

from gpucal.errors import GpucalWarning
from gpucal.io.fits.sdfits_read import SdfitsRows
from gpucal.io.gbt.observations import Observation

PAIR_MODES = {"Nod": ("NOD-1", "NOD-2"), "OnOff": ("ON", "OFF"), "OffOn": ("OFF", "ON")}
SWITCH_STATES = {"PSWITCHON": "ON", "PSWITCHOFF": "OFF"}
_SPELLINGS = {name.lower(): name for name in PAIR_MODES}


def procedure_of(rows: SdfitsRows, i: int) -> str:
    """The first word of OBSMODE; that of a pair as the telescope spells it."""
    word = str(rows["OBSMODE"][i]).partition(":")[0].strip()
    return _SPELLINGS.get(word.lower(), word)


def second_half(
    rows: SdfitsRows,
    role: Mapping[int, str],
    first: Observation,
    every: Sequence[Observation],
) -> Observation | None:
    """The second half of a pair: the next scan number, the same procedure and source, nearest after it.

    ``every``: all scans of the session, in order of time, also those that cannot be used. A pair that was
    broken off and observed again is another one: its second half is not that of the first try.
    """
    later = [o for o in every if o.begin >= first.begin and o.number != first.number]
    for o in later:
        if o.scan == first.scan:
            return None
        if o.scan == first.scan + 1:
            # a scan that cannot be used has no role: its pair has no second half
            fits = role.get(o.number) == "second" and _same_target(rows, first, o)
            return o if fits else None
    return None


def states_fit(rows: SdfitsRows, kind: str, pair: Sequence[Observation]) -> bool:
    """Whether OBSMODE's second word (PSWITCHON, PSWITCHOFF) agrees with PROCSEQN; warns when not."""
    if kind == "Nod":
        return True
    for mode, half in zip(PAIR_MODES[kind], pair, strict=True):
        word = str(rows["OBSMODE"][half.rows[0]]).split(":")[1:2]
        state = SWITCH_STATES.get(word[0].strip().upper(), mode) if word else mode
        if state != mode:
            text = (
                f"{half.label} is the {mode} of an {kind} by PROCSEQN, but OBSMODE says {word[0]}: "
                "the pair is left out."
            )
            warnings.warn(text, GpucalWarning, stacklevel=3)
            return False
    return True


def _same_target(rows: SdfitsRows, a: Observation, b: Observation) -> bool:
    """Same procedure and source; the words of OBSMODE behind the procedure may differ."""
    i, j = int(a.rows[0]), int(b.rows[0])
    return bool(
        procedure_of(rows, i) == procedure_of(rows, j) and rows["OBJECT"][i] == rows["OBJECT"][j]
    )
