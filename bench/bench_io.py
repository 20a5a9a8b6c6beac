"""End to end, L0 store to L1 store, against a plain Zarr copy with the same codecs.

The copy reads the ON subscans of the same L0 scan and writes arrays of L1's shapes, chunks, dtypes
and values, all with zarr-python's ordinary calls. It calibrates nothing: it is what storage costs.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from rich.console import Console
from rich.table import Table

from bench import harness
from bench.stages import StageClock
from gpucal import calibrate_store, load_config, select_backend, simulate_night
from gpucal.backend.cpu import usable_cores
from gpucal.io.chunks.codecs import ChunkEncoder
from gpucal.simulate.presets import preset
from gpucal.simulate.setup import InstrumentSetup

NAME = "io"
CODECS = ("zstd:1", "blosc-lz4", "none", "noise")
"""Codec of L0 and L1; "noise": L0 as with zstd:1, L1 rounded to its noise, with the codec that goes with that."""

REPEATS = {"toy": 2, "quick": 3, "full": 7}
SHAPES = {"toy": (64, 6, 2), "quick": (4096, 60, 10), "full": (4096, 60, 20)}
"""Channels, dumps and ON subscans of a scan of 2 x 9 pixels."""

SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class IoResult:
    """One codec; seconds are per scan, without the sync to disk, which ``*sync`` give.

    bits: of a sample in the chunk files of the spectra; bits_of_scan: in all files of the scan.
    """

    bench: str
    case: str
    size: str
    threads: int
    repeats: int
    samples: int
    bits: float
    bits_of_scan: float
    seconds_median: float
    seconds_min: float
    seconds_max: float
    sync: float
    plain_seconds_median: float
    plain_seconds_min: float
    plain_seconds_max: float
    plain_sync: float
    ratio_to_plain: float
    ratio_to_plain_synced: float
    msamples_per_s: float
    plain_msamples_per_s: float
    cpu_seconds: float
    plain_cpu_seconds: float
    stages: dict[str, float]
    """Share of the processor time of a calibration."""
    folder: str
    device: str
    date: str
    versions: dict[str, str]


@contextmanager
def work_folder(needed: int, chosen: Path | None = None) -> Iterator[Path]:
    """An empty folder with room for ``needed`` bytes, in memory if possible; removed at the end."""
    place = chosen
    if place is None and SHARED_MEMORY.is_dir():
        room = shutil.disk_usage(SHARED_MEMORY).free
        place = SHARED_MEMORY if room > 2 * needed else None
    folder = Path(tempfile.mkdtemp(prefix="gpucal-bench-", dir=place))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def hera(size: str) -> InstrumentSetup:
    """The instrument whose one total-power scan is calibrated: 2 x 9 pixels, 3 OFF, HOT, COLD."""
    channels, dumps, n_on = SHAPES[size]
    setup = preset("hera", channels=channels, dumps=dumps, n_on=n_on, sky="isothermal")
    timing = replace(setup.timing, on_per_off=-(-n_on // 2))
    return replace(setup, timing=timing, kinds=("tp",))


class Night:
    """One L0 store of one scan with noisy i32 counts, and what is done with it."""

    def __init__(self, folder: Path, size: str, codec: str, workers: int) -> None:
        self.l0, self.l1, self.copied = folder / "l0", folder / "l1", folder / "copied"
        self.table = folder / "table.npz"
        setup = hera(size)
        compact = codec == "noise"
        raw = "zstd:1" if compact else codec
        chosen = {"precision": "noise"} if compact else {"codec": codec}
        simulate_night(self.l0, setup, 1, codec=raw, table_out=self.table)
        self.config = load_config(None, workers=workers, atmosphere=str(self.table), **chosen)
        self.codec = self.config.codec
        self.backend = select_backend("cpu")
        self.arrays: dict[str, zarr.Array[Any]] = {}
        self.values: dict[str, list[Any]] = {}

    def calibrate(self) -> None:
        """Read the store, calibrate its scan and write the L1 store."""
        report = calibrate_store(self.l0, self.l1, self.config, backend=self.backend)
        if report.failures:
            raise RuntimeError(report.failures[0].message)

    def clean(self) -> None:
        """Remove the output; not part of any measured time."""
        for path in (self.l1, self.copied):
            shutil.rmtree(path, ignore_errors=True)

    def bits(self, below: str) -> float:
        """Bits in the files of the L1 scan that lie below ``below``, for each of its samples."""
        files = [p for p in (self.l1 / "scan_000001" / below).rglob("*") if p.is_file()]
        samples = sum(values.size for values in self.values["spectra"])
        return 8.0 * sum(p.stat().st_size for p in files) / samples

    def remember(self) -> int:
        """Keep the values of the L1 store, so that the copy encodes the same; returns samples."""
        scan = zarr.open_group(self.l1 / "scan_000001", mode="r")
        for name in ("spectra", "flags", "t_sys"):
            array = scan[name]
            assert isinstance(array, zarr.Array)
            self.arrays[name] = array
            self.values[name] = [
                np.ascontiguousarray(array[..., s]) for s in range(array.shape[-1])
            ]
        return int(np.prod(self.arrays["spectra"].shape))

    def copy(self) -> None:
        """Read the ON subscans and write the remembered values, the ordinary way of zarr-python."""
        source = zarr.open_group(self.l0, mode="r")["scan_000001/source"]
        assert isinstance(source, zarr.Group)
        counts = source["data_5d"]
        assert isinstance(counts, zarr.Array)
        modes = source.attrs["sobsmode"]
        assert isinstance(modes, list)
        scan = zarr.open_group(self.copied, mode="w").create_group("scan_000001")
        written = {}
        for name, array in self.arrays.items():
            serializer, *compressors = ChunkEncoder(self.codec, array.dtype).zarr_codecs()
            written[name] = scan.create_array(
                name,
                shape=array.shape,
                chunks=array.chunks,
                dtype=array.dtype,
                serializer=serializer,
                compressors=compressors,
            )
        for output, subscan in enumerate(i for i, mode in enumerate(modes) if mode == "ON"):
            counts[..., subscan]
            for name, values in self.values.items():
                written[name][..., output] = values[output]


@dataclass
class _Times:
    """Seconds of each repeat: wall and processor time without the sync, and the sync."""

    wall: list[float]
    cpu: list[float]
    sync: list[float]


def time_one(run: Callable[[], None], clean: Callable[[], None], times: _Times) -> None:
    """Time one repeat; its output is then synced, which is timed separately."""
    clean()
    clock = StageClock(("sync",))
    with clock:
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    sync = clock.wall["sync"]
    times.wall.append(wall - sync)
    times.cpu.append(cpu)
    times.sync.append(sync)


def measure(folder: Path, size: str, codec: str, workers: int) -> IoResult:
    """Time calibration and copy in turns, after one warm-up of each."""
    from gpucal.io.files import atomic

    night = Night(folder, size, codec, workers)
    night.calibrate()
    samples = night.remember()
    bits, bits_of_scan = night.bits("spectra/c"), night.bits("")
    night.copy()

    def copy_and_sync() -> None:
        night.copy()
        atomic.sync_tree(night.copied)

    own, plain = _Times([], [], []), _Times([], [], [])
    for _ in range(REPEATS[size]):
        time_one(night.calibrate, night.clean, own)
        time_one(copy_and_sync, night.clean, plain)
    night.clean()
    stages = StageClock()
    with stages:
        start = time.process_time()
        night.calibrate()
        spent = time.process_time() - start
    night.clean()
    ours, theirs = statistics.median(own.wall), statistics.median(plain.wall)
    sync, plain_sync = statistics.median(own.sync), statistics.median(plain.sync)
    return IoResult(
        bench=NAME,
        case=codec,
        size=size,
        threads=workers,
        repeats=len(own.wall),
        samples=samples,
        bits=bits,
        bits_of_scan=bits_of_scan,
        seconds_median=ours,
        seconds_min=min(own.wall),
        seconds_max=max(own.wall),
        sync=sync,
        plain_seconds_median=theirs,
        plain_seconds_min=min(plain.wall),
        plain_seconds_max=max(plain.wall),
        plain_sync=plain_sync,
        ratio_to_plain=ours / theirs,
        ratio_to_plain_synced=(ours + sync) / (theirs + plain_sync),
        msamples_per_s=samples / ours / 1e6,
        plain_msamples_per_s=samples / theirs / 1e6,
        cpu_seconds=statistics.median(own.cpu),
        plain_cpu_seconds=statistics.median(plain.cpu),
        stages=stages.shares(spent),
        folder="memory" if SHARED_MEMORY in folder.parents else "disk",
        device=harness.device_name(),
        date=harness.now(),
        versions={**harness.versions(), "zarr": zarr.__version__},
    )


def run_bench(
    size: str, codecs: Sequence[str] = CODECS, workers: int = 0, folder: Path | None = None
) -> list[IoResult]:
    """Measure every codec; each gets a fresh folder."""
    channels, dumps, n_on = SHAPES[size]
    results = []
    for codec in codecs:
        with work_folder(channels * dumps * 18 * n_on * 40, folder) as place:
            results.append(measure(place, size, codec, workers or usable_cores()))
    return results


def show(results: Sequence[IoResult], console: Console) -> None:
    """Print a table of results, and where the processor time of each went."""
    first = results[0]
    table = Table(
        title=f"L0 to L1 in {first.folder} on {first.device}, {first.threads} workers, "
        f"{first.samples / 1e6:.3g} Msamples"
    )
    table.add_column("codec")
    for heading in (
        "s",
        "min-max",
        "plain s",
        "min-max",
        "ratio",
        "Msamples/s",
        "cpu s",
        "plain",
        "bits",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for r in results:
        table.add_row(
            r.case,
            f"{r.seconds_median:.3g}",
            f"{r.seconds_min:.3g}-{r.seconds_max:.3g}",
            f"{r.plain_seconds_median:.3g}",
            f"{r.plain_seconds_min:.3g}-{r.plain_seconds_max:.3g}",
            f"{r.ratio_to_plain:.2f}",
            f"{r.msamples_per_s:.1f}",
            f"{r.cpu_seconds:.3g}",
            f"{r.plain_cpu_seconds:.3g}",
            f"{r.bits:.1f}",
        )
    console.print(table)
    for r in results:
        shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in r.stages.items())
        console.print(f"{r.case}: {shares}")
        console.print(
            f"    sync {r.sync:.2g} s, plain {r.plain_sync:.2g} s: ratio {r.ratio_to_plain_synced:.2f}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: ``--quick``, ``--toy``, ``--codec``, ``--workers``, ``--folder``, ``--save``."""
    parser = argparse.ArgumentParser(description=__doc__)
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--quick", action="store_true", help="half the scan, fewer repeats")
    group.add_argument("--toy", action="store_true", help="seconds only; times mean nothing")
    parser.add_argument("--codec", action="append", choices=CODECS, help="may be repeated")
    parser.add_argument("--workers", type=int, default=0, help="threads; 0 = one per core")
    parser.add_argument("--folder", type=Path, help="where to write; default: memory, if it fits")
    parser.add_argument("--save", action="store_true", help="append to bench/results/DEVICE.jsonl")
    options = parser.parse_args(argv)
    size = "toy" if options.toy else "quick" if options.quick else "full"
    console = Console(width=None if sys.stdout.isatty() else 120)
    results = run_bench(size, options.codec or CODECS, options.workers, options.folder)
    show(results, console)
    if options.save:
        console.print(f"added to {harness.save(results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
