"""The Zarr arrays of an L0 group: how they are cut into chunks, coded and named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gpucal.errors import L0Error
from gpucal.io.l0.schema import (
    ARRAYS,
    COUNTS,
    TRACK_ARRAYS,
    check_array,
    dimension_names,
    fill_value,
)
from gpucal.io.l0.track import check_track

Shape5 = tuple[int, int, int, int, int]
Codec = Literal["zstd:1", "blosc-lz4", "none"]
CHUNK_BYTES = 16 << 20


def create_counts(
    zgroup: Any,
    shape: Shape5,
    dtype: np.dtype[Any],
    codec: Codec | str,
    chunk_channels: int | None = None,
) -> Any:
    """The empty Zarr array ``data_5d`` [C, D, R, A, S], one subscan a chunk; returns it.

    chunk_channels: channels a chunk, by default as many as make about CHUNK_BYTES.
    """
    block = min(chunk_channels or channels_per_chunk(shape, dtype), shape[0])
    return create_array(zgroup, COUNTS, shape, dtype, chunks=(block, *shape[1:4], 1), codec=codec)


def write_small_arrays(zgroup: Any, arrays: Mapping[str, Any], shape: Shape5) -> None:
    """Write all arrays of a group but the counts, one chunk each; shape (C, D, R, A, S).

    Raises L0Error for an unknown or misshapen array, or a track that cannot be used.
    """
    track = {name: np.asarray(v) for name, v in arrays.items() if name in TRACK_ARRAYS}
    if track:
        check_track(track)
    for name, values in arrays.items():
        stored = track[name] if name in track else as_stored(name, values, shape)
        made = create_array(
            zgroup, name, stored.shape, stored.dtype, chunks=stored.shape, codec="none"
        )
        made[...] = stored


def as_stored(name: str, values: Any, shape: Shape5) -> npt.NDArray[Any]:
    """A small array in the dtype in which it is stored; raises L0Error when it does not fit."""
    check_known(name)
    array = np.asarray(values)
    check_array(name, array.shape, array.dtype, shape)
    return array.astype(ARRAYS[name].dtype)


def check_known(name: str) -> None:
    """Raise L0Error unless there is a small array of that name."""
    if name not in ARRAYS or name == COUNTS:
        raise L0Error(f"array {name!r} is unknown, expected {', '.join(list(ARRAYS)[1:])}.")


def channels_per_chunk(shape: Sequence[int], dtype: np.dtype[Any]) -> int:
    """How many channels make a chunk of about CHUNK_BYTES, counts [C, D, R, A, S]."""
    per_channel = int(np.prod(shape[1:4], dtype=np.int64)) * dtype.itemsize
    most = max(1, CHUNK_BYTES // per_channel)
    # Equal pieces: Zarr pads the last chunk to full size.
    return -(-shape[0] // -(-shape[0] // most))


def create_array(
    zgroup: Any, name: str, shape: Sequence[int], dtype: np.dtype[Any], *, chunks: Any, codec: str
) -> Any:
    """An empty Zarr array with the axes, unit and fill value that its name asks for."""
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
        overwrite=True,
        config={"write_empty_chunks": True},  # a chunk that is not there is one that was lost
        **extra,
    )


def compressors(codec: str, zarr_format: int) -> Any:
    """Codecs that follow the bytes codec; Zarr v3 gets a crc32c so that bit rot is found on reading."""
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
