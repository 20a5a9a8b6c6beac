"""A scan that grows subscan by subscan in another store, as a telescope writes it while it observes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gpucal.errors import GpucalError
from gpucal.io.l0.schema import ARRAYS, COUNTS, TRACK_ARRAYS, fill_value
from gpucal.io.l0.store import L0Store, open_l0
from gpucal.io.l0.write import create_l0

LAST_WRITTEN = "mjd"
"""A subscan is there once its time is: readers with ``partial`` go by it."""


class GrowingScan:
    """One scan of a night that is being copied into another store.

    The scan appears with its first subscan. Arrays have their full length from the beginning; what
    was not observed yet holds fill values, NaN times and empty modes.
    """

    def __init__(self, source: Any, store: Path) -> None:
        """``source``: the Zarr group of the scan; ``store``: path of the store to grow."""
        self._source = source
        self._store = store
        self._name: str = source.path.rpartition("/")[2]
        self._target: Any = None

    @property
    def bands(self) -> list[str]:
        """The names of its bands, "" for a scan without bands."""
        names = sorted(n for n, _ in self._source.groups() if n.startswith("band_"))
        return ["", *names] if any(n in self._source for n in ("source", "calibration")) else names

    def add(self, group: str, subscan: int, bands: Collection[str] | None = None) -> None:
        """Copy one subscan of ``group`` ("source", "calibration") of some bands, of every one that has it."""
        import zarr

        first = self._target is None
        staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=self._store)) if first else None
        try:
            if staging is not None:
                attrs = {**dict(self._source.attrs), "complete": False}
                form = self._source.metadata.zarr_format
                place = str(staging / self._name)
                self._target = zarr.create_group(place, zarr_format=form, attributes=attrs)
            for band in self.bands if bands is None else bands:
                self._add_to_band(band, group, subscan)
            if staging is not None:
                os.rename(staging / self._name, self._store / self._name)
                self._target = zarr.open_group(
                    str(self._store / self._name), mode="r+", use_consolidated=False
                )
        finally:
            if staging is not None:
                shutil.rmtree(staging, ignore_errors=True)

    def end(self) -> None:
        """The attributes become those of the original, ``complete`` among them."""
        if self._target is not None:
            wanted = dict(self._source.attrs)
            if "complete" not in wanted:
                del self._target.attrs["complete"]
            else:
                self._target.attrs["complete"] = wanted["complete"]

    def cut(self, place: str, n: int) -> None:
        """Leave the first ``n`` subscans of a group, as "source" or "band_1/source"."""
        cut_group(self._target[place], n)

    def _add_to_band(self, band: str, group: str, subscan: int) -> None:
        """Copy one subscan of a band ("" = of a scan without bands), its time last."""
        source = self._source.get(f"{band}/{group}".lstrip("/"))
        if source is None or subscan >= source[COUNTS].shape[4]:
            return
        parent = self._target
        if band:
            parent = parent.require_group(band)
            parent.attrs.update(dict(self._source[band].attrs))
        target = parent.get(group)
        if target is None:
            target = _empty_like(source, parent, group)
        _copy_counts(source[COUNTS], target[COUNTS], subscan)
        for name, array in source.arrays():
            if name not in (COUNTS, LAST_WRITTEN) and _per_subscan(name, array):
                target[name][..., subscan] = array[..., subscan]
        modes = list(source.attrs.get("sobsmode", []))
        if modes:
            known = list(target.attrs["sobsmode"])
            target.attrs["sobsmode"] = [*known[:subscan], modes[subscan], *known[subscan + 1 :]]
        target[LAST_WRITTEN][..., subscan] = source[LAST_WRITTEN][..., subscan]


def cut_group(group: Any, n: int) -> None:
    """Leave the first ``n`` subscans of a group of arrays."""
    for name, array in list(group.arrays()):
        if _per_subscan(name, array):
            array.resize((*array.shape[:-1], n))
    if "sobsmode" in group.attrs:
        group.attrs["sobsmode"] = list(group.attrs["sobsmode"])[:n]


def _per_subscan(name: str, array: Any) -> bool:
    """Whether the last axis of an array is that of the subscans."""
    if name not in ARRAYS:
        return False
    return any(len(dims) == array.ndim and dims.endswith("S") for dims in ARRAYS[name].dims)


def _copy_counts(source: Any, target: Any, subscan: int) -> None:
    """One subscan, a chunk of channels at a time."""
    step = source.chunks[0]
    for c0 in range(0, source.shape[0], step):
        target[c0 : c0 + step, ..., subscan] = source[c0 : c0 + step, ..., subscan]


def _empty_like(source: Any, parent: Any, group: str) -> Any:
    """The same arrays without their values; arrays that do not grow are copied."""
    attrs: Mapping[str, Any] = dict(source.attrs)
    modes = attrs.get("sobsmode")
    blank = {"sobsmode": [""] * len(modes)} if modes is not None else {}
    target = parent.create_group(group, attributes={**attrs, **blank})
    for name, array in source.arrays():
        dtype = np.dtype(array.dtype)
        made = _array_like(target, name, array)
        if name == COUNTS:
            continue
        if name in TRACK_ARRAYS or not _per_subscan(name, array):
            made[...] = array[...]
        else:
            made[...] = np.nan if dtype.kind == "f" else fill_value(dtype)
    return target


def _array_like(target: Any, name: str, array: Any) -> Any:
    """An array with the shape, chunks, codecs and attributes of another."""
    extra: dict[str, Any] = {}
    if array.metadata.zarr_format == 3:
        extra["dimension_names"] = array.metadata.dimension_names
    return target.create_array(
        name,
        shape=array.shape,
        dtype=array.dtype,
        chunks=array.chunks,
        compressors=array.compressors or None,
        filters=array.filters or None,
        fill_value=array.fill_value,
        attributes=dict(array.attrs),
        **extra,
    )


@contextmanager
def as_far_as_written(store: L0Store, number: int, folder: Path) -> Iterator[L0Store]:
    """A store that holds one scan as far as it has been written: ``store`` itself, or a copy below ``folder``.

    Where arrays have their full length from the beginning, what was never written is no part of the scan.
    """
    scan = store.scan_group(number)
    there = _subscans_written(store, number)
    whole = all(scan[place][COUNTS].shape[4] == n for place, n in there.items())
    if whole:
        yield store
        return
    with tempfile.TemporaryDirectory(prefix=".cut-", dir=folder) as name:
        path = Path(name) / "l0.zarr"
        root = {k: v for k, v in store.attrs.items() if k not in ("format", "format_version")}
        known = {k: root.pop(k, "") for k in ("telescope", "site", "instrument")}
        create_l0(path, **known, **root)
        growing = GrowingScan(scan, path)
        for place, n in there.items():
            band, _, group = place.rpartition("/")
            for subscan in range(n):
                growing.add(group, subscan, [band])
        growing.end()
        for place, n in there.items():
            growing.cut(place, n)
        yield open_l0(path)


def _subscans_written(store: L0Store, number: int) -> dict[str, int]:
    """Group of a scan ("band_1/source") -> how many of its subscans were written; empty where it cannot be read."""
    try:
        bands = store.load(number, partial=True, t_hot_given=True, broken={})
    except GpucalError:
        return {}
    return {
        f"{scan.band}/{name}".lstrip("/"): group.shape[4]
        for scan in bands
        for name, group in (("source", scan.source), ("calibration", scan.calibration))
        if group is not None
    }
