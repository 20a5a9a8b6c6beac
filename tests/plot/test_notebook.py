"""A session in a notebook: results in memory, tables as HTML, keys, and errors for wrong names."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.synthetic_l1 import write_l1

import gpucal
from gpucal import CalibratedScan, ConfigError, GpucalError, L0Error, L1Error, Selection, main
from gpucal.io.chunks.counts import ZarrCounts
from gpucal.notebook import MAX_ROWS, html_of


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("notebook") / "night.zarr"
    small = ["--scans", "2", "--channels", "64", "--dumps", "2", "--subscans", "3"]
    assert main(["simulate", str(folder), "--preset", "hera", *small]) == 0
    return folder


def options(night: Path) -> dict[str, Any]:
    return {"atmosphere": Path(f"{night}.atm.npz")}


@pytest.fixture(scope="module")
def result(night: Path) -> CalibratedScan:
    return gpucal.calibrate_scan(gpucal.open_l0(night)[1], options(night))


def test_a_result_in_memory_is_what_the_store_would_hold(
    night: Path, result: CalibratedScan, tmp_path: Path
) -> None:
    gpucal.calibrate_store(night, tmp_path / "l1.zarr", {**options(night), "scans": 1})
    stored = gpucal.open_l1(tmp_path / "l1.zarr")[1]
    assert set(stored) == set(result.l1)
    for name in stored:
        np.testing.assert_array_equal(stored[name][...], result.l1[name][...], err_msg=name)
    not_in_memory = {"provenance", "failed_bands", "l0_metadata_sha256", "atmosphere_sha256"}
    assert {k: v for k, v in stored.attrs.items() if k not in not_in_memory} == result.l1.attrs
    theirs, ours = stored.to_xarray(), result.to_xarray()
    assert set(theirs.coords) == set(ours.coords)
    assert all(theirs[name].dims == ours[name].dims for name in theirs.variables)
    assert all(theirs[name].attrs == ours[name].attrs for name in theirs.variables)
    pytest.importorskip("specutils")
    a = gpucal.to_spectrum1d(stored, receiver=1, pixel=2)
    b = result.to_spectrum1d(receiver=1, pixel=2)
    np.testing.assert_array_equal(a.flux.value, b.flux.value)
    np.testing.assert_array_equal(a.spectral_axis.value, b.spectral_axis.value)
    assert a.meta["velocity_frame"] == b.meta["velocity_frame"]
    assert a.meta["telescope"] == b.meta["telescope"]


def test_a_picture_leaves_the_result_alone(result: CalibratedScan, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    before = np.array(result.spectra)
    for kind in ("spectra", "waterfall"):
        picture = result.plot(kind)
        assert picture._repr_png_().startswith(b"\x89PNG")
        assert picture.save(tmp_path / f"{kind}.png").stat().st_size > 5000
    np.testing.assert_array_equal(before, result.spectra)
    with pytest.raises(ConfigError, match="kind is 'pie', expected spectra or waterfall"):
        result.plot("pie")  # type: ignore[arg-type]


def test_arrays_cannot_be_edited_by_mistake(result: CalibratedScan) -> None:
    result.l1["spectra"][...][:] = 0.0  # a copy
    assert np.nanstd(result.spectra) > 0
    before = np.array(result.spectra)
    dataset = result.to_xarray()
    with pytest.raises(ValueError, match="read-only"):
        dataset["t_sys"].values[:] = 0.0
    dataset["spectra"].values[:] = 0.0  # these are copies, NaN where flagged
    np.testing.assert_array_equal(result.spectra, before)


def test_a_result_is_short(result: CalibratedScan) -> None:
    assert "\n" not in repr(result)
    assert repr(result).startswith("<CalibratedScan scan 1: otf, [C 64, D 2, R 2, A 9, S ")
    assert "PWV" in repr(result)
    assert result.frequency.shape == (64,)
    assert result.frequency[0] == result.to_xarray().frequency[0]


def test_html_is_escaped_and_short() -> None:
    text = html_of("<b>", ("a&b",), [(f"<i>{n}",) for n in range(100)], '"note"')
    assert "<b>" not in text
    assert "<i>" not in text
    assert "a&amp;b" in text
    assert text.count("&lt;i&gt;") == MAX_ROWS
    assert "... 70 more ..." in text


def test_tables_of_stores_scans_and_reports_read_no_counts(
    night: Path, result: CalibratedScan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = gpucal.open_l0(night)
    l1 = gpucal.open_l1(write_l1(tmp_path / "l1.zarr", (3, 4), (8, 1, 1, 2, 1)))
    bands = gpucal.open_l1(write_l1(tmp_path / "b.zarr", (3,), (8, 1, 1, 2, 1), bands=("band_1",)))
    report, scan, stored = gpucal.StoreReport((), ()), raw[1], l1[3]

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("data were read")

    monkeypatch.setattr(ZarrCounts, "read", refuse)
    monkeypatch.setattr("zarr.Array.__getitem__", refuse)
    for thing, words in (
        (raw, ("night.zarr", "SIMULATED", "calibration, source")),
        (scan, ("OTF-OFF", "1 HOT, 1 COLD")),
        (l1, ("calibrated store l1.zarr", "DR21")),
        (bands, ("band_1", "DR21")),
        (stored, ("spectra", "channel 8")),
        (result, ("calibrated scan 1", "PWV")),
        (report, ("exit code 0",)),
    ):
        shown = thing._repr_html_()
        assert all(word in shown for word in words), shown
        assert repr(thing)


def test_keys_complete(night: Path, result: CalibratedScan, tmp_path: Path) -> None:
    raw = gpucal.open_l0(night)
    l1 = gpucal.open_l1(write_l1(tmp_path / "l1.zarr", (3, 4), (8, 1, 1, 2, 1)))
    assert raw._ipython_key_completions_() == [1, 2] == list(raw)
    assert l1._ipython_key_completions_() == [3, 4] == list(l1)
    assert "spectra" in l1[3]._ipython_key_completions_()
    assert result.l1._ipython_key_completions_() == list(result.l1)
    assert (len(raw), 1 in raw, 9 in raw, np.int64(3) in l1, "3" in l1) == (2, True, False, True, False)  # fmt: skip
    assert raw[np.int64(2)].number == 2  # type: ignore[index]
    assert gpucal.open_l0(raw).numbers() == [1, 2]  # a store is a path, too
    assert Path(l1) == l1.path


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (999, "It has 2 scans: 1-2"),
        ("1", "named by its number, not by '1'"),
        (True, "not by True"),
        ((1, "band_7"), "there is no band 'band_7'. It has no bands"),
    ],
)
def test_wrong_keys_of_a_raw_store(night: Path, key: Any, words: str) -> None:
    with pytest.raises(KeyError) as caught:
        gpucal.open_l0(night)[key]
    assert isinstance(caught.value, L0Error)
    assert words in str(caught.value)


def test_wrong_groups_of_a_raw_store(night: Path) -> None:
    with pytest.raises(L0Error, match=r"no group 'attrs'. Take source or calibration"):
        gpucal.open_l0(night).to_xarray(1, group="attrs")  # type: ignore[arg-type]


@pytest.mark.parametrize("key", [999, "3", -1, 3.0, True, (3, "band_1"), (3, 4, 5), None])
def test_wrong_keys_of_a_calibrated_store(tmp_path: Path, key: Any) -> None:
    l1 = gpucal.open_l1(write_l1(tmp_path / "l1.zarr", (3, 4), (8, 1, 1, 2, 1)))
    with pytest.raises(KeyError) as caught:
        l1[key]
    assert isinstance(caught.value, L1Error)
    assert str(caught.value).endswith(("It has 2 scans: 3-4.", "It has no bands."))
    back = pickle.loads(pickle.dumps(caught.value))
    assert str(back) == str(caught.value)


def test_a_mistyped_array_gets_the_nearest_name(tmp_path: Path, result: CalibratedScan) -> None:
    l1 = gpucal.open_l1(write_l1(tmp_path / "l1.zarr", (3,), (8, 1, 1, 2, 1)))
    for scan in (l1[3], result.l1):
        with pytest.raises(KeyError, match=r"no array 'spektra'; did you mean 'spectra'\? It has"):
            scan["spektra"]
    for key in ("/", 3, "nothing/at/all"):
        with pytest.raises(L1Error, match="there is no array"):
            l1[3][key]  # type: ignore[index]


def test_wrong_kinds_of_arguments(night: Path, tmp_path: Path) -> None:
    l1 = gpucal.open_l1(write_l1(tmp_path / "l1.zarr", (3,), (8, 1, 1, 2, 1)))
    for wrong in (str(night), gpucal.open_l0(night), [gpucal.open_l0(night)[1]]):
        with pytest.raises(ConfigError, match=r"scan is a \w+, expected a Scan"):
            gpucal.calibrate_scan(wrong)  # type: ignore[arg-type]
    with pytest.raises(L1Error, match="scan is a L1, expected a calibrated scan"):
        gpucal.to_spectrum1d(l1)  # type: ignore[arg-type]
    with pytest.raises(L1Error, match="there is no receiver '1'"):
        gpucal.to_spectrum1d(l1[3], receiver="1")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"expected a gpucal.PlotOptions"):
        gpucal.plot_store(l1, tmp_path, options={"window": "1,2"})  # type: ignore[arg-type]
    with pytest.raises(GpucalError, match=r"has no scan 9. It has 1 scan: 3"):
        gpucal.plot_store(l1.path, tmp_path, 9)


def test_a_selection_is_checked() -> None:
    """A mistyped scale must not pass for T_A*, nor a mistyped average for another."""
    assert Selection(scans=[1, 5]).scans == frozenset({1, 5})
    assert Selection(scans=7).scans == frozenset({7})  # type: ignore[arg-type]
    for given, words in (
        ({"average": "x"}, "average is 'x', expected none, dumps, subscans"),
        ({"scale": "mb"}, "scale is 'mb', expected ta, tmb"),
        ({"scans": "all"}, "scans is 'all', expected scan numbers"),
        ({"b_eff": 1.5}, r"b_eff is 1.5, expected a number above 0"),
    ):
        with pytest.raises(ConfigError, match=words):
            Selection(**given)


def test_scans_and_stores_go_to_other_processes(night: Path, tmp_path: Path) -> None:
    raw = gpucal.open_l0(night)
    here, there = raw[1], pickle.loads(pickle.dumps(raw[1]))
    np.testing.assert_array_equal(there.source.counts.read(0, 5, 0), here.source.counts.read(0, 5, 0))  # type: ignore[union-attr]  # fmt: skip
    assert pickle.loads(pickle.dumps(raw)).numbers() == [1, 2]
    l1 = gpucal.open_l1(write_l1(tmp_path / "l1.zarr", (3,), (8, 1, 1, 2, 1)))
    again = pickle.loads(pickle.dumps(l1[3]))
    np.testing.assert_array_equal(again["spectra"][...], l1[3]["spectra"][...])
