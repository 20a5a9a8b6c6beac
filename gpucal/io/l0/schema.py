"""What an L0 store must hold: array rules, attribute models, observing modes.

Shapes use C channels, D dumps, R receivers, A array pixels, S subscans. Source: the L0
layout of docs/reference/l0.md.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from gpucal.axes import AXES, CAL_ALIASES, CAL_MODES, FILL_INT32, SOURCE_MODES
from gpucal.errors import L0Error

L0_FORMAT: Literal["gpucal-l0"] = "gpucal-l0"
L0_VERSION = 1
COUNTS = "data_5d"
COUNTS_DTYPES = ("int32", "uint32", "float32", "float64")
DIMENSIONS = dict(zip("CDRAS", AXES, strict=True))
"""Letter of an axis -> its Zarr dimension name."""


@dataclass(frozen=True)
class ArrayRule:
    """One array of ``source/`` or ``calibration/``.

    dims: the allowed axes, e.g. ``("S", "DS")``; a shape is told from another by its number of
    axes. kinds: NumPy dtype kinds. dtype: what the writer stores.
    """

    dims: tuple[str, ...]
    kinds: str
    dtype: str
    unit: str
    required: bool = False


_PER_SUBSCAN, _PER_DUMP, _PER_RECEIVER = ("S",), ("S", "DS"), ("S", "RS")

ARRAYS: Mapping[str, ArrayRule] = {
    COUNTS: ArrayRule(("CDRAS",), "iuf", "int32", "count", True),
    "mjd": ArrayRule(_PER_DUMP, "f", "float64", "d", True),
    "exptime": ArrayRule(_PER_DUMP, "fiu", "float32", "s", True),
    "elevation": ArrayRule(_PER_DUMP, "f", "float32", "rad", True),
    "azimuth": ArrayRule(_PER_DUMP, "f", "float32", "rad", True),
    "pamb": ArrayRule(_PER_SUBSCAN, "fiu", "float32", "Torr"),
    "tamb": ArrayRule(_PER_SUBSCAN, "fiu", "float32", "K"),
    "signal_freq": ArrayRule(_PER_RECEIVER, "fiu", "float64", "Hz", True),
    "image_freq": ArrayRule(_PER_RECEIVER, "fiu", "float64", "Hz"),
    "freq_res": ArrayRule(_PER_RECEIVER, "fiu", "float64", "Hz", True),
    "ref_channel": ArrayRule(_PER_RECEIVER, "fiu", "float32", "channel", True),
    "lloadsn": ArrayRule(_PER_SUBSCAN, "iu", "int32", ""),
    "otf_lon": ArrayRule(_PER_DUMP, "f", "float64", "deg"),
    "otf_lat": ArrayRule(_PER_DUMP, "f", "float64", "deg"),
    "pixel_offset_lon": ArrayRule(("RA", "RAS"), "f", "float64", "deg"),
    "pixel_offset_lat": ArrayRule(("RA", "RAS"), "f", "float64", "deg"),
    "chop_phase": ArrayRule(("DS",), "iu", "uint8", ""),
    "freq_throw": ArrayRule(_PER_RECEIVER, "fiu", "float64", "Hz"),
    "thot": ArrayRule(_PER_RECEIVER, "fiu", "float32", "K"),
    "tcold": ArrayRule(_PER_RECEIVER, "fiu", "float32", "K"),
    "load_temp_sig": ArrayRule(("CS",), "fiu", "float32", "K"),
    "load_temp_img": ArrayRule(("CS",), "fiu", "float32", "K"),
}
"""Every array the reader knows; others are ignored."""

TRACK_ARRAYS: Mapping[str, str] = {
    "track_mjd": "d",
    "track_azimuth": "rad",
    "track_elevation": "rad",
    "track_lon": "deg",
    "track_lat": "deg",
}
"""The telescope's track in ``source/`` of a bolometer scan, each [N] floating point -> its unit."""

BOLOMETER_REQUIRED = frozenset({COUNTS, "mjd", "exptime"})
"""What a bolometer scan must have; it has no loads and no frequency axis."""

GroupName = Literal["source", "calibration"]

_KINDS = {"i": "signed integer", "u": "unsigned integer", "f": "floating point"}


def check_array(name: str, shape: Sequence[int], dtype: np.dtype[Any], sizes: Sequence[int]) -> str:
    """Compare an array with its rule and return its axes, e.g. ``"DS"``.

    sizes: (C, D, R, A, S) of the group. Raises L0Error naming both shapes, or both dtypes.
    """
    rule = ARRAYS[name]
    size = dict(zip("CDRAS", sizes, strict=True))
    check_dtype(name, dtype)
    for dims in rule.dims:
        if len(dims) == len(shape) and tuple(shape) == tuple(size[d] for d in dims):
            return dims
    wanted = " or ".join(
        f"({', '.join(str(size[d]) for d in dims)}) = [{','.join(dims)}]" for dims in rule.dims
    )
    raise L0Error(f"array {name} has shape {tuple(shape)}, expected {wanted}.")


def check_dtype(name: str, dtype: np.dtype[Any]) -> None:
    """Raise L0Error unless an array may have that dtype."""
    rule = ARRAYS[name]
    if dtype.kind not in rule.kinds:
        wanted = " or ".join(_KINDS[kind] for kind in rule.kinds)
        raise L0Error(
            f"array {name} has dtype {dtype}, expected {wanted}.",
            hint=f"Write it as {rule.dtype}.",
        )


def check_subscan(name: str, values: npt.NDArray[Any], sizes: Sequence[int]) -> None:
    """As ``check_array``, for the part of an array that belongs to one subscan; sizes: (C, D, R, A)."""
    check_dtype(name, values.dtype)
    if values.shape not in _subscan_shapes(name, sizes):
        raise L0Error(
            f"array {name} has shape {values.shape}, expected {subscan_shapes(name, sizes)}."
        )


def subscan_shapes(name: str, sizes: Sequence[int]) -> str:
    """The shapes that an array may have in one subscan, in words; sizes: (C, D, R, A)."""
    shapes = _subscan_shapes(name, sizes).items()
    return " or ".join(f"{shape} = [{','.join(dims)}]" if dims else "()" for shape, dims in shapes)


def _subscan_shapes(name: str, sizes: Sequence[int]) -> dict[tuple[int, ...], str]:
    """Shape -> axes of an array without its subscan axis."""
    size = dict(zip("CDRA", sizes, strict=True))
    axes = [dims[:-1] for dims in ARRAYS[name].dims if dims.endswith("S")]
    return {tuple(size[d] for d in dims): dims for dims in axes}


def check_counts(shape: Sequence[int], dtype: np.dtype[Any]) -> None:
    """Raise L0Error unless ``data_5d`` is [C,D,R,A,S], not empty, of a supported dtype."""
    if len(shape) != 5:
        raise L0Error(
            f"array {COUNTS} has shape {tuple(shape)}, expected five axes [C, D, R, A, S]."
        )
    if 0 in shape:
        axis = AXES[list(shape).index(0)]
        raise L0Error(
            f"array {COUNTS} has shape {tuple(shape)}: there is no {axis} in it, "
            "expected at least one.",
        )
    if dtype.newbyteorder("=").name not in COUNTS_DTYPES:
        raise L0Error(f"array {COUNTS} has dtype {dtype}, expected {', '.join(COUNTS_DTYPES)}.")


def dimension_names(name: str, ndim: int) -> list[str]:
    """Zarr dimension names of a known array with ``ndim`` axes."""
    for dims in ARRAYS[name].dims:
        if len(dims) == ndim:
            return [DIMENSIONS[d] for d in dims]
    wanted = " or ".join(f"[{','.join(dims)}]" for dims in ARRAYS[name].dims)
    raise L0Error(f"array {name} has {ndim} axes, expected {wanted}.")


def check_axis_order(name: str, node: Any) -> None:
    """Raise L0Error when a Zarr array names its axes, and the names are ours in another order.

    A shape alone cannot tell [D, S] from [S, D] where both are equal, nor C from D where nothing ties them.
    """
    metadata = getattr(node, "metadata", None)
    names = getattr(metadata, "dimension_names", None)
    if names is None:
        names = getattr(node, "attrs", {}).get("_ARRAY_DIMENSIONS")
    if not isinstance(names, list | tuple):
        return
    found = [str(axis).strip().lower() for axis in names]
    for dims in ARRAYS[name].dims:
        wanted = [DIMENSIONS[d] for d in dims]
        if found != wanted and sorted(found) == sorted(wanted):
            raise L0Error(
                f"the axes of array {name} are named [{', '.join(found)}], expected "
                f"[{', '.join(wanted)}].",
                hint="Transpose it.",
            )


def fill_value(dtype: npt.DTypeLike) -> int | float:
    """What a sample that was never written reads as: INT32_MIN, NaN, or 0 for u32."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return float("nan")
    return FILL_INT32 if kind == np.dtype(np.int32) else 0


def check_modes(modes: Sequence[str], *, calibration: bool) -> tuple[str, ...]:
    """Return the sobsmode strings with aliases resolved ("COL" -> "COLD").

    Raises L0Error for an unknown one, or for one that belongs in the other group.
    """
    known = CAL_MODES if calibration else SOURCE_MODES
    other = SOURCE_MODES if calibration else CAL_MODES
    here, there = ("calibration", "source") if calibration else ("source", "calibration")
    result = []
    for index, raw in enumerate(modes):
        mode = CAL_ALIASES.get(str(raw).strip().upper(), str(raw).strip().upper())
        if mode in other:
            raise L0Error(
                f"sobsmode {raw!r} stands in {here}/, expected it in {there}/.", subscan=index
            )
        if mode not in known:
            near = difflib.get_close_matches(mode, sorted(known | other), n=1, cutoff=0.0)
            raise L0Error(
                f"sobsmode {raw!r} in {here}/ is unknown, expected one of "
                f"{', '.join(sorted(known))}.",
                hint=f"Did you mean {near[0]}?",
                subscan=index,
            )
        result.append(mode)
    return tuple(result)


def _no_bool_or_text(value: Any) -> Any:
    """A bool and a text are no numbers, though Python takes them for some."""
    if isinstance(value, (bool, str)):
        raise ValueError("expected a number")
    return value


def _no_bool(value: Any) -> Any:
    """A bool is no number; a text such as "-22.9", which says no other, is taken."""
    if isinstance(value, bool):
        raise ValueError("expected a number")
    return value


def _nan_is_none(value: Any) -> Any:
    """NaN, as some write what is not known, is nothing."""
    return None if isinstance(value, float) and math.isnan(value) else _no_bool_or_text(value)


Finite = Annotated[float, Field(allow_inf_nan=False)]
Number = Annotated[Finite, BeforeValidator(_no_bool_or_text)]
Place = Annotated[Finite, BeforeValidator(_no_bool)]
Whole = Annotated[int, BeforeValidator(_no_bool_or_text)]
FASTEST_KMS = 3e7
"""Optical velocities of redshift 100."""

HIGHEST_M = 60000.0
"""Balloons fly at 40 km."""


class Site(BaseModel):
    """Location of the telescope; degrees and metres."""

    model_config = ConfigDict(extra="allow", frozen=True)

    lat_deg: Annotated[Place, Field(ge=-90, le=90)] | None = None
    lon_deg: Annotated[Place, Field(ge=-360, le=360)] | None = None
    alt_m: Annotated[Place, Field(ge=-500, le=HIGHEST_M)] | None = None


class RootAttrs(BaseModel):
    """Attributes of the store's root; others are allowed and kept."""

    model_config = ConfigDict(extra="allow", frozen=True)

    format: Literal["gpucal-l0"] = L0_FORMAT
    format_version: Annotated[int, Field(ge=1, le=L0_VERSION)] = L0_VERSION
    telescope: str | None = None
    site: Site | None = None
    instrument: str | None = None


class ScanAttrs(BaseModel):
    """Attributes of a scan group (a band group may override them); others are kept."""

    model_config = ConfigDict(extra="allow", frozen=True)

    instmode: str | None = None
    source: str | None = None
    line: str | None = None
    rest_freq_hz: Annotated[Number, Field(gt=0, le=2e13)] | None = None
    velocity_source_kms: Annotated[
        Annotated[Finite, Field(ge=-FASTEST_KMS, le=FASTEST_KMS)] | None,
        BeforeValidator(_nan_is_none),
    ] = None
    scan_number: Annotated[int, BeforeValidator(_no_bool)] | None = None
    date_obs: str | None = None
    obs_procedure: str | None = None
    n_subscans_planned: Annotated[Whole, Field(ge=0)] | None = None
    project: str | None = None
    gain_image: Annotated[float, BeforeValidator(_no_bool_or_text)] | list[Any] | None = None
    f_eff: Annotated[Number, Field(gt=0, le=1)] | None = None
    noise_bandwidth: Annotated[Number, Field(gt=0, allow_inf_nan=False)] | None = None
    unit_borders: list[Annotated[Whole, Field(gt=0)]] | None = None
    ref_channel_base: Annotated[Literal[0, 1], BeforeValidator(_no_bool_or_text)] = 0
    complete: bool | None = None
    scan_metadata: dict[str, Any] | None = None


def is_bolometer(attrs: Mapping[str, Any]) -> bool:
    """Whether the attributes of a scan say that it is one of a bolometer array.

    Attribute ``obs_class``: heterodyne (default) or bolometer; without it ``class`` = bolometer
    means the same. Raises L0Error for any other ``obs_class``.
    """
    if "obs_class" not in attrs:
        return bool(attrs.get("class") == "bolometer")
    value = attrs["obs_class"]
    if value not in ("heterodyne", "bolometer"):
        raise L0Error(f"scan attribute obs_class is {value!r}, expected heterodyne or bolometer.")
    return bool(value == "bolometer")


def parse_root_attrs(attrs: Mapping[str, Any]) -> RootAttrs:
    """Validate the root's attributes; raises L0Error in one sentence."""
    version = attrs.get("format_version")
    if isinstance(version, int) and version > L0_VERSION:
        raise L0Error(
            f"the store has format_version {version}, this program reads up to {L0_VERSION}.",
            hint="Update gpucal.",
        )
    if attrs.get("format", L0_FORMAT) != L0_FORMAT:
        raise L0Error(
            f"the store has format {attrs['format']!r}, expected {L0_FORMAT!r}.",
            hint="Give the store of raw counts.",
        )
    try:
        return RootAttrs.model_validate(dict(attrs))
    except ValidationError as error:
        raise L0Error(f"root attribute {_sentence(error)}") from error


def parse_scan_attrs(attrs: Mapping[str, Any]) -> ScanAttrs:
    """Validate a scan's attributes; raises L0Error in one sentence."""
    try:
        return ScanAttrs.model_validate(dict(attrs))
    except ValidationError as error:
        raise L0Error(f"scan attribute {_sentence(error)}") from error


def faulty_attrs(attrs: Mapping[str, Any]) -> dict[str, str]:
    """Name of each attribute of a scan that cannot be right -> a sentence about it."""
    try:
        ScanAttrs.model_validate(dict(attrs))
    except ValidationError as error:
        # a union is tried arm by arm: the first sentence about an attribute is enough
        found: dict[str, str] = {}
        for i, each in enumerate(error.errors()):
            found.setdefault(str(each["loc"][0]), f"scan attribute {_sentence(error, i)}")
        return found
    return {}


def _sentence(error: ValidationError, index: int = 0) -> str:
    """A problem that pydantic found, in one sentence."""
    first = error.errors()[index]
    rule = str(first["msg"])
    rule = (
        rule.removeprefix("Value error, ")
        .replace("Input should be", "expected")
        .replace("Input", "input")
    )
    union_arms = ("float", "list[any]")  # pydantic names the arm it tried, readers need not know
    place = ".".join(
        part
        for part in first["loc"]
        if isinstance(part, str) and part not in union_arms and "[" not in part
    )
    return f"{place} is {first['input']!r}, {rule}."
