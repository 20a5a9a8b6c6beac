"""Sums over the values of one quantity in two stores, pixel by pixel, gathered block by block."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.compare.products import F64, Change

F32_ROUNDING = 2.0**-24
"""Largest relative error of a number in f32."""


class PixelSums:
    """Sums of pairs of values [..., R, A]; ``rounding``: what of a difference is explained."""

    def __init__(self, quantity: str, unit: str, pixels: tuple[int, int], rounding: float = 0.0):
        self._place = quantity, unit
        self._rounding = rounding
        names = ("count", "known", "only_old", "only_new", "old", "new", "old2", "cross", "square")
        self._sum = {name: np.zeros(pixels) for name in names}
        self._most = {name: np.zeros(pixels) for name in ("largest", "relative", "sigma")}

    def add(
        self,
        old: npt.NDArray[np.floating],
        new: npt.NDArray[np.floating],
        *,
        floor: F64 | float = 0.0,
        sigma: F64 | float = np.nan,
    ) -> None:
        """Add values, NaN where there is none.

        floor: least value that a difference is relative to; sigma: what is expected of it, NaN where not known.
        """
        here, there = np.isfinite(old), np.isfinite(new)
        both = here & there
        self._sum["count"] += self._total(both)
        if both.all():
            a, b = old, new
        else:
            self._sum["only_old"] += self._total(here & ~there)
            self._sum["only_new"] += self._total(there & ~here)
            a, b = (np.where(both, v, 0.0) for v in (old, new))
        difference = b - a
        for name, values in (("old", a), ("new", b), ("old2", a * a), ("cross", a * b)):
            self._sum[name] += self._total(values)
        self._sum["square"] += self._total(difference * difference)
        known = both & np.isfinite(sigma)
        self._sum["known"] += self._total(known)
        size = np.abs(difference)
        self._note("largest", size)
        # Half a step and the difference are both rounded to the bits of f64.
        explained = size <= self._rounding * (1.0 + 1e-12)
        if self._rounding > 0:  # spikes and broken pixels keep the bits of f32
            explained |= size <= F32_ROUNDING * np.abs(a)
        if explained.all():
            return
        beyond = np.where(explained, 0.0, size - self._rounding)
        with np.errstate(divide="ignore", invalid="ignore"):
            least = np.maximum(np.abs(a), np.nan_to_num(floor))
            self._note("relative", np.where(beyond > 0, beyond / least, 0.0))
            self._note("sigma", np.where(known & (beyond > 0), beyond / sigma, 0.0))

    def _total(self, values: npt.NDArray[Any]) -> F64:
        """Sum over all axes but those of the pixels; as a product of matrices, as rows of few pixels are short."""
        pixels = self._sum["count"].shape
        rows = values.reshape(-1, math.prod(pixels)).astype(np.float64, copy=False)
        return np.asarray((np.ones(len(rows)) @ rows).reshape(pixels))

    def _note(self, name: str, values: F64) -> None:
        pixels = self._most[name].shape
        if values.size:
            most = values.reshape(-1, math.prod(pixels)).max(axis=0).reshape(pixels)
            self._most[name] = np.maximum(self._most[name], most)

    def change(self) -> Change:
        """What was gathered."""
        sums, n = self._sum, self._sum["count"]

        def over(name: str, by: F64) -> F64:
            found = np.full(n.shape, np.nan)
            np.divide(sums[name], by, out=found, where=by > 0)
            return found

        quantity, unit = self._place
        return Change(
            quantity,
            unit,
            count=n,
            only_old=sums["only_old"],
            only_new=sums["only_new"],
            old=over("old", n),
            new=over("new", n),
            ratio=over("cross", sums["old2"]),
            rms=np.sqrt(over("square", n)),
            largest=np.where(n > 0, self._most["largest"], np.nan),
            relative=np.where(n > 0, self._most["relative"], np.nan),
            sigma=np.where(sums["known"] > 0, self._most["sigma"], np.nan),
            rounding=self._rounding,
        )
