"""Attributes in a form that netCDF holds too: JSON knows more than it does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpucal.io.files import json_text

_LARGEST = 2**63


def flat_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that can be written to Zarr and netCDF.

    Dictionaries and nested or mixed lists become JSON texts (``json.loads`` reads them), True and
    False 1 and 0. What is None is left out, as netCDF has no such value.
    """
    return {str(key): _flat(value) for key, value in attributes.items() if value is not None}


def _flat(value: Any) -> Any:
    """One attribute as text, number or list of one kind of them."""
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return value if -_LARGEST <= value < _LARGEST else str(value)
    if isinstance(value, (str, float)):
        return value
    if isinstance(value, (list, tuple)) and value:
        if all(isinstance(item, str) for item in value):
            return list(value)
        if all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in value):
            return [float(item) for item in value] if _has_float(value) else list(value)
    return json_text.dumps(value)


def _has_float(values: Any) -> bool:
    """Whether numbers of a list are floats, or too large for an integer of 64 bits."""
    return any(isinstance(v, float) or not -_LARGEST <= v < _LARGEST for v in values)
