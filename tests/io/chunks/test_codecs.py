"""The chunk encoder agrees with zarr-python, byte for byte and both ways."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr

from gpucal import CalibrationConfig, ConfigError, L1Error
from gpucal.io.chunks.codecs import ChunkEncoder, parse_codec

CODECS = ("zstd:1", "zstd:-3", "zstd:5", "blosc-lz4", "blosc-zstd", "none")
DTYPES = ("f8", "f4", "u2", "i4", "i8", "u1", "bool")


def sample(dtype: str, n: int = 20_000) -> np.ndarray:
    values = np.random.default_rng(3).normal(0.0, 50.0, n)
    if dtype == "bool":
        return values > 0
    return np.abs(values).astype(dtype) if dtype[0] == "u" else values.astype(dtype)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bytes_as_zarr(codec: str, dtype: str, tmp_path: Path) -> None:
    values = sample(dtype)
    encoder = ChunkEncoder(codec, dtype)
    serializer, *compressors = encoder.zarr_codecs()
    array = zarr.create_array(
        tmp_path / "a",
        shape=values.shape,
        chunks=values.shape,
        dtype=values.dtype,
        serializer=serializer,
        compressors=compressors,
        zarr_format=3,
    )
    array[:] = values
    encoded = encoder.encode(values)
    stored = (tmp_path / "a" / "c" / "0").read_bytes()
    assert encoded == stored
    document = json.loads((tmp_path / "a" / "zarr.json").read_text())
    assert document["codecs"] == encoder.metadata()
    (tmp_path / "a" / "c" / "0").write_bytes(encoded)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a", mode="r")[:], values)


@pytest.mark.parametrize("codec", CODECS)
def test_read_only_strided_and_big_endian_blocks(codec: str) -> None:
    values = sample("f8").reshape(100, 200)
    values.flags.writeable = False
    encoder = ChunkEncoder(codec, "f8")
    expected = encoder.encode(np.ascontiguousarray(values[:, ::2]))
    assert encoder.encode(values[:, ::2]) == expected
    assert encoder.encode(values[:, ::2].astype(">f8")) == expected
    assert encoder.encode(np.asfortranarray(values[:, ::2])) == expected


@pytest.mark.parametrize("codec", CODECS)
def test_same_bytes_in_the_main_thread_and_in_many(codec: str) -> None:
    values = sample("f8", 300_000)
    encoder = ChunkEncoder(codec, "f8")
    here = encoder.encode(values)
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(encoder.encode, [values] * 8)) == {here}


def test_compressors_compress() -> None:
    flags = np.zeros(1_000_000, np.uint16)
    for codec in CODECS[:-1]:
        assert len(ChunkEncoder(codec, "u2").encode(flags)) < flags.nbytes / 100
    assert len(ChunkEncoder("none", "u2").encode(flags)) == flags.nbytes + 4


def test_payload_of_none_borrows_and_encode_copies() -> None:
    values = sample("f8", 10)
    encoder = ChunkEncoder("none", "f8")
    payload, copied = encoder.payload(values), encoder.encode(values)
    assert payload.nbytes == len(copied) == 84
    values[:] = 0
    assert bytes(payload.data) == bytes(80)
    assert copied[:80] != bytes(80)


@pytest.mark.parametrize(
    "codec",
    ["zstd:0", "zstd:23", "zstd:-8", "zstd:x", "zstd:", "none:1", "blosc-lz4:5", "gzip", ""],
)
def test_unknown_codec_is_refused(codec: str) -> None:
    with pytest.raises(ConfigError, match="codec is"):
        parse_codec(codec)


def test_every_codec_of_the_configuration_is_known() -> None:
    for codec in (*CODECS, "zstd", "zstd:-7", "zstd:22"):
        parse_codec(CalibrationConfig(codec=codec).codec)


def test_objects_and_text_are_refused() -> None:
    for dtype in ("O", "U4", "M8[s]", "c16"):
        with pytest.raises(L1Error, match="cannot be written"):
            ChunkEncoder("zstd:1", dtype)


def test_too_large_a_chunk_is_refused() -> None:
    block = np.broadcast_to(np.uint8(0), (2**31,))  # one byte of memory
    with pytest.raises(L1Error, match="too large"):
        ChunkEncoder("zstd:1", "u1").payload(block)
