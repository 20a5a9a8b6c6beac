"""Maps, velocities, load counts and the fold: numbers behind the pictures, against plain sums."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from builders.groups import known, loads_of
from builders.pictures.plot_scenes import load_scan
from builders.synthetic_l1 import write_l1

from gpucal import ConfigError, GpucalWarning, PlotOptions, main, open_l0, open_l1, plot_store
from gpucal.cli.commands.plot import unfolded_mean
from gpucal.physics.velocity import C_KMS, velocity_scale
from gpucal.plot import binning
from gpucal.plot.loads import load_age, load_scan_of, mean_counts
from gpucal.plot.sky_map import Window, grid, is_map, make_map, parse_window
from gpucal.plot.source import ScanView, open_views
from gpucal.scan import ArrayCounts

REST = 460.8e9


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A simulated night with an OTF, a total power and a frequency-switched scan: (L0, L1)."""
    folder = tmp_path_factory.mktemp("night")
    l0, l1 = folder / "l0.zarr", folder / "l1.zarr"
    small = ["--scans", "4", "--channels", "96", "--dumps", "4", "--subscans", "4", "--seed", "3"]
    assert main(["simulate", str(l0), "--preset", "hera", *small]) == 0
    assert main(["calibrate", str(l0), str(l1), "--atmosphere", f"{l0}.atm.npz", "--quiet"]) == 0
    return l0, l1


def mapped(path: Path, peak_k: float = 5.0, width: int = 16) -> ScanView:
    """An OTF scan without noise: ``width`` channels at a height that is a Gaussian on the sky."""
    write_l1(path, (3,), (128, 25, 1, 1, 25), offsets=False)
    group: Any = zarr.open_group(path / "scan_000003", mode="a")
    group.attrs.update({"mode": "otf", "rest_freq_hz": REST})
    lon, lat = np.meshgrid(np.linspace(-60, 60, 25), np.linspace(-60, 60, 25), indexing="ij")
    for name, values in (("otf_lon", lon), ("otf_lat", lat)):
        array = group.create_array(
            name, shape=(25, 25), dtype="f8", dimension_names=["dump", "subscan"]
        )
        array[...] = values / 3600.0
    source = peak_k * np.exp(-0.5 * (lon**2 + lat**2) / 20.0**2)
    spectra = np.zeros((128, 25, 1, 1, 25))
    spectra[50 : 50 + width] = source[None, :, None, None, :]
    spectra[:5] = np.nan
    group["spectra"][...] = spectra
    return open_views(path)[0]


def test_map_of_a_gaussian_source(tmp_path: Path) -> None:
    view = mapped(tmp_path / "l1.zarr")
    assert is_map(view)
    made = make_map(view, Window(40, 79, "channels"), 15.0)
    assert made.unit == "K km/s"
    frequency = known(view.small("frequency"))
    width = (frequency[1] - frequency[0]) / REST * C_KMS
    peak = 5.0 * 16 * width
    # a Gaussian of sigma 20 arcsec smoothed by the kernel of 15 arcsec FWHM
    kernel = 15.0 / np.sqrt(8 * np.log(2))
    expected = peak * 400 / (400 + kernel**2)
    centre = made.values[len(made.y) // 2, len(made.x) // 2]
    assert centre == pytest.approx(expected, rel=0.01)
    scale = velocity_scale(view.attrs, frequency)
    assert scale is not None
    by_velocity = scale.velocity(frequency[[40, 79]])
    low, high = sorted(by_velocity)
    again = make_map(view, Window(low - 1e-6, high + 1e-6, "km/s"), 15.0)
    np.testing.assert_allclose(again.values, made.values, rtol=1e-12)


def test_map_without_velocity_and_without_beam(tmp_path: Path) -> None:
    view = mapped(tmp_path / "l1.zarr")
    zarr.open_group(view.arrays.path, mode="a").attrs["rest_freq_hz"] = 1e11  # type: ignore[union-attr]
    view = open_views(tmp_path / "l1.zarr")[0]
    made = make_map(view)
    assert (made.unit, made.beam_from) == ("K", "twice the sampling")
    assert made.beam == pytest.approx(10.0, rel=1e-3)
    inner = 128 - 2 * 12
    assert np.nanmax(made.values) == pytest.approx(5.0 * 16 / inner, rel=0.05)
    with pytest.raises(ConfigError, match="no rest frequency"):
        make_map(view, Window(-10, 10, "km/s"))


def test_absolute_positions_become_offsets(tmp_path: Path) -> None:
    view = mapped(tmp_path / "l1.zarr")
    offsets = make_map(view, None, 15.0)
    group: Any = zarr.open_group(view.arrays.path, mode="a")  # type: ignore[union-attr]
    group["otf_lat"][...] = group["otf_lat"][...] + 60.0
    group["otf_lon"][...] = 2.0 * group["otf_lon"][...] + 300.0
    moved = make_map(open_views(tmp_path / "l1.zarr")[0], None, 15.0)
    np.testing.assert_allclose(moved.positions, offsets.positions, atol=1e-6)


def test_grid_against_a_plain_sum() -> None:
    rng = np.random.default_rng(1)
    where, values = rng.uniform(-30, 30, (200, 2)), rng.normal(size=200)
    weight = rng.uniform(0.5, 2.0, 200)
    cells = np.linspace(-20, 20, 9), np.linspace(-15, 15, 7)
    made = grid(where, values, weight, cells, 12.0)
    sigma = 12.0 / np.sqrt(8 * np.log(2))
    for row, y in enumerate(cells[1]):
        for column, x in enumerate(cells[0]):
            r2 = ((where - [x, y]) ** 2).sum(axis=1)
            kernel = weight * np.exp(-0.5 * r2 / sigma**2) * (r2 <= 9 * sigma**2)
            expected = (kernel * values).sum() / kernel.sum()
            assert made[row, column] == pytest.approx(expected, rel=1e-9)
    far = grid(where, values, weight, (np.array([500.0]), np.array([0.0])), 12.0)
    assert np.isnan(far).all()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-40,60", Window(-40.0, 60.0, "km/s")),
        ("60,-40km/s", Window(-40.0, 60.0, "km/s")),
        ("100,200ch", Window(100.0, 200.0, "channels")),
    ],
)
def test_window(text: str, expected: Window) -> None:
    assert parse_window(text) == expected


@pytest.mark.parametrize("text", ["5", "1,2,3", "a,b", "3,3", "nan,1", "1,2GHz"])
def test_wrong_window(text: str) -> None:
    with pytest.raises(ConfigError, match="window"):
        parse_window(text)


def test_velocity_scale() -> None:
    frequency = np.linspace(93.1e9, 93.2e9, 11)
    attrs = {"rest_freq_hz": 93.15e9}
    scale = velocity_scale(attrs, frequency)
    assert scale is not None
    assert scale.frame == "topocentric"
    assert scale.velocity(93.15e9) == 0.0
    assert scale.velocity(93.15e9 * (1 - 10 / C_KMS)) == pytest.approx(10.0, abs=1e-9)
    moving = {**attrs, "velocity_frame_mps": -30e3, "velocity_definition": "RADI-LSR"}
    scale = velocity_scale(moving, frequency)
    assert scale is not None
    assert scale.label == "radio velocity, LSR [km/s]"
    b = -30.0 / C_KMS
    seen = 93.15e9 * np.sqrt((1 + b) / (1 - b))
    assert scale.velocity(93.15e9) == pytest.approx(C_KMS * (1 - seen / 93.15e9))
    assert scale.frequency(scale.velocity(93.17e9)) == pytest.approx(93.17e9, rel=1e-14)
    assert velocity_scale({"rest_freq_hz": 115e9}, frequency) is None
    assert velocity_scale({"rest_freq_hz": "NaN"}, frequency) is None
    assert velocity_scale({}, frequency) is None


def test_mean_counts_leaves_out_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = open_views(write_l1(tmp_path / "l1.zarr", (3,), (64, 2, 2, 3, 1)))[0]
    group = loads_of(load_scan(view))
    monkeypatch.setattr("gpucal.plot.loads.BLOCK_BYTES", 8 * 2 * 6 * 7)
    assert isinstance(group.counts, ArrayCounts)
    counts = group.counts.data.astype(float)
    counts[counts == np.iinfo(np.int32).min] = np.nan
    for mode, subscan in (("HOT", 0), ("COLD", 1)):
        found = known(mean_counts(group, mode, [(0, 0), (1, 2)]))
        expected = np.nanmean(counts[..., subscan], axis=1)[:, [0, 1], [0, 2]]
        np.testing.assert_allclose(found, expected, rtol=1e-14)
    assert mean_counts(group, "SKY", [(0, 0)]) is None
    monkeypatch.setattr(binning.bin_width, "__defaults__", (20,))
    binned = known(mean_counts(group, "HOT", [(1, 2)]))
    whole = np.nanmean(counts[..., 0], axis=1)[:, 1, 2]
    np.testing.assert_allclose(binned[:, 0], whole.reshape(-1, 4).mean(axis=1), rtol=1e-14)


def test_load_of_a_scan_and_its_age(night: tuple[Path, Path]) -> None:
    l0, l1 = night
    view, store = open_views(l1, 2)[0], open_l0(l0)
    load = load_scan_of(store, view)
    assert load is not None
    assert load.number == 2
    times: Any = open_l1(l1)[2]["mjd"][...]
    expected = (times.mean() - loads_of(load).mjd_mid.mean()) * 24 * 60
    assert load_age(view, load) == pytest.approx(expected, rel=1e-9)
    assert expected > 0


def test_everything_from_the_command_line(
    night: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    l0, l1 = night
    out = tmp_path / "pictures"
    command = ["plot", str(l1), "-o", str(out), "--l0", str(l0), "--window=-60,60", "--beam", "20"]
    assert main([*command, "--scan", "1"]) == 0
    assert main([*command, "--scan", "4"]) == 0
    printed = capsys.readouterr()
    names = {line.rsplit("/", 1)[1] for line in printed.out.splitlines()}
    assert names == {p.name for p in out.iterdir()}
    every = ("array", "loads", "spectra", "waterfall")
    assert names == {
        *(f"scan_000001_{kind}.png" for kind in (*every, "map")),
        *(f"scan_000004_{kind}.png" for kind in (*every, "fold")),
        "night.png",
    }
    assert printed.err == ""


def test_unfolded_is_what_no_fold_gives(night: tuple[Path, Path], tmp_path: Path) -> None:
    l0, l1 = night
    plain = tmp_path / "plain.zarr"
    options = ["--no-fold", "--scans", "4", "--atmosphere", f"{l0}.atm.npz", "--quiet"]
    assert main(["calibrate", str(l0), str(plain), *options]) == 0
    spectra = open_l1(plain)[4]["spectra"][...]
    count = np.isfinite(spectra).sum(axis=(1, 4))
    expected = np.where(count > 0, np.nansum(spectra, axis=(1, 4)) / np.maximum(count, 1), np.nan)
    view = open_views(l1, 4)[0]
    (scan,) = open_l0(l0).load(4)
    found = unfolded_mean(scan, scan, view)
    good = np.isfinite(expected)
    assert (np.isfinite(found) == good).all()
    np.testing.assert_allclose(found[good], expected[good], rtol=1e-9, atol=1e-12)


def test_what_cannot_be_drawn_is_said(
    night: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    l0, l1 = night
    for name in ("spectra.plot_spectra", "waterfall.plot_waterfall", "loads.plot_loads"):
        monkeypatch.setattr(f"gpucal.plot.{name}", lambda *_: None)
    with pytest.warns(GpucalWarning, match="no map: scan 1 has no channel in the window"):
        files = plot_store(l1, tmp_path / "a", 1, options=PlotOptions(window="5000,6000"))
    assert not any("map" in f.name for f in files)
    monkeypatch.setattr("gpucal.cli.commands.plot.MAX_IN_MEMORY", 10)
    with pytest.warns(GpucalWarning, match=r"no picture before folding.*too large"):
        files = plot_store(l1, tmp_path / "b", 4, options=PlotOptions(l0=l0, unfold=unfolded_mean))
    assert not any("fold" in f.name for f in files)
    with pytest.raises(ConfigError, match="beam"):
        plot_store(l1, tmp_path / "c", options=PlotOptions(beam=0.0))


def test_opacity_errors_follow_the_pwv(night: tuple[Path, Path]) -> None:
    from gpucal.plot.trend import _point, _with_tau_errors

    points = [_point(view) for view in open_views(night[1])]
    spread = float(np.ptp([p.pwv[0] for p in points]))
    wide = [p._replace(pwv_noise=0.4 * spread) for p in points]
    assert np.isnan(_with_tau_errors(wide)[0].tau_error)  # PWVs do not differ by three errors
    points = [p._replace(pwv_noise=0.1 * spread) for p in points]
    with_errors = _with_tau_errors(points)
    store = open_l1(night[1])
    slope = (points[-1].tau - points[0].tau) / (points[-1].pwv[0] - points[0].pwv[0])
    for point, number in zip(with_errors, store, strict=True):
        expected = abs(slope) * float(np.asarray(store[number]["pwv_error"][()]))
        assert point.tau_error == pytest.approx(expected, rel=0.1)
    assert np.isnan(_with_tau_errors(points[:1])[0].tau_error)
    other = [p._replace(air=f"tuning {i}") for i, p in enumerate(points)]
    assert all(np.isnan(p.tau_error) for p in _with_tau_errors(other))
