"""The tables of one MBFITS scan: all in one file, or a folder of files that GROUPING.fits lists.

Tables are put together by their keywords FEBE, BASEBAND, OBSNUM and SUBSNUM. Source: docs/reference/mbfits.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from gpucal.errors import ImportFormatError
from gpucal.io.fits.units import COPY_AGAIN, FitsFile, Unit
from gpucal.io.mbfits.roles import GROUPING, PACKED, member_like, members_below

VERSIONS = (1.5, 2.0)
KNOWN_VERSIONS = "1.57 to 1.67"
SEND_US = "Tell us: the headers of the scan (docs/reference/mbfits.md, What to send us)."
BLANK = -999.0
"""What stands for no value, in integers and in floats."""
Key = tuple[str, int]
"""FEBE and BASEBAND."""


@dataclass(eq=False)
class SubscanTables:
    """The tables of one subscan: counts by FEBE and baseband, times and pointing by FEBE, monitor points."""

    number: int
    arrays: dict[Key, Unit] = field(default_factory=dict)
    datapars: dict[str, Unit] = field(default_factory=dict)
    monitor: Unit | None = None


@dataclass(eq=False)
class Dataset:
    """The tables of a scan.

    lead      the file, or GROUPING.fits (else SCAN.fits) of a folder; files: all of them
    version   MBFTSVER as a number
    troubles  what is wrong with single members: the others can be used; warned: what was said of the scan before
    """

    lead: Path
    grouped: bool
    version: float
    primary: Unit
    scan: Unit
    febes: dict[str, Unit]
    subscans: dict[int, SubscanTables]
    files: list[Path]
    troubles: list[ImportFormatError] = field(default_factory=list)
    warned: set[str] = field(default_factory=set)

    @property
    def number(self) -> int:
        """SCANNUM."""
        return int(self.scan.number("SCANNUM"))

    @property
    def telescope(self) -> str:
        """TELESCOP."""
        return self.scan.text("TELESCOP") or self.primary.text("TELESCOP")

    def text(self, keyword: str) -> str:
        """A keyword of the scan, or of the primary header."""
        return self.scan.text(keyword) or self.primary.text(keyword)

    def rest(self, *units: Unit | None) -> None:
        """Let go of the files of a folder, which may be thousands; one file alone stays open."""
        if self.grouped:
            for unit in units:
                if unit is not None:
                    unit.file.close()

    def close(self) -> None:
        """Let go of all files."""
        units = [self.primary, self.scan, *self.febes.values()]
        for tables in self.subscans.values():
            units += [*tables.arrays.values(), *tables.datapars.values()]
            units += [tables.monitor] if tables.monitor is not None else []
        for unit in units:
            unit.file.close()

    @property
    def keys(self) -> list[Key]:
        """FEBE and baseband of all counts, in order."""
        return sorted({key for tables in self.subscans.values() for key in tables.arrays})


@dataclass(eq=False)
class _Found:
    """Units by what they are, while a dataset is read."""

    primary: list[Unit] = field(default_factory=list)
    scans: list[Unit] = field(default_factory=list)
    febes: list[Unit] = field(default_factory=list)
    others: list[tuple[str, Unit]] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    troubles: list[ImportFormatError] = field(default_factory=list)


def known(value: float) -> bool:
    """Whether a number is none of those that stand for no value."""
    return value == value and abs(value) < 1e30 and value != BLANK


def is_true(unit: Unit, keyword: str) -> bool:
    """A logical keyword: T, 1 or a word that says so."""
    value = unit.header.get(keyword)
    if isinstance(value, str):
        return value.strip().upper() in ("T", "TRUE", "1", "Y", "YES")
    return bool(value) if isinstance(value, bool | int) else False


def read_dataset(lead: Path) -> Dataset:
    """The tables of a scan; ImportFormatError where it is none that can be used, with its number where it is known."""
    fits = FitsFile(lead)
    found = _Found(files=[lead])
    names = [u.name.upper() for u in fits.units[1:]]
    grouped = member_like(lead.name) or names == ["GROUPING"]
    _sort_in(found, fits)
    fits.close()
    number = next((int(u.number("SCANNUM", -1.0)) for u in found.scans), None)
    try:
        if grouped:
            _read_members(found, lead, fits)
            number = next((int(u.number("SCANNUM", -1.0)) for u in found.scans), number)
        return _dataset(lead, grouped, found)
    except ImportFormatError as error:
        error.locate(scan=number)
        raise
    finally:
        fits.close()  # columns open it again


def _read_members(found: _Found, lead: Path, grouping: FitsFile) -> None:
    """Read the headers of all files of the folder; what is listed and not there is a trouble."""
    folder = lead.parent
    there = members_below(folder)
    names = {"/" + PACKED.sub("", p.relative_to(folder).as_posix()) for p in there}
    for name, subscan in _listed(grouping):
        plain = "/" + PACKED.sub("", name)
        if not any(n.endswith(plain) for n in names):
            error = ImportFormatError(
                f"{lead} lists {name}, which is not there.",
                hint="Copy the whole folder again.",
                subscan=subscan,
            )
            if subscan is None:
                raise error
            found.troubles.append(error)
    for path in there:
        if path == lead or GROUPING.fullmatch(path.name):
            continue
        found.files.append(path)
        try:
            fits = FitsFile(path)
        except ImportFormatError as error:
            error.subscan = _folder_number(path, folder)
            if error.subscan is None:
                raise
            found.troubles.append(error)
            continue
        _sort_in(found, fits)
        fits.close()


def _listed(grouping: FitsFile) -> list[tuple[str, int | None]]:
    """The members that GROUPING.fits lists: the end of their place, and their subscan (None: of the whole scan)."""
    tables = [u for u in grouping.units[1:] if u.is_table and u.has("MEMBER_LOCATION")]
    found: list[tuple[str, int | None]] = []
    for table in tables:
        places = table.column("MEMBER_LOCATION").ravel().tolist()
        numbers = table.numbers("SUBSNUM", default=BLANK).tolist()
        for place, number in zip(places, numbers, strict=True):
            parts = [p for p in re.split(r"[/\\]", str(place)) if p not in ("", ".", "..")]
            if not parts or not member_like(parts[-1]):
                continue
            below = known(number) and number > 0 and len(parts) > 1
            name = "/".join(parts[-2:]) if below else parts[-1]
            found.append((name, int(number) if known(number) and number > 0 else None))
    return found


def _folder_number(path: Path, folder: Path) -> int | None:
    parts = path.relative_to(folder).parts[:-1]
    return int(parts[-1]) if parts and parts[-1].isdigit() else None


def _sort_in(found: _Found, fits: FitsFile) -> None:
    found.primary.append(fits.units[0])
    for unit in fits.units[1:]:
        name = unit.name.upper()
        if name == "SCAN-MBFITS":
            found.scans.append(unit)
        elif name == "FEBEPAR-MBFITS":
            found.febes.append(unit)
        elif name.endswith("-MBFITS"):
            found.others.append((name.removesuffix("-MBFITS"), unit))


def _dataset(lead: Path, grouped: bool, found: _Found) -> Dataset:
    if len(found.scans) != 1:
        what = "no table SCAN-MBFITS" if not found.scans else f"{len(found.scans)} of them"
        raise ImportFormatError(
            f"{lead} has {what}, expected one table SCAN-MBFITS.", hint=COPY_AGAIN
        )
    scan = found.scans[0]
    version = _version(lead, found)
    febes: dict[str, Unit] = {}
    for unit in found.febes:
        name = unit.text("FEBE")
        if name in febes:
            raise ImportFormatError(f"{lead} has two tables FEBEPAR-MBFITS of {name!r} (FEBE).")
        febes[name] = unit
    if not febes:
        raise ImportFormatError(f"{lead} has no table FEBEPAR-MBFITS.", hint=COPY_AGAIN)
    made = Dataset(
        lead, grouped, version, found.primary[0], scan, febes, {}, found.files, found.troubles
    )
    number = int(scan.number("SCANNUM"))
    if number < 0:
        raise ImportFormatError(f"{scan.place}: SCANNUM is {number}, expected 0 or more.")
    _put_together(made, found)
    return made


def _version(lead: Path, found: _Found) -> float:
    """MBFTSVER of the first header that has it."""
    units = [*found.primary, *found.scans]
    word = next((w for u in units if (w := u.text("MBFTSVER"))), "")
    if not word:
        raise ImportFormatError(
            f"{lead} has no MBFTSVER in its primary header, expected the version of MBFITS.",
            hint="Is GROUPING.fits of the folder there?" if len(found.files) > 1 else "",
        )
    match = re.match(r"\d+(\.\d+)?", word)
    version = float(match[0]) if match else -1.0
    if not VERSIONS[0] <= version < VERSIONS[1]:
        raise ImportFormatError(
            f"{lead} is MBFITS of version {word!r}, expected {KNOWN_VERSIONS}.", hint=SEND_US
        )
    return version


def _put_together(made: Dataset, found: _Found) -> None:
    """Sort the tables of the subscans by their numbers, FEBE and baseband."""
    numbers = _numbers([u for _, u in found.others], made)
    for (name, unit), number in zip(found.others, numbers, strict=True):
        other = int(unit.number("SCANNUM", made.number))
        if other != made.number:
            raise ImportFormatError(
                f"{unit.place} is of scan {other}, SCAN-MBFITS of scan {made.number}.",
                hint="Two scans were mixed.",
            )
        tables = made.subscans.setdefault(number, SubscanTables(number))
        febe = unit.text("FEBE")
        if name == "MONITOR":
            twice, tables.monitor = tables.monitor is not None, unit
        elif name == "DATAPAR":
            twice = febe in tables.datapars
            tables.datapars[febe] = unit
        elif name == "ARRAYDATA":
            key = (febe, int(unit.number("BASEBAND", 1.0)))
            twice = key in tables.arrays
            tables.arrays[key] = unit
        else:
            continue
        if twice:
            raise ImportFormatError(
                f"{made.lead} has two tables {name}-MBFITS of subscan {number}"
                + (f" and {febe!r}" if febe else "")
                + ("." if name != "ARRAYDATA" else f", baseband {key[1]}."),
                hint=COPY_AGAIN,
            )
    made.subscans = dict(sorted(made.subscans.items()))
    if not any(t.arrays for t in made.subscans.values()):
        raise ImportFormatError(f"{made.lead} holds no counts (ARRAYDATA-MBFITS).", hint=COPY_AGAIN)


def _numbers(units: list[Unit], made: Dataset) -> list[int]:
    """The subscan of each table: OBSNUM, since some files have SUBSNUM 0 everywhere; else SUBSNUM.

    OBSNUM counts where it is above 0 in all tables, and tells as many subscans apart as SUBSNUM does.
    """
    told: dict[str, list[int]] = {}
    for keyword in ("OBSNUM", "SUBSNUM"):
        values = [int(u.number(keyword, BLANK)) for u in units]
        if values and min(values) > 0:
            told[keyword] = values
    if not told:
        bad = next(
            (u for u in units if int(u.number("SUBSNUM", BLANK)) < 1), units[0] if units else None
        )
        if bad is None:
            return []
        raise ImportFormatError(
            f"{bad.place} has neither OBSNUM nor SUBSNUM above 0, expected the number of its subscan."
        )
    return max(told.values(), key=lambda values: len(set(values)))
