"""Noise, determinism, stores, truth files and their comparison."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import zarr
from builders.groups import source_of
from typer.testing import CliRunner

from gpucal import Flag, ImportFormatError, L1Error, load_table, open_l0
from gpucal.axes import FILL_INT32
from gpucal.cli.commands.simulate import simulate
from gpucal.simulate import (
    PRESETS,
    Recording,
    compare_to_truth,
    load_truth,
    preset,
    simulate_night,
    simulate_scan,
    synthetic_table,
)
from gpucal.simulate.compare import format_table
from gpucal.simulate.counts import ScanCounts
from gpucal.simulate.night import MJD0
from gpucal.simulate.receiver import build_band
from gpucal.simulate.schedule import plan_night, plan_scan
from gpucal.simulate.setup import InstrumentSetup


def small(name: str = "hera", **changes: Any) -> InstrumentSetup:
    return replace(preset(name, channels=32, dumps=4, n_on=2, sky="isothermal"), **changes)


def maker(setup: InstrumentSetup, kind: Any = "tp", **recording: Any) -> ScanCounts:
    record = Recording(**recording)
    model = build_band(setup, 0, synthetic_table(setup), record.seed)
    return ScanCounts(model, 0, plan_scan(setup, kind, 1, MJD0), record)


def test_noise_follows_the_radiometer_equation() -> None:
    setup = preset("hera", channels=700, dumps=16, n_on=1, sky="isothermal")
    noisy = maker(setup, dtype="f64").subscan("calibration", 0)
    quiet = maker(setup, dtype="f64", noise=False).subscan("calibration", 0)
    band = setup.bands[0]
    sigma = 1.0 / np.sqrt(band.freq_res * setup.timing.exptime)
    pulls = (noisy / quiet - 1.0) / sigma
    dead = quiet == 17.0
    assert np.all(pulls[dead] == 0)
    pulls = pulls[~dead]
    assert np.std(pulls) == pytest.approx(1.0, abs=5 / np.sqrt(2 * pulls.size))
    assert abs(np.mean(pulls)) < 5 / np.sqrt(pulls.size)
    neighbours = ((noisy / quiet - 1.0) / sigma)[:, :, 0, 0]
    assert abs(np.mean(neighbours[1:] * neighbours[:-1])) < 0.05
    assert abs(np.mean(neighbours[256:512] * neighbours[:256])) < 0.08  # blocks differ


def test_same_seed_same_counts_in_any_order() -> None:
    setup = preset("hera", channels=300, dumps=4, n_on=2, sky="isothermal")
    one, two = maker(setup), maker(setup)
    n = one.shape("source")[4]
    forward = [one.subscan("source", s) for s in range(n)]
    backward = [two.subscan("source", s) for s in reversed(range(n))][::-1]
    for a, b in zip(forward, backward, strict=True):
        np.testing.assert_array_equal(a, b)
    other = maker(setup, seed=2).subscan("source", 0)
    assert np.mean(other != forward[0]) > 0.9
    assert np.mean(forward[0] != forward[-1]) > 0.9


def test_integers_are_the_rounded_counts() -> None:
    setup = small(fill_fraction=0.0)
    exact = maker(setup, dtype="f64").subscan("source", 1)
    for dtype in ("i32", "u32"):
        whole = maker(setup, dtype=dtype).subscan("source", 1)
        assert np.abs(whole - exact).max() <= 0.5
    assert maker(setup, dtype="f32").subscan("source", 1).dtype == np.float32
    typical = np.median(maker(setup).subscan("calibration", 0))
    assert 1e5 < typical < 1e7


@pytest.mark.parametrize("dtype", ["i32", "f32"])
def test_fills_are_where_the_truth_says(dtype: str) -> None:
    setup = preset("hera", channels=300, dumps=4, n_on=2, sky="isothermal")
    setup = replace(setup, fill_fraction=1e-3)
    made = simulate_scan(setup, "tp", recording=Recording(dtype))
    data = made.scan.source.counts.data  # type: ignore[union-attr]
    lost = np.isnan(data) if dtype == "f32" else data == FILL_INT32
    truth = made.truth
    on = lost.copy()
    on[..., [s for s in range(data.shape[4]) if s not in truth.on_index]] = False
    np.testing.assert_array_equal(np.argwhere(on), truth.fills[np.lexsort(truth.fills.T[::-1])])
    assert 20 < len(truth.fills) < 120
    assert lost.sum() > len(truth.fills)
    calibration = made.scan.calibration.counts.data  # type: ignore[union-attr]
    assert not np.isnan(calibration).any()
    assert calibration.min() > 0


@pytest.mark.parametrize("name", list(PRESETS))
def test_default_nights_are_of_modest_size(name: str) -> None:
    setup = preset(name)
    total = 0
    for plan in plan_night(setup, 8, mjd0=MJD0):
        for band in setup.bands:
            per_dump = 4 * band.channels * setup.receivers * setup.pixels
            total += per_dump * sum(s.dumps for s in (*plan.source, *plan.calibration))
    assert total < 60e6
    numbers = {"hera": (2, 9, 1), "upgreat": (2, 7, 1), "chai": (1, 64, 2)}
    shape = (setup.receivers, setup.pixels, len(setup.bands))
    assert shape == numbers.get(name, (1, 16 if name == "argus" else 64, 1))


@pytest.mark.parametrize("name", list(PRESETS))
def test_store_holds_what_memory_holds(name: str, tmp_path: Path) -> None:
    setup = small(name)
    recording = Recording(seed=5)
    numbers = simulate_night(tmp_path / "n.zarr", setup, 4, recording=recording)
    store = open_l0(tmp_path / "n.zarr")
    plans = list(plan_night(setup, 4, mjd0=MJD0))
    assert numbers == [p.number for p in plans] == store.numbers()
    plan = plans[-2]
    made = simulate_scan(
        setup,
        plan.kind,
        plan.number,
        start=plan.start,
        mjd0=plan.mjd0,
        lloadsn=plan.lloadsn,
        recording=recording,
    )
    for scan in made.scans:
        place = f"scan_{plan.number:06d}/{scan.band}/source".replace("//", "/")
        group: Any = zarr.open_group(tmp_path / "n.zarr", mode="r")[place]
        counts: Any = source_of(scan).counts
        np.testing.assert_array_equal(group["data_5d"][...], counts.data)
        assert tuple(group.attrs["sobsmode"]) == source_of(scan).sobsmode


def test_reader_gives_the_same_scan_as_memory(tmp_path: Path) -> None:
    setup = small("upgreat", sky_drift="free")
    simulate_night(tmp_path / "n.zarr", setup, 2)
    plan = list(plan_night(setup, 2, mjd0=MJD0))[2]
    made = simulate_scan(
        setup, plan.kind, 3, start=plan.start, mjd0=MJD0, lloadsn=1, recording=Recording()
    )
    (read,) = open_l0(tmp_path / "n.zarr").load(3)
    assert read.calibration is None
    for name in ("mjd", "exptime", "elevation", "azimuth", "pamb", "tamb", "signal_freq"):
        want = getattr(made.scan.source, name)
        np.testing.assert_array_equal(getattr(read.source, name), want, err_msg=name)
    for name in ("image_freq", "freq_res", "ref_channel", "lloadsn", "otf_lon", "pixel_offset_lat"):
        want = getattr(made.scan.source, name)
        np.testing.assert_array_equal(getattr(read.source, name), want, err_msg=name)
    assert read.attrs["f_eff"] == made.scan.attrs["f_eff"]
    assert read.attrs["gain_image"] == made.scan.attrs["gain_image"]


def test_long_scans_are_written_in_little_memory(tmp_path: Path) -> None:
    setup = preset("superc", channels=256, dumps=4, n_on=40, sky="isothermal")
    setup = replace(setup, kinds=("tp",))
    whole = 4 * 256 * 4 * 64 * 61
    tracemalloc.start()
    try:
        simulate_night(tmp_path / "n.zarr", setup, 1, codec="none")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 0.6 * whole


def test_table_file_is_the_table(tmp_path: Path) -> None:
    setup = small("chai")
    simulate_night(tmp_path / "n.zarr", setup, 1, table_out=tmp_path / "t.npz")
    read, made = load_table(tmp_path / "t.npz"), synthetic_table(setup)
    np.testing.assert_array_equal(read.freq_hz, made.freq_hz)
    np.testing.assert_array_equal(read.q, made.q)
    np.testing.assert_array_equal(read.band_edges_hz, made.band_edges_hz)
    assert read.pwv_range_mm == made.pwv_range_mm
    assert len(made.bands_hz) == 4


def test_truth_file_round_trip(tmp_path: Path) -> None:
    setup = small("chai", fill_fraction=1e-3)
    numbers = simulate_night(tmp_path / "n.zarr", setup, 2, truth=tmp_path / "t.npz")
    truths = load_truth(tmp_path / "t.npz")
    assert sorted(truths.entries) == [(s, b) for s in (2, 3) for b in ("band_1", "band_2")]
    assert numbers == [1, 2, 3, 4]
    assert (1, "band_1") not in truths
    plan = list(plan_night(setup, 2, mjd0=MJD0))[2]
    made = simulate_scan(
        setup, plan.kind, 3, start=plan.start, mjd0=MJD0, lloadsn=1, recording=Recording()
    )
    for want in made.truths:
        got = truths[3, want.band]
        for name, value in want.__dict__.items():
            np.testing.assert_array_equal(getattr(got, name), value, err_msg=name)
    with pytest.raises(KeyError, match="not an ON subscan"):
        made.truth.t_a_star(99)


def test_truth_file_that_is_none(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    with pytest.raises(ImportFormatError, match="not a truth file"):
        load_truth(tmp_path / "x.npz")


def write_perfect_l1(path: Path, truths: Any, *, error: float) -> None:
    """An L1 store filled from the truth itself, with ``error`` K added to one sample."""
    root = zarr.create_group(str(path))
    for scan, band in truths.entries:
        truth = truths[scan, band]
        group = root.create_group(f"scan_{scan:06d}" + (f"/{band}" if band else ""))
        on = truth.on_index
        spectra = np.stack([truth.t_a_star(int(s)) for s in on], axis=-1)
        flags = np.zeros(spectra.shape, dtype=np.uint16)
        flags[truth.bad[:, None].repeat(spectra.shape[1], axis=1)] = Flag.BAD_CHANNEL
        for c, d, r, a, s in truth.fills:
            flags[c, d, r, a, list(on).index(s)] |= Flag.FILL_VALUE
        spectra[flags != 0] = np.nan
        place = np.unravel_index(np.flatnonzero(flags == 0)[0], flags.shape)
        spectra[place] += error
        group["spectra"] = spectra
        group["flags"] = flags
        group["t_sys"] = np.stack([truth.t_sys(int(s)) for s in on], axis=-1)
        group["on_index"] = on
        for name in ("t_rec", "gamma", "tau_signal", "tau_image"):
            group[name] = getattr(truth, name)
        group.create_array("pwv", data=np.array(truth.pwv_mm + 0.25))


def test_comparison_finds_what_differs(tmp_path: Path) -> None:
    setup = small("superc", fill_fraction=1e-3, kinds=("otf", "tp"))
    simulate_night(tmp_path / "n.zarr", setup, 2, truth=tmp_path / "t.npz")
    truths = load_truth(tmp_path / "t.npz")
    write_perfect_l1(tmp_path / "l1.zarr", truths, error=0.5)
    rows = compare_to_truth(tmp_path / "l1.zarr", tmp_path / "t.npz")
    worst = {row.quantity: row.largest for row in rows if row.scan == 1}
    assert worst.pop("spectra") == pytest.approx(0.5)
    assert worst.pop("pwv") == pytest.approx(0.25)
    assert set(worst) == {
        "t_rec",
        "gamma",
        "tau_signal",
        "tau_image",
        "t_sys",
        "bad channels",
        "fill values",
    }
    assert set(worst.values()) == {0.0}
    assert len(format_table(rows).splitlines()) == 1 + len(rows)
    group = zarr.open_group(tmp_path / "l1.zarr")["scan_000001"]
    group["flags"][...] = 0  # type: ignore[index]
    rows = compare_to_truth(tmp_path / "l1.zarr", tmp_path / "t.npz")
    worst = {row.quantity: row.largest for row in rows if row.scan == 1}
    truth = truths[1, ""]
    assert worst["bad channels"] == truth.bad.sum() * len(truth.on_index)
    assert worst["fill values"] == len(truth.fills) > 0


def test_comparison_needs_a_common_scan(tmp_path: Path) -> None:
    simulate_night(tmp_path / "n.zarr", small(), 1, truth=tmp_path / "t.npz")
    zarr.create_group(str(tmp_path / "l1.zarr"))
    with pytest.raises(L1Error, match="no scan in common"):
        compare_to_truth(tmp_path / "l1.zarr", tmp_path / "t.npz")


def test_command(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(simulate)
    out, truth = tmp_path / "night.zarr", tmp_path / "truth.npz"
    size = ["--channels", "32", "--dumps", "2", "--subscans", "2", "--scans", "2"]
    result = CliRunner().invoke(
        app, [str(out), "--preset", "argus", "--truth", str(truth), "--seed", "3", *size]
    )
    assert result.exit_code == 0, result.output
    assert "--atmosphere" in result.output
    assert "--pwv 9" in result.output
    assert len(load_truth(truth).entries) == 2
    assert load_table(tmp_path / "night.zarr.atm.npz").attrs["model"].startswith("layered")
    assert open_l0(out).numbers() == [1, 2]
    result = CliRunner().invoke(app, [str(out), "--scans", "0"])
    assert "expected at least 1" in str(result.exception)
