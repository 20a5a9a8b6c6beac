"""Scans that are in the L1 store already: kept where nothing differs, the whole run refused where something does.

Looked at before anything is written. The settings come first, as they need no look at the raw data; then the metadata
of L0, then how its counts lie on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from gpucal.backend.cpu import cpu_backend
from gpucal.config import CalibrationConfig
from gpucal.errors import GpucalError, OtherSettingsError
from gpucal.io.atmosphere.choice import table_title
from gpucal.io.chunks.zarr_metadata import read_group, scan_name
from gpucal.io.l0.store import L0Store
from gpucal.io.l1.claims import RunClaim
from gpucal.physics.atm import AtmosphereTable
from gpucal.pipeline.scan.load_library import LoadLibrary
from gpucal.pipeline.store.counts_identity import CountsIdentity, counts_identity
from gpucal.pipeline.store.outcome import finished_summary
from gpucal.pipeline.store.report import ScanSummary
from gpucal.scan import Scan
from gpucal.scan_numbers import scan_ranges
from gpucal.version import __version__

CLOCK_SLACK_S = 1.0
"""Clocks of file servers differ by less."""

AGAIN = "calibrated again"
"""Of scans for which better loads came."""

Table = Callable[[], AtmosphereTable | None]
ReadScan = Callable[[int], Sequence[Scan]]


@dataclass(frozen=True)
class Finished:
    """Scans that need not be calibrated again, their rows as L1 has them, and what the user should know."""

    numbers: frozenset[int] = frozenset()
    summaries: tuple[ScanSummary, ...] = ()
    notes: tuple[str, ...] = ()

    def of(self, number: int) -> list[ScanSummary]:
        """The rows of one scan."""
        return [summary for summary in self.summaries if summary.scan == number]


def finished_scans(
    store: L0Store, out: Path, numbers: Iterable[int], config: CalibrationConfig, table: Table
) -> Finished:
    """Which of the scans are in the L1 store at ``out`` with this configuration, these opacities and these raw data.

    A scan of which a band failed, or that has grown since it was calibrated with ``partial``, is not finished.
    Reads no counts. Raises OtherSettingsError, naming the scans and what differs, when one is there that was made
    otherwise; with ``overwrite`` none counts as finished.
    """
    there = {} if config.overwrite else {n: f for n in numbers if (f := _Found.at(out, n))}
    if not there:
        return Finished()
    # Compare the settings.
    differ = _Differences()
    for n, found in there.items():
        differ.add(n, _other_settings(found, config, table()))
    differ.refuse(out, " with other settings (differences: {})")
    # Compare the raw data.
    raw = _RawData(store, config)
    done, again = [], {}
    for n, found in there.items():
        if not raw.readable(n):  # its own failure, told when its turn comes
            continue
        changes = raw.changes(found)
        if changes and config.partial and raw.grown(n, found):
            continue
        differ.add(n, changes)
        if found.attrs.get("failed_bands"):
            continue
        if not changes and (loads := raw.better_loads(n, found)):
            again[n] = loads
            continue
        done.append(n)
    differ.refuse(out, ", made from other raw data ({})")
    return Finished(
        frozenset(done),
        tuple(s for n in done for s in there[n].summaries(n, config)),
        (*_other_versions({n: there[n] for n in done}), *_better_loads(again)),
    )


def claim_of(
    out: Path, numbers: Collection[int], config: CalibrationConfig, table: Table
) -> RunClaim:
    """The claim of a run on the scans that it is about to write; ``partial`` says which scans, not how."""
    atmosphere = table()
    settings = {k: v for k, v in config.result_keys().items() if k not in ("atmosphere", "partial")}
    settings["atmosphere"] = None if atmosphere is None else atmosphere.sha256
    return RunClaim(out, numbers, settings, overwrite=config.overwrite)


def metadata_checksums(read: ReadScan, numbers: Iterable[int]) -> dict[str, str]:
    """SHA-256 of the L0 metadata of scans: "number/band" -> digest; "" for a scan that is gone."""
    found: dict[str, str] = {}
    for n in sorted(set(numbers)):
        try:
            found |= {f"{n}/{s.band}": s.metadata_sha256 for s in read(n)}
        except GpucalError:
            found[f"{n}/"] = ""
    return found


@dataclass(frozen=True)
class _Found:
    """A finished scan: its attributes, and those of each band ("" for a scan without bands)."""

    attrs: Mapping[str, Any]
    bands: Mapping[str, Mapping[str, Any]]

    @staticmethod
    def at(out: Path, number: int) -> _Found | None:
        """The scan in the L1 store ``out``; None where there is none."""
        folder = out / scan_name(number)
        attrs = read_group(folder)
        if attrs is None:
            return None
        names = sorted(entry.name for entry in folder.iterdir() if entry.name.startswith("band_"))
        bands = {name: {**attrs, **(read_group(folder / name) or {})} for name in names}
        return _Found(attrs, bands or {"": attrs})

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Of its first band."""
        return next(iter(self.bands.values())).get("provenance") or {}

    @property
    def started(self) -> float | None:
        """When its calibration began, s since 1970, as late as clocks may differ; None where that is not known."""
        started = self.provenance.get("started")
        return datetime.fromisoformat(started).timestamp() + CLOCK_SLACK_S if started else None

    def summaries(self, number: int, config: CalibrationConfig) -> Iterator[ScanSummary]:
        """Its rows in the final table."""
        for band, attrs in self.bands.items():
            yield finished_summary(number, band, attrs, config)


@dataclass
class _Differences:
    """What differs, and in which scans."""

    scans: dict[str, list[int]] = field(default_factory=dict)

    def add(self, number: int, texts: Iterable[str]) -> None:
        """Note what differs in one scan."""
        for text in texts:
            self.scans.setdefault(text, []).append(number)

    def refuse(self, out: Path, how: str) -> None:
        """Raise OtherSettingsError if anything differs; ``how`` the scans were made, {} = the differences."""
        if not self.scans:
            return
        numbers = sorted({n for scans in self.scans.values() for n in scans})
        one = len(numbers) == 1
        raise OtherSettingsError(
            f"{scan_ranges(numbers)} of {out} exist{'s' if one else ''}{how.format('; '.join(self.scans))}; "
            "nothing was changed.",
            hint=f"Use --overwrite to replace {'it' if one else 'them'}, or another OUT.",
        )


def _other_settings(
    found: _Found, config: CalibrationConfig, table: AtmosphereTable | None
) -> Iterator[str]:
    """Options and opacities that differ; options that this version added count as their defaults."""
    recorded, now = found.attrs.get("config"), config.result_keys()
    if not isinstance(recorded, Mapping):
        if found.attrs.get("config_sha256") != config.fingerprint():
            yield "options"
        recorded = now
    before = {**CalibrationConfig().result_keys(), **recorded}
    for key in now:
        if key != "atmosphere" and before[key] != now[key]:
            yield f"{key.replace('_', '-')} {_shown(before[key])}, now {_shown(now[key])}"
    was, here = found.attrs.get("atmosphere_sha256"), table.sha256 if table is not None else None
    by_tau = before["tau"] != now["tau"] and None in (was, here)
    if was != here and not by_tau:
        name = (found.provenance.get("atmosphere_table") or {}).get("name") or "none"
        yield f"atmosphere table {name}, now {table_title(table) or 'none'}"


def _shown(value: Any) -> str:
    """A value of an option in words."""
    if value is None:
        return "not given"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


class _RawData:
    """The raw data of today, each scan read once."""

    def __init__(self, store: L0Store, config: CalibrationConfig) -> None:
        self._store = store
        self._config = config
        self._scans: dict[int, Sequence[Scan]] = {}
        self._counts: dict[int, CountsIdentity] = {}

    def readable(self, number: int) -> bool:
        """Whether any band of a scan can be read."""
        try:
            return bool(self._read(number))
        except GpucalError:
            return False

    def changes(self, found: _Found) -> list[str]:
        """What has changed since a scan was calibrated, in it or in the load scans that served it."""
        recorded = dict(found.attrs.get("l0_metadata_sha256") or {})
        numbers = sorted({int(key.partition("/")[0]) for key in recorded})
        now = metadata_checksums(self._read, numbers)
        if found.attrs.get("failed_bands"):  # a repaired band is news, not a contradiction
            now = {key: value for key, value in now.items() if key in recorded}
        keys = recorded.keys() | now.keys()
        changed = sorted({int(k.partition("/")[0]) for k in keys if recorded.get(k) != now.get(k)})
        texts = [f"the metadata of scan {n} changed" for n in changed]
        if texts or found.attrs.get("failed_bands"):
            return texts
        return list(self._other_counts(found, numbers))

    def better_loads(self, number: int, found: _Found) -> tuple[int, ...]:
        """Load scans that came after a scan was calibrated, and would be chosen for it today.

        Only what was written into the store since is looked at, and only in a store that is a folder.
        """
        since = found.started
        if since is None or not any(t > since for n, t in self._loads.items() if n != number):
            return ()
        better: set[int] = set()
        for scan in self._read(number):
            attrs = found.bands.get(scan.band) or {}
            used = (attrs.get("provenance") or {}).get("load_scans")
            if scan.source is None or used is None:
                continue
            try:
                choice = self._library.choose(scan)
            except GpucalError:
                continue  # there are none any more: what was made from them stays
            better |= {
                n for n in choice.numbers if n not in used and self._loads.get(n, 0.0) > since
            }
        return tuple(sorted(better))

    @cached_property
    def _library(self) -> LoadLibrary:
        return LoadLibrary(self._store, self._config, cpu_backend())

    @cached_property
    def _loads(self) -> dict[int, float]:
        """When the loads of each scan that has some were put there, s since 1970."""
        found: dict[int, float] = {}
        folder = Path(self._store.path)
        for n in self._store.numbers() if folder.is_dir() else ():
            scan = folder / scan_name(n)
            groups = (*scan.glob("calibration"), *scan.glob("*/calibration"))
            times = [path.stat().st_mtime for path in groups]
            if times:
                found[n] = max(times)
        return found

    def grown(self, number: int, found: _Found) -> bool:
        """Whether a scan has more subscans than when it was calibrated."""
        before = found.attrs.get("l0_subscans")
        sources = [scan.source for scan in self._read(number)]
        return isinstance(before, int) and max(s.shape[4] for s in sources if s) > before

    def _other_counts(self, found: _Found, numbers: Sequence[int]) -> Iterator[str]:
        """Counts that are others, or were written again, although the metadata are the same."""
        recorded = found.provenance.get("l0_counts_sha256") or {}
        limit = found.started
        for n in numbers:
            identity = self._identity(n)
            if not identity.sha256 or not recorded.get(str(n)):
                continue  # not a local folder, or calibrated by an earlier version
            if recorded[str(n)] != identity.sha256:
                yield f"the counts of scan {n} changed"
            elif limit is not None and identity.newest > limit:
                yield f"the counts of scan {n} were written again after the calibration"

    def _identity(self, number: int) -> CountsIdentity:
        if number not in self._counts:
            self._counts[number] = counts_identity(self._store, number)
        return self._counts[number]

    def _read(self, number: int) -> Sequence[Scan]:
        """The readable bands of a scan; raises what reading it raises when there is none."""
        if number not in self._scans:
            self._scans[number] = self._store.load(
                number,
                partial=self._config.partial,
                t_hot_given=self._config.t_hot is not None,
                broken={},
            )
        return self._scans[number]


def _better_loads(again: Mapping[int, Sequence[int]]) -> Iterator[str]:
    """What to know about scans that are not kept: loads that serve them better came later."""
    came: dict[tuple[int, ...], list[int]] = {}
    for n, loads in again.items():
        came.setdefault(tuple(loads), []).append(n)
    for loads, numbers in came.items():
        yield (
            f"{scan_ranges(numbers)} {AGAIN}: the loads of {scan_ranges(loads)} came later, and "
            "serve better than those before."
        )


def _other_versions(done: Mapping[int, _Found]) -> Iterator[str]:
    """What to know about scans that another version of this program calibrated: they are kept."""
    made: dict[str, list[int]] = {}
    for n, found in done.items():
        made.setdefault(str((found.provenance.get("versions") or {}).get("gpucal")), []).append(n)
    for version, numbers in made.items():
        if version not in (__version__, "None"):
            yield (
                f"{scan_ranges(numbers)} calibrated by gpucal {version} kept; this is {__version__}: "
                "--overwrite calibrates again."
            )
