"""Nights under a layered sky of the tests' own radiative transfer: what the calibration makes of them.

The packaged tables were built from the same absorption models, by other code, through other levels.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.layered.night import (
    IRAM,
    NIGHTS,
    LayeredNight,
    Place,
    SkyErrors,
    afgl_night,
    errors_of,
)
from builders.layered.sky import LayeredAir, Levels, afgl_levels, air_over, planck
from builders.night_stores import fast_folder

from gpucal import calibrate_store
from gpucal.simulate.setup import Loads

AIRMASSES = (1.0, 2.37)
T_A_STAR, T_SYS, PWV = 1e-3, 2e-3, 1e-2
"""Largest error of T_A* and T_sys off the ozone lines, and of the PWV, as fractions."""

TABLES = 2.5e-3
"""Of T_A* where the PWV is given: the levels here are finer than those of the tables, whose opacity is 0.3 % higher."""

ROWS = [(night, ghz) for night in NIGHTS for ghz in night[1]]
NAMES = [f"{place.telescope}-{ghz:g}GHz-{pwv:g}mm" for (place, _, pwv), ghz in ROWS]

ISOTHERMAL = {
    "FYST-345GHz-0.5mm": -0.0117,
    "FYST-461GHz-0.5mm": -0.0562,
    "FYST-691GHz-0.5mm": -0.0936,
    "FYST-809GHz-0.5mm": -0.1253,
}
"""Error of T_A* at airmass 2.37 where all air is as warm as the ground."""


class Nights:
    """The nights and what became of them, each made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.night = cache(self._night)
        self.store = cache(self._store)

    def _night(self, place: Place, bands: tuple[float, ...], pwv: float) -> LayeredNight:
        path = self.folder / f"{place.telescope}_{pwv:g}mm.zarr"
        return afgl_night(path, place, bands, pwv, AIRMASSES)

    def _store(self, place: Place, bands: tuple[float, ...], pwv: float, t_atm: bool) -> Path:
        night = self.night(place, bands, pwv)
        out = night.path.with_suffix(f".{t_atm}.l1.zarr")
        options: dict[str, Any] = {"atmosphere": place.table}
        if t_atm:
            options["t_atm"] = float(np.float32(night.setup.weather.t_amb))
        assert not calibrate_store(night.path, out, options).failures
        return out

    def errors(self, row: Any, *, t_atm: bool = False) -> list[SkyErrors]:
        """Of one row, at each of ``AIRMASSES``; ``t_atm``: with the ground's temperature for all air."""
        night, ghz = row
        band = f"band_{night[1].index(ghz) + 1}"
        out, raw = self.store(*night, t_atm), self.night(*night)
        return [errors_of(out, raw, n + 1, band) for n in range(len(AIRMASSES))]


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nights]:
    with fast_folder(tmp_path_factory.mktemp("layered")) as folder:
        yield Nights(folder)


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_layered_sky_gives_back_t_a_star(nights: Nights, row: Any) -> None:
    for airmass, error in zip(AIRMASSES, nights.errors(row), strict=True):
        assert abs(error.worst) < T_A_STAR, airmass
        assert np.max(np.abs(error.t_sys)) < T_SYS, airmass


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_layered_sky_gives_back_the_water(nights: Nights, row: Any) -> None:
    for airmass, error in zip(AIRMASSES, nights.errors(row), strict=True):
        assert abs(error.pwv) < PWV, airmass


VANE = Loads(293.0, 0.0, vane=True)
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "per-pair": ({}, {"pwv_scope": "per-pair"}),
    "external": ({}, {"pwv": 4.0}),
    "vane-channel": ({"loads": VANE}, {"cal_scheme": "vane-channel", "pwv": 4.0}),
    "vane-channel-sky": (
        {"loads": VANE},
        {"cal_scheme": "vane-channel", "vane_sky": "sky", "pwv": 4.0},
    ),
    "twice-the-ozone": ({"ozone": 2.0}, {"ozone_scale": 2.0}),
}
"""How the night is made, and how it is calibrated."""


@pytest.mark.parametrize("way", WAYS)
def test_every_way_knows_the_layers(tmp_path: Path, way: str) -> None:
    made, options = WAYS[way]
    with fast_folder(tmp_path) as folder:
        night = afgl_night(folder / "l0.zarr", IRAM, (230.0,), 4.0, (2.37,), **made)
        out = folder / "l1.zarr"
        options = {"atmosphere": IRAM.table, **options}
        assert not calibrate_store(night.path, out, options).failures
        error = errors_of(out, night, 1, "")
    limit = T_A_STAR if "pwv" not in options else TABLES
    assert abs(error.worst) < limit
    assert abs(error.pwv) < PWV
    if "loads" not in made:  # a vane gives T_sys* instead
        assert np.max(np.abs(error.t_sys)) < limit


@pytest.mark.parametrize("row", ROWS[6:], ids=NAMES[6:])
def test_one_temperature_is_wrong_by_percents(nights: Nights, row: Any) -> None:
    """What ``t_atm`` costs under a real sky, as the physics page says."""
    low, high = nights.errors(row, t_atm=True)
    expected = ISOTHERMAL[NAMES[ROWS.index(row)]]
    assert float(np.median(high.t_a_star)) == pytest.approx(expected, rel=0.05)
    assert -0.1 < low.pwv < -0.04  # the colder air above is taken for less water


def some_air() -> tuple[Levels, LayeredAir]:
    levels = afgl_levels("tropical", 5600.0, 40)
    nu = np.linspace(460.5e9, 461.5e9, 5)
    return levels, air_over(levels, nu, 0.5)


def test_air_of_one_temperature_emits_what_it_absorbs() -> None:
    _, air = some_air()
    warm = LayeredAir(air.nu, np.full(air.t_k.shape, 250.0), air.tau, air.ozone)
    for airmass in AIRMASSES:
        expected = planck(air.nu, 250.0) * (1.0 - air.transmission(airmass))
        np.testing.assert_allclose(warm.emission(airmass), expected, rtol=1e-12)


def test_finer_levels_give_the_same_sky() -> None:
    levels, coarse = some_air()
    finer = afgl_levels("tropical", 5600.0, 79)
    assert finer.p_hpa[0] == levels.p_hpa[0]
    fine = air_over(finer, coarse.nu, 0.5)
    np.testing.assert_allclose(fine.zenith, coarse.zenith, rtol=2e-3)
    for airmass in AIRMASSES:
        one, two = (a.emission(airmass) / (1.0 - a.transmission(airmass)) for a in (coarse, fine))
        np.testing.assert_allclose(one, two, rtol=5e-4)
