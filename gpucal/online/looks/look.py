"""What a quick look shows: small numbers and curves of a few subscans, calibrated or not.

A look is saved by the task that computes it and read by the tasks after it, and by the page.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from gpucal.errors import OnlineError
from gpucal.online.site.whole_files import whole_file

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BandLook:
    """One band of a look.

    frequency  f64 [C]  Hz, of the first receiver
    spectrum   f64 [C,R,A]  mean over dumps and subscans, in ``unit``
    t_sys, t_rec, rms, rms_expected  f64 [R,A] K, medians over channels; rms of ``spectrum``
    t_sys_star f64 [R,A] K, median over channels; t_sys is NaN where a vane gave T_sys* alone
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
    pwv_error: float = float("nan")
    tau: float = float("nan")
    t_sys_star: F64 = field(default_factory=lambda: np.empty((0, 0)))


@dataclass(frozen=True, eq=False)
class Look:
    """A quick look: what was observed, and its bands. kind: "calibrated" or "counts"."""

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

    @property
    def mjd(self) -> float:
        """UTC of the last dump that it shows; NaN where no band knows."""
        times = [float(np.nanmax(b.mjd)) for b in self.bands if np.isfinite(b.mjd).any()]
        return max(times, default=float("nan"))


def save_look(look: Look, path: Path) -> None:
    """Write a look, or replace the one that is there."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    plain: list[dict[str, Any]] = []
    for i, band in enumerate(look.bands):
        values = {f.name: getattr(band, f.name) for f in fields(BandLook)}
        arrays |= {f"{i}.{k}": v for k, v in values.items() if isinstance(v, np.ndarray)}
        plain.append({k: v for k, v in values.items() if not isinstance(v, np.ndarray)})
    head = {k: v for k, v in vars(look).items() if k != "bands"}
    text = json.dumps({**head, "bands": plain})
    with whole_file(path) as file:
        np.savez(file, head=np.array(text), **arrays)  # type: ignore[arg-type]


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
