"""A night on the page: rows, pictures, jobs, workers and a look, and a server that shows them."""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from builders.synthetic_l1 import hexagon
from gpucal.online.looks.look import BandLook, Look, save_look
from gpucal.online.page.app import make_app
from gpucal.online.page.serve import PageServer
from gpucal.online.queue.events import Job
from gpucal.online.queue.job_files import ACTIVE
from gpucal.online.queue.pipe import TASKS, Pipe
from gpucal.online.queue.processes import worker_id
from gpucal.online.site.config import OnlineConfig
from gpucal.online.site.context import Context
from gpucal.online.site.results import Results

PROJECT = "CN-2026A-017"
PIXELS = 37
START = 61364.93
SCRIPT = "<img src=x onerror='window.__x=1'><script>window.__x=1</script>"

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360606060000000050001a5f64540"
    "0000000049454e44ae426082"
)
"""One transparent pixel."""


def make_config(folder: Path, **changes: Any) -> OnlineConfig:
    """Everything below ``folder``."""
    places = {name: folder / name for name in ("data", "work", "pipe")}
    return OnlineConfig(**places, **changes)


def add_scan(
    results: Results, scan: int, source: str, state: str = "calibrated", **more: Any
) -> None:
    row = {"project": PROJECT, "scan": scan, "source": source, "state": state, **more}
    results.save("scans", [row])


def add_calibration(results: Results, scan: int, mjd: float, pwv: float, seed: int = 1) -> None:
    """All pixels of two receivers, one of them dead."""
    random = np.random.default_rng(seed)
    rows = []
    for receiver, pixel in np.ndindex(2, PIXELS):
        dead = (receiver, pixel) == (0, 11)
        t_rec = 70 + 25 * receiver + random.normal(0, 4)
        rows.append(
            {
                "project": PROJECT, "scan": scan, "band": "band_1", "receiver": receiver,
                "pixel": pixel, "t_rec": np.nan if dead else t_rec, "pwv": pwv, "pwv_error": 0.03,
                "t_sys": np.nan if dead else 1.6 * t_rec + 40 * pwv, "mjd": mjd,
                "bad_fraction": 0.01, "valid": not dead,
                "reason": "every channel is bad" if dead else "",
            }
        )  # fmt: skip
    results.save("calibrations", rows)


def add_pointing(results: Results, scan: int, mjd: float, offset: float, reason: str = "") -> None:
    rows = [
        {
            "project": PROJECT, "scan": scan, "band": "", "receiver": -1, "pixel": -1,
            "direction": direction, "offset": sign * offset, "offset_error": 0.21, "width": 24.3,
            "width_error": 0.5, "mjd": mjd, "valid": not reason, "reason": reason,
        }
        for direction, sign in (("az", 1), ("el", -0.6))
    ]  # fmt: skip
    results.save("pointings", rows)


def add_others(results: Results, mjd: float) -> None:
    """A focus that is valid along z alone, a skydip, and averages."""
    place = {"project": PROJECT, "band": "", "receiver": -1, "pixel": -1, "mjd": mjd}
    far = "best focus 3.1 mm lies outside the scanned range -2 to 2 mm"
    results.save("foci", [
        {**place, "scan": 6, "axis": "z", "position": 0.41, "position_error": 0.03, "valid": True},
        {**place, "scan": 6, "axis": "x", "position": 3.1, "position_error": 0.4, "valid": False,
         "reason": far},
    ])  # fmt: skip
    results.save("skydips", [
        {**place, "scan": 7, "tau": 0.201, "tau_error": 0.004, "f_eff": 0.95, "f_eff_error": 0.012,
         "valid": True},
    ])  # fmt: skip
    random = np.random.default_rng(5)
    results.save("spectra", [
        {"project": PROJECT, "scan": 9, "band": "band_1", "receiver": r, "pixel": a, "valid": True,
         "rms": 0.021 * (1 + 0.1 * random.normal()), "rms_expected": 0.020, "exptime": 240.0,
         "mjd": mjd}
        for r, a in np.ndindex(2, PIXELS)
    ])  # fmt: skip


def a_look(scan: int) -> Look:
    """A look at an array of hexagons."""
    places = np.stack([hexagon(PIXELS), hexagon(PIXELS)])
    c, d = 256, 20
    random = np.random.default_rng(3)
    spectrum = 0.03 * random.normal(size=(c, 2, PIXELS))
    spectrum += 1.4 * np.exp(-0.5 * ((np.arange(c) - 128) / 9) ** 2)[:, None, None]
    flat = np.full((2, PIXELS), 120.0)
    band = BandLook(
        band="band_1", unit="K", frequency=np.linspace(345.6e9, 346.0e9, c), spectrum=spectrum,
        continuum=random.normal(1, 0.02, (d, 2, PIXELS, 1)), lon=np.zeros((d, 1)),
        lat=np.zeros((d, 1)), mjd=np.full((d, 1), START), pixel_lon=places[..., 0],
        pixel_lat=places[..., 1], t_sys=flat, t_rec=flat, rms=flat * 2e-4, rms_expected=flat * 2e-4,
        modes=("ON",), pwv=0.8,
    )  # fmt: skip
    return Look(scan, (1,), "calibrated", source="M 17", line="CO(3-2)", bands=(band,))


def add_plot(config: OnlineConfig, results: Results, scan: int, name: str, **more: Any) -> Path:
    """A picture with its row; ``data``: what the file holds."""
    data = more.pop("data", PNG)
    folder = config.project(PROJECT) / "plots" / f"{scan:06d}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    job = Job("night.zarr", scan, 0, PROJECT)
    kind, title = more.get("kind", "look"), more.get("title", f"scan {scan} {name}")
    Context(config, results, "plot").plotted(job, folder / name, kind, title, mjd=START + 0.01)
    return folder / name


def add_workers(config: OnlineConfig) -> None:
    """This process is the worker of every task."""
    pipe = Pipe(config.pipe)
    pipe.create()
    for task in TASKS:
        pipe.task(task, worker_id(task)).beat()


def add_failed(config: OnlineConfig, error: str = "the store has no scan 8.") -> Job:
    """A job that the plot task gave up."""
    job = Job("night.zarr", 8, 2, PROJECT)
    task = Pipe(config.pipe).task("plot", worker_id("plot"))
    task.put(job)
    claim = task.claim()
    assert claim is not None
    task.fail(claim, error, "Traceback", attempts=1)
    return job


def fill_night(config: OnlineConfig) -> None:
    """Some hours of observing."""
    results = Results(config.database_url)
    add_workers(config)
    for i in range(9):
        mjd = START + 0.021 * i
        add_calibration(results, 1 + 10 * i, mjd, 0.9 + 0.25 * np.sin(i / 2) + 0.03 * i, seed=i)
        add_scan(results, 1 + 10 * i, "M 17", procedure="calibration")
    add_pointing(results, 4, START + 0.01, 2.4)
    add_pointing(results, 84, START + 0.17, 1.1, "the source is weaker than 3 sigma")
    add_scan(results, 4, "Uranus", procedure="pointing")
    add_scan(results, 84, "Uranus", procedure="pointing")
    add_others(results, START + 0.175)
    for scan, source in ((6, "Uranus"), (7, "sky"), (9, "M 17")):
        add_scan(results, scan, source)
    add_scan(results, 91, "M 17", state="open")
    say = (
        ("calibration", "info", 81, "T_rec 71 K, T_sys 150 K, PWV 0.92 mm"),
        ("calibration", "warning", 81, "pixel 11 of receiver 0: every channel is bad"),
        ("obs_procedure", "warning", 84, "pointing: the source is weaker than 3 sigma"),
        ("plot", "error", 8, "plot gave up the job: the store has no scan 8."),
        ("calibration", "info", 91, "scan 91 has begun"),
    )
    for task, level, scan, text in say:
        results.message(text, level=level, task=task, project=PROJECT, scan=scan)
    save_look(a_look(91), config.work_of("calibration", PROJECT) / "x.00000091.s00001.0.npz")
    add_failed(config)
    pipe = Pipe(config.pipe)
    for subscan in range(3):
        pipe.submit(replace(Job("night.zarr", 91, subscan, PROJECT), created=time.time()))
    held = pipe.task("calibration", worker_id("calibration")).claim()
    assert held is not None
    done = {"job": "x", "finished": time.time() - 30, "seconds": 2.0, "worker": "w"}
    (pipe.task("calibration").path / "done.jsonl").write_text(f"{json.dumps(done)}\n" * 42)
    results.close()


@contextmanager
def served(
    config: OnlineConfig, token: str = "", port: int = 0, hosts: tuple[str, ...] = ()
) -> Iterator[int]:
    """The page on a port of this host (0 = any that is free), in a thread."""
    server = PageServer(make_app(config, token=token, hosts=hosts), port=port)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + 120
        while not server.started:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield int(server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(120)
        assert not thread.is_alive()


def call(
    port: int, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """One request, its path sent as it is; (status, headers in lower case, body)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    try:
        connection.request("GET" if body is None else "POST", path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def worker_folder(config: OnlineConfig, task: str) -> Path:
    return Pipe(config.pipe).task(task).path / ACTIVE / worker_id(task)


def now_minus(path: Path, seconds: float) -> None:
    """Make a file older."""
    there = path.stat().st_mtime - seconds
    os.utime(path, (there, there))
