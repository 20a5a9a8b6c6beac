"""Pairing of each ON with its reference, by observing mode; physics section 7.

Decides from metadata alone; no counts are touched. ``RULES`` holds one pairing rule for each mode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpucal.config import CalibrationConfig
from gpucal.errors import PairingError
from gpucal.modes.beam_merge import BeamMerge
from gpucal.modes.chop_cycles import ChopCycle, ChopCycles
from gpucal.modes.dump_pair import DumpPair
from gpucal.modes.interpolated import Interpolated
from gpucal.modes.nod_beams import NodBeams
from gpucal.modes.phase_difference import PhaseDifference
from gpucal.modes.recipe import Difference, Recipe
from gpucal.products import MeanKey
from gpucal.scan import Scan, SubscanGroup

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Pairing:
    """The recipes of all output subscans of a scan.

    recipes one per L1 subscan; n_dumps D of the output.
    """

    mode: str
    recipes: tuple[Recipe, ...]
    n_dumps: int

    @property
    def on_index(self) -> npt.NDArray[np.int32]:
        """L0 subscan of each output, i32 [S_on]."""
        return np.array([r.on for r in self.recipes], dtype=np.int32)

    @property
    def off_index_per_on(self) -> npt.NDArray[np.int32]:
        """The OFF subscan nearest in time to each output, i32 [S_on]."""
        return np.array([r.sky_key().subscan for r in self.recipes], dtype=np.int32)

    @property
    def means(self) -> tuple[MeanKey, ...]:
        """The keys of all dump means that are needed, each once."""
        return tuple(dict.fromkeys(k for r in self.recipes for k in (*r.means(), r.sky_key())))


@dataclass(frozen=True, eq=False)
class ScanToPair:
    """Input of a pairing rule: the metadata of one scan, the options, and its mode."""

    scan: Scan
    config: CalibrationConfig
    mode: str

    @property
    def group(self) -> SubscanGroup:
        """The source subscans."""
        assert self.scan.source is not None
        return self.scan.source

    def require(self, modes: Sequence[str], what: str) -> list[int]:
        """The subscans whose sobsmode is one of ``modes``; PairingError when there is none."""
        present = self.group.sobsmode
        found = [i for i, m in enumerate(present) if m in modes]
        if not found:
            raise self.error(
                f"mode {self.mode} needs {what} ({' or '.join(modes)}), but the subscans are "
                f"{', '.join(sorted(set(present)))}.",
                hint="Use --mode to name another mode.",
            )
        return found

    def nearest(self, candidates: Sequence[int], on: int) -> int:
        """The candidate nearest in time to ``on``; the earlier one of two equally near."""
        mid = self.group.mjd_mid
        return min(candidates, key=lambda i: (abs(float(mid[i]) - float(mid[on])), float(mid[i])))

    def one_each(self, ons: Sequence[int], others: Sequence[int]) -> list[tuple[int, int]]:
        """Pair the n-th ON with the n-th of the others, or with the nearest where the numbers differ."""
        if len(ons) == len(others):
            return list(zip(ons, others, strict=True))
        return [(on, self.nearest(others, on)) for on in ons]

    def error(self, message: str, *, hint: str) -> PairingError:
        """A PairingError that names the scan and band."""
        return PairingError(message, hint=hint, scan=self.scan.number, band=self.scan.band)


Rule = Callable[[ScanToPair], Sequence[Recipe]]


def detect_mode(sobsmode: Sequence[str]) -> str:
    """Name the observing mode of a scan from the modes of its subscans."""
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
    recipes = tuple(RULES[mode](ScanToPair(scan, config, mode)))
    if not recipes:
        raise PairingError(
            f"no subscan can be calibrated in mode {mode}: the subscans are "
            f"{', '.join(sorted(set(group.sobsmode)))}.",
            hint="Use --mode auto.",
        )
    return Pairing(mode, recipes, max(r.output_dumps(group.shape[1]) for r in recipes))


def _bracket(mid: F64, offs: Sequence[int], when: float) -> tuple[int, int, bool]:
    """The OFF before and the OFF after ``when``, and whether only one side has one."""
    before = [i for i in offs if mid[i] <= when]
    after = [i for i in offs if mid[i] > when]
    if before and after:
        return max(before, key=lambda i: mid[i]), min(after, key=lambda i: mid[i]), False
    only = max(before, key=lambda i: mid[i]) if before else min(after, key=lambda i: mid[i])
    return only, only, True


def _total_power(scan: ScanToPair) -> list[Recipe]:
    return _with_off_means(scan, "ON", "OFF")


def _on_the_fly(scan: ScanToPair) -> list[Recipe]:
    return _with_off_means(scan, "OTF-ON", "OTF-OFF")


def _with_off_means(scan: ScanToPair, on_mode: str, off_mode: str) -> list[Recipe]:
    """Interpolate the OFFs for each ON; equation (7.1)."""
    ons = scan.require([on_mode], "an ON subscan")
    offs = scan.require([off_mode], "an OFF subscan")
    return [_interpolated(scan, on, offs) for on in ons]


def _interpolated(scan: ScanToPair, on: int, offs: Sequence[int]) -> Interpolated:
    """The recipe of one ON between two OFFs, equation (7.1), weighted as ``config.reference`` asks."""
    group, mid, reference = scan.group, scan.group.mjd_mid, scan.config.reference
    first, second, one_sided = _bracket(mid, offs, float(mid[on]))
    nearest = scan.nearest(offs, on)
    weight: float | F64 = 0.0
    if reference == "nearest":
        first = second = nearest
    elif not one_sided:
        span = float(mid[second] - mid[first])
        when = group.mjd[:, on] if reference == "per-dump" else mid[on]
        w = (when - mid[first]) / span
        weight = np.clip(w, 0.0, 1.0) if reference == "per-dump" else float(w)
    return Interpolated(on, MeanKey(first), MeanKey(second), weight, MeanKey(nearest), one_sided)


def _chopped(scan: ScanToPair) -> Sequence[Recipe]:
    """Both beams of a chopped OTF, averaged if the user asks for it, else in the order of L0."""
    scan.require(["OTFSWA-ON", "OTFSWB-ON"], "an ON subscan")
    beam_a, beam_b = (_beam(scan, beam) for beam in "AB")
    if scan.config.dbs_coupling:
        return _merged(scan, beam_a, beam_b)
    return sorted(beam_a + beam_b, key=lambda r: r.on)


def _beam(scan: ScanToPair, beam: str) -> list[DumpPair]:
    """Pair each ON of one beam with the nearest OFF of the same beam."""
    ons = scan.group.select(f"OTFSW{beam}-ON")
    if not ons:
        return []
    offs = scan.require([f"OTFSW{beam}-OFF"], f"an OFF subscan of beam {beam}")
    return [DumpPair(on, scan.nearest(offs, on)) for on in ons]


def _merged(
    scan: ScanToPair, first: Sequence[Difference], second: Sequence[Difference]
) -> list[BeamMerge]:
    """Couple the n-th A with the n-th B, equation (7.2); the positions of B are dropped."""
    if len(first) != len(second):
        raise scan.error(
            f"double beam switching needs as many A as B subscans, but there are {len(first)} of A "
            f"and {len(second)} of B.",
            hint="Leave out --dbs-coupling.",
        )
    return [BeamMerge(a, b) for a, b in zip(first, second, strict=True)]


def _nod(scan: ScanToPair) -> list[NodBeams]:
    """One output per pair of positions, at the times of position 1."""
    firsts = scan.require(["NOD-1"], "a first nod position")
    seconds = scan.require(["NOD-2"], "a second nod position")
    in_second = _pixels_of_second_position(scan)
    return [NodBeams(on, other, in_second) for on, other in scan.one_each(firsts, seconds)]


def _pixels_of_second_position(scan: ScanToPair) -> npt.NDArray[np.bool_]:
    """Mask of the pixels with the source in position 2, bool [R,A], from the attribute nod_beams."""
    shape = scan.group.shape[2:4]
    second = np.zeros(shape, dtype=np.bool_)
    beams = scan.scan.attrs.get("nod_beams")
    if beams is None:
        return second
    valid = np.asarray(beams)
    if valid.shape != (2, 2) or not ((valid >= 0) & (valid < np.array(shape))).all():
        raise scan.error(
            f"nod_beams is {beams}, expected [[receiver, pixel], [receiver, pixel]] within "
            f"{shape[0]} receivers and {shape[1]} pixels.",
            hint="Correct the scan attribute nod_beams, counted from 0.",
        )
    # All receivers of a feed look the same way, so the feed alone decides.
    if beams[0][1] != beams[1][1]:
        second[:, beams[1][1]] = True
    else:
        second[beams[1][0], beams[1][1]] = True
    return second


def _frequency_switch(scan: ScanToPair) -> list[PhaseDifference]:
    """One output per pair of phases; freq_throw, Hz, becomes a throw in channels of each phase."""
    group, fold = scan.group, scan.config.fold
    signals = scan.require(["FSW-SIG"], "a signal phase")
    references = scan.require(["FSW-REF"], "a reference phase")
    if group.freq_throw is None and fold:
        raise scan.error(
            "the frequency throw (freq_throw) is not recorded, so the spectra cannot be folded.",
            hint="Use --no-fold.",
        )
    out = []
    for on, off in scan.one_each(signals, references):
        throw = np.zeros((2, group.shape[2]))
        if group.freq_throw is not None:
            throw = group.freq_throw[:, [on, off]].T / group.freq_res[:, [on, off]].T
            if fold and (same := np.abs(throw[0] - throw[1]) < 1.0).any():
                rec = int(np.argmax(same))
                raise scan.error(
                    f"freq_throw of receiver {rec} is {group.freq_throw[rec, on]:g} Hz in subscan {on} and "
                    f"{group.freq_throw[rec, off]:g} Hz in subscan {off}, expected two frequencies.",
                    hint="Use --no-fold.",
                )
        out.append(PhaseDifference(on, off, throw, fold))
    return out


def _wobbler(scan: ScanToPair) -> Sequence[Recipe]:
    """Cycles of dumps; the source is in chop phase 0 in WSW-ON, 1 in WSW-OFF. Without phases: two subscans."""
    ons = scan.require(["WSW-ON"], "an ON subscan")
    group = scan.group
    if group.chop_phase is None:
        offs = scan.require(["WSW-OFF"], "an OFF subscan")
        return [DumpPair(on, off) for on, off in scan.one_each(ons, offs)]
    position_a = [_cycles_of(scan, group.chop_phase[:, s], s, 0) for s in ons]
    position_b = [_cycles_of(scan, group.chop_phase[:, s], s, 1) for s in group.select("WSW-OFF")]
    if scan.config.dbs_coupling:
        return _merged(scan, position_a, position_b)
    return sorted(position_a + position_b, key=lambda r: r.on)


def _cycles_of(
    scan: ScanToPair, phase: npt.NDArray[np.uint8], subscan: int, source_phase: int
) -> ChopCycles:
    """Cut the dumps into cycles of one run per phase; the source is in ``source_phase``."""
    values = set(np.unique(phase).tolist())
    if values != {0, 1}:
        raise PairingError(
            f"chop_phase holds the values {sorted(values)}, expected both 0 and 1.",
            hint="Write 0 for the phase on the source in WSW-ON and 1 for the other, dump by dump.",
            scan=scan.scan.number,
            band=scan.scan.band,
            subscan=subscan,
        )
    edges = np.flatnonzero(np.diff(phase)) + 1
    runs = [tuple(run.tolist()) for run in np.split(np.arange(len(phase)), edges)]
    cycles = []
    for first, second in zip(runs[0::2], runs[1::2], strict=False):
        on_source_first = phase[first[0]] == source_phase
        cycles.append(ChopCycle(first, second) if on_source_first else ChopCycle(second, first))
    return ChopCycles(subscan, tuple(cycles), MeanKey(subscan, 1 - source_phase))


RULES: dict[str, Rule] = {
    "tp": _total_power,
    "otf": _on_the_fly,
    "otf-chopped": _chopped,
    "nod": _nod,
    "fsw": _frequency_switch,
    "wsw": _wobbler,
}
"""Mode -> its pairing rule. The same names stand in ``gpucal.config.Mode``."""

MODE_OF_PREFIX = {"OTFSW": "otf-chopped", "FSW": "fsw", "WSW": "wsw", "NOD": "nod", "OTF": "otf"}
"""How the sobsmode of a mode begins; the first that fits decides, total power where none does."""
