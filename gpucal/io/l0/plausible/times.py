"""Times and exposures of a group against each other and the clock.

Shapes use D dumps, S subscans.
"""

from __future__ import annotations

import itertools
from typing import Any, NoReturn

import numpy as np

from gpucal.errors import L0Error
from gpucal.io.conventions.attributes import decoded_values
from gpucal.io.l0.nodes import stored_array
from gpucal.io.l0.plausible.outliers import outliers
from gpucal.io.l0.rules import MJD_RANGE
from gpucal.scan import F64, SubscanGroup

DAY_S = 86400.0
LONGEST_DUMP_S = 7200.0
COARSEST_S = 0.05
"""Resolution that times must have."""

ROOM = 0.4
"""Fraction of their exposure that dumps must have on the clock: two phases side by side have half."""

_CLOCK_S = 5e-6
"""What rounding leaves of a time in f64 MJD."""

_AT_ONE_TIME = frozenset(
    {"FSW-SIG", "FSW-REF", "WSW-ON", "WSW-OFF", "NOD-1", "NOD-2"}
    | {"OTFSWA-ON", "OTFSWA-OFF", "OTFSWB-ON", "OTFSWB-OFF", "HOT", "COLD", "SKY", "ZERO"}
)
"""Phases that may be recorded side by side: only subscans of one of them follow each other."""


def check_resolution(name: str, node: Any, stored: Any, decoded: Any) -> None:
    """Raise L0Error for floats [..] that are too short for what they hold: half floats, MJD as float32."""
    kind = stored.dtype
    if kind.kind != "f":
        return
    if kind.itemsize < 4:
        raise L0Error(
            f"array {name} has dtype {kind}, whose 3 digits are not enough.", hint="Write float64."
        )
    good = (decoded >= MJD_RANGE[0]) & (decoded <= MJD_RANGE[1])  # others have another unit
    if name != "mjd" or not good.any():
        return
    after = decoded_values(stored_array(name, node), np.nextafter(stored, kind.type(np.inf)))
    step = float(np.abs(after - decoded)[good].max()) * DAY_S
    if kind.itemsize == 8 and decoded.size >= 3 and _was_float32(decoded[good]):
        step = float(np.spacing(np.float32(decoded[good].max()))) * DAY_S
    if step > COARSEST_S:
        raise L0Error(
            f"array mjd has a resolution of {step:.3g} s (float32), expected {COARSEST_S:g} s or better.",
            hint="Write MJD as float64; seconds are lost in these.",
        )


def _was_float32(values: F64) -> bool:
    """Whether all times of a group are float32 numbers: they were rounded before they were written."""
    return values.size >= 3 and bool(np.all(values == values.astype(np.float32)))


def check_times(group: SubscanGroup) -> list[str]:
    """Raise L0Error where exposures do not fit between the times; warn of single odd records."""
    rounded = _rounded_to(group)
    dumps = [_running(group.recorded_of(group.mjd, s)) for s in range(group.shape[4])]
    if max(dumps) == 1:  # no time runs on: none of them is padding
        dumps = [group.recorded_of(group.mjd, s).size for s in range(group.shape[4])]
    lengths = _within_subscans(group, dumps, rounded)
    _between_subscans(group, lengths, rounded)
    return [*_odd_exposures(group), *_odd_steps(group, dumps, lengths, rounded)]


def _running(mjd: F64) -> int:
    """Dumps until the time stands still: some writers repeat the last one where there are no more dumps."""
    changes = np.flatnonzero(np.diff(mjd))
    return int(changes[-1]) + 2 if changes.size else 1


def _rounded_to(group: SubscanGroup) -> float:
    """Seconds, 1, 0.1 or 0.01, of which all times are multiples: that is how well they are known; else 0."""
    seconds = (group.mjd % 1.0) * DAY_S
    for step in (1.0, 0.1, 0.01):
        if np.all(np.abs(seconds - np.round(seconds / step) * step) < _CLOCK_S):
            return step
    return 0.0


def _within_subscans(group: SubscanGroup, dumps: list[int], rounded: float) -> F64:
    """Exposure of each subscan [S], s; L0Error where it does not fit between its first and last dump."""
    lengths = np.zeros(group.shape[4])
    for s, n in enumerate(dumps):
        exposure, mjd = group.exptime[:n, s], group.mjd[:n, s]
        lengths[s] = exposure.sum()
        if (longest := float(exposure.max())) > LONGEST_DUMP_S:
            raise L0Error(
                f"exptime is {longest:g} s, expected at most {LONGEST_DUMP_S:g} s per dump"
                f"{_like_ms(longest)}.",
                subscan=s,
            )
        needed = lengths[s] - 0.5 * (exposure[0] + exposure[-1])
        span = float(mjd[-1] - mjd[0]) * DAY_S
        if span < ROOM * needed - rounded:
            what = "the same" if span == 0 else f"within {span:.4g} s"
            raise L0Error(
                f"mjd of all {mjd.size} dumps is {what}, their exptime adds up to {lengths[s]:.4g} s.",
                hint="mjd is the middle of each dump (UTC, float64), exptime its length in s.",
                subscan=s,
            )
    return lengths


def _between_subscans(group: SubscanGroup, lengths: F64, rounded: float) -> None:
    """Raise L0Error where subscans that follow each other overlap by more than half, or all of them do."""
    mid = group.mjd_mid
    keys = [mode if mode in _AT_ONE_TIME else "" for mode in group.sobsmode]
    for key in dict.fromkeys(keys):
        places = [s for s, k in enumerate(keys) if k == key]
        for before, s in itertools.pairwise(places):
            gap = float(mid[s] - mid[before]) * DAY_S
            needed = 0.5 * (lengths[s] + lengths[before])
            if gap < ROOM * needed - rounded:
                _refuse_overlap(before, s, gap, needed)
        first, last = places[0], places[-1]
        span = float(mid[last] - mid[first]) * DAY_S
        needed = float(lengths[places].sum() - 0.5 * (lengths[first] + lengths[last]))
        if span < ROOM * needed - rounded:
            _refuse_overlap(first, last, span, needed)


def _refuse_overlap(before: int, subscan: int, gap: float, needed: float) -> NoReturn:
    apart = f"{gap:.4g} s apart" if gap else "at the same mjd"
    raise L0Error(
        f"subscans {before} and {subscan} are {apart}, their exptime needs {needed:.4g} s"
        f"{_like_ms(needed)}.",
        hint="mjd is in days (UTC, float64), exptime in s per dump.",
        subscan=subscan,
    )


def _like_ms(value: float) -> str:
    return "; it looks like ms" if value >= 50 else ""


def _odd_exposures(group: SubscanGroup) -> list[str]:
    """A warning about dumps, but for the last of a subscan, of quite another exposure than the others."""
    notes = []
    for s in range(group.shape[4]):
        exposure = group.recorded_of(group.exptime, s)
        if exposure.size < 3:
            continue
        middle = float(np.median(exposure))
        odd = np.flatnonzero((exposure > 3 * middle) | (exposure < middle / 3))
        odd = odd[odd < exposure.size - 1]
        if odd.size:
            notes.append(
                f"exptime of dump {odd[0]} of subscan {s} ({group.sobsmode[s]}) is {exposure[odd[0]]:g} s, "
                f"that of the others {middle:g} s: its weight and noise follow it."
            )
    means = np.array([np.mean(group.recorded_of(group.exptime, s)) for s in range(group.shape[4])])
    for mode in dict.fromkeys(group.sobsmode):
        places = np.array(group.select(mode))
        odd = places[outliers(np.log(means[places]), float(np.log(3.0)))]
        notes += [
            f"exptime of subscan {s} ({mode}) is {means[s]:g} s, that of the others "
            f"{np.median(means[places]):g} s: its weight and noise follow it."
            for s in odd
        ]
    return notes[:3]


def _odd_steps(group: SubscanGroup, dumps: list[int], lengths: F64, rounded: float) -> list[str]:
    """A warning where the times of a regular series jump, by a leap second or back."""
    if rounded == 1.0:
        return []  # steps of 1, 1, 2 s are what is left of 1.3 s
    for s, n in enumerate(dumps):
        steps, off = _steps(group.mjd[:n, s], group.exptime[:n, s])
        at = _jump(steps, off, rounded)
        if at is not None:
            return [_jump_text(f"dumps {at} and {at + 1} of subscan {s}", steps, at)]
    # the way to the next subscan takes as long as it takes: only where all others are equal
    middles = np.array([0.5 * (group.mjd[0, s] + group.mjd[n - 1, s]) for s, n in enumerate(dumps)])
    steps, off = _steps(middles, lengths)
    if off.size < 4:
        return []
    off = off - np.median(off)
    odd = np.flatnonzero(np.abs(np.abs(off) - 1.0) < 0.05)
    if odd.size != 1 or np.abs(np.delete(off, odd)).max() > 0.005:
        return []
    at = int(odd[0])
    return [_jump_text(f"subscans {at} and {at + 1}", steps, at)]


def _steps(middles: F64, lengths: F64) -> tuple[F64, F64]:
    """From one middle to the next, s [n-1], and how much longer that is than the exposures between."""
    steps = np.diff(middles) * DAY_S
    return steps, steps - 0.5 * (lengths[1:] + lengths[:-1])


def _jump(steps: F64, off: F64, rounded: float) -> int | None:
    """Place of the step, one or two, of a regular series of dumps that is 1 s longer, or shorter by far.

    A gap of whole steps is one of dumps that are not there.
    """
    if steps.size < 3:
        return None
    usual = float(np.median(steps))
    off = off - np.median(off)
    if not np.median(np.abs(off)) < 0.02:
        return None
    odd = np.abs(off + 1.0) < 0.05
    odd |= off < -0.4 * usual - rounded
    dumps = off / usual if usual > 0 else np.zeros_like(off)
    odd |= (np.abs(off - 1.0) < 0.05) & (np.abs(dumps - np.round(dumps)) > 0.05)
    return int(np.argmax(odd)) if 1 <= odd.sum() <= 2 else None


def _jump_text(where: str, steps: F64, at: int) -> str:
    usual = float(np.median(steps))
    leap = " (one second: was a leap second counted twice, or left out?)"
    second = leap if abs(abs(steps[at] - usual) - 1.0) < 0.05 else ""
    return f"mjd jumps: {where} are {steps[at]:.4g} s apart, the others {usual:.4g} s{second}."
