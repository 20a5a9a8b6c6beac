"""Small L1 stores written with plain Zarr calls, after the formats page alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

AXES = ["channel", "dump", "receiver", "array", "subscan"]


def hexagon(pixels: int, step_deg: float = 20.0 / 3600.0) -> np.ndarray:
    """Offsets [A,2] in deg of a hexagonal array, from the middle outwards."""
    grid = [
        (step_deg * (i + 0.5 * j), step_deg * j * np.sqrt(0.75))
        for i in range(-12, 13)
        for j in range(-12, 13)
    ]
    grid.sort(key=lambda p: (round(np.hypot(*p), 9), round(np.arctan2(p[1], p[0]), 9)))
    return np.array(grid[:pixels])


def write_l1(
    path: Path,
    numbers: Sequence[int] = (25650,),
    shape: tuple[int, ...] = (256, 6, 2, 7, 3),
    *,
    bands: Sequence[str] = ("",),
    pwv: str | float = "full",
    dead_pixel: int | None = None,
    own_axes: bool = False,
    offsets: bool = True,
    seed: int = 1,
) -> Path:
    """Write a store with a line, a T_sys slope and noise; ``shape`` is [C,D,R,A,S]."""
    root = zarr.open_group(path, mode="w", zarr_format=3)
    root.attrs.update({"format": "gpucal-l1", "format_version": 1, "telescope": "TEST"})
    for n, number in enumerate(numbers):
        scan = root.create_group(f"scan_{number:06d}")
        for b, band in enumerate(bands):
            group = scan.create_group(band) if band else scan
            _write_band(
                group, shape, number, b, n, (pwv, dead_pixel, own_axes, offsets), seed + 10 * n + b
            )
    return path


def _put(
    group: Any, name: str, values: Any, dims: Sequence[str], chunks: tuple[int, ...] | None = None
) -> None:
    values = np.asarray(values)
    array = group.create_array(
        name,
        shape=values.shape,
        dtype=values.dtype,
        chunks=chunks or tuple(max(1, n) for n in values.shape),
        dimension_names=dims,
    )
    array[...] = values


def _write_band(
    group: Any,
    shape: tuple[int, ...],
    number: int,
    band: int,
    order: int,
    options: tuple[Any, int | None, bool, bool],
    seed: int,
) -> None:
    c, d, r, a, s = shape
    pwv, dead, own_axes, offsets = options
    rng = np.random.default_rng(seed)
    width = 0.5e9 / c
    start = 460.6e9 + 2e9 * band
    frequency = start + np.arange(c) * width
    x = np.linspace(-1, 1, c)
    t_rec = (
        90.0 + 25 * x[:, None, None] ** 2 + rng.normal(0, 8, (1, r, a)) + 20 * np.arange(r)[:, None]
    )
    tau = 0.6 + 0.25 * np.exp(-(((x - 0.6) / 0.1) ** 2)) + 0.02 * order
    elevation = np.radians(55.0 - 0.4 * order)
    t_sky = 250.0 * (1 - np.exp(-tau / np.sin(elevation)))
    t_sys = np.repeat((t_rec + t_sky[:, None, None])[..., None], s, axis=3)
    noise = t_sys[:, None] / np.sqrt(width * 2.0)
    line = 4.0 * np.exp(-0.5 * ((x + 0.2) / 0.02) ** 2)
    beam = np.exp(-0.1 * np.arange(a))
    spectra = line[:, None, None, None, None] * beam[:, None] + rng.normal(0, 1, shape) * noise
    flags = np.zeros(shape, np.uint16)
    spectra[: max(1, c // 50)] = np.nan
    flags[: max(1, c // 50)] = 1
    if dead is not None:
        spectra[:, :, :, dead] = np.nan
        t_rec[:, :, dead] = np.nan
        t_sys[:, :, dead] = np.nan
        flags[:, :, :, dead] = 1
    frequency_dims = ["channel"]
    if own_axes:
        frequency = frequency[:, None] + 3e9 * np.arange(r)
        frequency_dims = ["channel", "receiver"]
    chunks = (max(1, c // 2), d, r, a, 1)
    _put(group, "spectra", spectra, AXES, chunks)
    _put(group, "flags", flags, AXES, chunks)
    _put(group, "t_sys", t_sys, ["channel", "receiver", "array", "subscan"])
    _put(group, "t_rec", t_rec, AXES[:1] + AXES[2:4])
    _put(group, "gamma", t_rec * 0 + 240.0, AXES[:1] + AXES[2:4])
    _put(group, "tau_signal", tau, ["channel"])
    _put(group, "tau_image", tau[::-1], ["channel"])
    _put(group, "frequency", frequency, frequency_dims)
    _put(group, "image_frequency", start - 12e9 - np.arange(c) * width, ["channel"])
    mjd = 61042.21 + 0.012 * order + (np.arange(s) + (np.arange(d)[:, None] / max(d, 1))) / 4000.0
    per_dump = ["dump", "subscan"]
    _put(group, "mjd", mjd, per_dump)
    _put(group, "exptime", np.full((d, s), 2.0), per_dump)
    _put(group, "elevation", np.full((d, s), elevation), per_dump)
    _put(group, "azimuth", np.full((d, s), 1.0), per_dump)
    if offsets:
        place = hexagon(a)
        for i, name in enumerate(("pixel_offset_lon", "pixel_offset_lat")):
            values = np.broadcast_to(place[:, i][None, :, None], (r, a, s))
            _put(group, name, values.copy(), ["receiver", "array", "subscan"])
    for name, value in (
        ("pwv", 0.62 + 0.03 * np.sin(order)),
        ("pwv_error", 0.012),
        ("pwv_chi2", 1.1),
    ):
        if pwv == "none":
            value = np.nan
        shapes = {"per-pixel": ((r, a), AXES[2:4]), "per-pair": ((s,), AXES[4:])}
        size, dims = shapes.get(pwv, ((), []))
        _put(group, name, np.full(size, value) + 0.003 * rng.normal(size=size), dims)
    _put(group, "on_index", 2 * np.arange(s, dtype=np.int32) + 1, ["subscan"])
    _put(group, "off_index_per_on", 2 * np.arange(s, dtype=np.int32), ["subscan"])
    ratio: Any = rng.normal(1.02, 0.03, (r, a))
    ratio = [["NaN" if dead == j else float(ratio[i, j]) for j in range(a)] for i in range(r)]
    group.attrs.update(
        {
            "mode": "tp",
            "scan_number": number,
            "source": "DR21",
            "qa": {
                "t_rec_median": float(np.nanmedian(t_rec)),
                "t_sys_median": float(np.nanmedian(t_sys)),
                "pwv": None if pwv == "none" else 0.62,
                "chi2_dof": 1.1,
                "bad_channel_fraction": 0.02,
                "nan_fraction": 0.02,
                "flagged_fraction": 0.02 + 0.01 * (order % 3),
                "rms_measured": ratio,
                "rms_expected": ratio,
                "rms_ratio": ratio,
                "baseline_ripple": ratio,
            },
        }
    )
