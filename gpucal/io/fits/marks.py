"""What says that a number of a spectrum is none: columns of marks, and TNULL of a scaled column.

Columns of marks are FLAGS of dysh and FLAGGED of the SDFITS of the ATNF.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.errors import ImportFormatError

NAMES = ("FLAGS", "FLAGGED")


def marks_of(
    path: Path, hdu: Any, raw: npt.NDArray[Any], n_channels: int
) -> npt.NDArray[Any] | None:
    """The marks [rows, C] or [rows, 1] of a table whose records are ``raw``, on disk where they need no scaling.

    None when there is no such column. Not 0 is bad. Raises ImportFormatError for another shape.
    """
    name = next((n for n in NAMES if n in hdu.columns.names), None)
    if name is None:
        return None
    column = hdu.columns[name]
    letter = str(column.format).lstrip("0123456789")[:1]
    data = np.asarray(raw[name] if letter in "BIJK" else hdu.data.field(name))
    marks = data.reshape(len(raw), -1)
    if marks.dtype.kind not in "biuf" or marks.shape[1] not in (1, n_channels):
        raise ImportFormatError(
            f"{path} has the column {name} of {marks.shape[1]} values of type {marks.dtype} in each row, "
            f"expected a number for each of {n_channels} channels, or one.",
            hint="Take the column away if it marks no bad channels.",
        )
    return marks


def unscaled(hdu: Any, name: str, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A column of ``stored`` numbers with its scale (TSCAL, TZERO) applied.

    f64, NaN where what is stored is the TNULL of the column; i32 for 16 bits that are only shifted.
    """
    column = hdu.columns[name]
    if str(column.format).lstrip("0123456789")[:1] not in "BIJKED":
        return np.asarray(hdu.data.field(name))
    scale, zero, null = (None if x == "" else x for x in (column.bscale, column.bzero, column.null))
    scale, zero = 1 if scale is None else scale, 0 if zero is None else zero
    values = np.asarray(stored.astype(np.float64) * scale + zero)
    if stored.dtype.kind in "iu" and null is not None:
        values[stored == int(null)] = np.nan
    elif stored.dtype.kind in "iu" and stored.dtype.itemsize <= 2 and (scale, zero % 1) == (1, 0):
        return values.astype(np.int32)
    return values
