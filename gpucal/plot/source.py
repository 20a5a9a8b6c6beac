"""The scans of an L1 store, in the form that the pictures need.

Shapes: C channels, D dumps, R receivers, A pixels, S ON subscans.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.errors import L1Error, L1KeyError
from gpucal.io.l1.memory_scan import MemoryScan
from gpucal.io.l1.reader import L1Scan, open_l1
from gpucal.plot.style import T_SYS, T_SYS_STAR
from gpucal.scan_numbers import counted_scans, runs_of

F64 = npt.NDArray[np.float64]
MJD_EPOCH = datetime.datetime(1858, 11, 17)


@dataclass(frozen=True, eq=False)
class ScanView:
    """One scan and band of an L1 store; ``arrays`` gives its arrays by name, lazy ones of Zarr from a store.

    ``store_attrs`` are the attributes of the store: telescope, instrument.
    """

    number: int
    band: str
    attrs: Mapping[str, Any]
    arrays: L1Scan | MemoryScan
    store_attrs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"scan {self.number}" + (f" {self.band}" if self.band else "")

    @property
    def stem(self) -> str:
        """Beginning of the names of the pictures."""
        return f"scan_{self.number:06d}" + (f"_{self.band}" if self.band else "")

    @property
    def title(self) -> str:
        """Label, source, line, mode, date and telescope, as far as they are known."""
        named = [str(self.attrs.get(name, "")) for name in ("source", "line", "mode")]
        where = str(self.store_attrs.get("telescope", ""))
        parts = [self.label, *named, self.date, where]
        return "   ".join(part.strip() for part in parts if part.strip())

    @property
    def date(self) -> str:
        """Middle of the scan, "2025-11-21 03:01 UTC"; "" when it is not known."""
        times = self.per_subscan("mjd")
        if not np.isfinite(times).any():
            return ""
        when = MJD_EPOCH + datetime.timedelta(days=float(np.nanmean(times)))
        return f"{when:%Y-%m-%d %H:%M} UTC"

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        c, d, r, a, s = self.arrays["spectra"].shape
        return int(c), int(d), int(r), int(a), int(s)

    def small(self, name: str) -> F64 | None:
        """A whole small array as f64, None when the store does not have it."""
        if name not in self.arrays:
            return None
        return np.asarray(self.arrays[name][...], dtype=np.float64)

    def quality(self, name: str) -> F64:
        """A QA attribute as f64, any shape; 0-d NaN when it is missing."""
        value = (self.attrs.get("qa") or {}).get(name)
        # Attributes are JSON: a NaN is written as the text "NaN", a missing value as null.
        return np.asarray(np.nan if value is None else value, dtype=object).astype(np.float64)

    def per_subscan(self, name: str) -> F64:
        """An array [D,S] or [S] as f64 [D,S]; NaN when it is missing."""
        _, dumps, _, _, subscans = self.shape
        values = self.small(name)
        if values is None:
            return np.full((dumps, subscans), np.nan)
        return np.array(np.broadcast_to(values, (dumps, subscans)))


def t_sys_name(view: ScanView) -> str:
    """What ``t_sys`` of this scan is: T_sys, or T_sys* where it is told so."""
    if "t_sys" not in view.arrays:
        return T_SYS
    star = view.arrays["t_sys"].attrs.get("t_sys_convention", "DSB") != "DSB"
    return T_SYS_STAR if star else T_SYS


def open_views(path: str | Path, scan: int | Collection[int] | None = None) -> list[ScanView]:
    """Return the scans and bands of the store, or those of ``scan`` (one or several), in order.

    Raises L1Error when the path is no L1 store or a scan is not in it.
    """
    store = open_l1(path)
    numbers = list(store.scans())
    wanted = [scan] if isinstance(scan, int) else sorted(numbers if scan is None else scan)
    missing = [n for n in wanted if n not in numbers]
    if missing:
        lacking = ", ".join(runs_of(missing))
        raise L1KeyError(f"{path} has no scan {lacking}.", hint=f"It has {counted_scans(numbers)}.")
    views = []
    for number in numbers if scan is None else wanted:
        for band in store.scan(number).bands or [""]:
            found = store.scan(number, band)
            if "spectra" in found:
                views.append(ScanView(number, band, found.attrs, found, store.attrs))
    if not views:
        raise L1Error(f"{path} holds no calibrated scan.")
    return views


def frequency_axis(view: ScanView, name: str = "frequency") -> F64:
    """Frequency of every channel and receiver, f64 [C,R] Hz."""
    values = view.small(name)
    n_channels, _, receivers, _, _ = view.shape
    if values is None:
        raise L1Error(f"{view.label} has no array {name!r}.")
    return np.array(np.broadcast_to(values.reshape(n_channels, -1), (n_channels, receivers)))
