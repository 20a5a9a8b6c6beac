"""Small L0 groups and stores for the tests of the reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucal import GroupArrays, create_l0, write_l0_scan

SHAPE = (12, 3, 2, 4, 5)
SOURCE_MODES = ("OFF", "ON", "OFF", "ON", "OFF")
MJD0 = 60310.25


def counts(shape: tuple[int, ...], dtype: str = "i4", seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng(seed).integers(1000, 2000, shape).astype(dtype)


def small_arrays(
    shape: tuple[int, ...] = SHAPE, *, calibration: bool = False
) -> dict[str, NDArray[Any]]:
    """Every array of the layout, in its full shape."""
    c, d, r, a, s = shape
    rng = np.random.default_rng(1)
    mid = MJD0 + np.arange(s) * 20.0 / 86400
    arrays = {
        "mjd": mid + (np.arange(d)[:, None] - (d - 1) / 2) * 2.0 / 86400,
        "exptime": np.full((d, s), 2.0, "f4"),
        "elevation": (0.85 + 0.005 * rng.uniform(-1, 1, (d, s))).astype("f4"),
        "azimuth": rng.uniform(-3, 3, (d, s)).astype("f4"),
        "pamb": np.full(s, 390.0, "f4"),
        "tamb": np.full(s, 268.0, "f4"),
        "signal_freq": np.full((r, s), 460e9),
        "image_freq": np.full((r, s), 472e9),
        "freq_res": np.full((r, s), 1e6),
        "ref_channel": np.full((r, s), 6.0, "f4"),
        "lloadsn": np.full(s, 7, "i4"),
        "otf_lon": rng.normal(size=(d, s)),
        "otf_lat": rng.normal(size=(d, s)),
        "pixel_offset_lon": rng.normal(size=(r, a, s)),
        "pixel_offset_lat": rng.normal(size=(r, a, s)),
        "chop_phase": (np.arange(d * s) % 2).reshape(d, s).astype("u1"),
        "freq_throw": np.zeros((r, s)),
    }
    if calibration:
        arrays["thot"] = np.full((r, s), 295.0, "f4")
        arrays["tcold"] = np.full((r, s), 77.0, "f4")
        arrays["load_temp_sig"] = np.full((c, s), 290.0, "f4")
        arrays["load_temp_img"] = np.full((c, s), 291.0, "f4")
    return arrays


def source_group(
    shape: tuple[int, ...] = SHAPE, modes: Sequence[str] = SOURCE_MODES, **changes: Any
) -> GroupArrays:
    return _group(shape, modes, small_arrays(shape), changes)


def calibration_group(
    shape: tuple[int, ...] = (*SHAPE[:4], 2), modes: Sequence[str] = ("HOT", "COLD"), **changes: Any
) -> GroupArrays:
    return _group(shape, modes, small_arrays(shape, calibration=True), changes)


OPTIONAL = (
    *("pamb", "lloadsn", "otf_lon", "otf_lat", "pixel_offset_lon", "pixel_offset_lat"),
    *("chop_phase", "freq_throw", "load_temp_sig", "load_temp_img"),
)


def lean_source(**changes: Any) -> GroupArrays:
    """Few arrays: each costs a test some milliseconds to write."""
    return source_group(**{**dict.fromkeys(OPTIONAL), **changes})


def lean_calibration(**changes: Any) -> GroupArrays:
    return calibration_group(**{**dict.fromkeys(OPTIONAL), **changes})


def _group(
    shape: tuple[int, ...],
    modes: Sequence[str],
    arrays: Mapping[str, NDArray[Any]],
    changes: dict[str, Any],
) -> GroupArrays:
    """``changes``: arrays by name; None takes one away."""
    data = changes.pop("data_5d", None)
    merged = {**arrays, **changes}
    kept = {name: np.asarray(v) for name, v in merged.items() if v is not None}
    return GroupArrays(counts(shape) if data is None else data, list(modes), kept)


def new_store(path: Path, **attrs: Any) -> Path:
    site = {"lat_deg": -22.98, "lon_deg": -67.74, "alt_m": 5612.0}
    create_l0(path, telescope="FYST", site=site, instrument="CHAI", **attrs)
    return path


def write_scan(
    path: Path,
    number: int = 25650,
    source: GroupArrays | None = None,
    calibration: GroupArrays | None = None,
    attrs: Mapping[str, Any] | None = None,
    **options: Any,
) -> None:
    groups = {"source": source or lean_source(), "calibration": calibration or lean_calibration()}
    write_l0_scan(
        path,
        number,
        attrs={"f_eff": 0.95, "gain_image": 1.0, **(attrs or {})},
        groups={"": groups},
        **options,
    )
