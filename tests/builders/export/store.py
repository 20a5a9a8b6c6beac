"""A small L1 store that knows everything an export wants to know, and its truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from builders.synthetic_l1 import write_l1

SITE = {"lat_deg": -22.98571, "lon_deg": -67.74028, "alt_m": 5611.8}
F_EFF, GAIN_IMAGE, REST = 0.95, 0.25, 460.8e9
SHAPE = (96, 4, 2, 3, 2)
SPIKE, CAL_STALE = 1 << 2, 1 << 11
ATTRS = {
    "source": "DR 21(OH)",
    "line": "CO(4-3)",
    "rest_freq_hz": REST,
    "velocity_source_kms": -3.0,
    "forward_efficiency": F_EFF,
    "gain_signal": 1.0 / (1.0 + GAIN_IMAGE),
    "t_hot_k": [293.0, 295.0],
    "t_cold_k": [77.0],
    "project": "P-17",
    "config": {"airmass": "plane"},
    "scan_metadata": {"TAMBIENT": 268.5, "PRESSURE": 392.0, "OBSERVER": "N. N."},
}


@dataclass(frozen=True, eq=False)
class Truth:
    """The arrays of one band as written: spectra [C,D,R,A,S] with unusable samples NaN, and so on."""

    spectra: np.ndarray
    t_sys_star: np.ndarray
    arrays: dict[str, np.ndarray]


def make_store(
    folder: Path,
    name: str = "l1.zarr",
    *,
    shape: tuple[int, ...] = SHAPE,
    chunks: tuple[int, ...] | None = None,
    **options: Any,
) -> Path:
    """Write a store whose T_sys differs between pixels and subscans, with flags of several kinds."""
    path = write_l1(folder / name, (7, 12), shape, **options)
    root: Any = zarr.open_group(path, mode="r+")
    root.attrs.update({"telescope": "CCAT-FYST", "instrument": "CHAI", "site": SITE})
    for number in (7, 12):
        scan = root[f"scan_{number:06d}"]
        for band in options.get("bands", ("",)):
            group = scan[band] if band else scan
            group.attrs.update(ATTRS)
            _spoil(group, shape)
            if chunks:
                _rechunk(group, chunks)
    return path


def _spoil(group: Any, shape: tuple[int, ...]) -> None:
    c, d, r, a, s = shape
    t_sys, flags, spectra = (group[n][...] for n in ("t_sys", "flags", "spectra"))
    t_sys *= (1.0 + np.arange(s)) * (1.0 + 0.1 * np.arange(a))[:, None]
    flags[c // 2, 0, 0, 0, 0] |= SPIKE
    spectra[c // 2, 0, 0, 0, 0] = 1e6
    flags[:, 1] |= CAL_STALE
    spectra[:, d - 1, r - 1, a - 1, 0] = np.nan  # one dump of one pixel is lost
    exptime = group["exptime"][...] * (1.0 + np.arange(d))[:, None]
    elevation = group["elevation"][...] + 0.01 * np.arange(s)
    otf = 0.01 * np.arange(d)[:, None] + np.zeros(s)
    for name, values in (
        ("t_sys", t_sys),
        ("flags", flags),
        ("spectra", spectra),
        ("exptime", exptime),
        ("elevation", elevation),
    ):
        group[name][...] = values
    group["t_sys"].attrs["t_sys_convention"] = "DSB"
    for name, values in (("otf_lon", otf), ("otf_lat", -otf)):
        array = group.create_array(
            name, shape=values.shape, dtype="f8", dimension_names=["dump", "subscan"]
        )
        array[...] = values


def _rechunk(group: Any, chunks: tuple[int, ...]) -> None:
    for name in ("spectra", "flags"):
        old = group[name]
        values, dims = old[...], old.metadata.dimension_names
        del group[name]
        made = group.create_array(
            name, shape=values.shape, dtype=values.dtype, chunks=chunks, dimension_names=dims
        )
        made[...] = values


def truth(path: Path, number: int = 7, band: str = "") -> Truth:
    """What must come out, computed plainly from the arrays."""
    group: Any = zarr.open_group(path, mode="r")[f"scan_{number:06d}/{band}".rstrip("/")]
    arrays = {name: array[...] for name, array in group.arrays()}
    spectra = np.where(arrays["flags"] & SPIKE, np.nan, arrays["spectra"])
    transmission = np.exp(-arrays["tau_signal"][:, None] / np.sin(arrays["elevation"].mean(axis=0)))
    star = arrays["t_sys"] * (1 + GAIN_IMAGE) / F_EFF / transmission[:, None, None, :]
    return Truth(spectra, np.median(star, axis=0), arrays)
