"""Compare one band of a scan in two stores; a block of channels of one subscan is in memory at a time.

Beside it T_sys of one subscan, and T_rec. Shapes: C channels, D dumps, R receivers, A pixels, S ON subscans.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.axes import UNUSABLE, Flag
from gpucal.compare.products import F64, BandComparison, Change, Counts
from gpucal.compare.settings import config_changes, origin_changes
from gpucal.compare.sums import PixelSums
from gpucal.io.chunks.counts import ZarrCounts
from gpucal.io.l1.reader import COORDINATES, L1Scan
from gpucal.io.l1.rounded import rounding_step
from gpucal.io.l1.stored_t_sys import StoredTSys

BLOCK_BYTES = 64 << 20
"""Spectra of one store in memory at a time."""

AXES = ("frequency", "image_frequency")
STREAMED = ("spectra", "flags", "t_sys", "t_sys_star", "t_rec", "gamma", "pwv")


def compare_bands(old: L1Scan, new: L1Scan) -> BandComparison:
    """What changed in a band; raises CorruptDataError for a chunk that cannot be decoded."""
    changes: dict[str, Change] = {}
    flags: dict[str, tuple[Counts, Counts]] = {}
    problems = [
        f"{name} is missing in {where}."
        for name in ("spectra", "flags")
        for where, scan in (("OLD", old), ("NEW", new))
        if name not in scan
    ]
    if not problems:
        shapes = [scan["spectra"].shape for scan in (old, new)]
        problems += _other_shapes(*shapes)
        if _places(shapes[0]) == _places(shapes[1]):
            pair = _Pair(old, new)
            changes, flags = pair.streamed(samples=not problems)
            problems += pair.problems
    recorded, derived = _small_arrays(old, new, shapes=not problems)
    return BandComparison(
        scan=old.number,
        band=old.band,
        changes=changes,
        flags=flags,
        axes=_axes(old, new),
        recorded=recorded,
        derived=derived,
        config=config_changes(old.attrs, new.attrs),
        origin=origin_changes(old.attrs, new.attrs),
        problems=tuple(problems),
    )


def _places(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Channels, receivers and pixels."""
    return (shape[0], *shape[2:4])


def _other_shapes(old: tuple[int, ...], new: tuple[int, ...]) -> list[str]:
    """Sentences on the axes that do not fit; subscans are matched by their number."""
    names = ("channels", "dumps", "receivers", "pixels")
    pairs = zip(names, old, new, strict=False)
    return [
        f"it has {a} {name}, now {b}: samples cannot be compared." for name, a, b in pairs if a != b
    ]


class _Pair:
    """Two bands with the same channels and pixels."""

    def __init__(self, old: L1Scan, new: L1Scan) -> None:
        self._old, self._new = old, new
        self._pixels: tuple[int, int] = old["spectra"].shape[2:4]  # type: ignore[assignment]
        self._t_sys = tuple(StoredTSys(scan) for scan in (old, new))
        self._noise = _dump_rates(old)
        self._first, self._second = _Reader(old), _Reader(new)
        self.problems: list[str] = []
        self._outputs = self._matched()

    def _matched(self) -> list[tuple[int, int]]:
        """Positions, in OLD and in NEW, of the subscans that both have."""
        first, second = (_subscans(scan) for scan in (self._old, self._new))
        for here, there, where in ((first, second, "OLD"), (second, first, "NEW")):
            alone = sorted(here.keys() - there.keys())
            if alone:
                some = ", ".join(map(str, alone[:5])) + (", ..." if len(alone) > 5 else "")
                self.problems.append(f"subscan {some} is in {where} alone.")
        return [(first[n], second[n]) for n in sorted(first.keys() & second.keys())]

    def streamed(
        self, *, samples: bool
    ) -> tuple[dict[str, Change], dict[str, tuple[Counts, Counts]]]:
        """Changes of spectra and flags (``samples``), of temperatures and of the water."""
        steps = [rounding_step(scan["spectra"].attrs) or 0.0 for scan in (self._old, self._new)]
        sums = {
            "spectra": PixelSums("T_A*", "K", self._pixels, rounding=0.5 * sum(steps)),
            "t_sys_star": PixelSums("T_sys*", "K", self._pixels),
            "t_sys": PixelSums("T_sys", "K", self._pixels),
            "t_rec": PixelSums("T_rec", "K", self._pixels),
            "gamma": PixelSums("gamma", "K", self._pixels),
            "pwv": PixelSums("PWV", "mm", self._pixels),
        }
        changed = _FlagCounts(self._pixels)
        for here, there in self._outputs:
            self._output(here, there, sums, changed, samples)
        for name in ("t_rec", "gamma"):
            if name in self._old and name in self._new:
                a, b = (_f64(scan[name][...]) for scan in (self._old, self._new))
                sums[name].add(a, b, sigma=_scale_error(self._old, a))
        self._water(sums["pwv"])
        changes = {name: total.change() for name, total in sums.items()}
        seen = {n: c for n, c in changes.items() if (c.count + c.only_old + c.only_new).any()}
        return seen, changed.found()

    def _output(
        self, here: int, there: int, sums: dict[str, PixelSums], flags: _FlagCounts, samples: bool
    ) -> None:
        """T_sys of one subscan, then its samples block by block."""
        star = [
            t.star(s) if t.known else None for t, s in zip(self._t_sys, (here, there), strict=True)
        ]
        a, b = star
        if a is not None and b is not None:
            sums["t_sys_star"].add(a, b, sigma=_scale_error(self._old, a, here))
        if "t_sys" in self._old and "t_sys" in self._new:
            c, d = (t.at_receiver(s) for t, s in zip(self._t_sys, (here, there), strict=True))
            sums["t_sys"].add(c, d, sigma=_scale_error(self._old, c, here))
        if not samples:
            return
        noise = np.full((1, 1, 1), np.nan) if a is None else a * self._noise[here]
        for c0, c1 in self._blocks():
            block = slice(c0, c1) if len(noise) > 1 else slice(None)
            sigma = noise[block][:, None]
            old, of_old = self._first.read(c0, c1, here)
            new, of_new = self._second.read(c0, c1, there)
            flags.add(of_old, of_new)
            sums["spectra"].add(old, new, floor=sigma, sigma=sigma)

    def _blocks(self) -> Iterator[tuple[int, int]]:
        """Channel ranges, none across the border of two chunks of OLD."""
        spectra = self._old["spectra"]
        n_channels, dumps, receivers, pixels, _ = spectra.shape
        most = max(1, BLOCK_BYTES // (dumps * receivers * pixels * 8))
        step = min(spectra.chunks[0], most)
        for first in range(0, n_channels, spectra.chunks[0]):
            last = min(first + spectra.chunks[0], n_channels)
            yield from ((c0, min(c0 + step, last)) for c0 in range(first, last, step))

    def _water(self, sums: PixelSums) -> None:
        """PWV of each pixel and subscan, whatever the scope of the fits."""
        if not ("pwv" in self._old and "pwv" in self._new and self._outputs):
            return
        first, second = zip(*self._outputs, strict=True)
        old, new = (
            _per_pixel(scan, "pwv")[..., list(which)]
            for scan, which in ((self._old, first), (self._new, second))
        )
        error: F64 | float = np.nan
        if "pwv_error" in self._old:
            error = np.moveaxis(_per_pixel(self._old, "pwv_error")[..., list(first)], -1, 0)
        sums.add(np.moveaxis(old, -1, 0), np.moveaxis(new, -1, 0), sigma=error)


class _Reader:
    """Samples of one band, each chunk decoded once."""

    def __init__(self, scan: L1Scan) -> None:
        place: dict[str, Any] = {"scan": scan.number, "band": scan.band, "cache_bytes": 0}
        self._spectra = ZarrCounts(scan["spectra"], **place)
        self._flags = ZarrCounts(scan["flags"], **place)

    def read(
        self, c0: int, c1: int, subscan: int
    ) -> tuple[F64, npt.NDArray[np.unsignedinteger[Any]]]:
        """Spectra f64 [c,D,R,A] K, NaN where unusable, and flags. Raises CorruptDataError."""
        values = _f64(self._spectra.read(c0, c1, subscan))
        flags = self._flags.read(c0, c1, subscan)
        values[(flags & flags.dtype.type(int(UNUSABLE))) != 0] = np.nan
        return values, flags


class _FlagCounts:
    """Samples of each pixel whose flags changed, bit by bit."""

    def __init__(self, pixels: tuple[int, int]) -> None:
        self._counts = {flag: np.zeros((2, *pixels), dtype=np.int64) for flag in Flag}

    def add(self, old: npt.NDArray[Any], new: npt.NDArray[Any]) -> None:
        """Add the flags [c,D,R,A] of both stores."""
        changed = old ^ new
        if not changed.any():
            return
        for flag, counts in self._counts.items():
            bit = changed.dtype.type(int(flag))
            for side, values in enumerate((old, new)):
                counts[side] += np.count_nonzero(changed & values & bit, axis=(0, 1))

    def found(self) -> dict[str, tuple[Counts, Counts]]:
        """Bits that changed anywhere."""
        return {
            str(flag.name): (counts[0], counts[1])
            for flag, counts in self._counts.items()
            if counts.any()
        }


def _f64(values: Any) -> F64:
    return np.array(values, dtype=np.float64)


def _subscans(scan: L1Scan) -> dict[int, int]:
    """Number of each subscan in L0 -> its position."""
    if "on_index" not in scan:
        return {n: n for n in range(scan["spectra"].shape[4])}
    return {int(n): i for i, n in enumerate(np.asarray(scan["on_index"][...]).tolist())}


def _dump_rates(scan: L1Scan) -> F64:
    """rms of one dump over T_sys*, f64 [S]; NaN where an older store does not record it; physics equation (6.4)."""
    _, dumps, _, _, outputs = scan["spectra"].shape
    noise = scan.attrs.get("noise") or {}
    rate = np.asarray(noise.get("rate", ()), dtype=np.float64)
    frequency = _f64(scan["frequency"][...]) if "frequency" in scan else np.empty(0)
    if rate.shape != (outputs,) or frequency.shape[:1] < (2,):
        return np.full(outputs, np.nan)
    total = rate * dumps
    np.add.at(total, noise["output"], np.square(np.asarray(noise["share"], dtype=np.float64)))
    first = frequency.reshape(len(frequency), -1)[:, 0]
    width = abs(float(first[-1] - first[0])) / (len(first) - 1)
    return np.asarray(np.sqrt(total / (width * float(scan.attrs.get("noise_bandwidth", 1.0)))))


def _scale_error(scan: L1Scan, values: F64, output: int | None = None) -> F64 | float:
    """What temperatures [C,R,A] are known to, K: by the error of the scale of T_A*; NaN where a store has none."""
    if "t_a_star_error" not in scan:
        return np.nan
    errors = _f64(scan["t_a_star_error"][...])
    part = np.median(errors, axis=-1) if output is None else errors[..., output]
    return np.abs(values) * part


def _per_pixel(scan: L1Scan, name: str) -> F64:
    """A value of the scan, of each pixel or of each subscan as f64 [R,A,S]."""
    values = _f64(scan[name][...])
    values = values[..., None] if values.ndim == 2 else values
    return np.array(np.broadcast_to(values, scan["spectra"].shape[2:]))


def _axes(old: L1Scan, new: L1Scan) -> dict[str, float]:
    """Largest difference of the frequency axes, in channels; infinite where their shapes differ."""
    found = {}
    for name in AXES:
        if name not in old or name not in new:
            if (name in old) != (name in new):
                found[name] = np.inf
            continue
        a, b = _f64(old[name][...]), _f64(new[name][...])
        if a.shape != b.shape:
            found[name] = np.inf
        elif not np.array_equal(a, b, equal_nan=True):
            width = np.abs(np.diff(a, axis=0)).min() if len(a) > 1 else np.abs(a).max()
            found[name] = float(np.max(np.abs(a - b))) / float(width)
    return found


def _small_arrays(
    old: L1Scan, new: L1Scan, *, shapes: bool
) -> tuple[dict[str, float], dict[str, float]]:
    """Other arrays that differ, and by how much, relative to their largest value: recorded, and derived.

    shapes: whether another shape is news, not what the problems tell already.
    """
    recorded: dict[str, float] = {}
    derived: dict[str, float] = {}
    for name in sorted({*old, *new} - {*STREAMED, *AXES}):
        if name in old and name in new and old[name].shape == new[name].shape:
            most = _relative(*(_f64(scan[name][...]) for scan in (old, new)))
        else:
            most = np.inf if shapes else 0.0
        if most > 0:
            (recorded if name in COORDINATES else derived)[name] = most
    return recorded, derived


def _relative(old: F64, new: F64) -> float:
    """Largest difference over the largest value; infinite where one is NaN and the other is not."""
    if np.array_equal(old, new, equal_nan=True):
        return 0.0
    if not np.array_equal(np.isnan(old), np.isnan(new)):
        return np.inf
    largest = float(np.nanmax(np.abs(old)))
    most = float(np.nanmax(np.abs(old - new)))
    return most / largest if largest > 0 else np.inf
