"""A simulated night of FOREST as a SAM45 log with its antenna log: import, calibrate, compare with its truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import sam45 as build

from gpucal import (
    CalibrationConfig,
    ImportReport,
    Scan,
    calibrate_store,
    import_raw,
    main,
    open_l0,
    open_l1,
    save_table,
    simulate_scan,
)
from gpucal.simulate import SimulatedScan

START = build.mjd("2025-11-21T21:30:45.25")
LOAD, SECOND_LOAD = 1121213045, 1121213420
PROFILE = "[sam45]\npixel_offsets = [[-25, 25], [25, 25], [-25, -25], [25, -25]]\n"


class Night:
    """One observation: ZERO, loads, three OTF rows between OFFs, loads again, three more rows."""

    def __init__(self, folder: Path) -> None:
        self.setup = build.forest_setup()
        self.made: list[tuple[SimulatedScan, SimulatedScan]] = []
        log = build.Log(build.forest_arrays(self.setup), dump_s=1.0)
        for k, begin in enumerate((START, START + 215.0 / 86400.0)):
            loads = self._scan("load", begin)
            rows = self._scan("otf", begin + 20.0 / 86400.0)
            if k == 0:
                build.add_zero(log, begin)
            build.add_scan(log, loads, self.setup)
            build.add_scan(log, rows, self.setup, line=1 + 100 * k)
            self.made.append((loads, rows))
        self.folder = folder
        self.path = log.write(folder / "forest.sam45")
        self._antenna()
        (folder / "site.toml").write_text(PROFILE)
        save_table(folder / "table.npz", self.made[0][1].table)

    def _scan(self, kind: Any, begin: float) -> SimulatedScan:
        load = 1 if kind != "load" else -1
        return simulate_scan(self.setup, kind, start=begin, lloadsn=load, mjd0=START)

    def _antenna(self) -> None:
        """Samples every 0.1 s: an OTF row is a line in both coordinates, so that interpolation is exact."""
        every: list[tuple[float, float, float, float]] = []
        for loads, rows in self.made:
            for made, name in ((loads, "calibration"), (rows, "source")):
                group = getattr(made.scans[0], name)
                for s in range(group.shape[4]):
                    lon, lat = (np.nan_to_num(x[:, s]) for x in (group.otf_lon, group.otf_lat))
                    t = group.mjd[:, s]
                    slope = (lon[-1] - lon[0]) / (t[-1] - t[0])
                    for when in np.arange(t[0] - 0.95 / 86400, t[-1] + 0.95 / 86400, 0.1 / 86400):
                        x = 0.0 if name == "calibration" else lon[0] + slope * (when - t[0])
                        every.append((when, x, lat[0], float(group.elevation[0, s])))
        table = np.array(every)
        ra_0, dec_0 = 83.809, -5.3764
        ra = ra_0 + table[:, 1] / np.cos(np.deg2rad(dec_0))
        el = np.rad2deg(table[:, 3])
        az = np.full(len(table), 120.0)
        small = np.full(len(table), 1e-4)
        dec = dec_0 + table[:, 2]
        told = build.elevation_of(table[:, 0], ra, dec)
        columns = [ra, dec, az + 5, told, az, el, small, small]
        build.antenna_log(self.folder / "forest.txt", table[:, 0], np.stack(columns, axis=1))

    def bring_in(self, out: Path) -> ImportReport:
        return import_raw(self.path, out, format="sam45", profile=self.folder / "site.toml")


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    return Night(tmp_path_factory.mktemp("forest"))


@pytest.fixture(scope="module")
def store(night: Night) -> Path:
    out = night.folder / "l0"
    report = night.bring_in(out)
    assert report.exit_code == 0
    assert report.scans == (LOAD, 1121213105, SECOND_LOAD, 1121213440)
    return out


def source(scan: Scan) -> Any:
    assert scan.source is not None
    return scan.source


def test_times_positions_and_frequencies(night: Night, store: Path) -> None:
    for number, (_, rows) in zip((1121213105, 1121213440), night.made, strict=True):
        for band, (got, true) in enumerate(
            zip(open_l0(store).load(number), rows.scans, strict=True)
        ):
            mine, told = source(got), source(true)
            assert mine.sobsmode == told.sobsmode
            assert mine.shape == told.shape
            np.testing.assert_allclose(mine.mjd, told.mjd, rtol=0, atol=1e-3 / 86400)
            np.testing.assert_allclose(mine.exptime, told.exptime)
            np.testing.assert_allclose(mine.elevation, told.elevation, atol=2e-7)
            arcsec = 1 / 3600
            np.testing.assert_allclose(mine.otf_lon, told.otf_lon, rtol=0, atol=0.01 * arcsec)
            np.testing.assert_allclose(mine.otf_lat, told.otf_lat, rtol=0, atol=0.01 * arcsec)
            for name in ("signal", "image"):
                off = np.abs(_ends(mine, name) - _ends(told, name))
                assert off.max() < 1.0, f"{name} {band}"
            assert mine.pixel_offset_lon[0, :, 0].tolist() == [x / 3600 for x in (-25, 25, -25, 25)]
            np.testing.assert_allclose(mine.tamb, 280.0)


def _ends(group: Any, name: str) -> Any:
    """Frequencies [2, R, S] of the first and the last channel, Hz."""
    sign = 1 if name == "signal" else -1
    at = np.array([0, group.shape[0] - 1])[:, None, None]
    return getattr(group, f"{name}_freq") + sign * (at - group.ref_channel) * group.freq_res


def test_loads_of_each_block_serve_what_follows(night: Night, store: Path) -> None:
    """ZERO is taken off, R is multiplied by its attenuation, and each block is a scan of its own."""
    opened = open_l0(store)
    for number, load in ((1121213105, LOAD), (1121213440, SECOND_LOAD)):
        for scan in opened.load(number):
            assert set(source(scan).lloadsn.tolist()) == {load}
    modes = ("ZERO", "HOT", "SKY")
    for number, (loads, _), shown in zip(
        (LOAD, SECOND_LOAD), night.made, (modes, modes[1:]), strict=True
    ):
        for got, true in zip(opened.load(number), loads.scans, strict=True):
            mine, told = got.calibration, true.calibration
            assert mine is not None
            assert told is not None
            assert mine.sobsmode == shown
            assert mine.thot is not None
            assert set(mine.thot[:, -2].tolist()) == {290.0}
            channels = told.shape[0]
            for k, mode in enumerate(("HOT", "SKY")):
                counts = np.asarray(mine.counts.read(0, channels, len(shown) - 2 + k))
                expected = np.asarray(told.counts.read(0, channels, k))
                np.testing.assert_allclose(counts, expected, rtol=3e-7, err_msg=mode)


@pytest.fixture(scope="module")
def calibrated(night: Night, store: Path) -> Path:
    out = night.folder / "l1"
    truth = night.made[0][1].truth
    options: dict[str, Any] = {
        "cal_scheme": "vane-channel",
        "pwv": float(truth.pwv_mm),
        "vane_sky": "off",
    }
    config = CalibrationConfig(atmosphere=str(night.folder / "table.npz"), **options)
    report = calibrate_store(store, out, config)
    assert report.exit_code == 0
    return out


def test_t_a_star_is_that_of_the_truth(night: Night, calibrated: Path) -> None:
    """To the rounding of the counts, which are f32 in the log: 1e-6 of T_sys*."""
    opened = open_l1(calibrated)
    seen = 0
    for number, (_, rows) in zip((1121213105, 1121213440), night.made, strict=True):
        for band, truth in zip(("band_1", "band_2"), rows.truths, strict=True):
            scan = opened.scan(number, band)
            spectra = np.asarray(scan["spectra"][...])
            for k, subscan in enumerate(truth.on_index.tolist()):
                expected = truth.t_a_star(subscan)
                off = np.abs(spectra[..., k] - expected)
                assert off.max() < 1e-6 * _t_sys_star(truth, subscan).max()
                assert expected.max() > 3.0
                seen += 1
    assert seen == 12


def _t_sys_star(truth: Any, subscan: int) -> Any:
    """T_sys / t [C,R,A], one sideband and f_eff 1."""
    at_zenith = truth.tau_signal[:, :, None]
    elevation = np.deg2rad(50.0)
    return truth.t_sys(subscan) * np.exp(at_zenith / np.sin(elevation))


def test_t_sys_is_that_of_the_truth(night: Night, calibrated: Path) -> None:
    """T_sys* times the transmission is T_rec and the sky together."""
    opened = open_l1(calibrated)
    for number, (_, rows) in zip((1121213105, 1121213440), night.made, strict=True):
        for band, truth in zip(("band_1", "band_2"), rows.truths, strict=True):
            scan = opened.scan(number, band)
            t_sys = np.asarray(scan["t_sys_star"][...])
            tau = np.asarray(scan["tau_signal"][...])
            np.testing.assert_allclose(np.stack([tau, tau], axis=1), truth.tau_signal, rtol=2e-6)
            group = source(rows.scans[0 if band == "band_1" else 1])
            for k, subscan in enumerate(truth.on_index.tolist()):
                mass = 1 / np.sin(group.elevation[0, subscan])
                expected = truth.t_sys(subscan) * np.exp(mass * truth.tau_signal)[:, :, None]
                got = np.broadcast_to(t_sys[..., k], expected.shape)
                np.testing.assert_allclose(got, expected, rtol=2e-6)


def test_the_same_as_by_the_formula_of_the_telescope(night: Night) -> None:
    """T_hot (ON - OFF)/(R - SKY) from the bytes alone agrees with the counts that were imported."""
    sam45 = pytest.importorskip("sam45")
    from sam45 import read

    obs, dat = read.obs(night.path)[0], read.dat(night.path)
    assert (read.ctl(night.path)["cbe_type"] == b"SAM45").all()
    assert read.end(night.path)["irec_len"][0] == 0
    assert sam45.dtypes.dat.itemsize == build.SIZES[build.DAT]
    store = night.folder / "again"
    night.bring_in(store)
    names = np.array(open_l0(store).load(1121213105)[0].attrs["arrays"])
    assert names.shape == (2, 4)
    for (r, a), name in np.ndenumerate(names):
        n = int(name[1:]) - 1
        assert obs["iary_usefg"][n] == 1
        mine = dat[dat["cary_name"] == name.encode()]
        state = np.array([t.split(b"\0")[0] for t in mine["cscan_type"]])
        data = mine["fary_data"][:, : obs["ichannel"][n]].astype(float)
        data = data - data[state == b"ZERO"][0]
        data[state == b"R"] *= 10 ** (obs["iary_ifatt"][n] / 10)
        first = {k: data[state == k][:3].mean(axis=0) for k in (b"R", b"SKY")}
        on, off = data[state == b"ON"][:4], data[state == b"OFF"][:4].mean(axis=0)
        wanted = 290.0 * (on - off) / (first[b"R"] - first[b"SKY"])
        got = _chopper_wheel(store, int(r), int(a))
        np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-4)


def _chopper_wheel(store: Path, r: int, a: int) -> Any:
    """T_hot (ON - OFF)/(R - SKY) of the first ON, [D,C], from the imported store."""
    opened = open_l0(store)
    science = source(opened.load(1121213105)[0])
    loads = opened.load(LOAD)[0].calibration
    assert loads is not None
    channels = science.shape[0]
    at = [loads.sobsmode.index(m) for m in ("HOT", "SKY")]
    hot, sky = (np.asarray(loads.counts.read(0, channels, s))[:, :3, r, a].mean(axis=1) for s in at)
    off, on = (np.asarray(science.counts.read(0, channels, s))[:, :, r, a] for s in (0, 1))
    return (290.0 * (on - off.mean(axis=1)[:, None]) / (hot - sky)[:, None]).T


def test_the_layout_is_that_of_the_independent_reader() -> None:
    dtypes = pytest.importorskip("sam45").dtypes
    for layout, dtype in ((build.OBS, dtypes.obs), (build.DAT, dtypes.dat)):
        for name, *_ in build._fields(layout):
            assert build.offset(layout, name) == dtype.fields[name][1], name
    from gpucal.io.sam45.records import CTL, DAT, OBS

    pairs = ((CTL, dtypes.ctl), (OBS, dtypes.obs), (DAT, dtypes.dat))
    for mine, theirs in pairs:
        assert mine.itemsize == theirs.itemsize
        for name in mine.names or ():
            assert mine.fields is not None
            assert mine.fields[name][1] == theirs.fields[name][1], name
            assert mine.fields[name][0] == theirs.fields[name][0], name


def test_the_records_lie_where_the_description_says() -> None:
    """Offsets that others have checked, for those who have no independent reader."""
    known = {
        build.OBS: {
            "dflif": 384,
            "dcent_freq": 640,
            "dfqdat_f0": 1408,
            "iipint": 5668,
            "imlt_no": 6334,
            "iary_ifatt": 6366,
            "iary_usefg": 6430,
            "cst_time": 6485,
            "cobj_name": 6521,
            "csid_type": 6765,
        },
        build.DAT: {
            "dant_real": 24,
            "dobs_pos": 96,
            "dint_stmjd": 216,
            "dtsys": 224,
            "dweather": 232,
            "iinteg_time": 400,
            "iscan_no": 412,
            "iary_no": 472,
            "cary_name": 474,
            "cscan_type": 526,
            "fary_data": 680,
        },
    }
    from gpucal.io.sam45 import records

    for layout, offsets in known.items():
        dtype = records.OBS if layout == build.OBS else records.DAT
        assert dtype.fields is not None
        for name, at in offsets.items():
            assert build.offset(layout, name) == at
            if name in dtype.fields:
                assert dtype.fields[name][1] == at
    assert records.SPECTRUM_AT == 680


def test_the_command(night: Night, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    args = [str(night.folder), str(tmp_path / "l0"), "--profile", str(night.folder / "site.toml")]
    assert main(["import", "auto", *args, "--dry-run"]) == 0
    said = capsys.readouterr()
    assert "1 file of sam45" in said.err
    (row,) = [line for line in said.out.splitlines() if "1121213105 band_1" in line]
    assert "FOREST LSB, 8 arrays" in row
    assert "OTF-OFF OTF-ON OTF-ON OTF-OFF" in row
    assert str(LOAD) in row
    assert "4 x 2" in row
    assert not (tmp_path / "l0").exists()
    assert main(["import", "sam45", *args]) == 0
    assert main(["import", "sam45", *args]) == 0
    assert "4 were there already" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path / "l0")]) == 0
    said = capsys.readouterr()
    assert "assumed: f_eff = 1.0 (the log has no forward efficiency)" in said.out
    assert "from the profile: pixel_offsets" in said.out
