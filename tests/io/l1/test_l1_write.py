"""What the L1 writer puts on disk, read back by zarr-python and by xarray."""

from __future__ import annotations

import datetime
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from gpucal import Flag, L1Error
from gpucal.axes import AXES
from gpucal.io.chunks.array_writer import ArrayWriter
from gpucal.io.l1.writer import L1Store, ScanWriter

CODECS = ("zstd:1", "blosc-lz4", "blosc-zstd", "none")
SHAPE = (10, 3, 2, 2, 3)
CHUNKS = (4, 3, 2, 2, 1)


def spectra_like(shape: tuple[int, ...] = SHAPE, seed: int = 5) -> np.ndarray:
    values = np.random.default_rng(seed).normal(0.0, 3.0, shape)
    values.flat[::17] = np.nan
    values.flags.writeable = False
    return values


def write_all(writer: ArrayWriter, values: np.ndarray) -> None:
    for index in writer.indices():
        writer.write_chunk(index, values[writer.region(index)])


def add_scan(store: L1Store, number: int, seed: int = 5, **attrs: Any) -> np.ndarray:
    values = spectra_like(seed=seed)
    with store.begin(number) as scan:
        scan.set_attrs("", attrs)
        writer = scan.array(
            "",
            "spectra",
            SHAPE,
            CHUNKS,
            store.dtype,
            AXES,
            fill_value=np.nan,
            attrs={"units": "K", "coordinates": "frequency mjd"},
        )
        write_all(writer, values)
        scan.put("", "frequency", np.linspace(1e11, 1.1e11, 10), ("channel",), units="Hz")
        scan.put("", "mjd", 60000.0 + np.zeros((3, 3)), ("dump", "subscan"), units="d")
        scan.put("", "exptime", np.full((3, 3), 0.5), ("dump", "subscan"), units="s")
        scan.put("", "pwv", 1.25, (), units="mm")
        scan.commit()
    return values


def digest(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.parametrize("dtype", ["f64", "f32"])
@pytest.mark.parametrize("codec", CODECS)
def test_zarr_and_xarray_read_it(codec: str, dtype: str, tmp_path: Path) -> None:
    store = L1Store(tmp_path / "out.zarr", codec=codec, dtype=dtype)
    store.set_root_attrs({"telescope": "T"})
    expected = add_scan(store, 25650, mode="tp").astype(store.dtype)

    root: Any = zarr.open_group(store.path, mode="r")
    assert dict(root.attrs) == {"format": "gpucal-l1", "format_version": 1, "telescope": "T"}
    assert [name for name, _ in root.groups()] == ["scan_025650"]
    array: Any = root["scan_025650/spectra"]
    assert isinstance(array, zarr.Array)
    np.testing.assert_array_equal(array[:], expected)
    assert array.dtype == store.dtype
    assert array.chunks == CHUNKS
    metadata: Any = array.metadata
    assert metadata.dimension_names == AXES
    assert np.isnan(array.fill_value)
    assert metadata.codecs[-1].to_dict() == {"name": "crc32c"}

    dataset = xarray.open_zarr(store.path, group="scan_025650", consolidated=False, chunks=None)
    assert dataset["spectra"].dims == AXES
    np.testing.assert_array_equal(dataset["spectra"].values, expected)
    assert dataset["spectra"].units == "K"
    assert set(dataset.coords) == {"frequency", "mjd"}
    assert dataset["exptime"].dtype == np.float64
    assert dataset["pwv"].item() == 1.25
    assert dataset["pwv"].units == "mm"
    assert dataset.attrs == {"mode": "tp"}


def test_zarr_writes_the_same_metadata_and_chunks(tmp_path: Path) -> None:
    store = L1Store(tmp_path / "out.zarr", codec="blosc-lz4")
    values = add_scan(store, 1)
    ours = store.scan_path(1) / "spectra"
    array: Any = zarr.create_array(
        tmp_path / "theirs",
        shape=SHAPE,
        chunks=CHUNKS,
        dtype="f8",
        fill_value=np.nan,
        dimension_names=AXES,
        zarr_format=3,
        attributes={"units": "K", "coordinates": "frequency mjd"},
        serializer=zarr.codecs.BytesCodec(endian="little"),
        compressors=[
            zarr.codecs.BloscCodec(typesize=8, cname="lz4", clevel=3, shuffle="bitshuffle"),
            zarr.codecs.Crc32cCodec(),
        ],
    )
    array[:] = values
    documents = [json.loads((p / "zarr.json").read_text()) for p in (ours, tmp_path / "theirs")]
    assert documents[0] == documents[1]
    theirs = digest(tmp_path / "theirs")
    assert {k: v for k, v in digest(ours).items() if k != "zarr.json"} == {
        k: v for k, v in theirs.items() if k != "zarr.json"
    }


@st.composite
def layouts(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    shape = draw(st.lists(st.integers(0, 7), min_size=0, max_size=4))
    chunks = [draw(st.integers(1, 9)) for _ in shape]
    return tuple(shape), tuple(chunks)


@settings(max_examples=60)
@given(
    layout=layouts(),
    dtype=st.sampled_from(["f8", "f4", "u2", "i4", "i8", "u1", "bool"]),
    codec=st.sampled_from(CODECS),
    seed=st.integers(0, 2**31),
)
def test_any_shape_and_chunks_come_back(
    layout: tuple[tuple[int, ...], tuple[int, ...]],
    dtype: str,
    codec: str,
    seed: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    shape, chunks = layout
    values = np.random.default_rng(seed).integers(0, 2, shape).astype(dtype)
    store = L1Store(tmp_path_factory.mktemp("l1") / "out.zarr", codec=codec)
    with store.begin(3) as scan:
        dims = [f"axis{n}" for n in range(len(shape))]
        write_all(scan.array("band_1", "a", shape, chunks, dtype, dims), values)
        scan.put("band_1/extra", "b", values, dims)
        scan.commit()
    band: Any = zarr.open_group(store.path, mode="r")["scan_000003/band_1"]
    assert isinstance(band, zarr.Group)
    for name in ("a", "extra/b"):
        array = band[name]
        assert isinstance(array, zarr.Array)
        assert array.dtype == values.dtype
        np.testing.assert_array_equal(array[...], values)


def test_large_small_arrays_are_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpucal.io.l1.writer.PUT_CHUNK_BYTES", 8 * 24)
    values = spectra_like((10, 6))
    store = L1Store(tmp_path / "out.zarr")
    with store.begin(1) as scan:
        scan.put("", "t_sys", values, ("channel", "subscan"))
        scan.commit()
    array: Any = zarr.open_array(store.scan_path(1) / "t_sys", mode="r")
    assert array.chunks == (4, 6)
    np.testing.assert_array_equal(array[:], values)


def test_one_payload_at_many_places(tmp_path: Path) -> None:
    store = L1Store(tmp_path / "out.zarr", codec="none")
    block = np.full((4, 3, 2, 2, 1), int(Flag.SPIKE), np.uint16)
    with store.begin(1) as scan:
        flags = scan.array("", "flags", (8, 3, 2, 2, 3), CHUNKS, np.uint16, AXES)
        payload = flags.encode(block)
        block[:] = 0  # the payload is its own
        for index in flags.indices():
            assert flags.write_chunk(index, None, payload) is payload
        scan.commit()
    assert np.all(zarr.open_array(store.scan_path(1) / "flags", mode="r")[:] == Flag.SPIKE)


@pytest.mark.parametrize("codec", CODECS)
def test_same_bytes_whatever_the_threads_and_order(codec: str, tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(size=(4000, 3, 2, 2, 3))
    values.flags.writeable = False
    digests = []
    for workers in (0, 1, 4):
        store = L1Store(tmp_path / f"{workers}.zarr", codec=codec)
        with store.begin(1) as scan:
            writer = scan.array("", "a", values.shape, (1500, 3, 2, 2, 1), "f8", AXES)
            indices = list(writer.indices())

            def put(index: tuple[int, ...], to: ArrayWriter = writer) -> None:
                to.write_chunk(index, values[to.region(index)])

            if workers:
                with ThreadPoolExecutor(workers) as pool:
                    list(pool.map(put, indices[::-1]))
            else:
                for index in indices:
                    put(index)
            scan.commit()
        digests.append(digest(store.path))
    assert digests[0] == digests[1] == digests[2]
    assert len(digests[0]) == 3 * 3 + 3


@pytest.mark.parametrize("codec", CODECS)
def test_a_flipped_bit_is_detected(codec: str, tmp_path: Path) -> None:
    store = L1Store(tmp_path / "out.zarr", codec=codec)
    add_scan(store, 1)
    chunk = store.scan_path(1) / "spectra" / "c" / "1" / "0" / "0" / "0" / "2"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 4
    chunk.write_bytes(content)
    array: Any = zarr.open_array(store.scan_path(1) / "spectra", mode="r")
    array[:4]
    with pytest.raises(ValueError, match="checksum"):
        array[:]


def test_attributes_are_valid_json_whatever_they_hold(tmp_path: Path) -> None:
    store = L1Store(tmp_path / "out.zarr")
    with store.begin(1) as scan:
        scan.group("band_1", {"rms": np.float32(0.5), "n": np.int64(3), "bad": np.nan})
        scan.set_attrs("band_1", {"n": 4, "list": np.array([1.0, np.inf, -np.inf])})
        scan.set_attrs("", {"path": Path("a/b"), "flag": Flag.RFI, "none": None, "ok": np.True_})
        scan.set_attrs("", {"when": datetime.datetime(2026, 1, 2, 3, 4, 5), "nested": {5: (1, 2)}})
        scan.set_attrs("", {"name": "caf\u00e9 \udc80"})
        scan.commit()

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is no JSON number")

    text = (store.scan_path(1) / "band_1" / "zarr.json").read_text(encoding="utf-8")
    json.loads(text, parse_constant=refuse)
    attrs: dict[str, Any] = dict(zarr.open_group(store.scan_path(1), mode="r")["band_1"].attrs)
    assert attrs == {"rms": 0.5, "n": 4, "bad": "NaN", "list": [1.0, "Infinity", "-Infinity"]}
    assert np.isnan(float(attrs["bad"]))
    attrs = store.finished(1) or {}
    assert attrs == {
        "path": "a/b",
        "flag": 8,
        "none": None,
        "ok": True,
        "when": "2026-01-02T03:04:05",
        "nested": {"5": [1, 2]},
        "name": "caf\u00e9 \udc80",
    }


def test_an_attribute_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    with (
        L1Store(tmp_path / "out.zarr").begin(1) as scan,
        pytest.raises(L1Error, match=r"qa\.x.* is a complex"),
    ):
        scan.set_attrs("", {"qa": {"x": 1j}})


def declare(scan: ScanWriter, **changes: Any) -> ArrayWriter:
    values: dict[str, Any] = {"shape": (4, 3), "chunks": (2, 2), "dtype": "f4", "dims": ("x", "y")}
    return scan.array("", "a", **{**values, **changes})


@pytest.mark.parametrize(
    "changes", [{"chunks": (2,)}, {"dims": ("x",)}, {"chunks": (0, 2)}, {"dtype": "U3"}]
)
def test_a_declaration_that_does_not_fit_is_refused(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    with L1Store(tmp_path / "out.zarr").begin(1) as scan, pytest.raises(L1Error):
        declare(scan, **changes)


def test_blocks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with L1Store(tmp_path / "out.zarr").begin(1) as scan:
        writer = declare(scan)
        with pytest.raises(L1Error, match="grid is"):
            writer.write_chunk((2, 0), np.zeros((2, 2)))
        with pytest.raises(L1Error, match=r"has shape \(2, 1\), got \(2, 2\)"):
            writer.write_chunk((0, 1), np.zeros((2, 2)))
        with pytest.raises(L1Error, match="does not fit"):
            writer.write_chunk((0, 0), np.zeros((2, 2), complex))
        with pytest.raises(L1Error, match="does not fit"):
            writer.encode(np.zeros((3, 2)))
        with pytest.raises(L1Error, match="written twice"):
            declare(scan)
        with pytest.raises(L1Error, match="is an array"):
            scan.group("a/b")


def test_missing_chunks_are_not_committed(tmp_path: Path) -> None:
    store = L1Store(tmp_path / "out.zarr")
    scan = store.begin(1)
    declare(scan).write_chunk((0, 0), np.zeros((2, 2)))
    with pytest.raises(L1Error, match=r"scan 1: .*not complete.* a \(3 chunks\)"):
        scan.commit()
    assert store.finished(1) is None
    with pytest.raises(L1Error, match="already committed or aborted"):
        scan.commit()
