"""Every array and attribute of the L1 layout is there, in every mode and scope, also for xarray."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from builders.gbt import N_CHAN, nod, vane, write_table
from builders.night_stores import KINDS, fast_folder, make_night, small_setup

import gpucal
from gpucal import CalibrationConfig, Flag, calibrate_store, import_sdfits, open_l0
from gpucal.io.l1.reader import L1, L1Scan

C, D, R, A = "channel", "dump", "receiver", "array"
S = "subscan"
TABLE: dict[str, tuple[tuple[str, ...], str, str]] = {
    # name: (dims, dtype, units)
    "spectra": ((C, D, R, A, S), "f8", "K"),
    "t_sys": ((C, R, A, S), "f8", "K"),
    "t_sys_star": ((C, R, A, S), "f8", "K"),
    "t_rec": ((C, R, A), "f8", "K"),
    "gamma": ((C, R, A), "f8", "K"),
    "flags": ((C, D, R, A, S), "u2", ""),
    "tau_signal": ((C,), "f8", "Np"),
    "tau_image": ((C,), "f8", "Np"),
    "frequency": ((C,), "f8", "Hz"),
    "image_frequency": ((C,), "f8", "Hz"),
    "mjd": ((D, S), "f8", "d"),
    "exptime": ((D, S), "f8", "s"),
    "elevation": ((D, S), "f8", "rad"),
    "azimuth": ((D, S), "f8", "rad"),
    "otf_lon": ((D, S), "f8", "deg"),
    "otf_lat": ((D, S), "f8", "deg"),
    "pixel_offset_lon": ((R, A, S), "f8", "deg"),
    "pixel_offset_lat": ((R, A, S), "f8", "deg"),
    "pwv": ((), "f8", "mm"),
    "pwv_error": ((), "f8", "mm"),
    "pwv_error_noise": ((), "f8", "mm"),
    "pwv_error_systematic": ((), "f8", "mm"),
    "pwv_chi2": ((), "f8", ""),
    "pwv_chi2_noise": ((), "f8", ""),
    "t_a_star_error": ((R, A, S), "f8", "1"),
    "on_index": ((S,), "i4", ""),
    "off_index_per_on": ((S,), "i4", ""),
}
PER_FREQUENCY = ("tau_signal", "tau_image", "frequency", "image_frequency")
SCOPE_DIMS = {"full": (), "external": (), "per-pixel": (R, A), "per-pair": (S,)}
N_ON = {"tp": 2, "otf": 2, "otf-chopped": 2, "nod": 2, "fsw": 2, "wsw": 2, "wsw-chopped": 4}
PROVENANCE = {
    *("l0_path", "l0_scan", "l0_metadata_sha256", "versions", "backend", "device", "load_scans"),
    *("atmosphere_table", "started", "finished", "command_line"),
}
QA = {
    *("t_rec_median", "t_sys_median", "t_sys_star_median", "t_sys_sidebands", "pwv", "pwv_error"),
    *("pwv_error_noise", "pwv_error_systematic", "chi2_dof_noise", "t_a_star_error"),
    *("error_budget", "chi2_dof", "bad_channel_fraction"),
    *("nan_fraction", "rms_measured", "rms_expected", "rms_ratio", "baseline_ripple"),
}


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with fast_folder(tmp_path_factory.mktemp("night")) as folder:
        make_night(folder, small_setup(dumps=6))
        yield folder


def calibrated(folder: Path, out: Path, **options: Any) -> L1:
    # In rows of four dumps a narrow line may be in one sample alone: nothing is judged here.
    options = {"atmosphere": str(folder / "table.npz"), "spike_sigma": 0.0, **options}
    config = CalibrationConfig(**options)
    report = calibrate_store(folder / "l0.zarr", out, config, command_line=["gpucal", "x"])
    assert report.exit_code == 0, report.failures
    return gpucal.open_l1(out)


def check_layout(scan: L1Scan, table: dict[str, Any], sizes: dict[str, int]) -> None:
    assert set(scan) == set(table)
    for name, (dims, dtype, units) in table.items():
        array = scan[name]
        assert array.metadata.dimension_names == dims, name  # type: ignore[union-attr]
        assert array.shape == tuple(sizes[d] for d in dims), name
        assert array.dtype == np.dtype(dtype), name
        assert array.attrs.get("units", "") == units, name


def check_xarray(scan: L1Scan, table: dict[str, Any]) -> None:
    """The plain way to open a group, and ours; both give names, units and coordinates."""
    xarray = pytest.importorskip("xarray")
    plain = xarray.open_zarr(scan.path, consolidated=False, decode_times=False)
    assert {"frequency", "mjd"} <= set(plain.coords)
    for dataset in (plain, scan.to_xarray()):
        assert set(dataset.variables) == set(table)
        for name, (dims, _, units) in table.items():
            assert dataset[name].dims == dims
            assert dataset[name].attrs.get("units", "") == units
    spectra = scan.to_xarray()["spectra"]
    assert {"frequency", "mjd", "otf_lon"} <= set(spectra.coords)
    assert np.array_equal(spectra.values, scan["spectra"][...], equal_nan=True)


@pytest.mark.parametrize("scope", SCOPE_DIMS)
def test_every_mode_has_the_whole_table(night: Path, tmp_path: Path, scope: str) -> None:
    options = {"pwv": 3.0} if scope == "external" else {"pwv_scope": scope}
    store = calibrated(night, tmp_path / "l1", **options)
    assert list(store) == list(range(1, len(KINDS) + 1))
    raw = open_l0(night / "l0.zarr")
    for number, kind in enumerate(KINDS, 1):
        scan = store[number]
        assert scan.attrs["pwv_scope"] == scope
        dims = {name: (SCOPE_DIMS[scope], *TABLE[name][1:]) for name in TABLE if "pwv" in name}
        dumps = 3 if kind == "wsw-chopped" else 6
        sizes = {C: 64, D: dumps, R: 2, A: 3, S: N_ON[kind]}
        check_layout(scan, TABLE | dims, sizes)
        check_xarray(scan, TABLE | dims)
        check_values(scan, raw.load(number)[0].source)
        check_attributes(scan, kind, night)


def check_values(scan: Any, source: Any) -> None:
    """The streamed arrays agree with each other, and times and places with L0."""
    spectra, flags = scan["spectra"][...], scan["flags"][...]
    blank = (flags & int(Flag.BAD_CHANNEL | Flag.FILL_VALUE)) != 0
    assert np.array_equal(np.isnan(spectra), blank)
    assert 0.5 < (~blank).mean() < 1.0
    on, off = scan["on_index"][...], scan["off_index_per_on"][...]
    assert all("OFF" not in source.sobsmode[i] or source.chop_phase is not None for i in on)
    assert ((off >= 0) & (off < len(source.sobsmode))).all()
    if source.chop_phase is None:
        for name in ("mjd", "exptime", "elevation", "azimuth", "otf_lon", "otf_lat"):
            assert np.array_equal(scan[name][...], getattr(source, name)[:, on]), name
    else:
        assert np.isclose(scan["exptime"][...].sum(), 0.5 * source.exptime.sum())
    assert np.isfinite(scan["pwv"][...]).all()
    assert np.all(scan["tau_signal"][...] > 0)
    good = np.isfinite(scan["t_rec"][...])
    assert (scan["t_sys"][...][good] > scan["t_rec"][...][good][..., None]).all()


def check_attributes(scan: L1Scan, kind: str, night: Path) -> None:
    attrs = scan.attrs
    assert attrs["mode"] == {"wsw-chopped": "wsw"}.get(kind, kind)
    assert attrs["source"] == "SIMULATED"
    assert attrs["config"]["line_scale"] == "ssb"
    assert set(attrs["qa"]) >= QA
    assert np.shape(attrs["qa"]["rms_ratio"]) == (2, 3)
    provenance = attrs["provenance"]
    assert set(provenance) >= PROVENANCE
    assert provenance["l0_path"] == str(night / "l0.zarr")
    assert provenance["command_line"] == ["gpucal", "x"]
    assert provenance["started"] <= provenance["finished"]
    assert len(provenance["atmosphere_table"]["sha256"]) == 64
    assert provenance["load_scans"] == [scan.number]
    assert all(len(v) == 64 for v in provenance["l0_metadata_sha256"].values())
    assert scan["t_sys"].attrs["t_sys_convention"] == "DSB"
    assert scan["t_sys_star"].attrs["t_sys_convention"] == "T_sys*"
    error = np.asarray(scan["t_a_star_error"][...])
    assert np.all((error > 0.001) & (error < 0.2))
    assert {"opacity", "t_hot", "t_cold"} < {row["source"] for row in attrs["qa"]["error_budget"]}


def test_receivers_with_their_own_frequencies(tmp_path: Path) -> None:
    """[C,R] instead of [C]; load scans of their own; f32 spectra."""
    make_night(tmp_path, small_setup("upgreat", ("otf", "tp"), separate=True))
    store = calibrated(tmp_path, tmp_path / "l1", dtype="f32")
    per_receiver = {name: ((C, R), *TABLE[name][1:]) for name in PER_FREQUENCY}
    table = TABLE | per_receiver | {"spectra": (TABLE["spectra"][0], "f4", "K")}
    for number in (2, 3):
        check_layout(store[number], table, {C: 64, D: 4, R: 2, A: 3, S: 2})
        check_xarray(store[number], table)
        assert store[number].attrs["provenance"]["load_scans"] == [1]
        assert set(store[number].attrs["l0_metadata_sha256"]) == {"1/", f"{number}/"}


def test_bands_and_diagnostics(tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    make_night(tmp_path, small_setup("chai", ("otf", "otf-chopped"), pixels=4))
    store = calibrated(tmp_path, tmp_path / "l1", skydiff=2, skychopdiff=True)
    for number, names in ((1, ["skydiff"]), (2, ["skychopdiff", "skydiff"])):
        assert store[number].bands == ["band_1", "band_2"]
        for band in store[number].bands:
            scan = store[number].band_scan(band)
            check_layout(scan, TABLE, {C: 64, D: 4, R: 1, A: 4, S: 2})
            check_xarray(scan, TABLE)
            assert scan.groups == names
            for name in names:
                array: Any = scan[f"{name}/spectrum_K"]
                n = array.attrs["n_diffs"]
                assert array.shape == (n, 64, 1, 4)
                assert array.attrs["units"] == "K"
                assert array.attrs["current_scan"] == number
                for key in ("current_mjds", "current_offs", "ref_scans", "ref_mjds", "ref_offs"):
                    assert len(array.attrs[key]) == n
                dataset = xarray.open_zarr(scan.path / name, consolidated=False)
                assert dataset["spectrum_K"].dims == ("difference", C, R, A)


def test_vane_says_what_its_t_sys_is(tmp_path: Path) -> None:
    make_night(tmp_path, small_setup("argus", ("nod", "tp")))
    store = calibrated(tmp_path, tmp_path / "l1", atmosphere="none", tau=0.1)
    for number in store:
        scan = store[number]
        check_layout(scan, TABLE, {C: 64, D: 4, R: 1, A: 3, S: 2})
        assert scan["t_sys"].attrs["t_sys_convention"] == "SSB"
        star, seen, height = (
            np.asarray(scan[name][...]) for name in ("t_sys_star", "t_sys", "elevation")
        )
        good = np.isfinite(star)
        airmass = 1.0 / np.sin(np.mean(height, axis=0))
        through = scan.attrs["forward_efficiency"] * np.exp(-0.1 * airmass)
        np.testing.assert_allclose(seen[good], (star * through)[good], rtol=1e-9)
        assert scan.attrs["provenance"]["atmosphere_table"] is None
        assert np.isnan(scan["pwv"][...])
        assert np.allclose(scan["tau_signal"][...], 0.1)


@pytest.mark.parametrize("codec", ["zstd:1", "zstd:3", "blosc-lz4", "blosc-zstd", "none"])
def test_every_chunk_has_a_checksum(night: Path, tmp_path: Path, codec: str) -> None:
    calibrated(night, tmp_path / "l1", codec=codec, scans="1")
    documents = list((tmp_path / "l1").rglob("zarr.json"))
    arrays = [d for p in documents if (d := json.loads(p.read_bytes()))["node_type"] == "array"]
    assert len(arrays) == len(TABLE)
    for document in arrays:
        names = [c["name"] for c in document["codecs"]]
        assert names[0] == "bytes"
        assert names[-1] == "crc32c"
        kind = codec.partition(":")[0].partition("-")[0]
        assert names[1:-1] == ([] if kind == "none" else [kind])


def test_zarr_alone_can_walk_the_store(night: Path, tmp_path: Path) -> None:
    calibrated(night, tmp_path / "l1", scans="1-2")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        root: Any = zarr.open_group(str(tmp_path / "l1"), mode="r")
        assert root.attrs["format"] == "gpucal-l1"
        assert root.attrs["telescope"] == "IRAM-30M"
        assert sorted(root.group_keys()) == ["scan_000001", "scan_000002"]
        for name in TABLE:
            assert root[f"scan_000001/{name}"][...] is not None


@pytest.mark.parametrize("step", [0.0, 0.02])
def test_both_beams_of_a_nod_lie_on_the_source(tmp_path: Path, step: float) -> None:
    """Beam 2 has the source in NOD-2: its place is that of then, whatever the track refers to.

    step: how far the tracked position moves between the two positions, deg on the sky.
    """
    pytest.importorskip("astropy")
    loads = vane(DATA=np.full(N_CHAN, 30000.0, dtype=np.float32))
    rows = nod()
    if step:  # the track is that of feed 3 in both positions
        for row in rows:
            row["FEEDXOFF"] = 0.0 if row["FDNUM"] == 3 else step
            away = {5: (0.0, step), 6: (-step, 0.0)}[row["SCAN"]][row["FDNUM"] == 7]
            row["CRVAL2"] = 100.0 + away / np.cos(np.pi / 3)
    import_sdfits([write_table(tmp_path / "bank.fits", [*loads, *rows])], tmp_path / "l0.zarr")
    if step:
        l0: Any = zarr.open_group(tmp_path / "l0.zarr" / "scan_000005", mode="r+")
        l0.attrs["nod_beams"] = [[0, 0], [0, 1]]
    config = CalibrationConfig(atmosphere="none", tau=0.1, t_hot=290.0, t_atm=270.0, workers=1)
    report = calibrate_store(tmp_path / "l0.zarr", tmp_path / "l1.zarr", config)
    assert report.exit_code == 0, report.failures
    scan: Any = gpucal.open_l1(tmp_path / "l1.zarr")[5]
    lon = scan["otf_lon"][0, 0] + scan["pixel_offset_lon"][0, :, 0] / np.cos(np.pi / 3)
    np.testing.assert_allclose(lon, 100.0, atol=1e-9)
    np.testing.assert_allclose(scan["pixel_offset_lat"][0, :, 0], 0.0, atol=1e-9)
