"""L0 stores whose counts are copied to other chunks and codecs."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import zarr
from numcodecs.zstd import Zstd
from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec

from gpucal.io.chunks.codecs import crc32c

ZSTD, CRC = ZstdCodec(level=1), Crc32cCodec()
LAYOUTS: dict[str, dict[str, Any]] = {
    # 72 channels: the fourth chunk of 20 is padded
    "zstd": {"codecs": (ZSTD,)},
    "zstd, zstd checksum, crc32c": {"codecs": (ZstdCodec(level=1, checksum=True), CRC)},
    "plain": {"codecs": ()},
    "plain, crc32c": {"codecs": (CRC,), "channels": 8},
    "frames": {"codecs": (ZSTD,), "frames": 5},
    "frames, crc32c": {"codecs": (ZSTD, CRC), "frames": 5, "channels": 40},
}


def counts_of(store: Path) -> list[Path]:
    """Loads and source of scan 1, of scan 2, of scan 3."""
    return sorted(p.parent for p in store.rglob("data_5d/zarr.json"))


def recode(
    store: Path,
    out: Path,
    *,
    codecs: Any = (ZSTD,),
    channels: int = 20,
    subscans: int = 1,
    dumps: int = 0,
    big: bool = False,
    frames: int = 0,
) -> Path:
    """Copy an L0 store with other chunks and codecs of the counts; ``frames``: zstd frames per chunk."""
    shutil.copytree(store, out)
    for folder in counts_of(out):
        old: Any = zarr.open_array(folder, mode="r")
        values, attributes, fill = old[...], dict(old.attrs), old.fill_value
        shutil.rmtree(folder)
        c, d, r, a, s = values.shape
        made: Any = zarr.create_array(
            str(folder),
            shape=values.shape,
            chunks=(min(c, channels), dumps or d, r, a, min(s, subscans)),
            dtype=values.dtype,
            compressors=codecs,
            serializer=BytesCodec(endian="big" if big else "little"),
            fill_value=fill,
            dimension_names=old.metadata.dimension_names,
            attributes=attributes,
        )
        made[...] = values
        if frames:
            split_frames(folder, frames, checksum=CRC in codecs)
    return out


def split_frames(folder: Path, frames: int, *, checksum: bool) -> None:
    """Write each chunk file anew as several zstd frames, the last one of four bytes."""
    for path in (p for p in folder.rglob("*") if p.is_file() and p.name != "zarr.json"):
        data = path.read_bytes()
        raw = Zstd().decode(data[:-4] if checksum else data)
        cuts = [i * (len(raw) // 4 // frames) * 4 for i in range(frames)] + [len(raw) - 4, len(raw)]
        parts = [raw[i:j] for i, j in itertools.pairwise(cuts)]
        data = b"".join(Zstd(1).encode(part) for part in parts)
        path.write_bytes(data + (crc32c(data) if checksum else b""))
