"""``gpucal verify``: each flipped bit is found where there is a checksum, and none is written for broken files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from builders import l0 as build

from gpucal import main
from gpucal.io.files.verify import sidecar_of, verify_store


def chunk_of(store: Path, place: str = "source/data_5d") -> Path:
    return next(p for p in (store / "scan_000001" / place / "c").rglob("*") if p.is_file())


def flip(file: Path, at: int = -9) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 4
    file.write_bytes(data)


@pytest.fixture
def guarded(tmp_path: Path) -> Path:
    path = build.new_store(tmp_path / "night.zarr")
    build.write_scan(path, 1)
    return path


@pytest.fixture
def plain(guarded: Path) -> Path:
    """Counts without a checksum."""
    group = zarr.open_group(str(guarded / "scan_000001/source"), mode="a")
    array = group.create_array(
        "data_5d",
        shape=build.SHAPE,
        dtype="i4",
        chunks=(12, 3, 2, 4, 1),
        compressors=None,
        overwrite=True,
    )
    array[...] = build.counts(build.SHAPE)
    return guarded


@pytest.mark.parametrize("place", ["source/data_5d", "source/mjd", "calibration/thot"])
def test_a_flipped_bit_is_named(
    guarded: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(guarded)]) == 0
    file = chunk_of(guarded, place)
    flip(file)
    assert main(["verify", str(guarded)]) == 2
    assert f"fault: {file.relative_to(guarded)}: " in capsys.readouterr().out
    assert main(["verify", str(guarded), "--write-checksums"]) == 2
    assert not sidecar_of(guarded).exists()


def test_counts_without_checksum(plain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = verify_store(plain)
    assert report.ok
    assert report.decoded_only == 5
    main(["inspect", str(plain)])
    assert "the counts have no checksum" in capsys.readouterr().out
    assert main(["verify", str(plain), "--write-checksums"]) == 0
    main(["inspect", str(plain)])
    assert "the counts have no checksum" not in capsys.readouterr().out
    file = chunk_of(plain)
    flip(file)
    (fault,) = verify_store(plain).faults
    assert fault.path == str(file.relative_to(plain))
    assert "crc32c" in fault.text
    file.unlink()
    (fault,) = verify_store(plain).faults
    assert "not there" in fault.text
    assert not list(plain.parent.glob("*.part"))


def test_json_and_what_is_no_store(
    guarded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(guarded), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["faults"] == []
    assert found["files"] == found["with_checksum"] > 20
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main(["verify", str(empty)]) == 1
    assert main(["verify", str(tmp_path / "nothing")]) == 1


def test_a_broken_list_is_named(guarded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sidecar_of(guarded).write_text("{")
    assert main(["verify", str(guarded)]) == 1
    assert "list of checksums" in capsys.readouterr().err


def test_shards_are_checked(tmp_path: Path) -> None:
    array = zarr.create_array(
        str(tmp_path / "a.zarr"), shape=(8, 8), chunks=(4, 4), shards=(8, 8), dtype="i4"
    )
    array[...] = np.arange(64).reshape(8, 8)
    assert verify_store(tmp_path / "a.zarr").ok
    flip(tmp_path / "a.zarr/c/0/0", at=-2)
    assert not verify_store(tmp_path / "a.zarr").ok
