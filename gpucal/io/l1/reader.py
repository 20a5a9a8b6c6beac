"""Read an L1 store lazily: scans, bands, Zarr arrays, and xarray datasets on request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np
import zarr

from gpucal.errors import L1Error, L1KeyError, did_you_mean
from gpucal.io.chunks.zarr_metadata import read_group, scan_name, scan_number
from gpucal.io.conventions.flat import flat_attributes
from gpucal.io.l1.usable import with_usable_spectra
from gpucal.io.l1.writer import FORMAT, FORMAT_VERSION
from gpucal.notebook import html_of
from gpucal.scan_numbers import counted_scans

COORDINATES = (
    "frequency",
    "image_frequency",
    "mjd",
    "exptime",
    "elevation",
    "azimuth",
    "otf_lon",
    "otf_lat",
    "pixel_offset_lon",
    "pixel_offset_lat",
    "on_index",
    "off_index_per_on",
)
"""Arrays that say where and when, rather than what was measured."""


def open_l1(path: str | Path) -> L1:
    """Open a calibrated store for reading; no array is read.

    Raises L1Error when the path holds no L1 store that this version can read.
    """
    return L1(path)


class L1:
    """A calibrated store; ``store[25650]`` is a scan, ``store[25650, "band_1"]`` one band of it."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        hint = "Give the directory that gpucal calibrate wrote."
        if not self.path.exists():
            raise L1Error(f"{self.path} does not exist.", hint=hint)
        document = read_group(self.path)
        if document is None and self.path.is_file() and is_zipfile(self.path):
            raise L1Error(
                f"{self.path} is a zip archive, expected the directory of a calibrated store.",
                hint=f"Unpack it: unzip {self.path.name} -d {self.path.stem}.l1",
            )
        if document is None:
            raise L1Error(f"{self.path} is not a Zarr v3 group.", hint=hint)
        self.attrs: dict[str, Any] = document
        found = self.attrs.get("format")
        if found != FORMAT:
            raise L1Error(f"{self.path} has the format {found!r}, expected {FORMAT!r}.", hint=hint)
        version = self.attrs.get("format_version")
        if version != FORMAT_VERSION:
            raise L1Error(
                f"{self.path} has format_version {version!r}, expected {FORMAT_VERSION}.",
                hint="Update gpucal, or calibrate again.",
            )

    def scans(self) -> list[int]:
        """Numbers of the scans that are there now, ascending; each of them is whole."""
        names = (entry.name for entry in self.path.iterdir() if (entry / "zarr.json").is_file())
        return sorted(n for name in names if (n := scan_number(name)) is not None)

    def scan(self, number: int, band: str = "") -> L1Scan:
        """Return a scan, or one band ("band_1") of it.

        Raises L1Error (a KeyError, too) naming the scans, or the bands, that are there.
        """
        known = _whole(number)
        if known is None:
            raise L1KeyError(f"a scan is named by its number, not by {number!r}.", hint=self._has())
        folder = self.path / scan_name(known)
        attributes = read_group(folder)
        if attributes is None:
            raise L1KeyError(f"{self.path} has no scan {known}.", hint=self._has())
        scan = L1Scan(folder, known, "", attributes, self.attrs)
        return scan.band_scan(band) if band else scan

    def _has(self) -> str:
        return f"It has {counted_scans(self.scans())}."

    def to_xarray(self, number: int, band: str = "", *, group: str = "") -> Any:
        """Return a scan, or one band or group of it, as ``xarray.Dataset``; see ``L1Scan.to_xarray``."""
        return self.scan(number, band).to_xarray(group)

    def __getitem__(self, key: int | tuple[int, str]) -> L1Scan:
        pair = isinstance(key, tuple) and len(key) == 2
        return self.scan(*key) if pair else self.scan(key)  # type: ignore[misc,arg-type]

    def __fspath__(self) -> str:
        return str(self.path)

    def _ipython_key_completions_(self) -> list[int]:
        return self.scans()

    def __contains__(self, number: object) -> bool:
        known = _whole(number)
        return known is not None and read_group(self.path / scan_name(known)) is not None

    def __iter__(self) -> Iterator[int]:
        return iter(self.scans())

    def __len__(self) -> int:
        return len(self.scans())

    def __repr__(self) -> str:
        where = self.attrs.get("telescope")
        origin = f", {where}" if where else ""
        return f"<gpucal L1 {self.path}{origin}: {counted_scans(self.scans())}>"

    def _repr_html_(self) -> str:
        """The scans with what their attributes say; no array is read."""
        rows = [_row(self.path / scan_name(number), number) for number in self.scans()]
        telescope = str(self.attrs.get("telescope") or "")
        title = f"calibrated store {self.path.name}" + (f", {telescope}" if telescope else "")
        return html_of(
            title, ("scan", "source", "line", "mode", "T_sys", "bands"), rows, str(self.path)
        )


class L1Scan:
    """One scan, or one band of it; ``scan["spectra"]`` is a Zarr array, read when it is sliced.

    ``attrs`` are the attributes of the scan, for a band with those of the band on top; ``store_attrs`` those
    of the store: telescope, site, instrument.
    """

    def __init__(
        self,
        path: Path,
        number: int,
        band: str,
        attrs: dict[str, Any],
        store_attrs: Mapping[str, Any],
    ) -> None:
        self.path = path
        self.store_attrs = store_attrs
        self.number = number
        self.band = band
        self.attrs = attrs
        self._group = zarr.open_group(path, mode="r", zarr_format=3, use_consolidated=False)
        self._arrays = dict(sorted(self._group.arrays()))

    @property
    def groups(self) -> list[str]:
        """Names of the groups below: bands, skydiff, skychopdiff."""
        names = (entry.name for entry in self.path.iterdir() if entry.name not in self._arrays)
        return sorted(name for name in names if (self.path / name / "zarr.json").is_file())

    @property
    def bands(self) -> list[str]:
        """Names of the bands; empty when the scan itself holds the arrays."""
        return [name for name in self.groups if name.startswith("band_")]

    def band_scan(self, band: str) -> L1Scan:
        """Return one band of this scan; raises L1Error naming the bands there are."""
        if band not in self.bands:
            there = f"Its bands are {', '.join(self.bands)}." if self.bands else "It has no bands."
            raise L1KeyError(f"there is no {band!r}.", hint=there, scan=self.number)
        folder = self.path / band
        attributes = {**self.attrs, **(read_group(folder) or {})}
        return L1Scan(folder, self.number, band, attributes, self.store_attrs)

    def __getitem__(self, name: str) -> zarr.Array[Any]:
        """Return an array by name, also "skydiff/spectrum_K".

        Raises L1Error (a KeyError, too) naming those there.
        """
        if isinstance(name, str) and name in self._arrays:
            return self._arrays[name]
        if isinstance(name, str) and "/" in name.strip("/"):
            found = self._group.get(name)
            if isinstance(found, zarr.Array):
                return found
        there = [*self._arrays, *(f"{group}/" for group in self.groups)]
        raise no_array(name, there, self.number, self.band)

    def _ipython_key_completions_(self) -> list[str]:
        return list(self._arrays)

    def __contains__(self, name: object) -> bool:
        return name in self._arrays or (
            isinstance(name, str) and isinstance(self._group.get(name), zarr.Array)
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def to_xarray(self, group: str = "") -> Any:
        """Return an ``xarray.Dataset`` of this level, or of ``group`` below it ("skydiff").

        Values are read when they are used. Frequencies, times and positions are coordinates. Spectra are
        NaN where a flag of ``UNUSABLE`` is set, those set by hand included; ``scan["spectra"]`` has all.
        It can be written to netCDF: attributes that are dictionaries are JSON texts, see ``L1Scan.attrs``.
        Raises L1Error when xarray is not installed or the group is not there.
        """
        xarray = require_xarray()
        if group and read_group(self.path / group) is None:
            raise L1KeyError(
                f"there is no group {group!r}.",
                hint=f"It has {', '.join(self.groups) or 'none'}.",
                scan=self.number,
                band=self.band,
            )
        dataset = xarray.open_zarr(
            self.path / group,
            chunks=None,
            consolidated=False,
            zarr_format=3,
            decode_times=False,
        )
        for variable in dataset.variables.values():
            variable.attrs = flat_attributes(variable.attrs)
        dataset.attrs = flat_attributes(dataset.attrs)
        dataset = with_usable_spectra(dataset)
        return dataset.set_coords([name for name in COORDINATES if name in dataset])

    def __repr__(self) -> str:
        label = f"scan {self.number}" + (f" {self.band}" if self.band else "")
        said = [str(self.attrs[k]) for k in ("source", "line", "mode") if self.attrs.get(k)]
        lines = [f"<gpucal L1 {label}>  {', '.join(said)}".rstrip()]
        width = max(map(len, self._arrays), default=0)
        for name, array in self._arrays.items():
            sizes = _axes(array)
            units = str(array.attrs.get("units", ""))
            lines.append(f"  {name:{width}}  {array.dtype}  ({sizes})  {units}".rstrip())
        lines.extend(f"  {name}/" for name in self.groups)
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """The arrays: names, types, axes and units; none is read."""
        label = f"scan {self.number}" + (f" {self.band}" if self.band else "")
        said = [str(self.attrs[k]) for k in ("source", "line", "mode") if self.attrs.get(k)]
        rows = [(n, a.dtype, _axes(a), a.attrs.get("units", "")) for n, a in self._arrays.items()]
        title = f"calibrated {', '.join([label, *said])}"
        groups = f"groups: {', '.join(self.groups)}" if self.groups else ""
        return html_of(title, ("array", "type", "axes", "unit"), rows, groups)


def _axes(array: zarr.Array[Any]) -> str:
    """Names and sizes of the axes: "channel 2048, receiver 2"."""
    dims = array.metadata.dimension_names or ()  # type: ignore[union-attr]
    return ", ".join(f"{d} {n}" for d, n in zip(dims, array.shape, strict=True))


def require_xarray() -> Any:
    """The package xarray; raises L1Error without."""
    try:
        import xarray
    except ImportError as error:
        raise L1Error("xarray is not installed.", hint="pip install xarray") from error
    return xarray


def no_array(name: object, there: Sequence[str], scan: int, band: str) -> L1KeyError:
    """The error for an array that a scan does not have; ``there``: what it has."""
    near = did_you_mean(name, there) if isinstance(name, str) else ""
    have = f"It has {', '.join(there) or 'nothing'}."
    said = f"there is no array {name!r}{near and f'; {near}'}"
    text = said if near else f"{said}."
    return L1KeyError(text, hint=have, scan=scan, band=band)


def _whole(number: object) -> int | None:
    """A scan number, also one of NumPy; None for anything else."""
    usable = isinstance(number, int | np.integer) and not isinstance(number, bool) and number >= 0
    return int(number) if usable else None  # type: ignore[call-overload]


def _row(folder: Path, number: int) -> tuple[object, ...]:
    """What the attributes of a scan say, for a table."""
    bands = sorted(entry.name for entry in folder.glob("band_*"))
    attrs = {
        **(read_group(folder) or {}),
        **((read_group(folder / bands[0]) or {}) if bands else {}),
    }
    said = [str(attrs.get(key) or "") for key in ("source", "line", "mode")]
    t_sys = (attrs.get("qa") or {}).get("t_sys_median")
    return (number, *said, f"{t_sys:.4g} K" if isinstance(t_sys, float) else "", ", ".join(bands))
