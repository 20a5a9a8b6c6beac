"""A night on a dask cluster: the bytes of a serial run, and failures that stay with their scan."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders.night_stores import assert_same, fast_folder, make_night, small_setup

from gpucal import (
    CalibrationConfig,
    ConfigError,
    L0Error,
    OtherSettingsError,
    StoreReport,
    TableError,
    calibrate_store,
    open_l1,
)
from gpucal.pipeline.spread import cluster as scaleout
from gpucal.pipeline.store.report import ScanSummary, SilentObserver

distributed = pytest.importorskip("distributed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # distributed leaves sockets and loops to the collector
]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two worker processes on this machine."""
    import dask

    folder = tmp_path_factory.mktemp("dask")
    with (
        dask.config.set({"distributed.worker.daemon": True}),
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=None,
            local_directory=str(folder),
            silence_logs=50,
        ) as cluster,
    ):
        yield cluster.scheduler_address


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with fast_folder(tmp_path_factory.mktemp("night")) as folder:
        make_night(folder, small_setup(kinds=("otf", "fsw", "otf-chopped"), separate=True))
        yield folder


class Watching(SilentObserver):
    def __init__(self) -> None:
        self.started: list[int] = []
        self.finished: list[int] = []
        self.told: list[str] = []

    def night_started(self, scans: Any, total_bytes: int) -> None:
        self.started = list(scans)

    def scan_finished(self, summary: ScanSummary) -> None:
        self.finished.append(summary.scan)

    def message(self, level: str, text: str) -> None:
        self.told.append(f"{level}: {text}")


def run(folder: Path, out: Path, observer: Any = None, **options: Any) -> StoreReport:
    options = {"atmosphere": str(folder / "table.npz"), "workers": 1, **options}
    return calibrate_store(folder / "l0.zarr", out, CalibrationConfig(**options), observer=observer)


def test_same_bytes_as_serial(night: Path, tmp_path: Path, address: str) -> None:
    watching = Watching()
    serial = run(night, tmp_path / "serial")
    spread = run(night, tmp_path / "spread", watching, scheduler=address)
    assert spread.exit_code == serial.exit_code == 0
    assert_same(tmp_path / "spread", tmp_path / "serial")
    assert watching.started == sorted(watching.finished) == [2, 3, 4]
    assert [(s.scan, s.mode) for s in spread.summaries] == [
        (s.scan, s.mode) for s in serial.summaries
    ]
    again = run(night, tmp_path / "spread", scheduler=address)
    assert {s.status for s in again.summaries} == {"skipped"}
    assert [s.t_sys for s in again.summaries] == [s.t_sys for s in serial.summaries]
    with pytest.raises(OtherSettingsError, match="differences: reference linear, now nearest"):
        run(night, tmp_path / "spread", scheduler=address, reference="nearest")
    assert_same(tmp_path / "spread", tmp_path / "serial")


def test_failures_are_those_of_a_serial_run(tmp_path: Path, address: str) -> None:
    make_night(tmp_path, small_setup(kinds=("otf", "tp")))
    chunk = tmp_path / "l0.zarr/scan_000002/source/data_5d/c/0/0/0/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-5])
    watching = Watching()
    options = {"scans": "1-2,9"}
    serial = run(tmp_path, tmp_path / "serial", **options)
    spread = run(tmp_path, tmp_path / "spread", watching, scheduler=address, **options)
    assert spread.exit_code == serial.exit_code == 2
    assert spread.failures == serial.failures
    assert [f.scan for f in spread.failures] == [2, 9]
    written = json.loads((tmp_path / "spread/failures.json").read_text())
    assert written == [f.as_dict() for f in serial.failures]
    assert any("scan 9" in text for text in watching.told)
    assert_same(tmp_path / "spread", tmp_path / "serial")


def lose_worker(*args: Any) -> StoreReport:
    if args[1].scans == "3":
        os._exit(1)
    return PLAIN(*args)


PLAIN = scaleout._calibrate_one


def test_a_lost_worker_fails_its_scan_alone(
    night: Path, tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(scaleout, "_calibrate_one", lose_worker)
    report = run(night, tmp_path / "l1", scheduler=address)
    [failure] = report.failures
    assert (failure.scan, failure.error) == (3, "KilledWorker")
    assert report.exit_code == 2
    assert list(open_l1(tmp_path / "l1")) == [2, 4]


def test_what_holds_for_every_scan_is_raised(night: Path, tmp_path: Path, address: str) -> None:
    with pytest.raises(TableError):
        run(night, tmp_path / "l1", scheduler=address, atmosphere=str(tmp_path / "none.npz"))
    with pytest.raises(L0Error):
        run(tmp_path, tmp_path / "l1", scheduler=address)


def test_no_scheduler_answers(night: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setattr(scaleout, "CONNECT_SECONDS", 0.5)
        with pytest.raises(ConfigError, match="does not answer"):
            run(night, tmp_path / "l1", scheduler=f"tcp://127.0.0.1:{unused.getsockname()[1]}")
    assert not (tmp_path / "l1").exists()
