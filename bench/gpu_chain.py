"""Whole nights, L0 store to L1 store: the card against all cores of its host, in turns.

    python -m bench.gpu_chain --save          on a machine with a card
    python -m bench.gpu_chain --dry           toy nights, the host against itself: measures nothing

Both must write the same flags and, to ``AGREEMENT``, the same spectra; else the exit status is 1.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from rich.console import Console
from rich.table import Table

from bench import harness
from bench.bench_gpu import DRY_NOTE
from bench.bench_io import SHARED_MEMORY, work_folder
from bench.gpu_card import slug
from gpucal.backend import Backend, select_backend
from gpucal.config import load_config
from gpucal.errors import BackendError
from gpucal.pipeline.batch import calibrate_store
from gpucal.simulate import simulate_night
from gpucal.simulate.presets import preset

AGREEMENT = 1e-12
"""Largest difference of two spectra, relative to the larger of the sample and the rms around it."""

REPEATS = {"toy": 1, "full": 3}
CODECS = {"toy": ("zstd:1",), "full": ("none", "zstd:1")}
NIGHTS = {
    "toy": {"upgreat": (64, 4, 2, 2), "chai": (32, 3, 2, 1)},
    "full": {"upgreat": (16384, 20, 6, 3), "chai": (16384, 16, 4, 2)},
}
"""Channels, dumps, ON subscans, scans; upgreat 2 x 7 pixels, chai 2 bands of 64."""


@dataclass(frozen=True)
class ChainResult:
    """One night with one codec; seconds are per night, ``other`` is the host."""

    bench: str
    case: str
    size: str
    repeats: int
    threads: int
    samples: int
    seconds_median: float
    seconds_min: float
    seconds_max: float
    msamples_per_s: float
    host_seconds_median: float
    host_seconds_min: float
    host_seconds_max: float
    host_msamples_per_s: float
    ratio_to_host: float
    largest_difference: float
    flags_differ: int
    agrees: bool
    stages: dict[str, float]
    host_stages: dict[str, float]
    """Milliseconds of each stage, summed over the scans, of the last repeat."""
    folder: str
    host: str
    device: str
    date: str
    versions: dict[str, str]


@dataclass
class Night:
    """One simulated L0 store and the options it is calibrated with."""

    folder: Path
    codec: str

    def simulate(self, name: str, size: str) -> None:
        """Write the L0 store and the table of its atmosphere."""
        channels, dumps, n_on, scans = NIGHTS[size][name]
        setup = preset(name, channels=channels, dumps=dumps, n_on=n_on)
        simulate_night(
            self.folder / "l0", setup, scans, codec=self.codec, table_out=self.folder / "table.npz"
        )

    def calibrate(self, backend: Backend, out: str) -> tuple[float, dict[str, float]]:
        """Calibrate into ``out``; returns the wall time and the milliseconds of each stage."""
        target = self.folder / out
        shutil.rmtree(target, ignore_errors=True)
        config = load_config(None, codec=self.codec, atmosphere=str(self.folder / "table.npz"))
        reports: list[Any] = []
        wall = harness.seconds(
            lambda: reports.append(
                calibrate_store(self.folder / "l0", target, config, backend=backend)
            )
        )
        if reports[0].failures:
            raise RuntimeError(reports[0].failures[0].sentence)
        stages: dict[str, float] = {}
        for summary in reports[0].summaries:
            for stage, spent in summary.timing.items():
                stages[stage] = stages.get(stage, 0.0) + spent
        return wall, stages


def pairs(one: Path, other: Path, name: str) -> Iterator[tuple[Any, Any]]:
    """Pieces of all arrays called ``name`` in two stores. Raises ValueError when they do not match."""
    stores = [zarr.open_group(path, mode="r") for path in (one, other)]
    found = [
        {key: array for key, array in store.members(max_depth=None) if key.endswith(f"/{name}")}
        for store in stores
    ]
    if not found[0] or found[0].keys() != found[1].keys():
        raise ValueError(f"the stores hold {sorted(found[0])} and {sorted(found[1])}.")
    for key in sorted(found[0]):
        first, second = (arrays[key] for arrays in found)
        if first.shape != second.shape:
            raise ValueError(f"{key} has shapes {first.shape} and {second.shape}.")
        for s in range(first.shape[-1]):
            yield np.asarray(first[..., s]), np.asarray(second[..., s])


def difference(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """Largest |a - b| over max(|b|, rms of b); infinite when one is NaN where the other is not."""
    seen = np.isfinite(b)
    if not np.array_equal(np.isfinite(a), seen):
        return float("inf")
    if not seen.any():
        return 0.0
    values = b[seen]
    scale = np.maximum(np.abs(values), np.sqrt(np.mean(values * values)))
    return float(np.max(np.abs(a[seen] - values) / np.maximum(scale, np.finfo(float).tiny)))


def compare(one: Path, other: Path) -> tuple[int, float, int]:
    """Samples of spectra, their largest difference, and the number of flags that differ."""
    samples, largest = 0, 0.0
    for a, b in pairs(one, other, "spectra"):
        samples += a.size
        largest = max(largest, difference(a, b))
    return samples, largest, sum(int((a != b).sum()) for a, b in pairs(one, other, "flags"))


def measure(
    name: str, codec: str, size: str, backends: tuple[Backend, Backend], chosen: Path | None
) -> ChainResult:
    """Calibrate one night with both backends in turns, after a warm-up of each."""
    channels, dumps, n_on, scans = NIGHTS[size][name]
    pixels = {"upgreat": 14, "chai": 128}[name]
    with work_folder(channels * dumps * pixels * n_on * scans * 40, chosen) as folder:
        night = Night(folder, codec)
        night.simulate(name, size)
        for backend in backends:
            night.calibrate(backend, "warm-up")
        shutil.rmtree(folder / "warm-up")
        walls: tuple[list[float], list[float]] = ([], [])
        stages: list[dict[str, float]] = [{}, {}]
        for _ in range(REPEATS[size]):
            for i, backend in enumerate(backends):
                wall, stages[i] = night.calibrate(backend, f"l1-{i}")
                walls[i].append(wall)
        samples, largest, flags_differ = compare(folder / "l1-0", folder / "l1-1")
        place = "memory" if SHARED_MEMORY in folder.parents else "disk"
    card, host = (statistics.median(w) for w in walls)
    return ChainResult(
        bench="gpu_chain",
        case=f"{name} {codec}",
        size=size,
        repeats=len(walls[0]),
        threads=harness.usable_cores(),
        samples=samples,
        seconds_median=card,
        seconds_min=min(walls[0]),
        seconds_max=max(walls[0]),
        msamples_per_s=samples / card / 1e6,
        host_seconds_median=host,
        host_seconds_min=min(walls[1]),
        host_seconds_max=max(walls[1]),
        host_msamples_per_s=samples / host / 1e6,
        ratio_to_host=host / card,
        largest_difference=largest,
        flags_differ=flags_differ,
        agrees=largest <= AGREEMENT and not flags_differ,
        stages=stages[0],
        host_stages=stages[1],
        folder=place,
        host=harness.device_name(),
        device=slug(backends[0].device),
        date=harness.now(),
        versions={**harness.versions(), "zarr": zarr.__version__},
    )


def show(results: Sequence[ChainResult], console: Console, note: str) -> None:
    """Print a table of results."""
    first = results[0]
    table = Table(title=f"nights in {first.folder}: {first.device} against {first.host}{note}")
    table.add_column("night")
    for heading in (
        *("Msamples", "card s", "min-max", "Msamples/s", "host s", "min-max", "Msamples/s"),
        *("x host", "difference", "flags differ"),
    ):
        table.add_column(heading, justify="right")
    for r in results:
        table.add_row(
            r.case,
            f"{r.samples / 1e6:.3g}",
            f"{r.seconds_median:.3g}",
            f"{r.seconds_min:.3g}-{r.seconds_max:.3g}",
            f"{r.msamples_per_s:.0f}",
            f"{r.host_seconds_median:.3g}",
            f"{r.host_seconds_min:.3g}-{r.host_seconds_max:.3g}",
            f"{r.host_msamples_per_s:.0f}",
            f"{r.ratio_to_host:.2f}",
            f"{r.largest_difference:.1e}",
            str(r.flags_differ),
        )
    console.print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: ``--dry``, ``--save``, ``--results FOLDER``, ``--folder FOLDER``."""
    parser = argparse.ArgumentParser(description="Nights on a card and on its host.")
    parser.add_argument("--dry", action="store_true", help="toy nights, cpu against cpu")
    parser.add_argument("--save", action="store_true", help="append to RESULTS/DEVICE.jsonl")
    parser.add_argument("--results", type=Path, default=harness.RESULTS)
    parser.add_argument("--folder", type=Path, help="where to write; default: memory, if it fits")
    options = parser.parse_args(argv)
    if options.save and options.dry:
        parser.error("--save is for a card, not for --dry.")
    size = "toy" if options.dry else "full"
    try:
        backends = (select_backend("cpu" if options.dry else "cuda"), select_backend("cpu"))
    except BackendError as error:
        print(error, file=sys.stderr)
        return 1
    console = Console(width=None if sys.stdout.isatty() else 140)
    results: list[ChainResult] = []
    failed = 0
    for name in NIGHTS[size]:
        for codec in CODECS[size]:
            try:
                result = measure(name, codec, size, backends, options.folder)
            except Exception:
                traceback.print_exc()
                failed += 1
                continue
            results.append(result)
            # At once: what is measured is kept when the time is up.
            if options.save:
                harness.save([result], options.results)
    if results:
        show(results, console, f" ({DRY_NOTE})" if options.dry else "")
    for r in results:
        if not r.agrees:
            print(
                f"{r.case}: the results differ by {r.largest_difference:.1e}, {r.flags_differ} flags"
            )
            failed += 1
    if options.dry:
        print(DRY_NOTE)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
