"""Whether a job belongs to the scan that the results hold under its number, or to another one.

A number alone does not say it: a second store of the same project, or the same store made anew, may hold
another scan of that number. Its files and rows must not replace those of the first.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucal.errors import OnlineError
from gpucal.io.l0.store import open_l0
from gpucal.online.queue.events import Job
from gpucal.online.site.context import Context


def claim_number(job: Job, context: Context) -> None:
    """Enter when the scan of a job began; raises OnlineError when its number is that of another scan.

    What began at another time is another scan. A scan that does not say when it began is another one when
    it lies in another store.
    """
    began = _began(job)
    found = context.results.rows("scans", project=job.project, scan=job.scan)
    known = next(iter(found), None)
    if known is None or not (known["store"] or known["date_obs"]):
        row = {"project": job.project, "scan": job.scan, "store": job.store, "date_obs": began}
        context.results.save("scans", [row])
        return
    told = bool(began and known["date_obs"])
    if (began != known["date_obs"]) if told else (job.store != known["store"]):
        raise OnlineError(
            f"project {job.project} has another scan of this number already, begun "
            f"{known['date_obs'] or 'at a time that is not known'} in {known['store']}; this one began "
            f"{began or 'at a time that is not known'} in {job.store}: nothing was replaced.",
            hint="Submit it with --project and another name.",
            scan=job.scan,
        )


def _began(job: Job) -> str:
    """Start of a scan: its date_obs, else the middle of its first subscan, UTC; "" when not known."""
    group = open_l0(job.store).scan_group(job.scan)
    stated = str(dict(group.attrs).get("date_obs") or "")
    if stated:
        return stated
    times = [t for t in (_first_time(group, name) for name in _places(group)) if np.isfinite(t)]
    if not times:
        return ""
    seconds = np.timedelta64(round(min(times) * 86400e3), "ms")
    return str(np.datetime64("1858-11-17T00:00:00", "ms") + seconds)


def _places(group: Any) -> list[str]:
    """The groups of a scan, or of its bands, that may hold times."""
    bands = ["", *(f"{name}/" for name, _ in group.groups() if name.startswith("band_"))]
    return [f"{band}{name}/mjd" for band in bands for name in ("calibration", "source")]


def _first_time(group: Any, place: str) -> float:
    """MJD of the first subscan of a group; NaN when it is not there."""
    array = group.get(place)
    if not hasattr(array, "shape") or not array.size:
        return float("nan")
    return float(np.ravel(np.asarray(array[..., 0], dtype=np.float64))[0])
