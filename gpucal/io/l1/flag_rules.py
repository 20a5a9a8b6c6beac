"""Rules that flag samples of a calibrated store by hand: what they name, and which samples that is.

Shapes: C channels, D dumps, R receivers, A pixels, S subscans of L1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.errors import ConfigError

Range = tuple[int, int]
Ranges = tuple[Range, ...]
Mask = npt.NDArray[np.bool_]
Numbers = str | int | Iterable[int] | None
"""Numbers as users give them: "1,4-6", "100:120" (both ends included), 3, [1, 4]; None: all."""

_UNITS = {"ghz": 1e9, "mhz": 1e6, "khz": 1e3, "hz": 1.0}
_FREQUENCIES = re.compile(r"([-+.\d]+(?:e[-+]?\d+)?)[:-]([-+.\d]+(?:e[-+]?\d+)?)(ghz|mhz|khz|hz)")
_RANGE = re.compile(r"(\d+)(?:[:-](\d+))?")


@dataclass(frozen=True, eq=False)
class Extent:
    """Size of one band of one scan: shape (C, D, R, A, S), frequency f64 [C,1|R] Hz, on_index i32 [S]:
    the raw subscan of each subscan."""

    shape: tuple[int, int, int, int, int]
    frequency: npt.NDArray[np.float64]
    on_index: npt.NDArray[np.int32]


@dataclass(frozen=True)
class FlagRule:
    """Samples to leave out, and why. An empty tuple means all; both ends of a range are included.

    scans: numbers; band: "band_1", "" all; receivers, pixels, subscans (of L1), dumps, channels: ranges;
    frequencies: ranges in Hz, together with the channels. id, who, when (UTC): set when it is recorded.
    raw_subscans: the subscans as L0 counts them, so that the rule finds them after another calibration.
    """

    reason: str
    scans: tuple[int, ...] = ()
    band: str = ""
    receivers: Ranges = ()
    pixels: Ranges = ()
    subscans: Ranges = ()
    dumps: Ranges = ()
    channels: Ranges = ()
    frequencies: tuple[tuple[float, float], ...] = ()
    id: str = ""
    who: str = ""
    when: str = ""
    raw_subscans: tuple[int, ...] = ()

    @property
    def selects(self) -> bool:
        """Whether the rule names anything less than the whole store."""
        parts = (self.scans, self.band, self.receivers, self.pixels, self.subscans)
        return any((*parts, self.dumps, self.channels, self.frequencies))

    def record(self) -> dict[str, Any]:
        """The rule as JSON; what is empty is left out."""
        return {key: value for key, value in asdict(self).items() if value not in ("", ())}

    def digest(self) -> str:
        """Text by which two rules that say the same are known, whoever recorded them when."""
        plain = replace(self, id="", who="", when="", raw_subscans=())
        return json.dumps(plain.record(), sort_keys=True)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> FlagRule:
        """The rule that ``record`` made."""

        def frozen(value: Any) -> Any:
            return tuple(map(frozen, value)) if isinstance(value, list) else value

        return cls(**{key: frozen(value) for key, value in record.items()})

    def applies_to(self, scan: int, band: str) -> bool:
        """Whether the rule speaks of this scan and band."""
        return (not self.scans or scan in self.scans) and (not self.band or band == self.band)

    def text(self) -> str:
        """The samples in words: "pixel 3, channel 100-120"."""
        parts = [self.band] if self.band else []
        parts += [
            f"{name} {ranges_text(ranges)}"
            for name in ("receiver", "pixel", "subscan", "dump", "channel")
            if (ranges := getattr(self, name + "s"))
        ]
        if self.frequencies:
            shown = (f"{lo / 1e9:.9g}:{hi / 1e9:.9g}" for lo, hi in self.frequencies)
            parts.append(f"{','.join(shown)} GHz")
        return ", ".join(parts) or "all samples"

    def placed(self, extent: Extent) -> FlagRule:
        """The rule with its subscans as L0 counts them."""
        if not self.subscans or self.raw_subscans:
            return self
        chosen = _chosen(self.subscans, extent.shape[4])
        return replace(self, raw_subscans=tuple(int(n) for n in extent.on_index[chosen]))

    def misfits(self, extent: Extent) -> list[str]:
        """What the rule names and this band does not have, in words; empty when it fits."""
        c, d, r, a, s = extent.shape
        sizes = {"receiver": r, "pixel": a, "dump": d, "channel": c}
        if not self.raw_subscans:
            sizes["subscan"] = s
        found = [
            f"there is no {name} {max(hi for _, hi in ranges)}, only 0 to {size - 1}"
            for name, size in sizes.items()
            if (ranges := getattr(self, name + "s")) and max(hi for _, hi in ranges) >= size
        ]
        lost = sorted(set(self.raw_subscans) - set(extent.on_index.tolist()))
        if lost:
            found.append(f"raw subscan {ranges_text(tuple((n, n) for n in lost))} is not in it")
        low, high = float(np.min(extent.frequency)), float(np.max(extent.frequency))
        found += [
            f"there is no channel at {lo / 1e9:.9g}:{hi / 1e9:.9g} GHz, only from "
            f"{low / 1e9:.9g} to {high / 1e9:.9g} GHz"
            for lo, hi in self.frequencies
            if not ((extent.frequency >= lo) & (extent.frequency <= hi)).any()
        ]
        return found

    def marks(self, extent: Extent) -> Marks:
        """The samples of a band that the rule names; what the band does not have is left out."""
        c, d, r, a, s = extent.shape
        channels = np.zeros((c, r), dtype=bool)
        if self.channels or not self.frequencies:
            channels |= _chosen(self.channels, c)[:, None]
        for lo, hi in self.frequencies:
            channels |= (extent.frequency >= lo) & (extent.frequency <= hi)
        subscans = _chosen(self.subscans, s)
        if self.raw_subscans:
            subscans = np.isin(extent.on_index, self.raw_subscans)
        return Marks(
            channels & _chosen(self.receivers, r),
            _chosen(self.dumps, d),
            _chosen(self.pixels, a),
            subscans,
        )


@dataclass(frozen=True, eq=False)
class Marks:
    """Flagged samples as the product of bool [C,R], [D], [A] and [S]."""

    channels: Mask
    dumps: Mask
    pixels: Mask
    subscans: Mask

    def hits(self, region: tuple[slice, ...]) -> bool:
        """Whether any sample of a region is flagged."""
        c, d, r, a, s = region
        parts = (self.channels[c, r], self.dumps[d], self.pixels[a], self.subscans[s])
        return all(bool(part.any()) for part in parts)

    def within(self, region: tuple[slice, ...]) -> Mask:
        """The flagged samples of a region, bool [c,d,r,a,s]."""
        c, d, r, a, s = region
        cube = self.channels[c, r][:, None, :, None, None] & self.dumps[d][:, None, None, None]
        return np.asarray(cube & self.pixels[a][:, None] & self.subscans[s])

    @property
    def count(self) -> int:
        """Number of flagged samples."""
        parts = (self.channels, self.dumps, self.pixels, self.subscans)
        return int(np.prod([int(part.sum()) for part in parts]))


def _chosen(ranges: Ranges, size: int) -> Mask:
    """bool [size]: the numbers in the ranges, all of them without ranges."""
    found = np.full(size, not ranges)
    for lo, hi in ranges:
        found[lo : hi + 1] = True
    return found


def ranges_text(ranges: Ranges) -> str:
    """The ranges in words: "1,4-6"; neighbours are joined."""
    runs: list[list[int]] = []
    for lo, hi in sorted(ranges):
        if runs and lo <= runs[-1][1] + 1:
            runs[-1][1] = max(hi, runs[-1][1])
        else:
            runs.append([lo, hi])
    return ",".join(str(lo) if lo == hi else f"{lo}-{hi}" for lo, hi in runs)


def read_numbers(name: str, given: Numbers) -> Ranges:
    """Ranges of what a user gave for ``name``; raises ConfigError for what are no numbers."""
    if given is None:
        return ()
    if isinstance(given, str):
        parts = given.split(",")
    else:
        values = [given] if isinstance(given, int) else list(given)
        parts = ["bool" if isinstance(v, bool) else str(v) for v in values]
    return tuple(_read_range(name, given, part) for part in parts)


def read_scans(given: Numbers) -> tuple[int, ...]:
    """Scan numbers, ascending, of "1,5-9", 3 or [1, 5]; raises ConfigError for what are no numbers."""
    ranges = read_numbers("scans", given)
    return tuple(sorted({n for lo, hi in ranges for n in range(lo, hi + 1)}))


def read_channels(given: Numbers) -> tuple[Ranges, tuple[tuple[float, float], ...]]:
    """Channels, and frequencies in Hz, of "100:120,230.5:230.6GHz"; raises ConfigError."""
    if not isinstance(given, str):
        return read_numbers("channels", given), ()
    channels, frequencies = [], []
    for part in given.split(","):
        text = "".join(part.split()).lower()
        if match := _FREQUENCIES.fullmatch(text):
            try:
                lo, hi = (float(match[i]) * _UNITS[match[3]] for i in (1, 2))
            except ValueError:
                raise _not_numbers("channels", given) from None
            if not lo < hi:
                raise ConfigError(f"channels holds {part.strip()!r}, which runs backwards.")
            frequencies.append((lo, hi))
        else:
            channels.append(_read_range("channels", given, part))
    return tuple(channels), tuple(frequencies)


def _read_range(name: str, given: object, part: str) -> Range:
    """One number, or two with ":" or "-" between them."""
    match = _RANGE.fullmatch("".join(part.split()))
    if match is None:
        raise _not_numbers(name, given)
    lo, hi = int(match[1]), int(match[2] or match[1])
    if hi < lo:
        raise ConfigError(f"{name} holds {part.strip()!r}, which runs backwards.")
    return lo, hi


def _not_numbers(name: str, given: object) -> ConfigError:
    more = ", or frequencies with their unit such as 230.5:230.6GHz" if name == "channels" else ""
    return ConfigError(
        f"{name} is {given!r}, expected numbers and ranges such as 1,4-6 or 100:120 "
        f"(both ends included){more}."
    )
