"""A chunk of several zstd frames, as GPU encoders write it, reads the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numcodecs.zstd import Zstd
from zarr.codecs import Crc32cCodec, ZstdCodec

from gpucal.io.chunks.codecs import crc32c
from gpucal.io.chunks.counts import ZarrCounts
from gpucal.io.chunks.device import frames_payload
from gpucal.scan import EncodedBlock

SHAPE = (6, 5, 2, 3, 1)


def store(path: Path, sizes: list[int], *, checksum: bool) -> Any:
    """An array of one chunk whose file is frames of ``sizes`` bytes and the rest."""
    values = np.random.default_rng(1).integers(0, 9, SHAPE).astype(np.int32)
    codecs = (ZstdCodec(level=1), *([Crc32cCodec()] if checksum else []))
    array = zarr.create_array(
        str(path), shape=SHAPE, chunks=SHAPE, dtype=values.dtype, compressors=codecs
    )
    array[...] = values
    raw, cuts = values.tobytes(), [0, *np.cumsum(sizes).tolist()]
    parts = [raw[a:b] for a, b in zip(cuts, [*cuts[1:], len(raw)], strict=True)]
    assert all(parts)
    data = b"".join(Zstd(1).encode(part) for part in parts)
    file = path / "c/0/0/0/0/0"
    file.write_bytes(data + (crc32c(data) if checksum else b""))
    return values


NBYTES = 4 * int(np.prod(SHAPE))
CUTS = {
    "one": [],
    "halves": [NBYTES // 2],
    "last one byte": [256, NBYTES - 257],
    "first one byte": [1],
    "many": [64] * 10,
}


@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize("reader", ["default", "zarrs", "ours", "declared"])
@pytest.mark.parametrize("cuts", CUTS)
def test_frames_read_everywhere(tmp_path: Path, cuts: str, reader: str, checksum: bool) -> None:
    values = store(tmp_path / "a.zarr", CUTS[cuts], checksum=checksum)
    if reader == "zarrs":
        pytest.importorskip("zarrs")
    path = {"zarrs": {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}}.get(reader, {})
    with zarr.config.set(path):
        array = zarr.open_array(tmp_path / "a.zarr", mode="r")
        if reader in ("default", "zarrs"):
            np.testing.assert_array_equal(array[...], values)
            return
        counts = ZarrCounts(array)
    assert counts.direct
    if reader == "ours":
        np.testing.assert_array_equal(counts.read(0, SHAPE[0], 0), values[..., 0])
        return
    block = counts.encoded(0, SHAPE[0], 0)
    assert isinstance(block, EncodedBlock)
    (file,) = block.paths
    assert file is not None
    data = np.frombuffer(file.read_bytes(), np.uint8)
    frames = block.frames(data)
    assert block.sizes == (data.size,)
    assert block.checksum == checksum
    assert [f.nbytes for f in frames[:-1]] == CUTS[cuts]
    found = b"".join(Zstd().decode(data[f.start : f.start + f.size].tobytes()) for f in frames)
    assert found == values.tobytes()
    if not checksum:
        assert block.frames_on_disk(file) == frames


def test_only_whole_chunks_become_a_payload() -> None:
    data = np.frombuffer(Zstd(1).encode(b"abcd" * 9) + Zstd(1).encode(b"e"), np.uint8)
    payload = frames_payload(data, 37)
    assert bytes(payload.data) == data.tobytes()
    assert payload.crc == crc32c(data.tobytes())
    for wrong, nbytes in ((data, 36), (data[:-1], 37), (data[1:], 37)):
        with pytest.raises(ValueError, match=r"expected 36|cut off|does not start"):
            frames_payload(wrong, nbytes)
