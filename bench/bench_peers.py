"""Bench against other programs: dysh, a plain NumPy script and gpucal on equally many samples.

dysh reads SDFITS and calibrates position switching with a noise diode; the others read a Zarr L0
store and calibrate total power with hot and cold loads. The inputs differ in format, and each
program does what it is made for, so the samples that come in and those that go out are both
counted. dysh writes f32 without compression: "gpucal none f32" does the same.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import harness
from bench.bench_io import work_folder
from bench.gbt_file import write_gbt_file
from gpucal import simulate_night
from gpucal.backend.cpu import usable_cores
from gpucal.simulate.presets import preset
from gpucal.simulate.setup import InstrumentSetup

NAME = "peers"
SIZES = {"toy": (4, 256), "quick": (100, 16384), "full": (250, 16384)}
"""Dumps of a subscan and channels; there are SUBSCANS of them."""

SUBSCANS, ON_SUBSCANS = 16, 10
"""The others are 4 OFF, HOT and COLD."""

REPEATS = {"toy": 1, "quick": 3, "full": 5}
VENV = Path(__file__).parent.parent / ".venv-dysh"
SESSIONS = Path(__file__).with_name("peer_sessions.py")


@dataclass(frozen=True)
class PeerResult:
    """One program; seconds are those of fresh processes, without their imports."""

    bench: str
    case: str
    size: str
    threads: int
    repeats: int
    samples: int
    seconds_median: float
    seconds_min: float
    seconds_max: float
    msamples_per_s: float
    """Samples that came in."""
    calibrated_msamples_per_s: float
    """Samples that went out: dysh makes one spectrum of four, the others use 6 of 16 as reference."""
    ratio_to_dysh: float | None
    """Samples in per second over those of dysh."""
    calibrated_ratio_to_dysh: float | None
    peak_bytes: float
    peak_bytes_per_sample: float
    device: str
    date: str
    versions: dict[str, str]


def one_pixel(size: str) -> InstrumentSetup:
    """A single-pixel receiver with as many dumps and channels as the SDFITS file has rows."""
    dumps, channels = SIZES[size]
    setup = preset("superc", channels=channels, dumps=dumps, n_on=10, sky="isothermal")
    timing = replace(setup.timing, on_per_off=4, cal_dumps=dumps)
    return replace(setup, timing=timing, kinds=("tp",), pixels=1)


def dysh_python(venv: Path, console: Console) -> Path:
    """The interpreter of an environment of dysh's own, made on the first call."""
    python = venv / "bin" / "python"
    if not python.exists():
        console.print(f"installing dysh into {venv}")
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "dysh", "pandas<3"]
        subprocess.run(pip, check=True)
    return python


def session(python: str, *arguments: str) -> tuple[float, float]:
    """Seconds and peak bytes of one session in a process of its own."""
    command = [python, str(SESSIONS), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{arguments[0]} failed:\n{done.stderr[-2000:]}")
    answer = json.loads(done.stdout.splitlines()[-1])
    return float(answer["seconds"]), float(answer["peak_bytes"])


def package_version(python: Path | str, package: str) -> str:
    """Version of a package in another environment."""
    code = f"from importlib.metadata import version; print(version({package!r}))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def run_bench(
    size: str, console: Console, *, venv: Path | None = VENV, folder: Path | None = None
) -> list[PeerResult]:
    """Time the peers in turns; without ``venv`` dysh is left out."""
    dumps, channels = SIZES[size]
    samples = SUBSCANS * dumps * channels
    python = dysh_python(venv, console) if venv is not None else None
    with work_folder(samples * 40, folder) as place:
        fits, table, out = place / "in.fits", place / "table.npz", place / "out"
        for codec in ("zstd:1", "none"):
            simulate_night(place / codec, one_pixel(size), 1, codec=codec, table_out=table)
        sessions: dict[str, tuple[str, ...]] = {
            f"gpucal {codec} {dtype}": (
                *(sys.executable, "gpucal", str(place / codec), str(out), str(table)),
                *(codec, dtype),
            )
            for codec, dtype in (("zstd:1", "f64"), ("none", "f32"))
        }
        sessions["numpy zstd:1 f64"] = (sys.executable, "numpy", str(place / "zstd:1"), str(out))
        if python is not None:
            write_gbt_file(fits, SUBSCANS * dumps, channels)
            sessions["dysh"] = (str(python), "dysh", str(fits), str(out))
        found: dict[str, list[tuple[float, float]]] = {peer: [] for peer in sessions}
        for _ in range(REPEATS[size]):
            for peer, (interpreter, *arguments) in sessions.items():
                found[peer].append(session(interpreter, *arguments))
                if out.is_dir():
                    shutil.rmtree(out)
                else:
                    out.unlink()
    versions = harness.versions()
    if python is not None:
        versions["dysh"] = package_version(python, "dysh")
    results = [_result(peer, size, samples, runs, versions) for peer, runs in found.items()]
    return [_compared(result, results[-1]) if python is not None else result for result in results]


def _compared(result: PeerResult, dysh: PeerResult) -> PeerResult:
    """``result`` with its speed as a ratio to dysh's."""
    return replace(
        result,
        ratio_to_dysh=result.msamples_per_s / dysh.msamples_per_s,
        calibrated_ratio_to_dysh=(
            result.calibrated_msamples_per_s / dysh.calibrated_msamples_per_s
        ),
    )


def _result(
    peer: str,
    size: str,
    samples: int,
    runs: Sequence[tuple[float, float]],
    versions: dict[str, str],
) -> PeerResult:
    """Summary of the (seconds, peak bytes) of one peer; a quarter (dysh) or the ON share of samples is calibrated."""
    times = [seconds for seconds, _ in runs]
    peak = max(found for _, found in runs)
    median = statistics.median(times)
    calibrated = 0.25 if peer == "dysh" else ON_SUBSCANS / SUBSCANS
    return PeerResult(
        bench=NAME,
        case=peer,
        size=size,
        threads=usable_cores() if peer.startswith("gpucal") else 1,
        repeats=len(runs),
        samples=samples,
        seconds_median=median,
        seconds_min=min(times),
        seconds_max=max(times),
        msamples_per_s=samples / median / 1e6,
        calibrated_msamples_per_s=calibrated * samples / median / 1e6,
        ratio_to_dysh=None,
        calibrated_ratio_to_dysh=None,
        peak_bytes=peak,
        peak_bytes_per_sample=peak / samples,
        device=harness.device_name(),
        date=harness.now(),
        versions=versions,
    )


def show(results: Sequence[PeerResult], console: Console) -> None:
    """Print a table of results."""
    first = results[0]
    table = Table(title=f"{first.samples / 1e6:.3g} Msamples in, on {first.device}")
    table.add_column("program")
    for heading in ("s", "min-max", "Msamples/s in", "x dysh", "out", "x dysh", "peak MB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for r in results:
        table.add_row(
            r.case,
            f"{r.seconds_median:.3g}",
            f"{r.seconds_min:.3g}-{r.seconds_max:.3g}",
            f"{r.msamples_per_s:.1f}",
            "" if r.ratio_to_dysh is None else f"{r.ratio_to_dysh:.1f}",
            f"{r.calibrated_msamples_per_s:.1f}",
            "" if r.calibrated_ratio_to_dysh is None else f"{r.calibrated_ratio_to_dysh:.1f}",
            f"{r.peak_bytes / 1e6:.0f}",
        )
    console.print(table)
    console.print("dysh reads SDFITS, the others Zarr: same number of samples, different formats.")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: ``--quick``, ``--toy``, ``--venv``, ``--no-dysh``, ``--folder``, ``--save``."""
    parser = argparse.ArgumentParser(description=__doc__)
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--quick", action="store_true", help="1600 rows instead of 4000")
    group.add_argument("--toy", action="store_true", help="seconds only; times mean nothing")
    parser.add_argument("--venv", type=Path, default=VENV, help="dysh's environment")
    parser.add_argument("--no-dysh", action="store_true", help="gpucal and NumPy alone")
    parser.add_argument("--folder", type=Path, help="where to write; default: memory, if it fits")
    parser.add_argument("--save", action="store_true", help="append to bench/results/DEVICE.jsonl")
    options = parser.parse_args(argv)
    size = "toy" if options.toy else "quick" if options.quick else "full"
    console = Console(width=None if sys.stdout.isatty() else 120)
    venv = None if options.no_dysh else options.venv
    results = run_bench(size, console, venv=venv, folder=options.folder)
    show(results, console)
    if options.save:
        console.print(f"added to {harness.save(results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
