"""Zarr v3 metadata documents (zarr.json) as bytes, valid JSON whatever the attributes hold.

Source: the Zarr v3 core specification, sections "Array metadata" and "Group metadata".
"""

from __future__ import annotations

import datetime
import enum
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.errors import L1Error
from gpucal.io.files.regular import read_document

_SCAN = re.compile(r"scan_(\d+)")


def scan_name(number: int) -> str:
    """Return the group name of a scan, e.g. ``"scan_025650"``."""
    return f"scan_{number:06d}"


def scan_number(name: str) -> int | None:
    """Return the scan number of a group name, None when it does not name a scan."""
    match = _SCAN.fullmatch(name)
    number = int(match[1]) if match else None
    return number if number is not None and scan_name(number) == name else None


def json_safe(value: Any, key: str = "") -> Any:
    """Turn NumPy values, paths, times, enums and tuples into plain JSON values.

    NaN and infinities become the strings "NaN", "Infinity", "-Infinity", as in Zarr fill values:
    JSON has no number for them, and ``float()`` reads them back. Raises L1Error for other types.
    """
    if isinstance(value, enum.Enum):
        value = value.value
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if math.isnan(value):
            return "NaN"
        return value if math.isfinite(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, Mapping):
        return {str(k): json_safe(v, f"{key}.{k}" if key else str(k)) for k, v in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted((json_safe(v, key) for v in value), key=str)
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [json_safe(v, key) for v in value]
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    raise L1Error(
        f"attribute {key!r} is a {type(value).__name__}, which JSON cannot hold.",
        hint="Use numbers, strings, lists or mappings.",
    )


def encode_document(document: Any) -> bytes:
    """Return strict JSON, UTF-8, indented, with a final newline."""
    text = json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    # A file name need not be UTF-8; its lone surrogates become JSON escapes.
    return text.encode("utf-8", "backslashreplace")


def group_document(attributes: Mapping[str, Any]) -> bytes:
    """Return the zarr.json of a group."""
    return encode_document(
        {"zarr_format": 3, "node_type": "group", "attributes": json_safe(attributes)}
    )


def read_group(folder: Path) -> dict[str, Any] | None:
    """Return the attributes of the Zarr v3 group in ``folder``, None when there is none."""
    try:
        document = json.loads(read_document(folder / "zarr.json"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or document.get("node_type") != "group":
        return None
    attributes = document.get("attributes", {})
    return attributes if isinstance(attributes, dict) else None


def array_document(
    shape: Sequence[int],
    chunks: Sequence[int],
    dtype: npt.DTypeLike,
    dims: Sequence[str],
    *,
    fill_value: Any,
    codecs: list[dict[str, Any]],
    attributes: Mapping[str, Any],
) -> bytes:
    """Return the zarr.json of an array on a regular chunk grid, chunk keys ``c/0/0``."""
    fill = np.asarray(fill_value).astype(dtype)
    return encode_document(
        {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [int(n) for n in shape],
            "data_type": np.dtype(dtype).name,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": [int(n) for n in chunks]},
            },
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": json_safe(fill),
            "codecs": codecs,
            "attributes": json_safe(attributes),
            "dimension_names": list(dims),
            "storage_transformers": [],
        }
    )
