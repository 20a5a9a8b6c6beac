"""The one entrance of every array that others may have written: its attributes, applied or refused by name.

Source: CF conventions 1.11; the attribute conventions of netCDF (NUG appendix A) and of xarray.
"""

from __future__ import annotations

import base64
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.axes import FILL_INT32
from gpucal.errors import L0Error
from gpucal.io.conventions.coding import IDENTITY, Coding, Linear
from gpucal.io.conventions.times import (
    mjd_line,
    mjd_of_datetimes,
    mjd_of_texts,
    seconds_of_timedeltas,
)
from gpucal.io.conventions.units import known_units, line_to

_FILLS = ("_FillValue", "missing_value")
_PACKED = ("scale_factor", "add_offset")
_LIMITS = ("valid_min", "valid_max", "valid_range")
_UNITS = ("units", "unit", "tunit")
_APPLIED = frozenset((*_FILLS, *_PACKED, *_LIMITS, "calendar"))

_SUSPECT_WORDS = (
    "fill fillvalue filled missing nodata blank null tnull scale scales scaled scalefactor bscale "
    "tscal offset offsets addoffset bzero tzero zero zeropoint slope intercept factor multiplier gain "
    "valid invalid bad badvalue unsigned pack packed packing unpack unpacked compress compression "
    "sentinel mask masked flag flags log logarithmic db decibel transform calendar encoding "
    "dtype quantization timesys timescale"
)
_SUSPECT = frozenset(_SUSPECT_WORDS.split())
"""Words of an attribute's name that say that its numbers may not be what they seem."""

_OF_OTHER_PROGRAMS = (FILL_INT32, 9.969209968386869e36)
"""No data without a word: INT32_MIN, also after a cast to float, and the fill value of netCDF floats."""

_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z0-9]+|[A-Z0-9]+")
_HINT = (
    "Write the numbers themselves, in the unit of the L0 layout, without this attribute; "
    "or leave the scan out with --scans."
)


@dataclass(frozen=True)
class StoredArray:
    """What is known of a stored array: name, our unit, attributes, fill value, whether it holds times (MJD).

    labels: it holds numbers that stand for something (a phase, a scan), so flag meanings do not matter.
    """

    name: str
    unit: str
    attributes: Mapping[str, Any]
    fill_value: Any = None
    times: bool = False
    labels: bool = False


def coding_of(array: StoredArray, dtype: np.dtype[Any]) -> Coding:
    """What the attributes say about the numbers, of ``dtype``, of an array.

    A Zarr fill value other than 0 means no data too: it is what a chunk that was never written
    reads as. Raises L0Error for an attribute that is not understood and may change what numbers
    mean, and for a unit that cannot be converted.
    """
    attributes = {k: v for k, v in array.attributes.items() if not _says_nothing(v)}
    for key, value in attributes.items():
        _check_known(array, key, value)
    blanks = [
        blank
        for key in _FILLS
        if key in attributes
        for blank in _blanks(array.name, key, attributes[key], dtype)
    ]
    names = [key for key in attributes if key in _APPLIED and key != "calendar"]
    fill = _zarr_fill(array, dtype)
    if fill is not None and fill not in blanks:
        blanks.append(fill)
        names.append("fill_value")
    if (
        array.unit != "count"
    ):  # counts are compared only where the file says so, or when they are read
        blanks += [own for own in _OF_OTHER_PROGRAMS if _fits(own, dtype) and own not in blanks]
    low, high = _limits(array.name, attributes)
    scale = _scale(array.name, attributes)
    unit = _unit(array, attributes)
    if unit != IDENTITY:
        names.append("units")
    if (low, high) != (None, None) and scale != IDENTITY:
        raise L0Error(
            f"array {array.name} has {' and '.join(k for k in _LIMITS if k in attributes)} beside "
            "scale_factor or add_offset: whether the limits hold for packed numbers is not said.",
            hint=_HINT,
        )
    return Coding(tuple(blanks), low, high, scale, unit, tuple(names))


def decoded_values(array: StoredArray, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The values of a small array in our unit, NaN where there is none; ``stored`` itself when it says nothing.

    Times may also be datetime64 or ISO 8601 texts, durations timedelta64. Raises L0Error as
    ``coding_of``.
    """
    kind = stored.dtype.kind
    if array.times and kind in "MOUST":
        _refuse_packed(array)
        try:
            return mjd_of_datetimes(stored) if kind == "M" else mjd_of_texts(stored)
        except (ValueError, TypeError) as error:
            raise L0Error(
                f"array {array.name} holds no times: {error}.", hint="Write MJD (UTC) as float64."
            ) from error
    if array.unit == "s" and kind == "m":
        _refuse_packed(array)
        return seconds_of_timedeltas(stored)
    if kind not in "iuf":
        return stored  # the check of dtypes refuses it by name
    return coding_of(array, stored.dtype).values(stored)


def decoded_attributes(array: StoredArray) -> dict[str, Any]:
    """The attributes that belong to the decoded values: without what was applied, in our unit."""
    gone = {*_APPLIED, "dtype"}
    kept = {k: v for k, v in array.attributes.items() if k not in gone and k.lower() not in _UNITS}
    return {**kept, "units": array.unit}


def _refuse_packed(array: StoredArray) -> None:
    """Raise L0Error for attributes about numbers on an array that holds none."""
    for key, value in array.attributes.items():
        if key in (*_FILLS, *_PACKED, *_LIMITS) and not _says_nothing(value):
            raise L0Error(
                f"array {array.name} has the attribute {key} = {value!r}, expected none beside "
                "dates and durations.",
                hint=_HINT,
            )


def _says_nothing(value: Any) -> bool:
    """Whether the value of an attribute is empty."""
    return value is None or (isinstance(value, (str, list, dict)) and not value)


def _check_known(array: StoredArray, key: str, value: Any) -> None:
    """Raise L0Error for an attribute that is not applied and may change what the numbers mean."""
    words = {word.lower().rstrip("0123456789") for word in _WORDS.findall(key)}
    joined = re.sub(r"[^a-z]", "", key.lower())  # TNULL5 is one too
    if key in _APPLIED and not (key == "calendar" and not array.times):
        return
    if array.labels and key.startswith("flag_"):
        return
    if joined in ("timesys", "timescale", "timesystem") and str(value).lower() == "utc":
        return
    if joined == "scale" and array.times and str(value).lower() == "utc":
        return
    if joined == "unsigned" and str(value).lower() == "false":
        return
    if key == "dtype" and isinstance(value, str) and _same_kind(array, value):
        return
    zenith = joined == "standardname" and "zenith" in str(value).lower()
    down = joined == "positive" and str(value).lower() == "down"
    if zenith or down or words & _SUSPECT or joined in _SUSPECT:
        raise L0Error(
            f"array {array.name} has the attribute {key} = {_short(value)}, which is not "
            "understood and may change what its numbers mean.",
            hint=_HINT,
        )


def _same_kind(array: StoredArray, value: str) -> bool:
    """Whether xarray's attribute ``dtype`` says nothing new: bool, or durations whose unit is given."""
    return value == "bool" or (value.startswith("timedelta64") and "units" in array.attributes)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _number(name: str, key: str, value: Any) -> float | int:
    """The number that an attribute holds; xarray writes floats of Zarr v3 as base64 of 8 bytes."""
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
        try:
            (number,) = struct.unpack("<d", base64.b64decode(value, validate=True))
            return float(number)
        except (ValueError, struct.error):
            pass
    elif isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        return value if isinstance(value, int) else float(value)
    raise L0Error(
        f"array {name} has the attribute {key} = {_short(value)}, expected a number.", hint=_HINT
    )


def _blanks(name: str, key: str, value: Any, dtype: np.dtype[Any]) -> list[float | int]:
    """Stored values that an attribute calls no data; NaN is one anyway."""
    many = value if isinstance(value, (list, tuple)) and len(value) > 1 else [value]
    found: list[float | int] = []
    for item in many:
        number = _number(name, key, item)
        if math.isnan(number):
            continue
        if dtype.kind in "iu":
            info = np.iinfo(dtype)
            if number != int(number if math.isfinite(number) else 0) or not (
                info.min <= number <= info.max
            ):
                raise L0Error(
                    f"array {name} has the attribute {key} = {_short(item)}, which {dtype} cannot "
                    "hold: which of its numbers mean no data is not known.",
                    hint=_HINT,
                )
            number = int(number)
        found.append(number)
    return found


def _fits(value: float, dtype: np.dtype[Any]) -> bool:
    """Whether a number can be among those of an array."""
    if dtype.kind == "f":
        return dtype.itemsize >= 4
    return dtype.kind in "iu" and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max


def _zarr_fill(array: StoredArray, dtype: np.dtype[Any]) -> float | int | None:
    """A fill value that can only mean no data; None for 0, which may be a value, and for NaN."""
    value = array.fill_value
    if dtype.kind not in "iuf" or value is None:
        return None
    number = value.item() if hasattr(value, "item") else value
    if not isinstance(number, (int, float)) or number == 0 or math.isnan(number):
        return None
    # INT32_MIN is no data in the L0 layout as it is
    own = dtype.newbyteorder("=") == np.dtype(np.int32) and number == FILL_INT32
    return None if own else number


def _limits(name: str, attributes: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """The valid range of the stored numbers."""
    if "valid_range" in attributes:
        pair = attributes["valid_range"]
        if "valid_min" in attributes or "valid_max" in attributes or len(_listed(pair)) != 2:
            raise L0Error(
                f"array {name} has the attribute valid_range = {_short(pair)}, expected two numbers, "
                "and neither valid_min nor valid_max beside it.",
                hint=_HINT,
            )
        low, high = (_number(name, "valid_range", v) for v in _listed(pair))
        return low, high
    ends = [
        _number(name, k, attributes[k]) if k in attributes else None
        for k in ("valid_min", "valid_max")
    ]
    return ends[0], ends[1]


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _scale(name: str, attributes: Mapping[str, Any]) -> Linear:
    """Packed numbers to values."""
    given = {
        k: float(_number(name, k, attributes[k])) if k in attributes else default
        for k, default in zip(_PACKED, (1.0, 0.0), strict=True)
    }
    factor, offset = given["scale_factor"], given["add_offset"]
    if not (math.isfinite(factor) and math.isfinite(offset)) or factor == 0:
        raise L0Error(
            f"array {name} has scale_factor {factor:g} and add_offset {offset:g}, expected finite "
            "numbers and a factor other than 0.",
            hint=_HINT,
        )
    return factor, 1.0, offset


def _unit(array: StoredArray, attributes: Mapping[str, Any]) -> Linear:
    """Numbers in the unit that the attributes name to numbers in ours."""
    given = {k: v for k, v in attributes.items() if k.lower() in _UNITS}
    lines = []
    for key, value in given.items():
        text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
        line = None
        if isinstance(text, str):
            calendar = str(attributes.get("calendar", "standard"))
            line = mjd_line(text, calendar) if array.times else line_to(array.unit, text)
        if line is None:
            raise L0Error(_unknown_unit(array, key, value), hint=_HINT)
        lines.append(line)
    if len(set(lines)) > 1:
        raise L0Error(
            f"array {array.name} has the attributes "
            f"{' and '.join(f'{k} = {v!r}' for k, v in given.items())}, which contradict each other.",
            hint=_HINT,
        )
    return lines[0] if lines else IDENTITY


def _unknown_unit(array: StoredArray, key: str, value: Any) -> str:
    """The sentence about a unit that cannot be converted."""
    what = f"array {array.name} has {key} = {_short(value)}"
    if array.times:
        calendar = array.attributes.get("calendar")
        beside = f" (calendar {calendar!r})" if calendar else ""
        return f"{what}{beside}, expected MJD in UTC: 'd', or 'seconds since 1970-01-01'."
    if array.unit == "count":
        return (
            f"{what}, expected raw counts: calibrated or logarithmic values cannot be calibrated."
        )
    return f"{what}, expected {known_units(array.unit)}."
