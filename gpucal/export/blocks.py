"""Channel blocks of an L1 array as spectra: read slab by slab, never more than a byte budget.

L1 holds blocks of channels of all dumps and pixels, an exporter wants one spectrum after the other.
A subscan that fits into the budget is read once, a larger one as often as the budget demands.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.axes import UNUSABLE
from gpucal.io.chunks.counts import ZarrCounts
from gpucal.io.l1.reader import L1Scan

F64 = npt.NDArray[np.float64]

BUDGET_BYTES = 256 * 2**20
"""Bytes of spectra in work at a time."""


class SpectraReader:
    """Blanked spectra of one band, [c, D, R, A] of one subscan at a time."""

    def __init__(self, scan: L1Scan, budget: int = BUDGET_BYTES) -> None:
        self.shape: tuple[int, int, int, int, int] = scan["spectra"].shape  # type: ignore[assignment]
        place: dict[str, Any] = {"scan": scan.number, "band": scan.band, "calibrated": True}
        # a chunk is wanted once per pass: the cache only serves chunks cut into several steps
        self._spectra = ZarrCounts(scan["spectra"], cache_bytes=0, **place)
        self._flags = ZarrCounts(scan["flags"], cache_bytes=0, **place) if "flags" in scan else None
        _, d, r, a, _ = self.shape
        row = max(1, d * r * a * 8)
        self.step = max(1, min(self._spectra.chunks[0], budget // (4 * row)))

    def steps(self) -> Iterator[tuple[int, int]]:
        """Channel ranges of ``read``, none across the border of two chunks."""
        chunk, n = self._spectra.chunks[0], self.shape[0]
        for first in range(0, n, chunk):
            last = min(first + chunk, n)
            for c0 in range(first, last, self.step):
                yield c0, min(c0 + self.step, last)

    def read(self, c0: int, c1: int, subscan: int) -> F64:
        """Channels c0..c1 as f64 [c1-c0, D, R*A], K, NaN where a sample is unusable.

        Raises CorruptDataError for a chunk that cannot be decoded.
        """
        _, d, r, a, _ = self.shape
        values = np.asarray(self._spectra.read(c0, c1, subscan), dtype=np.float64)
        if self._flags is not None:
            bad = (self._flags.read(c0, c1, subscan) & np.uint16(int(UNUSABLE))) != 0
            values[bad] = np.nan
        return values.reshape(c1 - c0, d, r * a)


def slabs(n_items: int, item_bytes: int, budget: int) -> Iterator[tuple[int, int]]:
    """Ranges of items that fit into the budget, at least one item each."""
    step = max(1, budget // max(1, item_bytes))
    for first in range(0, n_items, step):
        yield first, min(first + step, n_items)


def pixel_medians(array: Any, subscan: int | None, scale: F64 | None, budget: int) -> F64:
    """Median over channels of an array [C, R, A] or, at ``subscan``, [C, R, A, S]: f64 [R, A].

    scale: f64 [C, 1 or R], multiplied before. NaN are left out; a pixel without a value is NaN.
    """
    n_channels, receivers, pixels = array.shape[:3]
    out = np.full(receivers * pixels, np.nan)
    step = max(1, min(array.chunks[0], budget // (4 * 8 * max(1, receivers * pixels))))
    for first, last in slabs(receivers * pixels, n_channels * 8 * 3, budget):
        block = np.empty((last - first, n_channels))
        for c0 in range(0, n_channels, step):
            key = (slice(c0, c0 + step), slice(None), slice(None))
            part = np.asarray(array[key if subscan is None else (*key, subscan)], dtype=np.float64)
            if scale is not None:
                part = part * scale[c0 : c0 + step, :, None]
            block[:, c0 : c0 + step] = part.reshape(part.shape[0], -1)[:, first:last].T
        for item in range(last - first):
            good = block[item][np.isfinite(block[item])]
            if good.size:
                out[first + item] = np.median(good)
    return out.reshape(receivers, pixels)
