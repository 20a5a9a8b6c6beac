"""A calibrated scan in memory that looks like one of an L1 store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.io.conventions.flat import flat_attributes
from gpucal.io.l1.reader import COORDINATES, no_array, require_xarray
from gpucal.io.l1.usable import with_usable_spectra


@dataclass(frozen=True, eq=False)
class MemoryArray:
    """Values with names of axes and attributes, sliced as a Zarr array is."""

    values: npt.NDArray[Any]
    dims: tuple[str, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def chunks(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def dtype(self) -> Any:
        return self.values.dtype

    def __getitem__(self, index: Any) -> Any:
        """A copy, as Zarr gives: who edits it leaves the scan alone."""
        return np.array(self.values[index])

    def __repr__(self) -> str:
        sizes = ", ".join(f"{d} {n}" for d, n in zip(self.dims, self.shape, strict=True))
        return f"<MemoryArray {self.dtype} ({sizes}) {self.attrs.get('units', '')}>"


@dataclass(frozen=True, eq=False)
class MemoryScan:
    """One band of a calibrated scan; attributes as in L1, ``scan["spectra"]`` is an array.

    store_attrs: of the raw store: telescope, site, instrument.
    """

    number: int
    band: str
    attrs: Mapping[str, Any]
    store_attrs: Mapping[str, Any]
    arrays: Mapping[str, MemoryArray]

    bands: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> MemoryArray:
        """Return an array by name; raises L1Error (a KeyError, too) naming those there."""
        if name in self.arrays:
            return self.arrays[name]
        raise no_array(name, list(self.arrays), self.number, self.band)

    def __contains__(self, name: object) -> bool:
        return name in self.arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def _ipython_key_completions_(self) -> list[str]:
        return list(self.arrays)

    def __repr__(self) -> str:
        label = f"scan {self.number}" + (f" {self.band}" if self.band else "")
        return f"<gpucal calibrated {label} in memory: {', '.join(self.arrays)}>"

    def to_xarray(self) -> Any:
        """Return an ``xarray.Dataset``, as ``L1Scan.to_xarray``; raises L1Error without xarray.

        Its arrays are those of the scan, and read-only.
        """
        xarray = require_xarray()
        variables = {}
        for name, array in self.arrays.items():
            values = np.asarray(array.values).view()
            values.flags.writeable = False
            variables[name] = (array.dims, values, flat_attributes(array.attrs))
        dataset = xarray.Dataset(variables, attrs=flat_attributes(self.attrs))
        dataset = with_usable_spectra(dataset)
        return dataset.set_coords([name for name in COORDINATES if name in dataset])
