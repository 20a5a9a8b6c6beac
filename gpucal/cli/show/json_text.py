"""Valid JSON from what the commands know: NaN becomes null, NumPy values become plain ones."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """Return ``value`` with nothing in it that JSON does not know."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (str, int, bool)) or value is None:
        return value
    return str(value) if isinstance(value, Path) else repr(value)


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Return ``value`` as JSON text, one line unless ``indent`` is given."""
    return json.dumps(plain(value), indent=indent, allow_nan=False, ensure_ascii=False)
