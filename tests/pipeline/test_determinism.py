"""The bytes of L1 do not depend on memory, threads, or how L0 is cut into chunks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders.night_stores import (
    assert_same,
    contents,
    fast_folder,
    make_night,
    rechunk,
    small_setup,
)

from gpucal import CalibrationConfig, StoreReport, calibrate_store
from gpucal.io.chunks.layout import ChunkFiles
from gpucal.pipeline.scan import ordered_pool, stream, work_units

CHUNKINGS = {
    "channels cut": (7, 99, 1),
    "several subscans": (16, 99, 3),
    "everything cut": (10, 3, 2),
    "one chunk": (99, 99, 99),
}


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A scan of every mode, in the usual chunks and in odd ones."""
    with fast_folder(tmp_path_factory.mktemp("night")) as folder:
        store = make_night(folder, small_setup())
        for name, chunks in CHUNKINGS.items():
            rechunk(store, folder / name, chunks)
        yield folder


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks of channels per scan, and a memory budget that is too small for a whole scan."""
    monkeypatch.setattr(work_units, "L1_CHUNK_BYTES", 1 << 12)
    monkeypatch.setattr(work_units, "T_SYS_CHUNK_BYTES", 1 << 10)
    size = work_units.unit_bytes
    monkeypatch.setattr(work_units, "unit_bytes", lambda *args: size(*args) << 12)


def run(l0: Path, out: Path, table: Path | None, **options: Any) -> StoreReport:
    options = {"atmosphere": str(table) if table else "none", **options}
    report = calibrate_store(l0, out, CalibrationConfig(**options))
    assert not report.failures, report.failures
    assert {s.status for s in report.summaries} == {"calibrated"}
    return report


def test_the_memory_budget_bounds_what_is_in_flight(
    night: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Makes sure that the budgets compared below lead to different schedules."""
    seen: dict[int, set[int]] = {64: set(), 4096: set()}
    plain = ordered_pool.in_order
    for ring, most in seen.items():

        def noting(tasks: Any, pool: Any, n: int, stop: Any, most: set[int] = most) -> Any:
            most.add(n)
            return plain(tasks, pool, n, stop)

        monkeypatch.setattr(stream, "in_order", noting)
        run(night / "l0.zarr", tmp_path / str(ring), night / "table.npz", ring=ring, workers=4)
    assert seen == {64: {1}, 4096: {5}}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dbs_coupling": True, "dtype": "f32", "skychopdiff": True, "codec": "none"},
        {"reference": "per-dump", "pwv_scope": "per-pair", "fold": False, "skydiff": 2},
    ],
    ids=["default", "merged beams", "per dump"],
)
def test_same_bytes(night: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    table = night / "table.npz"
    with fast_folder(tmp_path) as out:
        run(night / "l0.zarr", out / "first", table, ring=4096, workers=1, **options)
        blocks = {name.split("/")[-5] for name in contents(out / "first") if "spectra/c/" in name}
        assert len(blocks) > 2
        run(night / "l0.zarr", out / "ring", table, ring=64, workers=1, **options)
        assert_same(out / "ring", out / "first")
        run(night / "l0.zarr", out / "workers", table, ring=64, workers=4, **options)
        assert_same(out / "workers", out / "first")
        for i, name in enumerate(CHUNKINGS):
            ring, workers = ((64, 4), (4096, 1))[i % 2]
            run(night / name, out / name, table, ring=ring, workers=workers, **options)
            assert_same(out / name, out / "first")


@pytest.mark.parametrize("dtype", ["f32", "f64", "u32"])
def test_same_bytes_of_one_pixel(tmp_path: Path, dtype: str) -> None:
    """A single receiver and pixel: sums over dumps are then sums over a contiguous axis."""
    setup = small_setup(
        "superc", ("otf", "nod", "tp"), dumps=21, pixels=1, fill=0.0 if dtype == "u32" else 2e-3
    )
    with fast_folder(tmp_path) as out:
        l0 = make_night(out, setup, dtype=dtype)
        run(l0, out / "first", out / "table.npz", ring=4096, workers=1)
        for i, chunks in enumerate([(1, 99, 1), (5, 99, 2), (99, 8, 99)]):
            odd = rechunk(l0, out / f"l0-{i}", chunks)
            run(odd, out / f"odd-{i}", out / "table.npz", ring=64, workers=4)
            assert_same(out / f"odd-{i}", out / "first")


def test_same_bytes_of_vane_and_gain_drift(tmp_path: Path) -> None:
    with fast_folder(tmp_path) as out:
        (out / "argus").mkdir()
        (out / "superc").mkdir()
        vane = make_night(out / "argus", small_setup("argus", ("nod", "tp")))
        loads = make_night(out / "superc", small_setup("superc", ("otf", "tp"), separate=True))
        cases = (
            (vane, {"tau": 0.1, "cal_scheme": "vane"}),
            (vane, {"tau": 0.1, "cal_scheme": "vane-channel"}),
            (loads, {"gain_interpolate": 3, "pwv_scope": "per-pixel"}),
        )
        for n, (l0, options) in enumerate(cases):
            table = None if "tau" in options else l0.parent / "table.npz"
            run(l0, out / f"first-{n}", table, ring=4096, workers=1, **options)
            odd = rechunk(l0, out / f"l0-{n}", (10, 3, 2))
            run(odd, out / f"odd-{n}", table, ring=64, workers=4, **options)
            assert_same(out / f"odd-{n}", out / f"first-{n}")


USES = {
    # sobsmode -> how often its raw samples are needed: as the data, as a mean
    "OFF": 1,
    "ON": 1,
    "OTF-OFF": 1,
    "OTF-ON": 1,
    "HOT": 1,
    "COLD": 1,
    "OTFSWA-ON": 1,
    "OTFSWB-ON": 1,
    "OTFSWA-OFF": 2,
    "OTFSWB-OFF": 2,
    "NOD-1": 2,
    "NOD-2": 2,
    "FSW-SIG": 1,
    "FSW-REF": 2,
    "WSW-ON": 1,
    "WSW-OFF": 2,
}


@pytest.mark.parametrize("ring", [64, 4096])
def test_raw_chunks_are_decoded_once_per_use(
    night: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ring: int
) -> None:
    decoded: Counter[Path] = Counter()
    plain = ChunkFiles.decode

    def counting(files: ChunkFiles, key: tuple[int, ...], out: Any) -> None:
        if files.folder.name == "data_5d":  # not times, angles and loads
            decoded[files.path(key)] += 1
        plain(files, key, out)

    monkeypatch.setattr(ChunkFiles, "decode", counting)
    store = rechunk(night / "l0.zarr", tmp_path / "l0", (16, 99, 1))
    with fast_folder(tmp_path) as out:
        run(store, out / "l1", night / "table.npz", ring=ring, workers=2)
    import zarr

    root: Any = zarr.open_group(str(store), mode="r")
    seen = 0
    for number, kind in enumerate(small_setup().kinds, 1):
        for name in ("source", "calibration"):
            group = root[f"scan_{number:06d}/{name}"]
            for s, mode in enumerate(group.attrs["sobsmode"]):
                uses = 2 if kind == "wsw-chopped" and mode.startswith("WSW") else USES[mode]
                counts = group["data_5d"]
                for c in range(counts.cdata_shape[0]):
                    path = store / counts.path / "c" / f"{c}/0/0/0/{s}"
                    assert decoded.pop(path) == uses, (kind, mode, path)
                    seen += 1
    assert not decoded
    assert seen > 100
