"""The water of receivers and bands of one scan: one sky, so one PWV; both values are named where they differ."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.truth_setup import simulate_scan, steady
from oracle.scene import F_EFF, RESOLUTION, T_ATM, Scene

from gpucal import (
    CalibrationConfig,
    Scan,
    calibrate_scan,
    main,
    open_l1,
    simulate_night,
)
from gpucal.simulate.presets import preset

from .test_against_oracle import as_group, make_table, opacity_of

TABLE = make_table(RESOLUTION)


def two_receivers(pwv: tuple[float, float]) -> Scan:
    """A scan whose receivers look through different amounts of water."""
    parts, source, cal = [], None, None
    for water in pwv:
        scene = Scene(["OFF", "ON", "OFF"], shape=(64, 3, 2, 2), pwv=water, gain_image=0.0)
        scene.opacity = opacity_of(TABLE, scene)
        source, cal = scene.source(), scene.cal()
        parts.append(source["counts"])
    assert source is not None
    assert cal is not None
    source["counts"] = np.stack([parts[0][:, :, 0], parts[1][:, :, 1]], axis=2)
    return Scan(7, "", {"f_eff": F_EFF, "gain_image": 0.0}, {}, as_group(source), as_group(cal))


def named(text: str) -> dict[str, float]:
    """The PWV that a warning gives to each."""
    found = re.findall(r"(receiver \d|band_\d) has ([\d.]+) ± [\d.]+ mm", text)
    return {by: float(pwv) for by, pwv in found}


@pytest.mark.parametrize("off", [0.0, 0.03, -0.03])
def test_two_receivers_and_their_water(off: float) -> None:
    pwv = (0.7, 0.7 * (1.0 + off))
    result = calibrate_scan(two_receivers(pwv), CalibrationConfig(t_atm=T_ATM), table=TABLE)
    seen = [w for w in result.quality["pwv_seen"] if w["by"].startswith("receiver")]
    assert [w["by"] for w in seen] == ["receiver 0", "receiver 1"]
    # a line through the joint fit, good to the square of what they differ by
    assert [w["pwv_mm"] for w in seen] == pytest.approx(pwv, rel=2e-3 if off else 1e-8)
    own = [
        float(
            calibrate_scan(
                two_receivers((p, p)), CalibrationConfig(t_atm=T_ATM), table=TABLE
            ).solution.atmosphere.error.mean()
        )
        for p in pwv[:1]
    ]
    assert 0.0 < seen[0]["error_mm"] < 1.5 * own[0]
    said = [w for w in result.solution.warnings if "receivers disagree" in w]
    assert len(said) == (1 if off else 0)
    if off:
        assert named(said[0]) == pytest.approx({w["by"]: w["pwv_mm"] for w in seen}, rel=1e-3)
    each = CalibrationConfig(t_atm=T_ATM, pwv_scope="per-pixel")
    quality = calibrate_scan(two_receivers(pwv), each, table=TABLE).quality
    assert not [w for w in quality["pwv_seen"] if w["by"].startswith("receiver")]


@pytest.fixture(scope="module")
def two_bands(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A night of one scan of two bands under one sky, and its table."""
    folder = tmp_path_factory.mktemp("bands")
    store, table = folder / "l0.zarr", folder / "table.npz"
    setup = preset("chai", channels=64, dumps=3, n_on=2, sky="isothermal")
    simulate_night(store, replace(setup, pixels=2), 1, table_out=table)
    return store, table


def calibrate(two_bands: tuple[Path, Path], out: Path, *more: str) -> Any:
    store, table = two_bands
    assert (
        main(["calibrate", str(store), str(out), "--atmosphere", str(table), "--quiet", *more]) == 0
    )
    l1 = open_l1(out)
    (number,) = l1.scans()
    return [l1.scan(number, band) for band in ("band_1", "band_2")]


def test_two_bands_agree(two_bands: tuple[Path, Path], tmp_path: Path) -> None:
    bands = calibrate(two_bands, tmp_path / "out.zarr")
    for band, other in zip(bands, ("band_2", "band_1"), strict=True):
        assert not [w for w in band.attrs["warnings"] if "bands disagree" in w]
        (seen,) = (w for w in band.attrs["qa"]["pwv_seen"] if w["by"] == other)
        assert seen["pwv_mm"] > 0
        assert seen["error_mm"] > 0


def test_two_bands_that_disagree_name_each_other() -> None:
    """One band through a sky of more water: both bands say so, with both values."""
    from gpucal.backend.cpu import cpu_backend
    from gpucal.pipeline.scan.solve import LoadChoice, solve_scan
    from gpucal.steps.loads import load_means
    from gpucal.steps.skies.joint import with_other_bands

    setup = steady("chai")
    backend, config = cpu_backend(), CalibrationConfig()
    solutions = []
    for factor, band in ((1.0, 0), (1.6, 1)):
        weather = replace(setup.weather, pwv_mm=setup.weather.pwv_mm * factor)
        made = simulate_scan(replace(setup, weather=weather), "tp", 7)
        scan = made.scans[band]
        means = load_means(scan, config, backend)
        solutions.append(solve_scan(scan, LoadChoice(means), made.table, config, backend))
    found = with_other_bands(solutions)
    for solution, other in zip(found, reversed(found), strict=True):
        (text,) = (w for w in solution.warnings if "bands disagree" in w)
        wanted = {b.scan.band: float(b.atmosphere.pwv.mean()) for b in (solution, other)}
        assert named(text) == pytest.approx(wanted, rel=0.02)
    assert [w.warnings for w in with_other_bands(solutions[:1])] == [solutions[0].warnings]
