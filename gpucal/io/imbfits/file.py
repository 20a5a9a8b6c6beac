"""One IMBFITS file: which of its tables is what, by name and subscan number, in all versions.

Version 1 keeps the backend's configuration in the table of IMBF-scan, version 2 in IMBF-backend; version 3 splits
IMBF-antenna in two. Source: docs/reference/imbfits.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from gpucal.errors import ImportFormatError
from gpucal.io.fits.units import COPY_AGAIN, MJD_EPOCH, FitsFile, Unit, mjd_of

VERSIONS = (1.0, 4.0)
NIKA = 10.0
NAME = re.compile(r"iram30m-([a-z0-9]+)-(\d{8})s(\d+)-imb\.fits(\.(gz|bz2|xz))?$", re.IGNORECASE)
BACKENDS = ("fts", "wilma", "vespa", "4mhz", "cont", "100khz", "1mhz")
_OTHER_NAMES = {"continuum": "cont", "cont": "cont", "bbc": "cont", "nbc": "cont"}
SEND_US = "Tell us: the headers of the file (docs/reference/imbfits.md, What to send us)."


@dataclass(eq=False)
class SubscanTables:
    """The tables of one subscan: the counts, the antenna's slow trace, the derotator; None where there is none."""

    number: int
    data: Unit | None = None
    antenna: Unit | None = None
    derotator: Unit | None = None


@dataclass(eq=False)
class ImbFile:
    """An IMBFITS file with its tables sorted.

    version   of the layout; backend one of BACKENDS; number SCANNUM; day "YYYY-MM-DD", mjd begin of the scan
    setup     the table of the backend's configuration, frontend that of the receivers
    subscans  by their number, in order; warned: what was said of the file before, once for all bands
    """

    fits: FitsFile
    version: float
    backend: str
    number: int
    day: str
    mjd: float
    primary: Unit
    scan: Unit
    frontend: Unit
    setup: Unit
    subscans: dict[int, SubscanTables] = field(default_factory=dict)
    warned: set[str] = field(default_factory=set)

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.fits.path

    @property
    def obstype(self) -> str:
        """OBSTYPE of the scan."""
        return self.primary.text("OBSTYPE") or self.scan.text("OBSTYPE")


def named(path: Path) -> tuple[str, str, int] | None:
    """Backend, day and scan that the name of a file tells."""
    match = NAME.search(path.name)
    if match is None:
        return None
    day = f"{match[2][:4]}-{match[2][4:6]}-{match[2][6:]}"
    return backend_of(match[1]), day, int(match[3])


def backend_of(text: str) -> str:
    """The name of a backend as we use it: "continuum" and "CONT" are "cont", "4MHz" is "4mhz"."""
    plain = re.sub(r"[^a-z0-9]", "", text.lower())
    return _OTHER_NAMES.get(plain, plain)


def read_file(path: Path) -> ImbFile:
    """The tables of a file; ImportFormatError where it is none that can be used, with its scan where it is known."""
    told = named(path)
    try:
        fits = FitsFile(path)
        try:
            return _read(fits)
        finally:
            fits.close()
    except ImportFormatError as error:
        error.locate(scan=told[2] if told else None)
        raise


def _read(fits: FitsFile) -> ImbFile:
    primary = fits.units[0]
    version = _version(primary)
    by_name: dict[str, list[Unit]] = {}
    for unit in fits.units[1:]:
        by_name.setdefault(unit.name.lower(), []).append(unit)
    heads = {}
    for name in ("imbf-scan", "imbf-frontend"):
        if not by_name.get(name):
            there = ", ".join(dict.fromkeys(u.name for u in fits.units[1:])) or "none"
            raise ImportFormatError(
                f"{fits.path} has no table {name.replace('imbf', 'IMBF')}, but {there}.",
                hint=COPY_AGAIN,
            )
        heads[name] = by_name[name][0]
    scan = heads["imbf-scan"]
    setup = by_name.get("imbf-backend", [scan])[0]
    if setup.has("CHANS") is None:
        raise ImportFormatError(
            f"{fits.path} has no table with the backend's configuration: {setup.place.partition(' of ')[0]} has no "
            f"column CHANS, but {', '.join(setup.columns) or 'none'}.",
        )
    number = int(scan.number("SCANNUM", primary.number("SCANNUM", -1.0)))
    told = named(fits.path)
    if number < 0 and told is not None:
        number = told[2]
    if number < 0:
        raise ImportFormatError(f"{fits.path} has no SCANNUM, expected the number of the scan.")
    if told is not None and told[2] != number:
        raise ImportFormatError(
            f"{fits.path} says that it is scan {number} (SCANNUM), its name says {told[2]}.",
            hint="Was the file renamed? Give it back its name.",
        )
    begin, day = _begin(primary, scan)
    file = ImbFile(
        fits, version, _backend(primary, fits), number, day, begin, primary, scan,
        heads["imbf-frontend"], setup,
    )  # fmt: skip
    _sort_in(file)
    return file


def _version(primary: Unit) -> float:
    word = primary.text("IMBFTSVE")
    if not word:
        raise ImportFormatError(
            f"{primary.path} has no IMBFTSVE in its primary header, expected the version of IMBFITS.",
            hint="Is it IMBFITS?",
        )
    match = re.match(r"\d+(\.\d+)?", word)
    version = float(match[0]) if match else -1.0
    if version >= NIKA:
        raise ImportFormatError(
            f"{primary.path} is of NIKA (IMBFITS {word}), a bolometer array, expected one of a heterodyne receiver.",
            hint="Reduce it with the software of NIKA2.",
        )
    if not VERSIONS[0] <= version < VERSIONS[1]:
        raise ImportFormatError(
            f"{primary.path} is IMBFITS of version {word!r}, expected {VERSIONS[0]:g} (HERA) to 3 (EMIR).",
            hint=SEND_US,
        )
    system = primary.text("TIMESYS", "UTC").upper() or "UTC"
    if system not in ("UTC", "UT"):
        raise ImportFormatError(f"{primary.path} counts time in {system}, expected UTC (TIMESYS).")
    return version


def _begin(primary: Unit, scan: Unit) -> tuple[float, str]:
    """MJD and day on which the scan began."""
    for unit in (primary, scan):
        text = unit.text("DATE-OBS")
        if text:
            mjd = mjd_of(text, unit, "DATE-OBS")
            return mjd, text[:10]
    mjd = primary.number("MJD-OBS", scan.number("MJD", -1.0))
    if mjd < 0:
        raise ImportFormatError(f"{primary.path} says nowhere when it was observed (DATE-OBS).")
    return mjd, _day(mjd)


def _day(mjd: float) -> str:
    return (MJD_EPOCH + timedelta(days=mjd)).date().isoformat()


def _backend(primary: Unit, fits: FitsFile) -> str:
    """The backend: as the name of the file, INSTRUME, or the names of the tables say."""
    told = named(fits.path)
    words = [told[0] if told else "", backend_of(primary.text("INSTRUME"))]
    words += [backend_of(u.name[12:]) for u in fits.units[1:] if _is_data(u)][:1]
    known = [w for w in words if w in BACKENDS]
    if not known:
        raise ImportFormatError(
            f"{fits.path} is of the backend {primary.text('INSTRUME')!r}, expected one of {', '.join(BACKENDS)}.",
            hint=SEND_US,
        )
    return known[0]


def _is_data(unit: Unit) -> bool:
    return unit.name.lower().startswith("imbf-backend") and len(unit.name) > 12


def _sort_in(file: ImbFile) -> None:
    """Sort the tables of the subscans by OBSNUM, and compare their number with what the header says."""
    for unit in file.fits.units[1:]:
        name = unit.name.lower()
        slot = "data" if _is_data(unit) else ""
        if name in ("imbf-antenna", "imbf-antenna-s"):
            slot = "antenna"
        elif "derot" in name:
            slot = "derotator"
        if not slot:
            continue
        number = int(unit.number("OBSNUM"))
        tables = file.subscans.setdefault(number, SubscanTables(number))
        if getattr(tables, slot) is not None:
            raise ImportFormatError(
                f"{file.path} has two tables {unit.name} of subscan {number} (OBSNUM).",
                hint=COPY_AGAIN,
            )
        other = int(unit.number("SCANNUM", file.number))
        if other != file.number:
            raise ImportFormatError(
                f"{unit.place} is of scan {other}, the file of scan {file.number}.",
                hint="Two files were mixed.",
            )
        setattr(tables, slot, unit)
    file.subscans = dict(sorted(file.subscans.items()))
    if not any(s.data is not None for s in file.subscans.values()):
        raise ImportFormatError(f"{file.path} holds no subscan with counts (IMBF-backend...).")
    found = int(file.primary.number("N_OBSP", 0.0))
    if found > len(file.subscans):
        raise ImportFormatError(
            f"{file.path} is truncated: it holds {len(file.subscans)} subscans, expected {found} (N_OBSP).",
            hint=COPY_AGAIN,
        )
