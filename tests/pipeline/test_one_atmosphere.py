"""One scan, every way through the house: the same atmosphere, hence the same numbers, or the same error."""

from __future__ import annotations

import math
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from builders.night_stores import fast_folder, make_night, small_setup
from builders.small_site import assert_same_arrays, drain, site
from builders.truth_setup import spectra_error, steady

import gpucal
from gpucal import (
    CalibrationConfig,
    GpucalError,
    GpucalWarning,
    TableError,
    calibrate_scan,
    calibrate_store,
    load_table,
    open_l0,
    open_l1,
    reduce_scan,
    simulate_scan,
)
from gpucal.online.looks.look import load_look
from gpucal.online.queue.pipe import Pipe
from gpucal.online.replay.replay import Replay
from gpucal.online.site.results import Results

NUMBER = 1
BACKYARD: dict[str, Any] = {
    "telescope": "Backyard",
    "site": {"lat_deg": 50.0, "lon_deg": 7.0, "alt_m": 60.0},
}


@dataclass(frozen=True)
class Case:
    """A store and options; ``expected``: name of the table, or the error."""

    store: str
    options: dict[str, Any]
    expected: str | type[GpucalError] | None


CASES = {
    "packaged site": Case("packaged", {}, "iram_30m"),
    "unknown site": Case("unknown", {}, TableError),
    "tau given": Case("packaged", {"tau": 0.15}, None),
    "tau given at an unknown site": Case("unknown", {"tau": 0.15}, None),
    "none": Case("packaged", {"atmosphere": "none"}, None),
    "named table": Case("unknown", {"atmosphere": "iram_30m"}, "iram_30m"),
    "table file": Case("packaged", {"atmosphere": "{folder}/table.npz"}, "table"),
    "no such table": Case("packaged", {"atmosphere": "{folder}/none.npz"}, TableError),
}


def spectra(reduced: Any) -> Any:
    """The averaged spectrum of an ON-OFF reduction of the only band."""
    return reduced.result[""].spectrum


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One scan of a telescope that a packaged table fits, and the same scan of one that none fits."""
    with fast_folder(tmp_path_factory.mktemp("stores")) as folder:
        made = make_night(folder, small_setup(kinds=("tp",)))
        made.rename(folder / "packaged")
        shutil.copytree(folder / "packaged", folder / "unknown")
        zarr.open_group(folder / "unknown", mode="r+").attrs.update(BACKYARD)
        yield folder


def config_of(case: Case, folder: Path, **changes: Any) -> CalibrationConfig:
    options = {
        k: v.format(folder=folder) if k == "atmosphere" else v for k, v in case.options.items()
    }
    return CalibrationConfig(**{"workers": 1, **options, **changes})


def same_error(case: Case, reference: Callable[[], Any], way: Callable[[], Any]) -> bool:
    """Whether the case is one of an error; then both raise it with the same words."""
    if not isinstance(case.expected, type):
        return False
    with pytest.raises(case.expected) as first:
        reference()
    with pytest.raises(case.expected) as other:
        way()
    assert (other.value.message, other.value.hint) == (first.value.message, first.value.hint)
    return True


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def test_calibrate_store(case: Case, stores: Path, tmp_path: Path) -> None:
    """The reference: the table that the case expects is in the provenance."""
    config, l0 = config_of(case, stores), stores / case.store
    if isinstance(case.expected, type):
        with pytest.raises(case.expected):
            calibrate_store(l0, tmp_path / "l1", config)
        return
    assert calibrate_store(l0, tmp_path / "l1", config).exit_code == 0
    table = open_l1(tmp_path / "l1").scan(NUMBER).attrs["provenance"]["atmosphere_table"]
    assert (Path(table["name"]).stem if table else None) == case.expected


def test_calibrate_scan(case: Case, stores: Path, tmp_path: Path) -> None:
    config, l0 = config_of(case, stores), stores / case.store
    [scan] = open_l0(l0).load(NUMBER)

    def reference() -> Any:
        return calibrate_store(l0, tmp_path / "l1", config)

    if same_error(case, reference, lambda: calibrate_scan(scan, config)):
        return
    assert reference().exit_code == 0
    stored, found = open_l1(tmp_path / "l1").scan(NUMBER), calibrate_scan(scan, config)
    for name in ("spectra", "flags", "t_sys", "t_rec"):
        np.testing.assert_array_equal(np.asarray(getattr(found, name)), stored[name][...], name)


def test_reduce(case: Case, stores: Path, tmp_path: Path) -> None:
    """Averages need T_A* itself: from raw counts they are those of the calibrated store."""
    config, l0 = config_of(case, stores), stores / case.store

    def reference() -> Any:
        return calibrate_store(l0, tmp_path / "l1", config)

    def reduced() -> Any:
        return reduce_scan(l0, NUMBER, procedure="on-off", config=config)

    if same_error(case, reference, reduced):
        return
    assert reference().exit_code == 0
    of_l1 = spectra(reduce_scan(tmp_path / "l1", NUMBER, procedure="on-off"))
    np.testing.assert_allclose(spectra(reduced()), of_l1, rtol=1e-9, atol=1e-9)


def test_online(case: Case, stores: Path, tmp_path: Path) -> None:
    """The calibration task: L1 at the end of the scan, and looks before it."""
    config = config_of(case, stores)
    own = site(tmp_path, stores, calibration=config, attempts=1)
    l0 = tmp_path / "l0.zarr"
    Replay(stores / case.store, l0, Pipe(own.pipe), project="p1").run(speed=math.inf)
    drain(own, ("calibration",))
    looks = [load_look(p) for p in sorted((own.work_of("calibration", "p1")).glob("*.npz"))]
    if isinstance(case.expected, type):
        with pytest.raises(case.expected) as reference:
            calibrate_store(stores / case.store, tmp_path / "l1", config)
        results = Results(own.database_url)
        said = " ".join(m["text"] for m in results.rows("messages"))
        results.close()
        failed = " ".join(r["error"] for _, r in Pipe(own.pipe).task("calibration").failed())
        assert reference.value.message in said + failed
        assert {look.kind for look in looks} == {"counts"}
        return
    assert calibrate_store(stores / case.store, tmp_path / "l1", config).exit_code == 0
    assert_same_arrays(own.data / "p1" / "l1.zarr", tmp_path / "l1")
    assert "calibrated" in {look.kind for look in looks}


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_cluster(stores: Path, tmp_path: Path) -> None:
    """Two workers of their own processes; all cases on one cluster, as it takes long to start."""
    distributed = pytest.importorskip("distributed")
    import dask

    with (
        dask.config.set({"distributed.worker.daemon": True}),
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=None,
            local_directory=str(tmp_path / "dask"),
            silence_logs=50,
        ) as cluster,
    ):
        for i, case in enumerate(CASES.values()):
            config, l0 = config_of(case, stores), stores / case.store
            spread = config_of(case, stores, scheduler=cluster.scheduler_address)
            here, there = tmp_path / f"here-{i}", tmp_path / f"there-{i}"

            def reference(l0: Path = l0, out: Path = here, config: Any = config) -> Any:
                return calibrate_store(l0, out, config)

            def on_cluster(l0: Path = l0, out: Path = there, config: Any = spread) -> Any:
                return calibrate_store(l0, out, config)

            if not same_error(case, reference, on_cluster):
                assert reference().exit_code == on_cluster().exit_code == 0
                assert_same_arrays(there, here)


# --- in memory, without a store


def test_a_simulated_scan_gets_the_table_of_its_telescope() -> None:
    """By default the transmission is corrected for: without, a HERA map comes out at 0.77 of the truth."""
    made = simulate_scan(steady("hera"), "otf", 7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GpucalWarning)
        by_default = calibrate_scan(made.scans[0])
        packaged = calibrate_scan(made.scans[0], table=load_table("iram_30m"))
        without = calibrate_scan(made.scans[0], CalibrationConfig(atmosphere="none"))
    np.testing.assert_array_equal(by_default.spectra, packaged.spectra)
    true = calibrate_scan(made.scans[0], table=made.table)
    assert spectra_error(true, made) < 1e-4
    strong = np.asarray(true.spectra) > 0.5 * np.nanmax(true.spectra)

    def level(found: Any) -> float:
        return float(np.mean(np.asarray(found.spectra)[strong] / np.asarray(true.spectra)[strong]))

    assert level(by_default) == pytest.approx(1.0, abs=0.05)  # another model of dry air
    assert level(without) < 0.9


def test_a_simulated_scan_of_an_unknown_site_is_refused() -> None:
    made = simulate_scan(steady("hera"), "tp", 7)
    scan = replace(made.scans[0], store_attrs=BACKYARD)
    with pytest.raises(TableError, match="Backyard"):
        calibrate_scan(scan)
    assert spectra_error(calibrate_scan(scan, table=made.table), made) < 1e-4
    assert gpucal.atmosphere_for(CalibrationConfig(tau=0.1), BACKYARD) is None
