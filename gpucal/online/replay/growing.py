"""A scan that grows subscan by subscan in another store, as a telescope writes it while it observes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpucal.io.l0.schema import ARRAYS, COUNTS, TRACK_ARRAYS, fill_value

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

    def add(self, group: str, subscan: int) -> None:
        """Copy one subscan of ``group`` ("source", "calibration") of every band that has it."""
        import zarr

        first = self._target is None
        staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=self._store)) if first else None
        try:
            if staging is not None:
                attrs = {**dict(self._source.attrs), "complete": False}
                form = self._source.metadata.zarr_format
                place = str(staging / self._name)
                self._target = zarr.create_group(place, zarr_format=form, attributes=attrs)
            for band in ["", *(n for n, _ in self._source.groups() if n.startswith("band_"))]:
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
            target.attrs["sobsmode"] = modes[: subscan + 1] + [""] * (len(modes) - subscan - 1)
        target[LAST_WRITTEN][..., subscan] = source[LAST_WRITTEN][..., subscan]


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
