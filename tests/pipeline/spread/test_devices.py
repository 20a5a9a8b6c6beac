"""One process per device: the bytes of a single process, and deaths that stay with their scan."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from builders.night_stores import KINDS, assert_same, fast_folder, make_night, small_setup

import gpucal
from gpucal import (
    BackendError,
    CalibrationConfig,
    ConfigError,
    L0Error,
    OtherSettingsError,
    StoreReport,
    TableError,
    calibrate_store,
)
from gpucal.io.files import atomic
from gpucal.pipeline.spread import device_process, devices, fleet
from gpucal.pipeline.spread.device_process import DeviceProcess
from gpucal.pipeline.spread.fleet import Fleet
from gpucal.pipeline.store.report import ScanSummary, SilentObserver

FAKES = Path(__file__).resolve().parents[2] / "fakes"


class Watching(SilentObserver):
    """Notes what it is told; ``at_start`` is called when a scan starts."""

    def __init__(self, at_start: Callable[[int], None] | None = None) -> None:
        self.at_start = at_start
        self.tiles: dict[int, int] = {}
        self.totals: dict[int, int] = {}
        self.finished: list[int] = []
        self.told: list[str] = []
        self.night: list[int] = []

    def night_started(self, scans: Any, total_bytes: int) -> None:
        self.night = list(scans)

    def scan_started(self, scan: int, band: str, total_bytes: int) -> None:
        self.totals[scan] = total_bytes
        if self.at_start is not None:
            self.at_start(scan)

    def tile_done(self, scan: int, band: str, nbytes: int) -> None:
        self.tiles[scan] = self.tiles.get(scan, 0) + nbytes

    def scan_finished(self, summary: ScanSummary) -> None:
        self.finished.append(summary.scan)

    def message(self, level: str, text: str) -> None:
        self.told.append(f"{level}: {text}")


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Every kind of scan, one load scan for all of them."""
    with fast_folder(tmp_path_factory.mktemp("night")) as folder:
        make_night(folder, small_setup(kinds=KINDS, separate=True))
        options = {"workers": 1}
        assert run(folder, folder / "single", None, devices="", **options).exit_code == 0
        yield folder


def run(folder: Path, out: Path, observer: Any = None, **options: Any) -> StoreReport:
    given = {"atmosphere": str(folder / "table.npz"), "backend": "cpu", "devices": "0,1"}
    config = CalibrationConfig(**{**given, "workers": 1, **options})
    return calibrate_store(folder / "l0.zarr", out, config, observer=observer)


@pytest.fixture
def fleets(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every fleet that is made."""
    made: list[Any] = []

    class Noted(Fleet):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

    monkeypatch.setattr(devices, "Fleet", Noted)
    return made


def has(fleet: Fleet, scan: int) -> DeviceProcess:
    [process] = [p for p in fleet.processes.values() if scan in p.scans]
    return process


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> int:
    """A scan in which every process hangs for ever."""
    number = 3
    worker_is(monkeypatch, FAKES / "stuck_worker.py", str(number))
    return number


def worker_is(monkeypatch: pytest.MonkeyPatch, script: Path, argument: str) -> None:
    """Let the processes be this script; they find the fakes as pytest does."""
    paths = [str(FAKES.parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in paths if p))
    monkeypatch.setattr(device_process, "COMMAND", (sys.executable, str(script), argument))


def losing_in(monkeypatch: pytest.MonkeyPatch, scans: str) -> None:
    """Let the processes lose their device in these scans."""
    worker_is(monkeypatch, FAKES / "losing_worker.py", scans)


def test_other_settings_are_refused_and_finished_scans_are_skipped(
    night: Path, tmp_path: Path, fleets: list[Any]
) -> None:
    """No process is started for either; the skipped scans come with their numbers."""
    shutil.copytree(night / "single", tmp_path / "l1")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "l1").rglob("*")}
    with pytest.raises(OtherSettingsError, match="differences: reference linear, now nearest"):
        run(night, tmp_path / "l1", reference="nearest")
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "l1").rglob("*")} == before
    watching = Watching()
    report = run(night, tmp_path / "l1", watching)
    assert {s.status for s in report.summaries} == {"skipped"}
    assert all(s.t_sys > 0 for s in report.summaries)
    assert watching.finished == watching.night
    assert all(not fleet.processes for fleet in fleets)


def test_same_bytes_as_one_process(night: Path, tmp_path: Path) -> None:
    watching = Watching()
    report = run(night, tmp_path / "l1", watching)
    assert report.exit_code == 0
    assert_same(tmp_path / "l1", night / "single")
    single = gpucal.open_l1(night / "single")
    assert watching.night == sorted(watching.finished) == list(single)
    assert [s.scan for s in report.summaries] == list(single)
    assert watching.tiles == watching.totals
    used = {text for text in watching.told if "backend cpu" in text}
    assert {text.split(":")[1].strip() for text in used} == {"device 0", "device 1"}
    again = run(night, tmp_path / "l1", devices="0")
    assert {s.status for s in again.summaries} == {"skipped"}
    assert not atomic.staging_dir(tmp_path / "l1").exists()


def test_failures_are_those_of_one_process(tmp_path: Path) -> None:
    make_night(tmp_path, small_setup(kinds=("otf", "tp")))
    chunk = tmp_path / "l0.zarr/scan_000002/source/data_5d/c/0/0/0/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-5])
    serial = run(tmp_path, tmp_path / "serial", devices="", scans="1-2,9")
    spread = run(tmp_path, tmp_path / "spread", scans="1-2,9")
    assert spread.exit_code == serial.exit_code == 2
    assert spread.failures == serial.failures
    assert [f.scan for f in spread.failures] == [2, 9]
    written = json.loads((tmp_path / "spread/failures.json").read_text())
    assert written == [f.as_dict() for f in serial.failures]
    assert_same(tmp_path / "spread", tmp_path / "serial")


@pytest.mark.parametrize("names", ["0,1", "5"])
def test_a_killed_process_fails_its_scan_alone(
    stuck: int,
    night: Path,
    tmp_path: Path,
    fleets: list[Any],
    names: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    number = stuck

    def kill(scan: int) -> None:
        if scan == number:
            os.kill(has(fleets[0], scan).pid, signal.SIGKILL)

    out = tmp_path / "l1"
    report = run(night, out, Watching(kill), devices=names)
    [failure] = report.failures
    assert (failure.scan, failure.error) == (number, "DeviceLostError")
    assert "was killed by SIGKILL" in failure.message
    assert "dmesg" in failure.hint
    assert report.exit_code == 2
    expected = [n for n in gpucal.open_l1(night / "single") if n != number]
    assert list(gpucal.open_l1(out)) == expected
    assert [e["scan"] for e in json.loads((out / "failures.json").read_text())] == [number]
    monkeypatch.undo()
    assert run(night, out, devices=names).exit_code == 0
    assert_same(out, night / "single")
    assert not atomic.staging_dir(out).exists()


def test_ctrl_c_ends_all_and_the_same_command_does_the_rest(
    stuck: int,
    night: Path,
    tmp_path: Path,
    fleets: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The scan in work is stuck: its process is killed when it does not end in time."""
    number = stuck
    out = tmp_path / "l1"

    class Interrupting(Watching):
        def scan_finished(self, summary: ScanSummary) -> None:
            super().scan_finished(summary)
            if len(self.finished) == 2:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    monkeypatch.setattr(fleet, "STOP_SECONDS", 1.0)
    report = run(night, out, Interrupting())
    assert report.interrupted
    assert report.exit_code == 130
    assert not report.failures
    done = list(gpucal.open_l1(out))
    assert done == [s.scan for s in report.summaries]
    assert 2 <= len(done) < len(KINDS)
    assert number not in done
    for process in fleets[0].processes.values():
        with pytest.raises(ProcessLookupError):
            os.kill(process.pid, 0)
    monkeypatch.undo()
    assert run(night, out).exit_code == 0
    assert_same(out, night / "single")
    assert not atomic.staging_dir(out).exists()


def test_a_lost_device_gets_a_new_process(
    night: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device is lost in scan 3; a new process of the same device does the others."""
    losing_in(monkeypatch, "3")
    watching = Watching()
    report = run(night, tmp_path / "l1", watching, devices="0", backend="auto")
    [failure] = report.failures
    assert (failure.scan, failure.error) == (3, "DeviceLostError")
    assert "the device was lost: cudaErrorIllegalAddress" in failure.message
    started = [text for text in watching.told if "process" in text]
    assert len(started) == len(set(started)) == 2
    assert all("backend fake" in text for text in started)
    expected = [n for n in gpucal.open_l1(night / "single") if n != 3]
    l1 = gpucal.open_l1(tmp_path / "l1")
    assert list(l1) == expected
    for number in l1:
        assert l1[number].attrs["provenance"]["backend"] == "fake"


def test_a_device_that_is_lost_again_and_again_is_given_up(
    night: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losing_in(monkeypatch, "2,3,4,5,6,7,8")
    watching = Watching()
    report = run(night, tmp_path / "l1", watching, devices="0", backend="auto")
    assert [f.scan for f in report.failures] == [2, 3]
    assert len(report.summaries) == len(KINDS)
    assert any("device 0 is given up" in t and "with the CPU" in t for t in watching.told)


def test_what_holds_for_every_scan_is_raised(night: Path, tmp_path: Path) -> None:
    with pytest.raises(TableError):
        run(night, tmp_path / "l1", atmosphere=str(tmp_path / "none.npz"))
    with pytest.raises(L0Error):
        run(tmp_path, tmp_path / "l1")


@pytest.mark.skipif(find_spec("cupy") is not None, reason="there may be a card")
def test_a_device_that_is_not_there_is_said_at_once(night: Path, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="CuPy"):
        run(night, tmp_path / "l1", backend="cuda")


def test_a_process_that_cannot_start_is_not_tried_for_ever(
    night: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = (sys.executable, "-c", "raise SystemExit('no such driver')")
    monkeypatch.setattr(device_process, "COMMAND", command)
    watching = Watching()
    report = run(night, tmp_path / "l1", watching)
    assert report.exit_code == 1
    assert {f.scan for f in report.failures} == set(watching.night)
    assert any("ended with exit code 1: no such driver" in text for text in watching.told)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"devices": "0,1", "skydiff": 2}, "order"),
        ({"devices": "all", "scheduler": "tcp://x:1"}, "exclude"),
        ({"devices": "0,0"}, "twice"),
        ({"devices": "0;1"}, "expected all, or"),
    ],
)
def test_wrong_lists(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        gpucal.config.load_config(None, **options)


def test_the_number_of_devices_is_no_part_of_the_result() -> None:
    one, two = CalibrationConfig(), CalibrationConfig(devices="0, 1")
    assert two.devices == "0,1"
    assert one.fingerprint() == two.fingerprint()


def test_numbers_count_within_the_visible_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-ab12,7")
    assert devices.device_list(CalibrationConfig(devices="1,2")) == ["GPU-ab12", "7"]
    assert devices.device_list(CalibrationConfig(devices="0,3", backend="cpu")) == ["0", "3"]
    with pytest.raises(ConfigError, match="there is no device 3"):
        devices.device_list(CalibrationConfig(devices="0,3"))
    monkeypatch.setattr("gpucal.backend.cuda.device_count", lambda: 2)
    assert devices.device_list(CalibrationConfig(devices="all")) == ["4", "GPU-ab12"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert devices.device_list(CalibrationConfig(devices="all")) == ["0", "1"]
    assert devices.device_list(CalibrationConfig(devices="all", backend="cpu")) == []
