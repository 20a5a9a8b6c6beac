"""Results of a comparison, and when a change counts. Shapes: R receivers, A pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Pair = tuple[Any, Any]
"""A value in OLD, and in NEW."""


@dataclass(frozen=True, eq=False)
class Change:
    """Change of one quantity from OLD to NEW in each pixel, over the values that both stores have; f64 [R,A].

    count       values compared
    only_old, only_new  values that one store has and the other has not
    old, new    means, in ``unit``
    ratio       NEW over OLD, sum(old new) / sum(old^2): noise that both share does not spoil it
    rms, largest  of the difference, in ``unit``; rounding: what of it is explained by the rounding that L1 states
    relative    largest difference beyond that, over the value, or over the noise of a dump where that is larger
    sigma       the same over what the value is known to: T_A* the noise of a dump, PWV its error, temperatures the
                error of the scale of T_A*; NaN where the store does not tell
    """

    quantity: str
    unit: str
    count: F64
    only_old: F64
    only_new: F64
    old: F64
    new: F64
    ratio: F64
    rms: F64
    largest: F64
    relative: F64
    sigma: F64
    rounding: float = 0.0

    def differs(self, tolerance: Tolerance) -> npt.NDArray[np.bool_]:
        """Pixels, bool [R,A], that changed by more than is allowed."""
        within = self.relative <= tolerance.rtol
        if tolerance.sigma > 0:
            within |= self.sigma <= tolerance.sigma
        one_sided = (self.only_old > 0) | (self.only_new > 0)
        return (~within & (self.count > 0)) | one_sided

    def worst(self) -> tuple[int, int]:
        """Receiver and pixel of the largest relative change."""
        place = np.argmax(np.nan_to_num(self.relative, nan=-1.0, posinf=np.finfo(np.float64).max))
        receiver, pixel = np.unravel_index(int(place), self.relative.shape)
        return int(receiver), int(pixel)


@dataclass(frozen=True)
class Tolerance:
    """Largest change that does not count: relative, or in sigma where that is known and above 0. See ``Change``."""

    rtol: float = 0.0
    sigma: float = 0.0


@dataclass(frozen=True, eq=False)
class BandComparison:
    """One band of one scan in both stores.

    changes: by quantity, spectra first. flags: by name of the bit, samples [R,A] that have it in OLD alone, and in NEW
    alone. axes: largest difference of the frequency axes, in channels. recorded, derived: other arrays that differ, by
    name, and by how much at most, relative: those of the telescope, and those that follow from loads and atmosphere.
    config, origin: what the scans were made with and from, OLD and NEW. problems: why something could not be compared.
    """

    scan: int
    band: str
    changes: Mapping[str, Change] = field(default_factory=dict)
    flags: Mapping[str, tuple[Counts, Counts]] = field(default_factory=dict)
    axes: Mapping[str, float] = field(default_factory=dict)
    recorded: Mapping[str, float] = field(default_factory=dict)
    derived: Mapping[str, float] = field(default_factory=dict)
    config: Mapping[str, Pair] = field(default_factory=dict)
    origin: Mapping[str, Pair] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def flagged(self) -> int:
        """Bits that changed, over all samples."""
        return sum(int(old.sum() + new.sum()) for old, new in self.flags.values())

    def differences(self, tolerance: Tolerance) -> list[str]:
        """Names of what differs beyond the tolerance; other settings alone are no difference."""
        found = [name for name, c in self.changes.items() if c.differs(tolerance).any()]
        found += ["flags"] if self.flagged else []
        # In sigma nothing is known of the small arrays: T_A* and PWV say what they do.
        small = {**self.axes, **self.recorded, **({} if tolerance.sigma > 0 else self.derived)}
        found += [name for name, most in small.items() if not most <= tolerance.rtol]
        found += ["what can be compared"] if self.problems else []
        return found


@dataclass(frozen=True, eq=False)
class StoreComparison:
    """Result of ``compare_stores``: every scan and band that both stores have, and those that one of them lacks.

    bands: see ``BandComparison``; only_old, only_new: scan numbers, and "scan/band" where a band is missing.
    ``differing(rtol, sigma)`` names what changed beyond a tolerance, ``to_dict()`` holds all numbers for JSON.
    """

    old: str
    new: str
    bands: tuple[BandComparison, ...]
    only_old: tuple[str, ...] = ()
    only_new: tuple[str, ...] = ()

    def differing(self, rtol: float = 0.0, sigma: float = 0.0) -> dict[tuple[int, str], list[str]]:
        """(scan, band) -> what differs by more than rtol, and by more than sigma where that is above 0."""
        tolerance = Tolerance(rtol, sigma)
        found = {(b.scan, b.band): b.differences(tolerance) for b in self.bands}
        return {key: names for key, names in found.items() if names}

    def to_dict(self, rtol: float = 0.0, sigma: float = 0.0) -> dict[str, Any]:
        """All numbers as lists [R][A], for JSON; with what differs beyond the tolerance."""
        return {
            "old": self.old,
            "new": self.new,
            "rtol": rtol,
            "sigma": sigma,
            "only_old": list(self.only_old),
            "only_new": list(self.only_new),
            "bands": [_band_dict(band, Tolerance(rtol, sigma)) for band in self.bands],
        }


NUMBERS = (
    "count",
    "only_old",
    "only_new",
    "old",
    "new",
    "ratio",
    "rms",
    "largest",
    "relative",
    "sigma",
)
"""Fields of a ``Change`` that are [R,A]."""


def _band_dict(band: BandComparison, tolerance: Tolerance) -> dict[str, Any]:
    """A band for JSON."""
    return {
        "scan": band.scan,
        "band": band.band,
        "differs": band.differences(tolerance),
        "changes": {name: dict(_change_items(change)) for name, change in band.changes.items()},
        "flags": {
            name: {"only_old": old.tolist(), "only_new": new.tolist()}
            for name, (old, new) in band.flags.items()
        },
        "axes": dict(band.axes),
        "recorded": dict(band.recorded),
        "derived": dict(band.derived),
        "config": {key: {"old": old, "new": new} for key, (old, new) in band.config.items()},
        "origin": {key: {"old": old, "new": new} for key, (old, new) in band.origin.items()},
        "problems": list(band.problems),
    }


def _change_items(change: Change) -> Iterator[tuple[str, Any]]:
    yield "unit", change.unit
    yield "rounding", change.rounding
    for name in NUMBERS:
        yield name, getattr(change, name).tolist()


def middle(values: F64) -> float:
    """Median of the finite values; NaN without any."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else math.nan
