"""Packaged tables against am, other opacity models, and real am output."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from gpucal import load_table
from gpucal.io.atmosphere.am import import_am

pytestmark = pytest.mark.realdata

CASES = {
    "iram_30m": ("IRAM", "midlatitude_winter"),
    "chile_5600m": ("FYST", "tropical"),
}

KNOTS = 1e-3
"""How well the packaged tables hold between their knots, in zenith transmission."""


def reference(folder: Path, name: str, model: str) -> Iterator[dict[str, float]]:
    site, profile = CASES[name]
    with open(folder / "atm" / "atm_reference.csv", encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            if (row["site"], row["profile"], row["model"]) == (site, profile, model):
                yield {
                    key: float(row[key])
                    for key in ("pwv_mm", "freq_GHz", "tau_wet", "tau_dry", "tau_o3", "tau_minor")
                }


@pytest.mark.parametrize("name", CASES)
def test_same_water_and_oxygen_as_pyrtlib(realdata: Path, name: str) -> None:
    """The reference ran pyrtlib's radiative transfer; its centres of water lines reach higher up."""
    table = load_table(name)
    rows = list(reference(realdata, name, "pyrtlib-MWL24"))
    assert len(rows) > 10
    for row in rows:
        p, f = row["pwv_mm"], row["freq_GHz"] * 1e9
        b, q, dry = (np.interp(f, table.freq_hz, x) for x in (table.b, table.q, table.c_dry))
        wet = b * p + q * p**2
        assert abs(np.exp(-wet) - np.exp(-row["tau_wet"])) < 7e-3, row
        if row["tau_wet"] < 1:
            assert wet == pytest.approx(row["tau_wet"], rel=4e-3, abs=KNOTS)
        assert dry == pytest.approx(row["tau_dry"], rel=0.012, abs=KNOTS)


@pytest.mark.parametrize("name", CASES)
def test_ozone_and_minor_gases_agree_with_am(realdata: Path, name: str) -> None:
    table = load_table(name)
    for row in reference(realdata, name, "am-14.0+ownO3"):
        if row["tau_wet"] > 3:
            continue  # opaque: the table is only roughly sampled there
        f = row["freq_GHz"] * 1e9
        assert np.interp(f, table.freq_hz, table.c_o3) == pytest.approx(
            row["tau_o3"], rel=0.16, abs=KNOTS
        )
        assert np.interp(f, table.freq_hz, table.c_minor) == pytest.approx(
            row["tau_minor"], rel=0.12, abs=KNOTS
        )


BANDS = [
    ("iram_30m", 85, 101, 2.0),
    ("iram_30m", 213, 229, 2.0),
    ("iram_30m", 240, 256, 2.0),
    ("iram_30m", 335, 351, 2.0),
    ("chile_5600m", 210, 226, 0.6),
    ("chile_5600m", 337, 353, 0.6),
    ("chile_5600m", 402, 410, 0.6),
    ("chile_5600m", 455, 463, 0.6),
    ("chile_5600m", 806, 814, 0.6),
]


@pytest.mark.parametrize(("name", "lo", "hi", "pwv"), BANDS)
def test_band_transmission_after_a_pwv_fit(
    realdata: Path, name: str, lo: int, hi: int, pwv: float
) -> None:
    """A sky of the am table, fitted with ours: a few parts in 1000 off the ozone and CO lines."""
    ours, am = load_table(name), load_table(realdata / "atm" / f"{name}.npz")
    f = np.arange(lo, hi, 0.005) * 1e9
    other = am.channel_opacity(f, 1e6)
    want = other.transmission(pwv, 1.0)
    gases = np.interp(f, am.freq_hz, am.c_o3 + am.c_minor)
    lines = gases > gases.min() + 5e-3
    clean = ~lines & (want > 0.02)
    assert np.count_nonzero(clean) > 0.25 * f.size
    opacity = ours.channel_opacity(f, 1e6)

    def chi2(p: float) -> float:
        return float(np.sum((opacity.transmission(p, 1.0) - want)[clean] ** 2))

    fitted = minimize_scalar(chi2, bounds=(0.3 * pwv, 3 * pwv), method="bounded").x
    assert 0.75 * pwv < fitted < 1.15 * pwv  # the wet continua of the models differ that much
    error = opacity.transmission(fitted, 1.0) - want
    assert np.sqrt(np.mean(error[clean] ** 2)) < 2e-3
    assert np.max(np.abs(error[clean])) < 8e-3
    seen = want > 0.02
    assert np.max(np.abs(error[seen])) < 0.015  # the ozone and CO lines too


def test_import_of_real_am_output(realdata: Path) -> None:
    files = [realdata / "am" / f"act_annual_{n}.txt.gz" for n in (25, 75)]
    table = import_am(files)
    assert table.range_hz == (30e9, 1000e9)
    got = table.channel_opacity(np.array([461.04077e9]), 1e6)
    assert got.b[0, 0] == pytest.approx(0.66, abs=0.01)
    assert got.c[0, 0] == pytest.approx(0.053, abs=0.003)
    assert table.pwv_range_mm is not None
    lo, hi = table.pwv_range_mm
    assert 0.4 < lo < 0.5
    assert 2.0 < hi < 2.4


def test_packaged_sofia_table_is_the_reference(realdata: Path) -> None:
    ours, theirs = load_table("sofia_great"), load_table(realdata / "atm" / "sofia_great.npz")
    assert ours.sha256 == theirs.sha256
    assert len(ours.bands_hz) == 4
