"""Which load scan serves: the rules alone, and the library and ``gpucal inspect``, which both follow them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders.night_stores import fast_folder, make_night, small_setup

from gpucal import CalibrationConfig, Scan, open_l0, select_backend
from gpucal.cli.show.load_scans import serving_load
from gpucal.pipeline.scan.load_library import LoadLibrary
from gpucal.pipeline.scan.load_rules import LoadScans, candidates, has_hot, later_loads

AGE = 1800.0


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Scan]]:
    """Loads in 1, 5 and 8, each for the scans around them."""
    with fast_folder(tmp_path_factory.mktemp("night")) as folder:
        make_night(folder, small_setup("superc", ("tp",), separate=True), scans=5)
        store = open_l0(folder / "l0.zarr")
        yield [scan for n in store.numbers() for scan in store.load(n)]


def rules_of(scans: list[Scan]) -> LoadScans:
    return LoadScans(
        lambda: [s.number for s in scans],
        lambda n: [s for s in scans if s.number == n and has_hot(s)],
    )


def named(scan: Scan, number: int) -> Scan:
    """The same scan, whose data name another load scan (-1: none)."""
    assert scan.source is not None
    loads = np.full_like(scan.source.lloadsn, number)
    return replace(scan, source=replace(scan.source, lloadsn=loads))


def retuned(scan: Scan, hz: float) -> Scan:
    assert scan.calibration is not None
    loads = replace(scan.calibration, signal_freq=scan.calibration.signal_freq + hz)
    return replace(scan, calibration=loads)


def chosen(scan: Scan, scans: list[Scan], age: float = AGE) -> list[tuple[int, str]]:
    return [(c.scan.number, c.rule) for c in candidates(scan, rules_of(scans), age)]


def loads_and_science(scans: list[Scan]) -> tuple[list[int], list[Scan]]:
    return [s.number for s in scans if s.source is None], [s for s in scans if s.source is not None]


def test_the_order_is_named_earlier_later(night: list[Scan]) -> None:
    loads, science = loads_and_science(night)
    first, middle, last = loads
    scan = named(next(s for s in science if first < s.number < middle), -1)
    assert chosen(scan, night, 1e6) == [(first, "earlier"), (middle, "later"), (last, "later")]
    assert chosen(named(scan, last), night, 1e6)[:2] == [(last, "lloadsn"), (first, "earlier")]
    assert chosen(scan, night, 1e-3) == [(first, "earlier")]
    assert [s.number for s in later_loads(scan, rules_of(night))] == [middle, last]


def test_the_nearest_earlier_one_comes_first(night: list[Scan]) -> None:
    loads, science = loads_and_science(night)
    scan = named(next(s for s in science if s.number > loads[1]), -1)
    assert chosen(scan, night, 1e-3)[:2] == [(loads[1], "earlier"), (loads[0], "earlier")]


def test_own_loads_come_before_others(night: list[Scan]) -> None:
    loads, science = loads_and_science(night)
    scan = next(s for s in science if s.number > loads[1])
    with_loads = replace(named(scan, -1), calibration=night[0].calibration)
    assert chosen(with_loads, night)[0] == (scan.number, "own")
    notes: list[str] = []
    wrong = retuned(with_loads, 1e9)
    found = candidates(wrong, rules_of(night), AGE, notes.append)
    assert next(found).rule == "earlier"
    assert "their frequencies are not those of its source" in notes[0]


def test_another_tuning_does_not_serve(night: list[Scan]) -> None:
    loads, science = loads_and_science(night)
    scan = named(next(s for s in science if s.number > loads[1]), -1)
    others = [retuned(s, 1e9) if s.number == loads[1] else s for s in night]
    assert chosen(scan, others)[0] == (loads[0], "earlier")
    doppler = [retuned(s, 1e7) if s.number == loads[1] else s for s in night]
    assert chosen(scan, doppler)[0] == (loads[1], "earlier")


def test_inspect_names_the_loads_that_calibrate(tmp_path: Path) -> None:
    make_night(tmp_path, small_setup("superc", ("tp", "otf"), separate=True), scans=5)
    store = open_l0(tmp_path / "l0.zarr")
    library = LoadLibrary(store, CalibrationConfig(), select_backend("cpu"))
    scans = [scan for n in store.numbers() for scan in store.load(n)]
    for scan in scans:
        if scan.source is not None:
            found = serving_load(scan, scans, AGE)
            assert found is not None
            assert found.scan.number == library.choose(scan).first.scan


def shifted(scan: Scan, days: float, number: int) -> Scan:
    """The same loads under another number, taken at another time."""
    assert scan.calibration is not None
    loads = replace(scan.calibration, mjd=scan.calibration.mjd + days)
    return replace(scan, number=number, calibration=loads)


def test_numbers_that_began_again(night: list[Scan]) -> None:
    """Among older loads the nearest number may be the oldest: time decides, and fresh ones come first."""
    (first, *_), science = loads_and_science(night)
    scan = named(replace(next(s for s in science if s.number > first), number=100), -1)
    fresh = next(s for s in night if s.number == first)
    scans = [
        shifted(fresh, 0.0, 3),
        shifted(fresh, -0.5, 40),
        shifted(fresh, -0.1, 50),
        shifted(fresh, -0.9, 99),
        scan,
    ]
    assert chosen(scan, scans) == [(n, "earlier") for n in (3, 50, 40, 99)]
