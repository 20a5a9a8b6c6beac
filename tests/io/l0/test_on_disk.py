"""What lies on disk counts: stale copies of metadata, foreign files, packed stores, a null fill value."""

from __future__ import annotations

import json
import shutil
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from builders import l0 as build
from builders.groups import source_of
from numpy.typing import NDArray

from gpucal import L0Error, export_raw_fits, import_raw_fits, open_l0

PLACE = "scan_000001/source"


@pytest.fixture(params=[3, 2])
def path(tmp_path: Path, request: Any) -> Path:
    store = build.new_store(tmp_path / "night.zarr", zarr_format=request.param)
    build.write_scan(store, 1, build.source_group(), build.calibration_group())
    return store


def consolidate(path: Path) -> None:
    """As other programs do: of the root, of the scan and of its group."""
    zarr_format = 3 if (path / "zarr.json").exists() else 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for place in (PLACE, "scan_000001", None):
            zarr.consolidate_metadata(str(path), path=place, zarr_format=zarr_format)  # type: ignore[arg-type]


def replace(path: Path, name: str, values: Any, **how: Any) -> None:
    """Another array in the place of one, its copies elsewhere left as they are."""
    zarr_format: Any = 3 if (path / "zarr.json").exists() else 2
    folder = path / PLACE / name
    shutil.rmtree(folder)
    array = zarr.create_array(
        str(folder), data=values, zarr_format=zarr_format, **{"fill_value": 0, **how}
    )
    array.attrs["units"] = "count" if name == "data_5d" else ""


def read(path: Path) -> NDArray[Any]:
    source = source_of(open_l0(path).load(1)[0]).counts
    blocks = [source.read(0, source.shape[0], s) for s in range(source.shape[4])]
    return np.stack(blocks, axis=-1)


OTHERS: dict[str, Callable[[Any], tuple[Any, dict[str, Any]]]] = {
    "codec": lambda v: (v + 1, {"compressors": None}),
    "chunks": lambda v: (v + 1, {"chunks": (3, 3, 1, 4, 2)}),
    "dtype": lambda v: ((v + 1).astype("f8"), {}),
    "sharding": lambda v: (v + 1, {"chunks": (3, 3, 2, 4, 1), "shards": (12, 3, 2, 4, 1)}),
}


@pytest.mark.parametrize("other", OTHERS)
def test_stale_array(path: Path, other: str) -> None:
    if other == "sharding" and not (path / "zarr.json").exists():
        pytest.skip("Zarr v2 knows no shards")
    right = read(path)
    consolidate(path)
    values, how = OTHERS[other](right)
    replace(path, "data_5d", values, **how)
    found = read(path)
    np.testing.assert_array_equal(found, right + 1)
    assert found.dtype == values.dtype


def test_stale_shape(path: Path) -> None:
    """A scan that was longer when somebody consolidated it."""
    right = read(path)
    consolidate(path)
    for name in zarr.open_group(str(path / PLACE), mode="r", use_consolidated=False).array_keys():
        values = np.asarray(zarr.open_array(str(path / PLACE / name), mode="r"))
        if values.shape[-1] == 5:
            replace(path, name, values[..., :3])
    group = zarr.open_group(str(path / PLACE), mode="r+", use_consolidated=False)
    group.attrs["sobsmode"] = ["OFF", "ON", "OFF"]
    np.testing.assert_array_equal(read(path), right[..., :3])


def test_array_that_is_gone_or_new(path: Path) -> None:
    consolidate(path)
    shutil.rmtree(path / PLACE / "tamb")
    assert np.isnan(source_of(open_l0(path).load(1)[0]).tamb).all()
    shutil.rmtree(path / PLACE / "mjd")
    with pytest.raises(L0Error, match="array mjd is missing"):
        open_l0(path).load(1)


def test_renamed_scan(path: Path) -> None:
    consolidate(path)
    shutil.move(path / "scan_000001", path / "scan_000009")
    store = open_l0(path)
    assert store.numbers() == [9]
    (scan,) = store.load(9)
    assert scan.calibration is not None
    assert (scan.calibration.counts.read(0, 1, 0) > 0).all()


def test_stale_attributes(path: Path) -> None:
    consolidate(path)
    group = zarr.open_group(str(path / "scan_000001"), mode="r+", use_consolidated=False)
    group.attrs["source"] = "W3"
    assert open_l0(path).load(1)[0].attrs["source"] == "W3"


def test_raw_fits_of_a_consolidated_store(path: Path, tmp_path: Path) -> None:
    right = read(path)
    consolidate(path)
    replace(path, "data_5d", right + 1)
    (file,) = export_raw_fits(path, tmp_path / "fits")
    import_raw_fits([file], tmp_path / "back.zarr")
    np.testing.assert_array_equal(read(tmp_path / "back.zarr"), right + 1)


def test_files_of_other_systems(path: Path) -> None:
    right = read(path)
    for file in [f for f in path.rglob("*") if f.is_file()]:
        file.with_name(f"._{file.name}").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X        ")
    for folder in [path, *(f for f in path.rglob("*") if f.is_dir())]:
        (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
        (folder / "Thumbs.db").write_bytes(b"x")
    np.testing.assert_array_equal(read(path), right)
    assert open_l0(path).numbers() == [1]


@pytest.mark.parametrize("inside", ["", "night.zarr"])
def test_zip(path: Path, tmp_path: Path, inside: str) -> None:
    right = read(path)
    (path / "__MACOSX").mkdir()
    (path / "__MACOSX/zarr.json").write_text("{}")
    packed = shutil.make_archive(
        str(tmp_path / "packed"), "zip", path.parent if inside else path, inside or None
    )
    for name in (packed, str(shutil.copy(packed, tmp_path / "packed.zarr"))):
        np.testing.assert_array_equal(read(Path(name)), right)
        assert open_l0(name).numbers() == [1]


def test_other_packed_files(path: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "night.tgz", "w:gz") as packed:
        packed.add(path, "night.zarr")
    with pytest.raises(L0Error, match="is a tar file") as caught:
        open_l0(tmp_path / "night.tgz")
    assert f"tar xf {tmp_path / 'night.tgz'}" in caught.value.hint
    (tmp_path / "cut.zip").write_bytes(b"PK\3\4 and no more")
    with pytest.raises(L0Error, match="is no zip file, or only a part of one"):
        open_l0(tmp_path / "cut.zip")


def test_zip_of_two_stores(path: Path, tmp_path: Path) -> None:
    shutil.copytree(path, tmp_path / "two/a.zarr")
    shutil.copytree(path, tmp_path / "two/b.zarr")
    packed = shutil.make_archive(str(tmp_path / "two"), "zip", tmp_path / "two")
    with pytest.raises(L0Error, match="2 Zarr groups side by side") as caught:
        open_l0(packed)
    assert "unzip" in caught.value.hint


@pytest.mark.parametrize("name", ["data_5d", "tamb"])
def test_null_fill_value(tmp_path: Path, name: str) -> None:
    path = build.new_store(tmp_path / "night.zarr")
    build.write_scan(path, 1, build.source_group())
    document = path / PLACE / name / "zarr.json"
    about = json.loads(document.read_text())
    document.write_text(json.dumps({**about, "fill_value": None}))
    with pytest.raises(L0Error, match=f"{name} has fill_value null, expected a number") as caught:
        open_l0(path).load(1)
    assert "-2147483648" in caught.value.hint
    assert caught.value.scan == 1
