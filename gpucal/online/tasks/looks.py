"""What a quick look shows: small numbers and curves of a few subscans, calibrated or not.

A look is computed by the calibration task, saved, and read by the tasks after it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from gpucal.axes import FILL_INT32
from gpucal.errors import OnlineError
from gpucal.pipeline.scan.averaging import AveragedScan
from gpucal.scan import SubscanGroup

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BandLook:
    """One band of a look.

    frequency  f64 [C]  Hz, of the first receiver
    spectrum   f64 [C,R,A]  mean over dumps and subscans, in ``unit``
    t_sys, t_rec, rms, rms_expected  f64 [R,A] K, medians over channels; rms of ``spectrum``
    continuum  f64 [D,R,A,S]  mean over channels of each dump
    lon, lat   f64 [D,S] deg;  mjd f64 [D,S];  pixel_lon, pixel_lat f64 [R,A] deg
    """

    band: str
    unit: str
    frequency: F64
    spectrum: F64
    continuum: F64
    lon: F64
    lat: F64
    mjd: F64
    pixel_lon: F64
    pixel_lat: F64
    t_sys: F64
    t_rec: F64
    rms: F64
    rms_expected: F64
    modes: tuple[str, ...] = ()
    pwv: float = float("nan")


@dataclass(frozen=True, eq=False)
class Look:
    """What was looked at, and the bands. kind: "calibrated" or "counts"."""

    scan: int
    subscans: tuple[int, ...]
    kind: str
    group: str = "source"
    source: str = ""
    line: str = ""
    procedure: str = ""
    date_obs: str = ""
    warnings: tuple[str, ...] = ()
    bands: tuple[BandLook, ...] = field(default=())


def calibrated_look(result: AveragedScan) -> BandLook:
    """The look at a scan that was calibrated and averaged."""
    host = result.solution.backend.to_host
    group = result.solution.group
    on = [int(s) for s in result.solution.pairing.on_index]
    quality = result.quality
    return BandLook(
        band=result.solution.scan.band,
        unit="K",
        frequency=np.asarray(host(result.solution.setup.nu_sig), dtype=np.float64)[:, 0],
        spectrum=result.spectrum,
        continuum=result.continuum,
        lon=group.otf_lon[: result.continuum.shape[0], on],
        lat=group.otf_lat[: result.continuum.shape[0], on],
        mjd=group.mjd[: result.continuum.shape[0], on],
        pixel_lon=group.pixel_offset_lon[..., on[0]],
        pixel_lat=group.pixel_offset_lat[..., on[0]],
        t_sys=result.t_sys,
        t_rec=result.t_rec,
        rms=_rms(result.spectrum),
        # that of the mean over the dumps of one subscan; the reference is shared, so this is a lower limit
        rms_expected=np.asarray(quality["rms_expected"]) / np.sqrt(result.continuum.shape[3]),
        modes=tuple(group.sobsmode[s] for s in on),
        pwv=float(quality["pwv"]),
    )


def counts_look(group: SubscanGroup, subscans: Sequence[int], band: str) -> BandLook:
    """The look at raw counts: loads, or data that cannot be calibrated yet. Fill values are left out."""
    c, d, r, a, _ = group.shape
    continuum = np.full((d, r, a, len(subscans)), np.nan)
    total, seen = np.zeros((c, r, a)), np.zeros((c, r, a))
    for i, s in enumerate(subscans):
        block = group.counts.read(0, c, s)
        good = block != FILL_INT32 if block.dtype.kind == "i" else np.isfinite(block)
        values = np.where(good, block, 0).astype(np.float64)
        total += values.sum(axis=1)
        seen += good.sum(axis=1)
        n = good.sum(axis=0)
        continuum[..., i] = np.where(n > 0, values.sum(axis=0) / np.maximum(n, 1), np.nan)
    spectrum = np.where(seen > 0, total / np.maximum(seen, 1), np.nan)
    places = list(subscans)
    unknown = np.full((r, a), np.nan)
    offset = np.arange(c) - group.ref_channel[0, places[0]]
    return BandLook(
        band=band,
        unit="counts",
        frequency=group.signal_freq[0, places[0]] + offset * group.freq_res[0, places[0]],
        spectrum=spectrum,
        continuum=continuum,
        lon=group.otf_lon[:, places],
        lat=group.otf_lat[:, places],
        mjd=group.mjd[:, places],
        pixel_lon=group.pixel_offset_lon[..., places[0]],
        pixel_lat=group.pixel_offset_lat[..., places[0]],
        t_sys=unknown,
        t_rec=unknown,
        rms=unknown,
        rms_expected=unknown,
        modes=tuple(group.sobsmode[s] for s in places),
    )


def save_look(look: Look, path: Path) -> None:
    """Write a look beside its place and rename it there."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    plain: list[dict[str, Any]] = []
    for i, band in enumerate(look.bands):
        values = {f.name: getattr(band, f.name) for f in fields(BandLook)}
        arrays |= {f"{i}.{k}": v for k, v in values.items() if isinstance(v, np.ndarray)}
        plain.append({k: v for k, v in values.items() if not isinstance(v, np.ndarray)})
    head = {k: v for k, v in vars(look).items() if k != "bands"}
    text = json.dumps({**head, "bands": plain})
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.new")
    with open(aside, "wb") as file:
        np.savez(file, head=np.array(text), **arrays)  # type: ignore[arg-type]
    os.replace(aside, path)


def load_look(path: Path) -> Look:
    """Read a look; raises OnlineError when it is not there or not whole."""
    try:
        with open(path, "rb") as file, np.load(file) as stored:
            head = json.loads(str(stored["head"]))
            arrays = {name: stored[name] for name in stored.files if name != "head"}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise OnlineError(f"the look {path.name} cannot be read: {error}.") from error
    bands = []
    for i, plain in enumerate(head.pop("bands")):
        own = {k.partition(".")[2]: v for k, v in arrays.items() if k.startswith(f"{i}.")}
        bands.append(BandLook(**{**plain, **own, "modes": tuple(plain["modes"])}))
    lists = {k: tuple(v) for k, v in head.items() if isinstance(v, list)}
    return Look(**{**head, **lists, "bands": tuple(bands)})


def _rms(spectrum: F64) -> F64:
    """Scatter from differences of neighbouring channels, so that lines do not count; f64 [R,A]."""
    steps = np.diff(spectrum, axis=0)
    good = np.isfinite(steps)
    n = good.sum(axis=0)
    square = np.where(good, steps**2, 0.0).sum(axis=0)
    return np.where(n > 0, np.sqrt(square / np.maximum(n, 1) / 2), np.nan)
