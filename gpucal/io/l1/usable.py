"""Spectra of L1 without the samples that their flags call unusable; read only when used."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.axes import UNUSABLE


def usable(
    spectra: npt.NDArray[Any], flags: npt.NDArray[np.unsignedinteger[Any]]
) -> npt.NDArray[Any]:
    """A copy of the spectra with NaN where a flag of UNUSABLE is set; both arrays have one shape."""
    return np.where((flags & flags.dtype.type(int(UNUSABLE))) != 0, np.nan, spectra).astype(
        spectra.dtype, copy=False
    )


def usable_block(arrays: Any, key: tuple[Any, ...]) -> npt.NDArray[np.float64]:
    """``arrays["spectra"][key]`` as f64, NaN where unusable; ``arrays`` is a scan of L1."""
    block = np.asarray(arrays["spectra"][key], dtype=np.float64)
    if "flags" not in arrays:
        return block
    return usable(block, np.asarray(arrays["flags"][key]))


def with_usable_spectra(dataset: Any) -> Any:
    """An xarray.Dataset of a scan whose ``spectra`` are NaN where its ``flags`` say unusable, still lazy."""
    if "spectra" not in dataset or "flags" not in dataset:
        return dataset
    from xarray import Variable
    from xarray.backends import BackendArray
    from xarray.core import indexing

    spectra, flags = dataset["spectra"].variable, dataset["flags"].variable
    if spectra.dims != flags.dims:  # no L1 of ours
        return dataset

    class Usable(BackendArray):  # type: ignore[misc]
        """Reads both arrays where the spectra are asked for."""

        shape, dtype = spectra.shape, spectra.dtype

        def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
            support = indexing.IndexingSupport.OUTER
            return indexing.explicit_indexing_adapter(key, self.shape, support, self._read)

        def _read(self, key: tuple[Any, ...]) -> Any:
            where = dict(zip(spectra.dims, key, strict=True))
            return usable(spectra.isel(where).to_numpy(), flags.isel(where).to_numpy())

    lazy = indexing.LazilyIndexedArray(Usable())
    masked = Variable(spectra.dims, lazy, spectra.attrs, spectra.encoding)
    return dataset.assign(spectra=masked)
