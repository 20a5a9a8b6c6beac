"""Staging, renaming and the removal of leftovers."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gpucal import L1Error
from gpucal.io.files import atomic
from gpucal.io.l1.flag_array import rules_locked


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "out.zarr"
    path.mkdir()
    return path


class _OldSystem:
    """A C library without renameat2 and syncfs."""


def fill(folder: Path, text: str) -> Path:
    (folder / "x" / "y").mkdir(parents=True)
    (folder / "x" / "y" / "value").write_text(text)
    return folder


def read(folder: Path) -> str:
    return (folder / "x" / "y" / "value").read_text()


def test_staging_is_beside_the_store_also_through_a_link(store: Path, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere"
    link.mkdir()
    (link / "night").symlink_to(store)
    assert atomic.staging_dir(link / "night") == store.parent / "out.zarr.staging"
    staged = atomic.new_staged(store, "scan_000001")
    assert staged.parent == store.parent / "out.zarr.staging"
    assert staged.stat().st_dev == store.stat().st_dev


def test_rename_into_place_and_discard(store: Path) -> None:
    staged = fill(atomic.new_staged(store, "scan_000001"), "new")
    atomic.sync_tree(staged)
    atomic.rename_into_place(staged, store / "scan_000001")
    atomic.discard(staged)
    assert read(store / "scan_000001") == "new"
    assert not atomic.staging_dir(store).exists()


def test_rename_into_place_never_replaces(store: Path) -> None:
    fill(store / "scan_000001", "old")
    staged = fill(atomic.new_staged(store, "scan_000001"), "new")
    with pytest.raises(FileExistsError):
        atomic.rename_into_place(staged, store / "scan_000001")
    assert read(store / "scan_000001") == "old"
    assert read(staged) == "new"


@pytest.mark.parametrize("old_system", [False, True])
def test_exchange_swaps(store: Path, old_system: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if old_system:
        monkeypatch.setattr(atomic, "_libc", _OldSystem)
    fill(store / "scan_000001", "old")
    staged = fill(atomic.new_staged(store, "scan_000001"), "new")
    atomic.sync_tree(staged)
    atomic.exchange(staged, store / "scan_000001")
    assert read(store / "scan_000001") == "new"
    assert read(staged) == "old"
    assert list(atomic.staging_dir(store).iterdir()) == [staged]


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "renameat2"), reason="no renameat2 here")
def test_exchange_never_shows_a_gap(store: Path) -> None:
    final = fill(store / "scan_000001", "0")
    seen: set[str] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            try:
                # One open of the directory: what it refers to cannot change underneath.
                folder = os.open(final, os.O_RDONLY)
            except FileNotFoundError:
                seen.add("gap")
                continue
            os.close(folder)
            seen.add("there")

    watcher = threading.Thread(target=watch)
    watcher.start()
    for n in range(50):
        staged = fill(atomic.new_staged(store, "scan_000001"), str(n))
        atomic.exchange(staged, final)
        atomic.discard(staged)
    stop.set()
    watcher.join()
    assert seen == {"there"}


def test_exchange_fallback_puts_the_old_back_when_the_new_cannot_come(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "_libc", _OldSystem)
    fill(store / "scan_000001", "old")
    with pytest.raises(FileNotFoundError):
        atomic.exchange(store.parent / "nothing", store / "scan_000001")
    assert read(store / "scan_000001") == "old"


def test_an_interrupted_replacement_is_undone(store: Path) -> None:
    ended = _ended_process()
    folder = atomic.staging_dir(store)
    fill(folder / f"scan_000001.replaced.{atomic._host()}.{ended}.5.0", "old")
    fill(folder / f"scan_000001.{atomic._host()}.{ended}.5.1", "new")
    atomic.clean_stale(store)
    assert read(store / "scan_000001") == "old"
    assert not folder.exists()


def _ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_only_leftovers_of_ended_processes_go(store: Path) -> None:
    folder = atomic.staging_dir(store)
    host, start = atomic._host(), atomic._start_time(os.getpid())
    ours = atomic.new_staged(store, "scan_000001")
    ended = folder / f"scan_000002.{host}.{_ended_process()}.77.0"
    reused = folder / f"scan_000003.{host}.{os.getpid()}.{start + 1}.0"
    foreign = folder / f"scan_000004.elsewhere_12345678.{_ended_process()}.77.0"
    unknown = folder / "notes"
    for entry in (ended, reused, foreign, unknown):
        fill(entry, "x")
    assert atomic.clean_stale(store) == [ended, reused]
    assert sorted(folder.iterdir()) == sorted([ours, foreign, unknown])


def test_old_leftovers_of_another_host_go(store: Path) -> None:
    folder = atomic.staging_dir(store)
    old = folder / "scan_000004.elsewhere_12345678.1.77.0"
    busy = folder / "scan_000005.elsewhere_12345678.1.77.0"
    past = time.time() - 8 * 86400
    for entry in (old, busy):
        fill(entry, "x")
        for path in (entry, entry / "x", entry / "x" / "y"):
            os.utime(path, (past, past))
    os.utime(busy / "x" / "y")  # a chunk was written lately
    assert atomic.clean_stale(store) == [old]
    assert list(folder.iterdir()) == [busy]


def test_a_zombie_counts_as_ended(store: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read()  # returns when it ends; it is not waited for yet
    deadline = time.time() + 10
    while atomic._start_time(process.pid) not in (-1, 0) and time.time() < deadline:
        time.sleep(0.01)
    left = fill(atomic.staging_dir(store) / f"s.{atomic._host()}.{process.pid}.77.0", "x")
    assert atomic.clean_stale(store) == [left]
    process.stdout.close()
    process.wait()


def test_write_file_replaces_or_keeps(store: Path) -> None:
    path = store / "zarr.json"
    assert atomic.write_file(path, b"first", store, replace=False)
    assert not atomic.write_file(path, b"second", store, replace=False)
    assert path.read_bytes() == b"first"
    assert atomic.write_file(path, b"third", store, replace=True)
    assert path.read_bytes() == b"third"
    assert not atomic.staging_dir(store).exists()


def test_write_file_without_hard_links(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "no hard links")

    monkeypatch.setattr(os, "link", refuse)
    path = store / "zarr.json"
    assert atomic.write_file(path, b"first", store, replace=False)
    assert not atomic.write_file(path, b"second", store, replace=False)
    assert path.read_bytes() == b"first"


def test_threads_may_stage_and_discard_at_once(store: Path) -> None:
    errors: list[BaseException] = []

    def work(k: int) -> None:
        try:
            for n in range(30):
                staged = fill(atomic.new_staged(store, f"scan_{k}{n}"), "x")
                atomic.rename_into_place(staged, store / f"scan_{k}{n}")
                atomic.discard(staged)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(list(store.iterdir())) == 120


def test_sync_tree_reports_a_refusal(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        @staticmethod
        def syncfs(_: int) -> int:
            ctypes.set_errno(28)
            return -1

    monkeypatch.setattr(atomic, "_libc", Full)
    with pytest.raises(OSError, match="No space left"):
        atomic.sync_tree(store)


def test_os_errors_become_one_sentence() -> None:
    with (
        pytest.raises(L1Error, match=r"^scan 7: /a/b cannot be written: No space left .*Free some"),
        atomic.as_write_error(Path("/a/b"), 7),
    ):
        raise OSError(28, "No space left on device")


def test_a_lock_of_a_killed_process_goes_and_a_held_one_stays(store: Path) -> None:
    with rules_locked(store):
        assert not atomic.clean_stale(store)
        [lock] = atomic.staging_dir(store).iterdir()
        kept = lock.read_bytes()
    lock.parent.mkdir()
    lock.write_bytes(kept)
    assert atomic.clean_stale(store) == [lock]
    assert not lock.parent.exists()
