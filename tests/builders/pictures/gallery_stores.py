"""Scans that are hard to draw: many feeds, spikes at the edge of the band, dead or single pixels, no data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr

from builders.synthetic_l1 import write_l1
from gpucal.online.looks.look import BandLook, Look
from gpucal.plot.source import ScanView, open_views

REST_HZ = 460.8e9
SHAPES: dict[str, tuple[int, int, int, int, int]] = {
    "feeds_16": (1024, 6, 1, 16, 1),
    "pixels_64": (256, 4, 1, 64, 3),
    "edge_spikes": (512, 6, 2, 7, 3),
    "dead_pixel": (512, 6, 2, 7, 3),
    "one_pixel": (256, 6, 1, 1, 3),
    "one_channel": (1, 6, 1, 7, 3),
    "all_nan": (256, 6, 1, 7, 3),
    "negative_step": (512, 6, 1, 7, 3),
}
SPIKE_K = 10.0


def feeds_of_a_nod() -> np.ndarray:
    """Offsets [16,2] in deg of 4 x 4 feeds, turned a little; feed 8 points where feed 10 does."""
    pitch, turn = 30.4, np.deg2rad(3.2)
    x, y = (v.ravel() for v in np.meshgrid(np.arange(4) - 2, np.arange(4) - 1, indexing="ij"))
    lon = pitch * (x * np.cos(turn) - y * np.sin(turn))
    lat = pitch * (x * np.sin(turn) + y * np.cos(turn))
    place = np.stack([lon, lat], axis=1)
    place[8] = place[10] + [-0.0555, 0.0285]
    return np.asarray(place / 3600.0)


def gallery_views(name: str, folder: Path, numbers: tuple[int, ...] = (3, 4)) -> list[ScanView]:
    """The scans of one case, as OTF scans with a line."""
    shape = SHAPES[name]
    path = write_l1(
        folder / f"{name}.zarr", numbers, shape, dead_pixel=2 if name == "dead_pixel" else None
    )
    for number in numbers:
        group: Any = zarr.open_group(path / f"scan_{number:06d}", mode="a")
        group.attrs.update({"mode": "otf", "rest_freq_hz": REST_HZ, "line": "CO(4-3)"})
        _scan_the_sky(group, shape)
        _change(group, name, shape)
    return open_views(path)


def _scan_the_sky(group: Any, shape: tuple[int, ...]) -> None:
    d, s = shape[1], shape[4]
    lon, lat = np.meshgrid(np.linspace(-60, 60, d), np.linspace(-30, 30, s), indexing="ij")
    for axis, values in (("otf_lon", lon), ("otf_lat", lat)):
        array = group.create_array(
            axis, shape=(d, s), dtype="f8", dimension_names=["dump", "subscan"]
        )
        array[...] = values / 3600.0


def _change(group: Any, name: str, shape: tuple[int, ...]) -> None:
    """What makes the case hard."""
    spectra = group["spectra"][...]
    if name == "feeds_16":
        place = feeds_of_a_nod()
        for i, axis in enumerate(("pixel_offset_lon", "pixel_offset_lat")):
            group[axis][...] = place[None, :, i, None]
        group["t_rec"][...] = np.nan  # a vane
        group.attrs["mode"] = "nod"
        group.attrs["nod_beams"] = [[0, 10], [0, 8]]
        group["t_sys"].attrs["t_sys_convention"] = "SSB"
        spike(spectra)
    elif name == "edge_spikes":
        spike(spectra)
        flags = group["flags"][...]
        flags[np.isfinite(spectra)] = 0  # spikes that nobody has flagged yet
        group["flags"][...] = flags
    elif name == "all_nan":
        spectra[:] = np.nan
        for array in ("t_rec", "t_sys"):
            group[array][...] = np.nan
        group.attrs["qa"] = {"flagged_fraction": 1.0}
    elif name == "one_channel":
        spectra[:] = 1.0
    elif name == "negative_step":
        for array in ("frequency", "image_frequency", "tau_signal", "tau_image"):
            group[array][...] = group[array][...][::-1]
        spectra = spectra[::-1]
    group["spectra"][...] = spectra


def spike(spectra: np.ndarray) -> None:
    """Put into [C,...] what real backends have at their edges: spikes and noise that grows."""
    n = spectra.shape[0]
    spectra[: n // 128] = np.nan
    spectra[n // 100] = SPIKE_K
    spectra[n // 80] = -0.3 * SPIKE_K
    edge = spectra[-(n // 64) :]
    edge += np.random.default_rng(8).normal(0, 0.7 * SPIKE_K, edge.shape)


def gallery_look(view: ScanView, unit: str) -> Look:
    """A quick look at a scan: calibrated, or counts of a load with channels that are far too warm."""
    c, _, r, a, s = view.shape
    spectra = np.asarray(view.arrays["spectra"][...])
    good = np.isfinite(spectra)
    count = good.sum(axis=(1, 4))
    total = np.where(good, spectra, 0.0).sum(axis=(1, 4))
    spectrum = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    if unit == "counts":
        x = np.linspace(-1, 1, c)[:, None, None]
        spectrum = 3e5 * (1 - x**8) * (1 + 0.2 * x + 0.02 * np.sin(40 * x)) + 0 * spectrum
        spectrum[:: max(7, c // 8)] *= 30.0
    lon, lat = view.per_subscan("otf_lon"), view.per_subscan("otf_lat")
    seen = good.sum(axis=0)
    continuum = np.where(
        seen > 0, np.where(good, spectra, 0.0).sum(axis=0) / np.maximum(seen, 1), np.nan
    )
    frequency = np.asarray(view.arrays["frequency"][...])
    band = BandLook(
        band=view.band,
        unit=unit,
        frequency=frequency if frequency.ndim == 1 else frequency[:, 0],
        spectrum=spectrum,
        continuum=continuum,
        lon=lon,
        lat=lat,
        mjd=view.per_subscan("mjd"),
        pixel_lon=np.zeros((r, a)),
        pixel_lat=np.zeros((r, a)),
        t_sys=np.full((r, a), 250.0 if unit == "K" else np.nan),
        t_rec=np.full((r, a), 100.0 if unit == "K" else np.nan),
        rms=np.full((r, a), 0.1 if unit == "K" else np.nan),
        rms_expected=np.full((r, a), np.nan),
        modes=("ON",) * s if unit == "K" else ("HOT",),
    )
    kind = "calibrated" if unit == "K" else "counts"
    return Look(view.number, tuple(range(s)), kind, source="DR21", bands=(band,))
