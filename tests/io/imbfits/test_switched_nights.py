"""Switched scans and procedures of the simulator: through IMBFITS they give what the native store gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import imbfits as build

from gpucal import (
    CalibrationConfig,
    calibrate_store,
    import_raw,
    open_l0,
    open_l1,
    reduce_scan,
    save_table,
    simulate_scan,
)
from gpucal.simulate import SimulatedScan

BEGIN = 61000.125
THROW = 24e6
NUMBERS = {"load": 1, "fsw": 2, "wsw-chopped": 3, "pointing": 4, "focus": 5, "skydip": 6}
OBSTYPES = {"load": "calibrate", "pointing": "pointing", "focus": "focus", "skydip": "tip"}


class Night:
    """A scan of each kind, imported."""

    def __init__(self, folder: Path) -> None:
        setup, how = build.single(THROW)
        raw = folder / "raw"
        raw.mkdir()
        self.made: dict[str, SimulatedScan] = {}
        begin = BEGIN
        for kind, number in NUMBERS.items():
            load: Any = 1 if kind not in ("load", "skydip") else -1
            what: Any = kind
            made = simulate_scan(setup, what, number, start=begin, mjd0=BEGIN, lloadsn=load)
            self.made[kind] = made
            begin = made.plan.end + 10 / build.DAY
            if kind in OBSTYPES:
                file = build.file_of(made, setup, "FTS", how["FTS"], number, OBSTYPES[kind])
            else:
                switch = "frequencySwitching" if kind == "fsw" else "wobblerSwitching"
                pairs = kind == "fsw"
                file = build.interleaved(made, how["FTS"], number, pairs, switch=switch)
            file.write(raw)
        save_table(folder / "table.npz", self.made["fsw"].table)
        self.store = folder / "l0"
        report = import_raw(raw, self.store)
        assert report.exit_code == 0, [x.sentence for x in report.lost]
        self.config = CalibrationConfig(atmosphere=str(folder / "table.npz"))
        self.native = build.native(
            folder / "native", setup, {NUMBERS[k]: made for k, made in self.made.items()}
        )
        self.out = folder / "l1"


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    made = Night(tmp_path_factory.mktemp("switched"))
    chosen = made.config.model_copy(update={"scans": "2,3"})
    for store, out in ((made.store, made.out), (made.native, made.out.with_name("l1_native"))):
        assert calibrate_store(store, out, chosen).exit_code == 0
    return made


@pytest.mark.parametrize("kind", ["fsw", "wsw-chopped"])
def test_switched_scans(night: Night, kind: str) -> None:
    """Two phases in turn, dump by dump; of a frequency switch two subscans of the simulator become one."""
    mine, other = (
        open_l1(p).scan(NUMBERS[kind], "band_fts_1")
        for p in (night.out, night.out.with_name("l1_native"))
    )
    for name in ("spectra", "t_sys", "flags"):
        a, b = (np.asarray(x[name][...]) for x in (mine, other))
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=2e-6 * np.nanmax(np.abs(b)), err_msg=name)
    truth = night.made[kind].truth
    spectra = np.asarray(mine["spectra"][...])
    wanted = truth.folded(0) if kind == "fsw" else truth.t_a_star(0).max(axis=1, keepdims=True)
    n = wanted.shape[1] if kind == "fsw" else spectra.shape[1] // 2
    off = np.abs(spectra[:, :n, ..., 0] - wanted[:, :n])
    assert np.nanmax(off) < 5e-3 * np.nanmax(wanted)
    assert np.nanmax(wanted) > 3.0


@pytest.mark.parametrize("kind", ["pointing", "focus", "skydip"])
def test_procedures(night: Night, kind: str) -> None:
    """``gpucal reduce`` takes them for what they are, and finds what it finds in the native store."""
    mine, other = (
        reduce_scan(store, NUMBERS[kind], config=night.config)
        for store in (night.store, night.native)
    )
    found: Any = mine
    told: Any = other
    assert found.procedure == told.procedure == kind
    for a, b in zip(found.result.means, told.result.means, strict=True):
        assert (a.axis, a.name, a.valid) == (b.axis, b.name, b.valid)
        np.testing.assert_allclose(a.mean.value, b.mean.value, rtol=1e-4, atol=1e-3)
    if kind == "pointing":
        truth = night.made[kind].procedures[0].values
        for axis in ("az", "el"):
            value = found.result.mean(axis, "offset").mean.value
            assert value == pytest.approx(truth[f"{axis}_arcsec"], abs=0.05)
    if kind == "focus":
        attrs = open_l0(night.store).load(5)[0].attrs
        assert attrs["focus_axis"] == ["z"] * 15
        native = open_l0(night.native).load(5)[0].attrs["focus_mm"]
        np.testing.assert_allclose(attrs["focus_mm"][1::2], native[1::2])
