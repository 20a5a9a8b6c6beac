"""Fill values: raw counts that stand for "no data"."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpucal.axes import FILL_INT32


def is_fill(count: np.generic[Any]) -> bool:
    """Whether a count stands for "no data": INT32_MIN for i32, not finite for floats, never for u32."""
    if count.dtype == np.int32:
        return int(count) == FILL_INT32
    return count.dtype.kind == "f" and not math.isfinite(float(count))
