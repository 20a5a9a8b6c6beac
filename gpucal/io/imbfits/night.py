"""Which files make which scan, the numbers of the scans, and which calibration scan serves which.

Source: docs/reference/imbfits.md, scans; the pairing is that of MRTCAL.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpucal.errors import ImportFormatError
from gpucal.io.imbfits.file import read_file
from gpucal.io.imbfits.modes import PROCEDURES
from gpucal.io.incoming.file_index import FileIndex
from gpucal.io.incoming.protocol import Lost

DAY_STEP = 100_000
"""What is added to the numbers of the scans for each day before: the telescope counts from 1 on every day."""
FACTS = "imbfits/1"
SAME_TUNING = 2e-4
CAL_RULES = ("earlier", "nearest")


@dataclass(frozen=True)
class FileFacts:
    """What planning needs of a file: see ``about``. receivers: (RECNAME, RESTFREQ GHz)."""

    path: Path
    backend: str
    scan: int
    day: str
    mjd: float
    project: str
    is_load: bool
    receivers: tuple[tuple[str, float], ...]


@dataclass(frozen=True, eq=False)
class NightScan:
    """A scan: its number in the store, and a file for each backend, by its name."""

    number: int
    scan: int
    files: Mapping[str, FileFacts]

    @property
    def lead(self) -> FileFacts:
        """The first of its files."""
        return next(iter(self.files.values()))

    @property
    def mjd(self) -> float:
        """When it began."""
        return self.lead.mjd


def about(path: Path) -> dict[str, Any]:
    """For the index of files: what FileFacts holds, or ``trouble``: why the file cannot be used."""
    try:
        file = read_file(path)
        names = file.frontend.column("RECNAME").ravel().tolist() if file.frontend.rows else []
        rest = file.frontend.decimals("RESTFREQ").tolist() if file.frontend.rows else []
        project = file.primary.text("PROJID") or file.scan.text("PROJID")
    except ImportFormatError as error:
        return {"trouble": [error.message, error.hint, error.scan, error.subscan]}
    file.fits.close()
    kind = PROCEDURES.get(file.obstype.lower().replace("_", ""), "")
    return {
        "backend": file.backend,
        "scan": file.number,
        "day": file.day,
        "mjd": file.mjd,
        "project": project,
        "is_load": kind == "calibration",
        "receivers": [[str(n), float(f)] for n, f in zip(names, rest, strict=True)],
    }


def scans_of(files: Iterable[Path], index: FileIndex, lost: list[Lost]) -> list[NightScan]:
    """All scans, in order of time; files that cannot be used, or are there twice, are added to ``lost``."""
    known: list[FileFacts] = []
    for path in files:
        facts = index.facts(path, FACTS, about)
        if "trouble" in facts:
            message, hint, scan, subscan = facts["trouble"]
            error = ImportFormatError(message, hint=hint, scan=scan, subscan=subscan)
            lost.append(Lost(scan, "", error))
            continue
        values = {**facts, "receivers": tuple((n, f) for n, f in facts["receivers"])}
        known.append(FileFacts(path=path, **values))
    days = {day: k for k, day in enumerate(sorted({f.day for f in known}))}
    scans: dict[tuple[str, int], dict[str, FileFacts]] = {}
    for f in sorted(known, key=lambda f: (f.day, f.scan, f.backend, f.path.name)):
        mine = scans.setdefault((f.day, f.scan), {})
        if f.backend in mine:
            error = ImportFormatError(
                f"{f.path} is the scan and backend of {mine[f.backend].path} once more.",
                hint="Import one of them.",
                scan=f.scan,
            )
            lost.append(Lost(f.scan, "", error))
            continue
        mine[f.backend] = f
    found = [
        NightScan(scan + DAY_STEP * days[day], scan, mine) for (day, scan), mine in scans.items()
    ]
    return sorted(found, key=lambda s: (s.mjd, s.number))


def calibrations_for(
    scan: NightScan, backend: str, receiver: str, loads: Sequence[NightScan], rule: str
) -> list[NightScan]:
    """The calibration scans that may serve a receiver of a scan, best first: of its project, backend and tuning.

    rule "earlier": the nearest earlier ones, then the nearest later ones; "nearest": in the order of distance in time.
    """
    mine = scan.files[backend]
    good = [
        c
        for c in loads
        if c.number != scan.number
        and backend in c.files
        and c.files[backend].project == mine.project
        and _same_tuning(mine, c.files[backend], receiver)
    ]
    if rule == "nearest":
        return sorted(good, key=lambda c: (abs(c.mjd - scan.mjd), c.mjd))
    return sorted(good, key=lambda c: (c.mjd > scan.mjd, abs(c.mjd - scan.mjd)))


def _same_tuning(a: FileFacts, b: FileFacts, receiver: str) -> bool:
    """Whether a receiver has the same rest frequencies in both files."""
    one, two = (sorted(f for n, f in x.receivers if n == receiver) for x in (a, b))
    if len(one) != len(two) or not one:
        return False
    return all(abs(x / y - 1.0) <= SAME_TUNING for x, y in zip(one, two, strict=True))
