"""Bench of the online pipeline: time from job to picture, throughput, and time of a status.

A HERA night (2 receivers x 9 pixels) is fed to a running supervisor with one process per task. A quick look
is timed from the submission of a subscan's job until its picture has been renamed into place.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from bench import harness
from bench.bench_io import work_folder
from gpucal import CalibrationConfig, open_l0, simulate_night
from gpucal.backend.cpu import usable_cores
from gpucal.online.queue.announcing import job_of
from gpucal.online.queue.events import Job
from gpucal.online.queue.pipe import Pipe
from gpucal.online.replay.growing import GrowingScan
from gpucal.online.replay.plan import plan_replay
from gpucal.online.replay.replay import Replay
from gpucal.online.site.config import OnlineConfig
from gpucal.online.workers.supervise import Supervisor
from gpucal.simulate.presets import preset

NAME = "online"
SHAPES = {"toy": (64, 6, 2), "quick": (4096, 60, 4), "full": (4096, 60, 10)}
"""Channels, dumps and ON subscans of the scan."""
PENDING = {"toy": 1000, "quick": 20_000, "full": 100_000}
LIMIT_S = 300.0


@dataclass(frozen=True)
class OnlineResult:
    """One number of the pipeline. seconds: of a quick look, or of a status; rate: subscans per minute."""

    bench: str
    case: str
    size: str
    repeats: int
    seconds_median: float
    seconds_min: float
    seconds_max: float
    rate: float
    threads: int
    device: str
    date: str
    versions: dict[str, str]


class Site:
    """A supervisor at work in ``folder``, and the night that is fed to it."""

    def __init__(self, folder: Path, size: str) -> None:
        channels, dumps, n_on = SHAPES[size]
        setup = preset("hera", channels=channels, dumps=dumps, n_on=n_on, sky="isothermal")
        setup = replace(setup, kinds=("tp",), loads=replace(setup.loads, separate=True))
        self.night, self.l0 = folder / "night.zarr", folder / "l0.zarr"
        simulate_night(self.night, setup, 1, table_out=folder / "table.npz")
        calibration = CalibrationConfig(atmosphere=str(folder / "table.npz"))
        self.config = OnlineConfig(
            data=folder / "data",
            work=folder / "work",
            pipe=folder / "pipe",
            calibration=calibration,
        )
        self.pipe = Pipe(self.config.pipe)
        self.supervisor = Supervisor(self.config)
        self._thread = threading.Thread(target=self.supervisor.run)

    def __enter__(self) -> Site:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.supervisor.stop()
        self._thread.join()

    def wait_idle(self) -> None:
        """Wait until no job is left."""
        deadline = time.monotonic() + LIMIT_S
        while any(s.pending or s.active for s in self.pipe.status()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the pipeline did not end: {self.pipe.status()}")
            time.sleep(0.05)

    def picture(self, job: Job) -> Path:
        """The picture of a quick look."""
        stem = job.name.removesuffix(".json").rpartition(".")[2]
        return self.config.project(job.project) / "plots" / f"{job.scan:06d}" / f"{stem}_look.png"


def quick_looks(site: Site, size: str) -> OnlineResult:
    """One subscan at a time, each when the pipeline is idle."""
    store = open_l0(site.night)
    first, *_ = (n for n in store.numbers() if store.kind(n) == "load")
    scan, *_ = (n for n in store.numbers() if store.kind(n) == "science")
    Replay(site.night, site.l0, site.pipe, project="bench").run(
        speed=math.inf, scans=frozenset([first])
    )
    site.wait_idle()
    group = store.scan_group(scan)
    growing, attrs, times = GrowingScan(group, site.l0), dict(group.attrs), []
    steps = [s for s in plan_replay(store) if s.scan == scan]
    for step in steps[:-1]:  # with the last one the scan ends, which is more than a look
        growing.add(step.group, step.subscan)
        job = job_of(site.l0, scan, step.subscan, step.group, attrs, project="bench")
        path = site.picture(job)
        begin = time.perf_counter()
        site.pipe.submit(job)
        if step.subscan:  # nothing can be shown before the first ON
            while not path.exists():
                if time.perf_counter() - begin > LIMIT_S:
                    raise RuntimeError(f"no picture of {job.name}")
                time.sleep(0.002)
            times.append(time.perf_counter() - begin)
        site.wait_idle()
    return _result("quick look", size, times, 60.0 / statistics.median(times))


def throughput(site: Site, size: str) -> OnlineResult:
    """The whole scan again, all jobs at once, its end with all pictures and files included."""
    store = open_l0(site.night)
    scan, *_ = (n for n in store.numbers() if store.kind(n) == "science")
    attrs = dict(store.scan_group(scan).attrs)
    steps = [s for s in plan_replay(store) if s.scan == scan]
    begin = time.perf_counter()
    for step in steps:
        job = job_of(
            site.night,
            scan,
            step.subscan,
            step.group,
            attrs,
            project="throughput",
            end_of_scan=step.last,
        )
        site.pipe.submit(job)
    site.wait_idle()
    spent = time.perf_counter() - begin
    return _result("whole scan, per subscan", size, [spent / len(steps)], 60.0 * len(steps) / spent)


def status(folder: Path, size: str) -> OnlineResult:
    """Time the status of all tasks while many jobs wait in one."""
    pipe = Pipe(folder / "crowded")
    pipe.create()
    task = pipe.task("plot")
    text = Job("night.zarr", 1, 0, "bench").to_json()
    for n in range(PENDING[size]):
        (task.path / f"bench.{n:08d}.s00000.json").write_text(text)
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        pipe.status()
        times.append(time.perf_counter() - begin)
    return _result(
        f"status with {PENDING[size]} jobs", size, times, 60.0 / statistics.median(times)
    )


def _result(case: str, size: str, times: Sequence[float], rate: float) -> OnlineResult:
    return OnlineResult(
        bench=NAME,
        case=case,
        size=size,
        repeats=len(times),
        seconds_median=statistics.median(times),
        seconds_min=min(times),
        seconds_max=max(times),
        rate=rate,
        threads=usable_cores(),
        device=harness.device_name(),
        date=harness.now(),
        versions=harness.versions(),
    )


def run_bench(size: str, folder: Path | None = None) -> list[OnlineResult]:
    """All cases; the supervisor's processes are started before anything is timed."""
    channels, dumps, n_on = SHAPES[size]
    with work_folder(channels * dumps * 18 * n_on * 60, folder) as place:
        with Site(place, size) as site:
            results = [quick_looks(site, size), throughput(site, size)]
        results.append(status(place, size))
    return results


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: ``--quick``, ``--toy``, ``--folder``, ``--save``."""
    parser = argparse.ArgumentParser(description=__doc__)
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--quick", action="store_true", help="fewer subscans and jobs")
    group.add_argument("--toy", action="store_true", help="seconds only; times mean nothing")
    parser.add_argument("--folder", type=Path, help="where to work; default: memory, if it fits")
    parser.add_argument("--save", action="store_true", help="append to bench/results/DEVICE.jsonl")
    options = parser.parse_args(argv)
    size = "toy" if options.toy else "quick" if options.quick else "full"
    console = Console(width=None if sys.stdout.isatty() else 120)
    results = run_bench(size, options.folder)
    for r in results:
        console.print(
            f"{r.case:28} {r.seconds_median:.2f} s ({r.seconds_min:.2f}-{r.seconds_max:.2f}), "
            f"{r.rate:.0f} per minute"
        )
    if options.save:
        console.print(f"added to {harness.save(results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
