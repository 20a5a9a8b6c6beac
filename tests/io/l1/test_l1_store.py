"""The L1 store holds whole scans only, whatever happens to the processes that write it."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from gpucal import ConfigError, L1Error
from gpucal.io.files import atomic
from gpucal.io.l1.writer import L1Store, ScanWriter, write_failures

SHAPE = (8, 2, 3)


def fill_scan(scan: ScanWriter, value: float) -> None:
    scan.set_attrs("", {"value": value})
    writer = scan.array("", "a", SHAPE, (2, 2, 3), "f8", ("x", "y", "z"))
    for index in writer.indices():
        writer.write_chunk(index, np.full((2, 2, 3), value))


def add_scan(store: L1Store, number: int, value: float, *, overwrite: bool = False) -> None:
    with store.begin(number) as scan:
        fill_scan(scan, value)
        scan.commit(overwrite)


def check_scan(store: L1Store, number: int, value: float | None = None) -> None:
    group = zarr.open_group(store.scan_path(number), mode="r")
    expected = group.attrs["value"] if value is None else value
    assert group.attrs["value"] == expected
    array = group["a"]
    assert isinstance(array, zarr.Array)
    np.testing.assert_array_equal(array[:], np.full(SHAPE, expected))


def test_a_scan_is_invisible_until_commit(tmp_path: Path) -> None:
    store = L1Store(tmp_path / "night" / "out.zarr")
    with store.begin(7) as scan:
        fill_scan(scan, 1.0)
        assert store.finished(7) is None
        assert os.listdir(store.path) == ["zarr.json"]
        scan.commit()
    assert store.finished(7) == {"value": 1.0}
    check_scan(store, 7, 1.0)
    assert os.listdir(tmp_path / "night") == ["out.zarr"]


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    store = L1Store(tmp_path / "out.zarr")

    def interrupted() -> None:
        with store.begin(7) as scan:
            fill_scan(scan, 1.0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert store.finished(7) is None
    assert os.listdir(tmp_path) == ["out.zarr"]
    assert os.listdir(store.path) == ["zarr.json"]


def test_overwrite_keeps_the_old_until_the_new_is_whole(tmp_path: Path) -> None:
    store = L1Store(tmp_path / "out.zarr")
    add_scan(store, 7, 1.0)
    with pytest.raises(L1Error, match=r"scan 7: .*already there\. Use --overwrite"):
        add_scan(store, 7, 2.0)
    check_scan(store, 7, 1.0)
    with store.begin(7) as scan:
        fill_scan(scan, 3.0)
        check_scan(store, 7, 1.0)
        scan.commit(overwrite=True)
    check_scan(store, 7, 3.0)
    add_scan(store, 8, 4.0, overwrite=True)  # nothing there to replace
    check_scan(store, 8, 4.0)
    assert os.listdir(tmp_path) == ["out.zarr"]


def test_a_full_disk_is_one_sentence_and_leaves_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = L1Store(tmp_path / "out.zarr")
    add_scan(store, 7, 1.0)

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "writev", full)
    with pytest.raises(L1Error, match=r"scan 7: .*No space left on device\. Free some space"):
        add_scan(store, 7, 2.0, overwrite=True)
    check_scan(store, 7, 1.0)
    assert os.listdir(tmp_path) == ["out.zarr"]


def test_a_failed_sync_leaves_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = L1Store(tmp_path / "out.zarr")
    add_scan(store, 7, 1.0)

    def broken(path: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(atomic, "sync_tree", broken)
    with pytest.raises(L1Error, match="Input/output error"):
        add_scan(store, 7, 2.0, overwrite=True)
    check_scan(store, 7, 1.0)
    assert os.listdir(tmp_path) == ["out.zarr"]


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(descriptor: int, parts: list[memoryview]) -> int:
        return os.write(descriptor, b"".join(parts)[:100])

    monkeypatch.setattr(os, "writev", short)
    store = L1Store(tmp_path / "out.zarr", codec="none")
    with store.begin(1) as scan:
        values = np.random.default_rng(0).normal(size=(7, 13))
        scan.put("", "a", values, ("x", "y"))
        scan.commit()
    np.testing.assert_array_equal(zarr.open_array(store.scan_path(1) / "a", mode="r")[:], values)


KILLED = """
    import sys, threading
    import numpy as np
    from gpucal.io.l1.writer import L1Store
    store = L1Store(sys.argv[1], codec="none")
    for number in range(1, 10_000):
        with store.begin(number % 5) as scan:
            scan.set_attrs("", {"value": float(number)})
            writer = scan.array("", "a", (8, 2, 3), (2, 2, 3), "f8", ("x", "y", "z"))
            for index in writer.indices():
                writer.write_chunk(index, np.full((2, 2, 3), float(number)))
            scan.commit(overwrite=True)
        print(number, flush=True)
"""


@pytest.mark.parametrize("scans", [3, 8, 13])
def test_a_killed_writer_leaves_whole_scans(scans: int, tmp_path: Path) -> None:
    path = tmp_path / "out.zarr"
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for _ in range(scans):
        assert process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL

    before = L1Store(path)
    assert not atomic.staging_dir(path).exists()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        there = sorted(name for name, _ in zarr.open_group(path, mode="r").groups())
    assert len(there) >= min(scans, 5)
    for name in there:
        check_scan(before, int(name.removeprefix("scan_")))


WRITER = """
    import sys
    import numpy as np
    from gpucal.io.l1.writer import L1Store
    first = int(sys.argv[2])
    store = L1Store(sys.argv[1])
    store.set_root_attrs({"telescope": "T"})
    for number in range(first, first + 20, 2):
        with store.begin(number) as scan:
            scan.set_attrs("", {"value": float(number)})
            scan.put("", "a", np.full((8, 2, 3), float(number)), ("x", "y", "z"))
            scan.commit()
"""


def test_two_processes_write_different_scans_at_once(tmp_path: Path) -> None:
    path = tmp_path / "out.zarr"
    writers = [
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(WRITER), str(path), str(first)])
        for first in (1, 2)
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    store = L1Store(path)
    assert store.attrs["telescope"] == "T"
    for number in range(1, 21):
        check_scan(store, number, float(number))
    assert os.listdir(tmp_path) == ["out.zarr"]


def test_threads_create_one_store_and_race_for_one_scan(tmp_path: Path) -> None:
    results: list[object] = []
    barrier = threading.Barrier(4)

    def work(value: float) -> None:
        barrier.wait()
        try:
            store = L1Store(tmp_path / "out.zarr")
            add_scan(store, 1, value)
            results.append(value)
        except Exception as error:
            results.append(error)

    threads = [threading.Thread(target=work, args=(float(k),)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [r for r in results if isinstance(r, float)]
    assert [type(r) for r in results if r is not winner] == [L1Error] * 3
    check_scan(L1Store(tmp_path / "out.zarr"), 1, winner)


def test_opening_again_keeps_scans_and_root_attributes(tmp_path: Path) -> None:
    first = L1Store(tmp_path / "out.zarr")
    assert first.created
    first.set_root_attrs({"telescope": "T", "site": {"alt_m": np.float32(5.0)}})
    add_scan(first, 1, 1.0)
    again = L1Store(tmp_path / "out.zarr", codec="none", dtype="f32")
    assert not again.created
    again.set_root_attrs({"telescope": "other", "instrument": "I"})
    assert again.attrs == {
        "format": "gpucal-l1",
        "format_version": 1,
        "telescope": "T",
        "site": {"alt_m": 5.0},
        "instrument": "I",
    }
    add_scan(again, 2, 2.0)
    check_scan(again, 1, 1.0)
    check_scan(again, 2, 2.0)


def test_an_empty_directory_becomes_a_store(tmp_path: Path) -> None:
    (tmp_path / "out.zarr").mkdir()
    add_scan(L1Store(tmp_path / "out.zarr"), 1, 1.0)


def test_other_things_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("text")
    zarr.create_group(tmp_path / "l0.zarr", attributes={"format": "gpucal-l0"})
    zarr.create_group(
        tmp_path / "new.zarr", attributes={"format": "gpucal-l1", "format_version": 2}
    )
    before = sorted(tmp_path.rglob("*"))
    for name, match in {
        "file": "is a file",
        "folder": "holds other files",
        "l0.zarr": "'gpucal-l0', expected 'gpucal-l1'",
        "new.zarr": "format_version 2",
        "file/out.zarr": r"cannot be written: .* \(.*/file",
    }.items():
        with pytest.raises(L1Error, match=match):
            L1Store(tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before


def test_wrong_options_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="codec"):
        L1Store(tmp_path / "out.zarr", codec="gzip")
    with pytest.raises(L1Error, match="expected f64 or f32"):
        L1Store(tmp_path / "out.zarr", dtype="f16")
    assert list(tmp_path.iterdir()) == []


def test_failures_are_written_and_removed(tmp_path: Path) -> None:
    store = L1Store(tmp_path / "out.zarr")
    add_scan(store, 1, 1.0)
    failure = {"scan": 5, "stage": "loads", "error": "LoadError", "message": "m", "hint": "h"}
    path = write_failures(store.path, [failure, {**failure, "scan": np.int64(6)}])
    assert path == store.path / "failures.json"
    assert [entry["scan"] for entry in json.loads(path.read_text())] == [5, 6]
    # It is no Zarr object: the store opens all the same.
    root = zarr.open_group(store.path, mode="r")
    check_scan(store, 1, 1.0)
    assert root.attrs["format"] == "gpucal-l1"
    write_failures(store, [], looked_at=[6])
    assert [entry["scan"] for entry in json.loads(path.read_text())] == [5]
    write_failures(store, [], looked_at=[5, 6])
    assert not path.exists()
    write_failures(store, [], looked_at=[5])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [name for name, _ in root.groups()] == ["scan_000001"]


def test_stale_leftovers_go_when_the_store_is_opened(tmp_path: Path) -> None:
    store = L1Store(tmp_path / "out.zarr")
    with store.begin(1) as scan:
        fill_scan(scan, 1.0)
        process = subprocess.Popen([sys.executable, "-c", ""])
        process.wait()
        left = atomic.staging_dir(store.path) / f"scan_000002.{atomic._host()}.{process.pid}.1.0"
        left.mkdir()
        L1Store(tmp_path / "out.zarr")
        assert not left.exists()
        scan.commit()  # the live one was left alone
    check_scan(store, 1, 1.0)
