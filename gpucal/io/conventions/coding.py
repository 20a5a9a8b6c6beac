"""From stored numbers to the values that they stand for: no data, packing, unit.

Source: CF conventions 1.11, sections 2.5.1 (missing data, valid range) and 8.1 (packed data).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.axes import FEWEST_CHANNELS, FILL_INT32

Array = npt.NDArray[Any]
Linear = tuple[float, float, float]
"""(factor, divisor, offset): value = stored * factor / divisor + offset; exact where a factor is not."""

NO_COUNT = 1e30
"""No counter reaches it: the fill value of netCDF (9.97e36) and the largest float, written without a word."""

IDENTITY: Linear = (1.0, 1.0, 0.0)


@dataclass(frozen=True)
class Coding:
    """What the attributes of one array say about its stored numbers.

    blanks: stored values that mean no data; low, high: stored values outside are no data. scale:
    from the packed number to the value; unit: from its unit to ours. names: the attributes that say
    so, for messages.
    """

    blanks: tuple[float | int, ...] = ()
    low: float | None = None
    high: float | None = None
    scale: Linear = IDENTITY
    unit: Linear = IDENTITY
    names: tuple[str, ...] = ()

    @property
    def linear(self) -> bool:
        """Whether numbers change, not only which of them mean no data."""
        return self.scale != IDENTITY or self.unit != IDENTITY

    @property
    def masks(self) -> bool:
        """Whether some stored values mean no data."""
        return bool(self.blanks) or self.low is not None or self.high is not None

    @property
    def plain(self) -> bool:
        """Whether the stored numbers are the values."""
        return not (self.linear or self.masks)

    def lost(self, stored: Array) -> npt.NDArray[np.bool_] | None:
        """Where the stored numbers mean no data; None where no number can."""
        if not self.masks:
            return None
        found = np.zeros(stored.shape, dtype=np.bool_)
        for blank in self.blanks:
            found |= stored == np.asarray(blank).astype(stored.dtype)
        if self.low is not None:
            found |= stored < self.low
        if self.high is not None:
            found |= stored > self.high
        return found

    def values(self, stored: Array) -> Array:
        """The values, f64 where numbers change; integers in which some are lost become f64 with NaN."""
        if self.plain:
            return stored
        lost = self.lost(stored)
        values = _line(_line(stored, self.scale), self.unit) if self.linear else stored
        if lost is None or not lost.any():
            return values
        if values.dtype.kind != "f":
            values = values.astype(np.float64)
        return np.where(lost, values.dtype.type(np.nan), values)

    def count_dtype(self, stored: np.dtype[Any]) -> np.dtype[Any]:
        """dtype of decoded counts: one that can hold them, and no data where there may be some."""
        native = stored.newbyteorder("=")
        if self.linear or (self.masks and native.kind != "f" and native != np.dtype(np.int32)):
            return np.dtype(np.float64)
        return native

    def counts(self, stored: Array, *, zeros_lost: bool) -> Array:
        """Decoded counts [c, D, R, A, S] of a whole chunk, in its memory where the dtype stays.

        A float of -2147483648 is what is left of INT32_MIN after a cast, one of 1e30 or more a fill value:
        no data. With ``zeros_lost``
        a dump whose counts are 0 in every channel of the chunk was never written, or not recorded:
        no data, where the dtype has a value for it (u32 has none).
        """
        lost = self.lost(stored)
        dead = _dead(stored) if zeros_lost else None
        values = stored
        if self.linear:
            values = _line(_line(stored, self.scale), self.unit)
            if stored.dtype == np.int32 and stored.min() == FILL_INT32:
                values[stored == FILL_INT32] = np.nan
        values = values.astype(self.count_dtype(stored.dtype), copy=False)
        if values.dtype.kind == "f":
            cast = _cast_fill(stored)
            lost = cast if lost is None else lost if cast is None else lost | cast
        blank = np.nan if values.dtype.kind == "f" else FILL_INT32
        if lost is not None and lost.any():
            values[lost] = blank
        if dead is not None and values.dtype != np.dtype(np.uint32):
            values[:, dead] = blank
        return values


def _line(values: Array, line: Linear) -> Array:
    """values * factor / divisor + offset in f64; a new array unless the line changes nothing."""
    factor, divisor, offset = line
    result = values.astype(np.float64)
    if factor != 1.0:
        result *= factor
    if divisor != 1.0:
        result /= divisor
    if offset != 0.0:
        result += offset
    return result


def _dead(stored: Array) -> npt.NDArray[np.bool_] | None:
    """Dumps [D, R, A, S] that are 0 in all channels; the first channel shows whether there may be any."""
    if len(stored) < FEWEST_CHANNELS:
        return None
    first = stored[0] == 0
    if not first.any():
        return None
    dead: npt.NDArray[np.bool_] = first & ~stored.any(axis=0)
    return dead if dead.any() else None


def _cast_fill(stored: Array) -> npt.NDArray[np.bool_] | None:
    """Where floats are INT32_MIN or too large for counts; None for other dtypes and where there are none."""
    if stored.dtype.kind != "f":
        return None
    if stored.min() > FILL_INT32 and stored.max() < NO_COUNT:  # False for NaN
        return None
    found = (stored == FILL_INT32) | (stored >= NO_COUNT)
    return found if found.any() else None
