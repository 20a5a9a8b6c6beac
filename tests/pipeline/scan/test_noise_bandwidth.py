"""The noise bandwidth of a channel is not its width: expected noise, weights of the fit, reductions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.night_stores import make_night, small_setup
from builders.truth_setup import steady

import gpucal
from gpucal import CalibrationConfig, ConfigError, calibrate_scan, simulate_scan

FFTS = 1.16


@pytest.fixture(scope="module")
def simulated() -> Any:
    return simulate_scan(steady("hera"), "tp", 7)


def expected(scan: Any, table: Any, **options: Any) -> tuple[Any, Any]:
    """(expected rms [R,A], T_A*) of a scan."""
    result = calibrate_scan(scan, CalibrationConfig(**options), table=table)
    return np.asarray(result.quality["rms_expected"]), np.asarray(result.spectra)


def test_the_expected_noise_falls_and_nothing_else_changes(simulated: Any) -> None:
    scan, table = simulated.scans[0], simulated.table
    plain, spectra = expected(scan, table)
    option, same = expected(scan, table, noise_bandwidth=FFTS)
    np.testing.assert_allclose(option, plain / np.sqrt(FFTS), rtol=1e-12)
    np.testing.assert_allclose(same, spectra, rtol=1e-9, equal_nan=True)
    recorded = replace(scan, attrs={**scan.attrs, "noise_bandwidth": FFTS})
    attribute, _ = expected(recorded, table)
    np.testing.assert_allclose(attribute, option, rtol=1e-12)
    wins, _ = expected(recorded, table, noise_bandwidth=1.0)
    np.testing.assert_allclose(wins, plain, rtol=1e-12)


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_a_width_that_cannot_be_is_refused(value: float) -> None:
    with pytest.raises(ConfigError, match="noise_bandwidth"):
        gpucal.load_config(noise_bandwidth=value)


def test_a_reduction_and_an_export_of_l1_know_it(tmp_path: Path) -> None:
    night = make_night(tmp_path, small_setup(kinds=("tp",)))
    table = str(tmp_path / "table.npz")
    for name, factor in (("l1.zarr", FFTS), ("plain.zarr", None)):
        config = gpucal.load_config(noise_bandwidth=factor, atmosphere=table)
        gpucal.calibrate_store(night, tmp_path / name, config)
    store, plain = gpucal.open_l1(tmp_path / "l1.zarr"), gpucal.open_l1(tmp_path / "plain.zarr")
    number = store.scans()[0]
    of_l1 = gpucal.to_spectrum1d(store[number]).uncertainty.array
    of_plain = gpucal.to_spectrum1d(plain[number]).uncertainty.array
    np.testing.assert_allclose(of_l1, of_plain / np.sqrt(FFTS), rtol=1e-9)
    options = {"noise_bandwidth": FFTS, "atmosphere": table}
    usual = reduced(tmp_path / "plain.zarr", number)
    for found in (reduced(night, number, options), reduced(tmp_path / "l1.zarr", number)):
        np.testing.assert_allclose(found, usual / np.sqrt(FFTS), rtol=1e-9)


def reduced(store: Path, number: int, config: Any = None) -> Any:
    """Expected rms [R,A] of the on-off reduction."""
    result: Any = gpucal.reduce_scan(store, number, config=config).result
    return np.concatenate([np.asarray(band.expected) for band in result.values()])
