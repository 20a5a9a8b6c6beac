"""Whole nights, L0 store to L1 store: the card against all cores of its host, in turns.

    python -m bench.gpu.chain --save          on a machine with a card; --folder: on that disk
    python -m bench.gpu.chain --dry           toy nights, the host against itself: measures nothing

The card takes part once for each way to read and write: ``io = host`` and ``io = device``. All must write
the same flags and, to ``AGREEMENT``, the same spectra as the host; else the exit status is 1.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import statistics
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import zarr
from rich.console import Console
from rich.table import Table

from bench import harness
from bench.bench_io import SHARED_MEMORY, work_folder
from bench.gpu.card import Card, cuda_card, host_card, slug
from bench.gpu.fake_card import fake_card
from bench.gpu.kernels import DRY_NOTE, copy_rate, sem
from bench.gpu.night import (
    NIGHTS,
    PIXELS,
    Night,
    NoRoom,
    compare,
    has_io,
    samples_in,
    samples_per_on,
    scans_with_room,
)
from bench.gpu.stages import StageRun, shares
from gpucal import select_backend
from gpucal.backend.cpu import usable_cores
from gpucal.backend.protocol import Backend
from gpucal.errors import BackendError

AGREEMENT = 1e-12
"""Largest difference of two spectra, relative to the larger of the sample and the rms around it."""

REPEATS = {"toy": 1, "full": 3}
CODECS = {"toy": ("zstd:1",), "full": ("zstd:1", "none")}


@dataclass(frozen=True)
class ChainResult:
    """One night with one codec and one way to read and write; seconds are per night."""

    bench: str
    case: str
    io: str
    """"host" or "device", or "cpu" for the host itself."""
    size: str
    repeats: int
    threads: int
    samples: int
    nbytes: int
    """Counts that are read, spectra and flags that are written; before compression."""
    seconds_median: float
    seconds_sem: float
    seconds_min: float
    seconds_max: float
    msamples_per_s: float
    copy_gb_per_s: float
    ratio_to_copy: float
    ratio_to_host: float
    largest_difference: float
    flags_differ: int
    agrees: bool
    stages: dict[str, float]
    """Milliseconds of each stage, summed over the scans, of the last repeat."""
    alone: dict[str, float]
    """Seconds of each stage alone (``bench.gpu.stages``); empty for io = device."""
    shares: dict[str, float]
    overlap: float | None
    """Seconds of the night over those of its slowest stage alone: 1 is all behind one another's back."""
    messages: list[str]
    """What the run said about its input and output."""
    folder: str
    host: str
    device: str
    date: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Setting:
    """The settings that all nights of one call share."""

    size: str
    card: Backend
    host: Backend
    copy_gb_per_s: float
    folder: Path | None
    """Where to write; None is memory, if it fits."""


def measure(name: str, codec: str, setting: Setting, n_on: int) -> list[ChainResult]:
    """Calibrate one night in every way in turns, after a warm-up of each, and each stage alone.

    n_on: ON subscans of a scan. Raises NoRoom when there is no room for a single scan.
    """
    scans, needed = scans_with_room(name, setting.size, setting.folder, n_on)
    ways = {"cpu": setting.host, "host": setting.card}
    if has_io():
        ways["device"] = setting.card
    runs: dict[str, list[tuple[float, dict[str, float], list[str]]]] = {io: [] for io in ways}
    found: dict[str, tuple[float, int]] = {"cpu": (0.0, 0)}
    with work_folder(needed, setting.folder) as folder:
        night = Night(folder, codec)
        night.simulate(name, setting.size, scans, n_on)
        for io, backend in ways.items():
            night.calibrate(backend, "warm-up", io)
        shutil.rmtree(folder / "warm-up")
        for turn in range(REPEATS[setting.size]):
            for io, backend in ways.items():
                out = "l1-cpu" if io == "cpu" else "l1-card"
                runs[io].append(night.calibrate(backend, out, io))
                if turn == 0 and io != "cpu":
                    found[io] = compare(folder / out, folder / "l1-cpu")
        samples = samples_in(folder / "l1-cpu")
        alone = {io: stages_alone(night, ways[io]) for io in ("cpu", "host")}
        place = "memory" if SHARED_MEMORY in folder.parents else "disk"
    case = f"{name} {codec}, {scans} scan{'s' if scans > 1 else ''} of {n_on} ON"
    host = statistics.median(wall for wall, _, _ in runs["cpu"])
    return [
        _result(
            (case, io, place), setting, runs[io], (samples, *found[io]), alone.get(io, {}), host
        )
        for io in ways
    ]


def stages_alone(night: Night, backend: Backend) -> dict[str, float]:
    """Seconds of each stage alone on this backend."""
    run = StageRun(night.folder / "l0", night.config("host"), backend, night.folder / "alone")
    return run.seconds()


def _result(
    what: tuple[str, str, str],
    setting: Setting,
    runs: list[tuple[float, dict[str, float], list[str]]],
    found: tuple[int, float, int],
    alone: dict[str, float],
    host: float,
) -> ChainResult:
    (case, io, place), (samples, largest, flags_differ) = what, found
    walls = [wall for wall, _, _ in runs]
    median = statistics.median(walls)
    # Counts i32, spectra f64 and flags u16.
    nbytes = samples * (4 + 8 + 2)
    return ChainResult(
        bench="gpu_chain",
        case=case,
        io=io,
        size=setting.size,
        repeats=len(walls),
        threads=usable_cores(),
        samples=samples,
        nbytes=nbytes,
        seconds_median=median,
        seconds_sem=sem(walls),
        seconds_min=min(walls),
        seconds_max=max(walls),
        msamples_per_s=samples / median / 1e6,
        copy_gb_per_s=setting.copy_gb_per_s,
        ratio_to_copy=nbytes / median / 1e9 / setting.copy_gb_per_s,
        ratio_to_host=host / median,
        largest_difference=largest,
        flags_differ=flags_differ,
        agrees=largest <= AGREEMENT and not flags_differ,
        stages=runs[-1][1],
        alone=alone,
        shares=shares(alone) if alone else {},
        overlap=median / max(alone.values()) if alone else None,
        messages=runs[-1][2],
        folder=place,
        host=harness.device_name(),
        device=harness.device_name() if io == "cpu" else slug(setting.card.device),
        date=harness.now(),
        versions={**harness.versions(), "zarr": zarr.__version__},
    )


def show(results: Sequence[ChainResult], console: Console, note: str) -> None:
    """Print a table of results, and the stages below."""
    card = next(r.device for r in results if r.io != "cpu")
    table = Table(title=f"nights: {card} against {results[0].host}{note}")
    table.add_column("night")
    for heading in (
        *("in", "io", "Msamples", "s", "min-max", "SEM", "Msamples/s", "x host", "of copy"),
        *("overlap", "difference", "flags differ"),
    ):
        table.add_column(heading, justify="right")
    for r in results:
        table.add_row(
            r.case,
            r.folder,
            r.io,
            f"{r.samples / 1e6:.3g}",
            f"{r.seconds_median:.3g}",
            f"{r.seconds_min:.3g}-{r.seconds_max:.3g}",
            f"{r.seconds_sem:.2g}",
            f"{r.msamples_per_s:.0f}",
            f"{r.ratio_to_host:.2f}",
            f"{r.ratio_to_copy:.4f}",
            "" if r.overlap is None else f"{r.overlap:.2f}",
            f"{r.largest_difference:.1e}",
            str(r.flags_differ),
        )
    console.print(table)
    for r in results:
        if r.alone:
            parts = (f"{k} {v:.3g} s ({r.shares[k]:.0%})" for k, v in r.alone.items())
            console.print(f"{r.case}, io {r.io}, each stage alone: {', '.join(parts)}")
        for text in r.messages:
            console.print(f"{r.case}, io {r.io}: {text}")


def on_in_time(name: str, size: str, pace: float, left: float) -> int:
    """ON subscans of a scan that are measured in ``left`` seconds, at ``pace`` seconds per sample; 0: none."""
    *_, n_on, scans = NIGHTS[size][name]
    if left <= 0:
        return 0
    per_on = pace * samples_per_on(name, size) * scans
    return min(n_on, int(left / per_on)) if per_on else n_on


def run_bench(
    setting: Setting, until: float, results: Path | None, only: Sequence[str] = ()
) -> tuple[list[ChainResult], int]:
    """Measure every night until the time is up; returns the results and how many failed.

    What is measured is saved at once. A night has as many ON subscans as end in time at the slowest pace
    so far, and is left out, which is said, where there is time for none. only: these nights.
    """
    found: list[ChainResult] = []
    failed, pace = 0, 0.0
    for codec in CODECS[setting.size]:
        for name in only or NIGHTS[setting.size]:
            begin = time.monotonic()
            n_on = on_in_time(name, setting.size, pace, until - begin)
            if n_on < 1:
                print(f"{name} {codec}: left out, the time is up")
                continue
            try:
                new = measure(name, codec, setting, n_on)
            except NoRoom as error:
                print(f"{name} {codec}: left out: {error}")
                continue
            except Exception:
                traceback.print_exc()
                failed += 1
                continue
            pace = max(pace, (time.monotonic() - begin) / new[0].samples)
            found += new
            if results is not None:
                harness.save(new, results, slug(setting.card.device))
    return found, failed


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: ``--dry``, ``--save``, ``--results``, ``--folder``, ``--seconds``."""
    parser = argparse.ArgumentParser(description="Nights on a card and on its host.")
    parser.add_argument("--dry", action="store_true", help="toy nights, a device without hardware")
    parser.add_argument("--save", action="store_true", help="append to RESULTS/DEVICE.jsonl")
    parser.add_argument("--results", type=Path, default=harness.RESULTS)
    parser.add_argument("--folder", type=Path, help="where to write; default: memory, if it fits")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no night that ends later")
    parser.add_argument("--only", nargs="+", choices=list(PIXELS), default=[], help="these nights")
    options = parser.parse_args(argv)
    if options.save and options.dry:
        parser.error("--save is for a card, not for --dry.")
    until = time.monotonic() + options.seconds
    size = "toy" if options.dry else "full"
    try:
        card: Card = host_card() if options.dry else cuda_card(size)
        first = fake_card() if options.dry else select_backend("cuda")
        rate = copy_rate(card, size)
    except BackendError as error:
        print(error, file=sys.stderr)
        return 1
    setting = Setting(size, first, select_backend("cpu"), rate, options.folder)
    console = Console(width=None if sys.stdout.isatty() else 160)
    place = options.results if options.save else None
    results, failed = run_bench(setting, until, place, options.only)
    if results:
        show(results, console, f" ({DRY_NOTE})" if options.dry else "")
    for r in results:
        if not r.agrees:
            print(
                f"{r.case}, io {r.io}: the results differ by {r.largest_difference:.1e}, "
                f"{r.flags_differ} flags"
            )
            failed += 1
    if options.dry:
        print(DRY_NOTE)
    return 1 if failed else 0


if __name__ == "__main__":
    # Stopped at its limit it still removes its stores: the next stage needs their memory.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
