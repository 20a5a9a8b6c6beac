"""The verdict on a simulated night: noise explains the errors, or it does not."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from gpucal import main
from gpucal.simulate.compare import Deviation
from gpucal.simulate.verdict import format_verdict, judge


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated night with its truth: loads in each scan, otf, tp and fsw."""
    place = tmp_path_factory.mktemp("night")
    small = ["--scans", "4", "--channels", "64", "--dumps", "6", "--subscans", "3"]
    line = ["simulate", str(place / "n.zarr"), *small, "--truth", str(place / "t.npz")]
    assert main(line) == 0
    table = str(place / "n.zarr.atm.npz")
    line = ["calibrate", str(place / "n.zarr"), str(place / "l1.zarr"), "--atmosphere", table]
    assert main([*line, "--quiet"]) == 0
    return place


def compared(place: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "gpucal.simulate",
            str(place / "l1.zarr"),
            str(place / "t.npz"),
            *options,
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_good_night_agrees_in_a_few_lines(night: Path) -> None:
    done = compared(night)
    assert done.returncode == 0, done.stdout
    assert len(done.stdout.splitlines()) <= 10
    assert "agrees with the truth: the worst error is" in done.stdout
    assert len(compared(night, "--all").stdout.splitlines()) > 20


@pytest.mark.parametrize(
    ("name", "factor", "said"),
    [("spectra", 1.2, "T_A*"), ("t_rec", 1.02, "T_rec"), ("t_sys", 1.02, "T_sys")],
)
def test_a_wrong_scale_is_found(
    night: Path, tmp_path: Path, name: str, factor: float, said: str
) -> None:
    import shutil

    for part in ("l1.zarr", "t.npz"):
        copy = shutil.copytree if (night / part).is_dir() else shutil.copy
        copy(night / part, tmp_path / part)
    root = zarr.open_group(tmp_path / "l1.zarr")
    for scan in (1, 2, 3, 4):
        array = root[f"scan_{scan:06d}/{name}"]
        array[...] = np.asarray(array[...]) * factor  # type: ignore[index]
    done = compared(tmp_path)
    assert done.returncode == 1
    assert "does NOT agree with the truth" in done.stdout
    assert said in done.stdout.splitlines()[-1]


def test_the_expected_error_is_that_of_gaussian_noise() -> None:
    rows = [
        Deviation(1, "", "spectra", "K", 4.0, 1.0, 1000, 1.0, 4.0),
        Deviation(2, "", "spectra", "K", 8.0, 2.0, 1000, 2.0, 4.0),
        Deviation(2, "", "tau_signal", "Np", 9.0, 9.0, 5),
        Deviation(2, "", "bad channels", "", 0.0, 0.0, 2000),
    ]
    line, tau, flags = judge(rows)
    assert line.rms == pytest.approx(math.sqrt(2.5))
    assert line.expected == pytest.approx(math.sqrt(2.5))
    assert line.ratio == pytest.approx(4.0 / math.sqrt(2 * math.log(2000)))
    assert line.holds
    assert tau.holds  # nothing is known of it
    assert flags.holds
    assert "agrees" in format_verdict([line, tau, flags])
    (wrong,) = judge([Deviation(1, "", "bad channels", "", 3.0, 0.0, 2000)])
    assert not wrong.holds
    assert "NOT agree" in format_verdict([line, wrong])


def test_what_cannot_be_compared_is_one_sentence(tmp_path: Path) -> None:
    done = compared(tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("gpucal: error: ")
    assert "Traceback" not in done.stderr
