"""Raw stores written with plain Zarr calls, after the page about L0 alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

LEVELS = {"HOT": 3000, "COLD": 1500, "OFF": 2000, "ON": 2050}


def new_night(path: Path) -> tuple[Path, zarr.Group]:
    """An empty store and its root."""
    path.parent.mkdir(parents=True, exist_ok=True)
    root = zarr.open_group(path, mode="w", zarr_format=3)
    root.attrs.update({"format": "gpucal-l0", "format_version": 1, "telescope": "TEST"})
    return path, root


def put(group: Any, name: str, values: Any, dtype: Any = np.float64) -> None:
    """Write one array."""
    values = np.asarray(values, dtype=dtype)
    group.create_array(name, shape=values.shape, dtype=dtype)[...] = values


def write_group(group: Any, modes: Sequence[str], mjd: float) -> None:
    """source/ or calibration/ of 8 channels, 2 dumps, 1 receiver, 2 pixels, one subscan each 10 s."""
    s = len(modes)
    levels = np.array([LEVELS[mode] for mode in modes])
    put(group, "data_5d", np.broadcast_to(levels, (8, 2, 1, 2, s)), np.int32)
    group.attrs["sobsmode"] = list(modes)
    put(group, "mjd", mjd + np.arange(s) / 8640.0)
    rows = {"exptime": 1.0, "elevation": 0.9, "azimuth": 1.0, "pamb": 400.0, "tamb": 270.0}
    rows |= {"signal_freq": 460e9, "image_freq": 448e9, "freq_res": 1e6, "ref_channel": 0.0}
    if "HOT" in modes:
        rows |= {"thot": 290.0, "tcold": 77.0}
    for name, value in rows.items():
        put(group, name, np.full(s, value))


def add_scan(
    root: zarr.Group,
    number: int,
    *,
    cal: Sequence[str] = (),
    source: Sequence[str] = (),
    mjd: float = 60000.0,
) -> zarr.Group:
    """A scan with loads, with subscans on the sky, or both."""
    scan = root.create_group(f"scan_{number:06d}")
    scan.attrs.update({"scan_number": number, "source": "DR21", "complete": True})
    scan.attrs.update({"f_eff": 0.95, "gain_image": 1.0})
    if cal:
        write_group(scan.create_group("calibration"), cal, mjd)
    if source:
        write_group(scan.create_group("source"), source, mjd)
    return scan
