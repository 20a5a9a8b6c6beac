"""Simulated nights of APEX as MBFITS: import, calibrate, compare with the truth and with the native store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import mbfits as build
from builders.mbfits import nights

from gpucal import (
    CalibrationConfig,
    Scan,
    calibrate_store,
    import_raw,
    open_l0,
    open_l1,
    reduce_scan,
    save_table,
    simulate_scan,
)
from gpucal.simulate import SimulatedScan

LOAD, MAP, ON_OFF, BEGIN = 11, 12, 13, 61000.125
ARCSEC = 1.0 / 3600.0
THROW = -24e6


class Night:
    """A calibration scan, a map and an ON-OFF, as MBFITS and as they were simulated."""

    def __init__(self, folder: Path, grouped: bool) -> None:
        self.folder = folder
        self.setup, febes = build.apex()
        self.raw = folder / "raw"
        self.raw.mkdir()
        self.made: dict[int, SimulatedScan] = {}
        begin = BEGIN
        kinds: dict[int, tuple[Any, str]] = {
            LOAD: ("load", "CAL"),
            MAP: ("otf", "MAP"),
            ON_OFF: ("tp", "ONOFF"),
        }
        old: dict[str, Any] = {} if grouped else {"version": "1.57"}
        for number, (kind, word) in kinds.items():
            served: Any = LOAD if number != LOAD else -1
            made = simulate_scan(self.setup, kind, number, start=begin, mjd0=BEGIN, lloadsn=served)
            self.made[number] = made
            begin = made.plan.end + 10 / build.DAY
            scan = build.of_simulated(made, febes, number, word, feed_fastest=not grouped, **old)
            scan.write(self.raw, grouped)
        save_table(folder / "table.npz", self.made[MAP].table)

    def calibrated(self, store: Path, name: str) -> Path:
        out = self.folder / name
        config = CalibrationConfig(atmosphere=str(self.folder / "table.npz"))
        assert calibrate_store(store, out, config).exit_code == 0
        return out


@pytest.fixture(scope="module", params=["file", "folder"])
def night(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Night:
    return Night(tmp_path_factory.mktemp(request.param), request.param == "folder")


@pytest.fixture(scope="module")
def store(night: Night) -> Path:
    out = night.folder / "l0"
    report = import_raw(night.raw, out)
    assert report.exit_code == 0, [x.sentence for x in report.lost]
    assert report.scans == (LOAD, MAP, ON_OFF)
    return out


def source(scan: Scan) -> Any:
    assert scan.source is not None
    return scan.source


def _ends(group: Any, name: str) -> Any:
    """Frequencies [2, R, S] of the first and the last channel, Hz."""
    sign = 1 if name == "signal" else -1
    at = np.array([0, group.shape[0] - 1])[:, None, None]
    return getattr(group, f"{name}_freq") + sign * (at - group.ref_channel) * group.freq_res


def test_times_positions_and_frequencies(night: Night, store: Path) -> None:
    for number in (MAP, ON_OFF):
        got = {s.band: s for s in open_l0(store).load(number)}
        assert set(got) == {b.name for b in night.setup.bands}
        for true in night.made[number].scans:
            mine, told = source(got[true.band]), source(true)
            assert mine.sobsmode == told.sobsmode
            assert mine.shape == told.shape
            np.testing.assert_allclose(mine.mjd, told.mjd, rtol=0, atol=1e-3 / 86400)
            np.testing.assert_allclose(mine.exptime, told.exptime)
            np.testing.assert_allclose(mine.elevation, told.elevation, atol=1e-9)
            np.testing.assert_allclose(mine.azimuth, told.azimuth, atol=1e-9)
            for k, name in enumerate(("otf_lon", "otf_lat")):
                off = np.where([m.endswith("OFF") for m in told.sobsmode], nights.OFF_DEG[k], 0.0)
                wanted = np.nan_to_num(getattr(told, name)) + off
                np.testing.assert_allclose(getattr(mine, name), wanted, rtol=0, atol=0.01 * ARCSEC)
            for name in ("signal", "image"):
                assert np.abs(_ends(mine, name) - _ends(told, name)).max() < 1.0, name
            np.testing.assert_allclose(mine.tamb, 270.4, atol=1e-4)
            np.testing.assert_allclose(mine.pamb, 412.5341, rtol=1e-6)
            assert set(mine.lloadsn.tolist()) == {LOAD}


def test_counts_and_load_temperatures(night: Night, store: Path) -> None:
    for number in (LOAD, MAP):
        got = {s.band: s for s in open_l0(store).load(number)}
        for true in night.made[number].scans:
            name = "calibration" if number == LOAD else "source"
            mine, told = getattr(got[true.band], name), getattr(true, name)
            for s in range(told.shape[4]):
                counts = np.asarray(mine.counts.read(0, told.shape[0], s))
                wanted = np.asarray(told.counts.read(0, told.shape[0], s))
                np.testing.assert_array_equal(counts, wanted.astype(np.float32))
            if name == "calibration":
                np.testing.assert_allclose(mine.thot, 291.25)
                np.testing.assert_allclose(mine.tcold, 78.5)


def test_pixels_are_where_they_were(night: Night, store: Path) -> None:
    lon, lat = (x[0] for x in night.setup.pixel_offsets())
    for scan in open_l0(store).load(MAP):
        assert scan.attrs["pixels"] == [3, 1]
        for got, true in (
            (source(scan).pixel_offset_lon, lon),
            (source(scan).pixel_offset_lat, lat),
        ):
            np.testing.assert_allclose(got[0, :, 0], true, rtol=0, atol=0.01 * ARCSEC)


@pytest.fixture(scope="module")
def calibrated(night: Night, store: Path) -> Path:
    return night.calibrated(store, "l1")


FOLDER = pytest.mark.parametrize("night", ["folder"], indirect=True, scope="module")
"""What is the same in both shapes of the store is calibrated once."""


@FOLDER
def test_t_a_star_t_rec_and_pwv_are_those_of_the_truth(night: Night, calibrated: Path) -> None:
    """T_A* to 1e-6 of T_sys*, which is the rounding of f32 counts; the others to what that does to them."""
    opened = open_l1(calibrated)
    brightest = 0.0
    for number in (MAP, ON_OFF):
        for truth in night.made[number].truths:
            scan = opened.scan(number, truth.band)
            spectra = np.asarray(scan["spectra"][...])
            np.testing.assert_allclose(np.asarray(scan["t_rec"][...]), truth.t_rec, rtol=2e-6)
            pwv = float(np.asarray(scan["pwv"][...]).mean())
            np.testing.assert_allclose(pwv, truth.pwv_mm, rtol=2e-6)
            for k, subscan in enumerate(truth.on_index.tolist()):
                wanted = truth.t_a_star(subscan)
                limit = 1e-6 * np.asarray(scan["t_sys"][..., k]).max()
                assert np.abs(spectra[..., k] - wanted).max() < limit
                brightest = max(brightest, wanted.max())
    assert brightest > 3.0


@FOLDER
def test_the_same_as_from_the_native_store(night: Night, calibrated: Path) -> None:
    native = build.native(night.folder / "native", night.setup, night.made)
    other = night.calibrated(native, "l1_native")
    for number in (MAP, ON_OFF):
        for band in (b.name for b in night.setup.bands):
            mine, told = (open_l1(p).scan(number, band) for p in (calibrated, other))
            for name in ("spectra", "t_rec", "t_sys"):
                a, b = (np.asarray(x[name][...]) for x in (mine, told))
                np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6 * np.nanmax(np.abs(b)))


NUMBERS = {"load": 1, "fsw": 2, "wsw-chopped": 3, "pointing": 4, "focus": 5, "skydip": 6}
WORDS = {"load": "CAL", "pointing": "POINT", "focus": "FOCUS-Z", "skydip": "SKYDIP"}


class Switched:
    """A scan of each kind, imported."""

    def __init__(self, folder: Path) -> None:
        setup, febes = build.single(THROW)
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
            if kind in WORDS:
                head = {"CTYPE1": "ALON-SFL", "CTYPE2": "ALAT-SFL"} if kind == "pointing" else {}
                build.of_simulated(made, febes, number, WORDS[kind], head=head).write(raw)
            elif kind == "fsw":
                throws = (0.5 * THROW, -0.5 * THROW)
                build.interleaved(made, febes, number, True, throws=throws).write(raw)
            else:
                build.interleaved(made, febes, number, False, wobbler=True).write(raw)
        save_table(folder / "table.npz", self.made["fsw"].table)
        self.store = folder / "l0"
        report = import_raw(raw, self.store)
        assert report.exit_code == 0, [x.sentence for x in report.lost]
        self.config = CalibrationConfig(atmosphere=str(folder / "table.npz"))
        self.native = build.native(
            folder / "native", setup, {NUMBERS[k]: made for k, made in self.made.items()}
        )
        self.outs = (folder / "l1", folder / "l1_native")
        chosen = self.config.model_copy(update={"scans": "2,3"})
        for store, out in zip((self.store, self.native), self.outs, strict=True):
            assert calibrate_store(store, out, chosen).exit_code == 0


@pytest.fixture(scope="module")
def switched(tmp_path_factory: pytest.TempPathFactory) -> Switched:
    return Switched(tmp_path_factory.mktemp("switched"))


@pytest.mark.parametrize("kind", ["fsw", "wsw-chopped"])
def test_switched_scans(switched: Switched, kind: str) -> None:
    """Two phases in turn, dump by dump; of a frequency switch two subscans of the simulator become one."""
    mine, other = (open_l1(p).scan(NUMBERS[kind], "band_pi230_ffts1_1") for p in switched.outs)
    for name in ("spectra", "t_sys", "flags"):
        a, b = (np.asarray(x[name][...]) for x in (mine, other))
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=2e-6 * np.nanmax(np.abs(b)), err_msg=name)
    truth = switched.made[kind].truth
    spectra = np.asarray(mine["spectra"][...])
    wanted = truth.folded(0) if kind == "fsw" else truth.t_a_star(0).max(axis=1, keepdims=True)
    n = wanted.shape[1] if kind == "fsw" else spectra.shape[1] // 2
    off = np.abs(spectra[:, :n, ..., 0] - wanted[:, :n])
    assert np.nanmax(off) < 5e-3 * np.nanmax(wanted)
    assert np.nanmax(wanted) > 3.0


@pytest.mark.parametrize("kind", ["pointing", "focus", "skydip"])
def test_procedures(switched: Switched, kind: str) -> None:
    """``gpucal reduce`` finds in the imported scan what it finds in the native one."""
    mine, other = (
        reduce_scan(store, NUMBERS[kind], config=switched.config)
        for store in (switched.store, switched.native)
    )
    found: Any = mine
    told: Any = other
    assert found.procedure == told.procedure == kind
    for a, b in zip(found.result.means, told.result.means, strict=True):
        assert (a.axis, a.name, a.valid) == (b.axis, b.name, b.valid)
        np.testing.assert_allclose(a.mean.value, b.mean.value, rtol=1e-4, atol=1e-3)
    if kind == "focus":
        attrs = open_l0(switched.store).load(5)[0].attrs
        assert attrs["focus_axis"] == "z"
        native = open_l0(switched.native).load(5)[0].attrs["focus_mm"]
        np.testing.assert_allclose(attrs["focus_mm"][1::2], native[1::2])
