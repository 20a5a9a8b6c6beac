"""Ctrl-C, exit codes, failures.json and what the command says, through the command itself."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders.night_stores import assert_same, fast_folder, make_night, small_setup

import gpucal
from gpucal import CalibrationConfig, calibrate_store
from gpucal.io.files import atomic
from gpucal.pipeline.store.report import SilentObserver

STAGES = ("load", "resolve", "prepare", "atm", "calibrate", "write", "wall")


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with fast_folder(tmp_path_factory.mktemp("night")) as folder:
        make_night(folder, small_setup(kinds=("otf", "tp")), scans=6)
        yield folder


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Scan 2 has a damaged ON chunk."""
    make_night(tmp_path, small_setup(kinds=("otf", "tp")), scans=2)
    chunk = tmp_path / "l0.zarr/scan_000002/source/data_5d/c/0/0/0/0/1"
    chunk.write_bytes(chunk.read_bytes()[:-20])
    return tmp_path


def command(folder: Path, out: Path, *options: str) -> list[str]:
    paths = [str(folder / "l0.zarr"), str(out)]
    table = ["--atmosphere", str(folder / "table.npz")]
    return [sys.executable, "-m", "gpucal.cli.main", "calibrate", *paths, *table, *options]


def call(folder: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(folder, out, *options), capture_output=True, text=True)


def test_ctrl_c_keeps_what_is_finished(night: Path, tmp_path: Path) -> None:
    out = tmp_path / "l1"
    process = subprocess.Popen(
        command(night, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "[2/6] scan 2 calibrated" in line:
            process.send_signal(signal.SIGINT)
            break
    _, text = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "Traceback" not in text
    assert "run the same command again" in text
    store = gpucal.open_l1(out)
    assert {1, 2} <= set(store) < {1, 2, 3, 4, 5, 6}
    assert not atomic.staging_dir(out).exists()
    again = call(night, out)
    assert again.returncode == 0
    assert "scan 1 skipped" in again.stderr
    assert "scan 6 calibrated" in again.stderr
    assert call(night, tmp_path / "whole").returncode == 0
    assert_same(out, tmp_path / "whole")


def test_a_job_in_the_background_goes_on(night: Path, tmp_path: Path) -> None:
    """A script starts it with SIGINT ignored: Ctrl-C is meant for what is in front."""
    with subprocess.Popen(
        command(night, tmp_path / "l1"),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "[2/6] scan 2 calibrated" in line:
                process.send_signal(signal.SIGINT)
    assert process.returncode == 0
    assert list(gpucal.open_l1(tmp_path / "l1")) == [1, 2, 3, 4, 5, 6]


class Interrupting(SilentObserver):
    """Raises KeyboardInterrupt in the main thread at the n-th tile, as Ctrl-C does."""

    def __init__(self, tile: int) -> None:
        self.left = tile

    def tile_done(self, scan: int, band: str, nbytes: int) -> None:
        self.left -= 1
        if self.left == 0:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


@pytest.mark.parametrize("tile", [1, 4, 7, 11])
def test_ctrl_c_at_any_tile(night: Path, tmp_path: Path, tile: int) -> None:
    """In the same process: nothing is left behind, and no thread goes on writing."""
    config = CalibrationConfig(atmosphere=str(night / "table.npz"), workers=2)
    before = threading.active_count()
    report = calibrate_store(
        night / "l0.zarr", tmp_path / "l1", config, observer=Interrupting(tile)
    )
    assert report.interrupted
    assert report.exit_code == 130
    assert not report.failures
    assert threading.active_count() == before
    done = list(gpucal.open_l1(tmp_path / "l1"))
    assert done == sorted(s.scan for s in report.summaries)
    assert len(done) < 6
    assert not atomic.staging_dir(tmp_path / "l1").exists()
    time.sleep(0.05)
    assert not atomic.staging_dir(tmp_path / "l1").exists()
    assert calibrate_store(night / "l0.zarr", tmp_path / "l1", config).exit_code == 0
    assert list(gpucal.open_l1(tmp_path / "l1")) == [1, 2, 3, 4, 5, 6]


def test_some_failed(broken: Path) -> None:
    result = call(broken, broken / "l1")
    assert result.returncode == 2
    assert list(gpucal.open_l1(broken / "l1")) == [1]
    [entry] = json.loads((broken / "l1/failures.json").read_text())
    assert list(entry) == ["scan", "stage", "error", "message", "hint"]
    assert (entry["scan"], entry["stage"], entry["error"]) == (2, "read", "CorruptDataError")
    assert "scan 2, subscan 1" in entry["message"]
    assert "data_5d/c/0/0/0/0/1" in entry["message"]
    assert entry["hint"].startswith("Restore it from a copy")
    assert entry["hint"] not in entry["message"]
    assert "CorruptDataError" in result.stdout


def test_none_calibrated(broken: Path) -> None:
    result = call(broken, broken / "l1", "--scans", "2,7", "--json")
    assert result.returncode == 1
    entries = json.loads((broken / "l1/failures.json").read_text())
    assert [e["scan"] for e in entries] == [2, 7]
    assert "scan 7: it is not in" in entries[1]["message"]
    assert json.loads(result.stdout.splitlines()[-1])["failures"] == entries


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--no-such-option"], "No such option"),
        (["--clip-counts", "2"], "clip_counts"),
        (["--scans", "9-3"], "backwards"),
        (["--quiet", "--json"], "exclude each other"),
    ],
)
def test_usage_errors(night: Path, tmp_path: Path, options: list[str], text: str) -> None:
    result = call(night, tmp_path / "l1", *options)
    assert result.returncode == 64
    assert text in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "l1").exists()


def test_all_calibrated_with_a_timing_line_per_scan(night: Path, tmp_path: Path) -> None:
    result = call(night, tmp_path / "l1", "--scans", "1-2")
    assert result.returncode == 0
    assert not (tmp_path / "l1/failures.json").exists()
    pattern = r"scan timing breakdown scan=(\d+) " + " ".join(rf"{s}_ms=(\d+)" for s in STAGES)
    lines = [m for line in result.stderr.splitlines() if (m := re.search(pattern + "$", line))]
    assert [int(m[1]) for m in lines] == [1, 2]
    for m in lines:
        *parts, wall = (int(x) for x in m.groups()[1:])
        assert 0 < parts[4] <= wall


def test_json_events(night: Path, tmp_path: Path) -> None:
    result = call(night, tmp_path / "l1", "--scans", "1-2", "--json")
    assert result.returncode == 0
    assert result.stderr == ""
    events: list[dict[str, Any]] = [
        json.loads(line, parse_constant=refuse) for line in result.stdout.splitlines()
    ]
    assert events[0]["event"] == "night_started"
    assert events[-1]["event"] == "report"
    kinds = [e["event"] for e in events]
    assert kinds.count("scan_finished") == kinds.count("scan_started") == 2
    for finished in (e for e in events if e["event"] == "scan_finished"):
        assert set(finished["timing"]) == {f"{s}_ms" for s in STAGES}
        assert finished["status"] == "calibrated"
        assert finished["pwv"] > 0
    for number in (1, 2):
        [begun] = [e for e in events if e["event"] == "scan_started" and e["scan"] == number]
        tiles = [e["nbytes"] for e in events if e["event"] == "tile_done" and e["scan"] == number]
        assert sum(tiles) == begun["total_bytes"]


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")
