"""Where the system starts no more threads, a run makes do with those that there are."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from builders.night_stores import assert_same, make_night, small_setup

from cpu_fallback.workers import Workers
from gpucal import CalibrationConfig, StoreReport, calibrate_store
from gpucal.pipeline.scan.ordered_pool import Threads
from gpucal.pipeline.store.outcome import failure_of

OURS = ("tile", "prefetch", "commit", "claim", "gpucal-kernel", "few")


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("night")
    make_night(folder, small_setup(kinds=("otf", "tp")))
    assert run(folder, folder / "l1").exit_code == 0
    return folder


def run(night: Path, out: Path) -> StoreReport:
    config = CalibrationConfig(atmosphere=str(night / "table.npz"), workers=3, backend="cpu")
    return calibrate_store(night / "l0.zarr", out, config)


@pytest.fixture(params=[0, 1, 2])
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Of our threads only so many can be started."""
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def limited(self: threading.Thread) -> None:
        if self.name.startswith(OURS):
            if len(started) >= request.param:
                raise RuntimeError("can't start new thread")
            started.append(self)
        start(self)

    monkeypatch.setattr(threading.Thread, "start", limited)
    return int(request.param)


def test_a_run_with_few_threads_gives_the_same_bytes(few: int, night: Path, tmp_path: Path) -> None:
    assert run(night, tmp_path / "l1").exit_code == 0
    assert_same(tmp_path / "l1", night / "l1")


def test_errors_and_results_come_as_ever(few: int) -> None:
    def fail() -> None:
        raise ValueError("as ever")

    with Threads(4, "few") as pool:
        futures = [pool.submit(pow, n, 2) for n in range(20)]
        assert [future.result() for future in futures] == [n * n for n in range(20)]
        with pytest.raises(ValueError, match="as ever"):
            pool.submit(fail).result()


def test_the_threads_of_a_kernel(few: int) -> None:
    workers = Workers(4)
    for _ in range(3):
        assert workers.run(lambda n: n + 1, range(9)) == list(range(1, 10))


def test_another_librarys_threads_are_one_sentence() -> None:
    error: Any = RuntimeError("can't start new thread")
    failure = failure_of(3, "read", error)
    assert failure.error == "BackendError"
    assert failure.message == "scan 3: the system lets this process start no more threads."
    assert "ulimit -u" in failure.hint
    assert "unexpected" in failure_of(3, "read", RuntimeError("else")).message
