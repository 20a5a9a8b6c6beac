"""Opening an L1 store: what is found, and what is said when it is not."""

from __future__ import annotations

import builtins
import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from gpucal import L0Error, L1Error, open_l0, open_l1
from gpucal.axes import AXES
from gpucal.io.l1.reader import L1
from gpucal.io.l1.writer import L1Store, ScanWriter, write_failures

SPECTRA = np.random.default_rng(2).normal(size=(6, 2, 1, 3, 2))


def put_level(scan: ScanWriter, group: str, factor: float = 1.0) -> None:
    scan.put(group, "spectra", SPECTRA * factor, AXES, units="K", coordinates=["frequency"])
    scan.put(group, "frequency", np.linspace(2e11, 3e11, 6), ("channel",), units="Hz")
    scan.put(group, "on_index", np.array([1, 3], np.int32), ("subscan",))
    scan.put(group, "pwv", 0.75, (), units="mm")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = L1Store(tmp_path_factory.mktemp("l1") / "out.zarr")
    store.set_root_attrs({"telescope": "T"})
    for number in (11, 12, 20):
        with store.begin(number) as scan:
            scan.set_attrs("", {"mode": "tp", "source": "Orion"})
            put_level(scan, "")
            scan.put("skydiff", "spectrum_K", np.ones((6, 1, 3)), ("channel", "receiver", "array"))
            scan.set_attrs("skydiff", {"n_diffs": 2})
            scan.commit()
    with store.begin(30) as scan:
        scan.set_attrs("", {"source": "Orion", "line": "both"})
        for n in (1, 2):
            put_level(scan, f"band_{n}", float(n))
            scan.set_attrs(f"band_{n}", {"line": f"line {n}"})
        scan.commit()
    write_failures(store, [{"scan": 13, "stage": "", "error": "", "message": "", "hint": ""}])
    return store.path


@pytest.fixture(scope="module")
def store(path: Path) -> L1:
    return open_l1(path)


def test_scans_are_listed(store: L1) -> None:
    assert store.scans() == list(store) == [11, 12, 20, 30]
    assert len(store) == 4
    assert 12 in store
    assert 13 not in store
    assert store.attrs["telescope"] == "T"
    assert repr(store) == f"<gpucal L1 {store.path}, T: 4 scans: 11-12, 20, 30>"


def test_a_scan_gives_zarr_arrays(store: L1) -> None:
    scan = store[12]
    assert list(scan) == ["frequency", "on_index", "pwv", "spectra"]
    assert scan.attrs == {"mode": "tp", "source": "Orion"}
    assert scan.groups == ["skydiff"]
    assert scan.bands == []
    assert isinstance(scan["spectra"], zarr.Array)
    np.testing.assert_array_equal(scan["spectra"][:], SPECTRA)
    np.testing.assert_array_equal(scan["skydiff/spectrum_K"][:], np.ones((6, 1, 3)))
    assert "spectra" in scan
    assert "skydiff/spectrum_K" in scan
    assert "flags" not in scan
    text = repr(scan)
    assert "<gpucal L1 scan 12>" in text
    assert "spectra    float64  (channel 6, dump 2, receiver 1, array 3, subscan 2)  K" in text
    assert "skydiff/" in text


def test_bands(store: L1) -> None:
    scan = store[30]
    assert scan.bands == ["band_1", "band_2"]
    assert len(scan) == 0
    band = store.scan(30, "band_2")
    assert band.attrs == {"source": "Orion", "line": "line 2"}
    np.testing.assert_array_equal(band["spectra"][:], 2.0 * SPECTRA)
    assert "scan 30 band_2" in repr(band)
    with pytest.raises(L1Error, match=r"scan 30: there is no array 'spectra'.*band_1/, band_2/"):
        scan["spectra"]
    with pytest.raises(L1Error, match=r"scan 30: there is no 'band_3'. Its bands are band_1, b"):
        store.scan(30, "band_3")
    with pytest.raises(L1Error, match="It has no bands"):
        store.scan(11, "band_1")


def test_xarray_gets_coordinates_and_units(store: L1) -> None:
    dataset = store[11].to_xarray()
    assert set(dataset.coords) == {"frequency", "on_index"}
    assert set(dataset.data_vars) == {"spectra", "pwv"}
    assert dataset["frequency"].units == "Hz"
    assert dataset["spectra"].dims == AXES
    assert dataset.attrs["source"] == "Orion"
    np.testing.assert_array_equal(dataset["spectra"].values, SPECTRA)
    sky = store[11].to_xarray("skydiff")
    assert sky.attrs == {"n_diffs": 2}
    assert sky["spectrum_K"].shape == (6, 1, 3)
    band = store.scan(30, "band_1").to_xarray()
    np.testing.assert_array_equal(band["spectra"].values, SPECTRA)
    with pytest.raises(L1Error, match=r"no group 'skychopdiff'. It has skydiff"):
        store[11].to_xarray("skychopdiff")


def test_xarray_reads_late(path: Path, tmp_path: Path) -> None:
    store = L1Store(tmp_path / "out.zarr")
    with store.begin(1) as scan:
        put_level(scan, "")
        scan.commit()
    dataset = open_l1(store.path)[1].to_xarray()
    chunk = store.scan_path(1) / "spectra" / "c" / "0" / "0" / "0" / "0" / "0"
    chunk.write_bytes(bytes(40))
    with pytest.raises(ValueError, match="checksum"):
        dataset["spectra"].values  # noqa: B018


def test_what_is_missing_is_named(store: L1) -> None:
    with pytest.raises(L1Error, match=r"has no scan 13. It has 4 scans: 11-12, 20, 30"):
        store[13]
    with pytest.raises(L1Error, match=r"no array 'x'. It has frequency, on_index, pwv, spectra, s"):
        store[11]["x"]
    with pytest.raises(L1Error, match="no array 'skydiff/x'"):
        store[11]["skydiff/x"]


def test_many_scans_are_named_shortly(tmp_path: Path) -> None:
    store = L1Store(tmp_path / "out.zarr")
    empty = open_l1(store.path)
    assert repr(empty).endswith(": no scans>")
    for number in range(1, 40, 2):
        with store.begin(number) as scan:
            scan.commit()
    assert "20 scans: 1, 3, 5, 7, 9, 11, ..., 31, 33, 35, 37, 39" in repr(empty)


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    zarr.create_group(tmp_path / "l0", attributes={"format": "gpucal-l0"})
    zarr.create_group(tmp_path / "v9", attributes={"format": "gpucal-l1", "format_version": 9})
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "zarr.json").write_text("[")
    for name, match in {
        "nothing": "does not exist",
        "file": "is not a Zarr v3 group",
        "broken": "is not a Zarr v3 group",
        "l0": "'gpucal-l0', expected 'gpucal-l1'",
        "v9": "format_version 9, expected 1",
    }.items():
        with pytest.raises(L1Error, match=match):
            open_l1(tmp_path / name)


def test_without_xarray_it_says_so(store: L1, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "xarray":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(L1Error, match="pip install xarray"):
        store[11].to_xarray()


def test_importing_the_reader_imports_no_heavy_package() -> None:
    code = (
        "import sys, gpucal.io.l1.reader, gpucal.io.l1.writer; "
        "print([m for m in ('xarray', 'dask', 'cupy', 'astropy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("engine", ["netcdf4", "h5netcdf"])
def test_netcdf_holds_what_the_dataset_holds(tmp_path: Path, engine: Any) -> None:
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("netCDF4" if engine == "netcdf4" else "h5netcdf")
    attributes = {
        "qa": {"pwv": 3.1, "rms": [1.0, None]},
        "folded": True,
        "later_load": None,
        "grid": [[1, 2], [3, 4]],
        "mixed": [1, "a"],
        "nothing": [],
        "bands": ["a", "b"],
        "weights": [1, 2.5],
        "seed": 2**70,
    }
    store = L1Store(tmp_path / "out.zarr")
    with store.begin(1) as scan:
        put_level(scan, "")
        flags = np.arange(18, dtype="u2").reshape(6, 3) * 3000
        scan.put("", "flags", flags, ("channel", "array"), attrs=attributes)
        scan.put("", "exptime", np.arange(2.0), ("dump",), units="s")
        scan.put("", "mjd", np.arange(2.0) + 6e4, ("dump",), units="d")
        scan.set_attrs("", attributes)
        scan.commit()
    dataset = open_l1(store.path)[1].to_xarray()
    assert json.loads(dataset.attrs["qa"]) == attributes["qa"]
    assert dataset.attrs["folded"] == 1
    assert "later_load" not in dataset.attrs
    dataset.to_netcdf(tmp_path / "scan.nc", engine=engine)
    dataset.to_zarr(tmp_path / "scan.zarr", consolidated=False)
    with (
        xarray.open_dataset(tmp_path / "scan.nc", engine=engine) as back,
        xarray.open_zarr(tmp_path / "scan.zarr", consolidated=False) as again,
    ):
        for found in (back, again):
            for name, variable in dataset.variables.items():
                assert found[name].dtype == variable.dtype, name
                np.testing.assert_array_equal(found[name].values, variable.values)
            for key, value in dataset.attrs.items():
                np.testing.assert_array_equal(found.attrs[key], value)


def test_stale_consolidated_metadata(tmp_path: Path) -> None:
    store = L1Store(tmp_path / "out.zarr")
    with store.begin(1) as scan:
        put_level(scan, "")
        scan.commit()
    folder = store.scan_path(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(str(folder))
    shutil.rmtree(folder / "pwv")
    found = open_l1(store.path)[1]
    assert "pwv" not in list(found)
    assert "pwv" not in found.to_xarray()


def test_a_zip_of_a_calibrated_store_says_unpack(tmp_path: Path) -> None:
    """Every command names the cause, also those that take raw stores too."""
    store = tmp_path / "night.l1"
    root = zarr.create_group(str(store))
    root.attrs.update({"format": "gpucal-l1", "format_version": 1})
    packed = shutil.make_archive(str(tmp_path / "night"), "zip", store)
    with pytest.raises(L1Error, match=r"night\.zip is a zip archive.*Unpack it: unzip night\.zip"):
        open_l1(packed)
    with pytest.raises(L0Error, match=r"zip archive of a calibrated store.*Unpack it: unzip"):
        open_l0(packed)
