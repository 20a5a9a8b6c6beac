"""A night of every kind of scan, some of them cancelled, cut short or broken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zarr

from builders import procedure_scans
from builders.night_stores import small_setup
from builders.procedure_scans import DUMPS, Scene, focus, pointing, skydip_loads, write
from gpucal import CalibrationConfig, create_l0
from gpucal.simulate.counts import Recording, ScanCounts
from gpucal.simulate.night import write_scan
from gpucal.simulate.receiver import build_band
from gpucal.simulate.schedule import plan_scan
from gpucal.simulate.sky import synthetic_table

CONFIG = CalibrationConfig(atmosphere="none", tau=0.12, workers=1)
DAY_S = 86400.0
FORTY = [
    "load",
    "pointing",
    "focus",
    "tp",
    "otf",
    "load",
    "otf-open",
    "fsw",
    "wsw",
    "pointing",
    "skydip",
    "load",
    "wsw-chopped",
    "otf",
    "nod",
    "tp",
    "pointing-cancelled",
    "load",
    "otf-cancelled",
    "otf-chopped",
    "focus",
    "broken",
    "load",
    "tp",
    "fsw",
    "otf",
    "pointing",
    "skydip",
    "load",
    "otf",
    "wsw",
    "tp",
    "focus",
    "load",
    "otf-open",
    "fsw",
    "pointing",
    "tp",
    "otf",
    "load",
]
"""What a night is made of. -open: without a closing REF; -cancelled: stopped by the observer."""
SHORT = ["load", "pointing", "otf-open", "pointing-cancelled", "broken", "load"]


@dataclass
class Night:
    """The store and what is in it: scan numbers by kind."""

    path: Path
    scans: dict[int, str] = field(default_factory=dict)

    def of(self, *kinds: str) -> list[int]:
        return [n for n, kind in self.scans.items() if kind in kinds]


def make_online_night(path: Path, kinds: Sequence[str] = FORTY, *, first: int = 101) -> Night:
    """Write the night; counts with noise, small scans."""
    create_l0(path, telescope="TEST", instrument="ROW", site={"lat_deg": 0.0, "alt_m": 3000.0})
    setup = small_setup(separate=True, pixels=2, n_on=3, channels=48)
    table = synthetic_table(setup)
    models = [build_band(setup, i, table, 3) for i in range(len(setup.bands))]
    night = Night(path)
    start, load = 61000.2, -1
    for number, what in enumerate(kinds, first):
        kind, _, ending = what.partition("-") if "wsw" not in what else (what, "", "")
        kind, ending = ("otf-chopped", "") if what == "otf-chopped" else (kind, ending)
        night.scans[number] = what
        if kind in ("pointing", "focus", "skydip"):
            start = _procedure_scan(path, number, kind, ending, start)
            continue
        plain = "tp" if kind == "broken" else kind
        plan = plan_scan(setup, plain, number, start, mjd0=start, lloadsn=load)  # type: ignore[arg-type]
        kept = planned = len(plan.source or plan.calibration)
        if ending:
            kept = planned - (1 if ending == "open" else 2)
        write_scan(path, [ScanCounts(m, i, plan, Recording(seed=3)) for i, m in enumerate(models)])
        scan: Any = zarr.open_group(path / f"scan_{number:06d}", mode="r+")
        scan.attrs["n_subscans_planned"] = kept if ending == "open" else planned
        if kept < planned:
            _cut(scan["source"], kept)
        if ending == "cancelled":
            scan.attrs["complete"] = False
        if kind == "broken":
            scan["source/elevation"][...] = 7.0
        load = number if kind == "load" else load
        start = plan.end + 10 / DAY_S
    return night


def _cut(group: Any, kept: int) -> None:
    """Leave the first subscans of a group only."""
    whole = group["data_5d"].shape[-1]
    for _, array in list(group.arrays()):
        if array.shape[-1] == whole:
            array.resize((*array.shape[:-1], kept))
    group.attrs["sobsmode"] = list(group.attrs["sobsmode"])[:kept]


def _procedure_scan(path: Path, number: int, kind: str, ending: str, start: float) -> float:
    """Add a pointing, focus or skydip at ``start``; returns when the next scan may begin."""
    scene = Scene(lon=3.0, lat=-2.0, noise=1.0, seed=number)
    sources = {
        "pointing": pointing(12.0),
        "focus": focus([5.0, 9.0, 11.0, 9.2, 5.1]),
        "skydip": [],
    }
    source = sources[kind]
    planned = len(source)
    if ending == "cancelled":
        source = source[:3]  # OFF and both drifts in azimuth
    loads = skydip_loads([80, 60, 45, 35, 28, 22]) if kind == "skydip" else skydip_loads([])
    attrs = {"obs_procedure": kind, "n_subscans_planned": planned or len(loads)}
    if kind == "focus":
        attrs["focus_mm"] = [0.0, -2.0, -2.0, -1.0, -1.0, 0.0, 0.0, 1.0, 1.0, 2.0, 2.0]
    if ending == "cancelled":
        attrs["complete"] = False
    kept = procedure_scans.MJD
    procedure_scans.MJD = start
    try:
        write(path, number, source, scene, loads=loads, **attrs)
    finally:
        procedure_scans.MJD = kept
    step = (DUMPS * procedure_scans.EXPTIME + 2.0) / DAY_S
    return (
        start + max(len(loads) * step, 0.003 + len(source) * step if source else 0.0) + 10 / DAY_S
    )
