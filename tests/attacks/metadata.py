"""Attacks on the metadata of a scan: every array in every way, attributes, and modes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from attacks.attack import (
    ANY,
    ANY_OR_NOTHING,
    REFUSED_ONLY,
    UNAFFECTED,
    Attack,
    annotated,
    seeds,
    thinned,
)
from attacks.edits import array, at, attribute, document, remove
from attacks.night import CHOPPED, SWITCHED, VICTIM

SOURCE = (
    "azimuth",
    "elevation",
    "exptime",
    "freq_res",
    "image_freq",
    "lloadsn",
    "mjd",
    "otf_lat",
    "otf_lon",
    "pamb",
    "pixel_offset_lat",
    "ref_channel",
    "signal_freq",
    "tamb",
)
LOADS = ("elevation", "exptime", "image_freq", "mjd", "signal_freq", "tamb", "tcold", "thot")
OPTIONAL = {"lloadsn", "otf_lat", "otf_lon", "pamb", "pixel_offset_lat", "tamb"}


def _as(kind: type[Any] | str) -> Callable[[Any], Any]:
    return lambda x: x.astype(kind)


def _outlier(x: Any) -> Any:
    """One record in the middle is off by half."""
    x.reshape(-1)[x.size // 2] = x.reshape(-1)[x.size // 2] * 3 // 2 + 1
    return x


def _set(value: float) -> Callable[[Any], Any]:
    def change(x: Any) -> Any:
        x = x.astype(float)
        x[...] = value
        return x

    return change


def _one(value: float) -> Callable[[Any], Any]:
    def change(x: Any) -> Any:
        x = x.astype(float)
        x.reshape(-1)[x.size // 2] = value
        return x

    return change


KINDS: dict[str, Callable[[Any], Any]] = {
    "nan": _set(np.nan),
    "one nan": _one(np.nan),
    "inf": _set(np.inf),
    "one inf": _one(-np.inf),
    "zero": lambda x: x * 0,
    "negative": lambda x: -x - 1,
    "times 1000": lambda x: x.astype(float) * 1000,
    "text": lambda x: x.astype(str),
    "bool": _as(bool),
    "complex": _as(complex),
    "one too many": lambda x: np.concatenate([x, x[-1:]]),
    "one more axis": lambda x: x[..., None, None],
    "float32": _as(np.float32),
    "reversed": lambda x: x[..., ::-1].copy(),
    "outlier": _outlier,
}
MINOR = {"azimuth", "lloadsn", "otf_lat", "otf_lon", "pamb", "pixel_offset_lat"}
"""T_A* does not depend on them: they are tried in every way on demand only."""
FEWER = ("nan", "inf", "zero", "negative", "times 1000", "bool", "outlier", "one too many")


def arrays() -> Iterator[Attack]:
    """Every array of the source in every way, those of the loads in most."""
    for name in SOURCE:
        for kind, change in KINDS.items():
            harm = array(VICTIM, f"source/{name}", change)
            yield Attack(f"{name} {kind}", harm, rare=name in MINOR and kind not in FEWER)
        may = ANY if name in OPTIONAL else REFUSED_ONLY
        yield Attack(f"{name} missing", remove(VICTIM, f"source/{name}"), may)
    for name in LOADS:
        for kind in FEWER:
            harm = array(VICTIM, f"calibration/{name}", KINDS[kind])
            yield Attack(f"load {name} {kind}", harm)
        yield Attack(f"load {name} missing", remove(VICTIM, f"calibration/{name}"))
    for kind in FEWER:
        harm = array(SWITCHED, "source/freq_throw", KINDS[kind])
        yield Attack(f"freq_throw {kind}", harm, victims=(SWITCHED,))
        harm = array(CHOPPED, "source/chop_phase", KINDS[kind])
        yield Attack(f"chop_phase {kind}", harm, victims=(CHOPPED,))


def _same_time(x: Any) -> None:
    x[...] = x[0]


def _swapped(x: Any) -> None:
    x[..., [1, 2]] = x[..., [2, 1]]


def single() -> Iterator[Attack]:
    """Records that stand for a mistake that somebody makes."""
    yield Attack("mjd all equal", array(VICTIM, "source/mjd", _same_time))
    yield Attack("mjd back in time", array(VICTIM, "source/mjd", _swapped))
    yield Attack("mjd leap second apart", array(VICTIM, "source/mjd", _leap))
    yield Attack("mjd as julian date", array(VICTIM, "source/mjd", lambda x: x + 2400000.5))
    yield Attack("mjd as unix time", array(VICTIM, "source/mjd", lambda x: (x - 40587) * 86400))
    yield Attack("mjd of float32", array(VICTIM, "source/mjd", _as("f4")))
    yield Attack("elevation in degrees", array(VICTIM, "source/elevation", np.rad2deg))
    yield Attack("exptime in ms", array(VICTIM, "source/exptime", lambda x: x * 1000))
    yield Attack("exptime in us", array(VICTIM, "source/exptime", lambda x: x * 1e6))
    yield Attack("tamb in Celsius", array(VICTIM, "source/tamb", lambda x: x - 273.15))
    yield Attack("tamb one of Celsius", at(VICTIM, "source/tamb", 2, 1.85))
    yield Attack("frequency in GHz", array(VICTIM, "source/signal_freq", lambda x: x / 1e9))
    yield Attack("freq_res in kHz", array(VICTIM, "source/freq_res", lambda x: x / 1e3))
    yield Attack("freq_res sign of one", array(VICTIM, "source/freq_res", _sign))
    yield Attack("image is signal", array(VICTIM, "source/image_freq", lambda x: x * 0 + 230.538e9))
    yield Attack("thot is tcold", array(VICTIM, "calibration/thot", lambda x: x * 0 + 80))
    yield Attack("thot in Celsius", array(VICTIM, "calibration/thot", lambda x: x - 273.15))
    yield Attack("loads of another day", array(VICTIM, "calibration/mjd", lambda x: x + 1))
    yield Attack("chop phases two", at(CHOPPED, "source/chop_phase", (0, 0), 2), victims=(CHOPPED,))


def _leap(x: Any) -> None:
    x[2:] += 1 / 86400


def _sign(x: Any) -> None:
    x[1] = -x[1]


def _deep(levels: int) -> Any:
    found: Any = 1
    for _ in range(levels):
        found = [found]
    return found


ATTRIBUTES: dict[str, tuple[Any, ...]] = {
    "gain_image": (True, 1e300, -0.1, "0.1", None, [0.1], {}, 1e-300),
    "f_eff": (True, 0.0, -0.9, 92.0, "0.92", None, [0.92]),
    "scan_number": (3, -1, "2", 2.5, True, None, 10**30),
    "complete": ("yes", 1, None, [], 0.5),
    "n_subscans_planned": (-1, 10**9, 4.5, "4", None),
    "rest_freq_hz": (0, -1.0, "CO", 1e300, True),
    "velocity_source_kms": ("fast", 3e5, None, True),
    "date_obs": ("yesterday", "2025-02-30T00:00:00", 5, None),
    "source": (5, "", "x" * 70000, "\x00\x1b[2J", None),
    "instmode": (5, None, "../../etc"),
}


def attributes() -> Iterator[Attack]:
    """Attributes of the scan, of its groups and of the store."""
    for name, values in ATTRIBUTES.items():
        for n, value in enumerate(values):
            yield Attack(f"attribute {name} {n}", attribute(VICTIM, name, value))
    for n, modes in enumerate(
        ("OTF-ON", [1, 2, 3, 4], [], ["OTF-ON"] * 400, {"a": 1}, [["OTF-ON"]] * 4, [None] * 4)
    ):
        harm = attribute(VICTIM, "sobsmode", modes, "source")
        yield Attack(f"modes {n}", harm, REFUSED_ONLY)
    deep = _deep(400)
    yield Attack("attribute 400 deep", attribute(VICTIM, "note", deep), ANY)
    harm = document(VICTIM, "", lambda d: d.__setitem__("attributes", "none"))
    yield Attack("attributes no object", harm)
    yield Attack("a million attributes", document(VICTIM, "", _many), frozenset({UNAFFECTED}))
    for n, unit in enumerate(("parsec", 5, "", ["d"], "d" * 10**6)):
        yield Attack(f"unit of mjd {n}", attribute(VICTIM, "units", unit, "source/mjd"))
    for n, scale in enumerate((0.0, "nan", True, [1, 2], 1e308)):
        harm = attribute(VICTIM, "scale_factor", scale, "source/tamb")
        yield Attack(f"scale_factor of tamb {n}", harm)


def _many(d: dict[str, Any]) -> None:
    d["attributes"] |= {f"key {n}": n for n in range(100_000)}


def store_attributes() -> Iterator[Attack]:
    """Attributes of the store, which hold for every scan."""
    scans = (1, 2, 3, 4)
    values: dict[str, tuple[Any, ...]] = {
        "format": ("gpucal-l1", 5, None),
        "format_version": (2, "1", True, -1),
        "site": ({}, "Pico Veleta", {"lat_deg": 900.0}, {"alt_m": "high"}, {"alt_m": -1e9}, [1, 2]),
        "telescope": (5, None, "x" * 10**5),
        "simulated": ("maybe",),
    }
    for name, given in values.items():
        for n, value in enumerate(given):
            harm = attribute(0, name, value)
            yield Attack(f"store {name} {n}", harm, ANY_OR_NOTHING, victims=scans)


def seeded() -> Iterator[Attack]:
    """Random values at random places of random arrays."""
    for n, source in enumerate(seeds("metadata")):
        group = source.choice(("source", "source", "calibration"))
        name = source.choice(SOURCE if group == "source" else LOADS)
        yield Attack(f"seeded metadata {n} {group} {name}", _random(source, group, name))


def _random(source: random.Random, group: str, name: str) -> Callable[..., Any]:
    wild = (np.nan, np.inf, -np.inf, 0.0, -1.0, 1e300, -1e300, 1e-300, 2**31, -(2**31), 1e9)
    value = source.choice(wild)
    where = source.random()
    kind = source.choice(("f8", "f8", "f4", "f2", "i8", "u1", "c16", "?"))

    def change(x: Any) -> Any:
        x = x.astype(float)
        x.reshape(-1)[int(where * x.size)] = value
        with np.errstate(all="ignore"):
            return x.astype(kind)

    return array(VICTIM, f"{group}/{name}", change)


CANNOT_BE_SEEN = {
    "mjd leap second apart": "of four subscans nobody knows how long the way from one to the next takes",
    "elevation reversed": "the elevations are those of the scan, in another order",
    "freq_throw negative": "the opposite throw is one too",
    "attribute gain_image 7": "almost no image is what a good sideband filter gives",
    "attribute f_eff 4": "a text is read as the number that it is",
}
GOT_THROUGH = {
    "tamb outlier",
    "tamb one of Celsius",
    "load tcold outlier",
    "mjd leap second apart",
    "image is signal",
    "attribute f_eff 0",
    "freq_throw zero",
    "freq_throw outlier",
    "chop_phase outlier",
}
"""They did once."""


def metadata_attacks() -> list[Attack]:
    """The whole table."""
    everything = [*arrays(), *single(), *attributes(), *store_attributes(), *seeded()]
    return list(thinned(annotated(everything, CANNOT_BE_SEEN, GOT_THROUGH), 6))
