"""Pictures of unusual stores, and the averages behind them."""

from __future__ import annotations

import builtins
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from builders.synthetic_l1 import write_l1

from gpucal import ConfigError, GpucalError, L1Error, plot_scan, plot_store
from gpucal.plot import binning, trend
from gpucal.plot.array import footprint
from gpucal.plot.binning import bin_channels, bin_width, read_binned
from gpucal.plot.source import open_views
from gpucal.plot.spectra import mean_airmass
from gpucal.plot.waterfall import central_pixel

CASES: dict[str, dict[str, Any]] = {
    "ordinary": {"shape": (64, 4, 2, 7, 3), "dead_pixel": 0},
    "one of all": {"shape": (1, 1, 1, 1, 1)},
    "single pixel and dump": {"shape": (32, 1, 1, 1, 2), "pwv": "none", "offsets": False},
    "bands with water per pair": {
        "shape": (32, 3, 1, 3, 4),
        "pwv": "per-pair",
        "bands": ("band_1", "band_2"),
    },
    "own axes, many receivers": {"shape": (32, 2, 5, 2, 1), "own_axes": True, "pwv": "per-pixel"},
}


@pytest.mark.parametrize("case", sorted(CASES))
def test_every_case_gives_pictures(tmp_path: Path, case: str) -> None:
    path = write_l1(tmp_path / "l1.zarr", (3, 4), **CASES[case])
    files = plot_store(path, tmp_path / "pictures", scan=3)
    assert len(set(files)) == len(files) >= 4
    for file in files:
        assert file.read_bytes()[:4] == b"\x89PNG"
        assert file.stat().st_size > 5000
    assert files[-1].name == "night.png"


def test_one_scan_without_the_night(tmp_path: Path) -> None:
    path = write_l1(tmp_path / "l1.zarr", (3, 4), (16, 2, 1, 1, 1))
    files = plot_scan(path, tmp_path / "p", 4, "svg")
    kinds = ["array", "spectra", "waterfall"]
    assert sorted(f.name for f in files) == [f"scan_000004_{kind}.svg" for kind in kinds]
    assert sorted(f.name for f in (tmp_path / "p").iterdir()) == sorted(f.name for f in files)


def test_all_nan_scan_and_missing_arrays(tmp_path: Path) -> None:
    path = write_l1(tmp_path / "l1.zarr", (3,), (32, 2, 1, 3, 2))
    group: Any = zarr.open_group(path / "scan_000003", mode="a")
    group["spectra"][...] = np.nan
    for name in ("t_rec", "t_sys"):
        group[name][...] = np.nan
    for name in ("tau_signal", "tau_image", "pwv", "elevation"):
        del group[name]
    group.attrs["qa"] = {}
    assert all(f.stat().st_size > 5000 for f in plot_store(path, tmp_path / "p"))


def test_svg_is_reproducible(tmp_path: Path) -> None:
    views = open_views(write_l1(tmp_path / "l1.zarr", (3,), (16, 2, 1, 1, 1)))
    files = [tmp_path / "p.svg", tmp_path / "q.svg"]
    for file in files:
        trend.plot_night(views, file, "night")
    assert b"<svg" in files[0].read_bytes()
    assert files[0].read_bytes() == files[1].read_bytes()


def test_time_axis_of_a_night_and_of_a_week(tmp_path: Path) -> None:
    path = write_l1(tmp_path / "l1.zarr", (3, 4), (16, 2, 1, 1, 1))
    points = [trend._point(view) for view in open_views(path)]
    assert trend._time_axis(points) == (61042.0, 24.0, "UTC [hh:mm], 2026-01-02 (MJD 61042)")
    mjd: Any = zarr.open_group(path / "scan_000004", mode="a")["mjd"]
    mjd[...] = 61050.0
    points = [trend._point(view) for view in open_views(path)]
    assert trend._time_axis(points)[2] == "MJD [d], UTC"
    trend.plot_night(open_views(path), tmp_path / "week.png", "week")
    assert (tmp_path / "week.png").stat().st_size > 5000


def test_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_l1(tmp_path / "l1.zarr", (3,), (16, 2, 1, 1, 1))
    with pytest.raises(ConfigError, match="png or svg"):
        plot_store(path, tmp_path / "p", fmt="pdf")
    with pytest.raises(L1Error, match=r"no scan 9\..*1 scan: 3"):
        plot_store(path, tmp_path / "p", scan=9)
    (tmp_path / "file").write_text("")
    with pytest.raises(GpucalError, match="cannot be made"):
        plot_store(path, tmp_path / "file" / "p")
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    for name in [m for m in sys.modules if m.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(GpucalError, match=r"pip install 'gpucal\[plot\]'"):
        plot_store(path, tmp_path / "p")


def test_bin_width_and_bins() -> None:
    assert [bin_width(n, 10) for n in (1, 10, 11, 20, 21)] == [1, 1, 2, 2, 3]
    values = np.array([1.0, 3.0, np.nan, 5.0, np.nan, np.nan, 7.0])
    np.testing.assert_array_equal(bin_channels(values, 2), [2.0, 5.0, np.nan, 7.0])


def test_binned_means_do_not_depend_on_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binning, "MAX_BINS", 20)
    path = write_l1(tmp_path / "l1.zarr", (3,), (70, 4, 2, 3, 3))
    view = open_views(path)[0]
    monkeypatch.setattr(binning.bin_width, "__defaults__", (20,))
    whole = read_binned(view, (1, 2))
    monkeypatch.setattr(binning, "BLOCK_BYTES", 8 * 4 * 2 * 3 * 13)
    blocks = read_binned(view, (1, 2))
    for name in ("mean", "t_sys", "waterfall", "frequency", "channel", "dump"):
        np.testing.assert_allclose(getattr(blocks, name), getattr(whole, name), rtol=1e-12)
    assert whole.mean.shape == (18, 2, 3)
    assert whole.waterfall.shape == (12, 18)


def test_binned_mean_against_a_plain_sum(tmp_path: Path) -> None:
    path = write_l1(tmp_path / "l1.zarr", (3,), (24, 3, 2, 2, 3))
    group: Any = zarr.open_group(path / "scan_000003", mode="a")
    rng = np.random.default_rng(5)
    exposure = rng.uniform(1, 3, (3, 3))
    group["exptime"][...] = exposure
    t_sys = group["t_sys"][...] * rng.uniform(0.5, 2.0, 3)
    group["t_sys"][...] = t_sys
    view = open_views(path)[0]
    binned = read_binned(view, (0, 1))
    spectra = group["spectra"][...]
    weight = exposure[:, None, None, :] / t_sys.mean(axis=0)[None] ** 2
    expected = (spectra * weight).sum(axis=(1, 4)) / weight.sum(axis=(0, 3))
    np.testing.assert_allclose(binned.mean, expected, rtol=1e-12)
    np.testing.assert_allclose(binned.t_sys, t_sys.mean(axis=3), rtol=1e-12)
    rows = spectra[:, :, 0, 1, :].transpose(2, 1, 0).reshape(9, 24)
    np.testing.assert_array_equal(binned.waterfall, rows)


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binning, "BLOCK_BYTES", 2**20)
    path = write_l1(tmp_path / "l1.zarr", (3,), (512, 40, 1, 8, 12))  # 16 MB of spectra
    view = open_views(path)[0]
    tracemalloc.start()
    try:
        read_binned(view, (0, 0))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * 2**20


def test_central_pixel_avoids_the_dead_one(tmp_path: Path) -> None:
    live = open_views(write_l1(tmp_path / "a.zarr", (3,), (8, 1, 2, 7, 1)))[0]
    assert central_pixel(live) == (0, 0)
    dead = open_views(write_l1(tmp_path / "b.zarr", (3,), (8, 1, 2, 7, 1), dead_pixel=0))[0]
    assert central_pixel(dead)[1] != 0


def test_footprint_and_airmass(tmp_path: Path) -> None:
    view = open_views(write_l1(tmp_path / "a.zarr", (3,), (8, 1, 1, 7, 1)))[0]
    x, y, placed = footprint(view, 0)
    assert placed
    np.testing.assert_allclose(np.hypot(x, y)[1:], 20.0)
    assert mean_airmass(view) == pytest.approx(1 / np.sin(np.radians(55.0)))
    without = write_l1(tmp_path / "b.zarr", (3,), (8, 1, 1, 7, 1), offsets=False)
    x, y, placed = footprint(open_views(without)[0], 0)
    assert not placed
    assert len({*zip(x, y, strict=True)}) == 7
