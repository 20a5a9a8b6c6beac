"""Which files are MBFITS, and which of them stand for a scan: one file, or the one that leads a folder."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from gpucal.io.incoming.file_index import FileIndex
from gpucal.io.incoming.glimpse import Glimpse, glimpse

PACKED = re.compile(r"\.(gz|bz2|xz)$", re.IGNORECASE)
GROUPING = re.compile(r"GROUPING\.fits(\.(gz|bz2|xz))?", re.IGNORECASE)
_SCAN = re.compile(r"SCAN\.fits(\.(gz|bz2|xz))?", re.IGNORECASE)
_SURE = re.compile(
    r".+-(FEBEPAR|DATAPAR|ARRAYDATA-\d+)\.fits(\.(gz|bz2|xz))?|GROUPING\.fits(\.(gz|bz2|xz))?",
    re.IGNORECASE,
)
_MEMBER = re.compile(
    r"(SCAN|MONITOR|GROUPING|.+-(FEBEPAR|DATAPAR|ARRAYDATA-\d+))\.fits(\.(gz|bz2|xz))?",
    re.IGNORECASE,
)
ROLES = "mbfits role/1"


def member_like(name: str) -> bool:
    """Whether a file is named as one of a folder: SCAN.fits, FEBE-DATAPAR.fits ..."""
    return _MEMBER.fullmatch(name) is not None


def members_below(folder: Path) -> list[Path]:
    """The files named so in a folder and below, but not those of another scan in a folder further down."""
    found: list[Path] = []
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            inside = members_below(path)
            if not any(_SCAN.fullmatch(p.name) for p in inside if p.parent == path):
                found += inside
        elif member_like(path.name):
            found.append(path)
    return found


def is_mbfits(seen: Glimpse) -> bool:
    """By MBFTSVER in the primary header or the name of the first table; a damaged file by its name."""
    if "MBFTSVER" in seen.cards or seen.extension.get("EXTNAME", "").upper().endswith("-MBFITS"):
        return True
    return _SURE.fullmatch(seen.path.name) is not None


def role_of(path: Path) -> str:
    """ "grouping", "scan" (SCAN.fits), "member" of a folder, or "single": a scan of its own."""
    seen = glimpse(path)
    name = path.resolve().name
    table = seen.extension.get("EXTNAME", "").upper()
    if GROUPING.fullmatch(name) or table == "GROUPING":
        return "grouping"
    if member_like(name):
        return "scan" if _SCAN.fullmatch(name) else "member"
    return "single"


@dataclass
class Leads:
    """The files that stand for scans, and members of folders in which there is none."""

    leads: list[Path] = field(default_factory=list)
    orphans: list[Path] = field(default_factory=list)


def leads_of(files: Iterable[Path], index: FileIndex) -> Leads:
    """One file for each scan, in the order given: links to a file that is there already are left out."""
    by_role: dict[str, list[Path]] = {"grouping": [], "scan": [], "single": [], "member": []}
    for path in files:
        by_role[str(index.facts(path, ROLES, role_of))].append(path)
    found = Leads()
    folders: set[Path] = set()
    seen: set[Path] = set()
    for role in ("grouping", "scan"):
        for path in by_role[role]:
            real = path.resolve()
            if real.parent not in folders:
                folders.add(real.parent)
                found.leads.append(real)
    for path in by_role["single"]:
        real = path.resolve()
        if real not in seen:
            seen.add(real)
            found.leads.append(path)
    lonely: set[Path] = set()
    for path in by_role["member"]:
        real = path.resolve()
        if not folders & set(real.parents) and real.parent not in lonely:
            lonely.add(real.parent)
            found.orphans.append(path)
    return found
