"""T_rec in bins of frequency: the bandpass divides out, the noise of the loads falls, a bad bin is bad alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders.truth_setup import calibrated, spectra_error, steady

import gpucal
from gpucal import CalibrationConfig, ConfigError, Flag, simulate_scan
from gpucal.backend.cpu import cpu_backend
from gpucal.option_model import hertz
from gpucal.scan import ArrayCounts
from gpucal.simulate.night import SimulatedScan
from gpucal.steps.hot_cold.binned_loads import cold_of_bins

BIN = 16
BAD = int(Flag.BAD_CHANNEL)
Change = Callable[[Any, str], Any]


@pytest.fixture(scope="module")
def simulated() -> SimulatedScan:
    """Of receivers without standing waves in T_rec: these are narrower than a bin."""
    setup = steady("hera")
    smooth = [replace(b, receiver=replace(b.receiver, t_rec_ripple=0.0)) for b in setup.bands]
    return simulate_scan(replace(setup, bands=tuple(smooth)), "otf", 7)


def width_of(simulated: SimulatedScan) -> str:
    """An option for bins of ``BIN`` channels."""
    source = simulated.scan.source
    assert source is not None
    return f"{BIN * abs(float(source.freq_res[0, 0])) / 1e6:.12g}MHz"


def changed(simulated: SimulatedScan, change: Change) -> SimulatedScan:
    """The scan with other counts f64 [C,D,R,A] of each subscan."""

    def of_group(group: Any) -> Any:
        counts = [
            change(np.asarray(group.counts.read(0, group.shape[0], s), np.float64), mode)
            for s, mode in enumerate(group.sobsmode)
        ]
        return replace(group, counts=ArrayCounts(np.stack(counts, axis=-1)))

    scan = simulated.scan
    new = replace(scan, source=of_group(scan.source), calibration=of_group(scan.calibration))
    return replace(simulated, scans=(new, *simulated.scans[1:]))


def in_bins(simulated: SimulatedScan, **options: Any) -> Any:
    config = CalibrationConfig(cal_bandwidth=width_of(simulated), **options)
    return calibrated(simulated, config)


def bandpass(counts: Any, mode: str) -> Any:
    """Much structure within a bin: 30 % peak to peak over five channels."""
    gain = 1.0 + 0.15 * np.sin(2 * np.pi * np.arange(len(counts)) / 5.3)
    return counts * gain[:, None, None, None]


def test_a_bandpass_inside_the_bins_divides_out(simulated: SimulatedScan) -> None:
    found = in_bins(changed(simulated, bandpass))
    brightest = float(np.nanmax(np.abs(np.asarray(found.spectra))))
    assert spectra_error(found, simulated) < 1e-3 * brightest
    before = calibrated(simulated, CalibrationConfig())
    for name in ("t_rec", "t_sys"):
        a, b = (np.asarray(getattr(r, name)) for r in (found, before))
        np.testing.assert_allclose(a, b, rtol=5e-3)  # T_rec bends at the ends of the band


def test_a_receiver_that_is_straight_within_a_bin_is_that_of_single_channels() -> None:
    """T_rec rises by a quarter over the band; to first order no bin sees it."""
    t_rec = 80.0 * (1.0 + 0.25 * np.linspace(0, 1, 256)[:, None, None])
    hot, cold = (np.full((1, 1, 1), kelvin) for kelvin in (290.0, 77.0))
    counts = cold_of_bins(t_rec + hot, t_rec + cold, hot, cold, BIN, (), cpu_backend())
    np.testing.assert_allclose(counts, t_rec + cold, rtol=1e-5)


def test_the_noise_of_the_loads_falls(simulated: SimulatedScan) -> None:
    random = np.random.default_rng(1)

    def noisy(counts: Any, mode: str) -> Any:
        rough = counts * random.normal(1.0, 3e-2, (len(counts), 1, *counts.shape[2:]))
        return rough if mode == "COLD" else counts

    scan = changed(simulated, noisy)
    single, binned = calibrated(scan, CalibrationConfig()), in_bins(scan)
    scatter = [np.nanstd(np.asarray(r.t_rec), axis=0).mean() for r in (single, binned)]
    assert scatter[1] < 1.5 * scatter[0] / np.sqrt(BIN)


def test_a_bin_that_is_colder_with_the_hot_load_is_bad_alone(simulated: SimulatedScan) -> None:
    first, last = 3 * BIN, 4 * BIN

    def swapped(counts: Any, mode: str) -> Any:
        out = counts.copy()
        out[first:last] *= {"HOT": 0.1}.get(mode, 1.0)
        return out

    found = in_bins(changed(simulated, swapped))
    good = in_bins(simulated)
    bad = (np.asarray(found.flags) & BAD) != 0
    assert bad[first:last].all()
    rest = np.r_[0:first, last : len(bad)]
    was = (np.asarray(good.flags) & BAD) != 0
    np.testing.assert_array_equal(bad[rest], was[rest])
    worst = np.nanmax(np.abs(np.asarray(found.spectra) - np.asarray(good.spectra))[rest])
    assert worst < 1e-3 * np.nanmax(np.asarray(good.spectra))


def test_units_of_a_spectrometer_do_not_mix() -> None:
    """T_rec steps by a fifth where a unit begins, in the middle of what would be a bin."""
    t_rec = np.where(np.arange(256) < 100, 80.0, 96.0)[:, None, None]
    hot, cold = (np.full((1, 1, 1), kelvin) for kelvin in (290.0, 77.0))
    both = t_rec + hot, t_rec + cold
    counts = cold_of_bins(*both, hot, cold, BIN, (100,), cpu_backend())
    np.testing.assert_allclose(counts, both[1], rtol=1e-12)
    mixed = cold_of_bins(*both, hot, cold, BIN, (), cpu_backend())
    assert np.abs(mixed / both[1] - 1.0).max() > 0.02


def test_the_step_between_units_is_told(simulated: SimulatedScan) -> None:
    """Two percent of the counts on the source, from channel 96 on."""

    def step(counts: Any, mode: str) -> Any:
        out = counts.copy()
        out[96:] *= 1.02 if "ON" in mode else 1.0
        return out

    scan = replace(simulated.scan, attrs={**simulated.scan.attrs, "unit_borders": [96, 200]})
    found = in_bins(changed(replace(simulated, scans=(scan,)), step))
    at, other = found.quality["platforming"]
    t_sys = np.nanmedian(np.asarray(found.t_sys_star), axis=(0, 3))
    assert (at["channel"], other["channel"]) == (96, 200)
    np.testing.assert_allclose(at["step_k"], 0.02 * t_sys, rtol=0.1)
    assert np.abs(other["step_k"]).max() < 0.1 * np.min(at["step_k"])
    assert "platforming" not in in_bins(simulated).quality


def test_one_bad_channel_moves_no_other(simulated: SimulatedScan) -> None:
    def birdie(counts: Any, mode: str) -> Any:
        out = counts.copy()
        out[100] *= {"COLD": 3.0}.get(mode, 1.0)
        return out

    found, good = in_bins(changed(simulated, birdie)), in_bins(simulated)
    assert ((np.asarray(found.flags)[100] & BAD) != 0).all()
    others = np.arange(len(good.t_rec)) != 100
    np.testing.assert_allclose(
        np.asarray(found.t_rec)[others], np.asarray(good.t_rec)[others], rtol=2e-3
    )


def test_what_has_no_t_rec_is_refused() -> None:
    vane = simulate_scan(steady("argus"), "tp", 7)
    with pytest.raises(ConfigError, match=r"--cal-bandwidth 20MHz averages T_rec.*scheme vane"):
        calibrated(vane, CalibrationConfig(cal_bandwidth="20MHz"))
    with pytest.raises(ConfigError, match="exclude each other"):
        CalibrationConfig(cal_bandwidth="20MHz", gain_interpolate=2)


@pytest.mark.parametrize(
    ("given", "text", "value"),
    [
        ("20MHz", "20MHz", 2e7),
        ("20 MHz", "20MHz", 2e7),
        (2e7, "20MHz", 2e7),
        ("0.5GHz", "500MHz", 5e8),
        ("1500000", "1.5MHz", 1.5e6),
        (976562.5, "976.5625kHz", 976562.5),
        ("1e7", "10MHz", 1e7),
    ],
)
def test_a_bandwidth_has_one_text(given: Any, text: str, value: float) -> None:
    found = gpucal.load_config(cal_bandwidth=given).cal_bandwidth
    assert (found, hertz(found)) == (text, value)


@pytest.mark.parametrize("given", ["wide", "20 m", "-1MHz", "0", "nanMHz", float("nan"), True])
def test_what_is_no_bandwidth_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match="cal_bandwidth"):
        gpucal.load_config(cal_bandwidth=given)
