"""What is written as L0 is what is read, in Zarr v3 and v2, with every codec."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from builders import l0 as build
from builders.groups import loads_of, source_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gpucal import CountsMaker, GroupArrays, L0Error, SubscanGroup, open_l0, write_l0_scan
from gpucal.axes import AXES, FILL_INT32


def read_all(group: SubscanGroup) -> NDArray[Any]:
    c, *_, s = group.shape
    return np.stack([group.counts.read(0, c, i) for i in range(s)], axis=-1)


def assert_same(group: SubscanGroup, written: GroupArrays) -> None:
    np.testing.assert_array_equal(read_all(group), written.data_5d)
    assert group.sobsmode == tuple(written.sobsmode)
    for name, values in written.arrays.items():
        got = getattr(group, name)
        np.testing.assert_array_equal(got, np.asarray(values, got.dtype), err_msg=name)
        assert not got.flags.writeable


@pytest.mark.parametrize("zarr_format", [3, 2])
@pytest.mark.parametrize("codec", ["zstd:1", "zstd:3", "blosc-lz4", "none"])
def test_round_trip(tmp_path: Path, codec: str, zarr_format: int) -> None:
    path = build.new_store(tmp_path / "night.zarr", zarr_format=zarr_format)
    source, calibration = build.source_group(), build.calibration_group()
    build.write_scan(path, 25650, source, calibration, codec=codec, chunk_channels=5)
    store = open_l0(path)
    assert store.numbers() == [25650]
    assert store.kind(25650) == "science"
    (scan,) = store.load(25650)
    assert_same(source_of(scan), source)
    assert_same(loads_of(scan), calibration)
    counts: Any = source_of(scan).counts
    assert counts.direct
    assert counts.chunks == (5, 3, 2, 4, 1)
    assert scan.warnings == ()
    assert scan.label == "scan 25650"
    assert scan.attrs["complete"] is True
    assert scan.store_attrs["site"]["alt_m"] == 5612.0
    assert len(scan.metadata_sha256) == 64


def test_layout_on_disk(tmp_path: Path) -> None:
    """Names, dimension names, units, chunks and fill value as the layout asks for them."""
    path = build.new_store(tmp_path / "night.zarr")
    build.write_scan(path, 7, build.source_group())
    counts: Any = zarr.open_array(str(path / "scan_000007/source/data_5d"), mode="r")
    assert counts.metadata.dimension_names == AXES
    assert counts.attrs["units"] == "count"
    assert counts.fill_value == FILL_INT32
    assert counts.chunks == (*build.SHAPE[:4], 1)
    offsets: Any = zarr.open_array(str(path / "scan_000007/source/pixel_offset_lon"), mode="r")
    assert offsets.metadata.dimension_names == ("receiver", "array", "subscan")
    assert offsets.attrs["units"] == "deg"
    assert not [p for p in path.iterdir() if p.name.startswith(".")]


def test_recommended_chunks(tmp_path: Path) -> None:
    path = build.new_store(tmp_path / "night.zarr")
    shape = (4096, 8, 2, 64, 2)
    maker = CountsMaker(shape, np.dtype("i4"), lambda s: np.full(shape[:4], s + 1, "i4"))
    group = build.source_group((4096, 8, 2, 64, 2), ("ON", "OFF"), data_5d=maker)
    write_l0_scan(path, 1, attrs={}, groups={"": {"source": group}})
    counts = source_of(open_l0(path).load(1)[0]).counts
    c, d, r, a, s = counts.chunks
    assert (d, r, a, s) == (8, 2, 64, 1)
    assert 8 << 20 <= c * d * r * a * 4 <= 32 << 20
    for index in range(2):
        assert (counts.read(0, 4096, index) == index + 1).all()


def test_counts_made_subscan_by_subscan(tmp_path: Path) -> None:
    path = build.new_store(tmp_path / "night.zarr")
    data = build.counts(build.SHAPE)
    maker = CountsMaker(build.SHAPE, data.dtype, lambda s: data[..., s])
    build.write_scan(path, 1, build.source_group(data_5d=maker))
    np.testing.assert_array_equal(read_all(source_of(open_l0(path).load(1)[0])), data)


def test_misshapen_subscan_leaves_nothing_behind(tmp_path: Path) -> None:
    path = build.new_store(tmp_path / "night.zarr")
    maker = CountsMaker(build.SHAPE, np.dtype("i4"), lambda s: np.zeros((3, 2), "i4"))
    with pytest.raises(L0Error, match=r"scan 1, subscan 0: the counts made have shape \(3, 2\)"):
        build.write_scan(path, 1, build.source_group(data_5d=maker))
    assert open_l0(path).numbers() == []
    assert sorted(p.name for p in path.iterdir()) == ["zarr.json"]


def test_several_bands_with_attributes_of_their_own(tmp_path: Path) -> None:
    path = build.new_store(tmp_path / "night.zarr")
    bands = {}
    for number in (1, 2, 10):
        shape = (*build.SHAPE[:4], 2 + number)
        modes = ["OFF", "ON"] * 6
        bands[f"band_{number}"] = {
            "source": build.source_group(shape, modes[: 2 + number]),
            "calibration": build.calibration_group(),
        }
    write_l0_scan(
        path,
        5,
        attrs={"f_eff": 0.9, "gain_image": 1.0},
        groups=bands,
        band_attrs={"band_2": {"f_eff": 0.8, "gain_image": np.ones((2, 4))}},
    )
    scans = open_l0(path).load(5)
    assert [scan.band for scan in scans] == ["band_1", "band_2", "band_10"]
    assert [scan.attrs["f_eff"] for scan in scans] == [0.9, 0.8, 0.9]
    assert [source_of(scan).shape[4] for scan in scans] == [3, 4, 12]
    assert np.shape(scans[1].attrs["gain_image"]) == (2, 4)
    assert len({scan.metadata_sha256 for scan in scans}) == 3
    for scan in scans:
        assert_same(source_of(scan), bands[scan.band]["source"])


def test_load_scan(tmp_path: Path) -> None:
    path = build.new_store(tmp_path / "night.zarr")
    write_l0_scan(path, 3, attrs={}, groups={"": {"calibration": build.calibration_group()}})
    store = open_l0(path)
    assert store.kind(3) == "load"
    (scan,) = store.load(3)
    assert scan.source is None
    assert loads_of(scan).sobsmode == ("HOT", "COLD")


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    shape=st.tuples(*(st.integers(1, n) for n in (9, 4, 3, 3, 4))),
    dtype=st.sampled_from(["i4", "u4", "f4", "f8"]),
    codec=st.sampled_from(["zstd:1", "blosc-lz4", "none"]),
    zarr_format=st.sampled_from([2, 3]),
    block=st.integers(1, 12),
)
def test_any_shape_survives(
    tmp_path: Path, shape: tuple[int, ...], dtype: str, codec: str, zarr_format: int, block: int
) -> None:
    path = tmp_path / "night.zarr"
    shutil.rmtree(path, ignore_errors=True)
    build.new_store(path, zarr_format=zarr_format)
    shape = (*shape[:4], shape[4] + 1)
    modes = ["ON", "OFF", "ON", "OFF", "ON"][: shape[4]]
    source = build.source_group(shape, modes, data_5d=build.counts(shape, dtype))
    calibration = build.calibration_group((*shape[:4], 2))
    build.write_scan(path, 1, source, calibration, codec=codec, chunk_channels=block)
    (scan,) = open_l0(path).load(1)
    assert_same(source_of(scan), source)
    assert_same(loads_of(scan), calibration)
    assert source_of(scan).counts.dtype == np.dtype(dtype)


def test_checksum_of_the_metadata(tmp_path: Path) -> None:
    """The same for the same metadata, whatever the Zarr codec; other for any change of them."""
    changes: list[dict[str, Any]] = [
        {},
        {"attrs": {"f_eff": 0.94}},
        {"source": build.lean_source(tamb=np.full(5, 269.0))},
        {"source": build.lean_source(modes=("OFF", "ON", "ON", "ON", "OFF"))},
        {"calibration": build.lean_calibration(thot=np.full(2, 296.0))},
        {"source": build.lean_source(tamb=None)},
    ]
    sums = []
    for index, change in enumerate(changes):
        path = build.new_store(tmp_path / f"{index}.zarr")
        build.write_scan(path, 1, **change)
        sums.append(open_l0(path).load(1)[0].metadata_sha256)
    assert len(set(sums)) == len(changes)
    again = build.new_store(tmp_path / "again.zarr", night="another root attribute")
    build.write_scan(again, 1, codec="none")
    assert open_l0(again).load(1)[0].metadata_sha256 == sums[0]


def test_raw_data_are_never_overwritten(tmp_path: Path) -> None:
    path = build.new_store(tmp_path / "night.zarr")
    build.write_scan(path, 1)
    with pytest.raises(L0Error, match="already in the store"):
        build.write_scan(path, 1)


def test_store_of_another_telescope_is_kept(tmp_path: Path) -> None:
    from gpucal import create_l0

    path = build.new_store(tmp_path / "night.zarr")
    build.new_store(path)
    with pytest.raises(L0Error, match="already holds scans of FYST CHAI, expected IRAM"):
        create_l0(path, telescope="IRAM", site={}, instrument="HERA")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"codec": "lzma"}, "codec is 'lzma', expected zstd"),
        ({"source": GroupArrays(build.counts(build.SHAPE), ["ON"])}, "1 sobsmode strings for 5"),
        ({"source": build.source_group(wind=np.ones(5))}, "array 'wind' is unknown"),
        ({"source": build.source_group(mjd=np.ones(4))}, r"mjd has shape \(4,\)"),
        ({"attrs": {"f_eff": 2.0}}, "f_eff is 2.0"),
    ],
    ids=["codec", "modes", "unknown array", "shape", "attribute"],
)
def test_the_writer_refuses(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    path = build.new_store(tmp_path / "night.zarr")
    with pytest.raises(L0Error, match=words):
        build.write_scan(path, 1, **options)
    assert open_l0(path).numbers() == []


def test_writing_into_no_store(tmp_path: Path) -> None:
    with pytest.raises(L0Error, match="is not a Zarr group"):
        build.write_scan(tmp_path, 1)


@pytest.mark.parametrize("zarr_format", [3, 2])
def test_xarray(tmp_path: Path, zarr_format: int) -> None:
    path = build.new_store(tmp_path / "night.zarr", zarr_format=zarr_format)
    source = build.source_group()
    build.write_scan(path, 1, source, chunk_channels=5)
    dataset = open_l0(path).to_xarray(1)
    counts = dataset["data_5d"]
    assert counts.dims == AXES
    assert dataset["mjd"].attrs["units"] == "d"
    assert dataset["sobsmode"].values.tolist() == list(source.sobsmode)
    data: Any = source.data_5d
    for key in itertools.product(
        (3, slice(2, 9, 2), slice(4, 4)), (slice(None),), (1,), (slice(1, 3),), (0, slice(1, None))
    ):
        np.testing.assert_array_equal(counts[key].values, data[key])
    picked = counts.isel(channel=[7, 2], array=[0, 3]).values
    np.testing.assert_array_equal(picked, data[[7, 2]][:, :, :, [0, 3]])
    loads = open_l0(path).to_xarray(1, group="calibration")
    assert loads["thot"].dims == ("receiver", "subscan")
    with pytest.raises(L0Error, match=r"there is no band 'band_9'. It has no bands"):
        open_l0(path).to_xarray(1, "band_9")


@pytest.mark.parametrize("zarr_format", [3, 2])
def test_xarray_opens_the_groups_itself(tmp_path: Path, zarr_format: int) -> None:
    import xarray

    path = build.new_store(tmp_path / "night.zarr", zarr_format=zarr_format)
    build.write_scan(path, 1, build.source_group())
    group = xarray.open_zarr(path / "scan_000001/source", consolidated=False, chunks=None)
    assert group["data_5d"].dims == AXES
    assert group["pixel_offset_lat"].dims == AXES[2:]


def test_a_growing_night_is_seen(tmp_path: Path) -> None:
    path = build.new_store(tmp_path / "night.zarr")
    store = open_l0(path)
    assert store.numbers() == []
    build.write_scan(path, 12)
    build.write_scan(path, 3)
    (path / "notes.txt").write_text("no Zarr object")
    (path / "scan_4.bak").mkdir()
    assert store.numbers() == [3, 12]


def test_attributes_of_numpy_types_become_json(tmp_path: Path) -> None:
    path = build.new_store(tmp_path / "night.zarr")
    attrs = {"gain_image": np.float32(0.5), "nod_beams": ((0, np.int64(1)), (0, 2))}
    build.write_scan(path, 1, attrs=attrs)
    document = json.loads((path / "scan_000001/zarr.json").read_text())
    assert document["attributes"]["gain_image"] == 0.5
    assert document["attributes"]["nod_beams"] == [[0, 1], [0, 2]]
