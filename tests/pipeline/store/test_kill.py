"""SIGKILL at any moment leaves a store that opens, holds only whole scans, and can be finished."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from builders.night_stores import assert_same, fast_folder, make_night, small_setup

import gpucal
from gpucal import CalibrationConfig, calibrate_store
from gpucal.io.files import atomic

KILLS = 20
SEED = 20260801


def start(folder: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "gpucal.cli.main", "calibrate", "--quiet"]
    command += [str(folder / "l0.zarr"), str(out), "--atmosphere", str(folder / "table.npz")]
    return subprocess.Popen([*command, "--workers", "2", *options], start_new_session=True)


def whole_scans(out: Path, undisturbed: Path) -> list[int]:
    """Scans of a store that must open and hold nothing but whole scans."""
    if not (out / "zarr.json").exists():
        assert not any(out.glob("scan_*"))
        return []
    store, reference = gpucal.open_l1(out), gpucal.open_l1(undisturbed)
    for number in store:
        scan, expected = store[number], reference[number]
        assert list(scan) == list(expected)
        for name in scan:
            assert np.array_equal(scan[name][...], expected[name][...], equal_nan=True)
    return list(store)


def wait_for_scans(process: subprocess.Popen[bytes], out: Path, count: int) -> None:
    """Until ``count`` scans are there or the process has ended; how fast it is does not matter."""
    while process.poll() is None and len(list(out.glob("scan_*"))) < count:
        time.sleep(0.002)


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path) -> None:
    """A run is killed and started again until 20 were killed, each some time after the n-th scan."""
    setup = small_setup(kinds=("otf", "tp", "fsw", "wsw"), channels=128, fill=1e-4)
    config = CalibrationConfig(workers=2)
    with fast_folder(tmp_path) as folder:
        make_night(folder, setup, scans=6)
        config = config.model_copy(update={"atmosphere": str(folder / "table.npz")})
        assert calibrate_store(folder / "l0.zarr", folder / "whole", config).exit_code == 0
        moments = random.Random(SEED)
        out, killed, stores, found = folder / "l1-0", 0, 1, set()
        while killed < KILLS:
            there = len(list(out.glob("scan_*")))
            process = start(folder, out)
            wait_for_start(out, process)
            wait_for_scans(process, out, moments.randint(there, min(there + 1, 5)))
            time.sleep(0.15 * moments.random())
            process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
            done = whole_scans(out, folder / "whole")
            found.add(len(done))
            if len(done) == 6:  # begin anew, but finish what the kill left
                assert calibrate_store(folder / "l0.zarr", out, config).exit_code == 0
                assert_same(out, folder / "whole")
                out, stores = folder / f"l1-{stores}", stores + 1
        assert len(found) > 3  # the moments were spread over the run
        assert start(folder, out).wait() == 0
        assert_same(out, folder / "whole")
        assert not atomic.staging_dir(out).exists()


def test_killed_while_replacing(tmp_path: Path) -> None:
    """With --overwrite every scan is there at every moment, the old one or the new one."""
    with fast_folder(tmp_path) as folder:
        make_night(folder, small_setup(kinds=("otf", "tp", "wsw")))
        out = folder / "l1"
        assert start(folder, out).wait() == 0
        assert start(folder, folder / "new", "--line-scale", "dsb").wait() == 0
        moments, seen = random.Random(SEED), set()
        for _ in range(4):
            process = start(folder, out, "--line-scale", "dsb", "--overwrite")
            wait_for_start(out, process)
            time.sleep(0.6 * moments.random())
            process.kill()
            process.wait()
            store = gpucal.open_l1(out)
            assert list(store) == [1, 2, 3]
            seen |= {store[n].attrs["line_scale"] for n in store}
        assert "dsb" in seen
        assert start(folder, out, "--line-scale", "dsb", "--overwrite").wait() == 0
        assert_same(out, folder / "new")
        assert not atomic.staging_dir(out).exists()


def wait_for_start(out: Path, process: subprocess.Popen[bytes]) -> None:
    """Until the first scan of a run is being written, or the process has ended."""
    staging = atomic.staging_dir(out)
    before = staged(staging)
    while process.poll() is None and not staged(staging) - before:
        time.sleep(0.002)


def staged(staging: Path) -> set[str]:
    """Names in the staging folder; the run removes it, also while it is being listed."""
    try:
        return {name for name in os.listdir(staging) if name.startswith("scan_")}
    except FileNotFoundError:
        return set()
