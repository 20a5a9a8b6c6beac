"""Times kernels as ratios: against a memory copy, naive NumPy and scalar Python, in one run.

Absolute times of a shared machine say little. So every case is timed in turns with a threaded
``np.copyto`` of large arrays (the most the memory can do) and with the naive NumPy statement, and
both ratios are kept with the spread of the repeats.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from rich.console import Console
from rich.table import Table

import gpucal
from cpu_fallback import NumpyKernels
from gpucal.backend.cpu import usable_cores

RESULTS = Path(__file__).parent / "results"
SIZES = ("toy", "quick", "full")
REPEATS = {"toy": 2, "quick": 7, "full": 15}
COPY_BYTES = {"toy": 1 << 20, "quick": 1 << 27, "full": 1 << 28}


@dataclass(frozen=True)
class Case:
    """One shape of one kernel: what is timed, and what it is measured against."""

    name: str
    samples: int
    nbytes: int
    """Bytes that must be read and written, however it is done."""
    run: Callable[[], object]
    naive: Callable[[], object]
    oracle: Callable[[], object]
    """The scalar loops on a small piece of ``oracle_samples``."""
    oracle_samples: int


@dataclass(frozen=True)
class Result:
    """One line of the results file; seconds are per call."""

    bench: str
    case: str
    size: str
    threads: int
    repeats: int
    seconds_median: float
    seconds_min: float
    seconds_max: float
    msamples_per_s: float
    gb_per_s: float
    copy_gb_per_s: float
    ratio_to_copy: float
    ratio_to_naive: float
    ratio_to_oracle: float
    device: str
    date: str
    versions: dict[str, str]


class Saved(Protocol):
    """Any dataclass that names the machine it was measured on."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def device(self) -> str: ...


Cases = Callable[[str, NumpyKernels], Iterator[Case]]
"""Makes the cases of a size ("toy", "quick", "full"), one after the other to save memory."""


def device_name() -> str:
    """Model of the processor and number of usable cores, e.g. ``"amd-epyc-2-cores"``."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        model = found.group(1) if found else model
    words = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")
    return f"{words}-{usable_cores()}-cores"


class Copy:
    """A copy between large arrays with as many threads as the kernel has."""

    def __init__(self, size: str, threads: int) -> None:
        self.source = np.ones(COPY_BYTES[size] // 8)
        self.target = np.zeros_like(self.source)
        self.nbytes = 2 * self.source.nbytes
        edges = np.linspace(0, self.source.size, threads + 1).astype(int)
        self._parts = [slice(a, b) for a, b in pairwise(edges)]
        self._pool = ThreadPoolExecutor(threads)

    def run(self) -> None:
        """Copy once."""
        list(self._pool.map(self._part, self._parts))

    def _part(self, part: slice) -> None:
        np.copyto(self.target[part], self.source[part])


def seconds(run: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(bench: str, case: Case, copy: Copy, size: str, threads: int) -> Result:
    """Time a case, the copy and the naive way in turns, after one warm-up of each."""
    rounds = (case.run, copy.run, case.naive)
    for run in rounds:
        run()
    times = np.array([[seconds(run) for run in rounds] for _ in range(REPEATS[size])])
    own, copied, naive = (float(statistics.median(column)) for column in times.T)
    oracle = seconds(case.oracle)
    return Result(
        bench=bench,
        case=case.name,
        size=size,
        threads=threads,
        repeats=len(times),
        seconds_median=own,
        seconds_min=float(times[:, 0].min()),
        seconds_max=float(times[:, 0].max()),
        msamples_per_s=case.samples / own / 1e6,
        gb_per_s=case.nbytes / own / 1e9,
        copy_gb_per_s=copy.nbytes / copied / 1e9,
        ratio_to_copy=(case.nbytes / own) / (copy.nbytes / copied),
        ratio_to_naive=naive / own,
        ratio_to_oracle=(oracle / case.oracle_samples) / (own / case.samples),
        device=device_name(),
        date=now(),
        versions=versions(),
    )


def now() -> str:
    """Date and time of a result, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "gpucal": gpucal.__version__,
    }


def run_bench(bench: str, cases: Cases, size: str, threads: Sequence[int]) -> list[Result]:
    """Measure all cases of a bench with each number of threads."""
    results = []
    for count in threads:
        copy = Copy(size, count)
        kernels = NumpyKernels(threads=count)
        results += [measure(bench, case, copy, size, count) for case in cases(size, kernels)]
    return results


def show(results: Sequence[Result], console: Console) -> None:
    """Print a table of results."""
    table = Table(title=f"{results[0].bench} on {results[0].device}, medians of one run")
    table.add_column("case")
    for heading in (
        "threads",
        "ms",
        "min-max",
        "Msamples/s",
        "GB/s",
        "of copy",
        "x naive",
        "x loop",
    ):
        table.add_column(heading, justify="right")
    for r in results:
        table.add_row(
            r.case,
            str(r.threads),
            f"{r.seconds_median * 1e3:.3g}",
            f"{r.seconds_min * 1e3:.3g}-{r.seconds_max * 1e3:.3g}",
            f"{r.msamples_per_s:.0f}",
            f"{r.gb_per_s:.3g}",
            f"{r.ratio_to_copy:.2f}",
            f"{r.ratio_to_naive:.1f}",
            f"{r.ratio_to_oracle:.0f}",
        )
    console.print(table)


def save(results: Sequence[Saved], folder: Path = RESULTS, name: str = "") -> Path:
    """Append results as JSON lines to the file of this device, or ``name``; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name or results[0].device}.jsonl"
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(result)) + "\n" for result in results)
    return path


def main(benches: dict[str, Cases], argv: Sequence[str] | None = None) -> int:
    """Command line of one bench or of all: ``--quick``, ``--toy``, ``--threads N``, ``--save``."""
    parser = argparse.ArgumentParser(description="Throughput of gpucal's kernels, as ratios.")
    if len(benches) > 1:
        parser.add_argument("bench", nargs="*", help=f"of {', '.join(benches)}; all when none")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--quick", action="store_true", help="fewer and smaller cases, < 1 minute")
    group.add_argument("--toy", action="store_true", help="seconds only; times mean nothing")
    parser.add_argument("--threads", type=int, action="append", help="may be repeated")
    parser.add_argument("--save", action="store_true", help="append to bench/results/DEVICE.jsonl")
    options = parser.parse_args(argv)
    chosen = getattr(options, "bench", []) or list(benches)
    unknown = sorted(set(chosen) - set(benches))
    if unknown:
        parser.error(f"no bench called {', '.join(unknown)}; there are {', '.join(benches)}.")
    size = "toy" if options.toy else "quick" if options.quick else "full"
    threads = options.threads or sorted({1, usable_cores()})
    console = Console(width=None if sys.stdout.isatty() else 120)
    for name in chosen:
        results = run_bench(name, benches[name], size, threads)
        show(results, console)
        if options.save:
            console.print(f"added to {save(results)}")
    return 0
