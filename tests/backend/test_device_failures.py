"""A device that is too small, one that is lost, and the choice of one: nothing of the night is lost."""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from builders.night_stores import assert_same, fast_folder, make_night, rechunk, small_setup
from fakes.device import FakeDevice, WatchedKernels, fake_backend

import gpucal
from gpucal import (
    BackendError,
    CalibrationConfig,
    CorruptDataError,
    DeviceLostError,
    DeviceMemoryError,
    StoreReport,
    calibrate_store,
    select_backend,
)
from gpucal.backend import cuda
from gpucal.backend.cuda import CudaHealth, CupyCopies
from gpucal.backend.health import Health
from gpucal.backend.lanes import DeviceStreams
from gpucal.backend.protocol import Backend
from gpucal.cli.commands.info import collect
from gpucal.io.files import atomic
from gpucal.pipeline.scan import stream, work_units
from gpucal.pipeline.scan.memory_budget import MemoryBudget
from gpucal.pipeline.store.report import ScanSummary, SilentObserver
from gpucal.pipeline.store.run import Run
from gpucal.simulate.setup import Kind

KINDS: tuple[Kind, ...] = ("otf", "tp", "fsw", "wsw-chopped", "otf-chopped")


class CUDARuntimeError(RuntimeError):
    """As CuPy's, which keeps the number of the error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class OutOfMemoryError(MemoryError):
    """As CuPy's."""


class SmallDevice(FakeDevice):
    """``capacity`` bytes, of which memory that nobody holds any more is free again."""

    def __init__(self, capacity: int | None = None) -> None:
        super().__init__()
        self.most = self.refused = 0
        self.limit = capacity

    def memory(self, nbytes: int) -> Any:
        with self.lock:
            if self.limit is not None and self.memory_in_use + nbytes > self.limit:
                self.refused += 1
                raise OutOfMemoryError(f"Out of memory allocating {nbytes} bytes")
            array = super().memory(nbytes)
            self.most = max(self.most, self.memory_in_use)
            weakref.finalize(array, self._freed, nbytes)
            return array

    def _freed(self, nbytes: int) -> None:
        with self.lock:
            self.memory_in_use -= nbytes


class LosingDevice(FakeDevice):
    """At operation ``last`` an error comes that stays: every later one fails, too."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self.last_operation = last
        self.operations = 0

    def operate(self) -> None:
        with self.lock:
            self.operations += 1
            if self.operations >= self.last_operation:
                raise CUDARuntimeError(700, "cudaErrorIllegalAddress: an illegal memory access")

    def memory(self, nbytes: int) -> Any:
        self.operate()
        return super().memory(nbytes)

    def copy_in(self, *args: Any) -> None:
        self.operate()
        super().copy_in(*args)

    def copy_out(self, *args: Any) -> None:
        self.operate()
        super().copy_out(*args)

    def worked(self) -> None:
        self.operate()
        super().worked()


class Watching(SilentObserver):
    def __init__(self) -> None:
        self.tiles: dict[int, int] = {}
        self.totals: dict[int, int] = {}
        self.finished: list[ScanSummary] = []
        self.told: list[tuple[str, str]] = []

    def scan_started(self, scan: int, band: str, total_bytes: int) -> None:
        self.totals[scan] = total_bytes

    def tile_done(self, scan: int, band: str, nbytes: int) -> None:
        self.tiles[scan] = self.tiles.get(scan, 0) + nbytes

    def scan_finished(self, summary: ScanSummary) -> None:
        self.finished.append(summary)

    def message(self, level: str, text: str) -> None:
        self.told.append((level, text))


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Five scans; two subscans share a raw chunk, so that a unit holds several outputs."""
    with fast_folder(tmp_path_factory.mktemp("night")) as folder:
        make_night(folder, small_setup(kinds=KINDS, n_on=4))
        rechunk(folder / "l0.zarr", folder / "shared.zarr", (16, 4, 4))
        yield folder


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    with fast_folder(tmp_path) as folder:
        yield folder / "l1"


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_units, "L1_CHUNK_BYTES", 1 << 12)


def run(
    night: Path, out: Path, on: Backend | None, observer: Any = None, **options: Any
) -> StoreReport:
    config = CalibrationConfig(
        **{"atmosphere": str(night / "table.npz"), "workers": 3, "ring": 16, **options}
    )
    return calibrate_store(
        night / "shared.zarr", out, config, backend=on, observer=observer or Watching()
    )


def same_numbers(out: Path, other: Path, numbers: list[int]) -> None:
    for number in numbers:
        for path in sorted((other / f"scan_{number:06d}").rglob("c/*")):
            if path.is_file():
                assert (out / path.relative_to(other)).read_bytes() == path.read_bytes()


# --- too little memory


@pytest.fixture(scope="module")
def unlimited(night: Path) -> tuple[Path, int]:
    """The store that a large device makes, and the most that was taken of it while tiles streamed."""
    device = SmallDevice()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work_units, "L1_CHUNK_BYTES", 1 << 12)
        assert run(night, night / "unlimited", fake_backend(device)).exit_code == 0
    return night / "unlimited", device.most


@pytest.mark.parametrize("part", [0.7, 0.5, 0.4])
def test_a_small_device_gives_the_same_store(
    night: Path, out: Path, unlimited: tuple[Path, int], part: float
) -> None:
    whole, most = unlimited
    device, watching = SmallDevice(int(part * most)), Watching()
    report = run(night, out, fake_backend(device), watching)
    assert [f.message for f in report.failures] == []
    assert device.refused > 0
    assert device.most <= part * most
    assert_same(out, whole)
    assert watching.tiles == watching.totals  # no byte is told twice
    assert not atomic.staging_dir(out).exists()


def test_the_memory_budget_shrinks_once_and_says_so(
    night: Path, out: Path, unlimited: tuple[Path, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tiles, but not the OFF means, want more than there is: three units do not fit, one does."""
    tried_with: list[tuple[int, int]] = []
    plain = stream.stream_scan

    def noting(solution: Any, sink: Any, budget: MemoryBudget, **kwargs: Any) -> Any:
        n = budget.workers
        tried_with.append((solution.scan.number, n))
        if n > 1:
            raise OutOfMemoryError("Out of memory allocating 4,096 bytes")
        return plain(solution, sink, budget, **kwargs)

    monkeypatch.setattr(stream, "stream_scan", noting)
    watching = Watching()
    report = run(night, out, fake_backend(FakeDevice()), watching)
    assert report.exit_code == 0
    tried = [n for _, n in tried_with]
    assert tried == sorted(tried, reverse=True)
    assert {n for scan, n in tried_with if scan > 1} == {1}
    [(level, text)] = [(level, text) for level, text in watching.told if "memory" in text]
    assert level == "warning"
    assert text.startswith("scan 1: there is not enough memory: Out of memory allocating 4,096")
    assert "with 1 unit of" in text
    assert_same(out, unlimited[0])


def test_a_temporary_that_does_not_fit_counts_too(
    night: Path, out: Path, unlimited: tuple[Path, int]
) -> None:
    """The kernel itself fails while more than one thread calibrates."""

    class Crowded(WatchedKernels):
        def __init__(self, device: FakeDevice) -> None:
            super().__init__(device)
            self.inside, self.refused, self.lock = 0, 0, threading.Lock()

        def calibrate(self, *args: Any) -> int:
            with self.lock:
                self.inside += 1
                alone = self.inside == 1
            try:
                time.sleep(2e-3)
                if not alone:
                    self.refused += 1
                    raise OutOfMemoryError("Out of memory allocating 512 bytes")
                return int(self.__getattr__("calibrate")(*args))
            finally:
                with self.lock:
                    self.inside -= 1

    device = FakeDevice()
    kernels = Crowded(device)
    report = run(night, out, fake_backend(device, kernels))
    assert report.exit_code == 0
    assert kernels.refused > 0
    assert_same(out, unlimited[0])


def test_a_scan_that_cannot_fit_is_a_failure_with_a_sentence(night: Path, out: Path) -> None:
    device = FakeDevice()

    class Full(WatchedKernels):
        def calibrate(self, *args: Any) -> int:
            raise OutOfMemoryError("Out of memory allocating 1,024 bytes")

    class Known(Health):
        def free_bytes(self) -> int:
            return 5 << 20

    backend = replace(fake_backend(device, Full(device)), health=Known())
    report = run(night, out, backend, scans="1")
    [failure] = report.failures
    assert (failure.scan, failure.error, failure.stage) == (1, "DeviceMemoryError", "calibrate")
    assert "Out of memory allocating 1,024 bytes, even with a single output" in failure.message
    assert "5 MiB are free" in failure.message
    for advice in ("smaller --ring", "--workers 1", "another card"):
        assert advice in failure.hint
    assert report.exit_code == 1
    assert list(gpucal.open_l1(out)) == []
    assert not atomic.staging_dir(out).exists()


def test_the_means_of_a_scan_are_tried_again_when_nothing_streams(
    night: Path, out: Path, unlimited: tuple[Path, int]
) -> None:
    device = FakeDevice()

    class Once(WatchedKernels):
        refused = False

        def dump_mean(self, *args: Any) -> Any:
            if not self.refused:
                self.refused = True
                raise OutOfMemoryError("Out of memory allocating 512 bytes")
            return self.__getattr__("dump_mean")(*args)

    report = run(night, out, fake_backend(device, Once(device)))
    assert report.exit_code == 0
    assert_same(out, unlimited[0])


def test_memory_budgets_end_at_one_output_in_flight(night: Path, out: Path) -> None:
    config = CalibrationConfig(atmosphere=str(night / "table.npz"), workers=1)
    config = config.model_copy(update={"scans": "2"})
    backend = fake_backend(FakeDevice())
    whole = Run(night / "shared.zarr", out, config, backend=backend, observer=Watching())
    [(solution, _)] = whole.solver.solve(2, None).solutions
    budget: MemoryBudget | None = MemoryBudget(8, 1 << 30)
    seen = []
    while budget is not None:
        seen.append((budget.in_flight(solution), budget.unit(solution).outputs))
        budget = budget.smaller(solution)
    assert seen == [(8, 2), (4, 2), (2, 2), (1, 2), (1, 1)]


# --- a lost device


@pytest.fixture(scope="module")
def on_cpu(night: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work_units, "L1_CHUNK_BYTES", 1 << 12)
        assert run(night, night / "cpu", None, backend="cpu").exit_code == 0
    return night / "cpu"


@pytest.mark.parametrize(
    ("operation", "asked"), [(1, "auto"), (60, "cuda"), (150, "auto"), (400, "cuda"), (700, "auto")]
)
def test_a_lost_device_costs_one_scan(
    night: Path, out: Path, on_cpu: Path, operation: int, asked: str
) -> None:
    device, watching = LosingDevice(operation), Watching()
    backend = fake_backend(device)
    report = run(night, out, backend, watching, backend=asked)
    [failure] = report.failures
    assert failure.error == "DeviceLostError"
    assert "the device was lost: cudaErrorIllegalAddress: an illegal memory access." in (
        failure.message
    )
    assert "Run the same command again" in failure.hint
    assert report.exit_code == 2
    numbers = [n for n in range(1, len(KINDS) + 1) if n != failure.scan]
    l1 = gpucal.open_l1(out)
    assert list(l1) == numbers
    same_numbers(out, on_cpu, numbers)
    for number in numbers:
        made = l1[number].attrs["provenance"]
        before = number < failure.scan
        assert made["backend"] == ("fake" if before else "cpu")
        if not before:
            assert made["backend_reason"] == f"fake was lost in scan {failure.scan}"
    said = [(level, text) for level, text in watching.told if "The CPU calibrates" in text]
    assert [level for level, _ in said] == ["error"]
    assert json.loads((out / "failures.json").read_text()) == [failure.as_dict()]
    assert not atomic.staging_dir(out).exists()
    again = run(night, out, None, backend="cpu")
    assert again.exit_code == 0
    same_numbers(out, on_cpu, list(range(1, len(KINDS) + 1)))


def test_nothing_that_lies_on_a_lost_device_is_used_again(night: Path, out: Path) -> None:
    device = LosingDevice(150)
    config = CalibrationConfig(atmosphere=str(night / "table.npz"), workers=2)
    backend = fake_backend(device)
    whole = Run(night / "shared.zarr", out, config, backend=backend, observer=Watching())
    first = whole.solver
    assert whole.chosen_scans().exit_code == 2
    assert whole.solver.library is not first.library
    assert whole.solver.backend.name == "cpu"
    assert isinstance(whole.lost, DeviceLostError)


def test_every_band_of_the_scan_goes_with_the_device(tmp_path: Path, out: Path) -> None:
    """A band that was calibrated before the loss is calibrated again with the others."""
    setup = small_setup(kinds=("otf", "tp"))
    bands = tuple(replace(setup.bands[0], name=name) for name in ("band_1", "band_2"))
    make_night(tmp_path, replace(setup, bands=bands))
    (tmp_path / "l0.zarr").rename(tmp_path / "shared.zarr")
    device = FakeDevice()
    run(tmp_path, out.parent / "whole", fake_backend(device), backend="cuda")

    class Losing(WatchedKernels):
        tiles = 0

        def calibrate(self, *args: Any) -> int:
            self.tiles += 1
            if self.tiles > 10:
                raise CUDARuntimeError(719, "cudaErrorLaunchFailure: unspecified launch failure")
            return int(self.__getattr__("calibrate")(*args))

    report = run(tmp_path, out, fake_backend(device, Losing(device)), backend="cuda", workers=1)
    assert len(report.failures) == 1
    lost = report.failures[0].scan
    assert list(gpucal.open_l1(out)) == [n for n in (1, 2) if n != lost]


# --- whose fault it is


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (CUDARuntimeError(700, "cudaErrorIllegalAddress: illegal"), DeviceLostError),
        (CUDARuntimeError(214, "cudaErrorECCUncorrectable: ECC"), DeviceLostError),
        (CUDARuntimeError(719, "cudaErrorLaunchFailure: launch"), DeviceLostError),
        (CUDARuntimeError(201, "cudaErrorDeviceUninitialized: context"), DeviceLostError),
        (CUDARuntimeError(46, "cudaErrorDevicesUnavailable: busy"), DeviceLostError),
        (CUDARuntimeError(2, "cudaErrorMemoryAllocation: out of memory"), DeviceMemoryError),
        (OutOfMemoryError("Out of memory allocating 12 bytes"), DeviceMemoryError),
        (DeviceMemoryError("it is full."), DeviceMemoryError),
    ],
)
def test_device_errors_are_known(error: Exception, kind: type[BackendError]) -> None:
    found = Health().failure(error)
    assert type(found) is kind
    assert found is not error
    assert str(error).split(":", maxsplit=1)[0].rstrip(".") in found.message
    assert found.hint or isinstance(error, DeviceMemoryError)
    wrapped = CorruptDataError("a chunk cannot be read.")
    wrapped.__cause__ = error
    assert type(Health().failure(wrapped)) is kind


@pytest.mark.parametrize(
    "error",
    [
        CUDARuntimeError(1, "cudaErrorInvalidValue: invalid argument"),
        ValueError("out of memory"),
        RuntimeError("cudaErrorIllegalAddress"),
        BackendError("no backend."),
    ],
)
def test_other_errors_are_not_the_device(error: Exception) -> None:
    assert Health().failure(error) is None


def test_cupy_errors_are_translated_where_memory_is_taken() -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OutOfMemoryError("Out of memory allocating 3,145,728 bytes")

    def refuse_pinned(nbytes: int) -> Any:
        raise CUDARuntimeError(2, "cudaErrorMemoryAllocation: out of memory")

    def lost() -> Any:
        raise CUDARuntimeError(700, "cudaErrorIllegalAddress: illegal")

    freed: list[str] = []
    pool = SimpleNamespace(free_all_blocks=lambda: freed.append("device"), free_bytes=lambda: 7)
    pinned = SimpleNamespace(free_all_blocks=lambda: freed.append("host"))
    runtime = SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError, memGetInfo=lambda: (100, 200), free=None
    )
    cupy = SimpleNamespace(
        empty=refuse,
        uint8="u1",
        cuda=SimpleNamespace(
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            PinnedMemory=refuse_pinned,
            runtime=runtime,
        ),
        get_default_memory_pool=lambda: pool,
        get_default_pinned_memory_pool=lambda: pinned,
    )
    with pytest.raises(DeviceMemoryError, match="no room for 3 MiB"):
        CupyCopies(cupy).memory(3 << 20)
    with pytest.raises(DeviceMemoryError, match="3 MiB of page-locked memory"):
        CupyCopies(cupy).pinned(3 << 20)
    cupy.cuda.PinnedMemory = lambda nbytes: lost()
    with pytest.raises(CUDARuntimeError):
        CupyCopies(cupy).pinned(3 << 20)
    streams = DeviceStreams(FakeDevice())
    streams.pinned.give(streams.pinned.take(5000))
    health = CudaHealth(cupy, streams)
    assert health.free_bytes() == 107
    health.release()
    assert sorted(freed) == ["device", "host"]
    streams.pinned.take(5000)
    assert streams.device.pinned_allocations == 2  # type: ignore[attr-defined]
    runtime.memGetInfo = lost
    assert health.free_bytes() is None


# --- auto


def test_auto_says_why_it_takes_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    start = time.perf_counter()
    backend = select_backend("auto")
    assert time.perf_counter() - start < 0.05
    assert (backend.name, backend.reason) == ("cpu", "auto: CuPy is not installed")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("raise ImportError('libcuda.so.1 is missing')", "libcuda.so.1 is missing"),
        ("raise SystemError('half\\ninstalled')", "half installed"),
        (
            "from types import SimpleNamespace as N\n"
            "class CUDARuntimeError(RuntimeError): pass\n"
            "def count(): raise CUDARuntimeError('driver version is insufficient')\n"
            "cuda = N(runtime=N(getDeviceCount=count, CUDARuntimeError=CUDARuntimeError))",
            "no usable CUDA device: driver version is insufficient",
        ),
        (
            "from types import SimpleNamespace as N\n"
            "class CUDARuntimeError(RuntimeError): pass\n"
            "cuda = N(runtime=N(getDeviceCount=lambda: 0, CUDARuntimeError=CUDARuntimeError))",
            "CuPy finds no CUDA device",
        ),
    ],
)
def test_a_broken_cupy_is_a_reason_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, reason: str
) -> None:
    (tmp_path / "cupy.py").write_text(content + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    try:
        backend = select_backend("auto")
        assert cuda.device_count() == 0
        found = collect()["auto"]
    finally:
        sys.modules.pop("cupy", None)
    assert backend.name == found["backend"] == "cpu"
    assert reason in backend.reason
    assert "\n" not in backend.reason
    assert found["reason"] == backend.reason.removeprefix("auto: ")


class _Card(Health):
    def __init__(self, free: int) -> None:
        self._free = free

    def free_bytes(self) -> int:
        return self._free


def test_auto_takes_a_card_that_works_and_has_room(
    night: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = FakeDevice()
    card = replace(fake_backend(device), reason="auto: it works", health=_Card(1 << 30))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(cuda, "cuda_backend", lambda reason, kernels: card)
    assert select_backend("auto") is card
    watching = Watching()
    report = run(night, out, None, watching, backend="auto", scans="1-2")
    assert report.exit_code == 0
    about = [text for level, text in watching.told if "backend" in text and level == "info"]
    assert about == ["backend fake (fake), auto: it works"]
    card = replace(card, health=_Card(1 << 20))
    found = select_backend("auto")
    assert found.name == "cpu"
    assert found.reason == "auto: fake has 1 MiB free, expected at least 256 MiB"

    class Wrong(WatchedKernels):
        def dump_mean(self, *args: Any) -> Any:
            mean, n = self.__getattr__("dump_mean")(*args)
            return mean + 1.0, n

    card = replace(card, health=_Card(1 << 30), kernels=Wrong(device))
    assert select_backend("auto").reason == "auto: fake gives a wrong mean of small numbers"


def test_errors_that_cause_each_other_are_looked_at_once() -> None:
    """A wrapped error raised from its own wrapper: an answer, not a loop without end."""
    one, other = ValueError("one"), OSError("other")
    one.__cause__, other.__cause__ = other, one
    assert Health().failure(one) is None
    other.__cause__ = MemoryError("full")
    assert isinstance(Health().failure(one), DeviceMemoryError)
