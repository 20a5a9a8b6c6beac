"""Open an L0 store and load scans as frozen values; the counts stay lazy."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gpucal.errors import GpucalError, L0Error, L0KeyError, check_interpreter, words_of
from gpucal.io.l0.checks import (
    check_bolometer,
    check_complete,
    check_group,
    check_same_axis,
    check_same_layout,
    check_sidebands,
    doubtful_attributes,
    gain_image,
    number_mismatch,
)
from gpucal.io.l0.group import feed, group_context, read_group
from gpucal.io.l0.nodes import child_names, children_of, group_of
from gpucal.io.l0.packed import open_packed
from gpucal.io.l0.plausible.records import judged, judged_times
from gpucal.io.l0.schema import (
    L0_FORMAT,
    GroupName,
    ScanAttrs,
    is_bolometer,
    parse_root_attrs,
    parse_scan_attrs,
)
from gpucal.notebook import html_of
from gpucal.scan import Scan, SubscanGroup
from gpucal.scan_numbers import counted_scans

DRIFTS = frozenset({"pointing", "focus"})
"""Procedures whose scans may be without references."""

_WHAT_IT_IS = "An L0 store is a folder that holds zarr.json or .zgroup and scan_NNNNNN groups."
_SCAN_NAME = re.compile(r"scan_(\d+)\Z")
_ROOT_IDENTITY = ("format", "format_version", "telescope", "site", "instrument")
_READ_ERRORS = (GpucalError, OSError, ValueError, KeyError, TypeError, RuntimeError)
_GROUPS: tuple[GroupName, ...] = ("source", "calibration")


def open_l0(path: str | os.PathLike[str]) -> L0Store:
    """Open an L0 store, Zarr v3 or v2, for reading: a folder, or a zip file of one.

    Raises L0Error only when the root is unusable: not a Zarr group, another or a newer format; ConfigError where
    Python runs optimised.
    """
    import zarr

    check_interpreter()

    path = os.fspath(path)
    if "://" not in str(path) and not Path(path).exists():
        raise L0Error(f"{path} does not exist.", hint="Check the path of the L0 store.")
    try:
        if Path(path).is_file():
            return L0Store(str(path), open_packed(Path(path)))
        root = zarr.open_group(_local(path), mode="r", use_consolidated=False)
    except GpucalError:
        raise
    except json.JSONDecodeError as error:
        raise L0Error(
            f"the zarr.json (or .zgroup, .zattrs) of {path} is not valid JSON: {error}.",
            hint="Restore it from a copy.",
        ) from error
    except Exception as error:  # every kind of store has error classes of its own
        raise L0Error(
            f"{path} is not a Zarr group, expected an L0 store.",
            hint=_WHAT_IT_IS,
        ) from error
    return L0Store(str(path), root)


def _local(path: str | Path) -> Any:
    """A folder as a store that opens regular files only; an address as it is."""
    from gpucal.io.chunks.regular_store import RegularFiles

    return str(path) if "://" in str(path) else RegularFiles(Path(path), read_only=True)


class L0Store:
    """An open L0 store. Scans are read anew at each call, so a growing night can be followed."""

    def __init__(self, path: str, root: Any) -> None:
        self.path = path
        self.root = root
        self.attrs: Mapping[str, Any] = dict(root.attrs)
        parse_root_attrs(self.attrs)
        if "format" not in self.attrs and not self._names():
            raise L0Error(
                f"{path} has no attribute format = {L0_FORMAT!r} and no scan in it.",
                hint="Is this an L0 store?",
            )

    def __repr__(self) -> str:
        numbers = self.numbers()
        said = [str(self.attrs[k]) for k in ("telescope", "instrument") if self.attrs.get(k)]
        ends = f" ({numbers[0]} to {numbers[-1]})" if numbers else ""
        scans = f"{len(numbers)} scan{'' if len(numbers) == 1 else 's'}{ends}"
        return f"<gpucal L0 {', '.join([self.path, *said])}: {scans}>"

    def _repr_html_(self) -> str:
        """The scans with what their attributes say; no array is read."""
        groups = [(n, name) for n, names in sorted(self._names().items()) for name in names]
        rows = [_row(self.root, number, name) for number, name in groups]
        said = [str(self.attrs[k]) for k in ("telescope", "instrument") if self.attrs.get(k)]
        title = ", ".join([f"raw store {Path(self.path).name}", *said])
        return html_of(title, ("scan", "source", "line", "mode", "groups"), rows, str(self.path))

    def __getitem__(self, key: int | tuple[int, str]) -> Scan:
        """``store[5]``, or ``store[5, "band_1"]`` where a scan has bands; raises as ``load``."""
        number, band = key if isinstance(key, tuple) else (key, None)
        scans = {scan.band: scan for scan in self.load(number)}
        if band is None and len(scans) == 1:
            band = next(iter(scans))
        if band in scans:
            return scans[band]
        there = ", ".join(name or "no bands" for name in scans)
        if band is None:
            raise L0KeyError(
                f"the scan has {there}.",
                hint=f"Take one: store[{number}, {max(scans)!r}].",
                scan=number,
            )
        raise L0KeyError(f"there is no band {band!r}.", hint=f"It has {there}.", scan=number)

    def __fspath__(self) -> str:
        return self.path

    def __contains__(self, number: object) -> bool:
        return number in self._names()

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers())

    def __len__(self) -> int:
        return len(self._names())

    def _ipython_key_completions_(self) -> list[int]:
        return self.numbers()

    def numbers(self) -> list[int]:
        """Numbers of the scans that are there, sorted."""
        return sorted(self._names())

    def kind(self, number: int) -> Literal["science", "load", "bolometer"]:
        """ "science" when the scan holds a ``source/`` group, "load" when calibration only.

        "bolometer" when its attributes say so: it has nothing that this program calibrates. Raises
        L0Error when it holds neither group.
        """
        group = self.scan_group(number)
        bands = bands_in(group, number)
        if is_bolometer(dict(group.attrs)):
            return "bolometer"
        return "science" if any("source" in groups for groups in bands.values()) else "load"

    def load(
        self,
        number: int,
        *,
        partial: bool = False,
        t_hot_given: bool = False,
        broken: dict[str, GpucalError] | None = None,
    ) -> list[Scan]:
        """Read and validate a scan: one Scan per band, counts lazy.

        partial: accept a scan that is not complete, as far as it goes. t_hot_given: the recorded
        load temperature is not used, so it may be anything. Raises L0Error naming scan, band and,
        where they apply, subscan and receiver; with ``broken`` a bad band is entered there and the
        good ones are returned.
        """
        try:
            zscan = self.scan_group(number)
        except _READ_ERRORS as error:
            raise _located(error, number, "") from error
        place = ScanPlace(number, self.attrs, self.path)
        return load_scan(zscan, place, partial=partial, t_hot_given=t_hot_given, broken=broken)

    def to_xarray(self, number: int, band: str = "", *, group: GroupName | None = None) -> Any:
        """One group of a scan as ``xarray.Dataset``; ``data_5d`` is read only when asked for.

        group: default "source", or "calibration" for a load scan. Raises L0Error as ``load``, or
        when there is no such band or group.
        """
        from gpucal.io.l0.dataset import group_dataset

        scans = {scan.band: scan for scan in self.load(number, partial=True)}
        if band not in scans:
            there = ", ".join(name or "no bands" for name in scans)
            raise L0KeyError(f"there is no band {band!r}.", hint=f"It has {there}.", scan=number)
        if group not in (None, *_GROUPS):
            raise L0KeyError(
                f"there is no group {group!r}.", hint=f"Take {' or '.join(_GROUPS)}.", scan=number
            )
        scan = scans[band]
        name = group or ("source" if scan.source else "calibration")
        chosen: SubscanGroup | None = getattr(scan, name)
        if chosen is None:
            raise L0KeyError(f"there is no {name}/ group.", scan=number, band=band)
        return group_dataset(chosen, scan.attrs)

    def _names(self) -> dict[int, list[str]]:
        """Scan number -> names of its group; more than one where a number was used again."""
        found: dict[int, list[str]] = {}
        for name in sorted(child_names(self.root)):
            if match := _SCAN_NAME.match(name):
                found.setdefault(int(match[1]), []).append(name)
        return found

    def scan_group(self, number: int) -> Any:
        """The Zarr group of a scan; raises L0Error when it is not there or cannot be opened."""
        known = self._names()
        whole = isinstance(number, int | np.integer) and not isinstance(number, bool)
        names = known.get(number) if whole else None
        if names is None:
            has = f"It has {counted_scans(sorted(known))}."
            if not whole:
                raise L0KeyError(f"a scan is named by its number, not by {number!r}.", hint=has)
            raise L0KeyError("the scan is not in the store.", hint=has, scan=number)
        if len(names) > 1:
            raise L0Error(
                f"the number stands for {len(names)} groups, {' and '.join(names)}.",
                hint="Rename all but one of them: a number names one scan.",
                scan=number,
            )
        return group_of(self.root, names[0])


@dataclass(frozen=True)
class ScanPlace:
    """A scan and its store: number, attributes of the root, path of the store.

    scan_attrs: the attributes of the scan where they are not those that its group has (yet).
    """

    number: int
    root_attrs: Mapping[str, Any]
    path: str
    scan_attrs: Mapping[str, Any] | None = None


def load_scan(
    zscan: Any,
    place: ScanPlace,
    *,
    partial: bool = False,
    t_hot_given: bool = False,
    broken: dict[str, GpucalError] | None = None,
) -> list[Scan]:
    """As ``L0Store.load``, from the Zarr group of a scan at any place."""
    scans: list[Scan] = []
    errors: dict[str, GpucalError] = {}
    number = place.number
    try:
        scan_attrs = dict(zscan.attrs if place.scan_attrs is None else place.scan_attrs)
        digest = hashlib.sha256()
        feed(digest, {key: place.root_attrs.get(key) for key in _ROOT_IDENTITY})
        feed(digest, scan_attrs)
        bands = bands_in(zscan, number)
    except _READ_ERRORS as error:
        raise _located(error, number, "") from error
    for band, names in bands.items():
        try:
            zband = group_of(zscan, band) if band else zscan
            attrs = {**scan_attrs, **(dict(zband.attrs) if band else {})}
            scan = Scan(number, band, attrs, place.root_attrs, None, None, path=place.path)
            zgroups = {name: group_of(zband, name) for name in names}
            scans.append(
                _load_band(scan, zgroups, digest.copy(), partial=partial, t_hot_given=t_hot_given)
            )
        except _READ_ERRORS as error:
            errors[band] = _located(error, number, band)
            if broken is None:
                raise errors[band] from error
    if broken is not None:
        broken.update(errors)
    if errors and not scans:
        raise next(iter(errors.values()))
    return scans


def bands_in(zscan: Any, number: int) -> dict[str, list[GroupName]]:
    """Band name ("" for none) -> which of source/ and calibration/ it holds."""
    found = {}
    children = sorted(child_names(zscan), key=_natural)
    for band in ["", *children]:
        inside = children if not band else children_of(zscan, band)
        names = [name for name in _GROUPS if name in inside]
        if names and band not in ("source", "calibration"):
            found[band] = names
    if not found:
        raise L0Error(
            "the scan holds neither source/ nor calibration/, expected one of them, at its "
            "top or in band groups.",
            hint="gpucal inspect shows what is in it.",
            scan=number,
        )
    return found


def _located(error: Exception, number: int, band: str) -> GpucalError:
    """The error as a GpucalError, with its place and a hint."""
    if not isinstance(error, GpucalError):
        reason = words_of(error) or "its metadata or values are not what they should be"
        text = f"the scan cannot be read: {reason}."
        return L0Error(text, scan=number, band=band, stage="read")
    if isinstance(error, L0Error) and not error.hint:
        error.hint = "Correct it in the raw store, or leave the scan out with --scans."
    return error.locate(scan=number, band=band, stage="read")


def _load_band(
    scan: Scan,
    zgroups: Mapping[GroupName, Any],
    digest: Any,
    *,
    partial: bool,
    t_hot_given: bool,
) -> Scan:
    """``scan`` with the groups of its band read and checked."""
    attrs = parse_scan_attrs(scan.attrs)
    feed(digest, scan.attrs)
    groups: dict[GroupName, SubscanGroup] = {}
    notes = [*number_mismatch(scan.attrs, scan.number), *doubtful_attributes(attrs)]
    bolometer = is_bolometer(scan.attrs)
    for name, zgroup in zgroups.items():
        context = group_context(scan.number, scan.band, name, scan.attrs, partial=partial)
        groups[name] = read_group(zgroup, context, digest, notes)
        gain = gain_image(scan.attrs.get("gain_image"), groups[name].shape)
    main = groups.get("source") or groups["calibration"]
    check_complete(attrs, main.shape[4], partial=partial)
    if len(groups) == 2:
        check_same_layout(groups["source"], groups["calibration"])
    for kind, group in list(groups.items()):
        loads = kind == "calibration"
        if bolometer:
            notes += [*check_bolometer(group), *judged_times(group)]
            continue
        # the references of a growing scan may still come; drifts do without
        lenient = partial or may_lack_references(attrs)
        notes += check_group(group, calibration=loads, t_hot_given=t_hot_given, growing=lenient)
        check_sidebands(group, gain)
        groups[kind], found = judged(
            group,
            calibration=loads,
            has_image=gain is None or bool(gain.any()),
            t_hot_given=t_hot_given,
            tips=(attrs.obs_procedure or "").lower() == "skydip",
        )
        notes += found
    if len(groups) == 2 and not bolometer:
        check_same_axis(groups["source"], groups["calibration"])
    return replace(
        scan,
        source=groups.get("source"),
        calibration=groups.get("calibration"),
        metadata_sha256=digest.hexdigest(),
        warnings=tuple(notes),
    )


def may_lack_references(attrs: ScanAttrs) -> bool:
    """Whether the scan is a drift across a source, which is its own reference."""
    return (attrs.obs_procedure or "").lower() in DRIFTS


def _row(root: Any, number: int, name: str) -> tuple[object, ...]:
    """What the attributes of a scan say, for a table; nothing where they cannot be read."""
    try:
        group = group_of(root, name)
        attrs, groups = dict(group.attrs), ", ".join(sorted(child_names(group), key=_natural))
    except _READ_ERRORS as error:
        return (number, "", "", "", f"cannot be read: {error}")
    said = [str(attrs.get(key) or "") for key in ("source", "line", "instmode")]
    return (number, *said, groups)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts band_2 before band_10."""
    return [(int(p), "") if p.isdigit() else (-1, p) for p in re.split(r"(\d+)", name)]
