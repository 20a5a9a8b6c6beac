"""Write raw counts as an L0 store: simulators, importers and instrument teams use it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gpucal.errors import L0Error
from gpucal.io.l0.schema import (
    ARRAYS,
    COUNTS,
    L0_FORMAT,
    L0_VERSION,
    TRACK_ARRAYS,
    RootAttrs,
    check_array,
    check_counts,
    dimension_names,
    fill_value,
    parse_root_attrs,
    parse_scan_attrs,
)
from gpucal.io.l0.track import check_track

Shape5 = tuple[int, int, int, int, int]
Codec = Literal["zstd:1", "blosc-lz4", "none"]
CHUNK_BYTES = 16 << 20


@dataclass(frozen=True)
class CountsMaker:
    """Counts made one subscan at a time, for scans larger than memory.

    shape (C, D, R, A, S); dtype of the counts; ``make(s)`` returns counts [C, D, R, A].
    """

    shape: Shape5
    dtype: np.dtype[Any]
    make: Callable[[int], npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class GroupArrays:
    """One ``source/`` or ``calibration/`` group.

    data_5d  counts [C, D, R, A, S], or a CountsMaker
    sobsmode S strings
    arrays   the small arrays, named and shaped as in ``schema.ARRAYS``, and in a bolometer scan
             the track, as in ``track.check_track``
    """

    data_5d: npt.NDArray[Any] | CountsMaker
    sobsmode: Sequence[str]
    arrays: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    @property
    def shape(self) -> Shape5:
        return self.data_5d.shape

    def subscan(self, index: int) -> npt.NDArray[Any]:
        """Counts [C, D, R, A] of one subscan."""
        if isinstance(self.data_5d, CountsMaker):
            block = np.asarray(self.data_5d.make(index))
            if block.shape != self.shape[:4]:
                raise L0Error(
                    f"the counts made have shape {block.shape}, expected {self.shape[:4]}.",
                    subscan=index,
                )
            return block
        return self.data_5d[..., index]


def create_l0(
    path: str | Path,
    *,
    telescope: str,
    site: Mapping[str, float],
    instrument: str,
    zarr_format: Literal[2, 3] = 3,
    **attrs: Any,
) -> None:
    """Make an empty L0 store (or keep an existing one with the same telescope and instrument).

    site: lat_deg, lon_deg, alt_m. ``attrs`` become further attributes of the root. Raises L0Error
    when ``path`` is something else, or a store of another telescope or instrument.
    """
    import zarr

    root = {
        "format": L0_FORMAT,
        "format_version": L0_VERSION,
        "telescope": telescope,
        "site": dict(site),
        "instrument": instrument,
        **attrs,
    }
    parse_root_attrs(root)
    target = Path(path)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        found, _ = existing_root(target)
        if (found.telescope, found.instrument) != (telescope, instrument):
            raise L0Error(
                f"{target} already holds scans of {found.telescope} {found.instrument}, "
                f"expected {telescope} {instrument}.",
                hint="Choose another path.",
            )
        return
    zarr.create_group(str(target), zarr_format=zarr_format, attributes=root)


def existing_root(path: Path) -> tuple[RootAttrs, Literal[2, 3]]:
    """Validated root attributes of a store and its Zarr format; L0Error when ``path`` is none."""
    import zarr

    try:
        group = zarr.open_group(str(path), mode="r", use_consolidated=False)
    except (OSError, ValueError, KeyError) as error:
        raise L0Error(
            f"{path} is not a Zarr group.", hint="Make the store with create_l0 first."
        ) from error
    return parse_root_attrs(dict(group.attrs)), group.metadata.zarr_format


def write_l0_scan(
    path: str | Path,
    number: int,
    *,
    attrs: Mapping[str, Any],
    groups: Mapping[str, Mapping[str, GroupArrays]],
    band_attrs: Mapping[str, Mapping[str, Any]] | None = None,
    codec: Codec | str = "zstd:1",
    chunk_channels: int | None = None,
    zarr_format: Literal[2, 3] | None = None,
) -> None:
    """Write one scan into an L0 store, whole or not at all.

    groups: {"": {"source": g, "calibration": g}} for a plain scan, or {"band_1": {...}, ...};
    band_attrs override scan attributes for a band. The scan gets the attributes ``scan_number``
    and, unless given, ``complete: true``. codec: "zstd:LEVEL", "blosc-lz4" or "none". Chunks hold
    one subscan, all of D, R, A and ``chunk_channels`` channels (default: about 16 MiB). The default
    zarr_format is that of the store. Raises L0Error when the scan exists already or an array does
    not fit the layout.
    """
    import zarr

    store = Path(path)
    root_format = existing_root(store)[1]
    final = store / f"scan_{number:06d}"
    if final.exists():
        raise L0Error(
            "the scan is already in the store, and raw data are never overwritten.",
            hint="Delete it first, or write to another store.",
            scan=number,
        )
    scan_attrs = {"complete": True, **attrs, "scan_number": number}
    parse_scan_attrs(scan_attrs)
    if not groups or any(set(g) - {"source", "calibration"} or not g for g in groups.values()):
        raise L0Error("expected groups named source and calibration in each band.", scan=number)
    staging = Path(tempfile.mkdtemp(prefix=f".staging-{number:06d}-", dir=store))
    try:
        staging.chmod(0o755)
        inside = staging / final.name
        scan_group = zarr.create_group(
            str(inside), zarr_format=zarr_format or root_format, attributes=_plain(scan_attrs)
        )
        for band, members in groups.items():
            where = scan_group
            if band:
                extra = _plain(dict((band_attrs or {}).get(band, {})))
                where = scan_group.create_group(band, attributes=extra)
            for name, group in members.items():
                made = where.create_group(name)
                try:
                    _write_group(made, group, codec, chunk_channels)
                except L0Error as error:
                    raise error.locate(scan=number, band=band) from None
        os.rename(inside, final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write_group(zgroup: Any, group: GroupArrays, codec: str, chunk_channels: int | None) -> None:
    data = group.data_5d
    dtype = np.dtype(data.dtype)
    check_counts(data.shape, dtype)
    shape = group.shape
    if len(group.sobsmode) != shape[4]:
        raise L0Error(f"{len(group.sobsmode)} sobsmode strings for {shape[4]} subscans.")
    zgroup.attrs["sobsmode"] = [str(mode) for mode in group.sobsmode]
    block = min(chunk_channels or channels_per_chunk(shape, dtype), shape[0])
    counts = _create(zgroup, COUNTS, shape, dtype, chunks=(block, *shape[1:4], 1), codec=codec)
    for index in range(shape[4]):
        counts[..., index] = group.subscan(index)
    track = {name: np.asarray(v) for name, v in group.arrays.items() if name in TRACK_ARRAYS}
    if track:
        check_track(track)
    for name, values in group.arrays.items():
        if name in track:
            kept = track[name]
            _create(zgroup, name, kept.shape, kept.dtype, chunks=kept.shape, codec="none")[...] = (
                kept
            )
            continue
        if name not in ARRAYS or name == COUNTS:
            raise L0Error(f"array {name!r} is unknown, expected {', '.join(list(ARRAYS)[1:])}.")
        rule = ARRAYS[name]
        array = np.asarray(values)
        check_array(name, array.shape, array.dtype, shape)
        stored = array.astype(rule.dtype)
        made = _create(zgroup, name, stored.shape, stored.dtype, chunks=stored.shape, codec="none")
        made[...] = stored


def channels_per_chunk(shape: Sequence[int], dtype: np.dtype[Any]) -> int:
    """How many channels make a chunk of about CHUNK_BYTES, counts [C, D, R, A, S]."""
    per_channel = int(np.prod(shape[1:4], dtype=np.int64)) * dtype.itemsize
    most = max(1, CHUNK_BYTES // per_channel)
    # Equal pieces: Zarr pads the last chunk to full size.
    return -(-shape[0] // -(-shape[0] // most))


def _create(
    zgroup: Any, name: str, shape: Sequence[int], dtype: np.dtype[Any], *, chunks: Any, codec: str
) -> Any:
    zarr_format = zgroup.metadata.zarr_format
    names = ["track"] if name in TRACK_ARRAYS else dimension_names(name, len(shape))
    unit = TRACK_ARRAYS[name] if name in TRACK_ARRAYS else ARRAYS[name].unit
    attributes: dict[str, Any] = {"units": unit}
    extra: dict[str, Any] = {}
    if zarr_format == 3:
        extra["dimension_names"] = names
    else:
        attributes["_ARRAY_DIMENSIONS"] = names  # xarray's convention for Zarr v2
    return zgroup.create_array(
        name,
        shape=tuple(shape),
        dtype=dtype,
        chunks=tuple(chunks),
        compressors=compressors(codec, zarr_format),
        fill_value=fill_value(dtype) if name == COUNTS else 0,
        attributes=attributes,
        **extra,
    )


def compressors(codec: str, zarr_format: int) -> Any:
    """Codec chain after the bytes; Zarr v3 gets a crc32c so that bit rot is found on reading."""
    name, _, level = codec.partition(":")
    if name not in ("zstd", "blosc-lz4", "none") or (level and name != "zstd"):
        raise L0Error(f"codec is {codec!r}, expected zstd:LEVEL, blosc-lz4 or none.")
    if zarr_format == 2:
        import numcodecs

        if name == "none":
            return None
        return numcodecs.Zstd(int(level or 1)) if name == "zstd" else numcodecs.Blosc("lz4")
    from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

    if name == "zstd":
        return (ZstdCodec(level=int(level or 1)), Crc32cCodec())
    if name == "blosc-lz4":
        return (BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"), Crc32cCodec())
    return (Crc32cCodec(),)


def _plain(value: Any) -> Any:
    """Attributes as JSON: NumPy scalars and arrays become numbers and lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
