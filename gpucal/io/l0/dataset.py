"""A group of raw counts as ``xarray.Dataset``; import this module only where xarray is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core.indexing import (
    IndexingSupport,
    LazilyIndexedArray,
    explicit_indexing_adapter,
)

from gpucal.io.conventions.flat import flat_attributes
from gpucal.io.l0.schema import ARRAYS, COUNTS, dimension_names
from gpucal.scan import CountsSource, SubscanGroup


def group_dataset(group: SubscanGroup, attrs: Mapping[str, Any]) -> Any:
    """Dataset with ``data_5d`` [C,D,R,A,S] read on demand and the small arrays in memory."""
    counts = LazilyIndexedArray(_LazyCounts(group.counts))
    variables: dict[str, Any] = {
        COUNTS: xr.Variable(dimension_names(COUNTS, 5), counts, {"units": ARRAYS[COUNTS].unit})
    }
    for name, rule in ARRAYS.items():
        values = getattr(group, name, None)
        if values is not None:
            names = dimension_names(name, values.ndim)
            variables[name] = xr.Variable(names, values, {"units": rule.unit})
    coords = {"sobsmode": ("subscan", np.array(group.sobsmode))}
    return xr.Dataset(variables, coords=coords, attrs=flat_attributes(attrs))


class _LazyCounts(BackendArray):  # type: ignore[misc]
    """Counts read subscan by subscan, only the span of channels that is asked for."""

    def __init__(self, counts: CountsSource) -> None:
        self.counts = counts
        self.shape = counts.shape
        self.dtype = counts.dtype

    def __getitem__(self, key: Any) -> Any:
        return explicit_indexing_adapter(key, self.shape, IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[Any, ...]) -> Any:
        """key: five integers or slices."""
        channels = np.atleast_1d(np.arange(self.shape[0])[key[0]])
        subscans = np.atleast_1d(np.arange(self.shape[4])[key[4]])
        if not channels.size or not subscans.size:
            return np.empty(np.broadcast_to(np.uint8(0), self.shape)[key].shape, self.dtype)
        first, last = int(channels.min()), int(channels.max())
        blocks = [self.counts.read(first, last + 1, int(s))[channels - first] for s in subscans]
        ends = [slice(None) if isinstance(key[i], slice) else 0 for i in (0, 4)]
        return np.stack(blocks, axis=-1)[(ends[0], *key[1:4], ends[1])]
