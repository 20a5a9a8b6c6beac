"""Loads that a scan measures several times: averaged with a word, or followed by the gain interpolation."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from builders.imbfits import small as small_imb
from builders.mbfits import small as small_mb

from gpucal import (
    CalibrationConfig,
    GpucalWarning,
    calibrate_store,
    import_raw,
    open_l0,
    open_l1,
    select_backend,
)
from gpucal.pipeline.scan.load_rules import load_blocks
from gpucal.products import LoadMeans
from gpucal.steps.hot_cold.gain_drift import corrected, drift_between, drift_through

F64 = npt.NDArray[np.float64]
KELVIN = {"HOT": 290.0, "COLD": 77.0, "SKY": 60.0, "REF": 60.0, "ON": 63.0}
T_REC = 100.0
BLOCK = ["HOT", "COLD", "HOT"]
ORDER = [*BLOCK, "REF", "ON", "REF", *BLOCK, "REF", "ON", "REF", *BLOCK]
GAIN = [1000.0, 1100.0, 1040.0]
"""Of the three blocks of loads; straight lines between their mid-times."""


def gain(when: Any, knots: F64) -> F64:
    return np.asarray(np.interp(when, knots, GAIN))


def loads(which: int, hot_mjd: float, knots: F64) -> LoadMeans:
    """Means of a block whose COLD is 20 s after its HOT."""
    cold_mjd = hot_mjd + 20 / 86400
    shape = (4, 1, 2)
    return LoadMeans(
        scan=which,
        hot=np.full(shape, (290.0 + T_REC) * gain(hot_mjd, knots)),
        cold=np.full(shape, (77.0 + T_REC) * gain(cold_mjd, knots)),
        hot_mjd=hot_mjd,
        cold_mjd=cold_mjd,
        hot_time=1.0,
        t_hot=np.array([290.0]),
        t_cold=np.array([77.0]),
    )


def test_lines_from_one_block_to_the_next() -> None:
    """Exact for any temperature as long as the gain runs straight between the blocks."""
    backend = select_backend("cpu")
    begins = 60000.0 + np.array([0.0, 600.0, 1500.0]) / 86400
    blocks = [replace(loads(k, t, begins), cold_mjd=t) for k, t in enumerate(begins.tolist())]
    blocks = [replace(b, cold=b.hot * (177.0 / 390.0)) for b in blocks]
    drift = drift_through(blocks, correct_off=True)
    when = np.append(begins, 60000.0 + np.array([300.0, 1200.0, -50.0, 2000.0]) / 86400)
    counts = np.tile((163.0 * gain(when, begins))[None, :, None, None], (4, 1, 1, 2))
    got = corrected(counts, when, drift, 0, 4, backend)
    np.testing.assert_allclose(got, 163.0 * GAIN[0], rtol=1e-12)
    np.testing.assert_allclose(drift.span_2(), 213.0 * GAIN[2], rtol=1e-12)


def test_of_two_blocks_it_is_the_line_between_two_load_scans() -> None:
    backend = select_backend("cpu")
    knots = 60000.0 + np.array([0.0, 600.0, 1500.0]) / 86400
    first, second = (loads(k, float(knots[k]), knots) for k in (0, 1))
    when = 60000.0 + np.linspace(-100, 900, 7) / 86400
    counts = np.random.default_rng(1).normal(2e5, 1e3, (4, 7, 1, 2))
    one = corrected(counts, when, drift_between(first, second, correct_off=True), 0, 4, backend)
    other = corrected(counts, when, drift_through([first, second], correct_off=True), 0, 4, backend)
    np.testing.assert_array_equal(one, other)


def as_mbfits(folder: Path, drifting: bool) -> None:
    """An ON-OFF with three blocks of loads, whose gain follows GAIN or stands still."""
    subs = [small_mb.sub(n, kind) for n, kind in enumerate(ORDER, 1)]
    middles = [s.middle for s in subs]
    for n, s in enumerate(subs):
        levels = _levels(middles, n, s.middle, drifting)
        s.data = {k: np.tile(levels[:, None, None], (1, 1, 6)) for k in s.data}
    small_mb.scan(5, "ONOFF", subs).write(folder)


def as_imbfits(folder: Path, drifting: bool) -> None:
    kinds = {"HOT": "calAmbient", "COLD": "calCold", "REF": "track", "ON": "track"}
    subs = []
    for n, kind in enumerate(ORDER, 1):
        place = small_imb.AWAY if kind == "REF" else (0.0, 0.0)
        subs.append(small_imb.sub(n, kinds[kind], 0.0, place=place, traps=False))
    middles = [s.middle for s in subs]
    for n, s in enumerate(subs):
        levels = _levels(middles, n, s.middle, drifting)
        s.data = np.tile(levels[:, None], (1, s.data.shape[1]))
    tuned = small_imb.receiver(THOT=290.0, TCOLD=77.0)
    small_imb.night(5, "onOff", subs, tuned=tuned).write(folder)


def _levels(middles: list[F64], which: int, when: F64, drifting: bool) -> F64:
    """Counts of the dumps: (T + T_rec) times the gain, which stands still within a block of loads.

    A block is HOT, COLD, HOT, so that the mean of HOT is of the time of COLD.
    """
    colds = [k for k, kind in enumerate(ORDER) if kind == "COLD"]
    times = np.array([middles[k].mean() for k in colds])
    kind = ORDER[which]
    if not drifting:
        scale = np.full(len(when), GAIN[0])
    elif kind in BLOCK:
        scale = np.full(len(when), GAIN[int(np.argmin(np.abs(times - when.mean())))])
    else:
        scale = gain(when, times)
    return np.asarray((KELVIN[kind] + T_REC) * scale)


WRITERS: dict[str, Callable[[Path, bool], None]] = {"mbfits": as_mbfits, "imbfits": as_imbfits}


@pytest.mark.parametrize("name", WRITERS)
def test_a_scan_with_three_blocks_of_loads(tmp_path: Path, name: str) -> None:
    """With the interpolation the drifting gain leaves nothing behind; without it there is an error, and a word."""
    spectra: dict[tuple[bool, int], Any] = {}
    said: list[str] = []
    for drifting in (False, True):
        raw = tmp_path / f"raw{drifting}"
        raw.mkdir()
        WRITERS[name](raw, drifting)
        store = tmp_path / f"l0{drifting}"
        assert import_raw(raw, store).exit_code == 0
        (scan,) = open_l0(store).load(5)
        assert len(load_blocks(scan)) == 3
        for mode in (0, 3) if drifting else (0,):
            out = tmp_path / f"l1{drifting}{mode}"
            asked: Any = {"gain_interpolate": mode, "f_eff": 0.95, "gain_image": 0.05}
            config = CalibrationConfig(atmosphere="none", tau=0.1, t_atm=260.0, **asked)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                assert calibrate_store(store, out, config).exit_code == 0
            said += [str(w.message) for w in caught if issubclass(w.category, GpucalWarning)]
            opened = open_l1(out).scan(5, scan.band)
            said += [str(x) for x in opened.attrs.get("warnings", [])]
            assert opened.attrs["gain_drift_corrected"] is (mode == 3)
            spectra[drifting, mode] = np.asarray(opened["spectra"][...])
    still = spectra[False, 0]
    assert np.isfinite(still).all()
    # f32 counts of 2e5: 1e-7 of T_sys
    np.testing.assert_allclose(spectra[True, 3], still, atol=2e-4)
    assert np.abs(spectra[True, 0] - still).max() > 0.02
    assert any("measured 3 times and averaged: --gain-interpolate 3" in s for s in said), said


def test_loads_at_one_time_are_one_block(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    kinds = ("HOT", "COLD", "HOT", "COLD", "REF", "ON", "REF", "HOT")
    subs = [small_mb.sub(n, kind) for n, kind in enumerate(kinds, 1)]
    small_mb.scan(5, "ONOFF", subs).write(raw)
    import_raw(raw, tmp_path / "l0")
    (scan,) = open_l0(tmp_path / "l0").load(5)
    assert load_blocks(scan) == []
