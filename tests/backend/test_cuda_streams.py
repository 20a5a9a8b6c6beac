"""What CuPy is asked for: events that let the host sleep, one default stream, one device in all threads."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from builders.night_stores import make_night, small_setup
from builders.truth_setup import calibrated, simulate_scan, steady
from fakes.device import FakeDevice, fake_backend

from gpucal import CalibrationConfig, calibrate_store
from gpucal.backend import cuda
from gpucal.backend.cuda import CupyCopies, chooser, cuda_backend, refuse_own_streams
from gpucal.errors import BackendError


class Event:
    """cupy.cuda.Event."""

    def __init__(
        self, block: bool = False, disable_timing: bool = False, interprocess: bool = False
    ) -> None:
        self.block, self.disable_timing = block, disable_timing


class Stream:
    """cupy.cuda.Stream."""

    ptr = 7

    def __init__(self, non_blocking: bool = False) -> None:
        self.non_blocking = non_blocking
        self.waited: list[Event] = []
        self.entered = 0

    def record(self, event: Event | None = None) -> Event:
        return Event() if event is None else event

    def wait_event(self, event: Event) -> None:
        self.waited.append(event)

    def __enter__(self) -> Stream:
        self.entered += 1
        return self

    def __exit__(self, *error: object) -> None:
        self.entered -= 1


class CUDARuntimeError(RuntimeError):
    status = 700


def cupy_of(**cuda: Any) -> Any:
    runtime = SimpleNamespace(CUDARuntimeError=CUDARuntimeError)
    stream = SimpleNamespace(null=Stream())
    return SimpleNamespace(
        cuda=SimpleNamespace(Event=Event, runtime=runtime, Stream=stream, **cuda)
    )


def test_the_host_sleeps_while_it_waits() -> None:
    cupy = cupy_of()
    cupy.cuda.Stream = type("OfCupy", (Stream,), {"null": Stream()})
    copies = CupyCopies(cupy)
    for stream in (copies.stream(), copies.default()):
        event = stream.record()
        assert (event.block, event.disable_timing) == (True, True)
        stream.wait_event(event)
        assert stream.own.waited == [event]
        assert stream.ptr == 7
        with stream as inside:
            assert inside is stream
            assert stream.own.entered == 1
        assert stream.own.entered == 0
    assert copies.stream().own.non_blocking


def test_copies_get_the_stream_of_cupy_itself() -> None:
    cupy = cupy_of()
    stream = CupyCopies(cupy).default()
    given: list[Any] = []
    target = SimpleNamespace(set=lambda source, stream: given.append(stream))
    source = SimpleNamespace(get=lambda stream, out, blocking: given.append((stream, blocking)))
    CupyCopies(cupy).copy_in(target, None, stream)
    CupyCopies(cupy).copy_out(None, source, stream)
    assert given == [cupy.cuda.Stream.null, (cupy.cuda.Stream.null, False)]


@pytest.mark.parametrize("value", ["1", " 1 ", "2"])
def test_a_stream_for_each_thread_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "CupyDevice", lambda: SimpleNamespace(xp=cupy_of()))
    monkeypatch.setenv("CUPY_CUDA_PER_THREAD_DEFAULT_STREAM", value)
    with pytest.raises(BackendError) as caught:
        cuda_backend()
    assert caught.value.message == (
        f"CUPY_CUDA_PER_THREAD_DEFAULT_STREAM is {value.strip()}, expected 0: with a stream of its own a "
        "thread could read counts that another has not finished."
    )
    assert "unset CUPY_CUDA_PER_THREAD_DEFAULT_STREAM" in str(caught.value.hint)


@pytest.mark.parametrize("value", [None, "", "0", " 0"])
def test_one_default_stream_is_not(value: str | None) -> None:
    refuse_own_streams({} if value is None else {"CUPY_CUDA_PER_THREAD_DEFAULT_STREAM": value})


def test_a_thread_takes_the_device_of_the_backend() -> None:
    current = threading.local()
    current.device = 3
    lost: list[bool] = []

    class Device:
        def __init__(self) -> None:
            self.id = getattr(current, "device", 0)

        def use(self) -> None:
            if lost:
                raise CUDARuntimeError("cudaErrorIllegalAddress")
            current.device = self.id

    in_thread = chooser(cupy_of(Device=Device))
    found: list[int] = []

    def work() -> None:
        in_thread()
        found.append(Device().id)

    for _ in range(2):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        lost.append(True)  # the work itself says so, a pool whose threads cannot start would not
    assert found == [3, 0]


class Watched:
    """A backend that notes which threads chose the device, and which ran a kernel."""

    def __init__(self) -> None:
        self.chose: set[int] = set()
        self.ran: set[int] = set()
        own = fake_backend(FakeDevice())
        kernels, watched = own.kernels, self

        class Kernels:
            def __getattr__(self, name: str) -> Any:
                watched.ran.add(threading.get_ident())
                return getattr(kernels, name)

        self.backend = replace(
            own, kernels=Kernels(), in_thread=lambda: self.chose.add(threading.get_ident())
        )

    def check(self) -> None:
        here = threading.get_ident()
        assert self.ran - {here}
        assert self.ran - {here} <= self.chose


def test_all_threads_of_a_run_choose_the_device(tmp_path: Path) -> None:
    watched = Watched()
    l0 = make_night(tmp_path, small_setup(kinds=("tp",), channels=24), 1)
    config = CalibrationConfig(atmosphere=str(tmp_path / "table.npz"), workers=2)
    report = calibrate_store(l0, tmp_path / "l1", config, backend=watched.backend)
    assert not report.failures
    watched.check()


def test_all_threads_of_a_scan_in_memory_do() -> None:
    watched = Watched()
    simulated = simulate_scan(steady("hera"), "tp", 7)
    calibrated(simulated, CalibrationConfig(pwv=3.0, workers=2), backend=watched.backend)
    watched.check()
