"""Attacks on the counts: pixels, dumps, channels and loads that cannot be."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from attacks.attack import (
    FEWER_SAMPLES,
    REFUSED_ONLY,
    UNAFFECTED,
    Attack,
    annotated,
    seeds,
    thinned,
)
from attacks.edits import Change, array
from attacks.night import VICTIM

FILL = np.iinfo(np.int32).min
TOP = np.iinfo(np.int32).max
SKY, LOADS = "source/data_5d", "calibration/data_5d"
PLACES: dict[str, tuple[str, Any]] = {
    # name: (array, which counts [C,D,R,A,S])
    "pixel": (SKY, np.s_[:, :, 1, 2, :]),
    "pixel of an OFF": (SKY, np.s_[:, :, 1, 2, 0]),
    "pixel of an ON": (SKY, np.s_[:, :, 1, 2, 1]),
    "dump of an ON": (SKY, np.s_[:, 2, 0, 0, 1]),
    "dump of an OFF": (SKY, np.s_[:, 1, 0, 0, 0]),
    "channel": (SKY, np.s_[7, :, :, :, :]),
    "sample of an ON": (SKY, np.s_[11, 1, 0, 1, 2]),
    "sample of an OFF": (SKY, np.s_[11, 1, 0, 1, 3]),
    "pixel of HOT": (LOADS, np.s_[:, :, 0, 1, 0]),
    "pixel of COLD": (LOADS, np.s_[:, :, 0, 1, 1]),
    "dump of HOT": (LOADS, np.s_[:, 3, 0, 1, 0]),
    "dump of COLD": (LOADS, np.s_[:, 2, 0, 1, 1]),
    "dump of every pixel of HOT": (LOADS, np.s_[:, 3, :, :, 0]),
    "dump of every pixel of an OFF": (SKY, np.s_[:, 1, :, :, 0]),
    "sample of HOT": (LOADS, np.s_[9, 2, 0, 1, 0]),
    "sample of COLD": (LOADS, np.s_[9, 2, 0, 1, 1]),
    "channel of HOT": (LOADS, np.s_[9, :, 0, 1, 0]),
}
PARTS = tuple(
    name for name in PLACES if not name.startswith(("pixel of an", "pixel of COLD", "channel"))
)
"""Places of which the counts are multiplied."""
VALUES: dict[str, int] = {"zero": 0, "fill": FILL, "saturated": TOP, "negative": -30000, "one": 1}


def _put(where: Any, value: Any) -> Change:
    def change(x: Any) -> None:
        x[where] = value

    return change


def _as_float(where: Any, value: float) -> Change:
    def change(x: Any) -> Any:
        x = x.astype(np.float32)
        x[where] = value
        return x

    return change


def _factor(where: Any, factor: float) -> Change:
    def change(x: Any) -> None:
        old = x[where]
        x[where] = np.where(old == FILL, FILL, np.clip(old * factor, -TOP, TOP))

    return change


def places() -> Iterator[Attack]:
    """Each place with each value that a converter or a writer leaves behind."""
    for place, (path, where) in PLACES.items():
        for name, value in VALUES.items():
            yield Attack(f"{place} {name}", array(VICTIM, path, _put(where, value)))
        for name, number in (("nan", np.nan), ("inf", np.inf), ("1e30", 1e30)):
            harm = array(VICTIM, path, _as_float(where, number))
            yield Attack(f"{place} {name}", harm, rare=name == "inf")
    for factor in (0.01, 1.3, 3.0, 30.0):
        for place in PARTS:
            path, where = PLACES[place]
            harm = array(VICTIM, path, _factor(where, factor))
            yield Attack(f"{place} times {factor:g}", harm)


def whole() -> Iterator[Attack]:
    """Whole subscans and arrays."""
    for name, value in VALUES.items():
        for subscan, what in ((0, "OFF"), (1, "ON")):
            harm = array(VICTIM, SKY, _put(np.s_[..., subscan], value))
            yield Attack(f"{what} {name}", harm)
        yield Attack(f"everything {name}", array(VICTIM, SKY, _put(..., value)))
        for load, what in ((0, "HOT"), (1, "COLD")):
            harm = array(VICTIM, LOADS, _put(np.s_[..., load], value))
            yield Attack(f"{what} {name}", harm)
    swap = np.s_[..., [1, 0]]
    yield Attack("HOT and COLD exchanged", array(VICTIM, LOADS, lambda x: x[swap].copy()))
    yield Attack("HOT is COLD", array(VICTIM, LOADS, lambda x: x[..., [1, 1]].copy()))
    yield Attack(
        "counts of float64",
        array(VICTIM, SKY, lambda x: np.where(x == FILL, np.nan, x).astype("f8")),
        frozenset({UNAFFECTED}),
    )
    yield Attack("counts of int16", array(VICTIM, SKY, lambda x: x.astype("i2")), REFUSED_ONLY)
    yield Attack("counts of bool", array(VICTIM, SKY, lambda x: x > 0), REFUSED_ONLY)
    yield Attack("counts of complex", array(VICTIM, SKY, lambda x: x.astype("c8")), REFUSED_ONLY)
    yield Attack("counts byte-swapped", array(VICTIM, SKY, lambda x: x.byteswap()))
    yield Attack("one channel", array(VICTIM, SKY, lambda x: x[:1]), REFUSED_ONLY)
    yield Attack("one subscan less", array(VICTIM, SKY, lambda x: x[..., :3]), REFUSED_ONLY)
    yield Attack("one pixel less", array(VICTIM, SKY, lambda x: x[:, :, :, :2]))


def seeded() -> Iterator[Attack]:
    """A random block of the counts gets a random value that no sky gives."""
    for n, source in enumerate(seeds("counts")):
        path = source.choice((SKY, SKY, LOADS))
        value = source.choice((0, FILL, TOP, -1, -30000, TOP - 1))
        yield Attack(f"seeded counts {n}", array(VICTIM, path, _block(source, value)))


def _block(source: random.Random, value: int) -> Change:
    parts = [source.random() for _ in range(10)]

    def change(x: Any) -> None:
        where = []
        for axis, size in enumerate(x.shape):
            first = int(parts[2 * axis] * size)
            length = 1 + int(parts[2 * axis + 1] ** 3 * (size - first))
            where.append(slice(first, first + length))
        x[tuple(where)] = value

    return change


CANNOT_BE_SEEN = {
    "pixel times 3": "the sky and its OFF may be brighter than thought",
    "pixel times 1.3": "the sky and its OFF may be brighter than thought",
}
GOT_THROUGH = {
    "dump of an OFF times 1.3",
    "dump of HOT times 1.3",
    "dump of every pixel of HOT times 0.01",
    "sample of an OFF times 1.3",
    "sample of HOT times 3",
    "sample of COLD times 1.3",
    "sample of an ON one",
    "sample of an ON 1e30",
    "dump of HOT one",
    "sample of an ON times 0.01",
    "sample of an ON times 3",
    "sample of an ON times 30",
}
"""They did once."""


def counts_attacks() -> list[Attack]:
    """The whole table."""
    known = annotated([*places(), *whole(), *seeded()], CANNOT_BE_SEEN, GOT_THROUGH)
    everything = thinned(known, 4)
    return [replace(attack, within=FEWER_SAMPLES) for attack in everything]
