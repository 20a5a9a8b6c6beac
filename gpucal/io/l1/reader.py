"""Read an L1 store lazily: scans, bands, Zarr arrays, and xarray datasets on request."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zarr

from gpucal.errors import L1Error
from gpucal.io.chunks.regular_store import CheckedFiles
from gpucal.io.chunks.zarr_metadata import read_group, scan_name, scan_number
from gpucal.io.conventions.flat import flat_attributes
from gpucal.io.l1.writer import FORMAT, FORMAT_VERSION

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
    """A calibrated store; ``store[25650]`` is a scan."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        hint = "Give the directory that gpucal calibrate wrote."
        if not self.path.exists():
            raise L1Error(f"{self.path} does not exist.", hint=hint)
        document = read_group(self.path)
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

        Raises L1Error naming the scans, or the bands, that are there.
        """
        folder = self.path / scan_name(number)
        attributes = read_group(folder)
        if attributes is None:
            raise L1Error(
                f"{self.path} has no scan {number}.", hint=f"It has {_ranges(self.scans())}."
            )
        scan = L1Scan(folder, number, "", attributes)
        return scan.band_scan(band) if band else scan

    def to_xarray(self, number: int, band: str = "", *, group: str = "") -> Any:
        """Return a scan, or one band or group of it, as ``xarray.Dataset``; see ``L1Scan.to_xarray``."""
        return self.scan(number, band).to_xarray(group)

    def __getitem__(self, number: int) -> L1Scan:
        return self.scan(number)

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and read_group(self.path / scan_name(number)) is not None

    def __iter__(self) -> Iterator[int]:
        return iter(self.scans())

    def __len__(self) -> int:
        return len(self.scans())

    def __repr__(self) -> str:
        where = self.attrs.get("telescope")
        origin = f", {where}" if where else ""
        return f"<gpucal L1 {self.path}{origin}: {_ranges(self.scans())}>"


class L1Scan:
    """One scan, or one band of it; ``scan["spectra"]`` is a Zarr array, read when it is sliced.

    ``attrs`` are the attributes of the scan, for a band with those of the band on top.
    """

    def __init__(self, path: Path, number: int, band: str, attrs: dict[str, Any]) -> None:
        self.path = path
        self.number = number
        self.band = band
        self.attrs = attrs
        store = CheckedFiles(path, read_only=True)
        self._group = zarr.open_group(store, mode="r", zarr_format=3, use_consolidated=False)
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
            raise L1Error(f"there is no {band!r}.", hint=there, scan=self.number)
        folder = self.path / band
        attributes = {**self.attrs, **(read_group(folder) or {})}
        return L1Scan(folder, self.number, band, attributes)

    def __getitem__(self, name: str) -> zarr.Array[Any]:
        """Return an array by name, also "skydiff/spectrum_K"; raises L1Error naming those there."""
        if name in self._arrays:
            return self._arrays[name]
        if "/" in name:
            found = self._group.get(name)
            if isinstance(found, zarr.Array):
                return found
        have = f"It has {', '.join([*self._arrays, *(f'{g}/' for g in self.groups)]) or 'nothing'}."
        raise L1Error(f"there is no array {name!r}.", hint=have, scan=self.number, band=self.band)

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

        Values are read when they are used. Frequencies, times and positions are coordinates. It can
        be written to netCDF: attributes that are dictionaries are JSON texts, see ``L1Scan.attrs``.
        Raises L1Error when xarray is not installed or the group is not there.
        """
        try:
            import xarray
        except ImportError as error:
            raise L1Error("xarray is not installed.", hint="pip install xarray") from error
        if group and read_group(self.path / group) is None:
            raise L1Error(
                f"there is no group {group!r}.",
                hint=f"It has {', '.join(self.groups) or 'none'}.",
                scan=self.number,
                band=self.band,
            )
        dataset = xarray.open_zarr(
            CheckedFiles(self.path / group, read_only=True),
            chunks=None,
            consolidated=False,
            zarr_format=3,
            decode_times=False,
        )
        for variable in dataset.variables.values():
            variable.attrs = flat_attributes(variable.attrs)
        dataset.attrs = flat_attributes(dataset.attrs)
        return dataset.set_coords([name for name in COORDINATES if name in dataset])

    def __repr__(self) -> str:
        label = f"scan {self.number}" + (f" {self.band}" if self.band else "")
        said = [str(self.attrs[k]) for k in ("source", "line", "mode") if self.attrs.get(k)]
        lines = [f"<gpucal L1 {label}>  {', '.join(said)}".rstrip()]
        width = max(map(len, self._arrays), default=0)
        for name, array in self._arrays.items():
            dims = array.metadata.dimension_names or ()  # type: ignore[union-attr]
            sizes = ", ".join(f"{d} {n}" for d, n in zip(dims, array.shape, strict=True))
            units = str(array.attrs.get("units", ""))
            lines.append(f"  {name:{width}}  {array.dtype}  ({sizes})  {units}".rstrip())
        lines.extend(f"  {name}/" for name in self.groups)
        return "\n".join(lines)


def _ranges(numbers: list[int]) -> str:
    """The number and ranges of scans in words: "3 scans: 1, 5-6"."""
    if not numbers:
        return "no scans"
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    shown = [f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
    if len(shown) > 12:
        shown = [*shown[:6], "...", *shown[-5:]]
    return f"{len(numbers)} scan{'s' if len(numbers) > 1 else ''}: {', '.join(shown)}"
