"""``gpucal inspect --verify``: every damaged or missing chunk of a raw or calibrated store is named with its scan."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from builders.night_stores import make_night, small_setup

import gpucal
from gpucal import CalibrationConfig, calibrate_store, main
from gpucal.io.chunks.every_chunk import ReadChunks


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scans, raw (l0.zarr) and calibrated (l1), with a rule for flags."""
    folder = tmp_path_factory.mktemp("night")
    make_night(folder, small_setup(kinds=("otf", "tp")))
    config = CalibrationConfig(atmosphere=str(folder / "table.npz"), workers=1, backend="cpu")
    assert calibrate_store(folder / "l0.zarr", folder / "l1", config).exit_code == 0
    gpucal.flag(folder / "l1", scans=2, channels="3:4", reason="spur")
    return folder


def flip(path: Path, at: int = -7) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 16
    path.write_bytes(data)


def first_chunk(array: Path) -> Path:
    return next(p for p in sorted((array / "c").rglob("*")) if p.is_file())


@pytest.mark.parametrize("store", ["l0.zarr", "l1"])
def test_a_whole_store(night: Path, store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(night / store), "--verify"]) == 0
    assert "chunks read, none damaged." in capsys.readouterr().out
    assert main(["inspect", str(night / store), "--json"]) == 0
    assert "verified" not in json.loads(capsys.readouterr().out)
    assert main(["inspect", str(night / store), "--verify", "--json", "--scans", "2"]) == 0
    found = json.loads(capsys.readouterr().out)["verified"]
    below = (night / store / "scan_000002").rglob("*")
    files = sum(p.is_file() and p.suffix != ".json" for p in below)
    assert found == {"chunks": files, "without_checksum": 0, "damaged": 0}


@pytest.mark.parametrize(
    ("store", "array"),
    [
        ("l0.zarr", "source/data_5d"),
        ("l0.zarr", "source/mjd"),
        ("l0.zarr", "calibration/data_5d"),
        ("l1", "spectra"),
        ("l1", "t_rec"),
        ("l1", "flags"),
        ("l1", "flags/calibrated"),
    ],
)
def test_a_flipped_bit_is_named(
    night: Path, tmp_path: Path, store: str, array: str, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "store"
    shutil.copytree(night / store, copy)
    chunk = first_chunk(copy / "scan_000002" / array)
    flip(chunk)
    assert main(["inspect", str(copy), "--verify", "--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    said = {row["scan"]: row["problems"] for row in report["scans"]}
    assert said[1] == []
    assert any("scan 2" in text and str(chunk) in text for text in said[2])
    assert set(said[2]) <= set(report["problems"])


def test_missing_and_odd_chunks(
    night: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "l1"
    shutil.copytree(night / "l1", copy)
    missing = first_chunk(copy / "scan_000001/spectra")
    missing.unlink()
    fifo = first_chunk(copy / "scan_000002/t_sys")
    fifo.unlink()
    os.mkfifo(fifo)
    sparse = first_chunk(copy / "scan_000002/flags")
    os.truncate(sparse, 8 << 30)
    assert main(["inspect", str(copy), "--verify"]) == 1
    said = capsys.readouterr().out
    assert f"scan 1: array spectra: chunk file {missing} is missing." in said
    assert f"scan 2: array t_sys: {fifo} is a FIFO, expected a regular file." in said
    assert f"scan 2: array flags: {sparse} has {8 << 30} bytes" in said
    assert "3 damaged" in said


def test_a_class_file_has_no_checksums(
    night: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "class", str(night / "l1"), str(tmp_path / "x.gpucal")]) == 0
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "x.gpucal"), "--verify"]) == 64
    assert "--verify" in capsys.readouterr().err


@pytest.mark.parametrize("shards", [None, (8, 8)])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_arrays_of_other_programs(
    tmp_path: Path, shards: tuple[int, int] | None, zarr_format: int
) -> None:
    if shards and zarr_format == 2:
        pytest.skip("Zarr v2 has no shards")
    array = zarr.create_array(
        str(tmp_path / "a"),
        shape=(8, 12),
        chunks=(4, 4),
        shards=shards,
        dtype="i4",
        zarr_format=zarr_format,  # type: ignore[arg-type]
    )
    array[:, :8] = np.arange(1, 65).reshape(8, 8)
    found = ReadChunks()
    found.add("a", array, whole=True)
    assert not found.faults
    assert (found.chunks, found.missing) == ((1, 1) if shards else (4, 2))
    assert found.unguarded == found.chunks
    chunk = next(
        p for p in sorted((tmp_path / "a").rglob("*")) if p.name[0] in "01" and p.is_file()
    )
    chunk.write_bytes(chunk.read_bytes()[:-3])
    found.add("a", array)
    [fault] = found.faults
    assert fault.startswith("array a: ")
    assert str(chunk) in fault
