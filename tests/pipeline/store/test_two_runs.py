"""Two runs on one OUT: one of them is refused at once, and a store never holds scans of both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from builders.night_stores import assert_same, make_night, small_setup

from gpucal import CalibrationConfig, ConfigError, L1Error, OtherSettingsError, calibrate_store
from gpucal.io.files import atomic
from gpucal.io.l1 import claims
from gpucal.io.l1.claims import RunClaim
from gpucal.pipeline.store import run as run_module


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("night")
    make_night(folder, small_setup(kinds=("otf", "tp", "wsw", "fsw")))
    return folder


def config(night: Path, **options: Any) -> CalibrationConfig:
    return CalibrationConfig(
        **{"atmosphere": str(night / "table.npz"), "workers": 1, "backend": "cpu", **options}
    )


def claim(out: Path, scans: tuple[int, ...], overwrite: bool = False, **settings: Any) -> RunClaim:
    return RunClaim(out, scans, settings, overwrite=overwrite)


def claim_files(out: Path) -> list[Path]:
    return sorted(atomic.staging_dir(out).glob("run-*.json"))


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def start(night: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gpucal.cli.main", "calibrate", str(night / "l0.zarr")]
    command += [str(out), "--atmosphere", str(night / "table.npz"), "--workers", "1", "--quiet"]
    return subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("other", [(), ("--line-scale", "dsb")])
def test_two_processes_at_once(night: Path, tmp_path: Path, other: tuple[str, ...]) -> None:
    """Whatever their order: the store is that of one of them alone."""
    out = tmp_path / "out"
    runs = [start(night, out), start(night, out, *other)]
    said = [process.communicate(timeout=300)[1] for process in runs]  # closes the pipes too
    codes = [process.returncode for process in runs]
    assert 0 in codes, said
    for code, text in zip(codes, said, strict=True):
        assert code in (0, 64), text
        assert code == 0 or "another run" in text or "other settings" in text
    winner = other if codes[0] else ()
    assert calibrate_store(
        night / "l0.zarr",
        tmp_path / "alone",
        config(night, backend="auto", line_scale="dsb" if winner else "ssb"),
    )
    assert_same(out, tmp_path / "alone")
    assert not atomic.staging_dir(out).exists()


@pytest.mark.parametrize("devices", ["", "0"])
def test_a_run_beside_another_one_is_refused(night: Path, tmp_path: Path, devices: str) -> None:
    out = tmp_path / "out"
    with claim(out, (2,)), pytest.raises(ConfigError, match="also scan 2; nothing") as error:
        calibrate_store(night / "l0.zarr", out, config(night, devices=devices))
    assert f"process {os.getpid()} on " in str(error.value)
    assert "Wait until it has ended" in error.value.hint
    assert error.value.exit_code == 64
    assert not list(out.glob("scan_*"))
    report = calibrate_store(night / "l0.zarr", out, config(night))
    assert report.exit_code == 0
    assert not atomic.staging_dir(out).exists()


def test_other_scans_of_one_store_may_be_written(night: Path, tmp_path: Path) -> None:
    """With the same settings; with others only where --overwrite says that one store shall hold both."""
    out = tmp_path / "out"
    entered, go_on, failed = threading.Event(), threading.Event(), []
    stream = run_module.Run._stream

    def slow(self: Any, *arguments: Any) -> Any:
        if threading.current_thread() is other:
            entered.set()
            go_on.wait(300)
        return stream(self, *arguments)

    def one() -> None:
        try:
            calibrate_store(night / "l0.zarr", out, config(night, scans="1-2"))
        except BaseException as error:
            failed.append(error)

    other = threading.Thread(target=one)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module.Run, "_stream", slow)
        other.start()
        assert entered.wait(300)
        try:
            with pytest.raises(OtherSettingsError, match=r"other settings \(line-scale\)"):
                calibrate_store(night / "l0.zarr", out, config(night, scans="3", line_scale="dsb"))
            assert calibrate_store(night / "l0.zarr", out, config(night, scans="3")).exit_code == 0
            mixed = config(night, scans="4", line_scale="dsb", overwrite=True)
            assert calibrate_store(night / "l0.zarr", out, mixed).exit_code == 0
        finally:
            go_on.set()
            other.join(300)
    assert not failed
    assert sorted(path.name[-1] for path in out.glob("scan_*")) == ["1", "2", "3", "4"]
    assert not atomic.staging_dir(out).exists()


def test_a_claim_of_a_dead_process_is_void(night: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with claim(out, (1, 2)):
        [path] = claim_files(out)
        edit(path, pid=ended.pid, start=1)
        assert calibrate_store(night / "l0.zarr", out, config(night)).exit_code == 0


@pytest.mark.parametrize(("age", "refused"), [(0.0, True), (60.0, True), (1e4, False)])
def test_a_claim_of_another_host_lives_by_its_heartbeat(
    tmp_path: Path, age: float, refused: bool
) -> None:
    out = tmp_path / "out"
    with claim(out, (1,)):
        [path] = claim_files(out)
        edit(path, host="elsewhere_1", pid=1)
        now = path.stat().st_mtime
        os.utime(path, (now - age, now - age))
        if refused:
            with pytest.raises(ConfigError, match="another run"), claim(out, (1,)):
                pass
            assert claim_files(out) == [path]
        else:
            with claim(out, (1,)):
                assert path not in claim_files(out)


def test_the_heart_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT_S", 0.01)
    touched = threading.Event()
    utime = os.utime

    def touch(path: Any, *arguments: Any) -> None:
        utime(path, *arguments)
        touched.set()

    monkeypatch.setattr(os, "utime", touch)
    with claim(tmp_path / "out", (1,)):
        assert touched.wait(60)


def test_a_lost_claim_stops_the_run(tmp_path: Path) -> None:
    """Its file was removed: it is made anew, unless another run has come in between."""
    out = tmp_path / "out"
    with claim(out, (1,)) as mine:
        [path] = claim_files(out)
        path.unlink()
        mine.check()
        assert len(claim_files(out)) == 1
        claim_files(out)[0].unlink()
        with claim(out, (1,)):
            with pytest.raises(L1Error, match="lost its claim"):
                mine.check()
            assert len(claim_files(out)) == 1


def test_a_run_that_lost_its_claim_commits_nothing(
    night: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a laptop slept: another run took over, with other settings."""
    out = tmp_path / "out"
    stream = run_module.Run._stream

    def taken(self: Any, *arguments: Any) -> Any:
        for path in claim_files(out):
            if json.loads(path.read_text())["settings"]:
                path.unlink()
        if not others:
            others.append(claim(out, (1, 2, 3, 4)).__enter__())
        return stream(self, *arguments)

    others: list[RunClaim] = []
    monkeypatch.setattr(run_module.Run, "_stream", taken)
    report = calibrate_store(night / "l0.zarr", out, config(night))
    others[0].__exit__(None, None, None)
    assert report.exit_code == 1
    assert all("lost its claim" in failure.message for failure in report.failures)
    assert not list(out.glob("scan_*"))


def test_a_scan_that_came_meanwhile_is_not_replaced(
    night: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a program that claims nothing, as an earlier version."""
    out = tmp_path / "out"
    stream = run_module.Run._stream

    def meanwhile(self: Any, *arguments: Any) -> Any:
        staged = stream(self, *arguments)
        (out / "scan_000001").mkdir(exist_ok=True)
        (out / "scan_000001/zarr.json").write_text(
            '{"zarr_format": 3, "node_type": "group", "attributes": {"mine": 1}}'
        )
        return staged

    monkeypatch.setattr(run_module.Run, "_stream", meanwhile)
    report = calibrate_store(night / "l0.zarr", out, config(night, scans="1"))
    assert [failure.scan for failure in report.failures] == [1]
    assert "is already there" in report.failures[0].message
    assert '"mine"' in (out / "scan_000001/zarr.json").read_text()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', "[" * 100_000])
def test_a_file_that_is_no_claim_excludes_nothing(content: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    folder = atomic.staging_dir(out)
    folder.mkdir()
    (folder / "run-000007.json").write_text(content)
    with claim(out, (1,)):
        assert claim_files(out)[-1].name == "run-000008.json"


def test_a_store_that_may_not_be_written_can_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All scans are there: nothing is to be written, so nothing needs to be claimed."""

    def refused(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(atomic, "write_file", refused)
    with claim(tmp_path / "out", (1,)) as mine:
        mine.check()
    assert not claim_files(tmp_path / "out")
