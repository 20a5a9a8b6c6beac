"""Pictures of what is hard to draw: feeds at one place, spikes at band edges, single pixels, gaps, no data."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from builders.pictures import gallery
from builders.pictures.gallery_stores import SPIKE_K, feeds_of_a_nod, gallery_look, gallery_views
from builders.pictures.plot_scenes import load_scan
from builders.synthetic_l1 import write_l1
from matplotlib.collections import PatchCollection
from numpy.typing import NDArray
from oracle import ink as plot_ink

from gpucal import main
from gpucal.io.l1.reader import L1Scan
from gpucal.online.looks.drawing import draw_look
from gpucal.plot import array, trend
from gpucal.plot.binning import read_binned
from gpucal.plot.loads import plot_loads
from gpucal.plot.source import open_views
from gpucal.plot.spectra import plot_spectra
from gpucal.plot.style import bandpass_limits, curve_limits
from gpucal.plot.waterfall import central_pixel

Look = Callable[[Any], None]


def seen(draw: Callable[[], Any], look: Look) -> None:
    """Call ``look`` with every finished figure of ``draw``."""
    with plot_ink.figures_drawn(look):
        draw()


def band(n: int = 400, line: int | None = 150, width: float = 4.0) -> NDArray[np.float64]:
    """Noise of 0.05 K with a line of 4 K, f64 [n]."""
    x = np.arange(n)
    noise = np.random.default_rng(3).normal(0.0, 0.05, n)
    return noise if line is None else noise + 4.0 * np.exp(-0.5 * ((x - line) / width) ** 2)


# --- what sets the scale of a spectrum -------------------------------------------------------------


@pytest.mark.parametrize("where", [0, 3, 11, -1, -4])
def test_a_spike_at_the_edge_sets_no_scale(where: int) -> None:
    spectrum = band()
    spectrum[where] = SPIKE_K
    assert curve_limits(spectrum)[1] == pytest.approx(4.0, abs=0.2)
    assert curve_limits(spectrum[::-1]) == curve_limits(spectrum)
    flagged = spectrum.copy()
    flagged[:3] = np.nan  # the edge begins at the first channel with data
    assert curve_limits(flagged)[1] == pytest.approx(4.0, abs=0.2)


def test_noise_that_grows_at_the_edge_sets_no_scale() -> None:
    for seed in range(50):
        spectrum = band()
        spectrum[-16:] = np.random.default_rng(seed).normal(0.0, 7.0, 16)
        low, high = curve_limits(spectrum)
        assert high < 6.5
        assert low > -2.5


@pytest.mark.parametrize(("line", "width"), [(200, 0.2), (12, 1.5), (387, 1.5), (60, 30.0)])
def test_a_real_line_stays_in_view(line: int, width: float) -> None:
    """One channel wide in the middle, or wider and near the edge."""
    spectrum = band(line=line, width=width)
    assert curve_limits(spectrum)[1] >= spectrum.max()
    assert curve_limits(-spectrum)[0] <= -spectrum.max()


@pytest.mark.parametrize("channels", [1, 2, 19])
def test_few_channels_have_no_edge(channels: int) -> None:
    spectrum = np.arange(float(channels))
    spectrum[0] = 50.0
    assert curve_limits(spectrum)[1] >= 50.0
    assert curve_limits(np.full(channels, np.nan)) == (0.0, 1.0)


def test_warm_channels_do_not_set_the_scale_of_a_bandpass() -> None:
    x = np.linspace(-1.0, 1.0, 256)
    smooth = 3e5 * (1.0 - x**8)
    warm = smooth.copy()
    warm[::20] *= 40.0  # 5 % of the channels
    assert bandpass_limits(warm)[1] < 1.05 * smooth.max()


def test_a_line_of_one_channel_is_in_the_picture(tmp_path: Path) -> None:
    path = write_l1(tmp_path / "l1.zarr", (3,), (256, 2, 1, 3, 1))
    group: Any = zarr.open_group(path / "scan_000003", mode="a")
    spectra = group["spectra"][...]
    spectra[100] += 30.0
    group["spectra"][...] = spectra
    view = open_views(path)[0]

    def look(figure: Any) -> None:
        assert figure.axes[0].get_ylim()[1] > 30.0
        assert not any("off the scale" in t.get_text() for t in figure.axes[0].texts)

    seen(lambda: plot_spectra(view, read_binned(view, (0, 0)), tmp_path / "p.png"), look)


def test_edge_spikes_in_spectra_are_told_in_words(tmp_path: Path) -> None:
    views = gallery_views("edge_spikes", tmp_path, (3,))

    def look(figure: Any) -> None:
        mean, pixels = figure.axes[:2]
        assert 3.0 < mean.get_ylim()[1] < 4.5
        assert pixels.get_ylim()[1] < 45.0  # six pixels of a line of 4 K
        for axes in (mean, pixels):
            said = " ".join(" ".join(t.get_text() for t in axes.texts).split())
            assert "gaps: flagged or no data" in said
            assert "off the scale" in said
            assert "up to 10 K" in said

    seen(lambda: gallery.DRAWERS["spectra"](views, tmp_path / "p.png"), look)


# --- the footprint of the array --------------------------------------------------------------------


def test_two_feeds_at_one_place_leave_the_array_in_view(tmp_path: Path) -> None:
    view = gallery_views("feeds_16", tmp_path, (3,))[0]
    x, y = 3600.0 * feeds_of_a_nod().T
    cx, cy, radius, _ = array._circles(x, y)
    alone = np.delete(np.arange(16), [8, 10])
    np.testing.assert_array_equal(cx[alone], x[alone])
    assert radius[alone] == pytest.approx(0.46 * 30.4, rel=1e-3)
    distance = np.hypot(cx[:, None] - cx, cy[:, None] - cy) - radius[:, None] - radius
    np.fill_diagonal(distance, 1.0)
    assert distance.min() > -1e-6  # no circle covers another
    texts: list[str] = []

    def look(figure: Any) -> None:
        for axes in [a for a in figure.axes if a.get_xlabel().startswith("longitude")]:
            left, right = axes.get_xlim()
            low, high = axes.get_ylim()
            assert right < (cx - radius).min() < (cx + radius).max() < left
            assert low < (cy - radius).min() < (cy + radius).max() < high
            assert len(axes.texts) == 16
            assert "pixels 8, 10" in axes.get_xlabel()
            texts.extend(t.get_text() for t in axes.texts)

    seen(lambda: array.plot_array(view, read_binned(view, (0, 0)), tmp_path / "p.png"), look)
    assert {t.split("\n")[0] for t in texts} == {str(p) for p in range(16)}


@pytest.mark.parametrize(
    ("places", "copies"), [(7, 2), (19, 2), (5, 4)], ids=["pairs", "more pairs", "fours"]
)
def test_polarisations_of_one_feed_lie_side_by_side(places: int, copies: int) -> None:
    rng = np.random.default_rng(1)
    x = np.repeat(20.0 * np.arange(places), copies) + rng.normal(0.0, 0.02, places * copies)
    y = np.zeros_like(x)
    groups, spacing = array._places(x, y)
    assert [len(g) for g in groups] == [copies] * places
    assert spacing == pytest.approx(20.0, rel=0.01)
    cx, cy, radius, _ = array._circles(x, y)
    distance = np.hypot(cx[:, None] - cx, cy[:, None] - cy)
    np.fill_diagonal(distance, 100.0)
    assert distance.min() > 1.9 * radius.max()


def test_numbers_fit_into_64_pixels(tmp_path: Path) -> None:
    view = gallery_views("pixels_64", tmp_path, (3,))[0]

    def look(figure: Any) -> None:
        figure.canvas.draw()
        panels = [
            a for a in figure.axes if any(isinstance(c, PatchCollection) for c in a.collections)
        ]
        assert len(panels) == 3
        for axes in panels:
            assert len(axes.texts) == 64
            circle = axes.collections[0].get_paths()[0].get_extents()
            room = np.diff(axes.transData.transform([[circle.x1, 0.0], [circle.x0, 0.0]])[:, 0])[0]
            for text in axes.texts:
                assert text.get_fontsize() >= 5.0
                box = text.get_window_extent()
                assert np.hypot(box.width, box.height) < 1.1 * abs(room)

    seen(lambda: array.plot_array(view, read_binned(view, (0, 0)), tmp_path / "p.png"), look)


# --- waterfall, night, looks, CLASS ----------------------------------------------------------------


def test_the_pixel_of_a_vane_scan_is_one_that_works(tmp_path: Path) -> None:
    view = gallery_views("feeds_16", tmp_path, (3,))[0]
    assert isinstance(view.arrays, L1Scan)
    group: Any = zarr.open_group(view.arrays.path, mode="a")
    t_sys = group["t_sys"][...]
    t_sys[:, :, [0, *range(2, 16)]] = np.nan
    group["t_sys"][...] = t_sys
    assert central_pixel(open_views(tmp_path / "feeds_16.zarr")[0]) == (0, 1)


def test_what_is_missing_in_a_waterfall_is_hatched(tmp_path: Path) -> None:
    views = gallery_views("one_pixel", tmp_path, (3,))

    def look(figure: Any) -> None:
        below = figure.axes[0]
        assert below.patch.get_hatch() == "////"
        left, _ = plot_ink.side_titles(below)
        assert "flagged or no data" in left.get_text()

    seen(lambda: gallery.DRAWERS["waterfall"](views, tmp_path / "p.png"), look)


def test_night_over_midnight_with_scan_numbers(tmp_path: Path) -> None:
    path = write_l1(tmp_path / "l1.zarr", (25650, 25651, 25652), (16, 2, 1, 1, 1))
    for number, mjd in ((25650, 61042.95), (25651, 61042.99), (25652, 61043.04)):
        group: Any = zarr.open_group(path / f"scan_{number:06d}", mode="a")
        group["mjd"][...] = mjd

    def look(figure: Any) -> None:
        figure.canvas.draw()
        panels = [a for a in figure.axes if a.get_ylabel()]
        ticks = [t.get_text() for t in panels[-1].get_xticklabels()]
        assert len(ticks) >= 3
        assert all(re.fullmatch(r"[0-2]\d:[0-5]\d", t) for t in ticks)
        assert ticks.index("23:00") < ticks.index("00:00")
        assert panels[-1].get_xlabel().startswith("UTC [hh:mm], 2026-01-02 to 2026-01-03")
        (above,) = panels[0].child_axes
        assert [t.get_text() for t in above.get_xticklabels()] == ["25650", "25651", "25652"]
        legend = panels[2].get_legend().get_window_extent()
        assert legend.x0 >= panels[2].get_window_extent().x1

    seen(lambda: trend.plot_night(open_views(path), tmp_path / "n.png", "night"), look)


def test_many_scans_leave_room_between_their_numbers(tmp_path: Path) -> None:
    path = write_l1(tmp_path / "l1.zarr", tuple(range(100, 160)), (2, 1, 1, 1, 1))

    def look(figure: Any) -> None:
        (above,) = figure.axes[0].child_axes
        assert 20 <= len(above.get_xticks()) <= trend.MAX_NUMBERS + 1
        assert above.get_xlabel() == f"scan (numbers of {len(above.get_xticks())} of 60)"

    seen(lambda: trend.plot_night(open_views(path), tmp_path / "n.png", "night"), look)


def test_warm_channels_do_not_hide_the_bandpass_of_a_look(tmp_path: Path) -> None:
    views = gallery_views("pixels_64", tmp_path, (3,))

    def look(figure: Any) -> None:
        axes = figure.axes[0]
        assert axes.get_ylabel() == "counts [$10^{3}$]"
        assert 300.0 < axes.get_ylim()[1] < 600.0
        said = " ".join(" ".join(t.get_text() for t in axes.texts).split())
        assert "7 channels dead, weak or too warm" in said  # the eighth is flagged
        mean = next(line for line in axes.lines if "mean" in str(line.get_label()))
        assert np.isnan(np.asarray(mean.get_ydata())[32::32]).all()  # a gap, no line to the top

    seen(lambda: draw_look(gallery_look(views[0], "counts"), tmp_path / "p.png"), look)


def test_an_edge_spike_does_not_flatten_a_look(tmp_path: Path) -> None:
    views = gallery_views("feeds_16", tmp_path, (3,))

    def look(figure: Any) -> None:
        low, high = figure.axes[0].get_ylim()
        assert 4.0 < high < 8.0
        assert low > -4.0

    seen(lambda: draw_look(gallery_look(views[0], "K"), tmp_path / "p.png"), look)


def test_dead_and_warm_channels_of_a_load_are_ticks_and_no_borders(tmp_path: Path) -> None:
    views = gallery_views("one_pixel", tmp_path, (3,))
    load = load_scan(views[0])
    assert load.calibration is not None
    counts: Any = load.calibration.counts
    counts.data[60] = 0
    counts.data[90] *= 20

    def look(figure: Any) -> None:
        axes = figure.axes[0]
        hot = np.asarray(axes.lines[0].get_ydata())
        assert np.isnan(hot[[60, 90]]).all()
        assert np.isfinite(hot[[59, 61, 89, 91]]).all()
        ticks = next(line for line in axes.lines if line.get_marker() == "|")
        assert len(ticks.get_xdata()) == 2
        assert "2 dead, weak or too warm" in plot_ink.side_titles(axes)[0].get_text()

    binned = read_binned(views[0], (0, 0))
    seen(lambda: plot_loads(views[0], binned, load, tmp_path / "p.png"), look)


@pytest.mark.parametrize("case", ["one_channel", "negative_step"])
def test_frequency_grows_to_the_right_everywhere(case: str, tmp_path: Path) -> None:
    """So velocity falls to the right in all pictures, those of CLASS files too."""
    views = gallery_views(case, tmp_path, (3,))
    for kind in ("spectra", "waterfall", "fold", "loads", "look_K", "class"):

        def look(figure: Any, kind: str = kind) -> None:
            found = [a for a in figure.axes if re.search("frequency|velocity", a.get_xlabel())]
            assert found, kind
            for axes in found:
                left, right = axes.get_xlim()
                assert (left > right) == axes.get_xlabel().startswith("velocity"), kind

        seen(partial(gallery.DRAWERS[kind], views, tmp_path / f"{kind}.png"), look)


@pytest.mark.parametrize("case", ["one_channel", "all_nan", "dead_pixel"])
def test_every_picture_of_a_case_draws_something_and_names_units(case: str, tmp_path: Path) -> None:
    views = gallery_views(case, tmp_path)
    for kind, draw in gallery.DRAWERS.items():

        def look(figure: Any, kind: str = kind) -> None:
            for axes in figure.axes:
                for label in (axes.get_xlabel(), axes.get_ylabel()):
                    unit = re.search(r"\((K|GHz|arcsec|counts|km/s|mm|min|h|s)\)", label)
                    assert unit is None, (kind, label)
                empty = not (axes.collections or axes.patches or axes.texts or axes.images)
                points = [
                    np.isfinite(np.asarray(line.get_ydata(), dtype=float)).sum()
                    for line in axes.lines
                ]
                # a curve of a single point is seen only where it has a marker
                marks = [line.get_marker() not in ("", "None", None) for line in axes.lines]
                drawn = [n > 1 or (n == 1 and m) for n, m in zip(points, marks, strict=True)]
                assert not empty or any(drawn), kind

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            seen(partial(draw, views, tmp_path / f"{kind}.png"), look)


def test_scans_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_l1(tmp_path / "l1.zarr", (3, 4, 5), (16, 2, 1, 1, 1))
    command = ["plot", str(path), "-o", str(tmp_path / "p")]
    assert main([*command, "--scans", "3-4"]) == 0
    printed = capsys.readouterr().out
    assert {n for n in (3, 4, 5) if f"scan_{n:06d}_spectra" in printed} == {3, 4}
    assert main([*command, "--scan", "5"]) == 0
    assert "scan_000005_spectra" in capsys.readouterr().out
    assert main([*command, "--scans", "4,9"]) == 1
    assert "no scan 9" in capsys.readouterr().err
    assert main([*command, "--scans", "x"]) == 64
