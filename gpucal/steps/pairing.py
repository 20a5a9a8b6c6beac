"""Which reference belongs to which ON: the observing modes of physics section 7.

Decides from metadata alone; no counts are touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.config import CalibrationConfig
from gpucal.errors import PairingError
from gpucal.products import (
    BeamMerge,
    ChopCycles,
    DumpPair,
    Interpolated,
    MeanKey,
    NodBeams,
    Pairing,
    PhaseDifference,
    Recipe,
)
from gpucal.scan import Scan, SubscanGroup

F64 = npt.NDArray[np.float64]
MODE_OF_PREFIX = {"OTFSW": "otf-chopped", "FSW": "fsw", "WSW": "wsw", "NOD": "nod", "OTF": "otf"}
ON_OF_MODE = {"tp": "ON", "otf": "OTF-ON", "fsw": "FSW-SIG", "nod": "NOD-1"}
OFF_OF_MODE = {"tp": "OFF", "otf": "OTF-OFF", "fsw": "FSW-REF", "nod": "NOD-2"}


@dataclass(frozen=True)
class _Output:
    """One output subscan while the list is being made."""

    recipe: Recipe
    nearest_off: int
    sky: MeanKey
    extrapolated: bool = False


def detect_mode(sobsmode: Sequence[str]) -> str:
    """Name the observing mode that the subscans of a scan speak of."""
    for prefix, mode in MODE_OF_PREFIX.items():
        if any(m.startswith(prefix) for m in sobsmode):
            return mode
    return "tp"


def pair_subscans(scan: Scan, config: CalibrationConfig) -> Pairing:
    """Pair every ON subscan of ``scan`` with its reference; physics section 7.

    Returns a Pairing; raises PairingError when the mode does not fit the subscans, or when there is no
    ON or no reference.
    """
    group = scan.source
    assert group is not None
    mode = detect_mode(group.sobsmode) if config.mode == "auto" else config.mode
    pairers = {
        "tp": _with_off_means,
        "otf": _with_off_means,
        "otf-chopped": _chopped,
        "nod": _nod,
        "fsw": _frequency_switch,
        "wsw": _wobbler,
    }
    outputs = pairers[mode](scan, group, config, mode)
    if not outputs:
        raise PairingError(
            f"no subscan can be calibrated in mode {mode}: the subscans are "
            f"{', '.join(sorted(set(group.sobsmode)))}.",
            hint="Use --mode auto.",
        )
    recipes = tuple(o.recipe for o in outputs)
    needed: list[MeanKey] = []
    for o in outputs:
        needed += [*_mean_keys(o.recipe), o.sky]
    return Pairing(
        mode=mode,
        recipes=recipes,
        off_index_per_on=np.array([o.nearest_off for o in outputs], dtype=np.int32),
        sky=tuple(o.sky for o in outputs),
        extrapolated=np.array([o.extrapolated for o in outputs], dtype=np.bool_),
        n_dumps=_output_dumps(recipes, group.shape[1]),
        means=tuple(dict.fromkeys(needed)),
    )


def _mean_keys(recipe: Recipe) -> list[MeanKey]:
    if isinstance(recipe, Interpolated):
        return [recipe.off1, recipe.off2]
    if isinstance(recipe, NodBeams):
        return [MeanKey(recipe.on), MeanKey(recipe.other)]
    if isinstance(recipe, BeamMerge):
        return _mean_keys(recipe.a) + _mean_keys(recipe.b)
    if isinstance(recipe, DumpPair):
        return [MeanKey(recipe.off)]
    if isinstance(recipe, ChopCycles):
        return [recipe.sky]
    return []


def _output_dumps(recipes: Sequence[Recipe], n_dumps: int) -> int:
    """Dumps of the output: those of the input, or the largest number of chop cycles."""
    cycles = [len(r.cycles) for r in _flat(recipes) if isinstance(r, ChopCycles)]
    return max(cycles) if cycles else n_dumps


def _flat(recipes: Sequence[Recipe]) -> list[Recipe]:
    out: list[Recipe] = []
    for r in recipes:
        out += [r.a, r.b] if isinstance(r, BeamMerge) else [r]
    return out


def _require(
    scan: Scan, group: SubscanGroup, modes: Sequence[str], what: str, mode: str
) -> list[int]:
    found = [i for i, m in enumerate(group.sobsmode) if m in modes]
    if not found:
        raise PairingError(
            f"mode {mode} needs {what} ({' or '.join(modes)}), but the subscans are "
            f"{', '.join(sorted(set(group.sobsmode)))}.",
            hint="Use --mode to name another mode.",
            scan=scan.number,
            band=scan.band,
        )
    return found


def _nearest(mid: F64, candidates: Sequence[int], when: float) -> int:
    """The candidate nearest in time; the earlier one of two equally near."""
    return min(candidates, key=lambda i: (abs(float(mid[i]) - when), float(mid[i])))


def bracket(mid: F64, offs: Sequence[int], when: float) -> tuple[int, int, bool]:
    """The OFF before and the OFF after ``when``, and whether only one side has one."""
    before = [i for i in offs if mid[i] <= when]
    after = [i for i in offs if mid[i] > when]
    if before and after:
        return max(before, key=lambda i: mid[i]), min(after, key=lambda i: mid[i]), False
    only = max(before, key=lambda i: mid[i]) if before else min(after, key=lambda i: mid[i])
    return only, only, True


def _with_off_means(
    scan: Scan, group: SubscanGroup, config: CalibrationConfig, mode: str
) -> list[_Output]:
    ons = _require(scan, group, [ON_OF_MODE[mode]], "an ON subscan", mode)
    offs = _require(scan, group, [OFF_OF_MODE[mode]], "an OFF subscan", mode)
    return [_interpolated(group, on, offs, config) for on in ons]


def _interpolated(
    group: SubscanGroup, on: int, offs: Sequence[int], config: CalibrationConfig
) -> _Output:
    mid = group.mjd_mid
    first, second, one_sided = bracket(mid, offs, float(mid[on]))
    nearest = _nearest(mid, offs, float(mid[on]))
    weight: float | F64 = 0.0
    if config.reference == "nearest":
        first = second = nearest
    elif not one_sided:
        span = float(mid[second] - mid[first])
        when = group.mjd[:, on] if config.reference == "per-dump" else mid[on]
        w = (when - mid[first]) / span
        weight = np.clip(w, 0.0, 1.0) if config.reference == "per-dump" else float(w)
    recipe = Interpolated(on, MeanKey(first), MeanKey(second), weight)
    return _Output(recipe, nearest, MeanKey(nearest), one_sided)


def _chopped(
    scan: Scan, group: SubscanGroup, config: CalibrationConfig, mode: str
) -> list[_Output]:
    _require(scan, group, ["OTFSWA-ON", "OTFSWB-ON"], "an ON subscan", mode)
    mid = group.mjd_mid
    beams: dict[str, list[_Output]] = {}
    for beam in "AB":
        ons = group.select(f"OTFSW{beam}-ON")
        if not ons:
            beams[beam] = []
            continue
        offs = _require(scan, group, [f"OTFSW{beam}-OFF"], f"an OFF subscan of beam {beam}", mode)
        near = [_nearest(mid, offs, float(mid[on])) for on in ons]
        beams[beam] = [
            _Output(DumpPair(on, off), off, MeanKey(off)) for on, off in zip(ons, near, strict=True)
        ]
    if config.dbs_coupling:
        return _merged(scan, beams["A"], beams["B"])
    return sorted(beams["A"] + beams["B"], key=lambda o: o.recipe.on)


def _merged(scan: Scan, first: list[_Output], second: list[_Output]) -> list[_Output]:
    """Couple the n-th A with the n-th B; the positions of B are dropped."""
    if len(first) != len(second):
        raise PairingError(
            f"double beam switching needs as many A as B subscans, but there are {len(first)} of A "
            f"and {len(second)} of B.",
            hint="Leave out --dbs-coupling.",
            scan=scan.number,
            band=scan.band,
        )
    out = []
    for a, b in zip(first, second, strict=True):
        assert not isinstance(a.recipe, PhaseDifference | BeamMerge)
        assert not isinstance(b.recipe, PhaseDifference | BeamMerge)
        merged = BeamMerge(a.recipe, b.recipe)
        out.append(_Output(merged, a.nearest_off, a.sky, a.extrapolated or b.extrapolated))
    return out


def _nod(scan: Scan, group: SubscanGroup, config: CalibrationConfig, mode: str) -> list[_Output]:
    firsts = _require(scan, group, ["NOD-1"], "a first nod position", mode)
    seconds = _require(scan, group, ["NOD-2"], "a second nod position", mode)
    shape = group.shape[2:4]
    second = np.zeros(shape, dtype=np.bool_)
    beams = scan.attrs.get("nod_beams")
    if beams is not None:
        valid = np.asarray(beams)
        if valid.shape != (2, 2) or not ((valid >= 0) & (valid < np.array(shape))).all():
            raise PairingError(
                f"nod_beams is {beams}, expected [[receiver, pixel], [receiver, pixel]] within "
                f"{shape[0]} receivers and {shape[1]} pixels.",
                hint="Correct the scan attribute nod_beams, counted from 0.",
                scan=scan.number,
                band=scan.band,
            )
        # All receivers of a feed look the same way, so the feed alone decides.
        if beams[0][1] != beams[1][1]:
            second[:, beams[1][1]] = True
        else:
            second[beams[1][0], beams[1][1]] = True
    mid = group.mjd_mid
    out = []
    for n, on in enumerate(firsts):
        same_count = len(firsts) == len(seconds)
        other = seconds[n] if same_count else _nearest(mid, seconds, float(mid[on]))
        out.append(_Output(NodBeams(on, other, second), other, MeanKey(other)))
    return out


def _frequency_switch(
    scan: Scan, group: SubscanGroup, config: CalibrationConfig, mode: str
) -> list[_Output]:
    signals = _require(scan, group, ["FSW-SIG"], "a signal phase", mode)
    references = _require(scan, group, ["FSW-REF"], "a reference phase", mode)
    if group.freq_throw is None and config.fold:
        raise PairingError(
            "the frequency throw (freq_throw) is not recorded, so the spectra cannot be folded.",
            hint="Use --no-fold.",
            scan=scan.number,
            band=scan.band,
        )
    mid = group.mjd_mid
    out = []
    for n, on in enumerate(signals):
        same_count = len(signals) == len(references)
        off = references[n] if same_count else _nearest(mid, references, float(mid[on]))
        throw = np.zeros((2, group.shape[2]))
        if group.freq_throw is not None:
            throw = group.freq_throw[:, [on, off]].T / group.freq_res[:, [on, off]].T
        recipe = PhaseDifference(on, off, throw, config.fold)
        out.append(_Output(recipe, off, MeanKey(off)))
    return out


def _wobbler(
    scan: Scan, group: SubscanGroup, config: CalibrationConfig, mode: str
) -> list[_Output]:
    ons = _require(scan, group, ["WSW-ON"], "an ON subscan", mode)
    mid = group.mjd_mid
    if group.chop_phase is None:
        offs = _require(scan, group, ["WSW-OFF"], "an OFF subscan", mode)
        near = [_nearest(mid, offs, float(mid[on])) for on in ons]
        if len(offs) == len(ons):
            near = offs
        return [
            _Output(DumpPair(on, off), off, MeanKey(off)) for on, off in zip(ons, near, strict=True)
        ]
    phase = group.chop_phase
    positions = {
        sobs: [_cycles_of(scan, phase[:, s], s, source_phase) for s in group.select(sobs)]
        for sobs, source_phase in (("WSW-ON", 0), ("WSW-OFF", 1))
    }
    if config.dbs_coupling:
        return _merged(scan, positions["WSW-ON"], positions["WSW-OFF"])
    return sorted(positions["WSW-ON"] + positions["WSW-OFF"], key=lambda o: o.recipe.on)


def _cycles_of(
    scan: Scan, phase: npt.NDArray[np.uint8], subscan: int, source_phase: int
) -> _Output:
    """Cut the dumps into cycles of one run per phase; the source is in ``source_phase``."""
    values = set(np.unique(phase).tolist())
    if values != {0, 1}:
        raise PairingError(
            f"chop_phase holds the values {sorted(values)}, expected both 0 and 1.",
            hint="Write 0 for the phase on the source in WSW-ON and 1 for the other, dump by dump.",
            scan=scan.number,
            band=scan.band,
            subscan=subscan,
        )
    edges = np.flatnonzero(np.diff(phase)) + 1
    runs = np.split(np.arange(len(phase)), edges)
    cycles = []
    for i in range(0, len(runs) - 1, 2):
        pair: list[Any] = [tuple(int(d) for d in run) for run in runs[i : i + 2]]
        if phase[pair[0][0]] != source_phase:
            pair.reverse()
        cycles.append((pair[0], pair[1]))
    sky = MeanKey(subscan, 1 - source_phase)
    return _Output(ChopCycles(subscan, tuple(cycles), sky), subscan, sky)
