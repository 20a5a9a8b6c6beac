"""Two scans of one number in one project: the second never replaces what the first one gave."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import zarr
from builders.night_stores import make_night, small_setup
from builders.small_site import drain, site

from gpucal.online.queue.pipe import Pipe
from gpucal.online.replay.replay import Replay
from gpucal.online.site.config import OnlineConfig
from gpucal.online.site.results import Results

TASKS = ("calibration", "fits_heterodyne")


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_night(tmp_path_factory.mktemp("night"), small_setup(kinds=("tp",), n_on=1))


def another(night: Path, out: Path, *, dated: bool) -> Path:
    """The same numbers again a day later, with other counts."""
    shutil.copytree(night, out)
    root: Any = zarr.open_group(str(out))
    for _, scan in root.groups():
        if dated:
            scan.attrs["date_obs"] = "2026-02-03T04:05:06.000"
        else:
            del scan.attrs["date_obs"]
        for group in (g for _, g in scan.groups()):
            group["data_5d"][...] = group["data_5d"][...] // 2
            group["mjd"][...] = group["mjd"][...] + 1.0
    return out


def play(config: OnlineConfig, night: Path, out: Path) -> None:
    Replay(night, out, Pipe(config.pipe)).run(speed=math.inf, said=lambda text: None)
    drain(config, TASKS)


def products(config: OnlineConfig) -> dict[str, bytes]:
    folder = config.data / "simulated"
    kept = [*folder.glob("fits/*"), *(p for p in folder.rglob("l1.zarr/**/*") if "/c/" in str(p))]
    return {str(p): p.read_bytes() for p in kept if p.is_file()}


@pytest.mark.parametrize("dated", [True, False])
def test_another_scan_of_a_number_is_refused(tmp_path: Path, night: Path, dated: bool) -> None:
    config = site(tmp_path, night.parent / "table.npz")
    later = another(night, tmp_path / "later.zarr", dated=dated)
    first = night
    if not dated:
        first = tmp_path / "plain.zarr"
        shutil.copytree(night, first)
        for _, scan in zarr.open_group(str(first)).groups():
            del scan.attrs["date_obs"]
    play(config, first, tmp_path / "one.zarr")
    before = products(config)
    assert len(before) > 3
    play(config, first, tmp_path / "again.zarr")  # the same night once more is no other scan
    assert products(config) == before
    play(config, later, tmp_path / "two.zarr")
    assert products(config) == before
    results = Results(config.database_url)
    said = [m["text"] for m in results.rows("messages") if m["level"] == "error"]
    results.close()
    assert said
    assert all("has another scan of this number already" in text for text in said), said
    assert all("--project" in text for text in said)
