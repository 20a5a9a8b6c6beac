"""A commit puts in place what was written, all of it, or the scan fails and the store is as before."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpucal import L1Error
from gpucal.io.files import atomic
from gpucal.io.l1.writer import L1Store, ScanWriter

Break = Callable[[Path], None]


def fill_scan(scan: ScanWriter, value: float = 1.0) -> None:
    scan.set_attrs("band_1", {"value": value})
    scan.put("band_1", "small", np.arange(5.0), ("x",))
    writer = scan.array("band_1", "spectra", (8, 6), (2, 6), "f8", ("x", "y"))
    for index in writer.indices():
        writer.write_chunk(index, np.full((2, 6), value))


def staged_of(store: L1Store) -> Path:
    [staged] = atomic.staging_dir(store.path).iterdir()
    return staged


def one_chunk(scan: Path) -> Path:
    return scan / "band_1/spectra/c/2/0"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


BREAKS: dict[str, Break] = {
    "the staging folder removed": lambda scan: shutil.rmtree(scan.parent),
    "the scan removed": shutil.rmtree,
    "an array removed": lambda scan: shutil.rmtree(scan / "band_1/spectra"),
    "a chunk removed": lambda scan: one_chunk(scan).unlink(),
    "a chunk of a small array removed": lambda scan: (scan / "band_1/small/c/0").unlink(),
    "a chunk cut": lambda scan: cut(one_chunk(scan)),
    "a chunk empty": lambda scan: os.truncate(one_chunk(scan), 0),
    "metadata of an array removed": lambda scan: (scan / "band_1/spectra/zarr.json").unlink(),
    "metadata of an array cut": lambda scan: cut(scan / "band_1/small/zarr.json"),
}


@pytest.mark.parametrize("replacing", [False, True])
@pytest.mark.parametrize("what", BREAKS)
def test_what_is_lost_before_the_commit_fails_the_scan(
    what: str, replacing: bool, tmp_path: Path
) -> None:
    store = L1Store(tmp_path / "out.zarr")
    if replacing:
        with store.begin(3) as scan:
            fill_scan(scan, 7.0)
            scan.commit()
    with store.begin(3) as scan:
        fill_scan(scan)
        BREAKS[what](staged_of(store))
        with pytest.raises(L1Error, match="scan 3: ") as error:
            scan.commit(overwrite=replacing)
        assert error.value.hint
    assert os.listdir(tmp_path) == ["out.zarr"]
    assert store.scan_path(3).exists() == replacing
    if replacing:
        assert store.finished(3) == {}
        assert one_chunk(store.scan_path(3)).exists()


@pytest.mark.parametrize("replacing", [False, True])
def test_what_is_lost_during_the_renaming_is_taken_out_again(
    replacing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cleaner that is inside the folder goes on deleting in it, wherever it is by then."""
    store = L1Store(tmp_path / "out.zarr")
    if replacing:
        with store.begin(3) as scan:
            fill_scan(scan, 7.0)
            scan.commit()
    name = "exchange" if replacing else "rename_into_place"
    move = getattr(atomic, name)

    def moving(staged: Path, final: Path) -> None:
        move(staged, final)
        if not moved:
            one_chunk(final).unlink()
        moved.append(final)

    moved: list[Path] = []
    monkeypatch.setattr(atomic, name, moving)
    with store.begin(3) as scan:
        fill_scan(scan)
        with pytest.raises(L1Error, match="is not on the disk"):
            scan.commit(overwrite=replacing)
    assert store.scan_path(3).exists() == replacing
    assert not replacing or one_chunk(store.scan_path(3)).exists()
    assert os.listdir(tmp_path) == ["out.zarr"]


def test_a_staging_folder_that_goes_early_is_noticed_early(tmp_path: Path) -> None:
    store = L1Store(tmp_path / "out.zarr")
    with store.begin(3) as scan:
        writer = scan.array("", "spectra", (8, 6), (2, 6), "f8", ("x", "y"))
        writer.write_chunk((0, 0), np.zeros((2, 6)))
        shutil.rmtree(atomic.staging_dir(store.path))
        with pytest.raises(L1Error, match="Was a folder removed during the run"):
            writer.write_chunk((1, 0), np.zeros((2, 6)))
        with pytest.raises(L1Error, match="scan 3"):
            scan.put("", "small", np.arange(5.0), ("x",))
    assert os.listdir(tmp_path) == ["out.zarr"]


def away(path: Path) -> None:
    path.rename(path.with_name("away"))


def another(path: Path) -> None:
    away(path)
    path.mkdir()


def another_store(path: Path) -> None:
    away(path)
    L1Store(path)


@pytest.mark.parametrize("change", [away, another, another_store])
def test_a_store_that_was_removed_or_replaced(change: Break, tmp_path: Path) -> None:
    """A scan never lands in a folder that only has the same name."""
    store = L1Store(tmp_path / "out.zarr")
    with store.begin(3) as scan:
        fill_scan(scan)
        change(store.path)
        with pytest.raises(L1Error, match=r"scan 3: .* cannot be written"):
            scan.commit()
    assert not list(tmp_path.rglob("scan_*"))


def test_a_store_that_lost_its_metadata(tmp_path: Path) -> None:
    store = L1Store(tmp_path / "out.zarr")
    with store.begin(3) as scan:
        fill_scan(scan)
        (store.path / "zarr.json").unlink()
        with pytest.raises(L1Error, match="No such file or directory"):
            scan.commit()
    assert not list(tmp_path.rglob("scan_*"))


def test_a_disk_that_takes_nothing_does_not_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*_: Any) -> int:
        return 0

    monkeypatch.setattr(os, "writev", nothing)
    store = L1Store(tmp_path / "out.zarr")
    with store.begin(3) as scan, pytest.raises(L1Error, match="takes no more bytes"):
        fill_scan(scan)


def test_a_disk_that_drops_what_it_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that all was written and holds less: the sizes tell."""
    write = os.writev

    def lying(descriptor: int, parts: list[memoryview]) -> int:
        whole = sum(len(part) for part in parts)
        write(descriptor, [b"".join(parts)[:-1]])
        return whole

    monkeypatch.setattr(os, "writev", lying)
    store = L1Store(tmp_path / "out.zarr")
    with store.begin(3) as scan:
        fill_scan(scan)
        with pytest.raises(L1Error, match=r"has \d+ bytes, \d+ were written"):
            scan.commit()
    assert not store.scan_path(3).exists()


def test_an_error_of_close_fails_the_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = L1Store(tmp_path / "out.zarr")
    close = os.close

    def failing(descriptor: int) -> None:
        close(descriptor)
        raise OSError(5, "Input/output error")

    with store.begin(3) as scan:
        writer = scan.array("", "spectra", (8, 6), (2, 6), "f8", ("x", "y"))
        monkeypatch.setattr(os, "close", failing)
        with pytest.raises(L1Error, match=r"scan 3: .*Input/output error"):
            writer.write_chunk((0, 0), np.zeros((2, 6)))
        monkeypatch.undo()
        with pytest.raises(L1Error, match="not complete"):
            scan.commit()
