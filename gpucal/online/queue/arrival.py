"""What a job announces may come after it: what of it is still awaited, and for how long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from gpucal.errors import EmptyScanError, GpucalError, OnlineError
from gpucal.io.chunks.zarr_metadata import scan_name
from gpucal.io.l0.store import L0Store, open_l0
from gpucal.online.queue.events import END, Job
from gpucal.scan import Scan

BAND_WAIT_S = 60.0
"""A band that is late holds up the others of its scan for so long."""


class NotThereYetError(OnlineError):
    """What a job announces is not in the store yet; it may still come."""


def store_of(job: Job) -> L0Store:
    """The store of a job; raises NotThereYetError when store or scan is not there yet."""
    if not Path(job.store).exists():
        raise NotThereYetError(f"the store {job.store} is not there.", scan=job.scan)
    if _begun(Path(job.store)):
        raise NotThereYetError(f"the store {job.store} is being made.", scan=job.scan)
    store = open_l0(job.store)
    if job.scan not in store:
        raise NotThereYetError(f"the scan is not in {job.store}.", scan=job.scan)
    folder = scan_folder(job.store, job.scan)
    places = (folder.glob(f"{bands}*/data_5d") for bands in ("", "band_*/"))
    if _begun(folder) or (folder.is_dir() and not any(map(any, places))):
        raise NotThereYetError(f"the scan holds no counts in {job.store}.", scan=job.scan)
    return store


def require_subscan(job: Job, bands: Sequence[Scan]) -> None:
    """Raise NotThereYetError when no band holds the subscan of a job."""
    if job.subscan == END:
        return
    there = max((_count(scan, job.group) for scan in bands), default=0)
    if job.subscan >= there:
        raise NotThereYetError(
            f"subscan {job.subscan} of {job.group}/ is not in the store, it holds {there}.",
            scan=job.scan,
        )


def late_bands(
    job: Job, bands: Sequence[Scan], broken: Mapping[str, GpucalError]
) -> tuple[str, ...]:
    """The bands that do not hold yet what others of the scan hold: the job's subscan, or (END) all subscans.

    Bands without loads are nothing to wait for; one that cannot be read is broken, not late.
    """
    late = [band for band, error in broken.items() if isinstance(error, EmptyScanError)]
    counts = {scan.band: _count(scan, job.group) for scan in bands}
    most = max(counts.values(), default=0)
    wanted = most if job.subscan == END else job.subscan + 1
    for band, n in counts.items():
        if n < wanted <= most and (n or job.group == "source"):
            late.append(band)
    return tuple(sorted(late))


def scan_folder(store: str, scan: int) -> Path:
    """The folder of a scan in a store, which may write its number with other zeros than we do."""
    usual = Path(store) / scan_name(scan)
    if usual.is_dir():
        return usual
    others = (p for p in Path(store).glob("scan_*") if p.name[5:].isdigit())
    return next((p for p in others if int(p.name[5:]) == scan), usual)


def _begun(folder: Path) -> bool:
    """Whether a folder is there, and does not say yet that it is a Zarr group."""
    documents = ("zarr.json", ".zgroup")
    return folder.is_dir() and not any((folder / name).exists() for name in documents)


def _count(scan: Scan, group: str) -> int:
    """Subscans of a group of a band; 0 where it has no such group."""
    found = scan.source if group == "source" else scan.calibration
    return found.shape[4] if found is not None else 0
