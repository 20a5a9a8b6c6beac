"""What an importer is: a format that recognises its files, and plans scans that write themselves.

Shapes use C channels, D dumps, R receivers, A array pixels, S subscans.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gpucal.errors import GpucalError
from gpucal.io.incoming.file_index import FileIndex
from gpucal.io.incoming.glimpse import Glimpse
from gpucal.io.incoming.listing import walked
from gpucal.io.incoming.profile import Profile, ProfileKey
from gpucal.io.l0.schema import L0_FORMAT, L0_VERSION
from gpucal.io.l0.write import GroupArrays

Tick = Callable[[int], None]
"""Told how many bytes of counts were read since the last call."""


@dataclass(frozen=True)
class Lost:
    """A scan, a band of it, or a file, that should have been imported and cannot be.

    scan: its number, None where not even that is known; band: "" for all of them.
    """

    scan: int | None
    band: str
    error: GpucalError

    @property
    def sentence(self) -> str:
        """Which scan, what was found, what was expected, what to do."""
        return str(self.error)

    @property
    def reason(self) -> str:
        """The same without the scan."""
        return f"{self.error.message} {self.error.hint}".rstrip()


@dataclass(frozen=True)
class PlannedBand:
    """A row of the plan: one band of one scan.

    band: name of the band group, "" for none; modes: sobsmode of the subscans of ``source/``; loads: those of
    ``calibration/``; shape: (C, D, R, A) of the larger group; load_scan: the number that ``lloadsn`` holds, -1
    for none; backend: spectrometer or its part, as the telescope calls it.
    """

    band: str
    modes: tuple[str, ...]
    loads: tuple[str, ...]
    shape: tuple[int, int, int, int]
    load_scan: int = -1
    backend: str = ""


@dataclass(frozen=True)
class ScanContent:
    """A scan as ``write_l0_scan`` takes it: attributes, groups by band and name, attributes of bands.

    Counts that are large come as ``CountsMaker``, so that one subscan of one band is in memory at a time.
    """

    attrs: Mapping[str, Any]
    groups: Mapping[str, Mapping[str, GroupArrays]]
    band_attrs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def _never(group: Any) -> bool:
    return False


@dataclass(frozen=True, eq=False)
class PlannedScan:
    """One scan of the store to be.

    number   its number in the store
    write    ``write(store, tick)`` puts it into an L0 store, whole or not at all; ``landing.writer_of`` makes one
             from a function that returns a ScanContent. ImportFormatError and L0Error cost this scan alone
    bands    what it holds
    kind     how the telescope calls it: "NOD", "onTheFlyMap", "LOAD" ...
    origin   the file, or the first of them, for messages
    nbytes   of counts that will be read, for the progress bar
    problems sentences for the table; what is lost altogether belongs in ``ImportPlan.lost``
    same_as  whether the Zarr group of a scan of this number that the store holds already is this scan
    """

    number: int
    write: Callable[[Path, Tick], None]
    bands: tuple[PlannedBand, ...]
    kind: str = ""
    source: str = ""
    origin: str = ""
    nbytes: int = 0
    problems: tuple[str, ...] = ()
    same_as: Callable[[Any], bool] = _never


@dataclass(frozen=True, eq=False)
class ImportPlan:
    """What an import will do: nothing of the counts has been read, and nothing is written yet.

    root    attributes of the store, see ``root_attrs``
    scans   in the order in which they are written
    lost    scans, bands and files that cannot be imported: each costs exit code 2
    inputs  files whose change makes an interrupted import begin anew; options: so do other options
    """

    root: Mapping[str, Any]
    scans: Sequence[PlannedScan]
    lost: Sequence[Lost] = ()
    inputs: Sequence[Path] = ()
    options: str = ""


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    paths    files and folders as they were named
    scans    only these numbers of the telescope, None = all; bands: only these
    profile  what the user's profile sets of ``RawFormat.profile_keys``
    options  what belongs to one format alone (``flags``, ``antenna_log`` ...)
    index    what is known of files without opening them again
    """

    paths: Sequence[Path]
    scans: Collection[int] | None = None
    bands: Collection[int] | None = None
    profile: Profile = field(default_factory=Profile)
    options: Mapping[str, Any] = field(default_factory=dict)
    index: FileIndex = field(default_factory=FileIndex)


@dataclass(frozen=True)
class ImportReport:
    """What an import did: numbers of the scans written, what was lost, and numbers of those there already."""

    scans: tuple[int, ...]
    lost: tuple[Lost, ...] = ()
    present: tuple[int, ...] = ()

    @property
    def exit_code(self) -> int:
        """0: all that could be expected is there; 2: something was lost."""
        return 2 if self.lost else 0


class RawFormat(ABC):
    """A raw format: one subclass, one object of it in ``formats.FORMATS``.

    name          the word of the command; title: what it is, for people
    whole_store   True: the store appears whole or not at all, and is replaced with ``overwrite``; False:
                  scans are added to the store, each whole or not at all, and those there already are kept
    profile_keys  what a profile may set, by name
    options       names of the options that belong to this format alone; None: they are not checked
    """

    name: str
    title: str
    whole_store: bool = False
    profile_keys: Mapping[str, ProfileKey] = {}
    options: Sequence[str] | None = None

    @abstractmethod
    def probe(self, glimpse: Glimpse) -> bool:
        """Whether a file is of this format, from its name and its first bytes alone.

        Say yes to a damaged one too where its name says so: the plan then says what is wrong with it, while
        a file that nobody wants is left out of a folder without a word. Never raises.
        """

    @abstractmethod
    def plan(self, request: Request) -> ImportPlan:
        """The scans in the files, from headers and small columns; reads no spectra.

        A file or scan that cannot be used is ``lost``, never an exception; raises ImportFormatError (or the
        first of the lost) when nothing is left, and warns (GpucalWarning) about what is doubtful.
        """

    def files(self, request: Request) -> list[Path]:
        """The files meant: those that were named, whatever they are, and those in folders that ``probe`` knows.

        Folders are walked to the bottom. Raises ImportFormatError for a path that does not exist, and for
        a folder that holds no such file.
        """
        return walked(request.paths, self.name, self.title, self.probe, request.index)


def root_attrs(
    *, telescope: str, instrument: str, site: Mapping[str, float], **more: Any
) -> dict[str, Any]:
    """Attributes of an L0 store; site: lat_deg, lon_deg (deg), alt_m (m)."""
    return {
        "format": L0_FORMAT,
        "format_version": L0_VERSION,
        "telescope": telescope,
        "site": dict(site),
        "instrument": instrument,
        **more,
    }


def planned_band(
    band: str, members: Mapping[str, GroupArrays], *, backend: str = ""
) -> PlannedBand:
    """The row of the plan for the groups of one band."""
    source, loads = members.get("source"), members.get("calibration")
    main = source or loads
    assert main is not None
    named = [] if source is None else [int(n) for n in source.arrays.get("lloadsn", ())]
    return PlannedBand(
        band,
        () if source is None else tuple(source.sobsmode),
        () if loads is None else tuple(loads.sobsmode),
        main.shape[:4],
        next((n for n in named if n >= 0), -1),
        backend,
    )


def nbytes_of(group: GroupArrays) -> int:
    """Bytes of the counts of a group."""
    return math.prod(group.shape) * np.dtype(group.data_5d.dtype).itemsize
