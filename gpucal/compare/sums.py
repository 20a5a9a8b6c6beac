"""Sums over the values of one quantity in two stores, pixel by pixel, gathered block by block."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gpucal.compare.products import F64, Change


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
        axes = tuple(range(old.ndim - 2))
        here, there = np.isfinite(old), np.isfinite(new)
        both = here & there
        a, b = (np.where(both, v, 0.0) for v in (old, new))
        difference = b - a
        known = both & np.isfinite(sigma)
        add = {
            "count": both,
            "known": known,
            "only_old": here & ~there,
            "only_new": there & ~here,
            "old": a,
            "new": b,
            "old2": a * a,
            "cross": a * b,
            "square": difference * difference,
        }
        for name, values in add.items():
            self._sum[name] += values.sum(axis=axes)
        size = np.abs(difference)
        self._note("largest", size, axes)
        # As many bits as f64 leaves: half a step and the difference are both rounded to them.
        beyond = np.where(size <= self._rounding * (1.0 + 1e-12), 0.0, size - self._rounding)
        with np.errstate(divide="ignore", invalid="ignore"):
            least = np.maximum(np.abs(a), np.nan_to_num(floor))
            self._note("relative", np.where(beyond > 0, beyond / least, 0.0), axes)
            self._note("sigma", np.where(known & (beyond > 0), beyond / sigma, 0.0), axes)

    def _note(self, name: str, values: F64, axes: tuple[int, ...]) -> None:
        if values.size:
            self._most[name] = np.maximum(self._most[name], values.max(axis=axes))

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
