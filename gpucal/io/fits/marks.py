"""Columns in which other programs mark bad channels: FLAGS of dysh, FLAGGED of the SDFITS of the ATNF."""

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
