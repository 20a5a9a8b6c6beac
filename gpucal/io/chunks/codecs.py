"""Encode chunks of a Zarr v3 array outside Zarr: one call per chunk, without the GIL.

The chain is always bytes (little endian, C order) -> compressor or nothing -> crc32c, as in the
Zarr v3 core codecs, so that any Zarr v3 reader opens the result. Encoding takes most of the time
of a calibration, hence a caller can do it in as many threads as it has, and keep the payload.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
import numpy.typing as npt

# Importing Zarr also makes Blosc single-threaded: its own threads store the compressed blocks in
# the order they finish, so the bytes would differ from run to run.
import zarr.codecs
from numcodecs.blosc import Blosc
from numcodecs.zstd import Zstd

from gpucal.errors import ConfigError, L1Error

MAX_CHUNK_BYTES = 2**31 - 2**20
"""Blosc and most readers count the bytes of a chunk in a signed 32-bit integer."""

# Measured on f64 and f32 noise: bitshuffle gains 5-8 % in size over shuffle, levels 1 to 5 differ by
# less than the scatter of the timing; on flags level 3 packs several times better than level 1.
_BLOSC_LEVEL = 3


class Payload(NamedTuple):
    """One encoded chunk: ``data`` followed by its four ``crc`` bytes."""

    data: bytes | memoryview
    crc: bytes

    @property
    def nbytes(self) -> int:
        return len(self.data) + len(self.crc)


def parse_codec(codec: str) -> tuple[str, int]:
    """Split "zstd:LEVEL", "blosc-lz4", "blosc-zstd" or "none" into a name and a level.

    Raises ConfigError for anything else.
    """
    name, colon, text = codec.partition(":")
    if name == "zstd":
        try:
            level = int(text) if colon else 1
        except ValueError:
            level = 0
        # Level 0 would silently mean 3, which is several times slower than 1.
        if level and -7 <= level <= 22:
            return name, level
    elif name in ("blosc-lz4", "blosc-zstd") and not colon:
        return name, _BLOSC_LEVEL
    elif name == "none" and not colon:
        return name, 0
    raise ConfigError(
        f"codec is {codec!r}, expected zstd:LEVEL (-7..22, not 0), blosc-lz4, blosc-zstd or none."
    )


class ChunkEncoder:
    """Encode chunks of one dtype with one codec; every method is thread-safe."""

    def __init__(self, codec: str, dtype: npt.DTypeLike) -> None:
        """Raises ConfigError for an unknown codec, L1Error for a dtype without fixed size."""
        self.codec = codec
        self.name, self.level = parse_codec(codec)
        self.dtype = np.dtype(dtype)
        if self.dtype.kind not in "biuf":
            raise L1Error(
                f"an array of dtype {self.dtype} cannot be written, expected numbers or bool."
            )
        self._stored = self.dtype.newbyteorder("<")
        self._compress = self._compressor()

    def _compressor(self) -> Callable[[Any], bytes] | None:
        """The compressing function, bytes of it without a crc32c; None for "none"."""
        if self.name == "none":
            return None
        if self.name == "zstd":
            encode = Zstd(level=self.level, checksum=False).encode
        else:
            cname = self.name.removeprefix("blosc-")
            encode = Blosc(cname=cname, clevel=self.level, shuffle=Blosc.BITSHUFFLE).encode
        return encode  # type: ignore[no-any-return]

    def payload(self, block: npt.NDArray[Any]) -> Payload:
        """Encode one whole chunk (already padded), any shape.

        With codec "none" the payload borrows the memory of ``block`` when that is contiguous:
        it holds until the block is edited.
        """
        if (nbytes := block.size * self.dtype.itemsize) > MAX_CHUNK_BYTES:
            raise L1Error(
                f"a chunk of {nbytes} bytes is too large, at most {MAX_CHUNK_BYTES} fit.",
                hint="Choose smaller chunks.",
            )
        flat = np.require(block, dtype=self._stored, requirements="C").reshape(-1)
        if self._compress is None:
            raw = flat.view(np.uint8)
            return Payload(memoryview(raw), crc32c(raw))  # type: ignore[arg-type]
        data = self._compress(flat)
        return Payload(data, crc32c(data))

    def encode(self, block: npt.NDArray[Any]) -> bytes:
        """Return the bytes of the chunk file of ``block``: data and crc32c, copied into one."""
        return b"".join(self.payload(block))

    def metadata(self) -> list[dict[str, Any]]:
        """The ``codecs`` entry of the array's zarr.json."""
        single = self.dtype.itemsize == 1
        chain: list[dict[str, Any]] = [
            {"name": "bytes"}
            if single
            else {"name": "bytes", "configuration": {"endian": "little"}}
        ]
        if self.name == "zstd":
            chain.append(
                {"name": "zstd", "configuration": {"level": self.level, "checksum": False}}
            )
        elif self.name != "none":
            configuration = {
                "typesize": self.dtype.itemsize,
                "cname": self.name.removeprefix("blosc-"),
                "clevel": self.level,
                "shuffle": "bitshuffle",
                "blocksize": 0,
            }
            chain.append({"name": "blosc", "configuration": configuration})
        chain.append({"name": "crc32c"})
        return chain

    def zarr_codecs(self) -> list[Any]:
        """The same chain as zarr-python objects: the serializer first, then the compressors."""
        endian = None if self.dtype.itemsize == 1 else "little"
        classes: dict[str, Any] = {
            "zstd": zarr.codecs.ZstdCodec,
            "blosc": zarr.codecs.BloscCodec,
            "crc32c": zarr.codecs.Crc32cCodec,
        }
        compressors = [classes[entry["name"]].from_dict(entry) for entry in self.metadata()[1:]]
        return [zarr.codecs.BytesCodec(endian=endian), *compressors]


def crc32c(data: Any) -> bytes:
    """CRC-32C of a buffer, as it stands at the end of a chunk file: four bytes, little endian."""
    return int(google_crc32c.value(data)).to_bytes(4, "little")
