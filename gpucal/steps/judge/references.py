"""The judge of loads and references: leaves out what cannot be, and says what that was. Physics equation (4.5).

Shapes: c channels of a block, D dumps, R receivers, A pixels.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.axes import CAL_MODES, FILL_INT32
from gpucal.backend.protocol import Backend
from gpucal.config import CalibrationConfig
from gpucal.products import MeanKey
from gpucal.scan import SubscanGroup
from gpucal.steps.judge.steady import STEADY, Steady, cannot_be, stands_still

Array = Any
Mask = npt.NDArray[np.bool_]

MOST_NAMED = 3
LITTLE = 0.01
"""Part of the channels of a dump that is left out without a word: single spikes are nothing rare."""

STANDS_STILL_DEG = 5 / 3600
"""Of a beam, even at the highest frequencies."""


class Judge:
    """Judges the dumps of steady subscans while their means are made; it may be used by several threads."""

    def __init__(
        self, config: CalibrationConfig, backend: Backend, *, noise_free: bool = False
    ) -> None:
        """noise_free: the counts were made without noise, so that equal dumps are none that stand still."""
        self._noise_free = noise_free
        self._sigmas = config.spike_sigma
        self._bandwidth = config.noise_bandwidth or 1.0
        self._backend = backend
        self._lock = threading.Lock()
        self._found: dict[int, list[tuple[int, Mask]]] = {}
        self._stuck: dict[int, Mask] = {}
        self._modes: dict[int, str] = {}
        self._channels = 1

    def without(
        self, counts: Array, mean: Array, group: SubscanGroup, key: MeanKey, start: int
    ) -> Array | None:
        """Counts [c,D,R,A] with fill where a sample cannot be; None where nothing is wrong.

        mean f64 [c,R,A] of the dumps of ``key``; start: the first channel of this block.
        """
        mode = group.sobsmode[key.subscan]
        if mode not in STEADY or (mode not in CAL_MODES and _moves(group, key.subscan)):
            return None
        exposure = group.recorded_of(group.exptime, key.subscan)
        dumps = np.arange(len(exposure))
        if key.phase is not None and group.chop_phase is not None:
            dumps = dumps[group.chop_phase[: len(dumps), key.subscan] == key.phase]
        width = float(np.abs(group.freq_res[:, key.subscan]).min()) * self._bandwidth
        noise = 1.0 / np.sqrt(width * exposure[dumps])
        whole = len(dumps) == counts.shape[1]
        backend, xp = self._backend, self._backend.xp
        part = counts if whole else xp.take(counts, xp.asarray(dumps), axis=1)
        steady = Steady(self._sigmas, noise)
        if (
            not self._noise_free
            and start == 0
            and (stuck := stands_still(part, mean, steady, backend)).any()
        ):
            with self._lock:
                self._stuck[key.subscan] = stuck
                self._modes[key.subscan] = mode
        bad = cannot_be(part, mean, steady, backend)
        if bad is None:
            return None
        every = bad
        if not whole:
            every = np.zeros(counts.shape, np.bool_)
            every[:, dumps] = bad
        with self._lock:
            self._found.setdefault(key.subscan, []).append((start, every))
            self._modes[key.subscan] = mode
            self._channels = group.shape[0]
        blank = FILL_INT32 if counts.dtype == xp.int32 else np.nan
        if counts.dtype == xp.uint32:
            counts = xp.astype(counts, xp.float64)
        return xp.where(backend.asarray(every), xp.asarray(blank, dtype=counts.dtype), counts)

    def warnings(self) -> tuple[str, ...]:
        """A sentence for each subscan of which much of a dump was left out, or whose dumps are equal."""
        with self._lock:
            found, stuck = sorted(self._found.items()), sorted(self._stuck.items())
        still = (_stands_still(s, self._modes[s], pixels) for s, pixels in stuck)
        left_out = (_sentence(s, self._modes[s], blocks, self._channels) for s, blocks in found)
        return (*filter(None, left_out), *still)


def _moves(group: SubscanGroup, subscan: int) -> bool:
    """Whether the telescope moves along the sky during a subscan: a source may then be in any dump."""
    track = (group.recorded_of(x, subscan) for x in (group.otf_lon, group.otf_lat))
    return any(np.nan_to_num(np.ptp(offset)) > STANDS_STILL_DEG for offset in track)


def _stands_still(subscan: int, mode: str, pixels: Mask) -> str:
    """Which pixels bool [R,A] of a subscan hold one dump again and again, in words."""
    places = np.argwhere(pixels)
    named = ", ".join(f"receiver {r} pixel {a}" for r, a in places[:MOST_NAMED])
    rest = f" and {len(places) - MOST_NAMED} more" if len(places) > MOST_NAMED else ""
    return (
        f"all dumps of subscan {subscan} ({mode}) are equal to the last digit in {named}{rest}: "
        "did the backend stand still?"
    )


def _sentence(subscan: int, mode: str, blocks: list[tuple[int, Mask]], n_channels: int) -> str:
    """What was left out of one subscan, in words; "" where it is little of every dump."""
    shape = blocks[0][1].shape[1:]
    number = np.zeros(shape, np.int64)
    for _, bad in blocks:
        number += np.count_nonzero(bad, axis=0)
    if number.max() <= LITTLE * n_channels:
        return ""
    first = min(
        (start + int(np.argmax(bad.any(axis=(1, 2, 3)))), n)
        for n, (start, bad) in enumerate(blocks)
    )[0]
    places = np.argwhere(number)
    named = [
        f"dump {d} of receiver {r} pixel {a} (channels: {number[d, r, a]})"
        for d, r, a in places[np.argsort(-number[tuple(places.T)], kind="stable")][:MOST_NAMED]
    ]
    more = len(places) - MOST_NAMED
    rest = f" and {more} more" if more > 0 else ""
    return (
        f"subscan {subscan} ({mode}) has samples far beyond the noise of its other dumps, from channel {first} on; "
        f"they are left out: {', '.join(named)}{rest}."
    )
