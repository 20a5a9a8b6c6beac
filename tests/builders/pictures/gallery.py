"""Draw every kind of picture of every hard case: python tests/builders/pictures/gallery.py OUT [CASE..].

Needs tests/ on PYTHONPATH. With a case or more, only these.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from builders.pictures.gallery_stores import REST_HZ, SHAPES, gallery_look, gallery_views
from builders.pictures.plot_scenes import FITS, load_scan, unfolded
from gpucal import GpucalError, Spectrum, plot_fits, write_class
from gpucal.online.looks.drawing import draw_look
from gpucal.plot.array import plot_array
from gpucal.plot.binning import read_binned
from gpucal.plot.class_spectra import plot_class
from gpucal.plot.fold import plot_fold
from gpucal.plot.loads import plot_loads
from gpucal.plot.sky_map import Window, plot_map
from gpucal.plot.source import ScanView
from gpucal.plot.spectra import plot_spectra
from gpucal.plot.trend import plot_night
from gpucal.plot.waterfall import central_pixel, plot_waterfall

Drawer = Callable[[list[ScanView], Path], Any]


def _binned(views: list[ScanView]) -> Any:
    return read_binned(views[0], central_pixel(views[0]))


def _fold(views: list[ScanView], path: Path) -> None:
    binned = _binned(views)
    plot_fold(views[0], binned, unfolded(binned), np.array([1e7, -1e7]), path)


def _map(views: list[ScanView], path: Path) -> None:
    try:
        plot_map(views[0], path, Window(0, views[0].shape[0], "channels"), 15.0)
    except GpucalError as error:  # a scan without data has no map, and plot_store says so
        print(f"  no map: {error}")


def _fits(name: str) -> Drawer:
    def draw(views: list[ScanView], path: Path) -> None:
        """As many fits as the case has pixels."""
        result: Any = FITS[name]()
        r, a = views[0].shape[2:4]
        places = [(i, j) for i in range(r) for j in range(a)]
        fits = [replace(fit, receiver=i, pixel=j) for i, j in places[:6] for fit in result.fits[:1]]
        plot_fits(replace(result, fits=tuple(fits)), path, f"{views[0].label}   {name}")

    return draw


def _class(views: list[ScanView], path: Path) -> None:
    spectra = np.asarray(views[0].arrays["spectra"][...])[:, 0, 0, :, 0]
    frequency = np.asarray(views[0].arrays["frequency"][...])
    step = float(frequency[1] - frequency[0]) if frequency.size > 1 else 1e6
    rows = [
        Spectrum(
            values=spectra[:, pixel],
            frequency=float(frequency[0]),
            frequency_step=step,
            ref_channel=0.0,
            rest_frequency=REST_HZ,
            velocity=0.0,
            site_velocity=0.0,
            source="DR21",
            line="CO(4-3)",
            telescope="TEST",
            instrument="TEST",
            scan=views[0].number,
            pixel=pixel,
            receiver=0,
            exptime=10.0,
            t_sys=200.0,
            f_eff=0.95,
        )
        for pixel in range(min(4, spectra.shape[1]))
    ]
    file = path.with_suffix(".30m")
    file.unlink(missing_ok=True)
    write_class(file, rows)
    (drawn,) = plot_class(file, path.parent, views[0].number)
    drawn.rename(path)
    file.unlink()


DRAWERS: dict[str, Drawer] = {
    "spectra": lambda v, p: plot_spectra(v[0], _binned(v), p),
    "array": lambda v, p: plot_array(v[0], _binned(v), p),
    "waterfall": lambda v, p: plot_waterfall(v[0], _binned(v), p),
    "map": _map,
    "loads": lambda v, p: plot_loads(v[0], _binned(v), load_scan(v[0]), p),
    "fold": _fold,
    "night": lambda v, p: plot_night(v, p, "night", {(3, ""): 4.0, (4, ""): 21.0}),
    "look_K": lambda v, p: draw_look(gallery_look(v[0], "K"), p),
    "look_counts": lambda v, p: draw_look(gallery_look(v[0], "counts"), p),
    "class": _class,
    **{name: _fits(name) for name in sorted(FITS)},
}


def main(arguments: list[str]) -> int:
    """Write OUT/KIND_CASE.png for all kinds and cases."""
    out = Path(arguments[0])
    out.mkdir(parents=True, exist_ok=True)
    for case in arguments[1:] or SHAPES:
        views = gallery_views(case, out / "stores")
        for kind, draw in DRAWERS.items():
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                draw(views, out / f"{kind}_{case}.png")
            for warning in said:
                print(f"  {kind} {case}: {warning.message}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
