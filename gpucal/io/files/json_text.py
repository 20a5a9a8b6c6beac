"""Valid JSON from values of the program: NaN becomes null, NumPy values become plain ones."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """A copy of ``value`` that JSON can hold: numbers, strings, lists and dictionaries.

    NaN and infinities become None, NumPy scalars and arrays Python numbers and lists, tuples and
    sets lists, paths strings, keys strings, anything else its ``repr``.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (str, int, bool)) or value is None:
        return value
    return str(value) if isinstance(value, Path) else repr(value)


def dumps(value: Any, **options: Any) -> str:
    """``value`` as JSON text, on one line unless ``indent`` is given.

    options: as for ``json.dumps``; by default characters beyond ASCII are kept.
    """
    return json.dumps(plain(value), **{"allow_nan": False, "ensure_ascii": False, **options})
