"""The subscans of a stored night in the order in which they were observed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpucal.errors import GpucalError, OnlineError
from gpucal.io.l0.nodes import decoded_node
from gpucal.io.l0.schema import COUNTS
from gpucal.io.l0.store import L0Store
from gpucal.online.queue.events import Group

DAY_S = 86400.0


@dataclass(frozen=True)
class Step:
    """One subscan of a stored night; ``end``: MJD at which it was over."""

    end: float
    scan: int
    group: Group
    subscan: int
    last: bool
    cancelled: bool


def plan_replay(store: L0Store, scans: frozenset[int] | None = None) -> list[Step]:
    """All subscans of the chosen scans in the order in which they ended.

    Raises OnlineError for a scan that cannot be followed: no times, no counts.
    """
    steps: list[Step] = []
    for number in store.numbers():
        if scans is None or number in scans:
            steps += _steps_of(store, number)
    return sorted(steps, key=lambda s: (s.end, s.scan, s.group == "source", s.subscan))


def _steps_of(store: L0Store, number: int) -> list[Step]:
    """The subscans of one scan; a subscan of several bands has ended when the last of them has."""
    scan = store.scan_group(number)
    attrs = dict(scan.attrs)
    ends: dict[tuple[Group, int], float] = {}
    bands = ["", *(name for name, _ in scan.groups() if name.startswith("band_"))]
    try:
        for band in bands:
            groups: tuple[Group, ...] = ("source", "calibration")
            for group in groups:
                node = scan.get(f"{band}/{group}".lstrip("/"))
                if node is not None:
                    for s, end in enumerate(_ends(node)):
                        ends[group, s] = max(end, ends.get((group, s), -np.inf))
    except GpucalError as error:
        raise OnlineError(error.message, hint=error.hint, scan=number) from error
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise OnlineError(f"its times cannot be read: {error}.", scan=number) from error
    if not ends:
        raise OnlineError("it holds no subscan.", scan=number)
    last = max(ends, key=lambda key: (key[0] == "source", key[1]))
    planned = int(attrs.get("n_subscans_planned") or 0)
    cut_short = attrs.get("complete") is False or planned > last[1] + 1
    return [
        Step(end, number, group, s, (group, s) == last, (group, s) == last and cut_short)
        for (group, s), end in ends.items()
    ]


def _ends(group: Any) -> list[float]:
    """MJD of the end of each subscan; a missing time follows the one before."""
    mjd, exposure = (
        np.asarray(decoded_node(name, group[name])[0], dtype=np.float64)
        for name in ("mjd", "exptime")
    )
    dumps, subscans = group[COUNTS].shape[1], group[COUNTS].shape[4]
    if mjd.ndim == 1:
        exposure = exposure if exposure.ndim == 1 else np.nanmax(exposure, axis=0)
        end = mjd + 0.5 * dumps * exposure / DAY_S
    else:
        end = np.nanmax(mjd + 0.5 * exposure / DAY_S, axis=0)
    if end.shape != (subscans,) or not np.isfinite(end).any():
        raise ValueError(f"mjd has shape {mjd.shape} for {subscans} subscans")
    return [float(v) for v in np.where(np.isfinite(end), end, np.nanmax(end))]
