"""Every picture against a stored one; a picture that lacks a curve must fail.

To renew the stored images after a change that is meant: GPUCAL_RENEW_GOLDEN=1 pytest tests/plot, and
look at them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from builders.pictures.plot_scenes import FITS, load_scan, pointing, unfolded
from builders.synthetic_l1 import write_l1
from numpy.typing import NDArray
from oracle import ink as plot_ink

from gpucal import plot_fits
from gpucal.plot import style
from gpucal.plot.array import plot_array
from gpucal.plot.binning import read_binned
from gpucal.plot.fold import plot_fold
from gpucal.plot.loads import plot_loads
from gpucal.plot.sky_map import Window, plot_map
from gpucal.plot.source import ScanView, open_views
from gpucal.plot.spectra import plot_spectra
from gpucal.plot.trend import plot_night
from gpucal.plot.waterfall import plot_waterfall
from gpucal.procedures.results import PointingResult

GOLDEN = Path(__file__).parent / "golden"
NAMES = ("spectra", "array", "waterfall", "night", "loads", "fold", "map", *sorted(FITS))


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> list[ScanView]:
    path = write_l1(tmp_path_factory.mktemp("golden") / "l1.zarr", (3, 4, 5), (128, 6, 2, 7, 3))
    for number in (3, 4, 5):
        group = zarr.open_group(path / f"scan_{number:06d}", mode="a")
        group.attrs["mode"] = "otf"
        group.attrs["rest_freq_hz"] = 460.8e9
        lon, lat = np.meshgrid(np.linspace(-60, 60, 6), np.linspace(-30, 30, 3), indexing="ij")
        for name, values in (("otf_lon", lon), ("otf_lat", lat)):
            array = group.create_array(
                name, shape=(6, 3), dtype="f8", dimension_names=["dump", "subscan"]
            )
            array[...] = values / 3600.0
    return open_views(path)


def draw(
    name: str, views: list[ScanView], folder: Path, before: Callable[[Any], None] | None = None
) -> NDArray[Any]:
    """Draw one picture and return the ink of its panels."""
    view, path = views[0], folder / f"{name}.png"
    with plot_ink.figures_drawn(before) as drawn:
        if name == "night":
            plot_night(views, path, "night", {(3, ""): 4.0, (4, ""): 21.0})
        elif name in FITS:
            plot_fits(FITS[name](), path, name)
        else:
            binned = read_binned(view, (0, 0))
            if name == "spectra":
                plot_spectra(view, binned, path)
            elif name == "array":
                plot_array(view, binned, path)
            elif name == "waterfall":
                plot_waterfall(view, binned, path)
            elif name == "loads":
                plot_loads(view, binned, load_scan(view), path)
            elif name == "fold":
                plot_fold(view, binned, unfolded(binned), np.array([1e7, -1e7]), path)
            else:
                plot_map(view, path, Window(-20, 40, "km/s"), 20.0)
    assert len(drawn) == 1
    return drawn[0]


@pytest.mark.parametrize("name", NAMES)
def test_picture_is_as_stored(name: str, views: list[ScanView], tmp_path: Path) -> None:
    ours = draw(name, views, tmp_path)
    stored = GOLDEN / f"{name}.png"
    if os.environ.get("GPUCAL_RENEW_GOLDEN") == "1":
        plot_ink.save(ours, stored)
    assert stored.stat().st_size < 30_000
    assert plot_ink.difference(ours, plot_ink.load(stored, len(ours))) < plot_ink.ALLOWED


@pytest.mark.parametrize("name", ["spectra", "array", "loads", "pointing", "night"])
def test_other_fonts_make_no_difference(
    name: str, views: list[ScanView], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another version of matplotlib or another machine changes: fonts, and so the layout."""
    monkeypatch.setitem(style._RC, "font.family", "DejaVu Serif")
    monkeypatch.setitem(style._RC, "font.size", 10.0)
    monkeypatch.setitem(style._RC, "axes.labelsize", 10.5)
    ours = draw(name, views, tmp_path)
    stored = plot_ink.load(GOLDEN / f"{name}.png", len(ours))
    assert plot_ink.difference(ours, stored) < plot_ink.ALLOWED


def remove_line(panel: int, line: int) -> Callable[[Any], None]:
    """A change of a figure: one curve of one panel is gone."""

    def change(figure: Any) -> None:
        figure.axes[panel].lines[line].remove()

    return change


@pytest.mark.parametrize(
    ("name", "panel", "line"),
    [
        ("spectra", 0, 0),  # a receiver
        ("spectra", 1, 5),  # one of the single pixels
        ("spectra", 2, 1),  # T_sys of a receiver
        ("spectra", 3, 0),  # transmission of the signal sideband
        ("waterfall", 1, 0),
        ("loads", 0, 1),  # COLD
        ("loads", 1, 0),  # T_rec
        ("fold", 1, 0),
        ("night", 0, 0),  # PWV
        ("pointing", 0, 2),  # the fit of a drift
        ("focus", 2, 0),  # the residual
    ],
)
def test_a_missing_curve_is_seen(
    name: str, panel: int, line: int, views: list[ScanView], tmp_path: Path
) -> None:
    ours = draw(name, views, tmp_path, remove_line(panel, line))
    stored = plot_ink.load(GOLDEN / f"{name}.png", len(ours))
    assert plot_ink.difference(ours, stored) > plot_ink.ALLOWED


def test_a_shifted_curve_is_seen(views: list[ScanView], tmp_path: Path) -> None:
    def shift(figure: Any) -> None:
        line = figure.axes[0].lines[0]
        line.set_xdata(np.asarray(line.get_xdata()) + 0.02)

    ours = draw("spectra", views, tmp_path, shift)
    stored = plot_ink.load(GOLDEN / "spectra.png", len(ours))
    assert plot_ink.difference(ours, stored) > plot_ink.ALLOWED


def test_pages_of_a_large_array(tmp_path: Path) -> None:
    fits = pointing().fits * 20
    titles = []
    with plot_ink.figures_drawn(lambda figure: titles.append(figure.get_suptitle())):
        files = plot_fits(PointingResult(valid=True, fits=fits), tmp_path / "p.png", "pointing")
    assert [f.name for f in files] == [f"p_{page}.png" for page in (1, 2, 3, 4)]
    assert titles[0] == "pointing   first 24 of 40 fits"


def test_words_of_a_fit(tmp_path: Path) -> None:
    texts: list[str] = []

    def collect(figure: Any) -> None:
        texts.extend(t.get_text() for axes in figure.axes for t in axes.texts)
        texts.append(figure.get_suptitle())

    with plot_ink.figures_drawn(collect):
        plot_fits(FITS["focus"](), tmp_path / "f.png", "scan 13   focus")
        plot_fits(pointing(), tmp_path / "p.png", "scan 12   pointing")
    said = " ".join(" ".join(texts).split())
    assert "INVALID: best focus 3.1 mm lies outside the scanned range -2 to 2 mm" in said
    assert "INVALID: no valid fit" in said
    assert "offset 4.20 ± 0.31 arcsec" in said
