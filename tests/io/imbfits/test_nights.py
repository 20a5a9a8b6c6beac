"""Simulated nights of EMIR and HERA as IMBFITS: import, calibrate, compare with the truth and with the native store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import imbfits as build

from gpucal import (
    CalibrationConfig,
    ImportReport,
    Scan,
    calibrate_store,
    import_raw,
    open_l0,
    open_l1,
    save_table,
    simulate_scan,
)
from gpucal.simulate import SimulatedScan

LOAD, MAP, ON_OFF, DAY = 11, 12, 13, 61000.125
ARCSEC = 1.0 / 3600.0


class Night:
    """A calibration scan, a map and an ON-OFF, as IMBFITS and as they were simulated."""

    def __init__(self, folder: Path, which: str) -> None:
        self.folder, self.which = folder, which
        self.setup, how = build.emir() if which == "emir" else build.hera()
        self.raw = folder / "raw"
        self.raw.mkdir()
        self.made: dict[int, SimulatedScan] = {}
        begin = DAY
        kinds: dict[int, tuple[Any, str]] = {
            LOAD: ("load", "calibrate"),
            MAP: ("otf", "onTheFlyMap"),
            ON_OFF: ("tp", "onOff"),
        }
        old = {"version": "1.35", "stamp": None, "angle": 90.0, "by_row": True}
        for number, (kind, obstype) in kinds.items():
            served: Any = LOAD if number != LOAD else -1
            made = simulate_scan(
                self.setup,
                kind,
                number,
                start=begin,
                mjd0=DAY,
                lloadsn=served,
            )
            self.made[number] = made
            begin = made.plan.end + 10 / build.DAY
            for backend, parts in how.items():
                changes = old if which == "hera" else {"stamp": 0.0 if backend == "WILMA" else 0.5}
                file = build.file_of(made, self.setup, backend, parts, number, obstype, **changes)
                file.write(self.raw)
        save_table(folder / "table.npz", self.made[MAP].table)

    def native(self, out: Path) -> Path:
        """The store that the telescope would have written, with f32 counts."""
        return build.native(out, self.setup, self.made)

    def calibrated(self, store: Path, name: str) -> Path:
        out = self.folder / name
        config = CalibrationConfig(atmosphere=str(self.folder / "table.npz"))
        report = calibrate_store(store, out, config)
        assert report.exit_code == 0
        return out


@pytest.fixture(scope="module", params=["emir", "hera"])
def night(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Night:
    return Night(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def store(night: Night) -> Path:
    out = night.folder / "l0"
    report: ImportReport = import_raw(night.raw, out)
    assert report.exit_code == 0, [str(x.error) for x in report.lost]
    assert report.scans == (LOAD, MAP, ON_OFF)
    return out


def source(scan: Scan) -> Any:
    assert scan.source is not None
    return scan.source


def order(night: Night) -> list[int]:
    """Pixel of the simulator for each pixel of the file."""
    return build.PLACES if night.which == "hera" else [0]


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
            np.testing.assert_allclose(mine.elevation, told.elevation, atol=2e-7)
            np.testing.assert_allclose(mine.azimuth, told.azimuth, atol=5e-7)
            for k, name in enumerate(("otf_lon", "otf_lat")):
                off = np.where([m.endswith("OFF") for m in told.sobsmode], build.OFF_DEG[k], 0.0)
                wanted = np.nan_to_num(getattr(told, name)) + off
                np.testing.assert_allclose(getattr(mine, name), wanted, rtol=0, atol=0.01 * ARCSEC)
            for name in ("signal", "image"):
                assert np.abs(_ends(mine, name) - _ends(told, name)).max() < 1.0, name
            np.testing.assert_allclose(mine.tamb, 275.4, atol=1e-4)
            np.testing.assert_allclose(mine.pamb, 540.04464, rtol=1e-6)
            assert set(mine.lloadsn.tolist()) == {LOAD}


def _ends(group: Any, name: str) -> Any:
    """Frequencies [2, R, S] of the first and the last channel, Hz."""
    sign = 1 if name == "signal" else -1
    at = np.array([0, group.shape[0] - 1])[:, None, None]
    return getattr(group, f"{name}_freq") + sign * (at - group.ref_channel) * group.freq_res


def test_counts_and_load_temperatures(night: Night, store: Path) -> None:
    for number in (LOAD, MAP):
        got = {s.band: s for s in open_l0(store).load(number)}
        for true in night.made[number].scans:
            name = "calibration" if number == LOAD else "source"
            mine, told = getattr(got[true.band], name), getattr(true, name)
            for s in range(told.shape[4]):
                counts = np.asarray(mine.counts.read(0, told.shape[0], s))
                wanted = np.asarray(told.counts.read(0, told.shape[0], s))[..., order(night)]
                np.testing.assert_array_equal(counts, wanted.astype(np.float32))
            if name == "calibration":
                np.testing.assert_allclose(mine.thot, 293.5)
                np.testing.assert_allclose(mine.tcold, 80.0)


def test_pixels_are_where_they_were(night: Night, store: Path) -> None:
    lon, lat = (x[0, order(night)] for x in night.setup.pixel_offsets())
    for scan in open_l0(store).load(MAP):
        for got, true in (
            (source(scan).pixel_offset_lon, lon),
            (source(scan).pixel_offset_lat, lat),
        ):
            np.testing.assert_allclose(got[0, :, 0], true, rtol=0, atol=0.01 * ARCSEC)


@pytest.fixture(scope="module")
def calibrated(night: Night, store: Path) -> Path:
    return night.calibrated(store, "l1")


def test_t_a_star_t_rec_and_pwv_are_those_of_the_truth(night: Night, calibrated: Path) -> None:
    """T_A* to 1e-6 of T_sys*, which is the rounding of f32 counts; the others to what that does to them."""
    opened = open_l1(calibrated)
    seen, brightest = 0, 0.0
    for number in (MAP, ON_OFF):
        for truth in night.made[number].truths:
            scan = opened.scan(number, truth.band)
            spectra = np.asarray(scan["spectra"][...])
            np.testing.assert_allclose(
                np.asarray(scan["t_rec"][...]), truth.t_rec[..., order(night)], rtol=2e-6
            )
            np.testing.assert_allclose(
                float(np.asarray(scan["pwv"][...]).mean()), truth.pwv_mm, rtol=2e-6
            )
            for k, subscan in enumerate(truth.on_index.tolist()):
                wanted = truth.t_a_star(subscan)[..., order(night)]
                limit = 1e-6 * np.asarray(scan["t_sys"][..., k]).max()
                assert np.abs(spectra[..., k] - wanted).max() < limit
                brightest = max(brightest, wanted.max())
                seen += 1
    assert seen == 4 * len(night.setup.bands)
    assert brightest > 3.0


def test_the_same_as_from_the_native_store(night: Night, calibrated: Path) -> None:
    native = night.calibrated(night.native(night.folder / "native"), "l1_native")
    for number in (MAP, ON_OFF):
        for band in (b.name for b in night.setup.bands):
            mine, other = (open_l1(p).scan(number, band) for p in (calibrated, native))
            for name in ("spectra", "t_rec", "t_sys"):
                a, b = (np.asarray(x[name][...]) for x in (mine, other))
                axis = {"spectra": 3, "t_rec": 2, "t_sys": 2}[name]
                b = np.take(b, order(night), axis=axis)
                np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6 * np.nanmax(np.abs(b)))
