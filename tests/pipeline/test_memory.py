"""Memory does not grow with the scan: only means and the tiles in flight are held."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from builders.night_stores import make_night, rechunk, small_setup

from gpucal import CalibrationConfig, open_l0, select_backend
from gpucal.pipeline.scan.load_library import LoadLibrary

ROOT = Path(__file__).parent.parent.parent
GIB, RING, LIMIT = 1.0, 64, 600


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_scan_much_larger_than_the_memory_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.disk_usage(tmp_path).free < 5 * GIB * 2**30:
        pytest.skip("needs 5 GiB of disk")
    monkeypatch.syspath_prepend(str(ROOT))
    big = importlib.import_module("bench.big_scan")
    assert big.make_scan(tmp_path, GIB) > 1e9
    result = big.calibrate(tmp_path, ring=RING, workers=2)
    shutil.rmtree(tmp_path / "l1.zarr")
    shutil.rmtree(tmp_path / "l0.zarr")
    assert result["exit_code"] == 0
    assert 0.9 < result["rms_ratio"] < 1.1
    assert result["peak_rss_mib"] < LIMIT


def test_decoded_counts_are_let_go(tmp_path: Path) -> None:
    """Chunks of several subscans are kept while a scan is in work, and not after it."""
    make_night(tmp_path, small_setup(kinds=("otf",)))
    store = rechunk(tmp_path / "l0.zarr", tmp_path / "odd", (64, 99, 9))
    config = CalibrationConfig(atmosphere=str(tmp_path / "table.npz"))
    library = LoadLibrary(open_l0(store), config, select_backend("cpu"))
    [scan] = library.scan(1)
    assert scan.source is not None
    counts = scan.source.counts
    first = counts.read(0, 8, 0)
    assert np.array_equal(counts.read(0, 8, 0), first)
    assert counts.decoded_chunks == 1  # type: ignore[attr-defined]
    library.release(1)
    assert np.array_equal(counts.read(0, 8, 0), first)
    assert counts.decoded_chunks == 2  # type: ignore[attr-defined]
    assert library.scan(1)[0] is scan


def test_a_long_night_keeps_few_scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scans without loads are not read again when the loads of a later scan are looked for."""
    from gpucal.pipeline.scan import load_library

    monkeypatch.setattr(load_library, "SCANS_KEPT", 2)
    setup = small_setup("superc", ("tp",), separate=True)
    make_night(tmp_path, setup, scans=5)  # loads in 1, 5 and 8
    store = open_l0(tmp_path / "l0.zarr")
    read: list[int] = []
    plain = store.load

    def noting(number: int, **options: object) -> object:
        read.append(number)
        return plain(number, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "load", noting)
    library = LoadLibrary(store, CalibrationConfig(), select_backend("cpu"))
    kinds = {n: store.kind(n) for n in store.numbers()}
    science = [n for n, kind in kinds.items() if kind == "science"]
    for n in science:
        [scan] = library.scan(n)
        assert kinds[library.choose(scan).first.scan] == "load"
        library.release(n)
    assert all(read.count(n) == 1 for n in science)
