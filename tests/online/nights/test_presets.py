"""Every instrument and every mode of the simulator, replayed: L1 is that of ``gpucal calibrate``, and nothing fails."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from builders.night_stores import make_night, small_setup
from builders.small_site import assert_same_arrays, drain, site

from gpucal import calibrate_store, load_config
from gpucal.online.queue.pipe import Pipe
from gpucal.online.replay.replay import Replay
from gpucal.online.site.results import Results
from gpucal.simulate.presets import PRESETS
from gpucal.simulate.setup import Kind

MODES: dict[str, tuple[Kind, ...]] = {
    "hera": ("wsw", "otf-chopped"),
    "upgreat": ("nod",),
    "chai": ("tp",),
    "argus": ("otf", "fsw"),
    "superc": ("wsw-chopped",),
}


@pytest.mark.parametrize("name", MODES)
def test_online_is_offline(name: str, tmp_path: Path) -> None:
    setup = small_setup(name, MODES[name], channels=32, dumps=2, n_on=1, pixels=2, separate=True)
    night = make_night(tmp_path, setup)
    table = tmp_path / "table.npz"
    options: dict[str, Any] = {"atmosphere": str(table), "workers": 1}
    if setup.loads.vane:
        options["pwv"] = setup.weather.pwv_mm
    config = site(tmp_path / "site", table, calibration=options)
    grown = tmp_path / "grown.zarr"
    Replay(night, grown, Pipe(config.pipe), project="p1").run(speed=math.inf)
    drain(config, ("calibration", "obs_procedure"))
    results = Results(config.database_url)
    errors = [m["text"] for m in results.rows("messages") if m["level"] == "error"]
    states = {row["state"] for row in results.rows("scans")}
    results.close()
    assert errors == []
    assert states == {"calibrated", "ended"}
    report = calibrate_store(night, tmp_path / "offline.l1", load_config(None, **options))
    assert not report.failures
    assert_same_arrays(config.data / "p1" / "l1.zarr", tmp_path / "offline.l1")


def test_no_instrument_is_left_out() -> None:
    assert set(MODES) == set(PRESETS)
