"""Lanes: no memory is used again before its copy is done, no result read before its kernel."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders.truth_setup import calibrated, simulate_scan, steady
from fakes.device import FakeDevice, fake_backend

from gpucal import CalibrationConfig, LoadError
from gpucal.backend.lanes import (
    DeviceLane,
    DeviceStreams,
    HostLane,
    LanePool,
    device_lanes,
    size_class,
)
from gpucal.pipeline.scan import work_units
from gpucal.simulate.setup import Kind


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_units, "L1_CHUNK_BYTES", 1 << 14)


def scene(kind: Kind) -> Any:
    setup = steady("hera")
    bands = tuple(
        replace(b, channels=128, throw_hz=4.25 * b.bandwidth_hz / 128) for b in setup.bands
    )
    return simulate_scan(replace(setup, bands=bands), kind, 7)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("kind", ["tp", "otf-chopped", "nod", "fsw", "wsw-chopped"])
def test_a_late_device_gives_the_numbers_of_the_host(kind: Kind, workers: int) -> None:
    simulated = scene(kind)
    config = CalibrationConfig(pwv=3.0, workers=workers)
    device = FakeDevice()
    theirs = calibrated(simulated, config, backend=fake_backend(device))
    ours = calibrated(simulated, config)
    assert np.array_equal(theirs.spectra, ours.spectra, equal_nan=True)
    assert np.array_equal(theirs.flags, ours.flags)
    blocks = len(work_units.l1_blocks(theirs.solution))
    tiles = blocks * theirs.solution.output_shape[4]
    assert blocks > 1
    assert device.copies_out == 2 * tiles


@pytest.mark.usefixtures("small_tiles")
def test_nothing_is_allocated_per_tile() -> None:
    counts = {}
    for n_on in (4, 12):
        setup = steady("hera")
        setup = replace(setup, timing=replace(setup.timing, n_on=n_on))
        simulated = simulate_scan(setup, "tp", 7)
        device = FakeDevice()
        calibrated(simulated, CalibrationConfig(pwv=3.0, workers=1), backend=fake_backend(device))
        counts[n_on] = (device.allocations, device.copies_in)
    assert counts[4][0] == counts[12][0]
    assert counts[12][1] > counts[4][1]


class _Unheard:
    """A stream that does not listen."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def wait_event(self, event: Any) -> None:
        """Forget the event."""

    @property
    def tick(self) -> int:
        return 0

    @property
    def queue(self) -> Any:
        return self._stream.queue


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("rule", ["upload", "download", "compute"])
def test_the_fake_device_notices_a_missing_wait(rule: str) -> None:
    """The check itself can fail: leave one wait out, and either data or a rule break."""
    simulated = scene("tp")
    config = CalibrationConfig(pwv=3.0, workers=1)
    device = FakeDevice()
    streams = DeviceStreams(device)
    setattr(streams, rule, _Unheard(getattr(streams, rule)))
    backend = replace(
        fake_backend(device), lanes=lambda count: LanePool(count, lambda: DeviceLane(streams))
    )
    ours = calibrated(simulated, config)
    noticed = ""
    try:
        theirs = calibrated(simulated, config, backend=backend)
        if not np.array_equal(theirs.spectra, ours.spectra, equal_nan=True):
            noticed = "stale data"
    except LoadError:  # the counts of the loads never came
        noticed = "stale data"
    except AssertionError as error:
        noticed = str(error)
    assert "does not wait" in noticed or noticed == "stale data"


def test_staging_waits_for_the_copy_that_reads_it() -> None:
    device = FakeDevice()
    streams = DeviceStreams(device)
    streams.compute = _Unheard(streams.compute)  # the device is busy: nothing is copied yet
    lane = DeviceLane(streams)
    first = lane.staging(0, (4,), np.dtype(np.int32))
    first[:] = 1
    on_device = lane.upload(0, first)
    assert not np.array_equal(on_device, np.ones(4, dtype=np.int32))
    second = lane.staging(0, (4,), np.dtype(np.int32))
    assert np.shares_memory(first, second)
    second[:] = 2
    assert np.array_equal(on_device, np.ones(4, dtype=np.int32))


def test_a_lane_is_held_by_one_worker_at_a_time() -> None:
    pool = LanePool(2, HostLane)
    seen: list[set[int]] = []
    held: set[int] = set()
    lock = threading.Lock()

    def work() -> None:
        for _ in range(50):
            with pool.take() as lane:
                with lock:
                    assert id(lane) not in held
                    held.add(id(lane))
                    seen.append(set(held))
                with lock:
                    held.discard(id(lane))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(seen) == 200
    assert max(len(s) for s in seen) <= 2


@pytest.mark.usefixtures("small_tiles")
def test_page_locked_memory_serves_the_next_scan_too() -> None:
    simulated = scene("tp")
    config = CalibrationConfig(pwv=3.0, workers=1)
    device = FakeDevice()
    backend = fake_backend(device)
    first = calibrated(simulated, config, backend=backend)
    made = device.pinned_allocations
    assert made > 0
    second = calibrated(simulated, config, backend=backend)
    assert device.pinned_allocations == made
    assert np.array_equal(first.spectra, second.spectra, equal_nan=True)
    backend.health.release()
    calibrated(simulated, config, backend=backend)
    assert device.pinned_allocations > made


def test_sizes_of_a_class_share_memory_and_others_do_not() -> None:
    device = FakeDevice()
    pinned = DeviceStreams(device).pinned
    one = pinned.take(1 << 20)
    other = pinned.take((1 << 20) + 5000)
    assert not np.shares_memory(one, other)
    pinned.give(other)
    again = pinned.take((1 << 20) + 6000)
    assert np.shares_memory(again, other)
    assert again.size >= (1 << 20) + 6000
    assert again.size < 1.2 * (1 << 20)
    assert not np.shares_memory(pinned.take((1 << 20) + 6000), again)
    assert device.pinned_allocations == 3


def test_what_lies_idle_is_limited() -> None:
    device = FakeDevice()
    pinned = DeviceStreams(device).pinned
    for n in range(8):  # eight classes, 2^20 to nearly 2^21
        pinned.give(pinned.take((1 << 20) + n * (1 << 17)))
    assert device.pinned_allocations == 8
    pinned.take((1 << 20) + 7 * (1 << 17))
    assert device.pinned_allocations == 8
    pinned.take(1 << 20)
    assert device.pinned_allocations == 9  # the oldest had gone
    for nbytes in (0, 1, 4096, 4097, 1 << 20, (1 << 20) + 1, 3 << 20):
        assert nbytes <= size_class(nbytes) <= max(4096, 1.25 * nbytes + 4096)


def test_a_lane_gives_its_memory_back_only_when_no_copy_reads_it() -> None:
    device = FakeDevice()
    streams = DeviceStreams(device)
    streams.compute = _Unheard(streams.compute)  # the device is busy: nothing is copied yet
    pool = device_lanes(2, streams)
    with pool.take() as lane:
        staging = lane.staging(0, (4,), np.dtype(np.int32))
        staging[:] = 1
        on_device = lane.upload(0, staging)
    pool.close()
    assert np.array_equal(on_device, np.ones(4, dtype=np.int32))
    with pool.take() as lane:
        assert np.shares_memory(lane.staging(0, (4,), np.dtype(np.int32)), staging)


def test_a_pool_waits_for_its_lanes_before_it_closes() -> None:
    pool = LanePool(1, HostLane)
    taken, may_end, closed = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        with pool.take():
            taken.set()
            may_end.wait(10)
            assert not closed.is_set()

    def close() -> None:
        pool.close()
        closed.set()

    threads = [threading.Thread(target=f) for f in (work, close)]
    threads[0].start()
    assert taken.wait(10)
    threads[1].start()
    assert not closed.wait(0.05)
    may_end.set()
    for thread in threads:
        thread.join()
    assert closed.is_set()


def test_host_lane_recycles_its_memory() -> None:
    lane = HostLane()
    one = lane.output(0, (4, 3), np.dtype(np.float64))
    two = lane.output(0, (2, 3), np.dtype(np.float32))
    assert np.shares_memory(one, two)
    assert not np.shares_memory(one, lane.output(1, (4, 3), np.dtype(np.float64)))
    assert not np.shares_memory(one, lane.staging(0, (4, 3), np.dtype(np.int32)))
