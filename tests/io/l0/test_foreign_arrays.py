"""Arrays of an L0 store that others wrote: attributes are applied exactly, or refused by name."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from builders import l0 as build
from builders.groups import source_of
from numpy.typing import NDArray

from gpucal import L0Error, export_raw_fits, import_raw_fits, open_l0

MIN = -(2**31)
PLACE = "scan_000001/source"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    store = build.new_store(tmp_path / "night.zarr")
    build.write_scan(store, 1, build.source_group())
    return store


def stored(path: Path, name: str) -> NDArray[Any]:
    return np.asarray(zarr.open_group(str(path / PLACE), mode="r", use_consolidated=False)[name])


def put(path: Path, name: str, values: Any, attrs: dict[str, Any], **how: Any) -> None:
    group = zarr.open_group(str(path / PLACE), mode="a", use_consolidated=False)
    group.create_array(name, data=values, overwrite=True, **how).attrs.update(attrs)


def counts(path: Path) -> NDArray[Any]:
    source = source_of(open_l0(path).load(1)[0]).counts
    blocks = [source.read(0, source.shape[0], s) for s in range(source.shape[4])]
    return np.stack(blocks, axis=-1)


def gappy(path: Path) -> NDArray[Any]:
    """The counts with some samples missing, f64."""
    values = stored(path, "data_5d").astype(np.float64)
    values[3, 1, 0, 2, 1] = values[0, 0, 0, 0, :] = np.nan
    return values


def packed(values: NDArray[Any], blank: int, scale: float = 1.0, offset: float = 0.0) -> Any:
    return np.where(np.isnan(values), blank, np.round((values - offset) / scale)).astype("i4")


CODED: dict[str, tuple[int, float, float, dict[str, Any]]] = {
    "_FillValue": (-999, 1, 0, {"_FillValue": -999}),
    "_FillValue as float": (-999, 1, 0, {"_FillValue": -999.0}),
    "missing_value": (77, 1, 0, {"missing_value": 77}),
    "several missing values": (78, 1, 0, {"missing_value": [77, 78]}),
    "offset": (MIN, 1, 500, {"add_offset": 500.0, "_FillValue": MIN}),
    "offset, INT32_MIN": (MIN, 1, 500, {"add_offset": 500}),
    "scale": (-1, 0.25, 0, {"scale_factor": 0.25, "_FillValue": -1}),
    "both": (-1, 0.5, 100, {"scale_factor": 0.5, "add_offset": 100, "missing_value": -1}),
    "valid_min": (-5, 1, 0, {"valid_min": 0}),
    "valid_range": (9999, 1, 0, {"valid_range": [0, 5000]}),
}


@pytest.mark.parametrize("chunks", ["file", "sharded", "many subscans"])
@pytest.mark.parametrize("name", CODED)
def test_counts(path: Path, name: str, chunks: str) -> None:
    blank, scale, offset, attrs = CODED[name]
    right = gappy(path)
    c, d, r, a, s = right.shape
    how: dict[str, Any] = {"chunks": (5, d, r, a, 1)}  # the last chunk is padded
    if chunks == "sharded":
        how = {"chunks": (4, d, r, a, 1), "shards": (c, d, r, a, 1)}
    elif chunks == "many subscans":
        how = {"chunks": (7, d, r, a, s)}
    put(path, "data_5d", packed(right, blank, scale, offset), attrs, **how)
    found = counts(path)
    if found.dtype == np.int32:
        assert (scale, offset) == (1, 0)
        found = np.where(found == MIN, np.nan, found.astype(np.float64))
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, right)
    source: Any = source_of(open_l0(path).load(1)[0]).counts
    assert isinstance(source.encoded(0, 5, 0), str), "a device knows nothing of attributes"


def test_u32_counts_with_a_fill_value(path: Path) -> None:
    right = gappy(path)
    values = np.where(np.isnan(right), 2**32 - 1, right).astype("u4")
    put(path, "data_5d", values, {"_FillValue": 2**32 - 1})
    np.testing.assert_array_equal(counts(path), right)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_int32_fill_cast_to_float(path: Path, dtype: str) -> None:
    right = gappy(path)
    put(path, "data_5d", np.where(np.isnan(right), MIN, right).astype(dtype), {}, fill_value=0.0)
    np.testing.assert_array_equal(counts(path), right.astype(dtype))


@pytest.mark.parametrize("fill", [9.969209968386869e36, 9.96921e36, 3.4e38, np.inf])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_float_fill_without_a_word(path: Path, dtype: str, fill: float) -> None:
    """What netCDF and others write where there is no number is no count either."""
    right = gappy(path)
    put(path, "data_5d", np.where(np.isnan(right), fill, right).astype(dtype), {}, fill_value=0.0)
    np.testing.assert_array_equal(counts(path), right.astype(dtype))


def test_float_fill_as_xarray_writes_it(path: Path, tmp_path: Path) -> None:
    import xarray

    right = gappy(path)
    for encoding in (
        {"dtype": "i4", "_FillValue": -999},
        {"dtype": "i4", "_FillValue": -7, "scale_factor": 0.5, "add_offset": 3.0},
        {"dtype": "f4", "_FillValue": -1.0},
        {"dtype": "f8"},
    ):
        copy = tmp_path / "copy.zarr"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(path, copy)
        shutil.rmtree(copy / PLACE / "data_5d")
        dataset = xarray.Dataset({"data_5d": (tuple("CDRAS"), right)}, attrs=dict(sobs(path)))
        dataset.to_zarr(
            copy, group=PLACE, mode="a", encoding={"data_5d": encoding}, consolidated=False
        )
        found = counts(copy).astype(np.float64)
        np.testing.assert_array_equal(np.where(found == MIN, np.nan, found), right)


def sobs(path: Path) -> dict[str, Any]:
    group = zarr.open_group(str(path / PLACE), mode="r", use_consolidated=False)
    return dict(group.attrs)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_fill_value_is_no_count(tmp_path: Path, zarr_format: Any) -> None:
    """xarray keeps _FillValue there in Zarr v2; a chunk that was never written holds nothing else."""
    path = build.new_store(tmp_path / "night.zarr", zarr_format=zarr_format)
    build.write_scan(path, 1)
    right = gappy(path)
    right[..., 2] = np.nan
    c, d, r, a, _ = right.shape
    put(path, "data_5d", packed(right, -999), {}, chunks=(c, d, r, a, 1), fill_value=-999)
    written = [p for p in (path / PLACE / "data_5d").rglob("*") if p.is_file()]
    assert len(written) < right.shape[4] + 3, "a chunk is missing"
    np.testing.assert_array_equal(counts(path), packed(right, MIN))


def test_dumps_of_zeros_are_no_data(path: Path) -> None:
    right = stored(path, "data_5d")
    right[:, 1, 0, 2, 1] = 0  # a dump that was not recorded
    right[..., 3] = 0  # a chunk that was never written, fill value 0
    right[0, :, :, :, 4] = 0  # a channel that is 0 in good dumps stays
    c, d, r, a, _ = right.shape
    put(path, "data_5d", right, {}, chunks=(c, d, r, a, 1), fill_value=0)
    found = counts(path)
    assert (found[:, 1, 0, 2, 1] == MIN).all()
    assert (found[..., 3] == MIN).all()
    assert (found[0, ..., 4] == 0).all()
    assert np.count_nonzero(found == MIN) == c + c * d * r * a


UNITS: list[tuple[str, str, Any]] = [
    ("pamb", "hPa", lambda v: v * 101325 / 76000),
    ("pamb", "mbar", lambda v: v * 101325 / 76000),
    ("pamb", "Pa", lambda v: v * 101325 / 760),
    ("pamb", "kPa", lambda v: v * 101.325 / 760),
    ("pamb", "bar", lambda v: v * 1.01325 / 760),
    ("pamb", "atm", lambda v: v / 760),
    ("tamb", "degC", lambda v: v - 273.15),
    ("tamb", "degree_Celsius", lambda v: v - 273.15),
    ("tamb", "degF", lambda v: v * 9 / 5 - 459.67),
    ("tamb", "mK", lambda v: v * 1e3),
    ("exptime", "ms", lambda v: v * 1e3),
    ("exptime", "us", lambda v: v * 1e6),
    ("exptime", "minutes", lambda v: v / 60),
    ("elevation", "deg", np.degrees),
    ("azimuth", "degrees", np.degrees),
    ("azimuth", "arcmin", lambda v: np.degrees(v) * 60),
    ("otf_lon", "rad", np.radians),
    ("otf_lon", "arcsec", lambda v: v * 3600),
    ("pixel_offset_lat", "arcmin", lambda v: v * 60),
    ("pixel_offset_lat", "mas", lambda v: v * 3600e3),
    ("signal_freq", "GHz", lambda v: v / 1e9),
    ("image_freq", "MHz", lambda v: v / 1e6),
    ("freq_res", "kHz", lambda v: v / 1e3),
    ("freq_res", "10 kHz", lambda v: v / 1e4),
    ("mjd", "days since 1858-11-17", lambda v: v),
    ("mjd", "days since 2000-01-01 12:00:00 UTC", lambda v: v - 51544.5),
    ("mjd", "seconds since 1970-01-01T00:00:00Z", lambda v: (v - 40587) * 86400),
    ("mjd", "hours since 2023-12-31 22:00 -02:00", lambda v: (v - 60310) * 24),
    ("mjd", "JD", lambda v: v + 2400000.5),
]


@pytest.mark.parametrize(("name", "unit", "written"), UNITS)
def test_units(path: Path, name: str, unit: str, written: Any) -> None:
    right = stored(path, name).astype(np.float64)
    put(path, name, written(right), {"units": unit})
    found = getattr(source_of(open_l0(path).load(1)[0]), name)
    np.testing.assert_allclose(found, right, rtol=1e-11, atol=1e-9 if name == "mjd" else 0)


def test_packed_small_arrays(path: Path) -> None:
    """What xarray writes for temperatures of a weather station."""
    put(
        path,
        "tamb",
        np.array([-5200, -5100, -32768, 0, 100], "i2"),
        {"scale_factor": 0.001, "add_offset": 5.0, "_FillValue": -32768, "units": "degC"},
    )
    found = source_of(open_l0(path).load(1)[0]).tamb
    np.testing.assert_allclose(found, [272.95, 273.05, np.nan, 278.15, 278.25], rtol=1e-12)


@pytest.mark.parametrize("value", [MIN, 9.969209968386869e36])
def test_fill_values_without_a_word(path: Path, value: float) -> None:
    values = stored(path, "tamb").copy()
    values[2] = value
    put(path, "tamb", values, {})
    found = source_of(open_l0(path).load(1)[0]).tamb
    assert np.isnan(found[2])
    assert np.isfinite(np.delete(found, 2)).all()


def test_load_scan_that_is_not_known(path: Path) -> None:
    put(path, "lloadsn", np.array([7, -999, 7, 7, 7], "i4"), {"_FillValue": -999})
    assert source_of(open_l0(path).load(1)[0]).lloadsn.tolist() == [7, -1, 7, 7, 7]


def test_phase_without_a_value_is_refused(path: Path) -> None:
    phase = stored(path, "chop_phase").copy()
    phase[1, 2] = 255
    put(path, "chop_phase", phase, {"_FillValue": 255, "flag_values": [0, 1]})
    with pytest.raises(L0Error, match=r"array chop_phase holds no data at \(1, 2\)"):
        open_l0(path).load(1)


@pytest.mark.filterwarnings("ignore:The data type")
def test_times_as_dates(path: Path) -> None:
    right = stored(path, "mjd")
    dates = np.datetime64("1858-11-17") + np.round(right * 86400e9).astype("m8[ns]")
    group = zarr.open_group(str(path / PLACE), mode="a")
    group.create_array("mjd", data=dates, overwrite=True)
    found = source_of(open_l0(path).load(1)[0]).mjd
    np.testing.assert_allclose(found, right, rtol=0, atol=2e-11)
    group.create_array("mjd", data=np.datetime_as_string(dates, unit="ms"), overwrite=True)
    found = source_of(open_l0(path).load(1)[0]).mjd
    np.testing.assert_allclose(found, right, rtol=0, atol=1e-8)
    group.create_array("mjd", data=np.full(right.shape, "yesterday"), overwrite=True)
    with pytest.raises(L0Error, match="array mjd holds no times: 'yesterday' is not a date"):
        open_l0(path).load(1)


def test_whole_seconds_as_integers(path: Path) -> None:
    values = (1704088800 + np.arange(15)).reshape(5, 3).T
    put(path, "mjd", values.astype("i8"), {"units": "seconds since 1970-01-01"})
    found = source_of(open_l0(path).load(1)[0]).mjd
    np.testing.assert_allclose(found, values / 86400 + 40587, rtol=0, atol=1e-11)


REFUSED = [
    ("data_5d", {"units": "K"}, "units = 'K', expected raw counts"),
    ("data_5d", {"units": "dB"}, "units = 'dB', expected raw counts"),
    ("data_5d", {"_Unsigned": "true"}, "_Unsigned = 'true'"),
    ("data_5d", {"scale": 2.0}, "attribute scale = 2.0"),
    ("data_5d", {"BSCALE": 2.0}, "BSCALE"),
    ("data_5d", {"nodata": -1}, "nodata"),
    ("data_5d", {"TNULL1": -1}, "TNULL1"),
    ("data_5d", {"fillValue": -1}, "fillValue"),
    ("data_5d", {"flag_masks": [1, 2]}, "flag_masks"),
    ("data_5d", {"_FillValue": 1e20}, "_FillValue = 1e.20, which int32 cannot hold"),
    ("data_5d", {"_FillValue": "none"}, "_FillValue = 'none', expected a number"),
    ("data_5d", {"scale_factor": 0}, "scale_factor 0"),
    ("data_5d", {"scale_factor": 2.0, "valid_max": 9}, "valid_max beside scale_factor"),
    ("data_5d", {"valid_range": [1, 2, 3]}, r"valid_range = \[1, 2, 3\]"),
    ("pamb", {"units": "m"}, "units = 'm', expected 'Torr', 'Pa', 'hPa'"),
    ("tamb", {"units": "K", "unit": "degC"}, "contradict each other"),
    ("azimuth", {"units": "hourangle"}, "units = 'hourangle', expected 'rad'"),
    ("elevation", {"standard_name": "sensor_zenith_angle"}, "standard_name"),
    ("mjd", {"units": "s"}, "units = 's', expected MJD in UTC"),
    ("mjd", {"units": "days since 1858-11-17", "calendar": "noleap"}, "calendar 'noleap'"),
    ("mjd", {"time_scale": "tai"}, "time_scale"),
    ("signal_freq", {"units": "cm-1"}, "units = 'cm-1', expected 'Hz'"),
    ("ref_channel", {"offset": 1}, "offset = 1"),
]


@pytest.mark.parametrize(("name", "attrs", "words"), REFUSED)
def test_what_is_not_understood_is_refused(
    path: Path, name: str, attrs: dict[str, Any], words: str
) -> None:
    put(path, name, stored(path, name), attrs)
    with pytest.raises(L0Error, match=words) as caught:
        open_l0(path).load(1)
    assert name in caught.value.message
    assert "without this attribute" in caught.value.hint
    assert caught.value.scan == 1


HARMLESS = [
    ("data_5d", {"long_name": "raw counts", "coordinates": "mjd", "_FillValue": None}),
    ("data_5d", {"units": "counts", "cell_methods": "time: mean", "actual_range": [1, 2]}),
    ("tamb", {"units": "kelvin", "standard_name": "air_temperature", "grid_mapping": "x"}),
    ("mjd", {"units": "d", "time_scale": "UTC", "axis": "T", "calendar": "standard"}),
]


@pytest.mark.parametrize(("name", "attrs"), HARMLESS)
def test_descriptions_change_nothing(path: Path, name: str, attrs: dict[str, Any]) -> None:
    before = source_of(open_l0(path).load(1)[0])
    right = counts(path)
    put(path, name, stored(path, name), attrs)
    after = source_of(open_l0(path).load(1)[0])
    np.testing.assert_array_equal(counts(path), right)
    np.testing.assert_array_equal(after.mjd, before.mjd)
    np.testing.assert_array_equal(after.tamb, before.tamb)


def test_a_change_of_meaning_changes_the_checksum(path: Path) -> None:
    (before,) = open_l0(path).load(1)
    put(path, "data_5d", stored(path, "data_5d"), {"add_offset": 5})
    (after,) = open_l0(path).load(1)
    assert before.metadata_sha256 != after.metadata_sha256


def test_raw_fits_holds_decoded_numbers(path: Path, tmp_path: Path) -> None:
    right, tamb = gappy(path), stored(path, "tamb").astype(np.float64)
    put(
        path,
        "data_5d",
        packed(right, -1, 0.5, 100),
        {"scale_factor": 0.5, "add_offset": 100, "_FillValue": -1},
    )
    put(path, "tamb", tamb - 273.15, {"units": "degC"})
    mjd = stored(path, "mjd")
    put(path, "mjd", (mjd - 40587) * 86400, {"units": "seconds since 1970-01-01"})
    (file,) = export_raw_fits(path, tmp_path / "fits")
    import_raw_fits([file], tmp_path / "back.zarr")
    back = tmp_path / "back.zarr"
    np.testing.assert_array_equal(counts(back), right)
    source = source_of(open_l0(back).load(1)[0])
    np.testing.assert_allclose(source.tamb, tamb, rtol=1e-14)
    np.testing.assert_allclose(source.mjd, mjd, rtol=0, atol=2e-11)


def test_growing_scan_with_times_since_1970(path: Path) -> None:
    """What was not written yet is a stored 0, which then is 1970-01-01 and not a time of the scan."""
    mjd = stored(path, "mjd")
    seconds = (mjd - 40587) * 86400
    seconds[:, 3:] = 0
    put(path, "mjd", seconds, {"units": "seconds since 1970-01-01"})
    (scan,) = open_l0(path).load(1, partial=True)
    assert source_of(scan).shape[4] == 3
    np.testing.assert_allclose(source_of(scan).mjd, mjd[:, :3], rtol=0, atol=2e-11)
